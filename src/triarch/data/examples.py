"""Examples in memory, as a training loop draws them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from triarch.errors import InvalidInput


class Example(NamedTuple):
    """One sequence of tokens, special ones included, and what is to be learned from it."""

    ids: Sequence[int]  # where examples are kept, an array of four bytes each
    type_ids: Sequence[int]
    target: Any = None  # each objective's own
    note: Any = None  # what measuring needs beside the target, such as the texts of the right answers
    written: int = 0  # tokens of the target, where that is a text which the model goes through as well
    dropped: int = 0  # tokens of the row that were cut, because that was asked for
    given: Any = None  # in place of tokens: an input that is read anew for each batch
    cost: int = 0  # of the piece of it that this is, in the units of its processor
    digest: bytes = b""  # of what the model sees of it

    @property
    def length(self) -> int:
        return self.cost or len(self.ids) + self.written


class Passage(NamedTuple):
    """A sentence of running text, as tokens without special ones."""

    ids: np.ndarray  # (T,) int64
    starts: np.ndarray  # (T,) bool: here a word begins


class Stretch(NamedTuple):
    """A part of a document, to the letter, as tokens without special ones."""

    ids: np.ndarray  # (T,) int64
    begins: bool  # the document begins with it
    ends: bool  # and ends with it


class Examples:
    """What an objective made of rows. Each is the same whenever it is drawn."""

    def __init__(self, examples: Sequence[Example]):
        if not examples:
            raise InvalidInput("there are no examples; give at least one")
        self.examples = examples
        self.lengths = np.array([example.length for example in examples])  # (N,) int64, in tokens

    def __len__(self) -> int:
        return len(self.examples)

    def draw(self, index: int, rng: np.random.Generator) -> Example:
        return self.examples[index]
