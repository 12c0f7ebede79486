"""Answers to questions, marked in the text that they were found in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, NamedTuple

from triarch.pages import group, percent
from triarch.pages.asked import Asked, named, records
from triarch.pages.renderers.spans import Mark, marked

SILENT = "the text does not say"


class Reply(NamedTuple):
    """An answer in a list; `more` is HTML that stands beside it, `note` HTML below."""

    answer: str
    score: float
    question: str = ""
    more: str = ""
    note: str = ""


def fits(answer: Any, asked: Asked) -> int:
    return named(answer, "score", "start", "end", "answer")


def render(answer: Any, asked: Asked) -> str:
    found = records(answer)
    question, context = asked.get("question"), asked.get("context")
    if context is None:
        context = asked.text if asked.text != question else None
    head = f'<p class="query">{escape(question)}</p>' if isinstance(question, str) else ""
    if isinstance(context, str):
        head += passage(context, [(one["start"], one["end"]) for one in found])
    return head + listed(Reply(one["answer"], one["score"]) for one in found)


def passage(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The text with the answers marked and numbered, as in the list below it."""
    marks = [Mark(*span, group(n), before=f"<sup>{n + 1}</sup>") for n, span in enumerate(spans)]
    return f'<p class="passage">{marked(text, marks)}</p>'


def listed(replies: Iterable[Reply]) -> str:
    items = []
    for n, reply in enumerate(replies):
        said = f"<mark>{escape(reply.answer)}</mark>" if reply.answer else f"<b>{SILENT}</b>"
        score = f'<span class="number">{escape(percent(reply.score))}</span>'
        question = f"<span>{escape(reply.question)}</span>"
        items.append(f'<li class="{group(n)}"><b>{question}</b><div>{said} {score} {reply.more}</div>{reply.note}</li>')
    return f'<ol class="replies">{"".join(items)}</ol>'
