"""Running text for a model that reads on: stretches of documents, as many tokens together as the model takes.

Of a document with n tokens there are n + 1 to be guessed, each from those before it: all of its own, and its end.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from triarch.data.examples import Example, Stretch
from triarch.data.passages import packed, pieces
from triarch.data.store import STARTS, TokenStore

if TYPE_CHECKING:
    from triarch.inputs.text.processor import TextProcessor


class Continuer(Protocol):
    """The objective that stretches are for."""

    processor: TextProcessor

    @property
    def room(self) -> int: ...
    def continued(self, stretches: Sequence[Stretch]) -> Example: ...


class Stretches:
    """A document longer than `objective.room` in stretches of that many tokens; shorter ones whole, and what is left
    of longer ones, as many together as fit.

    So each token is guessed once. With `moving`, a stretch that is alone begins up to half its length earlier or later
    in its document, at random: over the epochs each token is seen at all places, and each as often as any other but
    for those near the ends.
    """

    def __init__(self, store: TokenStore, objective: Continuer, moving: bool = False):
        """Raises InvalidInput for a store of another tokenizer."""
        store.check(objective.processor)
        self.store, self.objective, self.moving = store, objective, moving
        tokens = np.asarray(store.sentences)[np.asarray(store.documents)]
        self._documents = tokens + np.arange(len(tokens))  # (D + 1,), with an end for each document before
        self._cuts, _ = pieces(self._documents, np.arange(len(tokens)), objective.room)
        self._chunks = packed(self._cuts, np.array([0, len(self._cuts) - 1]), objective.room)
        self.lengths = np.diff(self._cuts[self._chunks])  # (N,) int64

    def __len__(self) -> int:
        return len(self._chunks) - 1

    def draw(self, index: int, rng: np.random.Generator) -> Example:
        cuts = self._cuts[self._chunks[index] : self._chunks[index + 1] + 1]
        if self.moving and len(cuts) == 2:
            cuts = cuts + self._shift(int(cuts[0]), int(cuts[1]), rng)
        return self.objective.continued([self._stretch(*edges) for edges in itertools.pairwise(cuts.tolist())])

    def place(self, index: int) -> str:
        """Which document an example begins in, and at which of its tokens, counted from 1."""
        first = int(self._cuts[self._chunks[index]])
        document = self._document(first)
        return f"{self.store.place(document)}, token {first - self._documents[document] + 1:,}"

    def _document(self, place: int) -> int:
        return int(np.searchsorted(self._documents, place, side="right")) - 1

    def _shift(self, first: int, last: int, rng: np.random.Generator) -> int:
        """How far a stretch may move: up to half its length, and not out of its document."""
        begin, end = self._documents[(document := self._document(first)) : document + 2].tolist()
        half = (last - first) // 2
        return max(begin - first, min(end - last, int(rng.integers(-half, last - first - half))))

    def _stretch(self, first: int, last: int) -> Stretch:
        """What guesses from `first` to `last` need: the token before each, and the last one."""
        document = self._document(first)
        begins, ends = first == self._documents[document], last == self._documents[document + 1]
        before = document + 1  # places of the store are by so many less
        ids = self.store.tokens[first - before + begins : last - before + (not ends)]
        return Stretch((ids & ~STARTS).astype(np.int64), bool(begins), bool(ends))
