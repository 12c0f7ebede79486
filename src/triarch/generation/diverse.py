"""Diverse beam search: groups of beams, each of which is led away from what the groups before it choose.

Vijayakumar et al. 2016, section 4, with Hamming diversity, https://arxiv.org/abs/1610.02424

Shapes: U sets of beams, B beams of each, N = U * B rows, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from triarch.generation import beams
from triarch.generation.beams import Beams, Candidate, likeliest
from triarch.generation.filters import Filter, SoFar


class Group(Beams):
    """One group of a prompt's beams.

    As in the reference, whether it goes on is decided by its likeliest candidate, even where that is an end: a group
    looks on for a step or so longer than beams do.
    """

    def advance(self, candidates: Sequence[Candidate]) -> None:
        self.likeliest = max(candidate.total for candidate in candidates)
        super().advance(candidates)

    def _hope(self) -> float:
        return self.likeliest


def advance(sets: Sequence[Group], logs: Tensor, so_far: SoFar, *, filters: Sequence[Filter], penalty: float) -> None:
    """Group after group: a token loses `penalty` of its log-probability for each beam of an earlier group of the same
    prompt that has chosen it at this step, and does not end there."""
    size = sets[0].size
    chosen = Counter[int]()
    for place, one in enumerate(sets):
        rows = range(place * size, (place + 1) * size)
        counts = torch.zeros(logs.shape[1], device=logs.device)
        for token, times in chosen.items():
            counts[token] = times
        led = logs[rows.start : rows.stop] - penalty * counts
        beams.advance([one], led, so_far.select(rows), filters=filters, pick=likeliest)
        chosen.update(row.ids[-1] for row, _ in one.made if row.reason != "stop")
