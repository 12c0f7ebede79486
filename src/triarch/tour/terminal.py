"""The findings as a few short tables, for a terminal of any width."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata

from triarch.errors import show
from triarch.tour.findings import Findings
from triarch.tour.lessons import School

GAP = "  "
NARROWEST = 3  # a column is not squeezed below that


def report(findings: Findings, school: School) -> str:
    """All tables, as wide as the terminal at most."""
    width = max(20, min(shutil.get_terminal_size((100, 24)).columns, 120))
    searches, groups, speed = findings.searches, findings.groups, findings.speed
    settled = f"{findings.settled} of {len(findings.sentences)}"
    parts = [
        title(f"Search: {findings.found_first} of {len(searches)} queries find their sentence first", width),
        table(
            ["query", "came first", "cosine", "rank"],
            [
                [
                    search.query,
                    findings.sentences[search.hits[0][0]].text,
                    f"{search.hits[0][1]:.2f}",
                    str(search.rank),
                ]
                for search in searches
            ],
            width,
        ),
        title(f"Groups: {settled} sentences lie with their topic, which the model was not told", width),
        table(
            ["group", "sentences", "of another topic"],
            [
                [
                    group.topic,
                    str(len(group.members)),
                    "; ".join(findings.sentences[n].text for n in group.strays) or "-",
                ]
                for group in groups
            ],
            width,
        ),
        *_taught(school, width),
        title(f"Speed on this machine ({speed.where})", width),
        table(
            ["load", "sentences a second", "tokens a second"],
            [[f"{speed.load_seconds:.2f} s", f"{speed.sentences:,.0f}", f"{speed.tokens:,.0f}"]],
            width,
        ),
    ]
    return "\n".join(parts)


def _taught(school: School, width: int) -> list[str]:
    """A table for each lesson, and a line on those left out."""
    parts = []
    for lesson in school.lessons:
        right, of = lesson.points
        heading, *rows = lesson.table()
        parts += [
            title(f"{lesson.task} with the starter {show(lesson.starter)}: {right} of {of} as meant", width),
            table(heading, rows, width),
        ]
    if school.absent:
        reason = next(iter(school.absent.values()))
        parts.append(show(f"Left out: {', '.join(school.absent)}; {reason}", 500) + "\n")
    return parts


def table(headers: list[str], rows: list[list[str]], width: int) -> str:
    """Aligned columns, numbers to the right; the widest give way until all fit."""
    cells = [headers, *([show(cell, 1000) for cell in row] for row in rows)]
    widths = [max(map(cells_wide, column)) for column in zip(*cells, strict=True)]
    while sum(widths) + len(GAP) * len(widths) > width and max(widths) > NARROWEST:
        widths[widths.index(max(widths))] -= 1
    right = [all(row[i][:1].isdigit() for row in cells[1:]) for i in range(len(headers))]
    lines = [
        GAP + GAP.join(fit(cell, size, end) for cell, size, end in zip(row, widths, right, strict=True))
        for row in cells
    ]
    return "\n".join([_styled(lines[0].rstrip(), "2"), *(line.rstrip() for line in lines[1:]), ""])


def title(text: str, width: int) -> str:
    return _styled(fit(text, min(width, cells_wide(text)), False).rstrip(), "1")


def fit(text: str, width: int, right: bool) -> str:
    """Text in exactly `width` cells of the terminal: cut with … or filled with spaces."""
    if cells_wide(text) > width:
        while text and cells_wide(text) > width - 1:
            text = text[:-1]
        text = text.rstrip() + "…"
    space = " " * (width - cells_wide(text))
    return space + text if right else text + space


def cells_wide(text: str) -> int:
    """How many cells of a terminal a text takes: two for wide characters such as emoji, none for combining ones."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def say(text: str) -> None:
    """To stdout, whatever its encoding can hold."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))


def note(text: str) -> None:
    """Progress, to stderr."""
    print(f"tour: {text}", file=sys.stderr, flush=True)


def _styled(text: str, code: str) -> str:
    plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain else f"\x1b[{code}m{text}\x1b[0m"
