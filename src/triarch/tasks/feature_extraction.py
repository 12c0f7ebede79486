"""The vector of every token, as the last block leaves it.

    triarch run feature-extraction "Any text" -m MODEL --jsonl

A text longer than the model is read in overlapping windows; each token's vector is the one with the most context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from triarch.inputs.fit import TOKENS, stitch
from triarch.inputs.text.given import text_of
from triarch.starters import ENCODER
from triarch.tasks import _options
from triarch.tasks._base import Job, Task

if TYPE_CHECKING:
    from torch import Tensor

    from triarch.inputs.processor import Piece


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
    FIT = TOKENS

    def read(self, given: Any, options: Options) -> tuple[str, None]:
        return text_of(given, "text"), None

    def compute(self, batch: dict[str, Tensor], pieces: list[Piece], options: Options) -> list[np.ndarray]:
        x = self.model.features(**batch).float().cpu().numpy()  # (B, T, D)
        return [x[i, : piece.cost] for i, piece in enumerate(pieces)]

    def answer(self, job: Job, outputs: list[np.ndarray], options: Options) -> Any:
        _, shared = self.fit(options).sizes(self.processor.max_tokens)
        _, x = stitch([window.special_tokens_mask for window in job.contents], outputs, shared)  # (T, D)
        if options.pool is not None:
            pooled = {"mean": x.mean(0), "max": x.max(0), "first": x[0]}[options.pool]
            return _tensor(pooled) if options.return_tensors else pooled.tolist()
        return _tensor(x[None]) if options.return_tensors else [x.tolist()]


def _tensor(x: np.ndarray) -> Tensor:
    import torch

    return torch.from_numpy(x)
