"""What the losses of several objectives are made of.

Shapes: B sequences, T tokens, N chosen ones, C classes, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from triarch.objectives._base import IGNORED

if TYPE_CHECKING:
    from torch import Tensor


def padded_targets(rows: Sequence[Any]) -> Tensor:
    """Classes of the tokens of each row -> (B, T) int64, IGNORED behind their ends."""
    import torch

    table = np.full((len(rows), max(map(len, rows))), IGNORED, np.int64)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return torch.from_numpy(table)


def cross_entropy(logits: Tensor, targets: Tensor, weight: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """The sum over targets (…) of logits (…, C), without the IGNORED ones."""
    import torch.nn.functional as F

    return F.cross_entropy(
        wide(logits).flatten(0, -2),
        targets.flatten(),
        weight=weight,
        ignore_index=IGNORED,
        reduction="sum",
        label_smoothing=smoothing,
    )


def wide(scores: Tensor) -> Tensor:
    """At least float32: sums of many exponentials need it."""
    import torch

    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def rows(scores: Tensor) -> np.ndarray:
    """Scores (B, …) as float32 on the CPU."""
    return scores.float().cpu().numpy()


def guesses(logits: Tensor, words: Tensor) -> list[tuple[float, float, float]]:
    """Logits (N, V) of the words (B, T) that are not IGNORED -> (loss, count, right ones) of each row."""
    import torch.nn.functional as F

    chosen = words != IGNORED
    loss = F.cross_entropy(wide(logits), words[chosen], reduction="none")
    right = logits.argmax(-1) == words[chosen]
    row = chosen.nonzero()[:, 0]
    table = loss.new_zeros(len(words), 3)
    for column, values in enumerate((loss, loss.new_ones(len(row)), right.to(loss.dtype))):
        table[:, column].index_add_(0, row, values)
    return [(a, b, c) for a, b, c in table.double().cpu().tolist()]
