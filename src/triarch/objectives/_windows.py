"""Long texts as several examples, and what is measured of them put together again."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from triarch.errors import InvalidInput, show
from triarch.objectives._base import Example

if TYPE_CHECKING:
    from tokenizers import Encoding


class Part(NamedTuple):
    """Which window of which row an example is."""

    row: bytes = b""  # the same for all windows of a row, and for rows that say the same
    number: int = 0
    of: int = 1


class Measured(Protocol):
    @property
    def part(self) -> Part: ...


Outcome = TypeVar("Outcome", bound=Measured)


def parts(row: dict[str, Any], count: int) -> list[Part]:
    if count == 1:
        return [Part()]
    key = blake2b(repr(sorted(row.items())).encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return [Part(key, number, count) for number in range(count)]


def by_row(outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    """Outcomes of windows, gathered row by row and in the windows' order; rows in the order in which they began.

    Rows are known by what they say, so that nothing has to number them. A row that is there several times stays so.
    """
    rows: list[list[Outcome]] = []
    opened: dict[tuple[bytes, int], list[list[Outcome]]] = {}  # by row and window: the copies that wait for this window
    for outcome in outcomes:
        part = outcome.part
        waiting = opened.get((part.row, part.number))
        if part.of > 1 and waiting:
            waiting.pop(0).append(outcome)
            continue
        rows.append([outcome])
        if part.of > 1:
            for number in set(range(part.of)) - {part.number}:
                opened.setdefault((part.row, number), []).append(rows[-1])
    return [sorted(row, key=lambda outcome: outcome.part.number) for row in rows]


def kept(window: Encoding, target: Any, note: Any) -> Example:
    """What is to be learned from a window, in little memory: all examples of a data set are held at once."""
    return Example(array("I", window.ids), array("I", window.type_ids), target, note)


def text_in(row: dict[str, Any], name: str) -> str:
    """Raises InvalidInput unless the row has text under that name."""
    if not isinstance(row.get(name), str):
        found = f"{type(row[name]).__name__} {show(row[name], 40)!r}" if name in row else "nothing"
        raise InvalidInput(f"{name} is {found}, wanted text")
    return str(row[name])
