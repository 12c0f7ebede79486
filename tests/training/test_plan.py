"""What is made of settings and data before the first step: what is learned, with which head, how long; and what not."""

import dataclasses
import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch

import runs
import tiny
import triarch
from triarch.data import seeds
from triarch.errors import CorruptFile, InvalidInput, LimitExceeded, NotFound, TriarchError, Unsupported
from triarch.training import plan
from triarch.training.settings import Settings, make, read_recipe

ROWS = runs.reviews(8)
TAGGED = [{"tokens": ["Ada", "lived"], "tags": ["B-PER", "O"]}] * 4
ASKED = [{"question": "Who?", "context": "Ada lived", "answers": [{"text": "Ada", "start": 0}]}] * 4
PAIRS = [{"anchor": "a day", "positive": "the day"}, {"anchor": "a film", "positive": "film"}] * 2


@pytest.fixture
def prepare(model, tmp_path):
    """A plan for rows; its notes are kept in `prepare.notes`."""

    def call(rows=ROWS, validation=None, test=None, **settings):
        call.notes = []
        given = make({"model": model("bert")} | settings) if "family" not in settings else make(settings)
        return plan.prepare(given, call.notes.append, tmp_path, train=rows, validation=validation, test=test)

    return call


# What is inferred


@pytest.mark.parametrize(
    "rows, objective, architecture",
    [
        (ROWS, "classification", "BertForSequenceClassification"),
        ([{"text": row["text"], "label": 0.5} for row in ROWS], "regression", "BertForSequenceClassification"),
        ([{"text": row["text"], "labels": ["a"]} for row in ROWS], "multi-label", "BertForSequenceClassification"),
        (TAGGED, "tagging", "BertForTokenClassification"),
        (ASKED, "span", "BertForQuestionAnswering"),
        (PAIRS, "contrastive", "BertModel"),
        ([{"text": row["text"]} for row in ROWS], "mlm", "BertForMaskedLM"),
    ],
)
def test_the_columns_say_what_is_learned(prepare, rows, objective, architecture):
    made = prepare(rows)
    assert objective == made.objective.NAME
    assert made.model.architecture == architecture
    assert made.facts["objective"] == objective


def test_labels_are_numbered_in_order(prepare):
    assert prepare([{"text": f"a {i}", "label": i % 11} for i in range(22)]).objective.labels == [*map(str, range(11))]
    assert prepare().objective.labels == ["bad", "good"]


def test_a_checkpoint_with_the_same_labels_keeps_its_order_and_its_head(prepare, model):
    rows = [{"text": f"a {label}", "label": label} for label in ("neutral", "positive", "negative")]
    made = prepare(rows, model=model("bert-labels"))
    assert made.objective.labels == ["negative", "neutral", "positive"]
    assert made.fresh == []
    assert "new" not in made.facts
    assert "new" in prepare(ROWS, model=model("bert-labels")).facts


def test_weights_are_float32_whatever_the_checkpoint_says(prepare, model, tmp_path):
    triarch.save(triarch.load(model("bert"), dtype="bfloat16"), tmp_path / "half")
    made = prepare(model=str(tmp_path / "half"))
    assert {p.dtype for p in made.model.parameters()} == {torch.float32}


def test_a_fresh_head_is_the_same_for_the_same_seed(prepare):
    def head(seed):
        return prepare(seed=seed).model.state_dict()["head.labels.weight"]

    assert torch.equal(head(1), head(1))
    assert not torch.equal(head(1), head(2))


def test_rows_set_aside_are_the_same_for_the_same_seed(prepare):
    rows = runs.reviews(32)
    first, again, other = (prepare(rows, validation_share=0.25, seed=seed) for seed in (1, 1, 2))
    assert len(first.validation.examples) == 8
    assert len(first.train.examples) == 24
    assert first.identity == again.identity
    assert first.identity["validation"] != other.identity["validation"]


def test_what_both_sides_have_is_said(prepare):
    prepare(ROWS, ROWS[:3])
    assert any(note.startswith("3 rows of the validation data are in the training data too") for note in prepare.notes)


