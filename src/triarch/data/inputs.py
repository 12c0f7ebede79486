"""Read inputs from files: one row a line, whatever the format.

A `jsonl` file holds an object or a text a line, `json` a list of them, `csv` and `tsv` a header and then rows, `lines`
a text a line, and `whole` is one text. The suffix of a file says which; any other, and a pipe, holds lines. A row that
cannot be read is an error in its place, and the rest goes on. A folder of images holds one input in each file.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from triarch import limits
from triarch.data.datafiles import names_in
from triarch.data.tables import records
from triarch.errors import InvalidInput, LimitExceeded, NotFound, TriarchError, show
from triarch.files import parse_json
from triarch.kinds import Medium, Text

KINDS = ("lines", "jsonl", "json", "csv", "tsv", "whole")


def read_rows(path: Path, name: str = "text", kind: str | None = None, medium: Medium = Text) -> Iterator[Any]:
    """Rows of a file: texts, objects, and errors in the place of bad rows; or the paths of a folder's files.

    In a table without a column `name`, the only column is taken for it. Raises NotFound, CorruptFile.
    """
    if medium.suffixes and path.is_dir():
        return iter(files_in(path, medium.suffixes))
    try:
        regular = path.stat() and (path.is_file() or path.is_fifo())
        file = path.open("rb") if regular else None
    except FileNotFoundError:
        raise NotFound(f"{show(path)} is not there; check the path") from None
    except OSError as error:
        raise NotFound(f"{show(path)} cannot be read ({error.strerror}); check the path") from None
    if file is None:
        raise NotFound(f"{show(path)} is a folder or a device, wanted a file; check the path")
    suffix = path.suffix.lower().removeprefix(".")
    return rows_of(file, str(path), name, kind or (suffix if suffix in KINDS else "lines"))


def files_in(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files in a folder and its folders that are one input each. Raises UnsafeFile for a link out of it, and
    InvalidInput where there are none.
    """
    found = [folder / name for name in names_in(folder) if name.lower().endswith(suffixes)]
    if not found:
        raise InvalidInput(f"{show(folder)} holds no file that ends in {', '.join(suffixes)}; name another folder")
    return found


def rows_of(file: IO[bytes], where: str, name: str, kind: str) -> Iterator[Any]:
    """The same of an open file, which is closed at the end."""
    with file:
        if kind == "whole":
            yield decoded(file.read(limits.LINE_BYTES + 1), where)
        elif kind == "json":
            rows = parse_json(decoded(file.read(limits.LINE_BYTES + 1), where).encode(), where)
            yield from rows if isinstance(rows, list) else [rows]
        elif kind in ("csv", "tsv"):
            yield from _table(file, where, name, "\t" if kind == "tsv" else ",")
        else:
            yield from (row for _, row in (numbered_objects if kind == "jsonl" else numbered_lines)(file, where))


def numbered_lines(file: IO[bytes], where: str) -> Iterator[tuple[int, str | TriarchError]]:
    """Lines without their ends, counted from 1, and errors in the place of those too long or not UTF-8."""
    for number in itertools.count(1):
        line = file.readline(limits.LINE_BYTES + 1)
        if not line:
            return
        try:
            yield number, decoded(line, f"{where} line {number}").removesuffix("\n").removesuffix("\r")
        except TriarchError as error:
            yield number, error
        while len(line) > limits.LINE_BYTES and not line.endswith(b"\n"):  # the rest of a line that was too long
            line = file.readline(limits.LINE_BYTES + 1)


def numbered_objects(file: IO[bytes], where: str) -> Iterator[tuple[int, Any]]:
    """What the JSON of each line says, or an error in its place; blank lines between them are passed over."""
    for number, line in numbered_lines(file, where):
        if isinstance(line, TriarchError):
            yield number, line
        elif line.strip():
            try:
                yield number, parse_json(line.encode(), f"{where} line {number}")
            except TriarchError as error:
                yield number, error


def decoded(data: bytes, where: str, limit: int | None = None) -> str:
    """The text that UTF-8 holds, without a mark before it. Raises InvalidInput, and LimitExceeded for too much."""
    if len(data) > (limit := limit or limits.LINE_BYTES):
        raise LimitExceeded(f"{where} is over {limit:,} bytes; split it")
    try:
        return data.decode("utf-8-sig" if data.startswith(b"\xef\xbb\xbf") else "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{where} is not UTF-8 at byte {error.start}; convert it first") from None


def _table(file: IO[bytes], where: str, name: str, delimiter: str) -> Iterator[Any]:
    """Rows of a table with a header. Quoted cells may hold line ends."""
    header: list[str] | None = None
    for number, cells in records(numbered_lines(file, where), where, delimiter):
        if isinstance(cells, TriarchError):
            raise cells
        if header is None:
            header = [name] if len(cells) == 1 else cells
        elif len(cells) == len(header):
            yield dict(zip(header, cells, strict=True))
        else:
            found = f"{len(cells)} cells, the header has {len(header)}"
            yield InvalidInput(f"{where} line {number} has {found}; mend the row")
