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
from triarch.generation.rows import Row, Stops
from triarch.generation.settings import Settings


class Group(Beams):
    """One group of a prompt's beams.

    As in the reference, whether it goes on is decided by its likeliest candidate, even where that is an end: a group
    looks on for a step or so longer than beams do.
    """

    def __init__(self, row: Row, size: int, settings: Settings, stops: Stops, number: int):
        super().__init__(row, size, settings, stops)
        self.number = number

    def advance(self, candidates: Sequence[Candidate]) -> None:
        self.likeliest = max(candidate.total for candidate in candidates)
        super().advance(candidates)

    def _hope(self) -> float:
        return self.likeliest


def advance(sets: Sequence[Group], logs: Tensor, so_far: SoFar, *, filters: Sequence[Filter], penalty: float) -> None:
    """Group after group: a token loses `penalty` of its log-probability for each beam of an earlier group of the same
    prompt that has chosen it at this step, and does not end there."""
    size = sets[0].size
    chosen: dict[int, Counter[int]] = {one.prompt: Counter() for one in sets}
    for number in sorted({one.number for one in sets}):
        places = [i for i, one in enumerate(sets) if one.number == number]
        members = [sets[i] for i in places]
        rows = torch.tensor([i * size + beam for i in places for beam in range(size)], device=logs.device)
        counts = torch.zeros(len(members), 1, logs.shape[1], device=logs.device)
        for place, one in enumerate(members):
            for token, times in chosen[one.prompt].items():
                counts[place, 0, token] = times
        led = (logs[rows].unflatten(0, (len(members), size)) - penalty * counts).flatten(0, 1)
        beams.advance(members, led, so_far.select(rows), filters=filters, pick=likeliest)
        for one in members:
            chosen[one.prompt].update(row.ids[-1] for row, _ in one.made if row.reason != "stop")
