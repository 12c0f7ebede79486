"""Answers compared with those of the reference."""

import numpy as np
import torch


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
