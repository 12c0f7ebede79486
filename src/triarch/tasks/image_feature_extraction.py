"""The vector of every patch of an image, as the last block leaves it.

triarch run image-feature-extraction photo.jpg -m google/vit-base-patch16-224-in21k --jsonl
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from triarch.errors import Unsupported
from triarch.kinds import Features
from triarch.tasks import _images
from triarch.tasks._base import Job
from triarch.tasks._images import ImageTask

if TYPE_CHECKING:
    from torch import Tensor

    from triarch.inputs.processor import Piece


@dataclass(frozen=True, kw_only=True)
class Options(_images.Options):
    pool: bool = False  # the model's summary of the image, (1, D), instead of a vector for each patch
    return_tensors: bool = False  # a tensor instead of nested lists


class ImageFeatureExtraction(ImageTask):
    """Image -> (1, T, D) nested lists, the vector of the whole image first; with `pool` (1, D)."""

    OPTIONS = Options

    def compute(self, batch: dict[str, Tensor], pieces: list[Piece], options: Options) -> list[np.ndarray]:
        if not options.pool:
            return list(self.model.features(**batch).float().cpu().numpy())  # (T, D) each
        pooled = self.model(**batch).pooler_output if self.model.kind is Features else None
        if pooled is None:
            raise Unsupported(f"{self.model.architecture} has no pooler; leave pool out, or choose another checkpoint")
        return list(pooled.float().cpu().numpy())  # (D,) each

    def answer(self, job: Job, outputs: list[np.ndarray], options: Options) -> Any:
        if not options.return_tensors:
            return [outputs[0].tolist()]
        import torch

        return torch.from_numpy(outputs[0][None])
