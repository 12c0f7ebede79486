"""What a task can be asked for: a dataclass, checked as it is made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from triarch import limits
from triarch.checks import check, check_fields, kinds
from triarch.errors import InvalidInput, show
from triarch.inputs.fit import Fit, Strategy


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What every task can be asked for."""

    padding: bool | str = False  # the reference's; batches are padded as needed and no result depends on it
    batch_size: int | None = None  # at most that many windows at once; None: by a budget of tokens
    coverage: bool = False  # answer {"result": …, "coverage": {tokens, seen, windows, strategy}}

    def __post_init__(self) -> None:
        check_fields(self)
        self.check_counts("batch_size")

    @property
    def strategy(self) -> Strategy:
        """What happens to an input longer or larger than the model."""
        return "window"

    def fit(self, usual: Fit) -> Fit:
        """A task's usual rule with what was asked for."""
        return usual

    def check_counts(self, *names: str) -> None:
        """Raises InvalidInput for those that are out of bounds. For `__post_init__` alone."""
        for name in names:
            value = getattr(self, name, None)
            if type(value) is int and not (name != "stride") <= value <= limits.ANSWERS:
                raise InvalidInput(f"{name} is {value}, wanted a count up to {limits.ANSWERS:,}")


@dataclass(frozen=True, kw_only=True)
class Options(Shared):
    """What every task on windows can be asked for."""

    long: Strategy = "window"  # what happens to an input longer than the model
    stride: int | None = None  # tokens that neighbouring windows share; None: the task's own
    max_length: int | None = None  # tokens of one window, special ones included; None: what the model takes
    truncation: bool | Literal["only_first", "only_second", "longest_first"] = False  # the reference's long="truncate"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_counts("stride", "max_length", "top_k")

    @property
    def strategy(self) -> Strategy:
        return "truncate" if self.truncation else self.long

    def fit(self, usual: Fit) -> Fit:
        sides = {"only_first": "first", "only_second": "second", "longest_first": "auto"}
        side = sides.get(str(self.truncation), usual.side)
        return replace(usual, strategy=self.strategy, most=self.max_length, stride=self.stride, side=side)

    def take_over(self, name: str) -> None:
        """Options that the reference takes in a dict go where ours are. For `__post_init__` alone."""
        for key, value in (getattr(self, name) or {}).items():
            if key not in ("truncation", "max_length", "padding"):
                raise InvalidInput(f"{name} has {show(key)!r}, wanted truncation, max_length or padding")
            check(key, value, kinds(type(self))[key])
            object.__setattr__(self, key, value)
