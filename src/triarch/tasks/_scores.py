"""What several tasks do with a model's scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Encoding


def mean_by_length(windows: list[Encoding], outputs: list[np.ndarray]) -> np.ndarray:
    """The scores of a whole input from those of its windows, each window counting by its tokens."""
    return np.average(outputs, axis=0, weights=[len(window) for window in windows])


def stitch(windows: list[Encoding], rows: list[np.ndarray], stride: int) -> tuple[list[tuple[int, int]], np.ndarray]:
    """One row for each token of the input from overlapping windows: the one with the most context on both sides.

    Returns where each token is, as (window, position), and its row. Special tokens are kept at both ends alone.
    """
    places = []
    for number, window in enumerate(windows):
        inner = [i for i, special in enumerate(window.special_tokens_mask) if not special]
        first = inner[0] + (stride // 2 if number else 0) if inner else 0
        last = inner[-1] - (stride - stride // 2 if number < len(windows) - 1 else 0) if inner else len(window) - 1
        first, last = (first if number else 0), (last if number < len(windows) - 1 else len(window) - 1)
        places += [(number, i) for i in range(first, last + 1)]
    return places, np.stack([rows[number][i] for number, i in places])


def softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis, in the precision of `x`."""
    shifted = np.exp(x - x.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
