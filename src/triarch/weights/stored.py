"""A tensor that lies in a file: what it is, and how to read it into memory of its own."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from triarch.errors import CorruptFile
from triarch.files import Folder


@dataclass(frozen=True)
class Entry:
    """One tensor of a checkpoint, not read yet. Its bounds were checked against the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    place: tuple[str, int]  # file name and first byte: reading in this order walks the disk once
    read: Callable[[], Tensor]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def dense(folder: Folder, name: str, start: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Entry:
    """A row-major little-endian tensor from byte `start` of a file on.

    Reading copies: the file may be replaced or cut while the model lives, which a memory map would not survive.
    """

    def read() -> Tensor:
        if 0 in shape:
            return torch.empty(shape, dtype=dtype)
        raw = np.empty(math.prod(shape) * dtype.itemsize, dtype=np.uint8)  # NumPy asks for huge pages, torch does not
        with folder.open(name) as file:
            file.seek(start)
            if file.readinto(raw.data) != len(raw):
                raise CorruptFile(f"{folder.path / name} ended while it was read; copy or download it again")
        return torch.from_numpy(raw).view(dtype).view(shape)

    return Entry(dtype, shape, (name, start), read)
