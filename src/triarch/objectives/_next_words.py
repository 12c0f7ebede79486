"""What objectives that guess each next token share.

Shapes: B sequences, T tokens, N tokens to be guessed, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from triarch import metrics
from triarch.inputs.text.token_bytes import token_bytes
from triarch.kinds import NextWordScores
from triarch.objectives._base import IGNORED, Batch, Example, Objective
from triarch.objectives._losses import cross_entropy, guesses, padded_targets

if TYPE_CHECKING:
    from torch import Tensor

    from triarch.family import Network


@dataclass(kw_only=True)
class NextWords(Objective):
    """The target of an example has the token that follows each of its own, or IGNORED; its note has the lengths of the
    texts that share it, of which none looks at another."""

    SCORES: ClassVar[type] = NextWordScores
    CLASSES: ClassVar[str | None] = "words"

    def batch(self, examples: Sequence[Example]) -> Batch:
        import torch

        words = padded_targets([example.target for example in examples])
        inputs = self.padded(examples)
        mask = inputs["attention_mask"]
        for row, example in enumerate(examples):
            if len(example.note) > 1:
                numbers = np.repeat(np.arange(1, len(example.note) + 1), example.note)
                mask[row, : len(numbers)] = torch.from_numpy(numbers)
        if bool((mask == 1).all()):
            del inputs["attention_mask"]  # which says nothing, and attention is faster without it
        counts = {self.NAME: float((words != IGNORED).sum())}
        return Batch(inputs, {"words": words}, counts, [None] * len(examples))

    def forward(self, model: Network, batch: Batch) -> Any:
        """Scores (N, V) of the tokens that there is something to learn of, or (B, T, V) where that is all."""
        words = batch.targets["words"]
        return model(**batch.inputs, score_at=None if self._learns_all(batch) else words != IGNORED)

    def losses(self, scores: Any, batch: Batch) -> dict[str, Tensor]:
        words = batch.targets["words"]
        return {self.NAME: cross_entropy(scores.logits, words if self._learns_all(batch) else words[words != IGNORED])}

    def outcomes(self, scores: Any, batch: Batch) -> list[Any]:
        """(loss, tokens, those guessed right, bytes of their text) of each row."""
        words = batch.targets["words"]
        table = words.cpu().numpy()
        sizes = (self._bytes[table.clip(0)] * (table != IGNORED)).sum(1)
        found = guesses(scores.logits.flatten(0, -2), words)
        return [(*guess, float(size)) for guess, size in zip(found, sizes, strict=True)]

    def measure(self, outcomes: list[Any]) -> dict[str, float]:
        """Special tokens are guessed like all others, and stand for no bytes: their loss is part of a text's."""
        loss, count, right, size = np.sum(outcomes, axis=0).tolist() if outcomes else (0.0, 0.0, 0.0, 0.0)
        return {
            "perplexity": metrics.perplexity(loss, count),
            "bits_per_byte": metrics.bits_per_byte(loss, size),
            "accuracy": right / count if count else float("nan"),
        }

    def _learns_all(self, batch: Batch) -> bool:
        """Whether each token is guessed: then none has to be picked out."""
        return batch.counts[self.NAME] == batch.targets["words"].numel()

    @cached_property
    def _bytes(self) -> np.ndarray:
        return token_bytes(self.processor)
