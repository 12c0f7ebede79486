"""Runs in this process: what they learn, what they leave, and what they say."""

import errno
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import runs
import triarch
from runs import ROWS
from triarch.errors import InvalidInput, Unsupported
from triarch.training import finish, progress, run, state

# What a run leaves


def test_it_learns_what_can_be_learned(train, tmp_path):
    outcome = train("o", validation=ROWS, epochs=20, batch_size=8, lr=3e-3, save_every=100)
    assert outcome["validation accuracy"] == 1
    classify = triarch.pipeline("text-classification", tmp_path / "o")
    assert [answer["label"] for answer in classify(iter([row["text"] for row in ROWS]))] == [
        row["label"] for row in ROWS
    ]


def test_the_outcome_says_what_was_measured(train, tmp_path):
    outcome = train("o", validation=ROWS[:4], test=ROWS[4:8])
    assert {"output", "steps", "seconds", "best step", "test loss", "test accuracy"} <= outcome.keys()
    assert outcome["output"] == str(tmp_path / "o")
    assert outcome["steps"] == 12
    assert triarch.evaluate(tmp_path / "o", ROWS[4:8], note=str) == pytest.approx(
        {name[5:]: value for name, value in outcome.items() if name.startswith("test ")}, rel=1e-5
    )


def test_the_folder_has_model_card_report_and_log(train, tmp_path):
    train("o", validation=ROWS[:4])
    names = {path.name for path in (tmp_path / "o").iterdir()}
    assert {"config.json", "model.safetensors", "README.md", "report.html", "training", "tokenizer.json"} <= names
    config = json.loads((tmp_path / "o" / "config.json").read_text())
    assert config["id2label"] == {"0": "bad", "1": "good"}
    assert config["problem_type"] == "single_label_classification"


def test_a_wrong_label_in_the_data_is_shown_in_the_report(train, tmp_path):
    wrong = {"text": "I love this film, what a lovely day", "label": "bad"}
    train("o", validation=[*ROWS, wrong], epochs=20, batch_size=8, lr=3e-3, save_every=100)
    report = (tmp_path / "o" / "report.html").read_text(encoding="utf-8")
    assert "Of 1 row with a wrong answer" in report
    assert f"<td>{wrong['text']}</td><td>bad</td><td>good</td>" in report


def test_the_log_has_a_line_a_step_and_a_line_a_measurement(train, tmp_path):
    train("o", validation=ROWS[:4], evaluate_every=5)
    log = runs.log_of(tmp_path / "o")
    steps = [line for line in log if "evaluation" not in line]
    assert [line["step"] for line in steps] == [*range(1, 13)]
    assert [line["step"] for line in log if "evaluation" in line] == [5, 10, 12]
    assert steps[0].keys() == {"step", "epoch", "loss", "lr", "grad_norm", "tokens"}
    assert [line["epoch"] for line in steps] == [0.25 * step for step in range(1, 13)]
    assert steps[0]["lr"] == 1e-3


@pytest.mark.parametrize(
    "name, objective", [("bert", "mlm"), ("bert", "nsp"), ("bert", "bert"), ("roberta", "mlm"), ("distilbert", "mlm")]
)
def test_from_nothing_the_loss_falls(train, model, tmp_path, name, objective):
    books = runs.write_books(tmp_path / "books")
    sizes = {"hidden_size": 24, "num_layers": 1, "num_heads": 2, "intermediate_size": 32, "max_positions": 66}
    given = {"family": name, "tokenizer": model(name), "config": sizes | {"initializer_range": 0.1}}
    learned = {"objective": objective, "options": {"max_tokens": 24}}
    train("o", books, **given, **learned, steps=60, batch_size=8, lr=1e-2)
    losses = [line["loss"] for line in runs.log_of(tmp_path / "o")]
    assert np.mean(losses[-8:]) < np.mean(losses[:8]) - 0.5
    assert triarch.load(tmp_path / "o").config.hidden_size == 24
    assert triarch.evaluate(tmp_path / "o", books, **learned, note=str)["loss"] < losses[0] - 0.5


