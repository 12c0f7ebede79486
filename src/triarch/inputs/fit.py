"""The one rule for inputs that are longer or larger than the model takes.

Such an input is read in pieces that overlap and together lose nothing (windows of a text, tiles of an image, stretches
of sound), or it is cut, or it is refused: whichever was asked for by name. A task and the objective that trains the
same head cut alike, because both pass the same `Fit` to `Processor.pieces`.

Sizes count units: tokens, patches or frames. Shapes: L labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from triarch import limits
from triarch.errors import InvalidInput, LimitExceeded

Strategy = Literal["window", "truncate", "error"]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What happens to an input that does not fit. `sizes` gives the numbers that were not asked for."""

    strategy: Strategy = "window"
    most: int | None = None  # units of one piece, special tokens included; None: `usual`
    usual: int | None = None  # None, or more than the model takes: what it takes
    stride: int | None = None  # units that neighbouring pieces share; None: `share` of a piece, up to `usual_stride`
    share: float = 0.0
    usual_stride: int | None = None
    side: str = "auto"  # of two texts, the one that is cut: "first", "second", or "auto" for the longer
    name: str = "the input"  # as errors call it
    advice: str = 'use long="window"'  # what to do about an input that was refused

    def sizes(self, takes: int) -> tuple[int, int]:
        """Units of one piece, and units that neighbours share, of a model that takes so many. Raises InvalidInput."""
        most = min(self.usual or takes, takes) if self.most is None else bounded("max_length", self.most, takes)
        usual = int(most * self.share) if self.usual_stride is None else min(int(most * self.share), self.usual_stride)
        return most, usual if self.stride is None else self.stride

    def refuse(self, size: int, most: int, units: str = "tokens") -> None:
        """Raises LimitExceeded for an input of more units than fit."""
        if size > most:
            raise LimitExceeded(f"{self.name} has {size:,} {units}, at most {most:,} fit; {self.advice}")


TOKENS = Fit(share=1 / 4)  # where each token is scored: neighbouring windows overlap, so that it has context
QUESTION = Fit(side="second", usual=384, share=1 / 2, usual_stride=128)  # a question whole, its context in windows


def bounded(name: str, wanted: int, takes: int) -> int:
    """`wanted` units of one piece, an option of that name. Raises InvalidInput for more than the model takes."""
    if not 0 < wanted <= takes:
        raise InvalidInput(f"{name} is {wanted}, the model takes {takes} tokens; ask for 1 to {takes}")
    return wanted


def count_windows(size: int, room: int, stride: int) -> int:
    """How many windows of `room` units show an input of `size`."""
    return 1 + max(math.ceil((size - room) / (room - stride)), 0)


def check_windows(count: int) -> None:
    """Raises LimitExceeded for more than one input may make."""
    if count > limits.WINDOWS:
        raise LimitExceeded(f"the input makes {count:,} windows, over {limits.WINDOWS:,}; split it, or overlap less")


def cut(size: int, room: int, stride: int, strategy: Strategy) -> tuple[list[slice], int]:
    """The pieces of an input of `size` units, each of at most `room`, and how many units none of them holds.

    Raises LimitExceeded for too many windows.
    """
    if strategy == "truncate":
        return [slice(room)], max(size - room, 0)
    check_windows(count := count_windows(size, room, stride))
    step = room - stride
    return [slice(start, start + room) for start in range(0, count * step, step)], 0


def owned(masks: Sequence[Sequence[int]], stride: int) -> list[list[int]]:
    """For each window the positions of the units that are its own: each unit belongs to the window that shows the most
    context on both sides of it, so neighbours divide what they share in halves.

    `masks` are 1 where a window has what is no unit of the input, such as a special token.
    """
    own = []
    for number, mask in enumerate(masks):
        inner = [i for i, special in enumerate(mask) if not special]
        first = stride // 2 if number else 0
        last = len(inner) - (stride - stride // 2 if number < len(masks) - 1 else 0)
        own.append(inner[first:last])
    return own


def stitch(
    masks: Sequence[Sequence[int]], rows: Sequence[np.ndarray], stride: int
) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Scores of each unit, from those of overlapping windows: where it is, as (window, position), and its row.

    Of the special tokens those at the beginning and the end of the whole input stay.
    """
    places = []
    for number, (mask, own) in enumerate(zip(masks, owned(masks, stride), strict=True)):
        first = own[0] if number else 0
        last = own[-1] if number < len(masks) - 1 else len(mask) - 1
        places += [(number, i) for i in range(first, last + 1)]
    return places, np.stack([rows[number][i] for number, i in places])


def mean(scores: Sequence[np.ndarray], sizes: Sequence[int]) -> np.ndarray:
    """The scores (L,) of a whole input from those of its pieces, each counting by its size."""
    found: np.ndarray = np.average(scores, axis=0, weights=sizes)
    return found


def coverage(units: int, dropped: int, pieces: int, strategy: str) -> dict[str, Any]:
    """How much of an input the model saw."""
    whole = pieces == 1 and not dropped
    seen = {"tokens": units, "seen": units - dropped, "windows": pieces}
    return seen | {"strategy": "whole" if whole else strategy}
