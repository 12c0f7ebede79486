"""Classifier-free guidance: leaning away from what another prompt makes likely.

Sanchez et al. 2023, section 3, https://arxiv.org/abs/2306.17806
"""

from __future__ import annotations

from collections.abc import Callable

from triarch.generation.inference import Ask, Scores
from triarch.generation.sampling import Search


def guided(scores: Scores, *, search: Callable[[Scores], Search], scale: float) -> Search:
    """A search of one prompt's rows, beside each of which stands one of a prompt that is to be avoided; both read what
    is written. `scores` are of the two prompts.

    What the search is handed are logarithms of probabilities, not normalised: `scale` times as far from the avoided
    ones as the prompt's.
    """
    inner = search(_leaning(scores, scale))
    count = 1
    ask = next(inner, None)
    while ask is not None:
        rows = [*ask.rows, *(count + row for row in ask.rows)]
        count = len(ask.rows)
        read = yield Ask(rows, ask.tokens * 2, ask.forget)
        try:
            ask = inner.send(_leaning(read, scale))
        except StopIteration:
            return


def _leaning(scores: Scores, scale: float) -> Scores:
    wanted, avoided = (logits.float().log_softmax(-1) for logits in scores.logits.chunk(2))
    return Scores(avoided + scale * (wanted - avoided))
