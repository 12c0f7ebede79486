"""The folder of a run: made, and held against other runs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from triarch.errors import InvalidInput, TriarchError, show

FOLDER, LOG = "training", "log.jsonl"  # in the output folder, and in that one
MODEL_FILES = ("config.json", "adapter_config.json", "modules.json")


@contextmanager
def workplace(output: str | None, dry_run: bool) -> Iterator[Path]:
    """The run's folder, or for a trial one that is gone at the end. Raises TriarchError where it can't be made."""
    if dry_run or output is None:
        with tempfile.TemporaryDirectory(prefix="triarch-") as folder:
            yield Path(folder)
        return
    path = Path(output)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TriarchError(f"cannot make the folder {show(path)} ({error.strerror}); choose another output") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise TriarchError(f"cannot write into {show(path)} (permission denied); choose another output")
    yield path


@contextmanager
def held(output: Path, resume: bool) -> Iterator[bool]:
    """Hold a folder against other runs; gives whether there is one in it to go on with.

    Raises InvalidInput where one is at work in it, or was and is not resumed, or where it holds a model that no run
    there has made; TriarchError where it cannot be written.
    """
    folder = output / FOLDER
    lock = filelock.FileLock(folder / "lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise InvalidInput(f"{output} is in use by another run; wait for it, or choose another output") from None
    except OSError as error:
        raise TriarchError(f"cannot write into {show(folder)} ({error.strerror}); choose another output") from None
    try:
        log = folder / LOG
        begun = (log.exists() and log.stat().st_size > 0) or any(folder.glob("checkpoints/step-*"))
        if begun and not resume:
            raise InvalidInput(f"{output} holds a run; pass resume to go on with it, or choose another output")
        if not begun and (made := next((name for name in MODEL_FILES if (output / name).exists()), None)):
            raise InvalidInput(f"{output} holds a model already, {made}; choose another output")
        yield begun
    finally:
        lock.release()
