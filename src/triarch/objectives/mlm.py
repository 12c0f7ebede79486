"""Masked language modelling: guess words from those around them.

Devlin et al. 2018, section 3.1 and appendix A.1, https://arxiv.org/abs/1810.04805; drawn afresh each time, as in
Liu et al. 2019, https://arxiv.org/abs/1907.11692. Special tokens are never chosen, and the token for unknown words
neither; random words come from all others in the vocabulary, each as likely.

Shapes: B sequences, T tokens, N chosen ones, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from triarch import metrics
from triarch.errors import InvalidInput, LimitExceeded, Unsupported
from triarch.kinds import WordScores
from triarch.objectives._base import IGNORED, Batch, Example, Objective, Passage
from triarch.objectives._corruption import choose, hide, joined
from triarch.objectives._losses import cross_entropy, guesses, padded_targets

if TYPE_CHECKING:
    from torch import Tensor

    from triarch.family import Network


@dataclass(kw_only=True)
class Mlm(Objective):
    SCORES: ClassVar[type] = WordScores
    READS: ClassVar[str] = "documents"
    CLASSES: ClassVar[str | None] = "words"

    share: float = 0.15  # the part of all tokens that is to be guessed
    masked: float = 0.8  # of these, the part that is replaced by the mask
    random: float = 0.1  # and the part that is replaced by a random word; the rest stays as it is
    whole_words: bool = False  # all tokens of a word are guessed, or none
    dynamic: bool = True  # other words each time a text is seen, not always the same
    max_tokens: int | None = None  # of one sequence, special ones included; none: what the model takes

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise InvalidInput(f"share is {self.share}, wanted more than 0 and at most 1")
        if min(self.masked, self.random) < 0 or self.masked + self.random > 1:
            raise InvalidInput(f"masked is {self.masked} and random {self.random}, wanted shares of at most 1 together")
        mask = self.processor.id("mask_token")
        if mask is None:
            raise Unsupported("the vocabulary has no mask token; choose one that has, or another objective")
        self._mask = mask
        self._words = np.array(self.processor.ordinary_ids)
        self._ordinary = np.zeros(self.processor.vocab_size, bool)
        self._ordinary[self._words] = True
        self._room = room(self.processor, self.most_tokens(self.max_tokens), self.PAIR)

    @property
    def room(self) -> int:
        return self._room

    def compose(
        self, passages: Sequence[Passage], other: Callable[[], Sequence[Passage]], rng: np.random.Generator
    ) -> Example:
        """Raises LimitExceeded for more tokens than there is room for: nothing is cut."""
        whole = joined(passages)
        if len(whole.ids) > self.room:
            raise LimitExceeded(f"passages of {len(whole.ids):,} tokens where {self.room:,} fit; give fewer at once")
        return self.corrupted(whole, None, rng)

    def corrupted(self, first: Passage, second: Passage | None, rng: np.random.Generator) -> Example:
        """Special tokens around the segments, words of them hidden; the target has the hidden ones in their places."""
        framed, type_ids = self.processor.frame(first.ids.tolist(), None if second is None else second.ids.tolist())
        # Framed alike, so that each start stands where its token does; what special tokens have there is never asked
        starts, _ = self.processor.frame(first.starts.tolist(), None if second is None else second.starts.tolist())
        ids = np.array(framed)
        rng = rng if self.dynamic else np.random.default_rng(ids)
        chosen = choose(ids, np.array(starts, bool), self._ordinary, self.share, self.whole_words, rng)
        seen = hide(ids, chosen, self._mask, self._words, self.masked, self.random, rng)
        return Example(seen.tolist(), type_ids, target=np.where(chosen, ids, IGNORED))

    def batch(self, examples: Sequence[Example]) -> Batch:
        words = padded_targets([example.target for example in examples])
        counts = {"mlm": float((words != IGNORED).sum())}
        return Batch(self.padded(examples), {"words": words}, counts, [None] * len(examples))

    def forward(self, model: Network, batch: Batch) -> Any:
        """Scores of the N chosen tokens alone: those of all would be the most of the work, and of the memory."""
        return model(**batch.inputs, score_at=batch.targets["words"] != IGNORED)

    def losses(self, scores: Any, batch: Batch) -> dict[str, Tensor]:
        words = batch.targets["words"]
        return {"mlm": cross_entropy(scores.logits, words[words != IGNORED])}

    def outcomes(self, scores: Any, batch: Batch) -> list[Any]:
        """(loss, chosen tokens, those guessed right) of each row."""
        return guesses(scores.logits, batch.targets["words"])

    def measure(self, outcomes: list[Any]) -> dict[str, float]:
        loss, count, right = np.sum(outcomes, axis=0) if outcomes else (0.0, 0.0, 0.0)
        accuracy = float(right / count) if count else float("nan")
        return {"perplexity": metrics.perplexity(float(loss), float(count)), "accuracy": accuracy}


def room(processor: Any, most: int, pair: bool) -> int:
    """What special tokens leave of `most` tokens. Raises InvalidInput where that is not one for each text."""
    left = most - len(processor.frame([], [] if pair else None)[0])
    if left < 1 + pair:
        raise InvalidInput(f"max_tokens is {most}, of which special tokens leave {max(left, 0)}; ask for more")
    return left
