"""Small runs for the tests of training: rows to learn, a model to start from, what breaks off, and what is left."""

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import pytest

import tiny
from triarch.training import run

GOOD = ["I love this film", "What a lovely day", "the best that I have seen", "I love London in years"]
BAD = ["a machine that was never built", "so I work for a small company", "over the lazy dog", "where I was hungry"]


def reviews(count: int = 16) -> list[dict[str, Any]]:
    """Texts of two labels that any model can tell apart, in lengths that differ."""
    rows = []
    for i in range(count):
        good = i % 2 == 0
        text = f"{(GOOD if good else BAD)[i // 2 % 4]}{' and so on' * (i % 5)} {i}"
        rows.append({"text": text, "label": "good" if good else "bad"})
    return rows


ROWS = reviews(16)
SHORT = {"epochs": 3, "batch_size": 5, "lr": 1e-3, "dropout": 0.0}  # 12 steps


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_books(folder: Path) -> Path:
    """A folder of running text: a few documents, each with words of its own."""
    folder.mkdir(parents=True)
    for i, (name, place) in enumerate([("Ada", "London"), ("Wolfgang", "Berlin"), ("dog", "fox"), ("day", "film")]):
        lines = [f"The {name} is the {place}. A {place} in the {place} and {name}, {name}!" for _ in range(8)]
        (folder / f"{i}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def model_in(folder: Path) -> Any:
    """A maker of checkpoints under `folder`: the folder of a tiny model by its name in `tiny.MODELS`, made once."""
    return cache(lambda name: str(tiny.write_checkpoint(folder / name, **tiny.MODELS[name])))


def log_of(output: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, without what is never the same twice."""
    lines = [json.loads(line) for line in (output / "training" / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def steps_of(output: Path) -> list[int]:
    """The checkpoints of a run."""
    return sorted(int(path.name[5:]) for path in (output / "training" / "checkpoints").glob("step-????????"))


def left_by(output: Path) -> dict[str, Any]:
    """All that a finished run has left, to be compared to the bit: model, checkpoints and log."""
    tensors = sorted(output.rglob("*.safetensors"))
    sums = {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in tensors}
    states = {}
    for step in steps_of(output):
        path = output / "training" / "checkpoints" / f"step-{step:08}" / "state.json"
        states[step] = {name: value for name, value in json.loads(path.read_text()).items() if name != "seconds"}
    return {"tensors": sums, "states": states, "log": log_of(output)}


class Killed(BaseException):
    """In the place of SIGKILL."""


def after_step(monkeypatch: pytest.MonkeyPatch, step: int, do: Callable[[], object]) -> None:
    """`do()` at the end of a step, before anything is measured or saved."""
    note = run.Run._note_step

    def call(self: run.Run, *args: Any) -> None:
        note(self, *args)
        if self.step == step:
            do()

    monkeypatch.setattr(run.Run, "_note_step", call)


def die() -> NoReturn:
    raise Killed
