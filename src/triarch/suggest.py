"""The nearest name to a mistyped one."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A clause to put into an error, or nothing when no known name is near."""
    near = get_close_matches(word[:100], list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
