"""A run that was broken off goes on to the bit, and only with what it had."""

import hashlib
import json
import os
import shutil
import signal
import threading

import pytest
import torch

import runs
import triarch
from runs import ROWS, SHORT, Killed, after_step, die
from triarch.errors import CheckpointMismatch, CorruptFile, InvalidInput, TriarchError
from triarch.training import learner, state

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


@pytest.mark.usefixtures("fast_disk")
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
