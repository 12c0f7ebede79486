"""Give a melody one of a model's labels.

triarch run melody-classification tune.melody -m folder
"""

from __future__ import annotations

from typing import Any

import numpy as np

from made_up.melody import MELODY
from triarch.inputs.fit import mean
from triarch.kinds import LabelScores
from triarch.tasks._base import Job, Task
from triarch.tasks._scores import softmax


class MelodyClassification(Task):
    """Melody -> [{"label", "score"}], the best first."""

    NEEDS = (LabelScores,)
    INPUT = MELODY
    TRY = "tune.melody"
    TAG = ""

    def answer(self, job: Job, outputs: list[np.ndarray], options: Any) -> list[dict[str, Any]]:
        scores = softmax(mean(outputs, job.costs))
        found = [{"label": self.model.config.id2label[i], "score": float(score)} for i, score in enumerate(scores)]
        return sorted(found, key=lambda label: -label["score"])
