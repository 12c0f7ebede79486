"""Checkpoints of a run: tensors as safetensors, the rest as JSON, written whole or not at all.

    checkpoints/step-00000200/
        weights.safetensors  optimizer.safetensors  …
        state.json           step, scores so far, what the run is
        manifest.json        every file with its size and sha256

A folder is written under another name, each file and the folder itself are forced to disk, and then it is renamed: a
folder with the final name is complete, whenever the process died. What is damaged later shows in the manifest; such a
folder is set aside as `step-N.corrupt` and the one before is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from triarch.errors import (
    CheckpointMismatch,
    CorruptFile,
    InvalidInput,
    LimitExceeded,
    NotFound,
    TriarchError,
    UnsafeFile,
    show,
)
from triarch.files import Folder
from triarch.weights import files

FORMAT = 1  # of these folders; a newer one is refused
NAME = re.compile(r"step-(\d{8,12})")
STATE, MANIFEST = "state.json", "manifest.json"

DAMAGE = (CorruptFile, NotFound, UnsafeFile, LimitExceeded)  # what reading a damaged checkpoint raises

Tensors = dict[str, dict[str, Tensor]]  # by the file they go to, without its suffix


@dataclass(frozen=True)
class Checkpoint:
    """One folder, its checksums found right."""

    path: Path
    step: int
    state: dict[str, Any]

    def read(self, name: str) -> dict[str, Tensor]:
        """The tensors of one file; none where the run had no such file."""
        folder = Folder(self.path)
        if not folder.has(f"{name}.safetensors"):
            return {}
        return {key: entry.read() for key, entry in files.safetensors(folder, f"{name}.safetensors").items()}


def write(root: Path, step: int, tensors: Tensors, state: dict[str, Any]) -> Path:
    """Save a checkpoint under `root`. Raises TriarchError when it cannot be written; nothing is left behind then."""
    path = root / f"step-{step:08}"
    if path.exists():  # the same run at the same step has the same state
        return path
    temporary = root / f".{path.name}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _check_space(root, tensors)
        for name, group in tensors.items():
            save_file(group, temporary / f"{name}.safetensors")
        text = json.dumps({"step": step} | state, indent=1, allow_nan=False)  # as what reads it takes none
        (temporary / STATE).write_text(text, encoding="utf-8")
        listed = {file.name: {"bytes": file.stat().st_size, "sha256": _sha256(file)} for file in temporary.iterdir()}
        manifest = {"format": FORMAT, "files": listed}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for file in (*temporary.iterdir(), temporary):
            _sync(file)
        os.rename(temporary, path)
        _sync(root)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise TriarchError(f"cannot write the checkpoint {path} ({show(why)}); make room, or mend the disk") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def newest(root: Path, note: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint whose checksums are right; damaged ones are renamed to `.corrupt`, and `note` hears of it.

    The order is that of the steps, not of the clock. None where there is none. Raises CorruptFile where there are
    some and all are damaged, InvalidInput for those of a newer version.
    """
    damaged = []
    for step, path in sorted(_steps(root), reverse=True):
        try:
            return verified(path, step)
        except DAMAGE as error:
            aside = path.with_name(f"{path.name}.corrupt")
            shutil.rmtree(aside, ignore_errors=True)
            try:
                path.rename(aside)
            except OSError as refused:
                raise TriarchError(f"{error}; it cannot be set aside ({refused.strerror}): move it away") from None
            damaged.append(path.name)
            note(f"{error}; set aside as {aside.name}")
    if damaged:
        raise CorruptFile(f"{root}: every checkpoint is damaged ({', '.join(damaged)}); start anew in another folder")
    return None


def verified(path: Path, step: int) -> Checkpoint:
    """A checkpoint, every file of it checked against the manifest. Raises one of DAMAGE."""
    folder = Folder(path)
    manifest = folder.json(MANIFEST)
    if isinstance(manifest, dict) and type(manifest.get("format")) is int and manifest["format"] > FORMAT:
        raise InvalidInput(f"{path} is of format {manifest['format']}, this version reads {FORMAT}; update triarch")
    listed = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(listed, dict) or manifest.get("format") != FORMAT:
        raise CorruptFile(f"{path / MANIFEST} lists no files")
    if listed.keys() | {MANIFEST} != {file.name for file in path.iterdir()} or STATE not in listed:
        raise CorruptFile(f"{path} holds other files than its manifest lists")
    for name, said in listed.items():
        folder.open(name).close()  # a plain name and a regular file, or an error
        if said != {"bytes": (path / name).stat().st_size, "sha256": _sha256(path / name)}:
            raise CorruptFile(f"{path / name} is not what its manifest says")
    state = folder.json(STATE)
    if not isinstance(state, dict) or state.get("step") != step:
        raise CorruptFile(f"{path / STATE} is of another step")
    return Checkpoint(path, step, state)


@torch.no_grad()
def fill(parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor], where: Path) -> None:
    """Copy tensors into the parameters of the same names. Raises CheckpointMismatch if any differ."""
    missing, unexpected = sorted(parameters.keys() - tensors.keys()), sorted(tensors.keys() - parameters.keys())
    misshaped = [name for name in parameters.keys() & tensors.keys() if parameters[name].shape != tensors[name].shape]
    if missing or unexpected or misshaped:
        raise CheckpointMismatch(f"this run ({where})", missing, unexpected, misshaped, "choose another output")
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])


def purge(root: Path, keep: int, protected: Iterable[int]) -> None:
    """Remove all but the newest `keep` and the protected steps. To be called once the newest is on disk."""
    spared = set(protected)
    for step, path in sorted(_steps(root), reverse=True)[keep:]:
        if step not in spared:
            # Renamed first: what is half removed must not look like a checkpoint
            doomed = path.with_name(f".{path.name}.old")
            try:
                path.rename(doomed)
            except OSError:
                continue  # it only takes space
            shutil.rmtree(doomed, ignore_errors=True)


def clean(root: Path) -> None:
    """Remove what a killed run left half written or half removed. To be called under the run's lock."""
    for path in root.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)


def _steps(root: Path) -> list[tuple[int, Path]]:
    found = [(NAME.fullmatch(path.name), path) for path in root.iterdir()] if root.is_dir() else []
    return [(int(hit[1]), path) for hit, path in found if hit and path.is_dir()]


def _check_space(root: Path, tensors: Tensors) -> None:
    wanted = sum(tensor.nbytes for group in tensors.values() for tensor in group.values())
    if (free := shutil.disk_usage(root).free) < wanted:
        raise OSError(0, f"{wanted:,} bytes are needed, {free:,} are free")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
