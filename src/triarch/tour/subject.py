"""What the tour asks a starter: the frame that all subjects share. The subjects are in `reading` and `writing`."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from triarch.tasks._base import Task


@dataclass(frozen=True)
class Row:
    """One input with what was meant by it, and what the starter answered."""

    asked: dict[str, Any]  # as inputs.toml has it
    answer: Any  # as the task gave it


class Subject:
    """One task: its inputs, what counts as right, and how rows look on the page and in a terminal."""

    TASK: ClassVar[str]  # as `triarch run` calls it
    HEADING: ClassVar[str]
    ABOUT: ClassVar[str]  # HTML, above the rows on the page
    COMMAND: ClassVar[str]  # behind the name of the task
    HEADERS: ClassVar[Sequence[str]]  # of the table in a terminal
    GRID: ClassVar[str] = "grid"  # the class of what holds the cards

    def ask(self, task: Task) -> list[Row]:
        raise NotImplementedError

    def points(self, row: Row) -> tuple[int, int]:
        """How much of an answer is right, of how much that can be."""
        raise NotImplementedError

    def card(self, row: Row) -> str:
        """A row on the page, without its frame; text from inputs and answers is escaped."""
        raise NotImplementedError

    def lines(self, row: Row) -> list[list[str]]:
        """A row in a terminal, as one line or more. What was meant stands only beside what was not."""
        raise NotImplementedError

    def shown(self, rows: Sequence[Row]) -> str:
        """All rows on the page."""
        cards = "".join(f'<div class="card">{self.card(row)}</div>' for row in rows)
        return f'<div class="{self.GRID}">{cards}</div>'

    def section(self, rows: Sequence[Row]) -> str:
        command = f"<pre>triarch run {escape(f'{self.TASK} {self.COMMAND}')} -m starter</pre>"
        return f'<h2 id="{self.TASK}">{self.HEADING}</h2><p>{self.ABOUT}</p>{self.shown(rows)}{command}'


@cache
def inputs() -> dict[str, Any]:
    """inputs.toml."""
    return tomllib.loads(files(__package__).joinpath("inputs.toml").read_text(encoding="utf-8"))


def query(text: str) -> str:
    return f'<h3 class="query">“{escape(text)}”</h3>'


def unless(right: bool, meant: str) -> str:
    """What was meant, for a cell of the terminal's table."""
    return "-" if right else meant
