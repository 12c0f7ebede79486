"""The log of a run, read back.

Each line of `log.jsonl` is an object: of a step {"step", "epoch", "loss", "losses"?, "lr", "grad_norm", "tokens",
"seconds"}, or of a measurement {"step", "evaluation": {metric: number}, "seconds"}. A number can be null, where it was
none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from triarch.data.inputs import rows_of


@dataclass(frozen=True)
class Points:
    """Values over steps, in order; NaN where there was none."""

    steps: np.ndarray  # (N,) float64
    values: np.ndarray  # (N,) float64

    def __len__(self) -> int:
        return len(self.steps)

    def known(self) -> Points:
        """Without those that are NaN."""
        kept = ~np.isnan(self.values)
        return Points(self.steps[kept], self.values[kept])


@dataclass(frozen=True)
class History:
    steps: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    unreadable: int = 0  # lines that are no such object

    def of_steps(self, name: str) -> Points:
        """One of a step's own numbers, such as `loss`."""
        return _points((line["step"], line.get(name)) for line in self.steps)

    def of_loss(self, name: str) -> Points:
        """One part of the loss."""
        return _points((line["step"], _table(line, "losses").get(name)) for line in self.steps)

    def of_evaluations(self, metric: str) -> Points:
        return _points((line["step"], line["evaluation"].get(metric)) for line in self.evaluations).known()

    def losses(self) -> list[str]:
        """Names of the parts of the loss, where it has several."""
        return list(dict.fromkeys(name for line in self.steps for name in _table(line, "losses")))

    def metrics(self) -> list[str]:
        return list(dict.fromkeys(name for line in self.evaluations for name in line["evaluation"]))


def read(path: Path) -> History:
    """Lines that cannot be read, such as the last one of a killed run, are counted. Without a file there is no history.

    Where steps come twice, as when a run goes on from an earlier state, the later lines are those of the model.
    """
    steps: list[dict[str, Any]] = []
    evaluations: list[dict[str, Any]] = []
    unreadable = 0
    for line in rows_of(path.open("rb"), str(path), "line", "jsonl") if path.is_file() else ():
        if not isinstance(line, dict) or type(line.get("step")) is not int:
            unreadable += 1
            continue
        kept = evaluations if isinstance(line.get("evaluation"), dict) else steps
        while kept and kept[-1]["step"] >= line["step"]:
            kept.pop()
        kept.append(line)
    return History(steps, evaluations, unreadable)


def _table(line: dict[str, Any], name: str) -> dict[str, Any]:
    found = line.get(name)
    return found if isinstance(found, dict) else {}


def _points(found: Iterable[tuple[int, Any]]) -> Points:
    pairs = [(step, value if type(value) in (int, float) else math.nan) for step, value in found]
    steps, values = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return Points(steps, values)
