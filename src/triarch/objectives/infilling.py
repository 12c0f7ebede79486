"""Infilling: write a text whole that was damaged: with spans and words hidden or gone, in another order.

Lewis et al. 2019, section 2.2, https://arxiv.org/abs/1910.13461. By default as the paper's last models: a mask in the
place of each span that 30 % of all tokens lie in, and the sentences in random order. What is done, is done in the order
of the options; sentences end where `inputs.sentences` says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from triarch.errors import InvalidInput, LimitExceeded, Unsupported
from triarch.objectives._base import Example, Passage
from triarch.objectives._corruption import choose, joined
from triarch.objectives._noise import delete, infill, rotate
from triarch.objectives._target_words import TargetWords
from triarch.objectives.mlm import room


@dataclass(kw_only=True)
class Infilling(TargetWords):
    READS: ClassVar[str] = "documents"

    permute: bool = True  # the sentences stand in random order
    rotate: bool = False  # the text begins with any of its tokens, what stood before it is at the end
    infill: float = 0.3  # the part of all tokens that is hidden in spans, a mask for each span
    span: float = 3.0  # tokens of such a span, on average; some have none, and are a mask too many
    mask: float = 0.0  # the part of what is left that is hidden, a mask for each token
    delete: float = 0.0  # the part of what is left that is gone, without a mask

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("infill", "mask", "delete"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}, wanted a share from 0 to below 1")
        if not 1 <= self.span <= 1000:
            raise InvalidInput(f"span is {self.span}, wanted 1 to 1,000")
        if not (self.permute or self.rotate or self.infill or self.mask or self.delete):
            raise InvalidInput("nothing is damaged; ask for infill, mask, delete, permute or rotate")
        mask = self.processor.id("mask_token")
        if mask is None:
            raise Unsupported("the vocabulary has no mask token; choose one that has, or span-corruption")
        self._mask = mask
        self._ordinary = np.zeros(self.processor.vocab_size, bool)
        self._ordinary[self.processor.ordinary_ids] = True
        self._room = room(self.processor, min(self._most, self._most_written), pair=False)

    @property
    def room(self) -> int:
        return self._room

    def sizes(self, tokens: np.ndarray) -> np.ndarray:
        longest: np.ndarray = self._longest(tokens) if self.infill else tokens
        return tokens + longest + 2 * len(self.processor.frame([])[0])

    def compose(
        self, passages: Sequence[Passage], other: Callable[[], Sequence[Passage]], rng: np.random.Generator
    ) -> Example:
        """Raises LimitExceeded for more tokens than there is room for: nothing is cut."""
        whole = joined(passages).ids
        if len(whole) > self.room:
            raise LimitExceeded(f"passages of {len(whole):,} tokens where {self.room:,} fit; give fewer at once")
        damaged = self._damaged([passage.ids for passage in passages], rng).tolist()
        return self.example(self.processor.frame(damaged)[0], self._reads.target.frame(whole.tolist())[0])

    def _longest(self, tokens: Any) -> Any:
        """How long a text may become: masks between two tokens make it longer, but not for ever."""
        return np.minimum(2 * tokens, self.room)

    def _damaged(self, sentences: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        if self.permute:
            sentences = [sentences[i] for i in rng.permutation(len(sentences))]
        ids = np.concatenate(sentences)
        if self.rotate:
            ids = rotate(ids, rng)
        if self.infill:
            ids, _ = infill(ids, self.infill, self.span, self._mask, int(self._longest(len(ids))), rng)
        if self.mask:
            chosen = choose(ids, np.ones(len(ids), bool), self._ordinary, self.mask, False, rng)
            ids = np.where(chosen, self._mask, ids)
        if self.delete:
            ids = delete(ids, self.delete, self._mask, rng)
        return ids
