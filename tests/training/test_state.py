"""Checkpoints of a run: whole or not there, whatever happens while they are written and afterwards."""

import errno
import json
import os
import shutil
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError

from runs import Killed
from triarch.errors import CorruptFile, InvalidInput, TriarchError
from triarch.training import state

TENSORS = {"weights": {"w": torch.arange(6.0).reshape(2, 3)}, "optimizer": {"w.step": torch.tensor(3.0)}}
FILES = ["weights.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]

pytestmark = pytest.mark.usefixtures("fast_disk")


@pytest.fixture
def root(tmp_path):
    """Holds the checkpoints of steps 10 and 20."""
    for step in (10, 20):
        state.write(tmp_path, step, TENSORS, {"best": {}})
    return tmp_path


def names(root):
    return sorted(path.name for path in root.iterdir())


def newest(root):
    """The newest step, and what was said on the way."""
    notes = []
    found = state.newest(root, notes.append)
    return (None if found is None else found.step), notes


def test_what_is_written_is_read(tmp_path):
    state.write(tmp_path / "new", 7, TENSORS, {"best": {"step": 3, "value": 0.1}})
    found = state.newest(tmp_path / "new", pytest.fail)
    assert found.step == 7
    assert found.state == {"step": 7, "best": {"step": 3, "value": 0.1}}
    for name, group in TENSORS.items():
        read = found.read(name)
        assert read.keys() == group.keys()
        assert all(torch.equal(read[key], group[key]) and read[key].dtype == group[key].dtype for key in group)


def test_an_optimizer_without_state_has_no_tensors(tmp_path):
    state.write(tmp_path, 1, {"optimizer": {}}, {})
    assert state.newest(tmp_path, pytest.fail).read("optimizer") == {}


def test_a_file_that_the_run_had_not_is_empty(root):
    assert state.newest(root, pytest.fail).read("average") == {}


def test_without_checkpoints_there_is_none(tmp_path):
    assert state.newest(tmp_path / "nothing", pytest.fail) is None


def test_a_step_is_written_once(root):
    before = (root / "step-00000020" / "state.json").stat().st_mtime_ns
    state.write(root, 20, {"weights": {}}, {})
    assert (root / "step-00000020" / "state.json").stat().st_mtime_ns == before


# Death while writing


OPERATIONS = [(state, "save_file"), (Path, "write_text"), (os, "fsync"), (os, "rename")]


def dying(monkeypatch, at, late):
    """The operation number `at` of a save is the last; `late`: it is done, else it is not even begun."""
    seen = count()

    def wrap(do):
        def call(*args, **kwargs):
            number = next(seen)
            if number == at and not late:
                raise Killed
            done = do(*args, **kwargs)
            if number == at:
                raise Killed
            return done

        return call

    for owner, name in OPERATIONS:
        monkeypatch.setattr(owner, name, wrap(getattr(owner, name)))
    monkeypatch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)  # the dead clean up nothing


@pytest.mark.parametrize("late", [False, True])
def test_death_at_any_point_of_a_save_leaves_a_valid_checkpoint(tmp_path, late):
    steps = []
    for at in count():
        root = tmp_path / str(at)
        state.write(root, 10, TENSORS, {})
        with pytest.MonkeyPatch.context() as patch:
            dying(patch, at, late)
            try:
                state.write(root, 20, TENSORS, {})
            except Killed:
                died = True
            else:
                died = False
        state.clean(root)
        step, notes = newest(root)
        assert notes == []
        assert names(root) == [f"step-{step:08}"] if step == 10 else ["step-00000010", "step-00000020"]
        steps.append(step)
        if not died:
            break
    assert len(steps) > 9  # two files of tensors, two texts, five fsyncs, the rename, the folder's fsync
    assert steps == sorted(steps)
    assert steps[0] == 10
    assert steps[-1] == 20


def test_death_while_an_old_one_is_removed_leaves_no_half(root, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
        state.purge(root, 1, [])
    assert newest(root) == (20, [])
    assert ".step-00000010.old" in names(root)
    state.clean(root)
    assert names(root) == ["step-00000020"]


# A disk that is full, or takes nothing


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_in_safetensors(*args, **kwargs):
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    "owner, name, does",
    [
        (state, "save_file", full),
        (state, "save_file", full_in_safetensors),
        (Path, "write_text", full),
        (os, "fsync", full),
        (os, "rename", full),
        (shutil, "disk_usage", lambda path: SimpleNamespace(free=10)),
    ],
)
def test_a_full_disk_is_an_error_that_leaves_nothing_behind(root, monkeypatch, owner, name, does):
    before = names(root)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, does)
        with pytest.raises(TriarchError, match=r"cannot write the checkpoint .*step-00000030 .*; make room"):
            state.write(root, 30, TENSORS, {})
    assert names(root) == before
    assert newest(root) == (20, [])
    state.write(root, 30, TENSORS, {})
    assert newest(root) == (30, [])


