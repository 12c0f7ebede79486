"""Self-contained HTML pages: no script, no request, light and dark, on screens of any width and on paper.

`answers.show` makes a page of what a task answers; `renderers` has a file for each kind of answer, whose drawings the
tour and the reports of runs use too. Here are the parts that all pages share: arguments that hold content are HTML, and
names and titles are text, which is escaped here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from html import escape
from importlib.resources import files

from triarch import __version__

GROUPS = 8  # classes g0 to g7 of the style sheet, a colour each
UNKNOWN = "none"  # the class of what has no colour of its own
CLOSING = "\n</body>\n</html>\n"


def document(title: str, body: str, css: str = "") -> str:
    """A whole page."""
    return opening(title, css) + body + CLOSING


def opening(title: str, css: str = "") -> str:
    """A page up to its body: the common style, then `css`. Where a page is written bit by bit, CLOSING ends it."""
    style = "".join(map(stylesheet, ("palette", "answers", "page")))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="triarch {__version__}">
<title>{escape(title)}</title>
<style>
{style}{css}</style>
</head>
<body>
"""


def stylesheet(name: str) -> str:
    return files(__package__).joinpath(f"{name}.css").read_text(encoding="utf-8")


def percent(score: float) -> str:
    """Rounded, but never to "none" or to "sure"."""
    return "<1%" if score < 0.005 else ">99%" if score >= 0.995 else f"{score:.0%}"


def number(value: float) -> str:
    """A number for people: four digits that count."""
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def group(count: int) -> str:
    """The class, and with it the colour, of the `count`th of several things."""
    return f"g{count % GROUPS}"


def verdict(right: bool, means: str = "as we meant") -> str:
    kind, sign, title = ("tick", "✓", means) if right else ("cross", "✗", f"not {means}")
    return f'<span class="{kind}" title="{escape(title)}">{sign}</span>'


def key(kind: str) -> str:
    return f'<span class="key {kind}"></span>'


def legend(colours: Mapping[str, str], others: str = "") -> str:
    """What the colours (names -> classes) stand for."""
    shown = {**colours, others: UNKNOWN} if others else colours
    return f'<ul class="legend">{"".join(f"<li>{key(kind)} {escape(name)}</li>" for name, kind in shown.items())}</ul>'


def wide(content: str, label: str) -> str:
    """Can be scrolled, by keyboard too, where the screen is narrow."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="{escape(label)}">{content}</div>'


def cards(values: Mapping[str, str]) -> str:
    """Large values over their names."""
    pairs = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in values.items())
    return f'<dl class="cards">{pairs}</dl>'


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[int] = ()) -> str:
    """Cells are HTML; those of the columns in `numbers` stand to the right."""

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = [' class="number"' if i in numbers else "" for i in range(len(cells))]
        return "".join(f"<{tag}{kind}>{cell}</{tag}>" for cell, kind in zip(cells, kinds, strict=True))

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{line(headers, "th")}</tr></thead><tbody>{body}</tbody></table></div>'
