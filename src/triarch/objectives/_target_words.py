"""What objectives share in which a text is written from another: each next token of the target is guessed, given the
source and the tokens before it.

Vaswani et al. 2017, sections 3.1 and 5.4, https://arxiv.org/abs/1706.03762. Shapes: B sequences, T tokens of a target.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from triarch.errors import InvalidInput
from triarch.inputs.text.targets import START, configured_start, language_settings, target_start
from triarch.inputs.text.token_bytes import token_bytes
from triarch.kinds import TargetWordScores
from triarch.objectives._base import IGNORED, Batch, Example
from triarch.objectives._losses import cross_entropy, padded_targets
from triarch.objectives._next_words import NextWords

if TYPE_CHECKING:
    from torch import Tensor

    from triarch.family import Network
    from triarch.inputs.text.processor import TextProcessor


@dataclass(kw_only=True)
class TargetWords(NextWords):
    """The ids of an example are its source, the target has the tokens to be written, special ones included."""

    SCORES: ClassVar[type] = TargetWordScores

    label_smoothing: float = 0.0  # the share of what is right that all words divide among them
    max_tokens: int | None = None  # of one source, special ones included; none: what the model takes
    max_target_tokens: int | None = None  # of one target, special ones included; none: what the model writes

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_smoothing <= 1:
            raise InvalidInput(f"label_smoothing is {self.label_smoothing}, wanted a share of 0 to 1")
        self._reads: TextProcessor = self.processor  # whose `target` reads what is written, maybe by other words
        self._most = self.most_tokens(self.max_tokens)
        written = self.processor.target.max_tokens
        self._most_written = self.most_tokens(self.max_target_tokens, "max_target_tokens", written)
        self._start: int | None = None

    def attach(self, network: Network) -> None:
        """Raises InvalidInput where config.json does not say what a target begins with."""
        start = language_settings(self._reads).get(START)
        start = configured_start(network.config.to_hf()) if start is None else start
        (self._start,) = target_start(start, network.config.target_vocab_size)

    def example(self, source: Sequence[int], target: Sequence[int], **more: Any) -> Example:
        """Both as ids, with special tokens."""
        return Example(array("I", source), [0] * len(source), array("I", target), written=len(target), **more)

    def batch(self, examples: Sequence[Example]) -> Batch:
        """Targets are padded with what no loss looks at. No mask says so: a token looks at none behind it."""
        words = padded_targets([example.target for example in examples])
        inputs = self.padded(examples)
        if bool(inputs["attention_mask"].all()):
            del inputs["attention_mask"]  # which says nothing, and attention is faster without it
        inputs["decoder_input_ids"] = self._shifted(words)
        counts = {self.NAME: float((words != IGNORED).sum())}
        return Batch(inputs, {"words": words}, counts, [None] * len(examples))

    def losses(self, scores: Any, batch: Batch) -> dict[str, Tensor]:
        words = batch.targets["words"]
        words = words if self._learns_all(batch) else words[words != IGNORED]
        return {self.NAME: cross_entropy(scores.logits, words, smoothing=self.label_smoothing)}

    def _shifted(self, words: Tensor) -> Tensor:
        """What is read beside words (B, T) to guess each of them: what a target begins with, and all but the last."""
        import torch

        assert self._start is not None, "attach() comes before the first batch"
        padded = words.masked_fill(words == IGNORED, self._reads.target.id("pad_token") or 0)
        return torch.cat([torch.full_like(words[:, :1], self._start), padded[:, :-1]], 1)

    @cached_property
    def _bytes(self) -> np.ndarray:
        return token_bytes(self._reads.target)
