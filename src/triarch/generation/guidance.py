"""Classifier-free guidance: leaning away from what another prompt makes likely.

Sanchez et al. 2023, section 3, https://arxiv.org/abs/2306.17806

Shapes: N rows, T tokens fed, V vocabulary.
"""

from __future__ import annotations

from torch import Tensor

from triarch.generation.inference import Steps


class Guided:
    """The model on the prompts and, beside it, on others that are to be avoided; both read what is written.

    The scores are logarithms of probabilities, not normalised: `scale` times as far from the others' as the prompts'.
    """

    def __init__(self, wanted: Steps, avoided: Steps, scale: float):
        self.wanted, self.avoided, self.scale = wanted, avoided, scale

    def start(self, copies: int) -> Tensor:
        return self._leaning(self.wanted.start(copies), self.avoided.start(copies))

    def feed(self, tokens: Tensor) -> Tensor:
        return self._leaning(self.wanted.feed(tokens), self.avoided.feed(tokens))

    def select(self, rows: Tensor) -> None:
        self.wanted.select(rows)
        self.avoided.select(rows)

    def crop(self, length: int) -> None:
        self.avoided.crop(self.avoided.length - (self.wanted.length - length))  # their prompts differ in length
        self.wanted.crop(length)

    @property
    def length(self) -> int:
        return self.wanted.length

    def _leaning(self, wanted: Tensor, avoided: Tensor) -> Tensor:
        base = avoided.float().log_softmax(-1)  # (N, V) or (N, T, V)
        return base + self.scale * (wanted.float().log_softmax(-1) - base)
