"""A BART for another source language: what is new, what stays, and what each stage trains."""

import json

import pytest
import torch
import torch.nn.functional as F
import transformers

import exercises
import tiny
import triarch
from triarch import surgery
from triarch.cli import main
from triarch.errors import InvalidInput, NotFound, UnsafeFile, Unsupported
from triarch.inputs.text.train_vocabulary import save_vocabulary, train_vocabulary
from triarch.models import family
from triarch.training.parameters import trained

FRENCH = ["Le renard brun saute par-dessus le chien.", "Paris est la capitale de la France.", "Où est le chien brun ?"]
SIZES = {"layers": 2, "heads": 2, "intermediate_size": 40}


@pytest.fixture(scope="module")
def bart(tmp_path_factory):
    return exercises.write(tmp_path_factory.mktemp("bart"), "bart")


@pytest.fixture(scope="module")
def french(tmp_path_factory):
    folder = tmp_path_factory.mktemp("french")
    save_vocabulary(train_vocabulary(FRENCH * 3, "bpe", 300, family("bart").reads), folder)
    return folder


@pytest.fixture
def model(bart, french):
    return surgery.add_source_encoder(bart, french, **SIZES)


def source_ids(model):
    return torch.tensor([model.processor.encode(text).ids[:6] for text in FRENCH[:2]])


def test_all_but_the_source_encoder_is_bart_to_the_bit(model, bart):
    base = triarch.load(bart).state_dict()
    ours = model.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in base.items())
    assert {name.split(".")[0] for name in ours.keys() - base.keys()} == {"source_encoder"}
    assert sorted(model.fresh) == sorted(ours.keys() - base.keys())


def test_its_first_weights_are_those_of_a_seed(bart, french):
    one, same, other = (surgery.add_source_encoder(bart, french, seed=seed, **SIZES) for seed in (1, 1, 2))
    weights = [made.source_encoder.token.weight for made in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@torch.no_grad()
def test_what_it_gives_is_as_long_as_the_vectors_it_stands_for(model):
    ids = source_ids(model)
    made = model.source_encoder(ids, torch.arange(ids.shape[1]), None)
    assert float(made.std()) == pytest.approx(float(model.token.weight.std()), rel=0.1)


def test_saved_and_loaded_it_reads_and_writes_the_same(model, tmp_path):
    surgery.save_new(model, tmp_path / "new")
    again = triarch.load(tmp_path / "new")
    assert again.architecture == "BartSourceForConditionalGeneration"
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    for text in (*FRENCH, *tiny.SENTENCES[:3]):
        assert again.processor.encode(text).ids == model.processor.encode(text).ids
        assert again.processor.target.encode(text).ids == model.processor.target.encode(text).ids
    written = triarch.generate(model, FRENCH[0], max_new_tokens=8)
    assert triarch.generate(again, FRENCH[0], max_new_tokens=8) == written
    assert written.text == model.processor.target.decode(written.ids, skip_special_tokens=True)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "num_return_sequences": 2}], ids=["greedy", "beams"])
def test_with_and_without_a_cache_it_writes_the_same(model, options):
    options = {"max_new_tokens": 7, "num_return_sequences": 1} | options

    def written(use_cache):
        rows = triarch.generate(model, FRENCH, use_cache=use_cache, **options)
        return [one.ids for row in rows for one in (row if isinstance(row, list) else [row])]

    assert written(True) == written(False)


def test_its_words_are_read_and_barts_are_written(model):
    assert model.config.vocab_size == model.processor.vocab_size == 300
    assert model.config.target_vocab_size == model.processor.target.vocab_size
    with pytest.raises(InvalidInput, match="there is no target; give decoder_input_ids"):
        model(source_ids(model))


def test_a_task_translates_with_it(model, tmp_path):
    surgery.save_new(model, tmp_path / "new")
    (found,) = triarch.pipeline("translation", model=tmp_path / "new")("Où est Paris ?", max_new_tokens=5)
    assert found.keys() == {"translation_text"}


PARTS = {
    "source": {"source_encoder"},
    "course": {"source_encoder", "source", "target", "token"},
    "paper": {"source_encoder", "source", "target", "encoder"},
}


