"""Next-sentence prediction: does the second segment follow the first, or is it from another document?

Devlin et al. 2018, section 3.1 and appendix A.2, https://arxiv.org/abs/1810.04805. Class 0: it follows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from triarch import metrics
from triarch.kinds import FollowsScores
from triarch.objectives._base import Batch, Example, Objective, Passage
from triarch.objectives._corruption import pair
from triarch.objectives._losses import cross_entropy
from triarch.objectives.mlm import room

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(kw_only=True)
class Nsp(Objective):
    SCORES: ClassVar[type] = FollowsScores
    READS: ClassVar[str] = "documents"
    METRIC: ClassVar[str] = "accuracy"
    PAIR: ClassVar[bool] = True
    CLASSES: ClassVar[str | None] = "follows"

    max_tokens: int | None = None  # of both segments, special ones included; none: what the model takes

    def __post_init__(self) -> None:
        super().__post_init__()
        self._room = room(self.processor, self.most_tokens(self.max_tokens), pair=True)

    @property
    def room(self) -> int:
        return self._room

    def compose(
        self, passages: Sequence[Passage], other: Callable[[], Sequence[Passage]], rng: np.random.Generator
    ) -> Example:
        """As `pair` puts segments together, which cuts what does not fit. `other()` begins at a random place."""
        first, second, follows = pair(passages, other, self.room, rng)
        ids, type_ids = self.processor.frame(first.ids.tolist(), second.ids.tolist())
        return Example(ids, type_ids, target=int(not follows))

    def batch(self, examples: Sequence[Example]) -> Batch:
        import torch

        follows = torch.tensor([example.target for example in examples])
        return Batch(self.padded(examples), {"follows": follows}, {"nsp": float(len(examples))}, [None] * len(examples))

    def losses(self, scores: Any, batch: Batch) -> dict[str, Tensor]:
        return {"nsp": cross_entropy(scores.logits, batch.targets["follows"])}

    def outcomes(self, scores: Any, batch: Batch) -> list[Any]:
        """(right class, guessed class) of each row."""
        return list(zip(batch.targets["follows"].tolist(), scores.logits.argmax(-1).tolist(), strict=True))

    def measure(self, outcomes: list[Any]) -> dict[str, float]:
        return {"accuracy": metrics.accuracy([right for right, _ in outcomes], [guess for _, guess in outcomes])}
