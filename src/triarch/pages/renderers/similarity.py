"""How near texts are to one another in meaning: bars for a query, a square of cosines for several vectors.

Shapes: N vectors, D numbers in each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from triarch.pages import svg, wide
from triarch.pages.asked import Asked, named, records
from triarch.pages.renderers.labels import bars
from triarch.pages.renderers.vectors import numbers

MOST = 100  # vectors of one picture
STRONGEST = 0.8  # a cosine of this has the full colour
BAR = 10.0  # pixels from the square to the edge of the coloured bars beside it


class Block(NamedTuple):
    """Neighbouring rows of a square with one name: a sentence, or a group of them."""

    name: str
    size: int = 1
    kind: str = ""  # a class with a colour, for a bar beside the rows


def fits(answer: Any, asked: Asked) -> int:
    several = len(_vectors(answer)) > 1 or _compared(answer, asked)
    return 3 if several else named(answer, "corpus_id", "score", "text")


def render(answer: Any, asked: Asked) -> str:
    if hits := records(answer):
        return asked.heading() + bars(((one["text"], one["score"]) for one in hits), spell=cosine)
    if compared := _compared(answer, asked):
        return asked.heading() + bars(zip(compared, answer, strict=True), spell=cosine)
    vectors = np.stack(_vectors(answer)[:MOST])
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    given = asked.input if isinstance(asked.input, list | tuple) else []
    names = [_name(given[i] if i < len(given) else None, i) for i in range(len(unit))]
    drawn = square(unit, [Block(name) for name in names], cell=max(18.0, 300 / len(unit)))
    more = f'<p class="soft">The first {MOST} of {len(answer):,}.</p>' if len(answer) > MOST else ""
    return wide(drawn, "cosines of all pairs") + more


def square(vectors: np.ndarray, blocks: Sequence[Block], *, cell: float) -> str:
    """(N, D) unit vectors, in the order of the blocks -> a heat map of all cosines; hovering gives a pair's mean."""
    left = 20 + 8.5 * max(len(block.name) for block in blocks)
    size = len(vectors) * cell
    drawn = [svg.placed(svg.heat(vectors @ vectors.T, most=STRONGEST), left + BAR, BAR, cell)]
    ends = np.cumsum([block.size for block in blocks])
    lines = [(block, slice(end - block.size, end)) for block, end in zip(blocks, ends.tolist(), strict=True)]
    for block, rows in lines:
        y, height = rows.start * cell, block.size * cell
        drawn.append(svg.text(block.name, left - 6, BAR + y + height / 2 + 4, kind=block.kind, anchor="end"))
        if block.kind:
            drawn.append(svg.box(left, BAR + y, BAR - 3, height - 1, kind=block.kind))
            drawn.append(svg.box(left + BAR + y, 0, height - 1, BAR - 3, kind=block.kind))
        for other, columns in lines:
            mean = (vectors[rows] @ vectors[columns].T).mean()
            hover = f"{block.name} and {other.name}: {mean:.2f}{' on average' if block.size * other.size > 1 else ''}"
            x, width = left + BAR + columns.start * cell, other.size * cell
            drawn.append(svg.box(x, BAR + y, width, height, kind="clear", title=hover))
    label = f"a square of cosines, {len(vectors)} by {len(vectors)}: the darker, the nearer in meaning"
    whole = left + BAR + size
    return svg.picture("".join(drawn), whole, BAR + size, label=label, kind="cosines", most=whole)


def cosine(value: float) -> str:
    return f"{value:.2f}"


def _compared(answer: Any, asked: Asked) -> list[str]:
    """The sentences that a list of cosines was computed for; empty if they are not known."""
    found, sentences = numbers(answer), asked.get("sentences")
    fits = found is not None and isinstance(sentences, list | tuple) and found.shape == (len(sentences),)
    return list(sentences) if fits else []


def _vectors(answer: Any) -> list[np.ndarray]:
    """The vectors of several inputs, as `embedding` gives them; empty if the answer is anything else."""
    if not isinstance(answer, list) or not all(isinstance(one, np.ndarray) and one.ndim == 1 for one in answer):
        return []
    return answer if len({one.shape for one in answer}) == 1 else []


def _name(given: Any, place: int) -> str:
    return svg.cut(Asked(given).text or str(place + 1), 24)