@pytest.mark.parametrize("preset", PARTS)
def test_a_stage_changes_exactly_what_its_preset_names(model, preset):
    """Names are written out here, so that a preset can not change unseen."""
    plan = trained(model, stages=[f"@{preset}:2", "all"])
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    step(model, plan, 0)
    changed = {name for name, tensor in model.named_parameters() if not torch.equal(tensor, before[name])}
    wanted = {name for name in before if name.startswith("source_encoder.")}
    if preset in ("course", "paper"):
        wanted |= {"source.position.weight", "target.position.weight"}
    if preset == "course":
        wanted |= {"token.weight"}
    if preset == "paper":
        wanted |= {f"encoder.blocks.0.attention.{part}.{kind}" for part in "qkv" for kind in ("weight", "bias")}
    unmoved = {name for name in wanted - changed if name.endswith("attention.k.bias")}  # no score depends on it
    assert changed == wanted - unmoved
    assert {name.split(".")[0] for name in plan.at(0)} == PARTS[preset]
    assert plan.at(2) == before.keys()


def step(model, plan, number):
    """One step of plain gradient descent."""
    plan.apply(number)
    targets = torch.tensor([model.processor.target.encode(text).ids[:5] for text in tiny.SENTENCES[:2]])
    logits = model(source_ids(model), decoder_input_ids=targets).logits
    F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.grad is not None:
                tensor -= 0.1 * tensor.grad
    model.zero_grad()


def test_two_stages_are_one_training(model, tmp_path):
    surgery.save_new(model, tmp_path / "new")
    rows = [{"source": french, "target": english} for french, english in zip(FRENCH, tiny.SENTENCES, strict=False)]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = {"objective": "seq2seq", "batch_size": 3, "note": lambda line: None, "lr": 1e-2, "warmup": 0}
    options |= {"options": {"long": "truncate"}, "stages": ["@source:2", "all"]}
    base = triarch.load(tmp_path / "new").state_dict()
    changed = {}
    for steps in (2, 4):
        folder = tmp_path / str(steps)
        triarch.train(str(data), model=tmp_path / "new", output=folder, steps=steps, **options)
        after = triarch.load(folder).state_dict()
        changed[steps] = {name.split(".")[0] for name, tensor in after.items() if not torch.equal(tensor, base[name])}
    assert changed[2] == {"source_encoder"}
    assert changed[4] > {"source_encoder", "token", "encoder", "decoder", "source", "target"}


def test_the_reference_does_not_take_it_for_a_bart(model, tmp_path):
    surgery.save_new(model, tmp_path / "new")
    with pytest.raises(ValueError, match="bart-source"):
        transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "new")


# Bad input


@pytest.mark.parametrize("name", ["t5", "marian"])
def test_other_families_are_refused(name, tmp_path, french):
    with pytest.raises(Unsupported, match=f"is of the family {name}, wanted bart"):
        surgery.add_source_encoder(exercises.write(tmp_path, name), french)


def test_sizes_that_do_not_fit_are_refused(bart, french):
    with pytest.raises(InvalidInput, match="d_model 32 does not split into 5 attention heads"):
        surgery.add_source_encoder(bart, french, heads=5)


def test_a_folder_in_use_is_refused(model, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="is not empty; choose another folder"):
        surgery.save_new(model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_a_folder_without_the_other_tokenizer_is_refused(model, tmp_path):
    surgery.save_new(model, tmp_path / "new")
    for path in (tmp_path / "new" / "target_tokenizer").iterdir():
        path.unlink()
    with pytest.raises(NotFound, match="has no target_tokenizer, the tokenizer of what is written"):
        triarch.load(tmp_path / "new")


def test_a_tokenizer_that_lies_elsewhere_is_refused(model, tmp_path):
    surgery.save_new(model, tmp_path / "new")
    (tmp_path / "new" / "target_tokenizer").rename(tmp_path / "elsewhere")
    (tmp_path / "new" / "target_tokenizer").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeFile, match="is a link that leaves its folder"):
        triarch.load(tmp_path / "new")


def test_an_unknown_preset_is_refused_with_those_there_are(model, bart):
    with pytest.raises(InvalidInput, match="no preset '@papers'; there are @source, @course, @paper"):
        trained(model, stages=["@papers:3", "all"])
    with pytest.raises(InvalidInput, match="no preset '@paper', the family has none"):
        trained(torch.nn.Linear(2, 2), stages=["@paper:3", "all"])


def test_from_the_shell(bart, french, tmp_path, capsys):
    arguments = ["--tokenizer", str(french), "--layers", "1", "--heads", "2", "-o", str(tmp_path / "new"), "--json"]
    assert main(["surgery", "add-source-encoder", str(bart), *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["family"] == "bart-source"
    assert triarch.load(tmp_path / "new").config.source_layers == 1
