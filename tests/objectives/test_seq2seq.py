"""Learning to write a text from another: the reference's losses, what does not fit, what a model writes measured."""

import json
import math
import sys

import numpy as np
import pytest
import torch
import transformers

import exercises
import runs
import tiny
import triarch
from material import loss_of
from reading import learned_from_text
from triarch.data.examples import Examples
from triarch.errors import InvalidInput, Unsupported
from triarch.inputs.text.train_vocabulary import save_vocabulary, train_vocabulary
from triarch.metrics import texts
from triarch.models import family
from triarch.objectives._base import IGNORED
from triarch.objectives.distillation import Distillation
from triarch.objectives.seq2seq import Seq2Seq
from triarch.training import plan, writing
from triarch.training.learner import Learner, recompute_blocks
from triarch.training.settings import Settings

S = tiny.SENTENCES
PAIRS = [{"source": S[i], "target": " ".join(S[i].split()[:3])} for i in (0, 1, 4, 5, 6, 7, 8)]
QUIET = {"note": lambda line: None}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: exercises.write(tmp_path_factory.mktemp(name), name) for name in exercises.HEADS}


@pytest.fixture(scope="module")
def bart(folders):
    return triarch.load(folders["bart"])


def attached(model, **options):
    made = Seq2Seq(model.processor, **options)
    made.attach(model)
    return made


def examples_of(made, rows=PAIRS):
    return [example for row in rows for example in made.examples(row)]


