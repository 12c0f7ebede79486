"""Running text damaged, so that writing it whole is an exercise: what T5 and BART were pretrained on.

Raffel et al. 2019, section 3.1.4, https://arxiv.org/abs/1910.10683; Lewis et al. 2019, section 2.2,
https://arxiv.org/abs/1910.13461. All of it is a function of the text and of `rng`. Shapes: T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def span_counts(size: int, share: float, mean: float) -> tuple[int, int]:
    """Of so many tokens how many are hidden, and in how many spans: some of both, and some tokens seen beside them.

    The one token of a text that has no other is hidden.
    """
    hidden = min(max(round(size * share), 1), max(size - 1, 1))
    spans = max(round(hidden / mean), 1)
    return hidden, min(spans, max(size - hidden, 1))


def spans(size: int, share: float, mean: float, rng: np.random.Generator) -> np.ndarray:
    """(T,) bool: which tokens are hidden; spans of these and of seen ones in turn, of random lengths.

    As in the code of T5's authors a text begins with what is seen and ends with what is hidden. Only where there is but
    one span it lies anywhere: there no text was as short, and here it would always be the end that is hidden.
    """
    hidden, count = span_counts(size, share, mean)
    if count == 1:
        first = int(rng.integers(size - hidden + 1))
        return (np.arange(size) >= first) & (np.arange(size) < first + hidden)
    lengths = np.stack([_parts(size - hidden, count, rng), _parts(hidden, count, rng)], 1).ravel()
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)


def parted(ids: np.ndarray, hidden: np.ndarray, sentinels: Sequence[int]) -> tuple[list[int], list[int]]:
    """The text with a sentinel in the place of each hidden span; and each sentinel with what it hides.

    The first sentinel stands for the first span, and so on.
    """
    begins = hidden & ~np.concatenate([[False], hidden[:-1]])
    source: list[int] = []
    target: list[int] = []
    left = iter(sentinels)
    for id_, hides, begin in zip(ids.tolist(), hidden.tolist(), begins.tolist(), strict=True):
        if begin:
            sentinel = next(left)
            source.append(sentinel)
            target.append(sentinel)
        (target if hides else source).append(id_)
    return source, target


def infill(
    ids: np.ndarray, share: float, mean: float, mask: int, most: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[int]]:
    """Spans of random lengths each replaced by one mask, and these lengths, in the order of the spans.

    Lengths are drawn from a Poisson distribution until together they hide the `share`, which the last one is cut to.
    A span of no tokens puts a mask between two; such ones are left out where the text would grow beyond `most` tokens.
    The number of hidden tokens is rounded up or down by chance, so that the share is right on average.
    """
    hidden = int(share * len(ids) + rng.random())
    lengths: list[int] = []
    left = hidden
    while left:
        lengths.append(min(int(rng.poisson(mean)), left))
        left -= lengths[-1]
    while lengths.count(0) and len(ids) - hidden + len(lengths) > most:
        lengths.remove(0)
    rng.shuffle(lengths)  # the last one was cut, and must not be the text's last as well
    # Every arrangement of the seen tokens and the spans is as likely as any other
    items = len(ids) - hidden + len(lengths)
    places = np.zeros(items, bool)
    places[rng.choice(items, len(lengths), replace=False)] = True
    found: list[int] = []
    at, spans = 0, iter(lengths)
    for is_span in places.tolist():
        found.append(mask if is_span else int(ids[at]))
        at += next(spans) if is_span else 1
    return np.array(found, np.int64), lengths


def delete(ids: np.ndarray, share: float, mask: int, rng: np.random.Generator) -> np.ndarray:
    """Without a share of the tokens, masks apart: nothing says where they stood. One token at least is left."""
    candidates = np.flatnonzero(ids != mask)
    count = min(int(share * len(candidates) + rng.random()), len(ids) - 1)
    return np.delete(ids, rng.permutation(candidates)[:count])


def rotate(ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Beginning with any of its tokens, what stood before it at the end."""
    return np.roll(ids, -int(rng.integers(len(ids))))


def _parts(total: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count,) lengths of at least 1 that add up to `total`; every way to do so is as likely as any other."""
    cuts = np.sort(rng.choice(total - 1, count - 1, replace=False)) + 1 if count > 1 else np.zeros(0, np.int64)
    return np.diff(np.concatenate([[0], cuts, [total]]))
