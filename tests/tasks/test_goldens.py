"""Every task against what the reference's pipelines answer: tests/goldens/make.py has the models and the cases."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

import triarch

CASES = [
    pytest.param(path.stem, case, id=f"{path.stem}-{number}-{case['model']}")
    for path in sorted((Path(__file__).parents[1] / "goldens").glob("*.json"))
    for number, case in enumerate(json.loads(path.read_text(encoding="utf-8")))
]


def assert_same(got, want, place="answer"):
    """The same containers, keys in the same order, text and whole numbers exactly, real numbers to 1e-5."""
    if isinstance(got, np.ndarray | torch.Tensor):
        got = got.tolist()
    assert type(got) is type(want), place
    if isinstance(want, dict):
        assert list(got) == list(want), place
        for key in want:
            assert_same(got[key], want[key], f"{place}[{key!r}]")
    elif isinstance(want, list):
        assert len(got) == len(want), place
        for number, (ours, theirs) in enumerate(zip(got, want, strict=True)):
            assert_same(ours, theirs, f"{place}[{number}]")
    elif isinstance(want, float):
        assert abs(got - want) < 1e-5, place
    else:
        assert got == want, place


@pytest.mark.parametrize("task, case", CASES)
def test_answers_as_the_reference_does(task, case):
    made = triarch.pipeline(task, tiny.load(case["model"]), **case["init"])
    assert_same(made(*case["args"], **case["call"]), case["output"])
