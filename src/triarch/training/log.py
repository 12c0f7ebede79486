"""The log of a run: a JSON object a line, for each step and each measurement."""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from triarch.errors import TriarchError
from triarch.files import parse_json, write_text


class Log:
    """Open at its end. A full disk must not end a run: the checkpoints say when there is no room for them."""

    def __init__(self, path: Path, step: int, measured: int):
        """Of a log that is there, lines of steps after `step`, and of measurements after `measured`, are taken off: a
        run that goes on from there writes them again."""
        if path.exists():
            kept = []
            for number, line in enumerate(path.read_bytes().splitlines(), start=1):
                with suppress(TriarchError):  # the last line of a killed run may be half a line
                    found = parse_json(line, f"{path} line {number}")
                    if isinstance(found, dict) and found.get("step", 0) <= (
                        measured if "evaluation" in found else step
                    ):
                        kept.append(line.decode() + "\n")
            write_text(path, "".join(kept))
        self.file = path.open("a", encoding="utf-8", buffering=1)

    def write(self, line: dict[str, Any]) -> None:
        with suppress(OSError):
            self.file.write(json.dumps(finite(line), allow_nan=False) + "\n")

    def flush(self) -> None:
        """Force it to the disk."""
        with suppress(OSError):
            self.file.flush()
            os.fsync(self.file.fileno())

    def close(self) -> None:
        with suppress(OSError):
            self.file.close()


def finite(value: Any) -> Any:
    """The same with null in the place of numbers that JSON does not know."""
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
