"""Any other answer, as a table."""

from __future__ import annotations

from html import escape
from typing import Any

from triarch import pages
from triarch.errors import show
from triarch.pages.asked import Asked
from triarch.pages.asked import records as records_of

MOST = 500  # rows of a table
CHARACTERS = 300  # of a cell


def fits(answer: Any, asked: Asked) -> int:
    return 1


def render(answer: Any, asked: Asked) -> str:
    return asked.heading() + table(answer)


def table(answer: Any) -> str:
    """Records with a column for each name; anything else in one column."""
    rows = records_of(answer) or [{"answer": one} for one in (answer if isinstance(answer, list | tuple) else [answer])]
    if not rows:
        return "<p>Nothing found.</p>"
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[escape(_cell(row.get(name, ""))) for name in names] for row in rows[:MOST]]
    numbers = [i for i, name in enumerate(names) if all(isinstance(row.get(name), int | float) for row in rows)]
    more = f'<p class="soft">The first {MOST} of {len(rows):,}.</p>' if len(rows) > MOST else ""
    return pages.table([escape(str(name)) for name in names], cells, numbers=numbers) + more


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return pages.number(value)
    return f"{value:,}" if type(value) is int else show(value, CHARACTERS)