# What is learned


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", exercises.HEADS)
def test_loss_is_the_references(name, smoothing, folders):
    ours = triarch.load(folders[name])
    theirs = getattr(transformers, exercises.HEADS[name]).from_pretrained(folders[name]).eval()
    made = attached(ours, label_smoothing=smoothing)
    batch = made.batch(examples_of(made))
    words = batch.targets["words"]
    inputs = {name: batch.inputs[name] for name in ("input_ids", "attention_mask")}
    assert torch.equal(batch.inputs["decoder_input_ids"], theirs.prepare_decoder_input_ids_from_labels(words))
    found = theirs(**inputs, labels=words)
    wanted = found.loss
    if smoothing:
        smoother = transformers.trainer_pt_utils.LabelSmoother(smoothing)
        wanted = smoother({"logits": found.logits}, words)
    torch.testing.assert_close(loss_of(made, ours, examples_of(made)), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", exercises.HEADS)
def test_sources_and_targets_are_what_their_processors_make(name, folders):
    model = triarch.load(folders[name])
    (example,) = attached(model).examples(PAIRS[0])
    assert list(example.ids) == model.processor.encode(PAIRS[0]["source"]).ids
    assert list(example.target) == model.processor.target.encode(PAIRS[0]["target"]).ids
    assert example.length == len(example.ids) + len(example.target)


def test_padding_of_targets_changes_no_loss(bart):
    made = attached(bart)
    examples = examples_of(made)
    learner = Learner(bart, made)
    together, _ = learner.measure(Examples(examples), 0)
    with torch.no_grad():
        alone = [(float(loss_of(made, bart, [one])), len(one.target)) for one in examples]
    assert together["loss"] == pytest.approx(sum(a * n for a, n in alone) / sum(n for _, n in alone), rel=1e-5)
    assert together["perplexity"] == pytest.approx(math.exp(together["loss"]), rel=1e-5)


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_pieces_and_recomputing_have_the_gradient_of_the_whole_batch(name, folders):
    found = []
    for micro_tokens, recompute in ((10_000, False), (1, False), (10_000, True)):
        model = triarch.load(folders[name]).train()
        if recompute:
            recompute_blocks(model)
        made = attached(model)
        Learner(model, made, micro_tokens=micro_tokens).gradients(examples_of(made), (1, 2))
        found.append({name: tensor.grad for name, tensor in model.named_parameters()})
    for other in found[1:]:
        for name, grad in found[0].items():
            assert (other[name] - grad).abs().max() <= 1e-5 * max(1.0, float(grad.abs().max())), name


def test_accuracy_and_bits_per_byte(bart):
    made = attached(bart, generated=0)
    examples = examples_of(made)
    batch = made.batch(examples)
    with torch.no_grad():
        logits = bart(**batch.inputs).logits
    words = batch.targets["words"]
    learned = words != IGNORED
    found, _ = Learner(bart, made).measure(Examples(examples), 0)
    size = sum(len(row["target"].encode()) for row in PAIRS)
    nats = float(torch.nn.functional.cross_entropy(logits[learned], words[learned], reduction="sum"))
    assert found["accuracy"] == pytest.approx(float((logits.argmax(-1) == words)[learned].float().mean()))
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    assert set(found) == {"loss", "perplexity", "accuracy", "bits_per_byte"}


# What does not fit


def test_what_is_too_long_is_refused_unless_cutting_is_asked_for(bart):
    long = {"source": " ".join(S[:3]), "target": "Ada"}
    with pytest.raises(InvalidInput, match=r"the source has \d+ tokens, at most 64 fit; .* ask for long=truncate"):
        attached(bart).examples(long)
    with pytest.raises(InvalidInput, match=r"the target has \d+ tokens, at most 4 fit"):
        attached(bart, max_target_tokens=4).examples(PAIRS[0])
    (example,) = attached(bart, long="truncate", max_target_tokens=4).examples(long | {"target": S[0]})
    whole, target = (bart.processor.encode(text).ids for text in (long["source"], S[0]))
    assert list(example.ids) == [*whole[:63], whole[-1]]
    assert len(example.target) == 4
    assert example.dropped == len(whole) - 64 + len(target) - 4


def test_cut_rows_are_counted_and_long_ones_named(folders, tmp_path):
    rows = [*PAIRS, {"source": " ".join(S[:4]), "target": "Ada"}]
    given = {"model": str(folders["bart"]), "objective": "seq2seq", "steps": 1, "output": tmp_path / "out"}
    with pytest.raises(InvalidInput, match="1 of 8 rows cannot be used: row 8: the source has"):
        triarch.train(rows, **given, **QUIET)
    notes = []
    triarch.train(rows, **given, options={"long": "truncate"}, note=notes.append)
    assert any(note.startswith("1 of 8 examples were cut, by ") for note in notes)


@pytest.mark.parametrize("name", ["source", "target"])
def test_a_row_that_lacks_a_text_is_named(bart, name, folders, tmp_path):
    row = {key: value for key, value in PAIRS[0].items() if key != name}
    with pytest.raises(InvalidInput, match=f"{name} is nothing, wanted text"):
        attached(bart).examples(row)
    given = {"model": str(folders["bart"]), "steps": 1, "output": tmp_path / "out"}
    with pytest.raises(InvalidInput, match=f"1 of 2 rows cannot be used: row 2: {name} is missing"):
        triarch.train([PAIRS[0], row], **given, **QUIET)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"measures": ["blue"]}, r"no measure 'blue' \(did you mean bleu\?\); wanted bleu, chrf"),
        ({"generated": -1}, "generated is -1"),
        ({"num_beams": 0}, "num_beams is 0"),
        ({"max_tokens": 65}, "max_tokens is 65, the model takes 64"),
        ({"long": "window"}, "long is 'window', wanted 'error' or 'truncate'"),
        ({"src_lang": "xx"}, "xx"),
    ],
)
def test_options_that_cannot_be(options, message, bart):
    with pytest.raises(InvalidInput, match=message):
        Seq2Seq(bart.processor, **options)


