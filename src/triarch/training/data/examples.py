"""Examples in memory, as a training loop draws them."""

from collections.abc import Sequence

import numpy as np

from triarch.errors import InvalidInput
from triarch.objectives._base import Example, Objective


class Examples:
    """What an objective made of rows; each is drawn as the objective wants it seen this time."""

    def __init__(self, examples: Sequence[Example], objective: Objective):
        if not examples:
            raise InvalidInput("there are no examples; give at least one")
        self.examples, self.objective = examples, objective
        self.lengths = np.array([example.length for example in examples])  # (N,) int64, in tokens

    def __len__(self) -> int:
        return len(self.examples)

    def draw(self, index: int, rng: np.random.Generator) -> Example:
        return self.objective.draw(self.examples[index], rng)
