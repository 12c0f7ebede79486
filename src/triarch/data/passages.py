"""Running text, as a training loop draws it: passages of a token store, made into an example afresh each time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from triarch.data.examples import Example, Passage
from triarch.data.store import STARTS, TokenStore
from triarch.errors import InvalidInput

if TYPE_CHECKING:
    from triarch.inputs.text.processor import TextProcessor


class Composer(Protocol):
    """The objective that passages are composed for."""

    processor: TextProcessor
    PAIR: ClassVar[bool]

    @property
    def room(self) -> int: ...
    def sizes(self, tokens: np.ndarray) -> np.ndarray: ...
    def compose(
        self, passages: Sequence[Passage], other: Callable[[], Sequence[Passage]], rng: np.random.Generator
    ) -> Example: ...


class Passages:
    """Chunks of running text: consecutive sentences of one document, as many as fit; a longer one in pieces.

    Together the chunks are the whole store, each token once. An index is all that is held: two int64 a sentence.
    """

    def __init__(self, store: TokenStore, objective: Composer):
        """A chunk has at most `objective.room` tokens. Raises InvalidInput for a store of another tokenizer, and for a
        single document where segments of two are put together.
        """
        processor, room = objective.processor, objective.room
        store.check(processor)
        if room < 1:
            raise InvalidInput("the special tokens leave no room for text; raise max_tokens")
        self.store, self.objective = store, objective
        self._cuts, ends = pieces(np.asarray(store.sentences), np.asarray(store.documents), room)
        self._chunks = packed(self._cuts, ends, room)
        self._ends = np.searchsorted(self._chunks, ends)  # (D + 1,), in chunks
        tokens = np.diff(self._cuts[self._chunks])
        if objective.PAIR:
            self._refuse_single(0)
            tokens[:] = room  # the second segment may come from elsewhere, and be longer
        self.lengths = objective.sizes(tokens)  # (N,) int64, at most

    def __len__(self) -> int:
        return len(self._chunks) - 1

    def draw(self, index: int, rng: np.random.Generator) -> Example:
        return self.objective.compose(self.passages(index), lambda: self._other(index, rng), rng)

    def passages(self, index: int) -> list[Passage]:
        """The sentences of a chunk."""
        cuts = self._cuts[self._chunks[index] : self._chunks[index + 1] + 1]
        tokens = np.array(self.store.tokens[cuts[0] : cuts[-1]])
        parts = np.split(tokens, cuts[1:-1] - cuts[0])
        return [Passage((part & ~STARTS).astype(np.int64), (part & STARTS) > 0) for part in parts]

    def place(self, index: int) -> str:
        """Which document a chunk is from, and which sentence of it comes first, counted from 1."""
        document, token = self._document(index), self._cuts[self._chunks[index]]
        sentence = int(np.searchsorted(self.store.sentences, token, side="right"))
        return f"{self.store.place(document)}, sentence {sentence - int(self.store.documents[document])}"

    def _document(self, index: int) -> int:
        return int(np.searchsorted(self._ends, index, side="right")) - 1

    def _refuse_single(self, document: int) -> None:
        if len(self) == self._ends[document + 1] - self._ends[document]:
            raise InvalidInput(
                "the text is one document, and this objective takes passages of another; give several files, or rows"
            )

    def _other(self, index: int, rng: np.random.Generator) -> list[Passage]:
        """A random chunk of another document."""
        document = self._document(index)
        self._refuse_single(document)
        first, end = int(self._ends[document]), int(self._ends[document + 1])
        drawn = int(rng.integers(len(self) - (end - first)))
        return self.passages(drawn if drawn < first else drawn + end - first)


def pieces(sentences: np.ndarray, documents: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Where pieces of at most `room` tokens begin, and the end of the last; and documents, counted in pieces."""
    lengths = np.diff(sentences)
    extra = (lengths - 1) // room  # cuts within each sentence
    if not extra.any():
        return sentences, documents
    counts = extra + 1
    first = np.concatenate([[0], np.cumsum(counts)])  # of each sentence, in pieces
    turn = np.arange(first[-1]) - np.repeat(first[:-1], counts)
    cuts = np.append(np.repeat(sentences[:-1], counts) + turn * room, sentences[-1])
    return cuts, first[documents]


def packed(cuts: np.ndarray, ends: np.ndarray, room: int) -> np.ndarray:
    """The first piece of each chunk, and the end of the last: pieces packed greedily, and documents kept apart."""
    fits = np.searchsorted(cuts, cuts[:-1] + room, side="right") - 1  # the end of a chunk that begins at each piece
    document = np.repeat(ends[1:], np.diff(ends))  # the end of each piece's document
    after = np.minimum(fits, document)
    chunks, piece, last = [0], 0, int(ends[-1])
    while piece < last:
        piece = int(after[piece])
        chunks.append(piece)
    return np.array(chunks)
