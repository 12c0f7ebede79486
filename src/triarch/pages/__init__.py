"""Self-contained HTML pages: no script, no request, light and dark, on screens of any width and on paper.

What goes into the pieces is HTML already, escaped by whoever made it; names and titles are escaped here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from html import escape
from importlib.resources import files

from triarch import __version__


def document(title: str, body: str, css: str = "") -> str:
    """A whole page: the common style, then `css`, then `body`."""
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
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
{body}
</body>
</html>
"""


def key(kind: str) -> str:
    return f'<span class="key {kind}"></span>'


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
