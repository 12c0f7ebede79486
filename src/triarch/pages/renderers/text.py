"""What a model wrote, with the probabilities of its tokens where they were asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from triarch.errors import show
from triarch.pages import UNKNOWN, key, number, percent, table
from triarch.pages.asked import Asked, chat, is_chat, records
from triarch.pages.renderers.spans import Chip, chips

LIKELIEST = "g1"  # class of tokens that had the highest probability at their position
DETAILS = ("finish_reason", "seed", "score")


def fits(answer: Any, asked: Asked) -> int:
    found = records(answer)
    return 2 if found and all(_text_of(one) is not None for one in found) else 0


def render(answer: Any, asked: Asked) -> str:
    return asked.heading() + "".join(map(written, records(answer)))


def written(record: dict[str, Any]) -> str:
    """One text, then its tokens and details if the answer has them."""
    found = _text_of(record)
    said = chat(found) if is_chat(found) else f'<p class="written"><b>{escape(str(found))}</b></p>'
    tokens = record.get("tokens") or []
    details = [f"{name} {_detail(record[name])}" for name in DETAILS if record.get(name) is not None]
    note = f'<p class="soft">{escape(", ".join(details))}</p>' if details else ""
    return said + (_probabilities(tokens) if tokens else "") + note


def _text_of(record: dict[str, Any]) -> Any:
    """The text of a record (generated_text, summary_text, …) or of a `Generated`; None if it has none."""
    names = [name for name in record if name.endswith(("_text", "_token_ids"))]
    return record[names[0]] if names else record["text"] if "finish_reason" in record else None


def probabilities(tokens: Sequence[tuple[str, float, bool]]) -> str:
    """Chips of (token, probability, whether it was the likeliest)."""
    return chips(
        Chip(text, LIKELIEST if best else UNKNOWN, note=f"<small>{escape(percent(p))}</small>", hover=f"{p:.2%}")
        for text, p, best in tokens
    )


def _probabilities(tokens: list[dict[str, Any]]) -> str:
    """The tokens of an answer, with a table of the likeliest alternatives to each if the answer has them."""
    shown = [
        (one["token"], math.exp(one["logprob"]), _best(one["logprob"], one.get("alternatives", ()))) for one in tokens
    ]
    drawn = probabilities(shown)
    if not any("alternatives" in one for one in tokens):
        return drawn
    rows = [
        [f"<code>{escape(show(repr(one['token'])))}</code>", *map(_token, one.get("alternatives", ()))]
        for one in tokens
    ]
    most = max(map(len, rows))
    heads = ["token", *(f"choice {i}" for i in range(1, most))]
    padded = [[*row, *[""] * (most - len(row))] for row in rows]
    return (
        f'{drawn}<p class="soft">{key(LIKELIEST)} the likeliest token at its position.</p>'
        f"<details><summary>Alternatives</summary>{table(heads, padded)}</details>"
    )


def _best(logprob: float, others: Sequence[dict[str, Any]]) -> bool:
    return bool(others) and all(other["logprob"] <= logprob for other in others)


def _token(one: dict[str, Any]) -> str:
    return f"<code>{escape(show(repr(one['token'])))}</code> {escape(percent(math.exp(one['logprob'])))}"


def _detail(value: Any) -> str:
    return number(value) if isinstance(value, float) else show(value)
