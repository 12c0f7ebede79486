"""The objective of the first BERT: masked words and next sentence together.

Devlin et al. 2018, appendix A, https://arxiv.org/abs/1810.04805. The two losses are added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from triarch import metrics
from triarch.kinds import PretrainingScores
from triarch.objectives import mlm
from triarch.objectives._base import IGNORED, Batch, Example, Passage
from triarch.objectives._corruption import pair
from triarch.objectives._losses import cross_entropy, guesses

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(kw_only=True)
class Bert(mlm.Mlm):
    SCORES: ClassVar[type] = PretrainingScores
    PAIR: ClassVar[bool] = True
    CLASSES: ClassVar[str | None] = None

    def compose(
        self, passages: Sequence[Passage], other: Callable[[], Sequence[Passage]], rng: np.random.Generator
    ) -> Example:
        """As `pair` puts segments together, which cuts what does not fit. `other()` begins at a random place."""
        first, second, follows = pair(passages, other, self.room, rng)
        example = self.corrupted(first, second, rng)
        return example._replace(target=(example.target, int(not follows)))

    def batch(self, examples: Sequence[Example]) -> Batch:
        import torch

        words = super().batch([example._replace(target=example.target[0]) for example in examples])
        follows = torch.tensor([example.target[1] for example in examples])
        counts = words.counts | {"nsp": float(len(examples))}
        return words._replace(targets=words.targets | {"follows": follows}, counts=counts)

    def losses(self, scores: Any, batch: Batch) -> dict[str, Tensor]:
        words = batch.targets["words"]
        return {
            "mlm": cross_entropy(scores.prediction_logits, words[words != IGNORED]),
            "nsp": cross_entropy(scores.seq_relationship_logits, batch.targets["follows"]),
        }

    def outcomes(self, scores: Any, batch: Batch) -> list[Any]:
        """(loss, chosen tokens, those guessed right, whether the class was) of each row."""
        found = guesses(scores.prediction_logits, batch.targets["words"])
        right = (scores.seq_relationship_logits.argmax(-1) == batch.targets["follows"]).tolist()
        return [(*guess, follows) for guess, follows in zip(found, right, strict=True)]

    def measure(self, outcomes: list[Any]) -> dict[str, float]:
        words = super().measure([outcome[:3] for outcome in outcomes])
        return words | {"next_sentence_accuracy": metrics.accuracy([True] * len(outcomes), [o[3] for o in outcomes])}
