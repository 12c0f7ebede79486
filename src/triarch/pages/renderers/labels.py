"""Labels or words with their scores, as bars: classification, zero-shot, next sentence, guessed words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from html import escape
from typing import Any

from triarch.pages import number, percent, verdict
from triarch.pages.asked import Asked, named, records


def fits(answer: Any, asked: Asked) -> int:
    return named(answer, "label", "score") or named(answer, "labels", "scores") or named(answer, "token_str", "score")


def render(answer: Any, asked: Asked) -> str:
    found = records(answer)
    if named(answer, "labels", "scores"):
        return "".join(_asked_of(one, asked) + bars(zip(one["labels"], one["scores"], strict=True)) for one in found)
    name = "label" if "label" in found[0] else "token_str" if asked.text else "sequence"
    return asked.heading() + bars((one[name], one["score"]) for one in found)


def _asked_of(one: dict[str, Any], asked: Asked) -> str:
    """The text of a zero-shot answer, which it holds itself."""
    return asked.heading() or Asked(one.get("sequence")).heading()


def bars(
    scored: Iterable[tuple[str, float]],
    *,
    meant: str | None = None,
    means: str = "as we meant",
    spell: Callable[[float], str] | None = None,
) -> str:
    """Names and scores, a bar each, ✓ at the one that was `meant`. Scores are shares unless one is no probability."""
    rows = list(scored)
    shares = all(0 <= score <= 1 for _, score in rows)
    most = max([1.0, *(abs(score) for _, score in rows if math.isfinite(score))])
    spell = spell or (percent if shares else number)
    drawn = []
    for name, score in rows:
        wanted = name == meant
        mark = f"{verdict(True, means)} " if wanted else ""
        size = max(score / most, 0) * 100 if math.isfinite(score) else 0
        drawn.append(
            f"<li{' class=wanted' if wanted else ''}><span>{mark}{escape(str(name))}</span>"
            f'<span class="number">{escape(spell(score))}</span>'
            f'<span class="bar"><i style="width:{min(size, 100):.0f}%"></i></span></li>'
        )
    return f'<ol class="hits">{"".join(drawn)}</ol>'
