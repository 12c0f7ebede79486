"""Names of labels, and their numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from triarch.data.columns import Column
from triarch.errors import InvalidInput, show
from triarch.suggest import did_you_mean

LABEL = Column(
    "class",
    usual=(
        *("labels", "intent", "sentiment", "category", "class", "score", "stars", "rating", "target", "topic"),
        *("emotion", "similarity", "relatedness_score", "coarse_label"),
    ),
    asked_as="labels",
)
LABEL_NAMES = ("label", *LABEL.usual)


class Labels:
    """The numbers that a model gives to labels."""

    def __init__(self, names: list[str], least: int = 1):
        if len(names) < least or len(set(names)) < len(names):
            what = "one of them twice" if len(names) >= least else f"{len(names)} of them"
            raise InvalidInput(f"labels are {what}, wanted at least {least}, each once")
        self.names = list(names)
        self._numbers = {name: number for number, name in enumerate(names)}
        self._named_by_numbers = any(name.removeprefix("-").isdigit() for name in names)

    def __len__(self) -> int:
        return len(self.names)

    def number(self, label: Any, what: str = "label") -> int:
        """The number of a label that a row gives by its name, or by its number where no name is one.

        Raises InvalidInput, with the nearest name.
        """
        name = name_of(label, what)
        if name in self._numbers:
            return self._numbers[name]
        if type(label) is int and not self._named_by_numbers and 0 <= label < len(self.names):
            return label
        known = ", ".join(show(name, 30) for name in self.names[:8]) + (", …" if len(self.names) > 8 else "")
        raise InvalidInput(f"{what} is {show(repr(label), 60)}{did_you_mean(name, self.names)}; there are {known}")


def name_of(label: Any, what: str = "label") -> str:
    if not isinstance(label, str | int) or label == "":
        raise InvalidInput(f"{what} is {show(repr(label), 60)}, wanted the name of a label")
    return str(label)


def ordered(names: Iterable[str]) -> list[str]:
    """Numbers by size, anything else by the alphabet."""
    found = set(names)
    if all(name.removeprefix("-").isdecimal() and name.isascii() for name in found):
        return sorted(found, key=int)
    return sorted(found)