def test_rows_that_are_left_out_are_said(prepare):
    made = prepare([*ROWS, {"text": "", "label": "good"}], on_bad_row="skip")
    assert len(made.train.examples) == 8
    assert any("1 rows left out: row 9: text is empty" in note for note in prepare.notes)


def test_dropout_is_set_in_layers_and_in_attention(prepare):
    made = prepare(dropout=0.25).model
    assert {m.p for m in made.modules() if isinstance(m, torch.nn.Dropout)} == {0.25}
    assert {m.dropout for m in made.modules() if hasattr(m, "dropout") and isinstance(m.dropout, float)} == {0.25}


@pytest.mark.parametrize(
    "settings, steps",
    [
        ({"epochs": 2}, 4),
        ({"epochs": 0.5}, 1),
        ({"epochs": 1.5}, 3),
        ({"epochs": 0.001}, 1),
        ({"steps": 7}, 7),
        ({"epochs": 1, "batch_size": 100}, 1),
        ({"epochs": 1, "batch_size": None, "batch_tokens": 1_000_000}, 1),
    ],
)
def test_how_long_it_is(prepare, settings, steps):
    assert prepare(**{"batch_size": 4} | settings).total_steps == steps


def test_a_model_from_nothing_has_the_sizes_it_was_given(prepare, model):
    sizes = {"hidden_size": 16, "num_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    made = prepare(family="bert", tokenizer=model("bert"), config=sizes)
    assert made.model.config.hidden_size == 16
    assert made.model.config.num_heads == 2
    assert made.model.config.vocab_size == len(tiny.wordpieces())
    assert len(made.fresh) == len([*made.model.parameters()])


def test_places_are_files_and_lines(prepare, tmp_path):
    data = runs.write_jsonl(tmp_path / "a.jsonl", ROWS)
    assert prepare(None, data=[str(data)]).train.place(3) == f"{data} line 4"
    books = runs.write_books(tmp_path / "books")
    place = prepare(None, data=[str(books)], objective="mlm", options={"max_tokens": 24}).train.place
    assert place(0) == "0.txt, sentence 1"
    assert place(1).startswith("0.txt, sentence ")


def test_what_a_run_is_changes_with_data_and_model(prepare, model):
    base = prepare().identity
    assert prepare([dict(row) for row in ROWS]).identity == base
    assert json.loads(json.dumps(base)) == base
    changed = prepare([*ROWS[:-1], ROWS[-1] | {"label": "good"}]).identity
    assert {name for name in base if base[name] != changed[name]} == {"data"}
    other = prepare(model=model("bert-words")).identity
    assert {name for name in base if base[name] != other[name]} == {"model"}


# What is refused before the first step: also in test_cli_train.py, with exit codes


@pytest.mark.parametrize(
    "rows, settings, error, match",
    [
        (ROWS, {"metric": "acuracy"}, InvalidInput, r"no metric 'acuracy' \(did you mean accuracy\?\)"),
        (ROWS, {"metric": "accuracy"}, InvalidInput, "metric needs measurements; give validation files"),
        (ROWS, {"evaluate_every": 3}, InvalidInput, "evaluate_every needs measurements"),
        (ROWS, {"patience": 3}, InvalidInput, "patience needs measurements"),
        (ROWS, {"objective": "clasification"}, NotFound, "did you mean classification"),
        (ROWS, {"objective": "span"}, InvalidInput, "no column is known as the question of span"),
        (ROWS, {"objective": "contrastive"}, InvalidInput, "no column is known as the anchor of contrastive"),
        (ROWS, {"objective": "distillation"}, TriarchError, "distillation"),
        (
            ROWS,
            {"options": {"class_weight": "balanced"}},
            InvalidInput,
            r"no option 'class_weight' \(did you mean class_weights\?\)",
        ),
        (ROWS, {"options": {"labels": ["a", "b"]}}, InvalidInput, "no option 'labels'"),
        (ROWS, {"options": {"label_smoothing": "much"}}, InvalidInput, "label_smoothing is 'much', wanted float"),
        (ROWS, {"options": {"max_tokens": 1000}}, InvalidInput, "max_tokens is 1000, the model takes 64"),
        (ROWS, {"lora": 2, "lora_targets": "nothing"}, InvalidInput, "targets 'nothing'"),
        (ROWS, {"device": "cuda:77"}, InvalidInput, "device 'cuda:77' is not one of this machine"),
        (ROWS, {"teacher": "no-such-folder/at all"}, TriarchError, "no-such-folder"),
        (ROWS, {"batch_tokens": 5}, InvalidInput, "tokens, over batch_tokens=5; raise it"),
        ([row | {"label": "good"} for row in ROWS], {}, InvalidInput, "labels are 1 of them, wanted at least 2"),
        ([], {}, InvalidInput, "there are no rows"),
        (["a text", 3], {}, InvalidInput, "row 2 is a int; wanted a dict"),
        (None, {}, InvalidInput, "there is no data; name files or folders"),
        ([{"text": "a"}], {"objective": "nsp"}, InvalidInput, "the text is one document"),
        (ROWS, {"group": "author", "validation_share": 0.5}, InvalidInput, "author"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_is_refused(prepare, rows, settings, error, match):
    with pytest.raises(error, match=match):
        prepare(rows, **settings)


@pytest.mark.parametrize(
    "settings, match",
    [
        (
            {"family": "bert"},
            "there is no model; name a checkpoint to start from, or a family and a tokenizer's folder",
        ),
        ({"family": "brt", "tokenizer": "x"}, "brt"),
        ({"family": "bert", "tokenizer": "MODEL", "config": {"vocab_size": 8}}, "bert has no size 'vocab_size'"),
        ({"family": "bert", "tokenizer": "MODEL", "config": {"num_layers": 1, "num_hidden_layers": 2}}, "twice"),
        ({"family": "bert", "tokenizer": "MODEL", "config": {"hiden_size": 8}}, "did you mean hidden_size"),
        ({"family": "bert", "tokenizer": "MODEL", "config": {"hidden_size": -8}}, "hidden_size"),
        ({"family": "bert", "tokenizer": "MODEL", "config": {"hidden_size": "big"}}, "hidden_size"),
        ({"family": "bert", "tokenizer": "MODEL", "config": {"num_heads": 7}}, "heads"),
        ({"family": "bert", "tokenizer": "MODEL", "lora": 4}, "lora adapts a checkpoint, and there is none"),
    ],
    ids=str,
)
def test_a_model_from_nothing_that_cannot_be_is_refused(prepare, model, settings, match):
    with pytest.raises(TriarchError, match=match):
        prepare(**{name: model("bert") if value == "MODEL" else value for name, value in settings.items()})


@pytest.mark.parametrize("name", ["data", "validation", "test"])
@pytest.mark.parametrize("value", [3, {"text": ["a"]}, object()])
def test_what_is_neither_paths_nor_rows_is_refused(model, tmp_path, name, value):
    given = {"data": ROWS} | {name: value}
    with pytest.raises(InvalidInput, match=f"{name} is a {type(value).__name__}, wanted paths, or a list of rows"):
        triarch.train(**given, model=model("bert"), output=tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_data_for_the_end_are_looked_at_before_the_beginning(model, tmp_path):
    for wrong in (tmp_path / "nothing.jsonl", [{"text": "a", "label": "other"}]):
        with pytest.raises(TriarchError, match=r"nothing\.jsonl|row 1: label is 'other'"):
            triarch.train(ROWS, test=wrong, model=model("bert"), output=tmp_path / "o", note=str)
    assert not (tmp_path / "o" / "training" / "log.jsonl").exists()


# Settings


@pytest.mark.parametrize(
    "given, match",
    [
        ({"lr": math.nan}, "lr is nan, wanted float"),
        ({"lr": -1.0}, "lr is -1.0, wanted more than 0"),
        ({"lr": 0}, "lr is 0, wanted more than 0"),
        ({"lr": True}, "lr is True, wanted float"),
        ({"lr": "1"}, "lr is '1', wanted float"),
        ({"epochs": math.inf}, "epochs is inf"),
        ({"steps": 0}, "steps is 0, wanted at least 1"),
        ({"steps": 1.5}, "steps is 1.5, wanted int"),
        ({"batch_size": 0}, "batch_size is 0, wanted at least 1"),
        ({"patience": 0}, "patience is 0, wanted at least 1"),
        ({"keep": 0}, "keep is 0, wanted at least 1"),
        ({"seed": -1}, "seed is -1, wanted at least 0"),
        ({"seed": 1 << 32}, "seed is 4294967296, wanted less than"),
        ({"warmup": -0.1}, "warmup is -0.1, wanted at least 0"),
        ({"dropout": 1.0}, "dropout is 1.0, wanted a share from 0 to below 1"),
        ({"validation_share": 1.0}, "validation_share is 1.0, wanted a share"),
        ({"layer_decay": 2.0}, "layer_decay is 2.0, wanted at most 1"),
        ({"clip": 0.0}, "clip is 0.0, wanted more than 0"),
        ({"precision": "fp4"}, "precision is 'fp4', wanted 'float32' or 'bfloat16'"),
        ({"optimizer": "adam"}, "optimizer is 'adam', wanted"),
        ({"data": 3}, "data is 3, wanted list"),
        ({"data": [3]}, r"data is '\[3\]'|data is \[3\]"),
        ({"options": [1]}, "options is"),
        ({"options": {1: 2}}, "options is {1: 2}, wanted names and values"),
        ({"columns": {1: "x"}}, "columns is {1: 'x'}, wanted names and values"),
        ({"learning_rate": 1}, "no setting 'learning_rate'"),
        ({"ephochs": 1}, r"no setting 'ephochs' \(did you mean epochs\?\)"),
        ({"validation": ["a"], "validation_share": 0.1}, "validation and validation_share are both given"),
        ({"model": "a", "family": "bert"}, "model and family are both given"),
        ({"model": "a", "config": {"num_layers": 2}}, "config is given without family"),
        ({"model": "a", "tokenizer": "b"}, "tokenizer is given without family"),
        ({"model": "a", "lora_alpha": 2.0}, "lora_alpha is given without lora"),
        ({"model": "a", "lora_dropout": 0.2}, "lora_dropout is given without lora"),
        ({"model": "a", "group": "author"}, "group is given without validation_share"),
        ({"about": {"nam": "x"}}, r"about has nam = 'x' \(did you mean name\?\)"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_is_refused(given, match):
    with pytest.raises(InvalidInput, match=match):
        make(given)


def test_paths_are_taken_for_texts():
    made = make({"data": Path("a"), "model": Path("m"), "output": Path("o")})
    assert (made.data, made.model, made.output) == (["a"], "m", "o")


def test_defaults_can_be_written_down():
    made = dataclasses.asdict(Settings())
    assert make(made) == Settings()


# Recipes


TOML = """
data = "a.csv"
validation = ["b.csv", "c.csv"]
model = "some/model"
epochs = 2
lr = 5e-5
patience = 3
buckets = true
freeze = ["embeddings", "encoder.blocks.0-1"]
stages = ["head:10", "all"]

[options]
label_smoothing = 0.1

[optimizer_options]
beta2 = 1e-1
"""
YAML = """
data: a.csv
validation: [b.csv, c.csv]
model: some/model
epochs: 2
lr: 5e-5
patience: 3
buckets: true
freeze:
- embeddings
- encoder.blocks.0-1
stages: ["head:10", all]
options: {label_smoothing: 0.1}
optimizer_options:
  beta2: 1.e-1
"""


@pytest.mark.parametrize("names", [("a.toml", "a.yaml"), ("A.TOML", "b.yml")])
def test_both_kinds_of_recipes_give_the_same_settings(tmp_path, names):
    found = []
    for name, text in zip(names, (TOML, YAML), strict=True):
        (tmp_path / name).write_text(text)
        found.append(read_recipe(tmp_path / name))
    assert found[0] == found[1]
    assert make(found[0]).lr == 5e-5
    assert make(found[0]).data == ["a.csv"]


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


@pytest.mark.parametrize(
    "name, text, error, match",
    [
        ("r.toml", "lr = ", InvalidInput, r"cannot be read \(Invalid value"),
        ("r.toml", "lr = 1\nlr = 2", InvalidInput, "cannot be read"),
        ("r.toml", b"lr = '\xff'", InvalidInput, "cannot be read .*utf-8"),
        ("r.toml", "x = " + "[" * 10_000, InvalidInput, "cannot be read"),
        ("r.yaml", "lr: [", InvalidInput, "cannot be read"),
        ("r.yaml", "lr: 1\nlr: 2", InvalidInput, "a name stands twice"),
        ("r.yaml", "options: {a: 1, a: 2}", InvalidInput, "a name stands twice"),
        ("r.yaml", BOMB, InvalidInput, "aliases are not taken"),
        ("r.yaml", "!!python/object/apply:os.system ['true']", InvalidInput, "cannot be read"),
        ("r.yaml", "lr: !!python/name:os.system", InvalidInput, "cannot be read"),
        ("r.yaml", "? [a]\n: 1", InvalidInput, "cannot be read|no names"),
        ("r.yaml", "- a\n- b", InvalidInput, "holds no names and values"),
        ("r.yaml", "3: 4", InvalidInput, "holds no names and values"),
        ("r.yaml", "", InvalidInput, "holds no names and values"),
        ("r.yaml", "[" * 10_000, InvalidInput, "cannot be read"),
        ("r.yaml", b"lr: \xff", InvalidInput, "cannot be read"),
        ("r.yaml", "x" * (1 << 20) + "x", LimitExceeded, "is over 1,048,576 bytes"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_recipe_that_cannot_be_read_is_refused(tmp_path, name, text, error, match):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(error, match=match):
        read_recipe(path)


def test_a_recipe_that_is_no_file_is_refused(tmp_path):
    with pytest.raises(NotFound, match=r"recipe .*r\.toml cannot be read \(No such file or directory\)"):
        read_recipe(tmp_path / "r.toml")
    (tmp_path / "d.toml").mkdir()
    os.mkfifo(tmp_path / "p.toml")
    for name in ("d.toml", "p.toml"):
        with pytest.raises(InvalidInput, match="is a folder or a device; name a file"):
            read_recipe(tmp_path / name)


# Measuring a model


@pytest.mark.parametrize(
    "rows, name, match",
    [
        (ROWS, "bert", "BertModel has no head that gives LabelScores"),
        ([{"text": "a", "label": "positiv"}], "bert-labels", r"row 1: label is 'positiv' \(did you mean positive\?\)"),
        ([{"text": "a", "label": 3}], "bert-labels", "row 1: label is 3"),
        ([{"text": "a", "label": -1}], "bert-labels", "row 1: label is -1"),
        ([], "bert-labels", "there are no rows"),
        (None, "bert-labels", "data is a NoneType|there is no data"),
    ],
)
def test_a_model_that_cannot_be_measured_is_refused(model, rows, name, match):
    with pytest.raises((InvalidInput, Unsupported), match=match):
        triarch.evaluate(model(name), rows, note=str)


def test_a_damaged_model_is_refused(model, tmp_path):
    shutil.copytree(model("bert"), tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").write_bytes(b"\x80\x04")
    with pytest.raises(CorruptFile):
        triarch.train(ROWS, model=tmp_path / "m", output=tmp_path / "o")


# Labels, heads and tokenizers that do not quite fit


def test_labels_that_only_the_validation_rows_have_are_labels(prepare):
    made = prepare(ROWS, [{"text": "neither here nor there", "label": "odd"}])
    assert made.objective.labels == ["bad", "good", "odd"]


def test_labels_can_be_given(prepare):
    assert prepare(labels=["good", "so so", "bad"]).objective.labels == ["good", "so so", "bad"]
    with pytest.raises(InvalidInput, match="label is 'good'"):
        prepare(labels=["bad", "fine"])
    with pytest.raises(InvalidInput, match="regression has no labels"):
        prepare([{"text": "a", "label": 0.5}], labels=["a"])


def test_a_student_has_the_order_of_its_teacher(prepare, model):
    rows = [{"text": "a day", "label": name} for name in tiny.NLI]
    assert prepare(rows, teacher=model("bert-nli")).model.config.id2label == dict(enumerate(tiny.NLI))


def test_a_head_of_other_labels_starts_afresh(prepare, model):
    rows = [{"text": "a day", "label": name} for name in ("x", "y", "z")]
    made = prepare(rows, model=model("bert-labels"))  # as many, named negative, neutral and positive
    assert made.fresh == ["head.labels.weight", "head.labels.bias"]
    assert "start afresh" in made.facts["new"]


def test_numbers_on_a_head_with_names_keep_names_and_head(prepare, model):
    made = prepare([{"text": "a day", "label": i % 3} for i in range(6)], model=model("bert-labels"))
    assert made.objective.labels == ["negative", "neutral", "positive"]
    assert made.fresh == []


def test_a_tokenizer_of_another_family_is_refused(prepare, tmp_path):
    tiny.load("bert").processor.save(tmp_path / "tokenizer")
    with pytest.raises(InvalidInput, match="the tokenizer has no <s>"):
        prepare(family="roberta", tokenizer=str(tmp_path / "tokenizer"))


def test_a_model_from_nothing_pads_as_its_tokenizer_does(prepare, model):
    made = prepare(family="roberta", tokenizer=model("roberta"), config={"hidden_size": 32, "num_heads": 4})
    assert made.model.config.to_hf()["pad_token_id"] == made.objective.processor.id("pad_token")


def test_rows_to_measure_on_that_are_learned_from_are_said(prepare):
    prepare(ROWS, None, ROWS[:2])
    assert any("2 rows of the test data are in the training data too" in note for note in prepare.notes)


def test_files_to_measure_on_that_are_learned_from_are_said(model, tmp_path):
    books, notes = runs.write_books(tmp_path / "books"), []
    files = {"data": [str(books)], "validation": [str(books / "0.txt")]}
    plan.prepare(make({"model": model("bert"), "objective": "mlm"} | files), notes.append, tmp_path)
    assert notes == ["1 files of the validation data are in the training data too: 0.txt"]


def test_values_that_a_checkpoint_could_not_hold_are_refused():
    import datetime

    with pytest.raises(InvalidInput, match="optimizer_options holds"):
        Settings(optimizer_options={"beta1": datetime.date(2020, 1, 1)})


def test_distillation_is_asked_for_by_a_teacher(prepare):
    with pytest.raises(InvalidInput, match="name that one, and a teacher"):
        prepare(objective="distillation")


def test_what_a_model_learned_before_is_no_longer_said(prepare, model):
    made = prepare(TAGGED, model=model("bert-multi-label"))
    assert "problem_type" not in made.model.config.to_hf()


def test_a_model_is_measured_on_what_it_has_learned(model):
    with pytest.raises(InvalidInput, match="has learned multi_label_classification"):
        triarch.evaluate(model("bert-multi-label"), [{"text": "a", "label": "rude"}, {"text": "b", "label": "joke"}])


def test_random_numbers_of_different_uses_differ():
    keys = [("order", 3, 0), ("order", 3, 1), ("split", 3), ("draw", 3, 0, 0), ("draw", 3, 0, 1), ("draw", 3, 1, 0)]
    keys += [("measure", 3, 0), ("measure", 3, 1), ("draw", 3, 1 << 32, 0), ("weights", 3), ("dropout", 3, 0)]
    assert len({seeds.generator(*key).random() for key in keys}) == len(keys)
    assert seeds.generator("draw", 3, 0, 1).random() == seeds.generator("draw", 3, 0, 1).random()
