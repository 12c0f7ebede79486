"""Give a text, or a pair of texts, a number. Squared error; Devlin et al. 2018, section 4.1, for STS-B."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from triarch import metrics
from triarch.data.columns import Candidate, Column
from triarch.errors import InvalidInput, show
from triarch.objectives._labels import LABEL
from triarch.objectives._losses import wide
from triarch.objectives._texts import TextObjective

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(kw_only=True)
class Regression(TextObjective):
    FIELDS: ClassVar[dict[str, Column]] = {**TextObjective.FIELDS, "label": replace(LABEL, sort="number")}
    RANK: ClassVar[int] = 7
    CONFIG: ClassVar[dict[str, Any]] = {
        "problem_type": "regression",
        "id2label": {0: "LABEL_0"},
        "label2id": {"LABEL_0": 0},
    }

    @classmethod
    def is_mine(cls, candidate: Candidate) -> bool:
        return candidate.values == "float"

    def target(self, row: dict[str, Any]) -> float:
        """A number, or the digits of one, as a table has them."""
        label = row.get("label")
        try:
            number = float(label) if isinstance(label, str | int | float) and not isinstance(label, bool) else math.nan
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise InvalidInput(f"label is {show(repr(label), 60)}, wanted a finite number")
        return number

    def targets(self, found: list[Any]) -> tuple[Tensor, float]:
        import torch

        return torch.tensor(found), float(len(found))

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        import torch.nn.functional as F

        scores = wide(logits).squeeze(-1)
        return F.mse_loss(scores, targets.to(scores.dtype), reduction="sum")

    def answer(self, scores: np.ndarray) -> float:
        return float(scores[0])

    def score(self, right: list[Any], said: list[Any]) -> dict[str, float]:
        errors = np.subtract(right, said)
        return {
            "pearson": metrics.pearson(right, said),
            "spearman": metrics.spearman(right, said),
            "mse": float(np.mean(errors**2)) if len(errors) else math.nan,
            "mae": float(np.mean(np.abs(errors))) if len(errors) else math.nan,
        }
