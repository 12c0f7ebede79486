"""Melodies: a file of notes, one a byte, and what reads them."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from triarch.errors import CorruptFile, InvalidInput, LimitExceeded, NotFound, show
from triarch.files import Folder, write_text
from triarch.inputs.fit import Fit, cut
from triarch.inputs.processor import Piece
from triarch.kinds import Medium

MELODY = Medium("melody", usual=("tune", "song"), suffixes=(".melody",))
MAGIC, NOTES, BYTES = b"MELODY", 128, 1 << 16
FILE = "melody_config.json"


def written(notes: Sequence[int]) -> bytes:
    """Notes as a file has them."""
    return MAGIC + bytes(notes)


class MelodyFormat:
    """What melody_config.json says: how many notes are heard at once."""

    medium: ClassVar[Medium] = MELODY
    called: ClassVar[str] = "melody processor"
    files: ClassVar[str] = FILE

    def load(self, folder: Folder, config: Any) -> Melodies | None:
        if not folder.has(FILE):
            return None
        raw = folder.json(FILE)
        if not isinstance(raw, dict) or type(raw.get("most_notes")) is not int or raw["most_notes"] < 1:
            raise InvalidInput(f"{folder}/{FILE} has no most_notes; wanted how many notes are heard at once")
        return Melodies(raw["most_notes"])

    def settle(self, folder: Folder | None, family: str, raw: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
        return {}

    def new(self, folder: Folder | None, config: Any) -> Melodies:
        if folder is None:
            return Melodies(config.most_notes)
        processor = self.load(folder, config)
        if processor is None:
            raise NotFound(f"{folder} holds no {FILE}; name a folder with one")
        return processor


class Melodies:
    """Reads melodies for one model."""

    keeps_ids: ClassVar[bool] = False

    def __init__(self, most_notes: int):
        self.most_notes = most_notes

    def single(self, given: Any) -> bool:
        return isinstance(given, bytes | str) or (isinstance(given, Path) and given.suffix.lower() in MELODY.suffixes)

    def read(self, given: Any) -> np.ndarray:
        """A path, or the bytes of a file -> notes (T,)."""
        where = "the melody"
        if isinstance(given, str | os.PathLike):
            where, given = show(os.fspath(given)), _bytes(Path(given))
        if not isinstance(given, bytes):
            raise InvalidInput(f"input is {type(given).__name__}, wanted the path of a melody, or its bytes")
        if len(given) > BYTES:
            raise LimitExceeded(f"{where} has over {BYTES:,} bytes; split it")
        if not given.startswith(MAGIC):
            raise InvalidInput(f"{where} is no melody; save it as one")
        notes = np.frombuffer(given[len(MAGIC) :], np.uint8).astype(np.int64)
        if not len(notes) or notes.max() >= NOTES:
            raise CorruptFile(f"{where} is damaged; save it again")
        return notes

    def pieces(self, item: np.ndarray, fit: Fit) -> list[Piece]:
        most, stride = fit.sizes(self.most_notes)
        if fit.strategy == "error":
            fit.refuse(len(item), most, "notes")
        parts, dropped = cut(len(item), most, stride, fit.strategy)
        return [Piece(item[part], len(item[part]), part.start, len(item), dropped) for part in parts]

    def collate(self, pieces: Sequence[Piece]) -> dict[str, Tensor]:
        longest = max(piece.cost for piece in pieces)
        notes = [np.pad(piece.content, (0, longest - piece.cost)) for piece in pieces]
        masks = [np.arange(longest) < piece.cost for piece in pieces]
        return {
            "notes": torch.from_numpy(np.stack(notes)),
            "attention_mask": torch.from_numpy(np.stack(masks).astype(np.int64)),
        }

    def save(self, folder: Path) -> None:
        write_text(folder / FILE, json.dumps({"most_notes": self.most_notes}) + "\n")

    def facts(self) -> dict[str, Any]:
        return {"most_notes": self.most_notes}

    def fingerprint(self) -> str:
        return hashlib.sha256(str(self.most_notes).encode()).hexdigest()


def _bytes(path: Path) -> bytes:
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidInput(f"{show(path)} is not a regular file; save the melody as one")
            return file.read(BYTES + 1)
    except OSError as error:
        raise NotFound(f"{show(path)} cannot be read ({error.strerror}); check the path") from None
