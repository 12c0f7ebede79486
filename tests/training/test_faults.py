"""What a run does where something is wrong: two at once, numbers that are none, disks that are full."""

import errno
import math
import os
import shutil
from types import SimpleNamespace

import pytest
import torch

import runs
from runs import ROWS, after_step
from triarch.errors import InvalidInput, TriarchError
from triarch.training import learner, plan, run, state
from triarch.training.learner import NotFinite
from triarch.training.workplace import held

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
