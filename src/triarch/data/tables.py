"""Tables of cells between delimiters, as RFC 4180 has them: quotes around a cell, two of them for one in it.

Written out, as the limit of a cell's size in Python's csv module is a setting of the whole process.
"""

from collections.abc import Iterator

from triarch import limits
from triarch.errors import CorruptFile, TriarchError

Cells = Iterator[tuple[int, list[str] | TriarchError]]
Lines = Iterator[tuple[int, str | TriarchError]]


class _Broken(Exception):
    """What is wrong with the quotes of a row."""


def records(lines: Lines, where: str, delimiter: str) -> Cells:
    """(number of its first line, cells) of each row, or an error in its place; blank lines are passed over.

    Quoted cells may hold line ends. Raises CorruptFile for a quote that nothing closes.
    """
    for number, line in lines:
        if isinstance(line, TriarchError):
            yield number, line
        elif '"' in line or "\r" in line:
            try:
                yield number, _quoted(line, lines, number, where, delimiter)
            except _Broken as error:
                yield number, CorruptFile(f"{where} line {number} is no table row ({error}); mend the quotes")
        elif line:
            yield number, line.split(delimiter)


def one(line: str, delimiter: str) -> list[str]:
    """The cells of a line that is a whole row, in which quotes that are not around whole cells are text."""
    if '"' in line:
        try:
            cells = _quoted(line, iter(()), 0, "", delimiter)
        except (_Broken, CorruptFile):
            return line.split(delimiter)
        return cells if isinstance(cells, list) else line.split(delimiter)
    return line.split(delimiter)


def _quoted(line: str, lines: Lines, number: int, where: str, delimiter: str) -> list[str] | TriarchError:
    """The cells of a row with quotes, of as many lines as its cells hold; the error of the first bad one of these."""
    cells: list[str] = []
    fault: TriarchError | None = None
    at = 0
    while True:
        if line.startswith('"', at):
            parts, size, at = [], 0, at + 1
            while True:
                end = line.find('"', at)
                piece = line[at:] if end < 0 else line[at:end]
                size += len(piece) + 1
                if size > limits.LINE_BYTES + 1:
                    raise _Broken(f"a cell is over {limits.LINE_BYTES:,} characters")
                parts.append(piece)
                if end < 0:
                    _, following = next(lines, (0, None))
                    if following is None:
                        raise CorruptFile(f"{where} line {number} opens a quote that nothing closes; mend it")
                    fault = fault or (following if isinstance(following, TriarchError) else None)
                    line, at = "" if isinstance(following, TriarchError) else following, 0
                    parts.append("\n")
                elif line.startswith('"', end + 1):
                    parts.append('"')
                    at = end + 2
                else:
                    at = end + 1
                    break
            cells.append("".join(parts))
            if at < len(line) and not line.startswith(delimiter, at):
                raise _Broken(f"'{delimiter}' expected after '\"'")
        else:
            end = line.find(delimiter, at)
            cell = line[at:] if end < 0 else line[at:end]
            if "\r" in cell:
                raise _Broken("a carriage return stands in a cell without quotes")
            cells.append(cell)
            at += len(cell)
        if at >= len(line):
            return fault or cells
        at += len(delimiter)
