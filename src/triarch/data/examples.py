"""Examples in memory, as a training loop draws them."""

from collections.abc import Sequence

import numpy as np

from triarch.errors import InvalidInput
from triarch.objectives._base import Example


class Examples:
    """What an objective made of rows. Each is the same whenever it is drawn."""

    def __init__(self, examples: Sequence[Example]):
        if not examples:
            raise InvalidInput("there are no examples; give at least one")
        self.examples = examples
        self.lengths = np.array([example.length for example in examples])  # (N,) int64, in tokens

    def __len__(self) -> int:
        return len(self.examples)

    def draw(self, index: int, rng: np.random.Generator) -> Example:
        return self.examples[index]
