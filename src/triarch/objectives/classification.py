"""Give a text, or a pair of texts, one of several labels. Devlin et al. 2018, section 4.1.

Shapes: B sequences, L labels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from triarch import metrics
from triarch.data.columns import Candidate
from triarch.errors import InvalidInput, show
from triarch.objectives._labels import Labels, name_of, ordered
from triarch.objectives._losses import cross_entropy
from triarch.objectives._texts import TextObjective

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(kw_only=True)
class Classification(TextObjective):
    METRIC: ClassVar[str] = "accuracy"
    RANK: ClassVar[int] = 6
    CLASSES: ClassVar[str | None] = "label"
    LABELS: ClassVar[bool] = True
    CONFIG: ClassVar[dict[str, Any]] = {"problem_type": "single_label_classification"}

    labels: list[str]  # names of the classes, by their number
    label_smoothing: float = 0.0  # the share of the target that all labels divide among them
    class_weights: Literal["balanced"] | list[float] | None = None  # of each label; balanced: the rarer, the heavier

    def __post_init__(self) -> None:
        super().__post_init__()
        self._labels = Labels(self.labels, least=2)
        if not 0 <= self.label_smoothing <= 1:
            raise InvalidInput(f"label_smoothing is {self.label_smoothing}, wanted a share of 0 to 1")
        self._weights: list[float] | None = None
        if isinstance(self.class_weights, list | tuple):
            if (
                len(self.class_weights) != len(self.labels)
                or min(self.class_weights) < 0
                or not sum(self.class_weights)
            ):
                found = show(self.class_weights, 60)
                raise InvalidInput(f"class_weights is {found}, wanted {len(self.labels)} numbers of at least 0")
            self._weights = list(self.class_weights)

    @classmethod
    def is_mine(cls, candidate: Candidate) -> bool:
        return candidate.values not in ("list", "float")

    @property
    def classes(self) -> list[str]:
        return self.labels

    @classmethod
    def labels_of(cls, rows: Iterable[dict[str, Any]]) -> list[str]:
        return ordered(name_of(row.get("label")) for row in rows)

    def prepare(self, rows: Iterable[dict[str, Any]]) -> None:
        """Weights that give each label the same share of the loss over all rows, and have a mean of 1 over them."""
        if self.class_weights != "balanced":
            return
        counts = Counter(self.target(row) for row in rows)
        if absent := [name for number, name in enumerate(self.labels) if not counts[number]]:
            raise InvalidInput(f"no row has label {show(absent[0])!r}; class_weights cannot be balanced: leave it out")
        self._weights = [counts.total() / len(self.labels) / counts[number] for number in range(len(self.labels))]

    def target(self, row: dict[str, Any]) -> int:
        return self._labels.number(row.get("label"))

    def targets(self, found: list[Any]) -> tuple[Tensor, float]:
        """A weighted loss is divided by the weights of its rows, as torch's cross_entropy does."""
        import torch

        assert self._weights or self.class_weights != "balanced", "prepare() comes before the first batch"
        count = math.fsum(self._weights[number] for number in found) if self._weights else float(len(found))
        return torch.tensor(found), count

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        weights = None if self._weights is None else logits.new_tensor(self._weights).float()
        return cross_entropy(logits, targets, weights, self.label_smoothing)

    def answer(self, scores: np.ndarray) -> int:
        return int(scores.argmax())

    def score(self, right: list[Any], said: list[Any]) -> dict[str, float]:
        """With two labels `f1` is that of the second."""
        found = {
            "accuracy": metrics.accuracy(right, said),
            "f1_macro": metrics.f1(right, said, "macro"),
            "matthews": metrics.matthews(right, said),
        }
        return found | ({"f1": metrics.f1(right, said)} if len(self.labels) == 2 else {})

    def choices(self, outcomes: list[Any]) -> tuple[list[str], list[str]]:
        right, said = self.answers(outcomes)
        return [self.labels[number] for number in right], [self.labels[number] for number in said]