def test_ter_is_refused_before_the_first_step_without_sacrebleu(bart, monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(Unsupported, match="ter needs sacrebleu"):
        Seq2Seq(bart.processor, measures=["ter"])


def test_a_checkpoint_says_what_targets_begin_with(folders, tmp_path):
    model = triarch.load(exercises.write(tmp_path / "a", "marian", decoder_start_token_id=None))
    with pytest.raises(InvalidInput, match="does not say what a target begins with; add decoder_start_token_id"):
        attached(model)
    model = triarch.load(exercises.write(tmp_path / "b", "marian", decoder_start_token_id=10_000))
    with pytest.raises(InvalidInput, match="a target begins with 10000, wanted 0 to"):
        attached(model)


# Prefixes

TASKS = {"summarization": {"prefix": "summarize: "}, "translation": {"prefix": "translate: "}}


def test_a_prefix_stands_before_sources(bart):
    (example,) = attached(bart, prefix="summarize: ").examples(PAIRS[0])
    assert list(example.ids) == bart.processor.encode("summarize: " + PAIRS[0]["source"]).ids


def test_one_of_several_prefixes_has_to_be_chosen(tmp_path):
    model = triarch.load(exercises.write(tmp_path, "t5", task_specific_params=TASKS))
    with pytest.raises(InvalidInput, match="knows the prefixes 'summarize: ', 'translate: '; choose one"):
        attached(model)
    assert attached(model, prefix="summarize: ").CONFIG == {"prefix": "summarize: "}
    assert attached(model, prefix="").CONFIG == {"prefix": "", "task_specific_params": None}


def test_the_prefix_that_was_learned_is_put_before_what_a_task_reads(folders, tmp_path):
    exercises.write(tmp_path / "base", "t5", task_specific_params=TASKS)
    given = {"model": str(tmp_path / "base"), "steps": 1, "options": {"prefix": "tldr: ", "generated": 0}}
    triarch.train(PAIRS, output=tmp_path / "out", **given, **QUIET)
    model = triarch.load(tmp_path / "out")
    wanted = triarch.generate(model, "tldr: " + S[0], max_new_tokens=6).text
    asked = {"max_new_tokens": 6, "num_beams": 1}
    for task, name in (("summarization", "summary_text"), ("text2text-generation", "generated_text")):
        assert triarch.pipeline(task, model=model)(S[0], **asked)[0][name] == wanted
    assert attached(model).examples(PAIRS[0]) == attached(model, prefix="tldr: ").examples(PAIRS[0])


# What the model writes


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("name", exercises.HEADS)
def test_texts_that_are_written_are_measured(name, beams, folders):
    model = triarch.load(folders[name])
    options = {"num_beams": beams, "max_new_tokens": 7}
    made = attached(model, measures=["chrf", "rouge", "exact_match", "bleu", "chrf++"], **options)
    found, outcomes = Learner(model, made).measure(Examples(examples_of(made)), 0)
    written = [triarch.generate(model, row["source"], **options).text for row in PAIRS]
    right = [row["target"] for row in PAIRS]
    assert len(set(written)) > 1
    assert found["chrf"] == texts.chrf(right, written)
    assert (found["chrf"] > 0) == (name != "bart")  # which writes signs that no text has
    assert found["chrf++"] == texts.chrf(right, written, words=2)
    assert found["bleu"] == texts.bleu(right, written)
    assert {kind: found[kind] for kind in ("rouge1", "rouge2", "rougeL", "rougeLsum")} == texts.mean_rouge(
        right, written
    )
    assert found["exact_match"] == 0
    assert len(outcomes) == len(PAIRS)


def test_rows_that_are_written_from_are_spread_over_all(bart):
    made = attached(bart, generated=3)
    assert writing.chosen(made, 10) == [0, 3, 6]
    assert writing.chosen(made, 2) == [0, 1]
    assert writing.chosen(attached(bart, generated=0), 10) == []
    assert writing.said(made, 10) == (
        "3 of 10 targets, by the likeliest token each time, for bleu, chrf, rouge1, rouge2, rougeL, rougeLsum"
    )
    assert writing.said(attached(bart, generated=0), 10) is None
    assert "by 4 beams" in writing.said(attached(bart, num_beams=4), 10)


def test_the_checkpoint_says_how_much_is_written_where_the_option_does_not(tmp_path):
    model = triarch.load(exercises.write(tmp_path, "bart", max_length=6))
    assert len(triarch.generate(model, [5, 6], **attached(model).writes[1]).ids) == 5


def test_only_so_many_rows_are_written(bart):
    made = attached(bart, generated=2, max_new_tokens=3, measures=["chrf"])
    found, _ = Learner(bart, made).measure(Examples(examples_of(made)), 0)
    two = [PAIRS[i] for i in writing.chosen(made, len(PAIRS))]
    written = [triarch.generate(bart, row["source"], max_new_tokens=3).text for row in two]
    assert found["chrf"] == texts.chrf([row["target"] for row in two], written)


# Runs


def test_pairs_train_are_measured_and_evaluated(folders, tmp_path):
    data = runs.write_jsonl(
        tmp_path / "pairs.jsonl", [{"article": row["source"], "highlights": row["target"]} for row in PAIRS]
    )
    notes = []
    options = {"max_new_tokens": 8, "generated": 4}
    given = {"model": str(folders["bart"]), "output": tmp_path / "out", "options": options, "lr": 3e-3}
    found = triarch.train(
        str(data), validation=str(data), metric="chrf", epochs=6, batch_size=4, **given, note=notes.append
    )
    assert any(note.startswith("read as: seq2seq (source = article, target = highlights") for note in notes)
    assert any(note.startswith("writes: 4 of 7 targets") for note in notes)
    measured = triarch.evaluate(tmp_path / "out", str(data), options=options, note=notes.append)
    assert measured == pytest.approx({name: found[f"validation {name}"] for name in measured}, rel=1e-4)
    assert notes[-1].startswith("writes 4 of 7 targets")
    log = [line["evaluation"] for line in runs.log_of(tmp_path / "out") if "evaluation" in line]
    assert log[-1]["loss"] < log[0]["loss"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "text2text-generation" in card
    assert "7 rows; written were 4 of 7 targets, by the likeliest token each time, for bleu, chrf, " in card
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out")
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(
        theirs(ids, decoder_input_ids=ids).logits, triarch.load(tmp_path / "out")(ids, decoder_input_ids=ids).logits
    )


RUNS = {
    "infilling": ("bart", {"infill": 0.3, "rotate": True}),
    "span-corruption": ("t5", {}),
    "seq2seq": ("marian", {"generated": 2, "max_new_tokens": 4}),
}


@pytest.mark.parametrize("objective", RUNS)
def test_a_run_that_was_killed_goes_on_to_the_bit(objective, folders, tmp_path, monkeypatch):
    name, options = RUNS[objective]
    if objective == "seq2seq":
        data = held = str(runs.write_jsonl(tmp_path / "pairs.jsonl", PAIRS))
    else:
        data = str(runs.write_books(tmp_path / "books"))
        held = f"{data}/0.txt"
    given = {"model": str(folders[name]), "objective": objective, "options": options, "validation": held, **QUIET}
    given |= {"batch_size": 3, "steps": 5, "save_every": 2, "dropout": 0.1}
    found = triarch.train(data, output=tmp_path / "whole", **given)
    assert math.isfinite(found["validation loss"])
    with monkeypatch.context() as patch, pytest.raises(runs.Killed):
        runs.after_step(patch, 3, runs.die)
        triarch.train(data, output=tmp_path / "parts", **given)
    triarch.train(data, output=tmp_path / "parts", **given, resume=True)
    assert runs.left_by(tmp_path / "parts") == runs.left_by(tmp_path / "whole")


@pytest.mark.parametrize("objective", ["infilling", "span-corruption"])
def test_damage_is_another_in_each_epoch_and_the_same_in_each_measurement(objective, folders, tmp_path):
    books = runs.write_books(tmp_path / "books")
    settings = Settings(model=str(folders[RUNS[objective][0]]), data=[str(books)], objective=objective)
    planned = plan.prepare(settings, pytest.fail, tmp_path / "run")
    source = planned.train.examples
    draws = [repr(source.draw(0, np.random.default_rng(seed))) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    learner = Learner(planned.model, planned.objective)
    assert learner.measure(source, 3)[0] == learner.measure(source, 3)[0]
    assert all(source.draw(i, np.random.default_rng(i)).length <= source.lengths[i] for i in range(len(source)))


def test_from_nothing_targets_begin_and_end_as_in_the_family(folders, tmp_path):
    for file in ("merges.txt", "tokenizer_config.json"):
        (tmp_path / file).write_bytes((folders["bart"] / file).read_bytes())
    ids = json.loads((folders["bart"] / "vocab.json").read_text())
    ids["</s>"], ids["a"] = ids["a"], ids["</s>"]  # BART's own id of its end is another token's here
    (tmp_path / "vocab.json").write_text(json.dumps(ids))
    config = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "decoder_layers": 1}
    given = {"family": "bart", "tokenizer": str(tmp_path), "config": config, "steps": 1, "options": {"generated": 1}}
    triarch.train(PAIRS, output=tmp_path / "out", **given, **QUIET)
    raw = json.loads((tmp_path / "out" / "config.json").read_text())
    keys = ("eos_token_id", "decoder_start_token_id", "forced_eos_token_id")
    assert [raw[key] for key in keys] == [ids["</s>"]] * 3


def test_a_t5_from_nothing_learns_from_text(tmp_path):
    books = runs.write_books(tmp_path / "books")
    save_vocabulary(train_vocabulary(S, "unigram", 300, family("t5").reads), tmp_path / "tokenizer")
    config = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "head_size": 8}
    given = {"family": "t5", "tokenizer": str(tmp_path / "tokenizer"), "config": config, "objective": "span-corruption"}
    options = {"max_tokens": 40, "max_target_tokens": 30}
    held = str(books / "0.txt")
    notes = []
    found = triarch.train(
        str(books),
        output=tmp_path / "out",
        validation=held,
        options=options,
        batch_tokens=200,
        steps=3,
        note=notes.append,
        **given,
    )
    measured = triarch.evaluate(tmp_path / "out", held, objective="span-corruption", options=options, **QUIET)
    assert measured == pytest.approx({name: found[f"validation {name}"] for name in measured}, rel=1e-5)
    assert not any(note.startswith("writes") for note in notes)


def test_running_text_needs_an_objective_for_an_encoder_decoder(folders):
    with pytest.raises(InvalidInput, match=r"bart learns from running text by span-corruption.* name one"):
        learned_from_text(model=str(folders["bart"]))


def test_low_rank_adapters_come_back(folders, tmp_path):
    given = {"model": str(folders["bart"]), "steps": 3, "lora": 2, "lr": 1e-2, "options": {"generated": 0}}
    triarch.train(PAIRS, output=tmp_path / "adapter", **given, **QUIET)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["task_type"] == "SEQ_2_SEQ_LM"
    again, base = triarch.load(tmp_path / "adapter"), triarch.load(folders["bart"])
    ids = torch.tensor([[5, 6, 7]])
    difference = again(ids, decoder_input_ids=ids).logits - base(ids, decoder_input_ids=ids).logits
    assert difference.abs().max() > 1e-3


def test_a_teacher_that_is_the_student_has_nothing_to_teach(bart, folders):
    inner = attached(bart)
    made = Distillation(bart.processor, inner=inner, teacher=triarch.load(folders["bart"]), alpha=1.0)
    found, _ = Learner(bart, made).measure(Examples(examples_of(made)[:3]), 0)
    assert found["distillation_loss"] == pytest.approx(0, abs=1e-6)
    assert "bleu" in found


# Languages


@pytest.mark.parametrize("tokenizer", ["MBartTokenizer", "MBart50Tokenizer"])
def test_targets_say_their_language_as_the_references_do(tokenizer, tmp_path):
    model = triarch.load(exercises.write(tmp_path, "mbart", tokenizer_class=tokenizer))
    theirs = transformers.MBartForConditionalGeneration.from_pretrained(tmp_path).eval()
    made = attached(model, src_lang="en_XX", tgt_lang="fr_XX", max_new_tokens=5, measures=["chrf"])
    batch = made.batch(examples_of(made))
    words = batch.targets["words"]
    french = model.processor.languages["fr_XX"]
    assert ((words == french).sum(1) == 1).all()
    assert torch.equal(batch.inputs["decoder_input_ids"], theirs.prepare_decoder_input_ids_from_labels(words))
    end = model.processor.id("eos_token")
    said = {"MBartTokenizer": {"decoder_start_token_id": french}, "MBart50Tokenizer": {"forced_bos_token_id": french}}
    assert made.writes == (64, {"num_beams": 1, "max_new_tokens": 5, **said[tokenizer]})
    assert made._start == {"MBartTokenizer": french, "MBart50Tokenizer": end}[tokenizer]
    measured, _ = Learner(model, made).measure(Examples(examples_of(made)), 0)
    ids = [list(example.ids) for example in examples_of(made)]
    written = [triarch.generate(model, one, max_new_tokens=5, **said[tokenizer]).text for one in ids]
    assert measured["chrf"] == texts.chrf([row["target"] for row in PAIRS], written)
