"""Entities marked in their text, or, if the text is not known, listed as words with labels."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, NamedTuple

from triarch.pages import UNKNOWN, legend, percent
from triarch.pages.asked import Asked, named, records

SCHEMES = ("B-", "I-", "E-", "L-", "S-", "U-")


class Mark(NamedTuple):
    """A part of a text. `before` and `after` are HTML that stands inside the mark."""

    start: int
    end: int
    kind: str  # a class, or several
    before: str = ""
    after: str = ""
    share: float | None = None  # 0 to 1: how dark the mark is


class Chip(NamedTuple):
    """A word with its label below it. `note` is HTML."""

    text: str
    kind: str = UNKNOWN
    label: str = ""
    note: str = ""
    hover: str = ""


def fits(answer: Any, asked: Asked) -> int:
    return named(answer, "entity", "word", "score") or named(answer, "entity_group", "word", "score")


def render(answer: Any, asked: Asked) -> str:
    found = [(one, str(one.get("entity_group", one.get("entity")))) for one in records(answer)]
    kinds = {_kind(label): asked.colour(_kind(label)) for _, label in found}
    text = asked.text
    if text is not None and all(_inside(one, text) for one, _ in found):
        marks = [
            Mark(one["start"], one["end"], kinds[_kind(label)], after=_note(label, one["score"]))
            for one, label in found
        ]
        return f'<div class="marked">{marked(text, marks)}</div>{legend(kinds)}'
    return chips(Chip(one["word"], kinds[_kind(label)], label, percent_note(one["score"])) for one, label in found)


def marked(text: str, marks: Sequence[Mark]) -> str:
    """The text with its parts marked. Marks may overlap, so it is cut wherever one begins or ends."""
    marks = [mark for mark in marks if mark.start < mark.end]
    cuts = sorted({0, len(text), *(cut for mark in marks for cut in mark[:2])})
    parts = []
    for start, end in itertools.pairwise(cuts):
        part = escape(text[start:end])
        if inside := [mark for mark in marks if mark.start <= start and end <= mark.end]:
            before = "".join(mark.before for mark in inside if mark.start == start)
            after = "".join(mark.after for mark in inside if mark.end == end)
            share = inside[0].share
            style = "" if share is None else f' style="--share:{share:.2f}" title="{share:.0%}"'
            part = f'<mark class="{inside[0].kind}"{style}>{before}{part}{after}</mark>'
        parts.append(part)
    return "".join(parts)


def chips(shown: Iterable[Chip]) -> str:
    drawn = []
    for text, kind, label, note, hover in shown:
        title = f' title="{escape(hover)}"' if hover else ""
        below = f"<i>{escape(label)}</i>" if label else ""
        drawn.append(f'<li class="{kind}"{title}><b>{escape(text)}</b>{below}{note}</li>')
    return f'<ol class="tagged">{"".join(drawn)}</ol>'


def percent_note(score: float) -> str:
    return f"<small>{escape(percent(score))}</small>"


def _note(label: str, score: float) -> str:
    return f" <small>{escape(label)} {escape(percent(score))}</small>"


def _kind(label: str) -> str:
    """The kind of entity, without the tag that says where in one a token stands."""
    return label[2:] if label.startswith(SCHEMES) else label


def _inside(one: dict[str, Any], text: str) -> bool:
    start, end = one.get("start"), one.get("end")
    return isinstance(start, int) and isinstance(end, int) and 0 <= start <= end <= len(text)
