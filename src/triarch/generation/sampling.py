"""One token after the other: the likeliest, or one that is drawn.

Shapes: N rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import torch
from torch import Tensor

from triarch.generation.filters import Filter, SoFar, apply
from triarch.generation.inference import Ask, Scores
from triarch.generation.rows import Row, Stops, note_logprobs

Search = Generator[Ask, Scores, None]  # asks for the scores of its rows, is handed them, and ends with its rows
Choose = Callable[[Tensor, Sequence[Row]], Tensor]  # scores (N, V) of these rows -> a token each, (N,)


def likeliest(scores: Tensor, _: Sequence[Row]) -> Tensor:
    return scores.argmax(-1)


class Draw:
    """Draws from the distribution that scores are of; each row has a generator of its own, so that none of the others
    in a batch changes what it draws."""

    def __init__(self, device: torch.device):
        self.device = device
        self.generators: dict[int, torch.Generator] = {}  # by the number of the prompt's sequence

    def __call__(self, scores: Tensor, rows: Sequence[Row]) -> Tensor:
        probabilities = scores.softmax(-1)
        drawn = [
            torch.multinomial(probabilities[i : i + 1], 1, generator=self.generator(row))[0]
            for i, row in enumerate(rows)
        ]
        return torch.cat(drawn)

    def generator(self, row: Row) -> torch.Generator:
        if row.sample not in self.generators:
            assert row.seed is not None
            self.generators[row.sample] = torch.Generator(self.device).manual_seed(row.seed)
        return self.generators[row.sample]


def sample(
    scores: Scores,
    rows: list[Row],
    so_far: SoFar,
    *,
    filters: Sequence[Filter],
    choose: Choose,
    stops: Stops,
    alternatives: int | None,
) -> Search:
    """Give every row one more token, again and again, until all have a reason to end. All begin with one prompt."""
    places = [0] * len(rows)  # of the rows among those that scores are of
    so_far = so_far.select(places)
    while True:
        tokens = choose_next(rows, scores, places, so_far, filters, choose, stops, alternatives)
        alive = [i for i, row in enumerate(rows) if row.reason is None]
        if not alive:
            return
        so_far = so_far.select(alive).plus([tokens[i] for i in alive])
        asked = Ask([places[i] for i in alive], [[tokens[i]] for i in alive])
        rows, places = [rows[i] for i in alive], [*range(len(alive))]
        scores = yield asked


def choose_next(
    rows: list[Row],
    scores: Scores,
    places: Sequence[int],
    so_far: SoFar,
    filters: Sequence[Filter],
    choose: Choose,
    stops: Stops,
    alternatives: int | None,
    after: int = 0,
) -> list[int]:
    """Give every row the token that is chosen from the scores of its place, and see whether it is the last."""
    logits = scores.after(after)
    if choose is likeliest and not filters:  # found for all rows of a batch at once
        tokens = [scores.best[place][after] for place in places]
    else:
        logits = logits if [*places] == [*range(len(logits))] else logits[[*places]]
        tokens = choose(apply(filters, logits, so_far), rows).tolist()
    if alternatives is not None and len(logits) != len(rows):
        logits = logits[[*places]]
    take(rows, logits, tokens, stops, alternatives)
    return tokens


def take(rows: list[Row], logits: Tensor, tokens: Sequence[int], stops: Stops, alternatives: int | None) -> None:
    """Give every row its token, with what the scores (N, V) say of it, and see whether it is the last."""
    if alternatives is not None:
        note_logprobs(rows, logits, tokens, alternatives)
    for row, token in zip(rows, tokens, strict=True):
        row.ids.append(token)
        stops.check(row)
