"""What a task can be asked for: a dataclass, checked as it is made."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from triarch import limits
from triarch.errors import InvalidInput, show


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every task can be asked for."""

    long: Literal["window", "truncate", "error"] = "window"  # what happens to an input longer than the model
    stride: int | None = None  # tokens that neighbouring windows share; None: the task's own
    max_length: int | None = None  # tokens of one window, special ones included; None: what the model takes
    truncation: bool | Literal["only_first", "only_second", "longest_first"] = False  # the reference's long="truncate"
    padding: bool | str = False  # the reference's; batches are padded as needed and no result depends on it
    batch_size: int | None = None  # at most that many windows at once; None: by a budget of tokens
    coverage: bool = False  # answer {"result": …, "coverage": {tokens, seen, windows, strategy}}

    def __post_init__(self) -> None:
        for name, kind in kinds(type(self)).items():
            check(name, getattr(self, name), kind)
        for name in ("stride", "max_length", "batch_size", "top_k"):
            value = getattr(self, name, None)
            if type(value) is int and not (name != "stride") <= value <= limits.ANSWERS:
                raise InvalidInput(f"{name} is {value}, wanted a count up to {limits.ANSWERS:,}")

    @property
    def strategy(self) -> str:
        return "truncate" if self.truncation else self.long

    def take_over(self, name: str) -> None:
        """Options that the reference takes in a dict go where ours are. For `__post_init__` alone."""
        for key, value in (getattr(self, name) or {}).items():
            if key not in ("truncation", "max_length", "padding"):
                raise InvalidInput(f"{name} has {show(key)!r}, wanted truncation, max_length or padding")
            check(key, value, kinds(type(self))[key])
            object.__setattr__(self, key, value)


# The type of each option, by its name; kept, as some tasks make their options anew for each input
kinds: Callable[[Any], dict[str, Any]] = cache(get_type_hints)


def check(name: str, value: Any, wanted: Any) -> None:
    if not fits(value, wanted):
        raise InvalidInput(f"{name} is {show(repr(value))}, wanted {_spelled(wanted)}")


def fits(value: Any, wanted: Any) -> bool:
    """Whether a value is of an annotated type; a truth value is no number, and NaN none either."""
    if isinstance(wanted, UnionType) or get_origin(wanted) not in (None, Literal, list, dict):
        return any(fits(value, one) for one in get_args(wanted))
    if get_origin(wanted) is Literal:
        return value in get_args(wanted)
    if get_origin(wanted) is list:
        return isinstance(value, list | tuple) and all(fits(one, get_args(wanted)[0]) for one in value)
    if get_origin(wanted) is dict:
        return isinstance(value, dict)
    if wanted is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is wanted


def _spelled(wanted: Any) -> str:
    if get_origin(wanted) is Literal:
        return " or ".join(map(repr, get_args(wanted)))
    if get_args(wanted) and get_origin(wanted) not in (list, dict):
        return " or ".join(_spelled(one) for one in get_args(wanted))
    return "nothing" if wanted is NoneType else getattr(wanted, "__name__", str(wanted))
