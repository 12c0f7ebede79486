"""Beam search for sequences in which given phrases occur.

Hokamp & Liu 2017, https://arxiv.org/abs/1704.07138: beams that begin or go on with a phrase are tried beside the
likeliest ones, and beams are compared with those that have got as far. Post & Vilar 2018, section 3,
https://arxiv.org/abs/1804.06609: a fixed number of beams is shared out among how far they have got.

Shapes: U sets of beams, B beams of each, N = U * B rows, V vocabulary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, zip_longest
from typing import Any

from torch import Tensor

from triarch import limits
from triarch.errors import InvalidInput, LimitExceeded, show
from triarch.generation.beams import Beams, Candidate, likeliest, totals_of
from triarch.generation.filters import NEVER, Filter, SoFar, check_ids
from triarch.generation.rows import Row, Stops
from triarch.generation.settings import Settings

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Phrase:
    """One of these must occur."""

    alternatives: tuple[Ids, ...]

    def next(self, begun: Ids) -> list[int]:
        """Tokens that go on with an alternative that begins so; none where one is complete."""
        size = len(begun)
        return sorted({ids[size] for ids in self.alternatives if len(ids) > size and ids[:size] == begun})

    @property
    def shortest(self) -> int:
        return min(map(len, self.alternatives))

    @property
    def longest(self) -> int:
        return max(map(len, self.alternatives))


@dataclass(frozen=True)
class Progress:
    """How far a sequence has got with the phrases that must occur in it, one after the other, in whatever order.

    A phrase that begins within what was taken for the beginning of another is not seen, and is to occur once more.
    """

    pending: tuple[Phrase, ...]
    complete: int = 0
    current: Phrase | None = None
    begun: Ids = ()  # of the current one

    @property
    def fulfilled(self) -> bool:
        return self.current is None and not self.pending

    def next(self) -> list[int]:
        """Tokens that get it further."""
        if self.current is not None:
            return self.current.next(self.begun)
        return sorted({token for phrase in self.pending for token in phrase.next(())})

    def after(self, token: int) -> Progress:
        """A token that does not go on with the current phrase leaves it to be begun again, maybe by this token."""
        if self.current is not None:
            if token in self.current.next(self.begun):
                return self._with(self.current, (*self.begun, token))
            return Progress((*self.pending, self.current), self.complete).after(token)
        for place, phrase in enumerate(self.pending):
            if token in phrase.next(()):
                others = self.pending[:place] + self.pending[place + 1 :]
                return replace(self, pending=others)._with(phrase, (token,))
        return self

    def _with(self, phrase: Phrase, begun: Ids) -> Progress:
        if phrase.next(begun):
            return replace(self, current=phrase, begun=begun)
        return Progress(self.pending, self.complete + 1)


class ForcedBeams(Beams):
    """The beams of a prompt, of which only those that have all the phrases may come to an end."""

    def __init__(self, row: Row, size: int, settings: Settings, stops: Stops, phrases: Sequence[Phrase]):
        super().__init__(row, size, settings, stops)
        self.longest = max(phrase.longest for phrase in phrases)
        self.likeliest = NEVER  # of all candidates of the last step
        self.progress = [Progress(tuple(phrases))] * size  # of the rows

    def forced(self, totals: Tensor) -> list[Candidate]:
        """(B, V) -> every beam with every token that gets it further."""
        places = [(beam, token) for beam, progress in enumerate(self.progress) for token in progress.next()]
        return _candidates(totals, places)

    def kept(self, totals: Tensor) -> list[Candidate]:
        """(B, V) -> every beam that has all phrases with its likeliest tokens: rare phrases would not last without.

        As many tokens as sequences are returned, so that one such beam is enough to make them.
        """
        best: list[list[int]] = totals.topk(min(self.settings.num_return_sequences, totals.shape[1])).indices.tolist()
        done = [beam for beam, progress in enumerate(self.progress) if progress.fulfilled]
        return _candidates(totals, [(beam, token) for beam in done for token in best[beam]])

    def advance(self, candidates: Sequence[Candidate], beside: Sequence[Candidate] = ()) -> None:
        """One step. Candidates, and those that are to be tried beside them, share the beams out among them."""
        self.likeliest = max((candidate.total for candidate in candidates), default=NEVER)
        self.made, usual, known = [], [], set[Candidate]()
        for rank, (candidate, row) in enumerate(self.grown(candidates)):
            if row.reason != "stop":
                usual.append((candidate, row))
            elif rank < self.size:
                known.add(candidate)
                self.end(candidate, row)
        usual = usual[: self.size]
        known.update(candidate for candidate, _ in usual)
        others = self.grown([candidate for candidate in beside if candidate not in known])
        going = []
        for candidate, row in [*usual, *others]:
            if row.reason is None:
                going.append((candidate, row))
            else:
                self.end(candidate, row)
        self.go_on(self._shared_out(going))

    def end(self, candidate: Candidate, row: Row) -> None:
        if self._after(candidate).fulfilled:
            super().end(candidate, row)

    def go_on(self, going: Sequence[tuple[Candidate, Row]]) -> None:
        super().go_on(going)
        pairs = zip(self.parents, self.rows, strict=False)  # none go on from a set that is done
        self.progress = [self.progress[beam].after(row.ids[-1]) for beam, row in pairs]

    def _hope(self) -> float:
        return self.likeliest

    def _after(self, candidate: Candidate) -> Progress:
        return self.progress[candidate.beam].after(candidate.token)

    def _shared_out(self, grown: Sequence[tuple[Candidate, Row]]) -> list[tuple[Candidate, Row]]:
        """B of these: the best of those that have got furthest, the best of those behind them, and so on in turns."""
        banks = defaultdict(list)
        for pair in sorted(grown, key=lambda pair: -pair[0].total):
            banks[self._bank(self._after(pair[0]))].append(pair)
        turns = zip_longest(*(banks[bank] for bank in sorted(banks, reverse=True)))
        return [pair for turn in turns for pair in turn if pair is not None][: self.size]

    def _bank(self, progress: Progress) -> int:
        """Phrases count alike, whatever their length; the current one by what its longest alternative still wants."""
        bank = progress.complete * self.longest
        if progress.current is None:
            return bank
        return bank + self.longest - (progress.current.longest - len(progress.begun))


def advance(sets: Sequence[ForcedBeams], logs: Tensor, so_far: SoFar, *, filters: Sequence[Filter]) -> None:
    totals = totals_of(sets, logs, so_far, filters)
    for one, candidates, table in zip(sets, likeliest(totals, sets), totals, strict=True):
        one.advance(candidates, [*one.forced(table), *one.kept(table)])


def _candidates(totals: Tensor, places: Sequence[tuple[int, int]]) -> list[Candidate]:
    if not places:
        return []
    beams, tokens = map(list, zip(*places, strict=True))
    found: list[float] = totals[beams, tokens].tolist()
    return [Candidate(total, *place) for total, place in zip(found, places, strict=True)]


def phrases_of(settings: Settings, ends: Sequence[int], rooms: Sequence[int], vocab: int) -> list[Phrase]:
    """What settings force: lists of ids, or lists of such lists, of which one must occur.

    `ends`: tokens that end a sequence; `rooms`: new tokens that each prompt may have. Raises InvalidInput for what is
    no such list, for ids that are not in the vocabulary or end a sequence, and for alternatives of which one begins
    with another, and where other options rule a phrase out; LimitExceeded for more than fits.
    """
    phrases = [Phrase(tuple(_ids(entry))) for entry in settings.force_words_ids]
    for phrase in phrases:
        check_ids("force_words_ids", [token for ids in phrase.alternatives for token in ids], vocab)
    count = sum(len(ids) for phrase in phrases for ids in phrase.alternatives)
    if count > limits.FORCED:
        raise LimitExceeded(f"force_words_ids holds {count:,} ids, over {limits.FORCED:,}; force fewer")
    banned = {*settings.suppress_tokens, *(word[0] for word in settings.bad_words_ids if len(word) == 1)}
    for phrase in phrases:
        ordered = sorted(phrase.alternatives)  # one that begins with another comes after it
        for one, other in pairwise(ordered):
            if other[: len(one)] == one:
                raise InvalidInput(
                    f"force_words_ids has the alternatives {show(list(one))} and {show(list(other))}, of which one "
                    "begins with the other; leave out the longer one"
                )
        if any(token in ends for ids in phrase.alternatives for token in ids):
            raise InvalidInput("force_words_ids holds a token that ends the sequence; leave it out, or pass ignore_eos")
        if all(banned.intersection(ids) for ids in phrase.alternatives):
            raise InvalidInput("force_words_ids holds what suppress_tokens or bad_words_ids rule out; leave one out")
    need = sum(phrase.shortest for phrase in phrases)
    for prompt, room in enumerate(rooms):
        if room < need:
            raise LimitExceeded(
                f"force_words_ids takes {need} tokens, {room} are to follow prompt {prompt}; raise max_new_tokens"
            )
    return phrases


def _ids(entry: object) -> list[Ids]:
    """The alternatives of one entry."""
    nested = isinstance(entry, list | tuple) and bool(entry) and all(isinstance(ids, list | tuple) for ids in entry)
    found: list[Any] = list(entry) if nested else [entry]  # type: ignore[call-overload]
    for ids in found:
        if not isinstance(ids, list | tuple) or not ids or not all(type(token) is int for token in ids):
            raise InvalidInput(f"force_words_ids holds {show(repr(entry))}, wanted ids, or lists of ids to choose from")
    return [tuple(ids) for ids in found]
