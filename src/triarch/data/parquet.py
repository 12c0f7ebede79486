"""Rows of Parquet files, which the optional package pyarrow reads."""

import importlib
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

from triarch import limits
from triarch.data.datafiles import DataFile
from triarch.errors import CorruptFile, InvalidInput, LimitExceeded, TriarchError, Unsupported, show

ROWS = 1024  # turned into Python values at once


def read(file: DataFile, asked: Mapping[str, str | int]) -> Iterator[tuple[int, dict[str, Any] | TriarchError]]:
    """Rows, counted from 1. Where the file names its classes, as those of the `datasets` library do, labels are names.

    Raises Unsupported without pyarrow, CorruptFile for a damaged file.
    """
    try:
        arrow, reader = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise Unsupported(f"{file} needs pyarrow to be read; run: pip install triarch[parquet]") from None
    number = 0
    try:
        with file.open() as opened:
            table = reader.ParquetFile(_seekable(opened, str(file)) if file.packed else opened)
            classes = _classes(table.schema_arrow.metadata or {})
            for batch in table.iter_batches(batch_size=ROWS):
                for row in batch.to_pylist():
                    number += 1
                    try:
                        yield number, row | {name: _name(row[name], classes[name]) for name in classes if name in row}
                    except InvalidInput as error:
                        yield number, InvalidInput(f"{file} row {number}: {error}")
    except (arrow.ArrowException, OSError, ValueError) as error:  # also of text that is not UTF-8
        if isinstance(error, TriarchError):
            raise
        raise CorruptFile(f"{file} cannot be read after row {number} ({show(error)}); save it again") from None


def _seekable(opened: Any, where: str) -> io.BytesIO:
    data = opened.read(limits.WHOLE_BYTES + 1)
    if len(data) > limits.WHOLE_BYTES:
        raise LimitExceeded(f"{where} unpacks to over {limits.WHOLE_BYTES:,} bytes; unpack it yourself")
    return io.BytesIO(data)


def _classes(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """The names of the classes of each column that has some, as `datasets` writes them into a file."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        kinds = {name: feature.get("feature", feature) for name, feature in features.items()}
        named = {name: kind["names"] for name, kind in kinds.items() if kind.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}
    return {name: names for name, names in named.items() if isinstance(names, list) and all(map(_is_text, names))}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _name(value: Any, names: list[str]) -> Any:
    """Classes by name; -1 is a label that is missing."""
    if isinstance(value, list):
        return [_name(item, names) for item in value]
    if value is None or value == -1:
        return None
    if not isinstance(value, int) or not 0 <= value < len(names):
        raise InvalidInput(f"there is no class {show(value)} among {len(names)}; mend the row")
    return names[value]
