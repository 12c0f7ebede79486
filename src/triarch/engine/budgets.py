"""How much is worked on at once, padding included: all batch budgets, measured with `triarch bench --budgets`.

On a CPU larger batches fall out of its caches; on a GPU smaller ones leave it idle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Budget:
    """Tokens, by the kind of device."""

    cpu: int
    cuda: int

    def on(self, device: str) -> int:
        return self.cuda if device == "cuda" else self.cpu

    def of(self, model: nn.Module) -> int:
        """On the device of a model."""
        return self.on(next(model.parameters()).device.type)


READING = Budget(cpu=1024, cuda=65_536)  # inputs that are scored
WRITING = Budget(cpu=8192, cuda=262_144)  # prompts and answers, that is, of the cache
LEARNING = Budget(cpu=1024, cuda=32_768)  # examples whose activations are kept for the gradient

# How far ahead inputs are read, to be sorted by length: so many batches, but at most so many inputs
BATCHES_AHEAD, WRITTEN_AHEAD = 32, 4
INPUTS_AHEAD = 8192
EXAMPLES_AHEAD = 4096  # in measuring a model that learns