# Damage afterwards


def truncate(path):
    path.write_bytes(path.read_bytes()[:-3])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def remove(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


def link(path):
    elsewhere = path.parent.parent / f"elsewhere-{path.name}"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def make_folder(path):
    path.unlink()
    path.mkdir()


def make_pipe(path):
    path.unlink()
    os.mkfifo(path)


def nest(path):
    path.write_text("[" * 100_000)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [truncate, flip, remove, empty, link, make_folder, make_pipe, nest])
def test_a_damaged_one_is_set_aside_and_the_one_before_is_used(root, name, damage):
    damage(root / "step-00000020" / name)
    step, notes = newest(root)
    assert step == 10
    assert len(notes) == 1
    assert notes[0].endswith("set aside as step-00000020.corrupt")
    assert {"step-00000010", "step-00000020.corrupt"} <= set(names(root))
    assert newest(root) == (10, [])


def test_a_file_that_the_manifest_does_not_list_is_damage(root):
    (root / "step-00000020" / "more.safetensors").write_bytes(b"x")
    assert newest(root)[0] == 10


@pytest.mark.parametrize(
    "listed", [{}, [], None, {"../x": {"bytes": 1, "sha256": ""}}, {"state.json": None}, "nothing"]
)
def test_a_manifest_of_nonsense_is_damage(root, listed):
    path = root / "step-00000020" / "manifest.json"
    path.write_text("3" if listed == "nothing" else json.dumps({"format": 1, "files": listed}))
    assert newest(root)[0] == 10


def test_a_manifest_without_end_is_damage(root):
    (root / "step-00000020" / "manifest.json").write_text(" " * (65 << 20))
    assert newest(root)[0] == 10


def test_the_state_of_another_step_is_damage(root):
    (root / "step-00000020").rename(root / "step-00000090")
    step, notes = newest(root)
    assert step == 10
    assert "of another step" in notes[0]


def test_damage_upon_damage(root):
    """A step that was set aside before, and is damaged again after it was made again."""
    flip(root / "step-00000020" / "state.json")
    assert newest(root)[0] == 10
    state.write(root, 20, TENSORS, {})
    flip(root / "step-00000020" / "state.json")
    assert newest(root)[0] == 10


def test_all_damaged_is_an_error_that_lists_them(root):
    for path in root.glob("step-*"):
        flip(path / "weights.safetensors")
    with pytest.raises(CorruptFile, match=r"every checkpoint is damaged \(step-00000020, step-00000010\)"):
        newest(root)


def test_a_newer_format_is_refused_and_stays(root):
    path = root / "step-00000020" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(InvalidInput, match="is of format 2, this version reads 1; update triarch"):
        newest(root)
    assert names(root) == ["step-00000010", "step-00000020"]


def test_one_that_cannot_be_set_aside_is_an_error(root, monkeypatch):
    flip(root / "step-00000020" / "state.json")

    def refuse(self, target):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(TriarchError, match=r"cannot be set aside \(Permission denied\)"):
        newest(root)


def test_the_order_is_that_of_the_steps_not_of_the_clock(root):
    for path in (root / "step-00000020").iterdir():
        os.utime(path, (0, 0))
    os.utime(root / "step-00000020", (0, 0))
    assert newest(root)[0] == 20


@pytest.mark.parametrize("name", ["latest", "step-7", "step-00000030.corrupt", "step-0000003x", ".step-00000030.tmp"])
def test_other_names_are_no_checkpoints(root, name):
    (root / name).mkdir()
    assert newest(root) == (20, [])


def test_a_pointer_to_nowhere_is_no_checkpoint(root):
    (root / "latest").symlink_to(root / "step-99999999")
    (root / "step-00000099").symlink_to(root / "step-99999999")
    assert newest(root) == (20, [])


# What is kept


def test_the_newest_and_the_protected_are_kept(tmp_path):
    for step in (1, 2, 3, 4, 5):
        state.write(tmp_path, step, TENSORS, {})
    state.purge(tmp_path, 2, [2])
    assert names(tmp_path) == ["step-00000002", "step-00000004", "step-00000005"]


def test_one_that_cannot_be_removed_only_takes_space(root, monkeypatch):
    def refuse(self, target):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        state.purge(root, 1, [])
    assert newest(root) == (20, [])
    assert names(root) == ["step-00000010", "step-00000020"]
