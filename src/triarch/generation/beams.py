"""Beam search: several sequences of each prompt grow side by side, and only the likeliest of all their continuations go
on. Graves 2012, section 2.4, https://arxiv.org/abs/1211.3711; the score, which does not favour short sequences: Wu et
al. 2016, section 7, https://arxiv.org/abs/1609.08144

The loop is shared with diverse and constrained search, which differ in what they take for the best.

Shapes: U sets of beams that are worked on, B beams of each, N = U * B rows, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from triarch.errors import InvalidInput
from triarch.generation.filters import NEVER, Filter, SoFar, filtered
from triarch.generation.inference import Ask, Scores
from triarch.generation.rows import Row, Stops, note_logprobs
from triarch.generation.sampling import Draw, Search
from triarch.generation.settings import Settings


class Candidate(NamedTuple):
    """What a beam may go on with."""

    total: float  # log-probability of the whole sequence, as filters have changed it
    beam: int
    token: int


class Beams:
    """The beams of a prompt, or a group of them, and the best sequences that have come to an end."""

    def __init__(self, row: Row, size: int, settings: Settings, stops: Stops):
        self.size, self.settings, self.stops = size, settings, stops
        self.rows = [row] * size  # that go on, best first
        self.totals = [0.0] + [NEVER] * (size - 1)  # they begin alike, and several alike would find the same
        self.made: list[tuple[Row, int]] = []  # by the last step, and the beams that they continue
        self.parents: list[int] = []  # of the rows
        self.ended: list[Row] = []  # best first
        self.done = False

    @property
    def count(self) -> int:
        """Candidates to look at: enough for every beam to go on, should the best of each be an end."""
        return max(2, 1 + len(self.stops.ends)) * self.size

    def advance(self, candidates: Sequence[Candidate]) -> None:
        """One step, with candidates in the order of choice. Those that end count if they are among the first B."""
        self.made, going = [], []
        for rank, (candidate, row) in enumerate(self.grown(candidates)):
            if row.reason is None:
                going.append((candidate, row))
            elif rank < self.size:
                self.end(candidate, row)
        self.go_on(sorted(going, key=lambda pair: -pair[0].total))  # what was drawn comes in any order

    def grown(self, candidates: Sequence[Candidate]) -> list[tuple[Candidate, Row]]:
        """The rows that they make. What filters have ruled out makes none."""
        made = []
        for candidate in candidates:
            if candidate.total > NEVER:
                old = self.rows[candidate.beam]
                ids = [*old.ids, candidate.token]
                score = candidate.total / len(ids) ** self.settings.length_penalty
                logprobs, alternatives, texts = (
                    [*old.logprobs],
                    [*old.alternatives],
                    [copy.copy(one) for one in old.texts],
                )
                row = replace(
                    old, ids=ids, score=score, logprobs=logprobs, alternatives=alternatives, texts=texts, reason=None
                )
                self.stops.check(row)
                made.append((candidate, row))
        return made

    def end(self, candidate: Candidate, row: Row) -> None:
        self.made.append((row, candidate.beam))
        self.ended = sorted([*self.ended, row], key=_badness)[: self.size]

    def go_on(self, going: Sequence[tuple[Candidate, Row]]) -> None:
        """With the first B of these; where there are fewer, what fills their place can not win."""
        going = going[: self.size]
        self.made += [(row, candidate.beam) for candidate, row in going]
        idle = self.size - len(going)
        self.totals = [candidate.total for candidate, _ in going] + [NEVER] * idle
        if not going:
            self.rows, self.done = [], True
            return
        self.rows = [row for _, row in going] + [going[0][1]] * idle
        self.parents = [candidate.beam for candidate, _ in going] + [going[0][0].beam] * idle
        self.done = self._decided(self._hope())

    def _hope(self) -> float:
        """The total that decides whether to go on: that of the best beam."""
        return max(self.totals)

    def _decided(self, total: float) -> bool:
        """Whether going on is given up: for a sequence that is better than the worst of those that ended there is no
        hope, judged by this total as if it ended now; or, where early_stopping is "never", at the best length."""
        if len(self.ended) < self.size:
            return False
        s, first = self.settings, self.rows[0]
        if s.early_stopping is True:
            return True
        latest = s.early_stopping == "never" and s.length_penalty > 0
        worst = self.ended[-1].score
        assert worst is not None
        return total / (first.room if latest else len(first.ids)) ** s.length_penalty <= worst

    @property
    def best(self) -> list[Row]:
        """What would be returned if this were all."""
        going = [row for row, total in zip(self.rows, self.totals, strict=False) if total > NEVER]
        return self.ended if self.done else [*self.ended, *going]


Pick = Callable[[Tensor, Sequence[Beams]], list[list[Candidate]]]  # totals (U, B, V) -> candidates for each
Kind = TypeVar("Kind", bound=Beams)
Advance = Callable[[Sequence[Kind], Tensor, SoFar], None]  # beams, log-probabilities (N, V) of their next tokens


def likeliest(totals: Tensor, beams: Sequence[Beams]) -> list[list[Candidate]]:
    flat = totals.flatten(1)
    best = flat.topk(min(beams[0].count, flat.shape[1]))
    return _candidates(best.values, best.indices, totals.shape[2])


def drawn(totals: Tensor, beams: Sequence[Beams], *, draw: Draw) -> list[list[Candidate]]:
    """Without replacement, from the continuations of all beams of a prompt together."""
    flat = totals.flatten(1)
    probabilities = flat.clamp(min=-1e9).softmax(-1)  # of a prompt whose beams are all at an end they are numbers too
    count = min(beams[0].count, flat.shape[1])
    chosen = torch.cat(
        [
            torch.multinomial(probabilities[i : i + 1], count, generator=draw.generator(one.rows[0]))
            for i, one in enumerate(beams)
        ]
    )
    return _candidates(flat.gather(1, chosen), chosen, totals.shape[2])


def advance(beams: Sequence[Beams], logs: Tensor, so_far: SoFar, *, filters: Sequence[Filter], pick: Pick) -> None:
    for one, candidates in zip(beams, pick(totals_of(beams, logs, so_far, filters), beams), strict=True):
        one.advance(candidates)


def totals_of(beams: Sequence[Beams], logs: Tensor, so_far: SoFar, filters: Sequence[Filter]) -> Tensor:
    """(U, B, V) of every beam with every token after it."""
    scores = filtered(filters, logs, so_far)
    scores = scores.masked_fill(scores.isnan(), NEVER)  # a row that is left no token, once its scores are normalised
    scores = scores.unflatten(0, (len(beams), -1))
    return scores + torch.tensor([one.totals for one in beams], device=logs.device)[..., None]


def search(
    scores: Scores, rows: list[Row], so_far: SoFar, beams: Sequence[Kind], *, advance: Advance[Kind], settings: Settings
) -> Search:
    """Fill rows with the best sequences of their prompt, after each step as they are then.

    `beams`: the sets of the prompt. Raises InvalidInput where the options leave fewer sequences than asked.
    """
    logits, alive, first = scores.after().expand(settings.num_beams, -1), list(beams), True
    so_far = so_far.select([0] * settings.num_beams)
    while True:
        logs = logits.float().log_softmax(-1)
        advance(alive, logs, so_far)
        size = alive[0].size
        if settings.logprobs is not None:
            for i, one in enumerate(alive):
                if one.made:
                    made, parents = zip(*one.made, strict=True)
                    chosen = [row.ids[-1] for row in made]
                    note_logprobs(made, logits[i * size :][list(parents)], chosen, settings.logprobs)
        _report(rows, beams)
        order = [i * size + beam for i, one in enumerate(alive) if not one.done for beam in one.parents]
        alive = [one for one in alive if not one.done]
        if not alive:
            return
        tokens = [row.ids[-1] for one in alive for row in one.rows]
        so_far = so_far.select(order).plus(tokens)
        scores = yield Ask([0] * len(order) if first else order, [[token] for token in tokens])
        logits, first = scores.after(), False


def _report(rows: Sequence[Row], beams: Sequence[Beams]) -> None:
    """What a prompt's rows are as things stand."""
    found = sorted((row for one in beams for row in one.best), key=_badness)
    if all(one.done for one in beams) and len(found) < len(rows):
        raise InvalidInput(
            f"the options leave {len(found)} sequences to prompt {rows[0].prompt}, wanted {len(rows)}; allow more"
        )
    for row, best in zip(rows, found, strict=False):
        row.ids, row.logprobs, row.alternatives = best.ids, best.logprobs, best.alternatives
        row.reason, row.cut, row.score = best.reason, best.cut, best.score


def _candidates(totals: Tensor, places: Tensor, vocab: int) -> list[list[Candidate]]:
    return [
        [Candidate(total, *divmod(place, vocab)) for total, place in zip(*pair, strict=True)]
        for pair in zip(totals.tolist(), places.tolist(), strict=True)
    ]


def _badness(row: Row) -> float:
    assert row.score is not None
    return -row.score
