"""The right answers of a question, as rows have them."""

from __future__ import annotations

import numbers
from typing import Any

from triarch.errors import InvalidInput, show


def answers_in(value: Any, context: str) -> list[tuple[str, int]]:
    """(text, where it starts in the context) of each answer; no answer is an empty list.

    Takes SQuAD's form, a list of objects, and that of data sets, an object of lists; the start is "answer_start" or
    "start". Raises InvalidInput for an answer that is empty, or not where it is said to be.
    """
    if value is None:
        raise InvalidInput("answers are missing; write a list, empty where there is no answer")
    if isinstance(value, dict):
        texts, starts = value.get("text"), _start(value)
        if not isinstance(texts, list | tuple) or not isinstance(starts, list | tuple) or len(texts) != len(starts):
            raise InvalidInput("answers are no lists text and answer_start of one length; write one start a text")
        pairs = list(zip(texts, starts, strict=True))
    elif isinstance(value, list | tuple) and all(isinstance(answer, dict) for answer in value):
        pairs = [(answer.get("text"), _start(answer)) for answer in value]
    else:
        raise InvalidInput(f"answers are {_shown(value)}; wanted a list of {{text, answer_start}}")
    for text, start in pairs:
        if not isinstance(text, str) or not text.strip() or not _is_count(start):
            raise InvalidInput(f"an answer is {_shown(text)} at {_shown(start)}; wanted a text, and where it starts")
        if not 0 <= start <= len(context) - len(text):
            found = show(f"runs from {start} to {start + len(text)}")
            raise InvalidInput(
                f"the answer {show(text, 40)!r} {found}, outside of the context of {len(context)} characters; mend it"
            )
        if context[start : start + len(text)] != text:
            there = show(context[start : start + len(text)], 40)
            raise InvalidInput(
                f"the answer {show(text, 40)!r} starts at {start}, where the context has {there!r}; mend the start, "
                "which counts characters, not bytes"
            )
    return [(text, int(start)) for text, start in pairs]


def _start(answer: dict[str, Any]) -> Any:
    return answer.get("answer_start", answer.get("start"))


def _is_count(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    return "missing" if value is None else show(repr(value), 40)
