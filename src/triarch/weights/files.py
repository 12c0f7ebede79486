"""Find, check and write the weight files of a checkpoint folder.

The safetensors format: 8 bytes of header length, a JSON header, then the tensors one after the other without holes;
https://github.com/huggingface/safetensors#format. We check the header ourselves because the format's own reader maps
the file into memory and keeps to what it maps.
"""

import json
import math
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from triarch import limits
from triarch.errors import CorruptFile, LimitExceeded, NotFound, TriarchError, UnsafeFile, show
from triarch.files import PLAIN_NAME, Folder, parse_json, replacing, write_text
from triarch.weights import legacy
from triarch.weights.stored import Entry, dense

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
LEGACY, LEGACY_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}

Reader = Callable[[Folder, str], dict[str, Entry]]  # the tensors of one file

# What a file of another format begins with, for a better message
FOREIGN = {b"GGUF": "GGUF", b"\x89HDF": "HDF5", b"PK\x03\x04": "a zip archive", b"\x80\x02": "a pickle"}


def entries(folder: Folder) -> dict[str, Entry]:
    """Every tensor of the folder, by its name in the file; nothing is read but the headers.

    Safetensors come first: with both formats there, a legacy file is not even opened. Raises NotFound, CorruptFile,
    UnsafeFile.
    """
    if folder.has(SINGLE):
        return safetensors(folder, SINGLE)
    if folder.has(INDEX):
        return _sharded(folder, INDEX, safetensors)
    if folder.has(LEGACY):
        return legacy.entries(folder, LEGACY)
    if folder.has(LEGACY_INDEX):
        return _sharded(folder, LEGACY_INDEX, legacy.entries)
    raise NotFound(f"{folder} holds no weights; wanted {SINGLE}, {INDEX}, {LEGACY} or {LEGACY_INDEX}")


def safetensors(folder: Folder, name: str) -> dict[str, Entry]:
    """The tensors of one file, their bounds checked against it. Raises CorruptFile."""
    where = folder.path / name
    with folder.open(name) as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        if len(start) < 8:
            raise CorruptFile(f"{where} is {size} bytes long, too short for safetensors; download it again")
        (length,) = struct.unpack("<Q", start)
        if length > min(limits.HEADER_BYTES, size - 8):
            looks = next((f", it looks like {kind}" for magic, kind in FOREIGN.items() if start.startswith(magic)), "")
            raise CorruptFile(f"{where} says its header has {length:,} bytes of {size:,}{looks}; download it again")
        raw = file.read(length)
    if not raw.startswith(b"{"):
        raise CorruptFile(f"{where} has a header that does not begin with {{; download it again")
    if (count := raw.count(b'"dtype"')) > limits.TENSORS:  # before they are parsed, which would take a while
        raise LimitExceeded(f"{where} lists {count:,} tensors, over {limits.TENSORS:,}; no model has as many")
    header = parse_json(raw, f"{where} header")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CorruptFile(f"{where} has metadata that is not a table of texts; download it again")
    found, spans = {}, []
    for tensor, said in header.items():
        dtype, shape, begin, end = _described(said, f"{where}: tensor {show(tensor)}")
        spans.append((begin, end))
        found[tensor] = dense(folder, name, 8 + length + begin, dtype, shape)
    reached = 0
    for begin, end in sorted(spans):
        if begin != reached:
            raise CorruptFile(f"{where} has tensors that overlap or leave a hole at byte {reached}; download it again")
        reached = end
    if 8 + length + reached != size:
        raise CorruptFile(
            f"{where} has {size:,} bytes, its header describes {8 + length + reached:,}; download it again"
        )
    return found


