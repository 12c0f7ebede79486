"""Pictures as SVG, small enough to sit in a page by the dozen. Everything in a string from outside is escaped."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from html import escape

import numpy as np

STEPS = 8  # shades of a heat map


def heat(values: np.ndarray, most: float) -> str:
    """(R, C) -> cells of size 1, in two colours for either sign, as strong as the value is; `most` is full strength.

    Neighbours of one shade are one line, and all lines of one shade are one path: far less text than a cell each.
    """
    shades = np.clip(np.rint(values / most * STEPS), -STEPS, STEPS).astype(int)
    lines: dict[int, list[str]] = defaultdict(list)
    for y, row in enumerate(shades):
        edges = [0, *(np.flatnonzero(np.diff(row)) + 1).tolist(), len(row)]
        for start, end in itertools.pairwise(edges):
            if row[start]:
                lines[int(row[start])].append(f"M{start} {y}h{end - start}")
    paths = [
        f'<path class="{_sign(shade)}" stroke-opacity="{abs(shade) / STEPS:g}" d="{"".join(parts)}"/>'
        for shade, parts in sorted(lines.items())
    ]
    return f'<g class="heat" transform="translate(0 .5)">{"".join(paths)}</g>'  # a line lies around its middle


def _sign(shade: int) -> str:
    return "plus" if shade > 0 else "minus"


def placed(content: str, x: float, y: float, scale_x: float = 1.0, scale_y: float | None = None) -> str:
    scale = f"scale({scale_x:g} {scale_x if scale_y is None else scale_y:g})"
    return f'<g transform="translate({x:g} {y:g}) {scale}">{content}</g>'


def text(content: str, x: float, y: float, *, kind: str = "", anchor: str = "start", turn: float = 0) -> str:
    turned = f' transform="rotate({turn:g} {x:g} {y:g})"' if turn else ""
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{named}{turned}>{escape(content)}</text>'


def box(x: float, y: float, width: float, height: float, *, kind: str, title: str = "") -> str:
    hover = f"<title>{escape(title)}</title>" if title else ""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" class="{kind}">{hover}</rect>'


def dot(x: float, y: float, radius: float, *, kind: str, title: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" class="{kind}"><title>{escape(title)}</title></circle>'


def axes(names: Sequence[str], margin: float, cell: float, kinds: Sequence[str] = ()) -> str:
    """The names of the rows of a square whose corner is at (margin, margin), and turned those of its columns."""
    drawn = []
    for name, kind, i in itertools.zip_longest(names, kinds, range(len(names)), fillvalue=""):
        middle = margin + (int(i) + 0.5) * cell
        drawn.append(text(name, margin - 7, middle + 4, kind=kind, anchor="end"))
        drawn.append(text(name, middle + 4, margin - 7, kind=kind, turn=-90))
    return "".join(drawn)


def cut(name: str, most: int = 16) -> str:
    """A name short enough to stand beside a picture."""
    return name if len(name) <= most else name[: most - 1] + "…"


def picture(content: str, width: float, height: float, *, label: str, kind: str, most: float | None = None) -> str:
    """A whole drawing. `label` says in words what it shows, to those who do not see it.

    It is as wide as the page lets it, and at most `most` pixels; below five eighths of them it is scrolled.
    """
    size = f'viewBox="0 0 {width:g} {height:g}"'
    style = "" if most is None else f' style="max-width:{most:g}px;min-width:{min(most * 5 / 8, 560):g}px"'
    return f'<svg class="{kind}" {size}{style} role="img" aria-label="{escape(label)}">{content}</svg>'
