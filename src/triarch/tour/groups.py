"""Groups of vectors, and their picture on a plane.

Shapes: N vectors, D numbers in each, K groups, A axes.
"""

from __future__ import annotations

import numpy as np

STARTS = 200  # k-means ends in whatever valley it started above, so it starts often and keeps the best


def principal_axes(vectors: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """(N, D) -> (N, A) along the directions in which they differ most, and the share of their variance that this keeps.

    The sign of an axis is free; here the largest number on it is positive, so that a picture comes out the same twice.
    """
    left, scale, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    placed = left[:, :count] * scale[:count]
    placed *= np.where(placed.max(0) < -placed.min(0), -1.0, 1.0)
    return placed, float((scale[:count] ** 2).sum() / max((scale**2).sum(), 1e-12))


def cluster(vectors: np.ndarray, count: int, seed: int = 0) -> list[int]:
    """(N, D) -> the group, 0 to K - 1, of each vector: k-means by cosine, on the K leading principal axes.

    Ding & He 2004, https://doi.org/10.1145/1015330.1015408: the leading axes are where the groups lie, the rest is
    noise. Arthur & Vassilvitskii 2007, https://dl.acm.org/doi/10.5555/1283383.1283494: how to choose the first centres.
    """
    x, _ = principal_axes(vectors, count)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    random = np.random.default_rng(seed)
    found = [_settle(x, _first_centres(x, count, random)) for _ in range(STARTS)]
    return max(found, key=lambda one: one[0])[1].tolist()


def _first_centres(x: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """k-means++: each next centre is a vector far from those before."""
    picked = [int(random.integers(len(x)))]
    while len(picked) < count:
        distance = np.maximum(1 - (x @ x[picked].T).max(1), 0) + 1e-12
        picked.append(int(random.choice(len(x), p=distance / distance.sum())))
    return x[picked]


def _settle(x: np.ndarray, centres: np.ndarray, rounds: int = 100) -> tuple[float, np.ndarray]:
    """How near the vectors are to their centres in the end, and the group of each."""
    near = x @ centres.T  # (N, K)
    for _ in range(rounds):
        groups = near.argmax(1)
        sums = np.stack([x[groups == k].sum(0) if (groups == k).any() else centres[k] for k in range(len(centres))])
        moved = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        if np.array_equal(moved, centres):
            break
        centres, near = moved, x @ moved.T
    return float(near.max(1).sum()), near.argmax(1)
