"""Randomness as a function of the seed and of what it is for: no two uses share their numbers."""

import numpy as np

# What random numbers are for. The order is the seed's own; a new use goes to the end
USES = ("weights", "order", "split", "draw", "measure", "dropout")


def generator(use: str, *numbers: int) -> np.random.Generator:
    return np.random.default_rng(_key(use, numbers))


def seed(use: str, *numbers: int) -> int:
    """One number, for generators that take one."""
    return int(np.random.SeedSequence(_key(use, numbers)).generate_state(1, np.uint64)[0])


def _key(use: str, numbers: tuple[int, ...]) -> tuple[int, ...]:
    # Each number takes two words: SeedSequence pads with zeros, and (1, 0) would be (1,)
    words = (word for number in numbers for word in (number & 0xFFFFFFFF, number >> 32))
    return (USES.index(use), len(numbers), *words)
