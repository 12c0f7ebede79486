"""Answers of tasks as HTML, for notebooks, files and `triarch run --html`.

    answer = triarch.pipeline("ner", model="MODEL")("Ada lived in London.")
    triarch.show(answer, "Ada lived in London.").save("names.html")

Answers stay what tasks give: lists and dicts with the reference's names. From these names the renderer is chosen.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any, TextIO

from triarch import __version__
from triarch.errors import TriarchError
from triarch.files import replacing, write_text
from triarch.pages import CLOSING, document, opening, renderers, stylesheet
from triarch.pages.asked import Asked, is_chat, named, records


class Shown:
    """An answer as HTML. A notebook displays it by itself; `save` writes it as a page of its own."""

    def __init__(self, html: str):
        self.html = html  # without its style

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page, whole or not at all. Raises TriarchError when the file cannot be written."""
        write_text(Path(path), document("triarch: an answer", f"<main>\n{self.html}\n</main>"))

    def _repr_html_(self) -> str:
        palette = stylesheet("palette").replace(":root", ".triarch")
        return f'<div class="triarch"><style>{palette}.triarch {{ {stylesheet("answers")} }}</style>{self.html}</div>'

    def __repr__(self) -> str:
        return f'<an answer as {len(self.html):,} characters of HTML; .save("answer.html") writes a page>'


def show(answer: Any, input: Any = None, **options: Any) -> Shown:
    """An answer of a task, of `generate`, or a list of them, to be looked at.

    `input` and `options` are what the task was called with. They make the picture better: entities and answers are
    marked in their text, and cosines get the names of their sentences. What a picture has no use for is left out.
    """
    colours: dict[str, str] = {}
    pairs = list(_each(answer, input))
    return Shown("\n".join(card(one, Asked(own, options, colours)) for one, own in pairs))


def card(answer: Any, asked: Asked) -> str:
    """One answer in a frame, or the error that stands in its place."""
    return f'<article class="card answer">{_body(answer, asked)}</article>'


def _body(answer: Any, asked: Asked) -> str:
    if isinstance(answer, TriarchError):
        return f'{asked.heading()}<p><b class="cross">{type(answer).__name__}</b> {escape(str(answer))}</p>'
    if isinstance(answer, dict) and answer.keys() == {"result", "coverage"}:
        seen = ", ".join(f"{name} {value}" for name, value in answer["coverage"].items())
        return f'{_body(answer["result"], asked)}<p class="soft">Coverage: {escape(seen)}.</p>'
    return renderers.choose(answer, asked).render(answer, asked)


def _each(answer: Any, input: Any) -> Iterator[tuple[Any, Any]]:
    """The answers of a call that had several inputs, each with its own; an answer to one input is alone."""
    several = isinstance(answer, list) and bool(answer) and not hasattr(answer[0], "shape")
    listed = isinstance(input, list | tuple) and not is_chat(input)
    if several and listed and len(input) == len(answer) and not (_words(input) and named(answer, "start", "word")):
        yield from zip(answer, input, strict=True)
    elif several and all(isinstance(one, list) and records(one) for one in answer):
        yield from ((one, None if listed and len(answer) > 1 else input) for one in answer)
    else:
        yield answer, input


def _words(input: Any) -> bool:
    """Whether an input may be one sentence, split into words."""
    return all(isinstance(word, str) for word in input)


class Page:
    """A page that grows by an answer at a time, so that a file of any length can be shown."""

    def __init__(self, file: TextIO, options: dict[str, Any]):
        self.file, self.options = file, options
        self.colours: dict[str, str] = {}

    def add(self, answer: Any, input: Any) -> None:
        self.file.write(card(answer, Asked(input, self.options, self.colours)) + "\n")


@contextmanager
def page(path: Path, title: str, lede: str, options: dict[str, Any]) -> Iterator[Page]:
    """A page to add answers to; it takes its place at `path` when all are there, and never if something fails."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(opening(f"triarch: {title}"))
        file.write(f'<header><h1>{escape(title)}</h1><p class="lede">{escape(lede)}</p></header>\n')
        file.write('<main class="grid">\n')
        yield Page(file, options)
        file.write(f"</main>\n<footer><p>Made by triarch {__version__}.</p></footer>{CLOSING}")
