"""One token after the other: the likeliest, or one that is drawn.

Shapes: N rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from triarch.generation.filters import Filter, SoFar, apply, check_finite
from triarch.generation.inference import Steps
from triarch.generation.rows import Row, Stops, note_logprobs

Choose = Callable[[Tensor, Sequence[Row]], Tensor]  # scores (N, V) of these rows -> a token each, (N,)


def likeliest(scores: Tensor, _: Sequence[Row]) -> Tensor:
    return scores.argmax(-1)


class Draw:
    """Draws from the distribution that scores are of; each row has a generator of its own, so that none of the others
    in a batch changes what it draws."""

    def __init__(self, device: torch.device):
        self.device = device
        self.generators: dict[tuple[int, int], torch.Generator] = {}

    def __call__(self, scores: Tensor, rows: Sequence[Row]) -> Tensor:
        probabilities = scores.softmax(-1)
        drawn = [
            torch.multinomial(probabilities[i : i + 1], 1, generator=self.generator(row))[0]
            for i, row in enumerate(rows)
        ]
        return torch.cat(drawn)

    def generator(self, row: Row) -> torch.Generator:
        key = row.prompt, row.sample
        if key not in self.generators:
            assert row.seed is not None
            self.generators[key] = torch.Generator(self.device).manual_seed(row.seed)
        return self.generators[key]


def sample(
    steps: Steps,
    rows: list[Row],
    so_far: SoFar,
    *,
    filters: Sequence[Filter],
    choose: Choose,
    stops: Stops,
    copies: int,
    alternatives: int | None,
) -> Iterator[list[Row]]:
    """Give every row one more token, and yield those that got one, until all have a reason to end."""
    logits = steps.start(copies)
    while rows:
        tokens = choose_next(rows, logits, so_far, filters, choose, stops, alternatives)
        yield rows
        alive = [i for i, row in enumerate(rows) if row.reason is None]
        if not alive:
            return
        so_far = so_far.plus(tokens)
        if len(alive) < len(rows):
            kept = torch.tensor(alive, device=tokens.device)
            rows, tokens, so_far = [rows[i] for i in alive], tokens[kept], so_far.select(kept)
            steps.select(kept)
        logits = steps.feed(tokens[:, None])[:, -1]


def choose_next(
    rows: list[Row],
    logits: Tensor,
    so_far: SoFar,
    filters: Sequence[Filter],
    choose: Choose,
    stops: Stops,
    alternatives: int | None,
) -> Tensor:
    """Give every row the token (N,) that is chosen from the model's scores (N, V), and see whether it is the last."""
    check_finite(logits)
    tokens = choose(apply(filters, logits, so_far), rows)
    take(rows, logits, tokens, stops, alternatives)
    return tokens


def take(rows: list[Row], logits: Tensor, tokens: Tensor, stops: Stops, alternatives: int | None) -> None:
    """Give every row its token of (N,), with what the scores (N, V) say of it, and see whether it is the last."""
    chosen: list[int] = tokens.tolist()
    if alternatives is not None:
        note_logprobs(rows, logits, chosen, alternatives)
    for row, token in zip(rows, chosen, strict=True):
        row.ids.append(token)
        stops.check(row)
