"""Give an image one of a model's labels.

triarch run image-classification photo.jpg -m google/vit-base-patch16-224
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from triarch.kinds import LabelScores
from triarch.tasks import _images
from triarch.tasks._base import Job
from triarch.tasks._images import ImageTask
from triarch.tasks._scores import labelled


@dataclass(frozen=True, kw_only=True)
class Options(_images.Options):
    top_k: int | None = 5  # that many best labels; None: all
    function_to_apply: Literal["sigmoid", "softmax", "none"] | None = None  # None: as the config's problem_type asks


class ImageClassification(ImageTask):
    """Image -> [{"label", "score"}], the best first."""

    NEEDS = (LabelScores,)
    TRY = "photo.jpg"
    OPTIONS = Options

    def answer(self, job: Job, outputs: list[np.ndarray], options: Options) -> list[dict[str, Any]]:
        found = labelled(outputs[0], self.model.config, options.function_to_apply)
        return sorted(found, key=lambda label: -label["score"])[: options.top_k]