def _described(said: object, what: str) -> tuple[torch.dtype, tuple[int, ...], int, int]:
    """One line of a header: dtype, shape, first and last byte."""

    def whole(values: object, count: int | None = None) -> list[int]:
        if not isinstance(values, list) or any(type(v) is not int or not 0 <= v < 1 << 63 for v in values):
            raise CorruptFile(f"{what} has a shape or an offset that is no list of counts; download it again")
        if (count is not None and len(values) != count) or len(values) > limits.TENSOR_DIMENSIONS:
            raise CorruptFile(f"{what} has {len(values)} dimensions or offsets; download it again")
        return values

    if not isinstance(said, dict) or said.keys() != {"dtype", "shape", "data_offsets"}:
        raise CorruptFile(f"{what} is not described by dtype, shape and data_offsets; download it again")
    if not isinstance(said["dtype"], str) or said["dtype"] not in DTYPES:
        raise CorruptFile(f"{what} has dtype {show(said['dtype'])}, wanted one of {', '.join(DTYPES)}")
    dtype, shape, (begin, end) = DTYPES[said["dtype"]], tuple(whole(said["shape"])), whole(said["data_offsets"], 2)
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise CorruptFile(f"{what} has {end - begin:,} bytes for shape {[*shape]} of {dtype}; download it again")
    return dtype, shape, begin, end


def _sharded(folder: Folder, index: str, read: Reader) -> dict[str, Entry]:
    """The tensors of all shards. Each must lie where the index says, and nowhere else."""
    where = folder.path / index
    table = folder.json(index, limits.INDEX_BYTES)
    weight_map = table.get("weight_map") if isinstance(table, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CorruptFile(f"{where} has no weight_map of tensor names to file names; download it again")
    shards = sorted(set(weight_map.values()))
    if len(shards) > limits.SHARDS:
        raise LimitExceeded(f"{where} lists {len(shards):,} files, over {limits.SHARDS:,}; no model has as many")
    for shard in shards:
        if not PLAIN_NAME.fullmatch(shard):
            raise UnsafeFile(
                f"{where} names the file {show(shard)!r}, which is not a plain name; do not use this model"
            )
    found: dict[str, Entry] = {}
    for shard in shards:
        for tensor, entry in read(folder, shard).items():
            if weight_map.get(tensor) != shard:
                said = show(weight_map.get(tensor, "nowhere"))
                raise CorruptFile(
                    f"{where} puts tensor {show(tensor)} in {said}, it lies in {shard}; download it again"
                )
            found[tensor] = entry
    if absent := weight_map.keys() - found.keys():
        raise CorruptFile(f"{where} lists {show(min(absent))}, which no file holds; download it again")
    return found


def write(tensors: dict[str, Tensor], folder: Path, shard_bytes: int = 5_000_000_000) -> None:
    """Save as safetensors, in shards when larger than `shard_bytes`. Each file appears whole or not at all."""
    shards: list[dict[str, Tensor]] = [{}]
    used = 0
    for name, tensor in tensors.items():
        if used and used + tensor.nbytes > shard_bytes:
            shards.append({})
            used = 0
        shards[-1][name] = tensor.cpu()
        used += tensor.nbytes
    names = [SINGLE] if len(shards) == 1 else _shard_names(len(shards))
    for name, shard in zip(names, shards, strict=True):
        with replacing(folder / name) as temporary:
            try:
                save_file(shard, temporary, metadata={"format": "pt"})
            except SafetensorError as error:
                raise TriarchError(f"cannot write {folder / name} ({show(error)}); the old file is untouched") from None
    if len(shards) > 1:
        weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        total = sum(tensor.nbytes for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_text(folder / INDEX, json.dumps(index, indent=2) + "\n")
    _remove_stale(folder, {*names, INDEX} if len(shards) > 1 else set(names))


def _shard_names(count: int) -> list[str]:
    return [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]


def _remove_stale(folder: Path, written: set[str]) -> None:
    """Weight files of an earlier save would be found before, or beside, the new ones."""
    for path in folder.iterdir():
        ours = path.name in (SINGLE, INDEX) or re.fullmatch(r"model-\d{5}-of-\d{5}\.safetensors", path.name)
        if ours and path.name not in written:
            path.unlink()
