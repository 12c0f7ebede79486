"""The input and options that an answer belongs to. A renderer uses what is known of them; all may be missing."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from triarch.errors import show
from triarch.pages import group

SHORT = 200  # characters of an input that stands above its answer as a heading


@dataclass(frozen=True)
class Asked:
    """One input, and the options of the call."""

    input: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)
    colours: dict[str, str] = field(default_factory=dict)  # label -> colour class, shared by all answers of a page

    def get(self, name: str) -> Any:
        """The field of that name if the input is a row, else the option of that name, else None."""
        row = self.input if isinstance(self.input, Mapping) else {}
        return self.options.get(name) if row.get(name) is None else row[name]

    @property
    def text(self) -> str | None:
        """The input as one text: a text itself, the text field of a row, or a list of words joined; None for others."""
        given = self.input
        if isinstance(given, Mapping):
            texts = [value for name, value in given.items() if isinstance(value, str) and name != "id"]
            given = given.get("text", given.get("words", texts[0] if texts else None))
        if isinstance(given, list | tuple) and given and all(isinstance(word, str) for word in given):
            given = (self.get("delimiter") or " ").join(given)
        return given if isinstance(given, str) else None

    def colour(self, label: str) -> str:
        """The colour class of a label; a new label gets the next class."""
        return self.colours.setdefault(label, group(len(self.colours)))

    def heading(self) -> str:
        """HTML of the input, to stand above its answer."""
        if self.input is None:
            return ""
        if is_chat(self.input):
            return chat(self.input)
        texts = [text for text in (self.text, self.get("text_pair")) if isinstance(text, str)]
        return "".join(map(_quoted, texts)) or f'<p class="query">{escape(_described(self.input))}</p>'


def chat(messages: Any) -> str:
    """HTML of a conversation, one paragraph per message."""
    said = ((str(one.get("role", "")), one.get("content")) for one in messages)
    return "".join(f'<p class="written"><b>{escape(role)}</b> {escape(str(content))}</p>' for role, content in said)


def is_chat(given: Any) -> bool:
    """Whether it is a list of messages."""
    listed = isinstance(given, list | tuple) and bool(given)
    return listed and all(isinstance(message, Mapping) and "role" in message for message in given)


def records(answer: Any) -> list[dict[str, Any]]:
    """The answer as a list of dicts; empty if it is neither a dict (or dataclass) nor a list of them."""
    listed = answer if isinstance(answer, list | tuple) else [answer]
    made = [dataclasses.asdict(one) if dataclasses.is_dataclass(one) else one for one in listed]  # type: ignore[arg-type]
    return made if made and all(isinstance(one, dict) for one in made) else []


def named(answer: Any, *names: str) -> int:
    """The number of `names` if every record of the answer has all of them, else 0."""
    found = records(answer)
    return len(names) if found and all({*names} <= one.keys() for one in found) else 0


def _quoted(text: str) -> str:
    return f'<p class="query">“{escape(text)}”</p>' if len(text) <= SHORT else f'<p class="passage">{escape(text)}</p>'


def _described(given: Any) -> str:
    """An input other than text in a few words: a file by its name, bytes by their number, an array by its shape."""
    if isinstance(given, os.PathLike):
        return show(os.path.basename(os.fspath(given)))
    if isinstance(given, bytes):
        return f"{len(given):,} bytes"
    shape = getattr(given, "shape", None)
    return show(repr(given)) if shape is None else f"{type(given).__name__} of {' × '.join(map(str, shape))}"