@pytest.mark.parametrize(
    "rows",
    [
        [{"text": row["text"], "labels": ["a", "b"][: i % 3]} for i, row in enumerate(ROWS)],
        [{"text": row["text"], "label": i / 7 + 0.1} for i, row in enumerate(ROWS)],
        [{"tokens": ["Ada", "lived", "in", "London"], "tags": ["B-PER", "O", "O", "B-LOC"]}] * 8,
        [{"question": "Who?", "context": "Ada lived", "answers": [{"text": "Ada", "start": 0}]}] * 6
        + [{"question": "When?", "context": "Ada lived", "answers": []}] * 2,
        [{"anchor": "a day", "positive": "the day", "negative": "London"}, {"anchor": "a film", "positive": "film"}]
        * 4,
        [{"text": f"My name is Wolfgang. I live in Berlin {i}."} for i in range(8)],
    ],
)
def test_each_kind_of_rows_is_learned_measured_and_loaded(train, tmp_path, rows):
    outcome = train("o", rows, validation=rows[:4], test=rows[4:], steps=3)
    assert math.isfinite(outcome["test loss"])
    assert json.loads(json.dumps(outcome, allow_nan=False)) == outcome
    assert triarch.load(tmp_path / "o").processor is not None
    assert (tmp_path / "o" / "report.html").exists()


def test_a_metric_that_is_no_number_is_null_in_the_outcome(train, tmp_path):
    rows = [{"text": f"{row['text']}", "label": 0.5} for row in ROWS]
    outcome = train("o", rows, validation=rows[:4], metric="pearson", patience=2)
    assert outcome["validation pearson"] is None
    assert "best step" not in outcome
    assert outcome["steps"] == 8
    evaluations = [line["evaluation"] for line in runs.log_of(tmp_path / "o") if "evaluation" in line]
    assert [evaluation["pearson"] for evaluation in evaluations] == [None, None]
    assert train("o", rows, validation=rows[:4], metric="pearson", patience=2, resume=True)["steps"] == 8


def test_what_is_frozen_stays(train, tmp_path, model):
    train("o", freeze=["embeddings", "encoder.blocks.0"])
    before, after = triarch.load(model("bert")).state_dict(), triarch.load(tmp_path / "o").state_dict()
    same = [name for name in before if torch.equal(before[name], after[name])]
    assert same == [name for name in before if name.startswith(("embeddings.", "encoder.blocks.0."))]


def test_a_stage_learns_alone_until_its_step(train, tmp_path, monkeypatch):
    weights = []
    note = run.Run._note_step

    def look(self, *args):
        note(self, *args)
        weights.append({name: p.detach().clone() for name, p in self.plan.model.named_parameters()})

    monkeypatch.setattr(run.Run, "_note_step", look)
    train("o", stages=["head:3", "head,encoder.blocks.1:6", "all"])

    def moved(step):
        return {name for name in weights[0] if not torch.equal(weights[step - 1][name], weights[step][name])}

    assert all(name.startswith("head.") for name in moved(1) | moved(2))
    assert {name.split(".")[0] for name in moved(4)} == {"head", "encoder"}
    assert {name.split(".")[0] for name in moved(7)} >= {"head", "encoder", "embeddings"}


def test_layers_learn_at_rates_of_their_own(train, tmp_path, monkeypatch):
    seen = {}
    begin = run.Run.train

    def look(self):
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                seen[next(n for n, p in self.plan.model.named_parameters() if p is parameter)] = group["share"]
        begin(self)

    monkeypatch.setattr(run.Run, "train", look)
    train("o", layer_decay=0.5, head_lr=4.0, steps=1)
    shares = {name: seen[name] for name in ("head.labels.weight", "embeddings.token.weight")}
    assert shares == {"head.labels.weight": 4.0, "embeddings.token.weight": 0.125}
    assert {share for name, share in seen.items() if ".blocks.1." in name} == {0.5}


@pytest.mark.parametrize(
    "name, rows, objective", [("bert", ROWS, None), ("bert-words", None, "mlm"), ("roberta", ROWS, None)]
)
def test_an_adapter_gives_what_the_trained_model_gave(train, model, tmp_path, monkeypatch, name, rows, objective):
    given = {"lora": 4, "lr": 1e-2, "lora_dropout": 0.1, "model": model(name), "objective": objective, "steps": 6}
    data = rows or runs.write_books(tmp_path / "books")
    trained = []
    end = finish.finish

    def keep(running, folder):
        outcome = end(running, folder)
        trained.append(running.plan.model)
        return outcome

    monkeypatch.setattr(finish, "finish", keep)
    train("o", data, **given)
    assert (tmp_path / "o" / "adapter_config.json").exists()
    assert not (tmp_path / "o" / "model.safetensors").exists()
    loaded = triarch.load(tmp_path / "o")
    inputs = loaded.processor("Paris is the capital of France.")
    with torch.inference_mode():
        wanted, found, base = trained[0](**inputs)[0], loaded(**inputs)[0], triarch.load(model(name))(**inputs)[0]
    assert (found - wanted).abs().max() < 1e-5
    assert found.shape != base.shape or (found - base).abs().max() > 1e-3


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "bfloat16"},
        {"precision": "bfloat16", "lora": 2},
        {"recompute": True, "dropout": 0.2},
        {"buckets": True},
        {"batch_tokens": 90},
        {"epochs": 0.5},
        {"epochs": 1.25, "batch_tokens": 90},
        {"clip": None, "warmup": 0.2, "schedule": "cosine", "schedule_options": {"minimum": 0.1}},
        {"warmup": 2, "schedule": "warmup-stable-decay", "average": 0.9},
        {"options": {"class_weights": "balanced", "label_smoothing": 0.1}},
    ],
    ids=str,
)
def test_settings_make_a_run(train, tmp_path, settings):
    outcome = train("o", validation=ROWS[:4], **settings)
    assert math.isfinite(outcome["validation loss"])
    assert triarch.load(tmp_path / "o").config.id2label == {0: "bad", 1: "good"}


