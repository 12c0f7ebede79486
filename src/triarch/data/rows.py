"""Rows read from files, kept small: a million of them fit where a million dicts would not."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, overload

from triarch import limits
from triarch.data.columns import Reading
from triarch.errors import InvalidInput, show


class Origin(NamedTuple):
    """Where rows come from."""

    name: str  # of the file; empty for rows from memory
    unit: str = "row"  # what their numbers count; empty if the file is one row
    typed: bool = True  # values have types, which the cells of a table do not


@dataclass
class Complaints:
    """Bad rows: all are counted, the first of them kept."""

    count: int = 0
    kept: list[tuple[int, int, str]] = field(default_factory=list)  # file, number in it, what is wrong

    def add(self, file: int, number: int, message: str) -> None:
        self.count += 1
        if len(self.kept) < limits.COMPLAINTS:
            self.kept.append((file, number, message))

    def lines(self) -> list[str]:
        """In the order of the files."""
        return [message for _, _, message in sorted(self.kept)]

    def refuse(self, total: int) -> None:
        """Raise InvalidInput if there are any, of `total` rows good and bad."""
        if self.count:
            first = [_without_advice(line) for line in self.lines()[:5]]
            more = f"; and {self.count - len(first):,} more" if self.count > len(first) else ""
            raise InvalidInput(
                f"{self.count:,} of {total:,} rows cannot be used: {'; '.join(first)}{more}; mend them, or set "
                "on_bad_row to skip, and they are left out"
            )


def _without_advice(message: str) -> str:
    """What was found, and what was wanted; the advice is given once for all."""
    rest, _, last = message.rpartition("; ")
    return rest if rest and not last.startswith("wanted") else message


class Rows(Sequence[dict[str, Any]]):
    """Rows as dicts, each with the place it was read from.

    `skipped` holds complaints about the first rows that were left out, `skipped_count` the number of all that were;
    `warnings` says what looks wrong about the rows, and may be right.
    """

    def __init__(self, origins: list[Origin]):
        self.origins = origins
        self.reading: Reading | None = None  # what kind of rows these are; None for rows as files have them
        self.skipped: list[str] = []
        self.skipped_count = 0
        self.warnings: list[str] = []
        self._values: list[tuple[Any, ...]] = []  # of each row its names, and then the values
        self._names: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._origin = array("i")
        self._number = array("q")

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> "Rows": ...
    def __getitem__(self, index: int | slice) -> "dict[str, Any] | Rows":
        if isinstance(index, slice):
            return self.take(range(*index.indices(len(self))))
        names, *values = self._values[index]
        return dict(zip(names, values, strict=True))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for names, *values in self._values:
            yield dict(zip(names, values, strict=True))

    def __repr__(self) -> str:
        return f"<{len(self):,} rows, {self.reading or 'as read'}>"

    def column(self, name: str) -> list[Any]:
        """The value of each row in a column, None where it has none."""
        return [values[names.index(name) + 1] if name in (names := values[0]) else None for values in self._values]

    def place(self, index: int) -> str:
        """Where a row was read, such as "file.csv line 12"."""
        return place(self.origins[self._origin[index]], self._number[index])

    def typed(self) -> bool:
        """Whether values have types, and are not all strings for want of any."""
        return any(origin.typed for origin in self.origins)

    def take(self, indices: Iterable[int]) -> "Rows":
        """Some of the rows, in the order of the indices. What reading said of them stays with the whole."""
        taken = Rows(self.origins)
        taken.reading = self.reading
        for i in indices:
            taken._values.append(self._values[i])
            taken._origin.append(self._origin[i])
            taken._number.append(self._number[i])
        return taken

    def where(self, index: int) -> tuple[int, int]:
        """The number of the file that a row comes from, and the row's number in it."""
        return self._origin[index], self._number[index]

    def append(self, row: dict[str, Any], origin: int, number: int) -> None:
        names = tuple(row)
        self._values.append((self._names.setdefault(names, names), *row.values()))
        self._origin.append(origin)
        self._number.append(number)


def place(origin: Origin, number: int) -> str:
    name = show(origin.name)
    return " ".join(filter(None, (name, f"{origin.unit} {number}" if origin.unit else "")))
