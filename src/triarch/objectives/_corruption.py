"""Running text made into exercises: words hidden, segments put together. Devlin et al. 2018, https://arxiv.org/abs/1810.04805

All of it is a function of the text and of `rng`. Shapes: T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from triarch.errors import InvalidInput
from triarch.objectives._base import Passage

TRIES = 8  # chunks that are drawn for a sentence that fits; shorter ones are the rule


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

    The border lies between two sentences, or within the only one. `passages` are as many sentences as fit into `room`,
    so the real second segment is as many whole sentences as fit beside the first; one from another document is made
    in the very same way, so that neither its length nor where it begins or ends gives the class away. Nothing is cut
    but sentences that alone are too long.
    """
    passages = [passage for passage in passages if len(passage.ids)]
    follows = bool(rng.random() < 0.5)
    if len(passages) > 1:
        border = int(rng.integers(1, len(passages)))
        first, second = joined(passages[:border]), joined(passages[border:])
        if follows:
            return first, second, True
        limit, longest = room - len(first.ids), max(len(passage.ids) for passage in passages)
        if limit - len(second.ids) > longest:  # the document ends here, and so the foreign segment ends early as well
            limit = len(second.ids) + int(rng.integers(longest + 1))
        return first, _foreign(other, limit), False
    whole = joined(passages)
    border = int(rng.integers(1, max(len(whole.ids), 2)))
    first, second = _part(whole, 0, border), _part(whole, border, len(whole.ids))
    if not len(second.ids):  # a text of one token has nothing that follows
        return first, _foreign(other, room - 1), False
    if not follows:  # as long, and from within a sentence too
        strange = joined(other())
        begin = int(rng.integers(1, max(len(strange.ids) - len(second.ids), 1) + 1))
        second = _part(strange, min(begin, len(strange.ids) - 1), begin + len(second.ids))
    return first, second, follows


def _foreign(other: Callable[[], Sequence[Passage]], limit: int) -> Passage:
    """As many whole sentences of another document as fit into `limit` tokens."""
    for _ in range(TRIES):
        drawn = list(other())
        while drawn and len(drawn[0].ids) > limit:  # the real one begins with a sentence that fits as well
            drawn.pop(0)
        if drawn:
            ends = np.cumsum([len(passage.ids) for passage in drawn])
            return joined(drawn[: int(np.searchsorted(ends, limit, side="right"))])
    return _part(joined(other()), 0, limit)


def _part(passage: Passage, begin: int, end: int) -> Passage:
    starts = passage.starts[begin:end].copy()
    starts[:1] = True  # what is left of a word counts as one
    return Passage(passage.ids[begin:end], starts)
