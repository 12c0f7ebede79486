"""The learning rate, as a pure function of the step.

A schedule gives the share of the peak rate at which an update is made. Steps count from 0, as in the reference's
schedulers: with a warm-up, the first update has the rate 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from triarch.errors import InvalidInput, show
from triarch.training._options import check_names, number, pick

Schedule = Callable[[int], float]


def schedule(name: str, total_steps: int, warmup: float = 0, **options: Any) -> Schedule:
    """The schedule of that name over `total_steps` updates, after a linear warm-up.

    A length of time, such as `warmup`, is a number of steps, or below 1 a share of all steps.
    Raises InvalidInput for an unknown name or option, and for values that make no schedule.
    """
    make = pick("schedule", name, SCHEDULES)
    check_names(f"schedule {name}", make, options)
    if type(total_steps) is not int or total_steps < 1:
        raise InvalidInput(f"total_steps is {show(total_steps)}, wanted a whole number of at least 1")
    warm = _steps("warmup", warmup, total_steps)
    if warm > total_steps:
        raise InvalidInput(f"warmup of {warm:,} steps is longer than the run of {total_steps:,}; shorten it")
    return make(total_steps, warm, **options)


def constant(total: int, warmup: int) -> Schedule:
    return _warmed(warmup, lambda step: 1.0)


def linear(total: int, warmup: int, *, minimum: float = 0.0) -> Schedule:
    """Down to the share `minimum` of the peak, in a straight line."""
    low = number("minimum", minimum, 0, 1)
    return _warmed(warmup, lambda step: _between(low, _left(step, warmup, total)))


def cosine(total: int, warmup: int, *, minimum: float = 0.0) -> Schedule:
    """Down to the share `minimum` of the peak, along half a wave. Loshchilov and Hutter 2017, arXiv 1608.03983."""
    low = number("minimum", minimum, 0, 1)
    return _warmed(warmup, lambda step: _between(low, _half_wave(_left(step, warmup, total))))


def inverse_sqrt(total: int, warmup: int, *, timescale: float | None = None) -> Schedule:
    """Falls with the root of the step. Vaswani et al. 2017, section 5.3, with the peak at the end of the warm-up.

    After `timescale` steps more than the warm-up has, the rate is at 0.71 of the peak. By default it is the warm-up's
    length, as in the paper, or 10,000 steps where there is no warm-up, as in the reference.
    """
    scale: float = warmup or 10_000
    if timescale is not None:
        scale = number("timescale", timescale, 1)
    return _warmed(warmup, lambda step: math.sqrt(scale / (step - warmup + scale)))


def warmup_stable_decay(
    total: int, warmup: int, *, decay: float = 0.1, shape: str = "cosine", minimum: float = 0.0
) -> Schedule:
    """The peak rate until the last `decay` steps, which fall to the share `minimum` of it.

    Hu et al. 2024, MiniCPM, arXiv 2404.06395, section 4. The shapes are the reference's; "1-sqrt" was found best by
    Hägele et al. 2024, arXiv 2405.18392.
    """
    low = number("minimum", minimum, 0, 1)
    fall = pick("shape", shape, SHAPES)
    start = total - _steps("decay", decay, total)
    if start < warmup:
        raise InvalidInput(f"warmup and decay take {total - start + warmup:,} steps, the run {total:,}; shorten one")
    return _warmed(warmup, lambda step: 1.0 if step < start else _between(low, fall(_left(step, start, total))))


def tri_stage(total: int, warmup: int, *, hold: float = 0.4, initial: float = 0.01, final: float = 0.05) -> Schedule:
    """Up from the share `initial` of the peak, held there, then down exponentially to the share `final`.

    Of fairseq; wav2vec 2.0 is fine-tuned with a warm-up of 0.1 and these values. Baevski et al. 2020,
    arXiv 2006.11477, appendix B.
    """
    first, last = number("initial", initial, 0, 1), number("final", final, 0, 1, above=True)
    start = warmup + _steps("hold", hold, total)
    if start > total:
        raise InvalidInput(f"warmup and hold take {start:,} steps, the run {total:,}; shorten one")

    def rate(step: int) -> float:
        return 1.0 if step < start else last ** (1 - _left(step, start, total))

    return _warmed(warmup, rate, first)


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "inverse-sqrt": inverse_sqrt,
    "warmup-stable-decay": warmup_stable_decay,
    "tri-stage": tri_stage,
}


def _half_wave(left: float) -> float:
    return 0.5 * (1 - math.cos(math.pi * left))


SHAPES: dict[str, Callable[[float], float]] = {  # share of the steps left -> share of the way down that is left
    "linear": lambda left: left,
    "cosine": _half_wave,
    "1-sqrt": lambda left: 1 - math.sqrt(1 - left),
}


def _warmed(warmup: int, after: Schedule, initial: float = 0.0) -> Schedule:
    def rate(step: int) -> float:
        return _between(initial, step / warmup) if step < warmup else after(step)

    return rate


def _between(low: float, share: float) -> float:
    return low + (1 - low) * share


def _left(step: int, start: int, end: int) -> float:
    """The share that is left of the way from one step to another; none beyond its end."""
    return min(1.0, max(0.0, (end - step) / max(1, end - start)))


def _steps(what: str, length: float, total: int) -> int:
    """A length of time in steps, from steps or a share of all. Raises InvalidInput."""
    found = number(what, length, 0)
    if found < 1:
        return math.ceil(found * total)
    if found != int(found):
        raise InvalidInput(f"{what} is {found:g}, wanted a whole number of steps, or a share of all steps below 1")
    return int(found)
