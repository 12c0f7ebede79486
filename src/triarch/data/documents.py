"""Documents as a stream, for data larger than memory: each has a place, and parts that are read when asked for."""

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from triarch.data.columns import DOCUMENTS, Reading, infer
from triarch.data.datafiles import DataFile
from triarch.data.formats import READERS, Asked
from triarch.data.inputs import numbered_lines
from triarch.data.reading import Columns, fit
from triarch.data.rows import Complaints, Origin, place
from triarch.data.sentences import parts
from triarch.errors import InvalidInput, TriarchError, show


class Document(NamedTuple):
    file: int
    number: int  # in its file
    origin: Origin
    parts: Iterator[str]  # paragraphs; or, to the letter, pieces that together are the whole

    @property
    def place(self) -> str:
        return place(self.origin, self.number)


def documents(
    files: list[DataFile], columns: Columns | None, complaints: Complaints, exact: bool = False
) -> Iterator[Document]:
    """The documents of files, in paragraphs or `exact`. A text file is one; other files have one a row.

    The column of the text is the one asked for, or the first row's with a usual name. Raises InvalidInput where there
    is none; bad rows become complaints.
    """
    for i, file in enumerate(files):
        origin = Origin(str(file.path), READERS[file.format].unit)
        if file.format == "text":
            yield Document(i, 0, origin, parts(_lines(file, i, complaints), exact))
            continue
        reading: Reading | None = None
        for number, row in READERS[file.format].read(file, Asked(columns, [DOCUMENTS])):
            if isinstance(row, TriarchError):
                complaints.add(i, number, str(row))
                continue
            reading = reading or infer([row], [DOCUMENTS], columns)
            try:
                text = fit(row, reading, {})["text"]
            except InvalidInput as error:
                complaints.add(i, number, f"{place(origin, number)}: {error}")
            else:
                yield Document(i, number, origin, parts(text.split("\n"), exact))


def _lines(file: DataFile, index: int, complaints: Complaints) -> Iterator[str]:
    empty = True
    with file.open() as opened:
        for number, line in numbered_lines(opened, str(file)):
            if isinstance(line, TriarchError):
                complaints.add(index, number, str(line))
                line = ""
            empty = empty and not line.strip()
            yield line
    if empty:
        complaints.add(index, 0, f"{file} is empty; leave it out")


def digest(file: DataFile) -> dict[str, Any]:
    """What identifies a file: its name, size and sha256, packed as it is."""
    plain = DataFile(file.path, file.format, packed=False)
    with plain.open() as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()  # type: ignore[arg-type]
        return {"name": show(file.path.name), "bytes": opened.tell(), "sha256": sha256}
