"""A task on a made-up medium, waves of numbers, with nothing of its own but its answer and its options."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from triarch.data.inputs import read_rows
from triarch.errors import InvalidInput, LimitExceeded
from triarch.inputs.fit import Fit, cut, mean
from triarch.inputs.processor import Piece
from triarch.kinds import LabelScores, Medium
from triarch.tasks import _options
from triarch.tasks._base import Job, Task

Wave = Medium("wave", suffixes=(".wave",))


class Waves:
    """Reads up to eight numbers at once."""

    def single(self, given):
        return isinstance(given, np.ndarray) or (isinstance(given, Path) and given.suffix in Wave.suffixes)

    def read(self, given):
        found = np.array(json.loads(given.read_text())) if isinstance(given, Path) else given
        if not isinstance(found, np.ndarray) or not found.size:
            raise InvalidInput("no wave; wanted an array or a .wave file")
        return found

    def pieces(self, item, fit):
        most, stride = fit.sizes(8)
        if fit.strategy == "error":
            fit.refuse(len(item), most, "numbers")
        parts, dropped = cut(len(item), most, stride, fit.strategy)
        spans = [(part.indices(len(item))[:2]) for part in parts]
        return [Piece(item[a:b], b - a, (a, b), len(item), dropped) for a, b in spans]

    def collate(self, pieces):
        longest = max(piece.cost for piece in pieces)
        rows = [np.pad(piece.content, (0, longest - piece.cost)) for piece in pieces]
        return {"waves": torch.tensor(np.stack(rows)), "sizes": torch.tensor([piece.cost for piece in pieces])}


class Family:
    medium = Wave


class Model(nn.Module):
    kind, family = LabelScores, Family

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.processor = Waves()

    def forward(self, waves, sizes):
        return LabelScores((waves.sum(1) / sizes * self.scale)[:, None])


@dataclass(frozen=True, kw_only=True)
class Plain(_options.Shared):
    digits: int = 6


class Level(Task):
    """Wave -> its mean."""

    INPUT = Wave
    NEEDS = (LabelScores,)
    OPTIONS = Plain
    FIT = Fit(advice='use long="window"')

    def answer(self, job: Job, outputs, options):
        return round(float(mean(outputs, job.costs)[0]), options.digits)


class Cut(Level):
    """The same with the options of long inputs."""

    OPTIONS = _options.Options

    def answer(self, job, outputs, options):
        return float(mean(outputs, job.costs)[0])


SHORT, LONG = np.arange(4.0), np.arange(20.0)


@pytest.fixture
def level():
    return Level(Model())


def test_an_array_is_one_input(level):
    assert level(SHORT) == 1.5


def test_lists_and_generators_hold_several(level):
    assert level([SHORT, LONG]) == [1.5, 9.5]
    assert list(level(wave for wave in (SHORT, LONG))) == [1.5, 9.5]


def test_a_file_is_one_input(level, tmp_path):
    (tmp_path / "a.wave").write_text("[1, 2]")
    assert level(tmp_path / "a.wave") == 1.5


def test_a_folder_holds_the_files_of_the_medium(level, tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("b.wave", "a.WAVE", "more/c.wave", "notes.txt"):
        (tmp_path / name).write_text("[1, 2]")
    found = read_rows(tmp_path, "wave", medium=Wave)
    assert [path.name for path in found] == ["a.WAVE", "b.wave", "c.wave"]


def test_a_folder_without_such_files_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"holds no file that ends in \.wave; name another folder"):
        next(read_rows(tmp_path, "wave", medium=Wave))


def test_a_long_input_is_read_whole(level):
    found = level(LONG, coverage=True)
    assert found == {"result": 9.5, "coverage": {"tokens": 20, "seen": 20, "windows": 3, "strategy": "window"}}


def test_options_for_long_inputs_serve_every_medium():
    level = Cut(Model())
    assert level(LONG, truncation=True, coverage=True)["coverage"]["seen"] == 8
    assert level(LONG, max_length=4, coverage=True)["coverage"]["windows"] == 5
    with pytest.raises(LimitExceeded, match='the input has 20 numbers, at most 8 fit; use long="window"'):
        level(LONG, long="error")


def test_an_input_that_cannot_be_read_fails_alone(level):
    good, bad, after = level.stream([SHORT, "text", LONG], level.options({}))
    assert (good, after) == (1.5, 9.5)
    assert isinstance(bad, InvalidInput)


def test_options_of_such_a_task_are_checked(level):
    with pytest.raises(InvalidInput, match="digits is 'x', wanted int"):
        level(SHORT, digits="x")
