"""The log as scalars for TensorBoard, for those who have it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from triarch.errors import Unsupported


class Board:
    """Called with each object that goes into the log; writes an event file in `folder`.

    Raises Unsupported where the package `tensorboard` is not installed.
    """

    def __init__(self, folder: Path, first_step: int = 0):
        """`first_step`: where a run goes on; later points of an earlier process are hidden."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise Unsupported(
                "tensorboard is not installed, and was asked for; pip install 'triarch[tensorboard]', or leave it out"
            ) from None
        self.writer = SummaryWriter(folder, purge_step=first_step or None)

    def __call__(self, line: dict[str, Any]) -> None:
        for name, value in scalars(line):
            self.writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        self.writer.close()


def scalars(line: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Names and numbers of one line of the log: `train/loss`, `train/losses/mlm`, `evaluation/accuracy`."""
    evaluation = line.get("evaluation")
    found = dict(line) if evaluation is None else dict(evaluation)
    place = "train" if evaluation is None else "evaluation"
    parts = found.pop("losses", {})
    for name, value in {**found, **{f"losses/{part}": loss for part, loss in parts.items()}}.items():
        if name != "step" and isinstance(value, int | float) and math.isfinite(value):
            yield f"{place}/{name}", float(value)