def test_half_an_epoch_is_half_the_steps(train):
    assert train("o", epochs=0.5, batch_size=2)["steps"] == 4
    assert train("p", epochs=1.5, batch_size=2)["steps"] == 12


def test_a_running_mean_is_what_is_measured_and_kept(train, tmp_path, monkeypatch):
    outcome = train("o", validation=ROWS[:6], average=0.9, best=False)
    last = state.newest(tmp_path / "o" / "training" / "checkpoints", pytest.fail)
    kept = triarch.load(tmp_path / "o").state_dict()
    for name, mean in last.read("average").items():
        assert torch.equal(kept[name], mean)
    assert not torch.equal(kept["head.labels.weight"], last.read("weights")["head.labels.weight"])
    evaluation = [line for line in runs.log_of(tmp_path / "o") if "evaluation" in line][-1]["evaluation"]
    assert outcome["validation loss"] == evaluation["loss"]


def test_a_student_learns_from_a_teacher(train, model, tmp_path):
    train("teacher", epochs=6)
    given = {"teacher": str(tmp_path / "teacher"), "model": model("distilbert"), "options": {"alpha": 0.9}}
    outcome = train("student", validation=ROWS[:4], **given)
    assert outcome["validation distillation_loss"] > 0
    train("student", validation=ROWS[:4], **given, resume=True)
    train("other", epochs=3)
    with pytest.raises(InvalidInput, match="of another run: teacher was"):
        train("student", validation=ROWS[:4], **given | {"teacher": str(tmp_path / "other")}, resume=True)


# What is said


def test_where_stderr_is_no_terminal_there_is_a_line_now_and_then(train, monkeypatch):
    clock = iter(range(0, 100_000, 13))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    train("o", steps=7)
    lines = [note for note in train.notes if note.startswith("step ")]
    assert len(lines) == 2
    assert lines[0].startswith("step 3 of 7, loss ")
    assert lines[0].endswith(" left")


@pytest.mark.usefixtures("fast_disk")
def test_without_a_stderr_it_trains(model, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert triarch.train(ROWS, model=model("bert"), output=tmp_path / "o", steps=1)["steps"] == 1


class Gone:
    encoding = "utf-8"

    def write(self, text):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    def flush(self):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    def isatty(self):
        return False


@pytest.mark.usefixtures("fast_disk")
def test_with_a_stderr_that_is_gone_it_trains(model, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Gone())
    assert triarch.train(ROWS, model=model("bert"), output=tmp_path / "o", steps=1)["steps"] == 1


def test_a_trial_says_what_would_be_done_and_leaves_nothing(train, tmp_path):
    found = train("o", dry_run=True, validation=ROWS[:4])
    assert found["objective"] == "classification"
    assert found["labels"] == "2: bad, good"
    assert found["steps"] == "12 of 5 examples"
    assert math.isfinite(found["first loss"])
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("settings", [{"freeze": ["nothing"]}, {"optimizer_options": {"beta3": 1}}, {"warmup": 99}])
def test_a_trial_refuses_what_a_run_refuses(train, settings):
    with pytest.raises(InvalidInput):
        train("o", dry_run=True, **settings)


def test_tensorboard_is_asked_for_before_the_first_step(train, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(Unsupported, match="tensorboard is not installed"):
        train("o", tensorboard=True)
    assert train("o", steps=1)["steps"] == 1


def test_what_was_refused_does_not_hold_the_folder(train, tmp_path):
    for settings in ({"freeze": ["nothing"]}, {"optimizer_options": {"beta3": 1}}, {"warmup": 99}, {"metric": "f9"}):
        with pytest.raises(InvalidInput):
            train("o", **{"validation": ROWS[:4]} | settings)
    assert train("o", steps=1)["steps"] == 1
    assert not list(Path(tmp_path / "o").glob("*.tmp"))
