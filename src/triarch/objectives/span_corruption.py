"""Span corruption: write what was hidden in a text, each part after the sentinel that stands in its place.

Raffel et al. 2019, section 3.1.4 and appendix, https://arxiv.org/abs/1910.10683. Of "Thank you for inviting me to your
party last week" the source may be "Thank you <extra_id_0> me to your party <extra_id_1>", and the target
"<extra_id_0> for inviting <extra_id_1> last week". As in the code of the authors, and other than in their figure, no
sentinel stands at the end of a target. There documents followed one upon the other in a source; here each is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from typing import ClassVar

import numpy as np

from triarch.errors import InvalidInput, LimitExceeded, Unsupported
from triarch.objectives._base import Example, Passage
from triarch.objectives._corruption import joined
from triarch.objectives._noise import parted, span_counts, spans
from triarch.objectives._target_words import TargetWords

SPELLED = ("<extra_id_{}>", "▁<extra_id_{}>")  # T5's, and mT5's, which are pieces that begin a word


@dataclass(kw_only=True)
class SpanCorruption(TargetWords):
    READS: ClassVar[str] = "documents"

    share: float = 0.15  # the part of all tokens that is hidden
    span: float = 3.0  # tokens of a hidden span, on average

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1:
            raise InvalidInput(f"share is {self.share}, wanted more than 0 and less than 1")
        if not self.span >= 1:
            raise InvalidInput(f"span is {self.span}, wanted at least 1")
        self._sentinels = sentinels(self.processor.tokenizer.get_vocab())
        if not self._sentinels:
            raise Unsupported(
                f"the vocabulary has no sentinels ({SPELLED[0].format(0)}, …), which stand for what is hidden; choose "
                "a T5 checkpoint, or infilling"
            )
        self._room = self._longest()

    @property
    def room(self) -> int:
        """As many tokens as fill a source, once it has sentinels for those that are hidden."""
        return self._room

    def sizes(self, tokens: np.ndarray) -> np.ndarray:
        return np.array([sum(self._sizes(size)) for size in tokens.tolist()], np.int64)

    def compose(
        self, passages: Sequence[Passage], other: Callable[[], Sequence[Passage]], rng: np.random.Generator
    ) -> Example:
        """Raises LimitExceeded for more tokens than there is room for: nothing is cut."""
        ids = joined(passages).ids
        if len(ids) > self.room:
            raise LimitExceeded(f"passages of {len(ids):,} tokens where {self.room:,} fit; give fewer at once")
        source, target = parted(ids, spans(len(ids), self.share, self.span, rng), self._sentinels)
        return self.example(self.processor.frame(source)[0], self._reads.target.frame(target)[0])

    def _longest(self) -> int:
        """The longest text whose source and target fit. Raises InvalidInput where none does, or sentinels run out."""
        size = 0
        while all(a <= b for a, b in zip(self._sizes(size + 1), (self._most, self._most_written), strict=True)):
            size += 1
            if span_counts(size, self.share, self.span)[1] > len(self._sentinels):
                if self.max_tokens is not None:
                    raise InvalidInput(
                        f"max_tokens {self.max_tokens} makes texts of over {len(self._sentinels)} hidden spans, for "
                        "which the vocabulary has sentinels; ask for fewer, or longer spans"
                    )
                return size - 1
        if not size:
            raise InvalidInput(
                f"of {self._most} tokens of a source and {self._most_written} of a target, special ones and sentinels "
                "leave none; ask for more max_tokens and max_target_tokens"
            )
        return size

    def _sizes(self, size: int) -> tuple[int, int]:
        """Of so many tokens of text, those of the source and of the target."""
        hidden, number = span_counts(size, self.share, self.span)
        around = len(self.processor.frame([])[0])
        return size - hidden + number + around, hidden + number + around


def sentinels(ids: Mapping[str, int]) -> list[int]:
    """Those of a vocabulary, the first one first; none where it has none."""
    for spelled in SPELLED:
        if found := [ids[token] for token in takewhile(ids.__contains__, map(spelled.format, count()))]:
            return found
    return []
