"""The vector of every token, as the last block leaves it.

    triarch run feature-extraction "Any text" -m MODEL --jsonl

A text longer than the model is read in overlapping windows; each token's vector is the one with the most context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from triarch.errors import InvalidInput
from triarch.tasks import _base
from triarch.tasks._base import Job, stitch, text_of

if TYPE_CHECKING:
    from tokenizers import Encoding
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Options(_base.Options):
    pool: Literal["mean", "max", "first"] | None = None  # one vector for the text instead of one for each token
    return_tensors: bool = False  # an array (1, T, D) instead of nested lists
    tokenize_kwargs: dict[str, Any] | None = None  # the reference's: truncation and max_length in a dict

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (self.tokenize_kwargs or {}).items():
            if name not in ("truncation", "max_length", "padding"):
                raise InvalidInput(f"tokenize_kwargs has {name!r}, wanted truncation, max_length or padding")
            object.__setattr__(self, name, value)


class FeatureExtraction(_base.Task):
    """Text -> (1, T, D) nested lists, special tokens included; with `pool` (D,)."""

    OPTIONS = Options

    def read(self, given: Any, options: Options) -> str:
        return text_of(given, "text")

    def prepare(self, row: str, options: Options) -> Job:
        most = options.max_length or self.processor.max_tokens
        stride = most // 4 if options.stride is None else options.stride
        job = self.windows(row, None, options, stride=stride)
        job.notes = stride
        return job

    def compute(self, batch: dict[str, Tensor], windows: list[Encoding]) -> list[np.ndarray]:
        x = self.model.features(**batch).float().cpu().numpy()  # (B, T, D)
        return [x[i, : len(window)] for i, window in enumerate(windows)]

    def answer(self, job: Job, outputs: list[np.ndarray], options: Options) -> Any:
        _, x = stitch(job.windows, outputs, job.notes)  # (T, D)
        if options.pool is not None:
            pooled = {"mean": x.mean(0), "max": x.max(0), "first": x[0]}[options.pool]
            return pooled if options.return_tensors else pooled.tolist()
        return x[None] if options.return_tensors else [x.tolist()]
