"""Give a text, or a pair of texts, any number of labels: one yes or no for each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from triarch import metrics
from triarch.data.columns import Candidate, Column
from triarch.errors import InvalidInput, show
from triarch.objectives._labels import LABEL, LABEL_NAMES, Labels, name_of, ordered
from triarch.objectives._losses import wide
from triarch.objectives._texts import TextObjective

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(kw_only=True)
class MultiLabel(TextObjective):
    FIELDS: ClassVar[dict[str, Column]] = {
        **{name: column for name, column in TextObjective.FIELDS.items() if column is not LABEL},
        "labels": Column("classes", usual=LABEL_NAMES, asked_as="label"),
    }
    RANK: ClassVar[int] = 8
    METRIC: ClassVar[str] = "f1_micro"
    LABELS: ClassVar[bool] = True
    CONFIG: ClassVar[dict[str, Any]] = {"problem_type": "multi_label_classification"}

    labels: list[str]  # their names, by their number
    threshold: float = 0.5  # in measuring: the probability above which a text has a label

    def __post_init__(self) -> None:
        super().__post_init__()
        self._labels = Labels(self.labels)
        if not 0 < self.threshold < 1:
            raise InvalidInput(f"threshold is {self.threshold}, wanted a probability between 0 and 1")

    @classmethod
    def is_mine(cls, candidate: Candidate) -> bool:
        return candidate.values == "list"

    @property
    def classes(self) -> list[str]:
        return self.labels

    @classmethod
    def labels_of(cls, rows: Iterable[dict[str, Any]]) -> list[str]:
        return ordered(name_of(label) for row in rows for label in _list(row))

    def target(self, row: dict[str, Any]) -> list[int]:
        return sorted({self._labels.number(label) for label in _list(row)})

    def targets(self, found: list[Any]) -> tuple[Tensor, float]:
        """The loss is the mean over all decisions."""
        import torch

        table = torch.zeros(len(found), len(self.labels))
        for row, numbers in enumerate(found):
            table[row, numbers] = 1.0
        return table, float(table.numel())

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        import torch.nn.functional as F

        scores = wide(logits)
        return F.binary_cross_entropy_with_logits(scores, targets.to(scores.dtype), reduction="sum")

    def answer(self, scores: np.ndarray) -> list[int]:
        return np.flatnonzero(scores > np.log(self.threshold / (1 - self.threshold))).tolist()

    def score(self, right: list[Any], said: list[Any]) -> dict[str, float]:
        """`accuracy` is the share of texts with all labels right."""
        wanted, found = (self.targets(rows)[0].bool().numpy() for rows in (right, said))
        whole = metrics.accuracy([True] * len(right), [a == b for a, b in zip(right, said, strict=True)])
        micro, macro = metrics.f1(wanted, found, "micro"), metrics.f1(wanted, found, "macro")
        return {"f1_micro": micro, "f1_macro": macro, "accuracy": whole}


def _list(row: dict[str, Any]) -> list[Any]:
    if not isinstance(row.get("labels"), list | tuple):
        raise InvalidInput(f"labels is {show(repr(row.get('labels')), 60)}, wanted a list of names, which may be empty")
    return list(row["labels"])
