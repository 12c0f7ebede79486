"""The pictures of the report: curves over the steps, and the table of what was taken for what."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from triarch.pages import number, svg
from triarch.training.history import Points

MOST_POINTS = 300  # of one line: more would not be seen
KINDS = 4  # that many lines of a picture differ in colour and in their dashes
MOST_LABELS = 30  # that fit into a picture of all labels against all

Scale = Callable[[float], float]  # a value -> where it lies in the picture


@dataclass(frozen=True)
class Line:
    """One curve; all of its points, however many, with NaN where it breaks off."""

    name: str
    points: Points
    noisy: bool = False  # drawn smooth, with the range of the values behind it
    dots: bool = False  # each point is one that was measured


@dataclass(frozen=True)
class Chart:
    drawing: str
    beyond: int  # values too high for the picture, which would have flattened all others


def chart(
    lines: Sequence[Line],
    *,
    label: str,
    best: float | None = None,
    floor: float = math.inf,
    width: float = 760,
    height: float = 300,
) -> Chart:
    """Curves over the steps, the best step marked. `label` says in words what is to be seen.

    The picture reaches down to `floor`, and further where values do.
    """
    left, right, top, bottom = 56.0, 26.0, 12.0 + 20 * (len(lines) > 1), 40.0
    low, high = _range(lines)
    low = min(low, floor)
    last = max((float(line.points.steps[-1]) for line in lines if len(line.points)), default=1.0)
    first = min((float(line.points.steps[0]) for line in lines if len(line.points)), default=0.0)
    first = first if first < last else last - 1

    def x(step: float) -> float:
        return left + (step - first) / (last - first) * (width - left - right)

    def y(value: float) -> float:
        return top + (high - min(value, high)) / (high - low) * (height - top - bottom)

    drawn = []
    for tick in ticks(low, high, 5):
        drawn.append(f'<path class="grid" d="M{left:g} {y(tick):.1f}H{width - right:g}"/>')
        drawn.append(svg.text(number(tick), left - 8, y(tick) + 4, anchor="end"))
    for tick in ticks(first, last, 6 if width > 500 else 4):
        drawn.append(svg.text(f"{tick:,.0f}", x(tick), height - bottom + 18, anchor="middle"))
    drawn.append(svg.text("step", width - right, height - 4, anchor="end"))
    if best is not None and first <= best <= last:
        drawn.append(f'<path class="best" d="M{x(best):.1f} {top:g}V{height - bottom:g}"/>')
    for i, line in enumerate(lines):
        drawn.append(_curve(line, f"c{i % KINDS}", x, y, best))
        if len(lines) > 1:
            at = left + i * min(190.0, (width - left - right) / len(lines))
            drawn.append(f'<path class="line c{i % KINDS}" d="M{at:g} 12h26"/>')
            drawn.append(svg.text(line.name, at + 32, 16))
    beyond = sum(int((line.points.values > high).sum()) for line in lines)
    return Chart(svg.picture("".join(drawn), width, height, label=label, kind="chart"), beyond)


def _curve(line: Line, kind: str, x: Scale, y: Scale, best: float | None) -> str:
    drawn = ""
    shown = Points(line.points.steps, smooth(line.points.values)) if line.noisy else line.points
    if line.noisy:
        steps, low, high = bins(line.points)
        for start, end in _runs(low):
            there = [f"{x(steps[i]):.1f} {y(high[i]):.1f}" for i in range(start, end)]
            back = [f"{x(steps[i]):.1f} {y(low[i]):.1f}" for i in reversed(range(start, end))]
            drawn += f'<path class="band {kind}" d="M{"L".join(there + back)}Z"/>'
    shown = thin(shown)
    for start, end in _runs(shown.values):
        where = "L".join(f"{x(shown.steps[i]):.1f} {y(shown.values[i]):.1f}" for i in range(start, end))
        drawn += f'<path class="line {kind}" d="M{where}{"h.1" if end - start == 1 else ""}"/>'
    if line.dots:
        for step, value in zip(shown.steps, shown.values, strict=True):
            mark = " chosen" if step == best else ""
            title = f"{line.name}: {number(value)} at step {step:,.0f}{' (best)' if mark else ''}"
            drawn += svg.dot(x(step), y(value), 6 if mark else 3.5, kind=kind + mark, title=title)
    return drawn


def _runs(values: np.ndarray) -> list[tuple[int, int]]:
    """Where values are known without a break: starts and ends."""
    known = np.concatenate([[False], ~np.isnan(values), [False]])
    edges = np.flatnonzero(known[1:] != known[:-1])
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def _range(lines: Sequence[Line]) -> tuple[float, float]:
    """Lowest and highest value of the picture. A few far above all others are left out; a level line has some room."""
    values = np.concatenate([line.points.known().values for line in lines] or [np.zeros(1)])
    if not len(values):
        return 0.0, 1.0
    low, usual, most = float(values.min()), float(np.percentile(values, 99.5)), float(values.max())
    high = usual + (usual - low) * 0.1 if most > usual + 2 * (usual - low) and usual > low else most
    room = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
    return (low - room if low < 0 or low > room else 0.0), high + room


def smooth(values: np.ndarray) -> np.ndarray:
    """An exponential mean over about a fortieth of all values, without the pull of its start; NaN stays NaN."""
    share = 2 / (1 + max(1.0, len(values) / 40))
    mean = weight = 0.0
    found = np.full(len(values), math.nan)
    for i, value in enumerate(values.tolist()):
        if not math.isnan(value):
            mean, weight = mean + share * (value - mean), weight + share * (1 - weight)
            found[i] = mean / weight
    return found


def thin(points: Points) -> Points:
    """At most MOST_POINTS of the points, the first and the last among them."""
    if len(points) <= MOST_POINTS:
        return points
    kept = np.linspace(0, len(points) - 1, MOST_POINTS).round().astype(int)
    return Points(points.steps[kept], points.values[kept])


def bins(points: Points) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, and the lowest and highest value around each: (K,), (K,), (K,) with K of at most MOST_POINTS."""
    parts = np.array_split(np.arange(len(points)), min(MOST_POINTS, max(1, len(points) // 2)))
    found = []
    for part in parts:
        known = points.values[part][~np.isnan(points.values[part])]
        edges = (known.min(), known.max()) if len(known) else (math.nan, math.nan)
        found.append((points.steps[part].mean() if len(part) else math.nan, *edges))
    steps, low, high = np.array(found).T
    return steps, low, high


def rates(amounts: Points, seconds: Points) -> Points:
    """Amounts a second over the steps, each of the whole time between two points."""
    known = ~(np.isnan(amounts.values) | np.isnan(seconds.values))
    parts = [part for part in np.array_split(np.flatnonzero(known), 100) if len(part)]
    spent = [max(float(seconds.values[part].sum()), 1e-9) for part in parts]
    found = [float(amounts.values[part].sum()) / time for part, time in zip(parts, spent, strict=True)]
    return Points(np.array([amounts.steps[part[-1]] for part in parts]), np.array(found))


def confusion(counts: np.ndarray, labels: Sequence[str]) -> str:
    """(L, L) counts as a heat map: right labels down, predicted ones across; a row is as strong as its shares."""
    L, names = len(labels), [svg.cut(label) for label in labels]
    cell, margin = (44.0 if L <= 12 else 26.0), 20 + 7.0 * max(map(len, names))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    drawn = [svg.placed(svg.heat(shares, most=1.0), margin, margin, cell)]
    drawn.append(svg.axes(names, margin, cell))
    for i, j in itertools.product(range(L), range(L)):
        if counts[i, j]:
            kind = "count strong" if shares[i, j] > 0.5 else "count"
            at = margin + (j + 0.5) * cell, margin + (i + 0.5) * cell + 4
            drawn.append(svg.text(short(int(counts[i, j])), *at, kind=kind, anchor="middle"))
    size = L * cell
    drawn.append(svg.box(margin, margin, size, size, kind="frame"))
    right = int(np.trace(counts))
    label = f"a square of {L} labels by {L}: {right:,} of {int(counts.sum()):,} are right and lie on the diagonal"
    whole = margin + size + 1
    return svg.picture("".join(drawn), whole, whole, label=label, kind="confusion", most=whole * 1.2)


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers from `low` to `high`, about `count` of them."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((power * factor for factor in (1, 2, 5, 10)), key=lambda one: abs(one - rough))
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def plural(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def short(count: int) -> str:
    return str(count) if count < 1000 else f"{count / 1000:.3g}k" if count < 999_500 else f"{count / 1e6:.3g}M"
