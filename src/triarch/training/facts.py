"""What is known of a run at its end: what its report and its model's card are written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Data:
    """A set of rows that a run read."""

    name: str  # as people know it
    part: str  # "training", "validation" or "test"
    rows: int
    license: str | None = None  # None: unknown
    note: str = ""  # what else is to be known, such as how many rows were left out


@dataclass(frozen=True, kw_only=True)
class Facts:
    name: str  # of the model
    objective: str  # what it learned, by the name of the objective
    architecture: str  # by the name config.json gives it
    base_model: str | None = None  # repo id of the checkpoint that it began with; None: there is none on the hub
    base_license: str | None = None  # of that checkpoint
    started: str = "fresh weights"  # what it began with, in words
    task: str | None = None  # that it can be used for, by our name
    languages: tuple[str, ...] = ()  # ISO 639 codes
    license: str | None = None  # of the model; None: unknown
    library: str = "transformers"  # that opens the folder, by the hub's name for it
    settings: Mapping[str, Any] = field(default_factory=dict)  # as JSON takes them; tables in tables are flattened
    seed: int | None = None
    seconds: float = 0.0  # of training
    steps: int = 0
    tokens: int = 0  # seen in training, padding left out
    hardware: Mapping[str, str] = field(default_factory=dict)  # "processor": "…", by words for people
    software: Mapping[str, str] = field(default_factory=dict)  # versions by package
    data: tuple[Data, ...] = ()
    metric: str = "loss"  # by which the best step was chosen
    best_step: int | None = None  # None: nothing was measured
    metrics: Mapping[str, float] = field(default_factory=dict)  # of the model as it was kept
    measured_on: Data | None = None  # what the metrics were measured on


@dataclass(frozen=True)
class Wrong:
    """A row on which the model erred; of a sentence, `right` and `predicted` are of its words that got a wrong tag."""

    text: str
    right: str
    predicted: str
    loss: float  # of this row alone


@dataclass(frozen=True)
class Mistakes:
    """What went wrong in a measurement. Shapes: L labels."""

    labels: tuple[str, ...] = ()
    confusion: np.ndarray | None = None  # (L, L) counts: a row is the right label, a column the predicted one
    wrong: tuple[Wrong, ...] = ()  # all of them, that with the highest loss first


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings as names and texts, those of tables in tables joined by a dot; what is not set is left out."""
    found: dict[str, str] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif value is not None and value not in ([], ()):
            listed = isinstance(value, list | tuple)
            found[prefix + name] = ", ".join(map(str, value)) if listed else str(value)
    return found


def duration(seconds: float) -> str:
    """Time for people, as exact as they need it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"
