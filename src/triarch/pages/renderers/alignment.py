"""Texts with the words or sentences of the source that they come from: translation, summaries with their sources."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from html import escape
from typing import Any

from triarch.pages import percent
from triarch.pages.asked import Asked, named, records
from triarch.pages.renderers import text
from triarch.pages.renderers.spans import Chip, Mark, chips, marked
from triarch.tasks._alignment import WORD

FAINT = 0.05  # a square of less is as good as white


def fits(answer: Any, asked: Asked) -> int:
    more = named(answer, "alignment") or named(answer, "sources")
    return text.fits(answer, asked) + more if more else 0


def render(answer: Any, asked: Asked) -> str:
    found = records(answer)
    source = asked.text if "sources" in found[0] else None
    head = asked.heading() if source is None else ""
    return head + "".join(_one(record, asked.text) for record in found)


def _one(record: dict[str, Any], source: str | None) -> str:
    below = ""
    if "alignment" in record:
        looks = [(one["word"], one.get("shares", ())) for one in record["alignment"]]
        words = WORD.findall(source or "")
        if all(len(shares) == len(words) for _, shares in looks) and words:
            below += grid(words, looks)
        else:
            below += chips(
                Chip(one["word"], label=one["source"], note=f"<small>{escape(percent(one['score']))}</small>")
                for one in record["alignment"]
            )
    if "sources" in record:
        if source is not None:
            return f'<p class="passage">{looked_at(source, shares(record["sources"]))}</p>{text.written(record)}{below}'
        below += "".join(
            f'<p class="soft">{escape(one["sentence"])} ← {escape("; ".join(s["text"] for s in one["sources"]))}</p>'
            for one in record["sources"]
        )
    return text.written(record) + below


def shares(supports: Sequence[dict[str, Any]]) -> dict[tuple[int, int], float]:
    """How much each sentence of the source, by its span, was looked at by all of the target together."""
    found: dict[tuple[int, int], float] = defaultdict(float)
    for sentence in supports:
        for one in sentence["sources"]:
            found[one["start"], one["end"]] += one["score"] / len(supports)
    return found


def looked_at(source: str, by_span: dict[tuple[int, int], float]) -> str:
    """The source with its parts as dark as they were looked at."""
    return marked(source, [Mark(*span, "looked", share=share) for span, share in sorted(by_span.items())])


def grid(words: Sequence[str], looks: Sequence[tuple[str, Sequence[float]]]) -> str:
    """A line for each word of the target, a column for each of the source."""
    head = "".join(f"<th><span>{escape(word)}</span></th>" for word in words)
    lines = "".join(f"<tr><th>{escape(word)}</th>{''.join(map(_square, row))}</tr>" for word, row in looks)
    table = f'<table class="alignment"><thead><tr><td></td>{head}</tr></thead><tbody>{lines}</tbody></table>'
    return f'<div class="looks">{table}</div>'


def _square(share: float) -> str:
    return "<td></td>" if share < FAINT else f'<td style="--share:{share:.2f}"></td>'
