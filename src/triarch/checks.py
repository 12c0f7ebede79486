"""Values from outside against the annotations of the dataclass that takes them."""

import sys
from collections.abc import Callable
from functools import cache
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from triarch.errors import InvalidInput, show

# The type of each field, by its name; kept, as some tasks make their options anew for each input
kinds: Callable[[Any], dict[str, Any]] = cache(get_type_hints)


def check_fields(made: Any) -> None:
    """Every field of a dataclass against its annotation. Raises InvalidInput for the first that does not fit."""
    for name, kind in kinds(type(made)).items():
        if get_origin(kind) is not ClassVar:
            check(name, getattr(made, name), kind)


def check(name: str, value: Any, wanted: Any) -> None:
    if not fits(value, wanted):
        raise InvalidInput(f"{name} is {show(repr(value))}, wanted {_spelled(wanted)}")


def fits(value: Any, wanted: Any) -> bool:
    """Whether a value is of an annotated type; a truth value is no number, and NaN none either."""
    if wanted is Any:
        return True
    if get_origin(wanted) is Callable:
        return callable(value)
    if isinstance(wanted, UnionType) or get_origin(wanted) not in (None, Literal, list, dict):
        return any(fits(value, one) for one in get_args(wanted))
    if get_origin(wanted) is Literal:
        return value in get_args(wanted)
    if get_origin(wanted) is list:
        return isinstance(value, list | tuple) and all(fits(one, get_args(wanted)[0]) for one in value)
    if get_origin(wanted) is dict:
        return isinstance(value, dict)
    if wanted is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max  # NaN compares as false
    return type(value) is wanted


def _spelled(wanted: Any) -> str:
    if get_origin(wanted) is Literal:
        return " or ".join(map(repr, get_args(wanted)))
    if get_args(wanted) and get_origin(wanted) not in (list, dict):
        return " or ".join(_spelled(one) for one in get_args(wanted))
    return "nothing" if wanted is NoneType else getattr(wanted, "__name__", str(wanted))
