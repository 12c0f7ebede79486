"""What the tests of several files are given. Each process of a test run computes with one thread (see the Makefile)."""

import os
import pickle

import pytest
import torch
from filelock import FileLock

import forks as forking
import runs
import stand_ins
import tiny
import triarch
from triarch import starters
from triarch.tour import bundled_sentences, explore, lessons, page

torch.set_num_threads(1)
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS"), "1")  # of tokenizers, and of processes that start

# Text and data


@pytest.fixture(scope="session")
def processor():
    """A tiny BERT's."""
    return tiny.load("bert-words").processor


@pytest.fixture
def file(tmp_path):
    """Writes a file."""

    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


# Runs


@pytest.fixture(scope="session")
def forks():
    """Starts processes in no time, one after the other."""
    started = forking.Forks()
    yield started
    started.close()


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return runs.model_in(tmp_path_factory.mktemp("models"))


@pytest.fixture
def fast_disk(monkeypatch):
    """What is not on disk yet is in memory, which no test here takes away."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def train(model, tmp_path, fast_disk):
    """A run into a folder of that name; its notes are kept in `train.notes`."""

    def call(output, rows=runs.ROWS, **settings):
        call.notes = []
        given = runs.SHORT | {"model": model("bert")} | settings
        for name, other in (("family", "model"), ("steps", "epochs"), ("batch_tokens", "batch_size")):
            if name in settings:
                given.pop(other, None)
        return triarch.train(rows, output=tmp_path / output, note=call.notes.append, **given)

    return call


# The tour


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """What the first process of a test run has made, for all of them: by a name, and how to make it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent

    def once(name, make):
        path = folder / f"{name}.pickle"
        with FileLock(f"{path}.lock"):
            if not path.exists():
                path.write_bytes(pickle.dumps(make()))
            return pickle.loads(path.read_bytes())

    return once


@pytest.fixture(scope="session")
def findings(shared):
    """What the tour finds out with its bundled model."""
    return shared("findings", lambda: explore(None, bundled_sentences()))


@pytest.fixture(scope="session")
def school(shared, tmp_path_factory):
    """The tour's lessons, with stand-ins for the starters."""

    def attend():
        with pytest.MonkeyPatch.context() as patch:
            home = stand_ins.write(tmp_path_factory.mktemp("starters"))
            patch.setattr(starters, "home", lambda: home)
            return lessons.attend(lambda note: None)

    return shared("school", attend)


@pytest.fixture(scope="session")
def html(findings, school):
    """The tour's page."""
    return page.render(findings, school)
