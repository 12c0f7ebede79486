"""Data files: found, opened as if hostile, unpacked within bounds, and told apart by suffix or by a look inside."""

import gzip
import io
import json
import os
import re
import stat
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from triarch import limits
from triarch.errors import CorruptFile, InvalidInput, LimitExceeded, NotFound, UnsafeFile, show, some
from triarch.kinds import Medium
from triarch.suggest import did_you_mean

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

SUFFIXES = {
    ".txt": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".conll": "conll",
    ".bio": "conll",
    ".iob": "conll",
    ".iob2": "conll",
    ".conllu": "conllu",
    ".parquet": "parquet",
}
FORMATS = ("text", "lines", "sentences", "jsonl", "json", "squad", "csv", "tsv", "conll", "conllu", "parquet")
PROGRAMS = {".py", ".pyc", ".sh", ".bat", ".ps1", ".js", ".exe", ".dll", ".so", ".dylib"}
PICKLES = {".pkl", ".pickle", ".joblib", ".npy", ".npz", ".pt", ".pth", ".ckpt", ".bin"}
ARCHIVES = {".zip", ".tar", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst"}
HEAD_BYTES = 1 << 16  # how far the look inside goes


@dataclass(frozen=True)
class DataFile:
    """One data file."""

    path: Path
    format: str
    packed: bool  # by gzip

    def __str__(self) -> str:
        return show(self.path)

    def open(self) -> IO[bytes]:
        """Open for reading, unpacked. Raises NotFound, UnsafeFile; reading raises CorruptFile, LimitExceeded."""
        file = _open(self.path)
        return io.BufferedReader(_Unpacked(file, str(self)), HEAD_BYTES) if self.packed else file


def find(paths: Paths, format: str | None = None) -> list[DataFile]:
    """The files that paths lead to. A folder stands for all files in it, which must be of one format.

    Hidden files in a folder are passed over. Raises NotFound; UnsafeFile for programs, pickles and links out of a
    folder; InvalidInput for a format unknown or not to be told.
    """
    if format is not None and format not in FORMATS:
        wanted = f"one of {', '.join(FORMATS)}"
        raise InvalidInput(f"there is no data format {show(format)!r}{did_you_mean(format, FORMATS)}; wanted {wanted}")
    given = [Path(paths)] if isinstance(paths, str | os.PathLike) else [Path(path) for path in paths]
    if not given:
        raise InvalidInput("no data file is named; name at least one")
    found: list[DataFile] = []
    for path in given:
        found += _in_folder(path, format) if path.is_dir() else [_told(path, format)]
    return found


def inputs_in(folder: Path, media: Iterable[Medium]) -> list[tuple[Medium, Path]]:
    """The files in a folder that are one input each, by paths in it, if it holds no rows: all of them, or in a folder
    for each class. Empty for a folder of rows, and for what is no folder.

    Raises InvalidInput where other files lie between them, UnsafeFile for a link that leaves the folder.
    """
    if not folder.is_dir():
        return []
    suffixes = {suffix: medium for medium in media for suffix in medium.suffixes}
    names = names_in(folder)
    inside = [(suffixes[path.suffix.lower()], path) for path in map(Path, names) if path.suffix.lower() in suffixes]
    if not inside:
        return []
    if others := [name for name in names if Path(name).suffix.lower() not in suffixes]:
        raise InvalidInput(
            f"{show(folder)} holds {inside[0][0].name} files and others ({some(others)}); name the file with the rows, "
            "or take the others out"
        )
    if len(depths := {len(path.parts) for _, path in inside}) > 1 or max(depths) > 2:
        raise InvalidInput(f"{show(folder)} is no folder of files, and none of a folder for each class; make it one")
    return inside


def _in_folder(folder: Path, format: str | None) -> list[DataFile]:
    names = names_in(folder)
    if not names:
        raise InvalidInput(f"{show(folder)} holds no files; name the folder with the data")
    if format is None and (unknown := [name for name in names if _suffixes(folder / name)[0] not in SUFFIXES]):
        raise InvalidInput(
            f"{show(folder)} holds files that are not known as data ({some(unknown)}); name the data files themselves, "
            "or give the format of all of them"
        )
    files = [_told(folder / name, format) for name in names]
    if len(kinds := sorted({file.format for file in files})) > 1:
        raise InvalidInput(f"{show(folder)} holds files of several formats ({', '.join(kinds)}); name those to be read")
    return files


def names_in(folder: Path) -> list[str]:
    """The files in a folder and its folders, hidden ones left out. Raises UnsafeFile for a link out of it."""
    root = Path(os.path.realpath(folder))
    inside = [path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir()]
    names = sorted(str(path) for path in inside if not any(part.startswith(".") for part in path.parts))
    for name in names:
        if not Path(os.path.realpath(folder / name)).is_relative_to(root):
            raise UnsafeFile(f"{show(folder / name)} is a link that leaves its folder; replace it by the file itself")
    return names


def _told(path: Path, format: str | None) -> DataFile:
    suffix, packed = _suffixes(path)
    _refuse(path, suffix)
    with _open(path) as file:
        head = file.read(HEAD_BYTES)
    if not packed and head.startswith(b"\x1f\x8b"):
        packed = True
    if packed:
        with DataFile(path, "", packed).open() as file:
            head = file.read(HEAD_BYTES)
    where = show(path)
    if re.match(rb"\x80[\x02-\x05]|\x93NUMPY", head):
        raise _pickle(where)
    if head.startswith(b"\x7fELF") or (head.startswith(b"MZ") and b"\0" in head):
        raise _program(where)
    format = format or SUFFIXES.get(suffix) or _guess(head, where)
    if format != "parquet" and b"\0" in head:
        raise InvalidInput(
            f"{where} is no {format} file: it holds zero bytes, as binary files and UTF-16 do; convert it"
        )
    if format == "json" and _is_jsonl(head):
        format = "jsonl"
    return DataFile(path, format, packed)


def _suffixes(path: Path) -> tuple[str, bool]:
    """The suffix that says the format, and whether the file is packed."""
    packed = path.suffix.lower() == ".gz"
    return (path.with_suffix("") if packed else path).suffix.lower(), packed


def _refuse(path: Path, suffix: str) -> None:
    where = show(path)
    if suffix in PROGRAMS:
        raise _program(where)
    if suffix in PICKLES:
        raise _pickle(where)
    if suffix in ARCHIVES:
        raise InvalidInput(f"{where} is an archive; unpack it, and name the data files (.gz of one file is read)")


def _program(where: str) -> UnsafeFile:
    return UnsafeFile(f"{where} is a program, which is never run; save its rows as JSONL, CSV or Parquet")


def _pickle(where: str) -> UnsafeFile:
    return UnsafeFile(f"{where} is of a kind that can hold code, and is not opened; save it as JSONL, CSV or Parquet")


def _open(path: Path) -> IO[bytes]:
    """A regular file; never blocks on a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NotFound(f"{show(path)} is not there; check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NotFound(f"{show(path)} cannot be opened ({show(reason)}); check the path") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnsafeFile(f"{show(path)} is not a regular file; save the data as one")
    return os.fdopen(descriptor, "rb")


def _is_jsonl(head: bytes) -> bool:
    """Whether a .json file holds an object a line, as many do."""
    first, end, rest = head.lstrip(b"\xef\xbb\xbf").partition(b"\n")
    try:
        return bool(end and rest.strip()) and isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _guess(head: bytes, where: str) -> str:
    """The format that the beginning of a file shows."""
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"#!"):
        raise _program(where)
    text = head.decode("utf-8-sig", "replace")
    if text.lstrip().startswith(("[", "{")):
        return "json"
    lines = text.split("\n")[: -1 if len(head) == HEAD_BYTES else None]  # the last may be cut
    rows = [line.rstrip("\r") for line in lines if line.strip(" \t\r") and not line.startswith("# ")]
    if rows and all(re.match(r"\d+([-.]\d+)?(\t[^\t]*){9}$", row) for row in rows):
        return "conllu"
    widths = {len(re.split(r"\t" if "\t" in row else " +", row)) for row in rows}
    blanks = any(not line.strip(" \t\r") for line in lines[:-1])
    if len(widths) == 1 and widths.pop() > 1 and blanks:
        return "conll"
    raise InvalidInput(f"the format of {where} cannot be told; give it as one of {', '.join(FORMATS)}")


class _Unpacked(io.RawIOBase):
    """What a gzip file holds, as far as the limits go."""

    def __init__(self, packed: IO[bytes], where: str):
        self.packed, self.where, self.given = packed, where, 0
        self.file = gzip.GzipFile(fileobj=packed)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self.file.read1(len(buffer))
        except (OSError, EOFError, zlib.error) as error:
            raise CorruptFile(f"{self.where} is damaged: gzip says {show(error)}; pack or download it again") from None
        self.given += len(data)
        # The ratio says nothing of the first few bytes.
        if self.given > limits.MIB and self.given > limits.UNPACKED_RATIO * self.packed.tell():
            raise LimitExceeded(
                f"{self.where} unpacks to over {limits.UNPACKED_RATIO} times its size; unpack it yourself"
            )
        if self.given > limits.UNPACKED_BYTES:
            raise LimitExceeded(f"{self.where} unpacks to over {limits.UNPACKED_BYTES:,} bytes; split it")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self.file.close()
        self.packed.close()
        super().close()
