"""Runs in this process: what they learn, what they leave, and that one which was broken off goes on to the bit."""

import errno
import hashlib
import json
import math
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import runs
import triarch
from triarch.errors import CheckpointMismatch, CorruptFile, InvalidInput, TriarchError, Unsupported
from triarch.training import finish, learner, plan, progress, run, state
from triarch.training.learner import NotFinite
from triarch.training.workplace import held

ROWS = runs.reviews(16)
SHORT = {"epochs": 3, "batch_size": 5, "lr": 1e-3, "dropout": 0.0}  # 12 steps


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return runs.model_in(tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch):
    """What is not on disk yet is in memory, which no test here takes away."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def train(model, tmp_path):
    """A run into a folder of that name; its notes are kept in `train.notes`."""

    def call(output, rows=ROWS, **settings):
        call.notes = []
        given = SHORT | {"model": model("bert")} | settings
        for name, other in (("family", "model"), ("steps", "epochs"), ("batch_tokens", "batch_size")):
            if name in settings:
                given.pop(other, None)
        return triarch.train(rows, output=tmp_path / output, note=call.notes.append, **given)

    return call


class Killed(BaseException):
    """In the place of SIGKILL."""


def after_step(monkeypatch, step, do):
    """`do()` at the end of a step, before anything is measured or saved."""
    note = run.Run._note_step

    def call(self, *args):
        note(self, *args)
        if self.step == step:
            do()

    monkeypatch.setattr(run.Run, "_note_step", call)


def die():
    raise Killed


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


@pytest.mark.parametrize("optimizer", ["adamw", "lion", "adafactor", "muon", "sgd"])
def test_each_optimizer_makes_steps_and_goes_on(train, tmp_path, monkeypatch, optimizer):
    train("whole", optimizer=optimizer, steps=4, save_every=2)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        after_step(patch, 3, die)
        train("o", optimizer=optimizer, steps=4, save_every=2)
    train("o", optimizer=optimizer, steps=4, save_every=2, resume=True)
    assert runs.left_by(tmp_path / "o") == runs.left_by(tmp_path / "whole")


def test_plain_sgd_has_no_state_and_goes_on(train, tmp_path, monkeypatch):
    given = {"optimizer": "sgd", "optimizer_options": {"momentum": 0.0}, "steps": 4, "save_every": 2}
    train("whole", **given)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        after_step(patch, 3, die)
        train("o", **given)
    train("o", **given, resume=True)
    assert runs.left_by(tmp_path / "o") == runs.left_by(tmp_path / "whole")


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


# What was broken off goes on to the bit


EVERY = {"save_every": 5, "evaluate_every": 3, "validation": ROWS[:5]}
VARIANTS = {
    "plain": {},
    "dropout": {"dropout": 0.3},
    "running mean": {"average": 0.9, "dropout": 0.2},
    "stages": {"stages": ["head:4", "head,encoder.blocks.1:7", "all"]},
    "low rank": {"lora": 2, "lora_dropout": 0.2},
    "by tokens": {"batch_tokens": 90, "dropout": 0.1},
    "buckets": {"buckets": True},
    "recomputed": {"recompute": True, "dropout": 0.2},
    "bfloat16": {"precision": "bfloat16"},
    "pieces": {"micro_tokens": 20},
    "patience": {"patience": 2, "metric": "loss", "lr": 0.3, "epochs": 9},
    "the last is kept": {"best": False},
    "Muon": {"optimizer": "muon"},
    "warm-up": {"warmup": 0.3, "schedule": "cosine"},
}


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_a_killed_run_ends_as_if_it_had_not_been(train, tmp_path, monkeypatch, settings):
    given = EVERY | settings
    whole = train("whole", **given)
    steps = [2, min(8, whole["steps"])]
    for step in steps:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            after_step(patch, step, die)
            train("o", **given, resume=step != steps[0])
    outcome = train("o", **given, resume=True)
    assert runs.left_by(tmp_path / "o") == runs.left_by(tmp_path / "whole")
    drop = {"output", "seconds"}
    assert {k: v for k, v in outcome.items() if k not in drop} == {k: v for k, v in whole.items() if k not in drop}


def test_running_text_goes_on_to_the_bit(train, model, tmp_path, monkeypatch):
    books = runs.write_books(tmp_path / "books")
    given = {"validation": books, "model": model("bert-pretraining"), "objective": "bert", "steps": 8}
    given |= {"save_every": 3, "evaluate_every": 4, "batch_size": 3, "dropout": 0.1}
    train("whole", books, **given)
    for step in (2, 4, 7):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            after_step(patch, step, die)
            train("o", books, **given, resume=step > 2)
    train("o", books, **given, resume=True)
    assert runs.left_by(tmp_path / "o") == runs.left_by(tmp_path / "whole")


@pytest.mark.parametrize("number, error", [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_saves_the_state_at_the_end_of_its_step(train, tmp_path, monkeypatch, number, error):
    given = EVERY | {"save_every": 100}
    train("whole", **given)
    with monkeypatch.context() as patch, pytest.raises(error) as caught:
        after_step(patch, 7, lambda: os.kill(os.getpid(), number))
        train("o", **given)
    if error is SystemExit:
        assert caught.value.code == 143
    assert runs.steps_of(tmp_path / "o")[-1] == 7
    assert runs.log_of(tmp_path / "o")[-1]["step"] == 7
    assert "stopping after this step; once more to stop at once" in train.notes
    train("o", **given, resume=True)
    assert "going on from step 7 of 12" in train.notes
    assert runs.log_of(tmp_path / "o") == runs.log_of(tmp_path / "whole")
    assert (tmp_path / "o/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


def test_a_signal_while_measuring_saves_and_the_measurement_is_made_anew(train, tmp_path, monkeypatch):
    given = EVERY | {"save_every": 100}
    train("whole", **given)
    measured, seen = learner.Learner._measured, []

    def interrupt(self, examples, done):
        seen.append(1)
        if len(seen) == 2:  # that of step 6
            os.kill(os.getpid(), signal.SIGTERM)
        return measured(self, examples, done)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(learner.Learner, "_measured", interrupt)
        train("o", **given)
    assert runs.steps_of(tmp_path / "o")[-1] == 6
    assert [line["step"] for line in runs.log_of(tmp_path / "o") if "evaluation" in line] == [3]
    for step in (7, 8):  # killed before the next state is saved: measured once more
        with monkeypatch.context() as patch, pytest.raises(Killed):
            after_step(patch, step, die)
            train("o", **given, resume=True)
    train("o", **given, resume=True)
    assert runs.log_of(tmp_path / "o") == runs.log_of(tmp_path / "whole")
    assert (tmp_path / "o/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


def test_a_signal_in_the_last_step_is_heard(train, tmp_path, monkeypatch):
    write = state.write

    def interrupt(root, step, *args):
        path = write(root, step, *args)
        if step == 12:
            os.kill(os.getpid(), signal.SIGTERM)
        return path

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(state, "write", interrupt)
        train("o")
    assert not (tmp_path / "o" / "config.json").exists()
    assert train("o", resume=True)["steps"] == 12


def test_the_second_signal_stops_at_once(train, tmp_path, monkeypatch):
    def twice():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        after_step(patch, 6, twice)
        train("o", save_every=4)
    assert runs.steps_of(tmp_path / "o") == [4]


def test_a_note_that_cannot_be_written_from_a_signal_is_left_out(model, tmp_path, monkeypatch):
    def note(line):
        if line.startswith("stopping"):
            raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        after_step(patch, 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
        triarch.train(ROWS, output=tmp_path / "o", model=model("bert"), note=note, **SHORT)
    assert runs.steps_of(tmp_path / "o")[-1] == 6


def test_signals_have_their_handlers_back(train):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    train("o", steps=1)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_thread_that_is_not_the_main_one_can_train(train):
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(train("o", steps=1)))
    thread.start()
    thread.join()
    assert outcome[0]["steps"] == 1


def test_a_run_that_is_done_is_finished_again(train, tmp_path):
    first = train("o", validation=ROWS[:4])
    before = runs.left_by(tmp_path / "o")
    for name in ("model.safetensors", "README.md"):
        (tmp_path / "o" / name).unlink()
    again = train("o", validation=ROWS[:4], resume=True)
    assert again == first
    assert runs.left_by(tmp_path / "o") == before
    assert (tmp_path / "o" / "README.md").exists()


def test_one_killed_before_its_first_checkpoint_begins_again(train, tmp_path, monkeypatch):
    train("whole", save_every=5)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        after_step(patch, 3, die)
        train("o", save_every=5)
    with pytest.raises(InvalidInput, match="holds a run; pass resume to go on with it, or choose another output"):
        train("o", save_every=5)
    train("o", save_every=5, resume=True)
    assert "no checkpoint yet: starting at the beginning" in train.notes
    train("new", steps=1, resume=True)
    assert "there is no run to go on with: starting at the beginning" in train.notes
    assert runs.left_by(tmp_path / "o") == runs.left_by(tmp_path / "whole")


def test_half_a_line_of_the_log_is_taken_off(train, tmp_path, monkeypatch):
    train("whole", save_every=5)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        after_step(patch, 7, die)
        train("o", save_every=5)
    log = tmp_path / "o" / "training" / "log.jsonl"
    with log.open("ab") as file:
        file.write(b'{"step": 8, "lo')
    train("o", save_every=5, resume=True)
    assert runs.log_of(tmp_path / "o") == runs.log_of(tmp_path / "whole")


def test_what_does_not_touch_the_steps_may_differ(train, tmp_path, monkeypatch):
    given = {"validation": ROWS[:4]}
    with monkeypatch.context() as patch, pytest.raises(Killed):
        after_step(patch, 6, die)
        train("o", **given)
    moved = tmp_path / "moved"
    shutil.move(tmp_path / "o", moved)
    train("moved", **given, resume=True, keep=1, save_every=2, licence="mit", test=ROWS[:2])
    assert "going on from step 4 of 12" in train.notes


def test_another_number_of_threads_is_said(train, tmp_path, monkeypatch):
    after_step(monkeypatch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        train("o")
    monkeypatch.undo()
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    train("o", resume=True)
    assert f"so far the run had threads {threads}: it goes on, but not to the bit" in train.notes


def test_tuples_are_lists_to_a_run_that_goes_on(train):
    train("o", steps=2, freeze=("embeddings",))
    assert train("o", steps=2, freeze=("embeddings",), resume=True)["steps"] == 2


@pytest.mark.parametrize(
    "changed, match",
    [
        ({"lr": 1e-4}, "lr was 0.001, now 0.0001"),
        ({"seed": 1}, "seed was 0, now 1"),
        ({"batch_size": 4}, "batch_size was 5, now 4"),
        ({"rows": ROWS[:-1]}, "data was"),
        ({"rows": [*ROWS[:-1], {"text": "new", "label": "bad"}]}, "data was"),
        ({"model": "bert-labels"}, "model was"),
        ({"optimizer": "lion"}, "optimizer was 'adamw', now 'lion'"),
        ({"freeze": ["embeddings"]}, "freeze was"),
        ({"validation": ROWS[:3]}, "validation was"),
    ],
    ids=str,
)
def test_another_run_is_refused_with_the_differences(train, model, tmp_path, changed, match):
    train("o", steps=2)
    rows, changed = changed.get("rows", ROWS), {k: v for k, v in changed.items() if k != "rows"}
    if "model" in changed:
        changed = {"model": model(changed["model"])}
    before = runs.left_by(tmp_path / "o")
    with pytest.raises(InvalidInput, match=f"is of another run: .*{match}"):
        train("o", rows, steps=2, resume=True, **changed)
    assert runs.left_by(tmp_path / "o") == before


def resealed(checkpoint, name, data):
    """A file of a checkpoint replaced, and its manifest made to agree."""
    (checkpoint / name).write_bytes(data)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["weights", "optimizer"])
def test_the_state_of_another_model_is_refused(train, tmp_path, name):
    train("o", steps=2)
    train("small", steps=2, lora=2)
    folders = [tmp_path / output / "training" / "checkpoints" / "step-00000002" for output in ("o", "small")]
    resealed(folders[0], f"{name}.safetensors", (folders[1] / f"{name}.safetensors").read_bytes())
    with pytest.raises(CheckpointMismatch, match=r"checkpoint does not fit .* missing"):
        train("o", steps=2, resume=True)


@pytest.mark.parametrize("name", ["identity", "optimizer", "seconds", "best", "stale", "measured"])
@pytest.mark.parametrize("value", [None, "x", [1]])
def test_a_state_that_lacks_something_is_refused(train, tmp_path, name, value):
    train("o", steps=2)
    folder = tmp_path / "o" / "training" / "checkpoints" / "step-00000002"
    kept = json.loads((folder / "state.json").read_text()) | {name: value}
    resealed(folder, "state.json", json.dumps(kept).encode())
    with pytest.raises(TriarchError, match=f"checkpoint does not fit this run .*{name}"):
        train("o", steps=2, resume=True)


def test_a_damaged_newest_is_passed_over_to_the_bit(train, tmp_path, monkeypatch):
    train("whole", save_every=3)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        after_step(patch, 8, die)
        train("o", save_every=3)
    with (tmp_path / "o/training/checkpoints/step-00000006/optimizer.safetensors").open("r+b") as file:
        file.truncate(100)
    train("o", save_every=3, resume=True)
    assert "going on from step 3 of 12" in train.notes
    shutil.rmtree(tmp_path / "o/training/checkpoints/step-00000006.corrupt")
    assert runs.left_by(tmp_path / "o") == runs.left_by(tmp_path / "whole")


def test_without_a_valid_one_nothing_is_begun(train, tmp_path):
    train("o", steps=2)
    (tmp_path / "o/training/checkpoints/step-00000002/state.json").write_text("{}")
    with pytest.raises(CorruptFile, match="every checkpoint is damaged"):
        train("o", steps=2, resume=True)


# Two at once


def test_a_folder_takes_one_run_at_a_time(train, tmp_path):
    with held(tmp_path / "o", resume=False):
        for resume in (False, True):
            with pytest.raises(InvalidInput, match="is in use by another run"):
                train("o", resume=resume)
    assert train("o", steps=1)["steps"] == 1


def test_a_model_that_no_run_has_made_is_not_written_over(train, model, tmp_path):
    shutil.copytree(model("bert"), tmp_path / "o")
    for resume in (False, True):
        with pytest.raises(InvalidInput, match=r"o holds a model already, config\.json; choose another output"):
            train("o", model=str(tmp_path / "o"), resume=resume)


# Measuring and keeping


def scored(monkeypatch, values):
    """Measurements give these accuracies, one after the other."""
    measure = run.Run.measure
    given = iter(values)

    def call(self, source):
        metrics, outcomes = measure(self, source)
        return metrics | {"accuracy": next(given, 0.0)}, outcomes

    monkeypatch.setattr(run.Run, "measure", call)


def test_the_best_model_is_kept(train, tmp_path, monkeypatch):
    scored(monkeypatch, [0.1, 0.8, 0.8, 0.3])
    outcome = train("o", validation=ROWS[:4], evaluate_every=3, keep=1)
    assert outcome["best step"] == 6
    assert runs.steps_of(tmp_path / "o") == [6, 12]
    best = state.verified(tmp_path / "o/training/checkpoints/step-00000006", 6).read("weights")
    kept = triarch.load(tmp_path / "o").state_dict()
    assert all(torch.equal(kept[name], weight) for name, weight in best.items())
    assert "step 6" in (tmp_path / "o" / "README.md").read_text()


def test_a_best_model_that_could_not_be_saved_leaves_the_one_before_the_best(train, tmp_path, monkeypatch):
    scored(monkeypatch, [0.5, 0.9, 0.4, 0.3])
    write = state.write

    def full(root, step, *rest):
        if step == 6:
            raise TriarchError("cannot write the checkpoint (no space); free some")
        return write(root, step, *rest)

    monkeypatch.setattr(state, "write", full)
    outcome = train("o", validation=ROWS[:4], evaluate_every=3, save_every=3, keep=1)
    assert outcome["best step"] == 3
    assert runs.steps_of(tmp_path / "o") == [3, 12]


def test_the_tokens_of_the_data_do_not_stay_with_the_model(train, model, tmp_path):
    train("o", [{"text": row["text"]} for row in ROWS], objective="mlm", model=model("bert-words"), steps=1)
    assert not (tmp_path / "o" / "training" / "tokens").exists()


def test_the_last_is_kept_if_asked_for(train, tmp_path, monkeypatch):
    scored(monkeypatch, [0.8, 0.1, 0.1, 0.1])
    outcome = train("o", validation=ROWS[:4], evaluate_every=3, keep=1, best=False)
    assert "best step" not in outcome
    assert runs.steps_of(tmp_path / "o") == [12]
    last = state.newest(tmp_path / "o/training/checkpoints", pytest.fail).read("weights")
    kept = triarch.load(tmp_path / "o").state_dict()
    assert all(torch.equal(kept[name], weight) for name, weight in last.items())


def test_a_best_one_that_is_damaged_is_said_to_be_lost(train, tmp_path, monkeypatch):
    scored(monkeypatch, [0.8, 0.1, 0.1, 0.1])
    path = tmp_path / "o/training/checkpoints/step-00000003/weights.safetensors"
    after_step(monkeypatch, 8, lambda: path.write_bytes(b"x"))
    outcome = train("o", validation=ROWS[:4], evaluate_every=3)
    assert "best step" not in outcome
    assert any("the best model, that of step 3, is lost; keeping the last" in note for note in train.notes)


@pytest.mark.parametrize(
    "values, metric, steps, best", [([0.5, 0.6, 0.6, 0.5], "accuracy", 12, 6), ([0.5, 0.4, 0.4], "accuracy", 9, 3)]
)
def test_without_improvement_a_run_ends(train, monkeypatch, values, metric, steps, best):
    scored(monkeypatch, values)
    outcome = train("o", validation=ROWS[:4], evaluate_every=3, patience=2, epochs=30)
    assert outcome["steps"] == steps
    assert outcome["best step"] == best
    assert f"{metric} has not improved in 2 measurements: stopped" in train.notes
    assert train("o", validation=ROWS[:4], evaluate_every=3, patience=2, epochs=30, resume=True)["steps"] == steps


# What is no number


NAME = "head.labels.weight"


def test_a_loss_that_is_no_number_stops_before_its_step(train, tmp_path):
    rows = [{"text": row["text"], "label": float(i % 3) + 0.5} for i, row in enumerate(ROWS)]
    data = runs.write_jsonl(tmp_path / "data.jsonl", rows)
    planned = plan.source_of

    def spoil(*args):
        source = planned(*args)
        source.examples.examples[11] = source.examples.examples[11]._replace(target=1e200 * 1e200)
        return source

    with pytest.MonkeyPatch.context() as patch, pytest.raises(NotFinite) as caught:
        patch.setattr(plan, "source_of", spoil)
        train("o", data, save_every=100)
    step = len(runs.log_of(tmp_path / "o"))
    message = str(caught.value)
    assert f"at step {step + 1} (epoch 1; {data} line 12), first in the gradient of " in message
    assert "the loss is {'regression': inf}" in message
    assert "the state before it is saved" in message
    found = state.newest(tmp_path / "o/training/checkpoints", pytest.fail)
    assert found.step == step
    assert all(weight.isfinite().all() for weight in found.read("weights").values())


def test_a_gradient_that_is_no_number_stops_before_its_step(train, tmp_path, monkeypatch):
    train("whole", steps=4, save_every=3)
    gradients = learner.Learner.gradients

    def spoil(self, examples, seed):
        found = gradients(self, examples, seed)
        if seed[1] == 3:
            self.model.get_parameter(NAME).grad[0] = math.nan
        return found

    monkeypatch.setattr(learner.Learner, "gradients", spoil)
    with pytest.raises(
        NotFinite, match=rf"the norm of the gradient is nan at step 4 .*first in the gradient of {NAME}"
    ):
        train("o", steps=4, save_every=100)
    whole, found = (
        state.verified(tmp_path / output / "training/checkpoints/step-00000003", 3).read("weights")
        for output in ("whole", "o")
    )
    assert all(torch.equal(found[name], weight) for name, weight in whole.items())


@pytest.mark.parametrize(
    "steps, what",
    [(6, "at step 2 .*the state before it could not be saved"), (1, "is not finite any more after step 1;")],
)
def test_weights_that_overflow_are_not_saved_over_good_ones(train, tmp_path, steps, what):
    given = {"optimizer": "sgd", "lr": 1e38, "warmup": 0, "clip": None, "steps": steps, "save_every": 1}
    given |= {"optimizer_options": {"momentum": 0.0}, "weight_decay": 100.0}
    with pytest.raises(NotFinite, match=what):
        train("o", **given)
    assert runs.steps_of(tmp_path / "o") == []


# Disks


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "owner, name, does",
    [(state, "save_file", full), (shutil, "disk_usage", lambda path: SimpleNamespace(free=10))],
    ids=["while writing", "before"],
)
def test_a_disk_that_is_full_for_a_while_does_not_end_a_run(train, tmp_path, monkeypatch, owner, name, does):
    whole = train("whole", save_every=3)
    with pytest.MonkeyPatch.context() as patch:
        after_step(patch, 5, lambda: patch.setattr(owner, name, does))
        after = run.Run._note_step

        def heal(self, *args):
            after(self, *args)
            if self.step == 8:
                patch.undo()

        patch.setattr(run.Run, "_note_step", heal)
        outcome = train("o", save_every=3)
    assert outcome["steps"] == whole["steps"]
    assert sum("cannot write the checkpoint" in note for note in train.notes) == 1
    assert runs.steps_of(tmp_path / "o") == [9, 12]
    assert (tmp_path / "o/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


def test_a_disk_that_stays_full_ends_it_with_the_checkpoint_before(train, tmp_path, monkeypatch):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(TriarchError, match="cannot write the checkpoint"):
        after_step(patch, 5, lambda: patch.setattr(state, "save_file", full))
        train("o", save_every=3)
    assert runs.steps_of(tmp_path / "o") == [3]
    train("o", save_every=3, resume=True)
    assert "going on from step 3 of 12" in train.notes


def test_a_log_that_cannot_be_written_does_not_end_a_run(train, tmp_path, monkeypatch):
    begin = run.Run._start

    def broken(self):
        begin(self)
        self.log.close()
        self.log.file = open("/dev/full", "w", buffering=1)  # noqa: SIM115

    monkeypatch.setattr(run.Run, "_start", broken)
    assert train("o")["steps"] == 12


def test_a_folder_that_cannot_be_written_is_refused(train, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(TriarchError, match=r"cannot make the folder .*file/o"):
        train("file/o")
    (tmp_path / "o").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as for anyone but root
    with pytest.raises(TriarchError, match=r"cannot write into .*permission denied"):
        train("o")
    assert [*(tmp_path / "o").iterdir()] == []


def test_a_training_folder_that_cannot_be_written_is_refused(train, tmp_path):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "training").write_text("")
    with pytest.raises(TriarchError, match=r"cannot write into .*training"):
        train("o")


# What is said


def test_where_stderr_is_no_terminal_there_is_a_line_now_and_then(train, monkeypatch):
    clock = iter(range(0, 100_000, 13))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    train("o", steps=7)
    lines = [note for note in train.notes if note.startswith("step ")]
    assert len(lines) == 2
    assert lines[0].startswith("step 3 of 7, loss ")
    assert lines[0].endswith(" left")


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
