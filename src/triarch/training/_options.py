"""Options by name, checked against the function that takes them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from triarch.errors import InvalidInput, show
from triarch.suggest import did_you_mean


def pick(what: str, name: str, made: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """The maker of that name. Raises InvalidInput, with the names there are."""
    if not isinstance(name, str) or name not in made:
        raise InvalidInput(f"no {what} {show(name)!r}{did_you_mean(str(name), made)}; there are {', '.join(made)}")
    return made[name]


def check_names(what: str, make: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raises InvalidInput for an option that `make` does not take. Its keyword-only parameters are the options."""
    parameters = inspect.signature(make).parameters.values()
    known = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise InvalidInput(f"{what} has no option {show(option)!r}{did_you_mean(option, known)}; {takes}")


def number(what: str, value: Any, low: float, high: float = math.inf, *, above: bool = False) -> float:
    """`value` as a float of `low` to `high`; `above`: not `low` itself. Raises InvalidInput; nan is outside always."""
    plain = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not plain or not low <= value <= high or (above and value == low):
        least = f"over {low:g}" if above else f"of at least {low:g}"
        most = "" if high == math.inf else f" and at most {high:g}"
        raise InvalidInput(f"{what} is {show(value)}, wanted a number {least}{most}")
    return float(value)
