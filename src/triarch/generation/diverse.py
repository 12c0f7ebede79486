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
from triarch.generation.beams import Beams, likeliest
from triarch.generation.filters import Filter, SoFar


def advance(sets: Sequence[Beams], logs: Tensor, so_far: SoFar, *, filters: Sequence[Filter], penalty: float) -> None:
    """Group after group: a token loses `penalty` of its log-probability for each beam of an earlier group of the same
    prompt that has chosen it at this step, and does not end there."""
    size = sets[0].size
    chosen: dict[int, Counter[int]] = {one.prompt: Counter() for one in sets}
    for group in sorted({one.group for one in sets}):
        places = [i for i, one in enumerate(sets) if one.group == group]
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
