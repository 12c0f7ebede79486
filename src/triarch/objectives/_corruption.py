"""Running text made into exercises: words hidden, segments put together. Devlin et al. 2018, https://arxiv.org/abs/1810.04805

All of it is a function of the text and of `rng`. Shapes: T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from triarch.errors import InvalidInput
from triarch.objectives._base import Passage


def joined(passages: Sequence[Passage]) -> Passage:
    """One after the other. Raises InvalidInput where there is not one token."""
    if not any(len(passage.ids) for passage in passages):
        raise InvalidInput("a document has no tokens; leave it out")
    ids, starts = (np.concatenate(part) for part in zip(*passages, strict=True))
    return _part(Passage(ids, starts), 0, len(ids))


def choose(
    ids: np.ndarray, starts: np.ndarray, ordinary: np.ndarray, share: float, whole_words: bool, rng: np.random.Generator
) -> np.ndarray:
    """(T,) bool: which tokens are to be guessed.

    A `share` of those that `ordinary`, (V,) bool, allows: exactly that many, rounded up or down by chance so that the
    share is right on average, and at least one. Of `whole_words`, all tokens of a word or none: words in random order,
    each that still fits, as in the code of the paper's authors.
    """
    chosen = np.zeros(len(ids), bool)
    candidates = np.flatnonzero(ordinary[ids])
    count = max(1, int(share * len(candidates) + rng.random()))
    if not whole_words:
        chosen[rng.permutation(candidates)[:count]] = True
        return chosen
    numbers = starts.cumsum()[candidates]
    words = np.split(candidates, np.flatnonzero(np.diff(numbers)) + 1) if len(candidates) else []
    left = count
    for i in rng.permutation(len(words)):
        if len(words[i]) <= left:
            chosen[words[i]] = True
            left -= len(words[i])
        if not left:
            break
    if left == count and words:  # every word is longer than that
        chosen[words[rng.integers(len(words))]] = True
    return chosen


def hide(
    ids: np.ndarray,
    chosen: np.ndarray,
    mask: int,
    words: np.ndarray,
    masked: float,
    random: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """The chosen tokens replaced: a share by the mask, a share by any of `words`; the others stay. Section A.1."""
    dice = rng.random(len(ids))
    replaced = np.where(chosen & (dice < masked), mask, ids)
    drawn = words[rng.integers(len(words), size=len(ids))]
    return np.where(chosen & (masked <= dice) & (dice < masked + random), drawn, replaced)


def pair(
    passages: Sequence[Passage], other: Callable[[], Sequence[Passage]], room: int, rng: np.random.Generator
) -> tuple[Passage, Passage, bool]:
    """Two segments, and whether the second follows the first in the document: half of the times it does. Section A.2.

    The border lies between two sentences, or within the only one. A second segment from another document has as many
    whole sentences as make it no shorter than the real one, so that its length gives nothing away. Of segments that
    have no room together the longer is cut, at either end by chance, as in the paper: nothing of it is lost to
    training, as other draws cut elsewhere.
    """
    passages = [passage for passage in passages if len(passage.ids)]
    if len(passages) > 1:
        border = int(rng.integers(1, len(passages)))
        first, second = joined(passages[:border]), joined(passages[border:])
        wanted = len(second.ids)
    else:
        whole = joined(passages)
        border = int(rng.integers(1, max(len(whole.ids), 2)))
        first, second = _part(whole, 0, border), _part(whole, border, len(whole.ids))
        wanted = max(len(second.ids), 1)
    follows = bool(rng.random() < 0.5) and len(second.ids) > 0
    if not follows:
        second = _as_long(other(), wanted)
        if len(passages) == 1:  # a real second segment would begin within a sentence, so this one does too
            second = _part(second, int(rng.integers(0, len(second.ids))), len(second.ids))
    shorter = min(len(first.ids), len(second.ids), room // 2)
    sizes = [min(len(part.ids), max(room - shorter, shorter)) for part in (first, second)]
    if sum(sizes) > room:
        sizes[1] = room - sizes[0]
    return _cut(first, sizes[0], rng), _cut(second, sizes[1], rng), follows


def _as_long(passages: Sequence[Passage], wanted: int) -> Passage:
    """So many of the passages that together they have that many tokens, if there are as many."""
    lengths = np.cumsum([len(passage.ids) for passage in passages])
    return joined(passages[: int(np.searchsorted(lengths, wanted)) + 1])


def _cut(passage: Passage, size: int, rng: np.random.Generator) -> Passage:
    begin = int(rng.binomial(len(passage.ids) - size, 0.5))
    return _part(passage, begin, begin + size)


def _part(passage: Passage, begin: int, end: int) -> Passage:
    starts = passage.starts[begin:end].copy()
    starts[:1] = True  # what is left of a word counts as one
    return Passage(passage.ids[begin:end], starts)
