"""Files: opened and parsed as if hostile, since they come from outside; written whole or not at all."""

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

from triarch import limits
from triarch.errors import CorruptFile, LimitExceeded, NotFound, TriarchError, UnsafeFile, show

PLAIN_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")


@dataclass(frozen=True)
class Folder:
    """A checkpoint folder, and every way in which its files are opened."""

    path: Path
    found: dict[str, Path] = field(default_factory=dict, compare=False, repr=False)  # names -> where links lead

    def __str__(self) -> str:
        return str(self.path)

    def find(self, name: str) -> Path:
        """Where a file lies that may be absent, links followed; `name` is plain, or plain parts joined by `/`.

        Raises UnsafeFile for a name that is not plain, or that leads out of the folder through a link.
        """
        if name in self.found:
            return self.found[name]
        parts = name.split("/")
        if not all(PLAIN_NAME.fullmatch(part) and part.strip(".") for part in parts) or len(parts) > 2:
            raise UnsafeFile(f"{self}: file name {show(name)!r} is not a plain name inside the folder; do not use it")
        path = self.path.joinpath(*parts)
        real = Path(os.path.realpath(path))
        if not any(real.is_relative_to(root) for root in self._roots()):
            raise UnsafeFile(f"{path} is a link that leaves its folder; replace it by the file itself")
        return self.found.setdefault(name, real)

    def inside(self, name: str) -> "Folder":
        """A folder in this one, whose files are found as this one's are: no link leads out of the outer one."""
        return _Inside(self.path / name, outer=self, name=name)

    def has(self, name: str) -> bool:
        return self.find(name).exists()

    def names(self, inside: str) -> list[str]:
        """What lies in a folder inside this one, in order; nothing where there is no such folder."""
        path = self.find(inside)
        return sorted(os.listdir(path)) if path.is_dir() else []

    def open(self, name: str) -> BufferedReader:
        """Open for reading. Raises NotFound, and UnsafeFile for anything but a regular file; never blocks."""
        path = self.path / name
        try:
            descriptor = os.open(self.find(name), os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0))
        except FileNotFoundError:
            raise NotFound(f"{path} is not there; check the folder, or download the model again") from None
        except OSError as error:
            raise NotFound(f"{path} cannot be opened ({error.strerror}); check its permissions") from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise UnsafeFile(f"{path} is not a regular file; replace it by the file itself")
        return os.fdopen(descriptor, "rb")

    def read(self, name: str, limit: int) -> bytes:
        """The whole file. Raises LimitExceeded when it holds more than `limit` bytes."""
        with self.open(name) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise LimitExceeded(f"{self.path / name} is over {limit:,} bytes; no such file is that large")
        return data

    def json(self, name: str, limit: int = limits.JSON_BYTES) -> Any:
        return parse_json(self.read(name, limit), str(self.path / name))

    def _roots(self) -> list[Path]:
        roots = [Path(os.path.realpath(self.path))]
        # The hub's cache keeps files as snapshots/<commit>/name -> ../../blobs/<hash>
        cache = roots[0].parent.parent
        if roots[0].parent.name == "snapshots" and (cache / "blobs").is_dir():
            roots.append(cache / "blobs")
        return roots


@dataclass(frozen=True)
class _Inside(Folder):
    outer: Folder | None = None
    name: str = ""

    def find(self, name: str) -> Path:
        assert self.outer is not None
        return self.outer.find(f"{self.name}/{name}")


def parse_json(data: bytes, where: str) -> Any:
    """Strict JSON: UTF-8 without a mark, no NaN, no duplicate keys, bounded depth. Raises CorruptFile."""

    def once(pairs: list[tuple[str, Any]]) -> dict:
        keys: dict[str, Any] = {}
        for key, value in pairs:
            if key in keys:
                raise CorruptFile(f"{where} has the key {show(key)!r} twice; remove one")
            keys[key] = value
        return keys

    def number(text: str) -> None:
        raise CorruptFile(f"{where} holds {text}, which is not JSON; write a finite number")

    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=once, parse_constant=number)
    except UnicodeDecodeError:
        raise CorruptFile(f"{where} is not UTF-8 text; save it as UTF-8") from None
    except RecursionError:
        raise CorruptFile(f"{where} is nested too deep; no such file is") from None
    except ValueError as error:  # json.JSONDecodeError, and integers of thousands of digits
        raise CorruptFile(f"{where} is not JSON ({show(error)}); mend it, or download it again") from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, which takes its place at the end, whole and on disk; or is gone on failure.

    Raises TriarchError when the disk is full or the folder cannot be written.
    """
    if path.exists() and not path.is_file():
        raise TriarchError(f"cannot write {path}, which is a folder or a device; choose another name")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        descriptor = os.open(temporary, os.O_RDONLY)
        os.fchmod(descriptor, 0o666 & ~_umask())
        os.fsync(descriptor)
        os.close(descriptor)
        os.replace(temporary, path)
    except OSError as error:
        raise TriarchError(f"cannot write {path} ({error.strerror or error}); the old file is untouched") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _umask() -> int:
    """The process's mask for new files, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
