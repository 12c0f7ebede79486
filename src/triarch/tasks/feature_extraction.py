"""The vector of every token, as the last block leaves it.

    triarch run feature-extraction "Any text" -m MODEL --jsonl

A text longer than the model is read in overlapping windows; each token's vector is the one with the most context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from triarch.starters import ENCODER
from triarch.tasks import _options
from triarch.tasks._base import Job, Task, text_of
from triarch.tasks._scores import stitch

if TYPE_CHECKING:
    from tokenizers import Encoding
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Options(_options.Options):
    pool: Literal["mean", "max", "first"] | None = None  # one vector for the text instead of one for each token
    return_tensors: bool = False  # a tensor (1, T, D) instead of nested lists
    tokenize_kwargs: dict[str, Any] | None = None  # the reference's: truncation and max_length in a dict

    def __post_init__(self) -> None:
        super().__post_init__()
        self.take_over("tokenize_kwargs")


class FeatureExtraction(Task):
    """Text -> (1, T, D) nested lists, special tokens included; with `pool` (D,)."""

    STARTERS = {"feature-extraction": ENCODER}
    OPTIONS = Options

    def read(self, given: Any, options: Options) -> str:
        return text_of(given, "text")

    def prepare(self, row: str, options: Options) -> Job:
        return self.windows(row, None, options, share=1 / 4)

    def compute(self, batch: dict[str, Tensor], windows: list[Encoding], options: Options) -> list[np.ndarray]:
        x = self.model.features(**batch).float().cpu().numpy()  # (B, T, D)
        return [x[i, : len(window)] for i, window in enumerate(windows)]

    def answer(self, job: Job, outputs: list[np.ndarray], options: Options) -> Any:
        _, x = stitch(job.windows, outputs, job.stride)  # (T, D)
        if options.pool is not None:
            pooled = {"mean": x.mean(0), "max": x.max(0), "first": x[0]}[options.pool]
            return _tensor(pooled) if options.return_tensors else pooled.tolist()
        return _tensor(x[None]) if options.return_tensors else [x.tolist()]


def _tensor(x: np.ndarray) -> Tensor:
    import torch

    return torch.from_numpy(x)
