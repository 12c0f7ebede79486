"""Where a model lies and of which type its numbers are."""

from typing import Any

import torch

from triarch.errors import InvalidInput, show
from triarch.weights.stored import Entry

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


def pick_device(device: str | int | torch.device) -> torch.device:
    """`auto`, a name, or a number as the reference counts: -1 is the CPU. Raises InvalidInput for one there is not."""
    if type(device) is int:
        device = "cpu" if device < 0 else f"cuda:{device}"
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
        torch.empty(0, device=picked)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError):
        raise InvalidInput(f"device {show(device)!r} is not one of this machine; use cpu, or auto") from None
    return picked


def pick_dtype(dtype: str | torch.dtype, raw: dict[str, Any], entries: dict[str, Entry]) -> torch.dtype:
    """One floating-point type for the whole model. Both major versions' spellings of the config are read."""
    if dtype == "auto":
        dtype = raw.get("dtype", raw.get("torch_dtype")) or _most_common_dtype(entries)
    if isinstance(dtype, str):
        dtype = DTYPES.get(dtype.removeprefix("torch."), dtype)
    if dtype not in DTYPES.values():
        raise InvalidInput(f"dtype {show(dtype)!r} is not one of {', '.join(DTYPES)}; use auto")
    assert isinstance(dtype, torch.dtype)
    return dtype


def _most_common_dtype(entries: dict[str, Entry]) -> torch.dtype:
    sizes: dict[torch.dtype, int] = {torch.float32: 0}
    for entry in entries.values():
        if entry.dtype in DTYPES.values():
            sizes[entry.dtype] = sizes.get(entry.dtype, 0) + entry.nbytes
    return max(sizes, key=lambda dtype: sizes[dtype])
