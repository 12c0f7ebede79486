"""Contrastive search: of the likeliest tokens the one that the model sees least as a repetition of what came before.

Su et al. 2022, section 4, https://arxiv.org/abs/2202.06417

Shapes: N rows, K candidates of each, S tokens seen, T tokens read, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.nn.functional import normalize

from triarch.generation.filters import NEVER, NONE, Filter, SoFar, apply, check_finite
from triarch.generation.inference import Observed
from triarch.generation.rows import Row, Stops
from triarch.generation.sampling import take


def contrast(
    steps: Observed,
    rows: list[Row],
    so_far: SoFar,
    *,
    filters: Sequence[Filter],
    stops: Stops,
    alpha: float,
    top_k: int,
    alternatives: int | None,
) -> Iterator[list[Row]]:
    """Give every row one more token, and yield those that got one, until all have a reason to end.

    What a token is like is known once the model has read it: so it reads all candidates, each after its row's tokens,
    and goes on from the chosen one.
    """
    logits = steps.start(top_k)[::top_k]  # (N, V)
    seen = normalize(steps.states().float(), dim=-1)  # (N, S, D)
    while rows:
        check_finite(logits)
        scores = apply(filters, logits, so_far)
        best = scores.topk(top_k)
        read = steps.feed(best.indices.view(-1, 1))  # (N * K, 1, V)
        states = normalize(steps.states().float(), dim=-1).view(len(rows), top_k, -1)
        similarity = states @ seen.transpose(1, 2)  # (N, K, S)
        padding = so_far.tokens == NONE  # (N, S)
        sameness = similarity.masked_fill(padding[:, None], NEVER).amax(-1)
        confidence = scores.softmax(-1).gather(1, best.indices)
        worth = ((1 - alpha) * confidence - alpha * sameness).masked_fill(best.values == NEVER, NEVER)  # (N, K)
        choice = worth.argmax(-1)
        each = torch.arange(len(rows), device=choice.device)
        tokens = best.indices[each, choice]
        take(rows, logits, tokens, stops, alternatives)
        yield rows
        kept = torch.tensor([i for i, row in enumerate(rows) if row.reason is None], device=choice.device)
        rows = [row for row in rows if row.reason is None]
        if not rows:
            return
        so_far = so_far.plus(tokens).select(kept)
        seen = torch.cat([seen[kept], states[kept, choice[kept], None]], 1)
        places = (each * top_k + choice)[kept]
        logits = read[places, 0]
        steps.select(places.repeat_interleave(top_k))
