"""The records of a zip archive as PyTorch writes it: stored as they are, each at a known place in the file.

Written out because the standard library's reader takes what does not belong here: directories of any size, records over
one another, bytes before the archive, headers that contradict each other. What is accepted here means the same to
every reader. Format: PKWARE APPNOTE 6.3, sections 4.3.7 to 4.3.16 and 4.5.3.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import IO

from triarch import limits
from triarch.errors import CorruptFile, UnsafeFile, show

# Headers begin with a mark; dates, disks, versions and attributes are left out, as they have no meaning here
LOCAL = struct.Struct("<4s2xHH4xIIIHH")  # flags, method, checksum, packed size, size, bytes of name and extra fields
CENTRAL = struct.Struct("<4s4xHH4xIIIHHH8xI")  # the same, bytes of comment, offset of the local header
END = struct.Struct("<4s6xHIIH")  # records, bytes and offset of the directory, bytes of comment
END64 = struct.Struct("<4s28xQQQ")  # records, bytes and offset of the directory
LOCATOR = struct.Struct("<4s4xQ4x")  # offset of END64
EXTRA = struct.Struct("<HH")  # kind, bytes; no mark
LARGE = struct.Struct("<Q")

MAX16, MAX32 = 0xFFFF, 0xFFFFFFFF  # what a field says when its value is in LARGE ones elsewhere
LARGE_VALUES = 1  # kind of extra field
SIZES_FOLLOW, UTF8 = 0x0008, 0x0800  # flags
STORED = 0  # method: neither packed nor encrypted
ENTRY_BYTES = 512  # of one record in the directory; PyTorch takes about 70
AGAIN = "copy or download it again"


@dataclass(frozen=True)
class Record:
    header: int  # offset of its local header
    start: int  # offset of its data
    size: int
    checksum: int


def records(file: IO[bytes], where: str) -> dict[str, Record]:
    """Every record, by its name inside the one folder that the archive holds. Reads headers only.

    Raises CorruptFile where headers contradict each other or the file, and UnsafeFile for what PyTorch never writes:
    packed or encrypted records, names that are taken twice or lead elsewhere, over `limits.ARCHIVE_RECORDS` records.
    """
    found: dict[str, Record] = {}
    top = None
    try:
        count, size, begin = _end(file, where)
        file.seek(begin)
        for path, record in _walk(file, io.BytesIO(file.read(size)), count, begin, where):
            folder, _, name = path.partition("/")
            top = top or folder
            if folder != top or not name or not path.isprintable() or {"", ".", ".."} & set(re.split(r"[/\\]", path)):
                raise UnsafeFile(f"{where} has the record {show(path)!r}, outside of one folder; do not use it")
            if name in found:
                raise UnsafeFile(f"{where} has two records {show(path)!r}, so readers differ on it; do not use it")
            found[name] = record
    except (struct.error, UnicodeDecodeError):  # headers that end early, names that are not text
        raise CorruptFile(f"{where} has a broken zip directory; {AGAIN}") from None
    layout = sorted(found.values(), key=lambda record: record.header)
    for record, following in pairwise([*layout, Record(begin, begin, 0, 0)]):
        if record.start + record.size > following.header:
            raise CorruptFile(f"{where} has records that reach into what follows them; {AGAIN}")
    return found


def content(file: IO[bytes], record: Record, where: str, limit: int) -> bytes:
    """The data of one record. Raises CorruptFile for a wrong checksum, UnsafeFile for more than `limit` bytes."""
    if record.size > limit:
        raise UnsafeFile(f"{where} has a record of {record.size:,} bytes where {limit:,} are plenty; do not use it")
    file.seek(record.start)
    data = file.read(record.size)
    if zlib.crc32(data) != record.checksum:
        raise CorruptFile(f"{where} has a record that does not match its checksum; {AGAIN}")
    return data


def _end(file: IO[bytes], where: str) -> tuple[int, int, int]:
    """Records, bytes and offset of the directory, as the end of the file states them."""
    stop = file.seek(0, io.SEEK_END) - END.size
    file.seek(max(0, stop - LOCATOR.size - END64.size))
    tail = file.read()
    mark, *stated, comment = END.unpack_from(tail, END64.size + LOCATOR.size)
    if mark != b"PK\5\6" or comment:
        raise CorruptFile(f"{where} does not end like a zip archive; {AGAIN}")
    count, size, begin = stated
    mark, offset = LOCATOR.unpack_from(tail, END64.size)
    if mark == b"PK\6\7":
        stop -= LOCATOR.size + END64.size
        mark, count, size, begin = END64.unpack_from(tail)
        if (mark, offset) != (b"PK\6\6", stop) or stated != [min(count, MAX16), min(size, MAX32), min(begin, MAX32)]:
            raise CorruptFile(f"{where} states the place of its zip directory in two ways; {AGAIN}")
    if count > limits.ARCHIVE_RECORDS or size > count * ENTRY_BYTES:
        raise UnsafeFile(f"{where} lists {count:,} records in {size:,} bytes, and no checkpoint does; do not use it")
    if begin + size != stop:
        raise CorruptFile(f"{where} has no zip directory where its end says; {AGAIN}")
    return count, size, begin


def _walk(file: IO[bytes], directory: IO[bytes], count: int, begin: int, where: str) -> Iterator[tuple[str, Record]]:
    """Path and record, one by one, from the directory and from the headers before the data, which must agree."""
    for _ in range(count):
        fixed = CENTRAL.unpack(directory.read(CENTRAL.size))
        mark, flags, method, checksum, packed, size, name_bytes, extra_bytes, comment_bytes, header = fixed
        rest = directory.read(name_bytes + extra_bytes + comment_bytes)
        name, extra = rest[:name_bytes], rest[name_bytes : name_bytes + extra_bytes]
        size, packed, header = _large(extra, size, packed, header)
        if method != STORED or flags & ~(SIZES_FOLLOW | UTF8):
            raise UnsafeFile(f"{where} has {show(name.decode())!r} packed or encrypted; do not use it")
        whole = len(rest) == name_bytes + extra_bytes + comment_bytes
        if mark != b"PK\1\2" or not whole or size != packed or header >= begin:
            raise CorruptFile(f"{where} has a broken zip directory; {AGAIN}")
        file.seek(header)
        *kind, local_checksum, local_packed, local_size, name_bytes, extra_bytes = LOCAL.unpack(file.read(LOCAL.size))
        stated = (local_checksum, local_packed, local_size)
        agreed = stated == (checksum, min(size, MAX32), min(size, MAX32)) or (flags & SIZES_FOLLOW and not any(stated))
        if kind != [b"PK\3\4", flags, method] or file.read(name_bytes) != name or not agreed:
            raise CorruptFile(f"{where} describes {show(name.decode())!r} in two ways; {AGAIN}")
        yield name.decode(), Record(header, header + LOCAL.size + name_bytes + extra_bytes, size, checksum)
    if directory.read(1):
        raise CorruptFile(f"{where} lists more records than it counts; {AGAIN}")


def _large(extra: bytes, *values: int) -> list[int]:
    """The values of a header, those too large for it taken from its extra fields."""
    fields = io.BytesIO(extra)
    while fields.tell() < len(extra):
        kind, length = EXTRA.unpack(fields.read(EXTRA.size))
        field = fields.read(length)
        if kind == LARGE_VALUES:
            large = io.BytesIO(field)
            return [LARGE.unpack(large.read(LARGE.size))[0] if value == MAX32 else value for value in values]
    return list(values)
