"""The pictures of the page, each made from the findings alone.

Shapes: N sentences, D numbers in a vector, T tokens, L layers, H heads.
"""

from __future__ import annotations

import itertools

import numpy as np

from triarch.pages import group as colour
from triarch.pages import svg
from triarch.pages.renderers import vectors
from triarch.pages.renderers.vectors import SHOWN, Block
from triarch.tour.findings import Findings, Group, Look, Pooled


def plane(findings: Findings) -> str:
    """All sentences as dots, coloured by group; a ring marks those that lie with another topic."""
    width, margin = 760, 30
    low, high = findings.places.min(0), findings.places.max(0)
    scale = (width - 2 * margin) / max(float(high[0] - low[0]), 1e-9)
    places = margin + (findings.places - [low[0], high[1]]) * [scale, -scale]
    drawn: list[str] = []
    labels: list[tuple[float, float]] = []
    for number, group in enumerate(findings.groups):
        for member in group.members:
            x, y = places[member]
            stray = " stray" if member in group.strays else ""
            sentence = findings.sentences[member]
            drawn.append(svg.dot(x, y, 7, kind=colour(number) + stray, title=f"{sentence.text} ({sentence.topic})"))
    for number, group in enumerate(findings.groups):
        labels.append(_free_place(places[group.members], places, labels))
        drawn.append(svg.text(group.topic, *labels[-1], kind=f"name {colour(number)}", anchor="middle"))
    height = float(places[:, 1].max()) + margin
    label = f"{len(findings.sentences)} dots on a plane, in {len(findings.groups)} coloured groups"
    return svg.picture("".join(drawn), width, height, label=label, kind="map")


def _free_place(own: np.ndarray, dots: np.ndarray, labels: list[tuple[float, float]]) -> tuple[float, float]:
    """Where a label covers no dot and no other label, as near to the middle of its own dots as can be."""
    middle = np.median(own, axis=0)
    steps = np.arange(-8, 9) * 10.0

    def cost(place: np.ndarray) -> float:
        covered = np.abs(dots - place + [0, 6]) < [60, 17]
        others = np.abs(np.array(labels or [(-1e9, 0)]) - place) < [115, 26]
        return 3 * covered.all(1).sum() + 9 * others.all(1).sum() + float(np.abs(place - middle).sum()) / 40

    best = min((middle + np.array(step) for step in itertools.product(steps, steps)), key=cost)
    return float(best[0]), float(best[1])


def head(look: Look) -> str:
    """One attention map, large: rows look at columns."""
    cell, margin = 17.0, 78.0
    attention = look.maps[look.chosen]
    drawn = [svg.placed(svg.heat(attention, most=0.6), margin, margin, cell)]
    kinds = ["special" if token.special else f"s{token.segment}" for token in look.tokens]
    drawn.append(svg.axes([token.piece for token in look.tokens], margin, cell, kinds))
    for i, j in np.argwhere(attention >= 0.05):
        hover = f"{look.tokens[i].piece} looks at {look.tokens[j].piece}: {attention[i, j]:.2f}"
        drawn.append(svg.box(margin + j * cell, margin + i * cell, cell, cell, kind="clear", title=hover))
    border = margin + sum(token.segment == 0 for token in look.tokens) * cell
    size = margin + len(look.tokens) * cell
    drawn.append(f'<path class="border" d="M{margin:g} {border:g}H{size:g}M{border:g} {margin:g}V{size:g}"/>')
    label = (
        f"attention of layer {_layer(look, look.chosen[0])}, head {look.chosen[1] + 1}: a square of tokens by tokens"
    )
    return svg.picture("".join(drawn), size + 1, size + 1, label=label, kind="head")


def heads(look: Look) -> str:
    """The attention maps of all heads, small; the large one is framed."""
    size, gap, left = 50.0, 6.0, 60.0
    drawn = []
    for row, maps in enumerate(look.maps):
        y = row * (size + gap) + 3
        drawn.append(svg.text(f"layer {_layer(look, row)}", left - 8, y + size / 2 + 4, anchor="end"))
        for column, attention in enumerate(maps):
            x = left + column * (size + gap)
            kind = "frame chosen" if (row, column) == look.chosen else "frame"
            drawn.append(svg.placed(svg.heat(_coarse(attention), most=0.5), x, y, size / len(look.tokens)))
            hover = f"layer {_layer(look, row)}, head {column + 1}"
            drawn.append(svg.box(x, y, size, size, kind=kind, title=hover))
    L, H = look.maps.shape[:2]
    label = f"{L * H} small attention maps, one for each head of each layer"
    return svg.picture("".join(drawn), left + H * (size + gap), L * (size + gap) + 3, label=label, kind="heads")


def _coarse(attention: np.ndarray) -> np.ndarray:
    """With half the shades, which a small picture does not show, and half the text."""
    return np.rint(attention * 8) / 8


def _layer(look: Look, row: int) -> int:
    return look.layers[row] + 1


def pooling(pooled: Pooled) -> str:
    """The vectors of the tokens of one sentence, and below them the one that they become."""
    tokens, whole = pooled.vectors[:, :SHOWN], pooled.pooled[None, :SHOWN]
    blocks = [Block(tokens, pooled.pieces), Block(whole, ["sentence"], height=30.0, kind="strong")]
    label = f"{len(tokens)} strips, one for each token, and one strip for the whole sentence"
    return vectors.strips(blocks, label=label, gap=12.0)


def strips(findings: Findings) -> str:
    """A strip of numbers for each sentence, by group: those numbers that tell the groups apart best."""
    x = findings.vectors - findings.vectors.mean(0)
    columns = telling(x, findings.groups)
    blocks = []
    for number, group in enumerate(findings.groups):
        texts = [findings.sentences[member].text for member in group.members]
        rows = x[np.ix_(group.members, columns)]
        blocks.append(Block(rows, [group.topic], height=7.0, kind=colour(number), hovers=texts))
    label = f"{len(x)} strips in {len(findings.groups)} groups; the strips of a group look alike"
    return vectors.strips(blocks, label=label, gap=6.0)


def telling(vectors: np.ndarray, groups: list[Group]) -> list[int]:
    """Of (N, D), the columns that differ most between groups beside how much they differ within, by their group."""
    means = np.stack([vectors[group.members].mean(0) for group in groups])  # (K, D)
    within = np.mean([vectors[group.members].var(0) for group in groups], axis=0)
    best = np.argsort(-means.var(0) / (within + 1e-12), kind="stable")[:SHOWN]
    peak = np.abs(means).argmax(0)
    return sorted(best.tolist(), key=lambda column: (peak[column], -means[peak[column], column]))
