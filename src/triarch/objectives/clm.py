"""Causal language modelling: guess each next token of running text.

Radford et al. 2019, https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf

Documents are read to the letter, each with the end-of-text token before and after it; a long one in several examples,
short ones several in one. There GPT-2 looked from each document at those before it, for which one can ask; by default
each is learned as if it were alone. Where the vocabulary has a token to begin with, that stands before.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

from triarch.errors import InvalidInput, LimitExceeded, Unsupported
from triarch.objectives._base import Example, Stretch
from triarch.objectives._next_words import NextWords


@dataclass(kw_only=True)
class Clm(NextWords):
    READS: ClassVar[str] = "texts"

    across: bool = False  # tokens look at the documents before theirs in the same example, too
    max_tokens: int | None = None  # of one example; none: what the model takes

    def __post_init__(self) -> None:
        super().__post_init__()
        end, begin = self.processor.id("eos_token"), self.processor.id("bos_token")
        if end is None:
            raise Unsupported("the vocabulary has no end-of-text token (eos_token); choose one that has")
        self._end, self._begin = end, end if begin is None else begin
        self._room = self.most_tokens(self.max_tokens)

    @property
    def room(self) -> int:
        return self._room

    def continued(self, stretches: Sequence[Stretch]) -> Example:
        """Of each document, its beginning or its end too where the stretch has it. Raises LimitExceeded for more
        tokens than there is room for: nothing is cut."""
        texts = [self._framed(stretch) for stretch in stretches]
        lengths = [len(text) - 1 for text in texts]
        if (total := sum(lengths)) > self.room:
            raise LimitExceeded(f"stretches of {total:,} tokens where {self.room:,} fit; give fewer at once")
        ids, words = (array("I", chain.from_iterable(text[part] for text in texts)) for part in (_SEEN, _NEXT))
        return Example(ids, [0] * total, words, [total] if self.across else lengths)

    def _framed(self, stretch: Stretch) -> list[int]:
        framed = [self._begin] * stretch.begins + stretch.ids.tolist() + [self._end] * stretch.ends
        if len(framed) < 2:
            raise InvalidInput("a document has no tokens; leave it out")
        return framed


_SEEN, _NEXT = slice(None, -1), slice(1, None)
