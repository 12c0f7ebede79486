"""Vectors as strips of colour: a row for each text or token, a cell for each number.

Shapes: R rows, C columns, T tokens, D numbers in a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from triarch.pages import key, number, svg, wide
from triarch.pages.asked import Asked

SHOWN = 96  # numbers of a vector that fit beside one another
ROWS = 64  # tokens of one picture
FEW = 16  # a vector of at most this many numbers is also written out
WIDE = 7.0  # of a cell


class Block(NamedTuple):
    """Rows that lie together."""

    values: np.ndarray  # (R, C)
    names: Sequence[str]  # of each row, or one of all
    height: float = 15.0  # of a row
    kind: str = ""  # of the names; one with a colour draws a bar beside the rows
    hovers: Sequence[str] = ()  # of each row


def fits(answer: Any, asked: Asked) -> int:
    return 0 if numbers(answer) is None else 2


def render(answer: Any, asked: Asked) -> str:
    x = numbers(answer)
    assert x is not None
    rows = x.reshape(-1, x.shape[-1])  # (T, D), or (1, D)
    T, D = rows.shape
    if T == 1:  # the whole vector, line by line
        lines = [rows[0, start : start + SHOWN] for start in range(0, min(D, ROWS * SHOWN), SHOWN)]
        shown = [Block(line[None], [str(i * SHOWN + 1)]) for i, line in enumerate(lines)]
        said = f"{D:,} numbers, length {number(float(np.linalg.norm(rows)))}"
    else:
        shown = [Block(rows[:ROWS, :SHOWN], [str(i + 1) for i in range(min(T, ROWS))])]
        said = f"{T:,} vectors of {D:,} numbers" + (", cut to what fits here" if T > ROWS or D > SHOWN else "")
    values = f": {', '.join(number(float(value)) for value in rows[0])}" if T == 1 and D <= FEW else ""
    drawn = wide(strips(shown, label=said), "the numbers")
    return f'{asked.heading()}{drawn}<p class="soft">{said}{values}. {key("p")} above zero, {key("m")} below.</p>'


def strips(blocks: Sequence[Block], *, label: str, gap: float = 0.0) -> str:
    """Blocks of rows under one another on one colour scale, whose full strength is the 97 % quantile of all values."""
    left, drawn, y = 92.0, [], 0.0
    most = float(np.quantile(np.abs(np.concatenate([block.values.ravel() for block in blocks])), 0.97)) or 1.0
    for values, names, high, kind, hovers in blocks:
        R, C = values.shape
        drawn.append(svg.placed(svg.heat(values, most), left, y, WIDE, high))
        each = R * high / len(names)
        for i, name in enumerate(names):
            drawn.append(svg.text(svg.cut(name), left - 12, y + (i + 0.5) * each + 4, kind=kind, anchor="end"))
        if kind.startswith("g"):
            drawn.append(svg.box(left - 7, y, 4, R * high, kind=kind))
        for i, hover in enumerate(hovers):
            drawn.append(svg.box(left, y + i * high, C * WIDE, high, kind="clear", title=hover))
        y += R * high + gap
    columns = max(block.values.shape[1] for block in blocks)
    width = left + columns * WIDE
    return svg.picture("".join(drawn), width, y - gap, label=label, kind="strips", most=width * 1.25)


def numbers(answer: Any) -> np.ndarray | None:
    """An array, a tensor or nested lists of numbers as float32, of 1 dimension or more; None for anything else."""
    if not hasattr(answer, "shape") and not isinstance(answer, list | tuple):
        return None
    if hasattr(answer, "detach"):
        answer = answer.detach().cpu().float().numpy()
    try:
        found = np.asarray(answer)
    except ValueError:  # lists of different lengths
        return None
    return found.astype(np.float32) if found.dtype.kind in "fiu" and found.size and found.ndim else None
