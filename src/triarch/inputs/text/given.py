"""Texts as users give them: strings, or rows with a text under a name."""

from __future__ import annotations

from typing import Any

from triarch.errors import InvalidInput, show


def text_of(given: Any, *names: str) -> str:
    """The text under the first of `names` that a row has, or the row itself. Raises InvalidInput."""
    if isinstance(given, dict):
        name = next((name for name in names if given.get(name) is not None), None)
        if name is None:
            raise InvalidInput(f"row has {', '.join(map(show, given)) or 'nothing'}, wanted {' or '.join(names)}")
        given = given[name]
    if not isinstance(given, str):
        raise InvalidInput(f"{names[0]} is {type(given).__name__}, wanted text")
    return given


def pair_of(given: Any, default: str | None) -> tuple[str, str | None]:
    """A text and its pair: the row's own, or the one of all rows."""
    pair = given.get("text_pair", default) if isinstance(given, dict) else default
    return text_of(given, "text"), text_of(pair, "text_pair") if pair else None  # an empty pair is none, as ever
