"""Contrastive search: of the likeliest tokens the one that the model sees least as a repetition of what came before.

Su et al. 2022, section 4, https://arxiv.org/abs/2202.06417

Shapes: K candidates, S tokens seen, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import normalize

from triarch.generation.filters import NEVER, Filter, SoFar, apply
from triarch.generation.inference import Ask, Scores
from triarch.generation.rows import Row, Stops
from triarch.generation.sampling import Search, take


def contrast(
    scores: Scores,
    row: Row,
    so_far: SoFar,
    *,
    filters: Sequence[Filter],
    stops: Stops,
    alpha: float,
    top_k: int,
    alternatives: int | None,
) -> Search:
    """Give the row one more token, again and again, until it has a reason to end.

    What a token is like is known once the model has read it: so it reads all candidates, each after the row's tokens,
    and goes on from the chosen one.
    """
    assert scores.states is not None
    logits, choice = scores.after(), 0  # (1, V)
    seen = normalize(scores.states.float(), dim=-1)[0]  # (S, D)
    while True:
        filtered = apply(filters, logits, so_far)
        best = filtered.topk(top_k)
        read = yield Ask([choice] * top_k, best.indices.view(-1, 1).tolist())  # (K, 1, V)
        assert read.states is not None
        states = normalize(read.states.float(), dim=-1)[:, -1]  # (K, D)
        sameness = (states @ seen.T).amax(-1)
        confidence = filtered.softmax(-1).gather(1, best.indices)
        worth = ((1 - alpha) * confidence - alpha * sameness).masked_fill(best.values == NEVER, NEVER)  # (1, K)
        choice = int(worth.argmax(-1))
        token = int(best.indices[0, choice])
        take([row], logits, [token], stops, alternatives)
        if row.reason is not None:
            return
        so_far = so_far.plus([token])
        seen = torch.cat([seen, states[choice, None]])
        logits = read.of(choice, choice + 1).after()
