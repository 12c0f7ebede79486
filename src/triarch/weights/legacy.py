"""Legacy `.bin` checkpoints, read without running them.

Such a file is a zip archive (`archive.py`) of the raw bytes of each storage, and of a program that puts tensors
together from them (`program.py`). There is no other reader to fall back to when these two refuse a file.

Checked: what the archive says of each record; the checksum of the program; the size of each storage against its record;
each view against its storage. Not checked: the checksums of storages, as tensors are read one at a time.
"""

import io
import math
from typing import IO

import torch
from torch import Tensor

from triarch import limits
from triarch.errors import CorruptFile, UnsafeFile, Unsupported, show
from triarch.files import Folder
from triarch.weights.archive import AGAIN, Record, content, records
from triarch.weights.program import CONVERT, Machine, Storage, View
from triarch.weights.stored import Entry, dense

MAX_INT64 = (1 << 63) - 1


def entries(folder: Folder, name: str) -> dict[str, Entry]:
    """The tensors of a checkpoint by name, in the order of the file; each is read when it is asked for.

    The file holds a dict of tensors, or a dict of them under the one key `state_dict`. Raises CorruptFile where it
    breaks its format, UnsafeFile where it asks for anything but tensors, Unsupported for big-endian numbers.
    """
    where = str(folder.path / name)
    with folder.open(name) as file:
        size = file.seek(0, io.SEEK_END)
        _refuse_old(file, where)
        found = records(file, where)
        if "data.pkl" not in found:
            raise CorruptFile(f"{where} is a zip archive without data.pkl; choose a checkpoint")
        if "byteorder" in found and content(file, found["byteorder"], where, limit=16) != b"little":
            raise Unsupported(f"{where} holds big-endian numbers; {CONVERT}")
        state = Machine(content(file, found["data.pkl"], where, limits.PICKLE_BYTES), where).run()
    if isinstance(state, dict) and list(state) == ["state_dict"]:
        state = state["state_dict"]
    if not isinstance(state, dict) or len(state) > limits.TENSORS:
        raise UnsafeFile(f"{where} is not a dict of up to {limits.TENSORS:,} tensors; {CONVERT}")
    tensors: dict[str, Entry] = {}
    reads = 0
    for key, view in state.items():
        tensor = f"{where}: {show(key)!r}"
        # Even a plain number, which would do no harm: leaving it out would be a silent loss
        if not isinstance(view, View):
            raise UnsafeFile(f"{tensor} is not a tensor; {CONVERT}")
        record = _record(view.storage, found, tensor)
        span = _span(view, tensor)
        tensors[key] = _entry(folder, name, record.start, view, span)
        reads += span * view.storage.dtype.itemsize
    if reads > limits.STORAGE_READS * size:
        raise UnsafeFile(f"{where} makes {reads:,} bytes of tensors from {size:,} by sharing them; {CONVERT}")
    return tensors


def _refuse_old(file: IO[bytes], where: str) -> None:
    """Formats from before PyTorch 1.6: several programs in a row, or a tar archive."""
    file.seek(0)
    head = file.read(512)
    if head.startswith(b"\x80") or head[257:262] == b"ustar":
        raise UnsafeFile(f"{where} is in the format of PyTorch before 1.6, which is not read; {CONVERT}")


def _record(storage: Storage, found: dict[str, Record], tensor: str) -> Record:
    record, wanted = found.get(f"data/{storage.key}"), storage.numel * storage.dtype.itemsize
    if record is None:
        raise CorruptFile(f"{tensor} lies in a storage that the file does not hold; {AGAIN}")
    if record.size != wanted:
        raise CorruptFile(f"{tensor} lies in a storage of {record.size:,} bytes, not {show(wanted)}; {AGAIN}")
    return record


def _span(view: View, tensor: str) -> int:
    """How many elements of its storage a view reaches over, from its first to its last.

    Raises UnsafeFile for a view that leaves its storage, or that may hold an element of it twice.
    """
    numbers = (view.offset, *view.shape, *view.stride)
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise UnsafeFile(f"{tensor} has an offset, size or stride that is no whole number; {CONVERT}")
    if not len(view.shape) == len(view.stride) <= limits.TENSOR_DIMENSIONS:
        raise UnsafeFile(f"{tensor} has {len(view.shape)} sizes and {len(view.stride)} strides; {CONVERT}")
    if math.prod(filter(None, view.shape)) > MAX_INT64:
        raise UnsafeFile(f"{tensor} has sizes that multiply to more than can be counted; {CONVERT}")
    if 0 in view.shape:
        return 0
    span = 1
    for stride, size in sorted(zip(view.stride, view.shape, strict=True)):
        # Taken from the smallest on, each stride must lead past all that the ones before it reach
        if size > 1 and stride < span:
            raise UnsafeFile(f"{tensor} holds elements of its storage more than once; save a copy of it instead")
        span += (size - 1) * stride
    if view.offset + span > view.storage.numel:
        raise UnsafeFile(f"{tensor} reaches beyond its storage of {view.storage.numel:,} elements; do not use it")
    return span


def _entry(folder: Folder, name: str, start: int, view: View, span: int) -> Entry:
    """A checked view of the storage that lies at byte `start` of the file."""
    dtype, shape, stride = view.storage.dtype, view.shape, view.stride
    if span == 0:  # nothing to read; its offset may lie beyond the storage
        return Entry(dtype, shape, (name, start), lambda: torch.empty(shape, dtype=dtype))
    start += view.offset * dtype.itemsize
    steps = [step for step, size in zip(stride, shape, strict=True) if size > 1]
    row_major = span == math.prod(shape) and steps == sorted(steps, reverse=True)
    if row_major and dtype is not torch.bool:
        return dense(folder, name, start, dtype, shape)
    # Bytes other than 0 and 1 are undefined behaviour in a bool tensor, so they are read as numbers first
    flat = dense(folder, name, start, torch.uint8 if dtype is torch.bool else dtype, (span,))

    def read() -> Tensor:
        return flat.read().as_strided(shape, stride).to(dtype).clone(memory_format=torch.contiguous_format)

    return Entry(dtype, shape, flat.place, read)
