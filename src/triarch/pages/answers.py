"""Answers of tasks as HTML, for notebooks, files and `triarch run --html`.

    answer = triarch.pipeline("ner", model="MODEL")("Ada lived in London.")
    triarch.show(answer, "Ada lived in London.").save("names.html")

Answers are plain lists and dicts with the reference's field names; these names decide which renderer is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

from triarch import __version__
from triarch.errors import TriarchError
from triarch.files import replacing, write_text
from triarch.pages import CLOSING, document, opening, renderers, stylesheet
from triarch.pages.asked import Asked, is_chat, named, records

Add = Callable[[Any, Any], None]  # of an answer and its input


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
    """Display an answer of a task or of `generate`, or a list of answers, in a notebook or as a page.

    Pass what the task was called with as `input` and `options` to see more: entities and answers are then marked in
    their text, and cosines stand beside their sentences. Options that the renderer does not need are ignored.
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
    """Pairs of answer and input. A list of answers is split if its inputs are a list of the same length."""
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


@contextmanager
def page(path: Path, title: str, lede: str, options: dict[str, Any]) -> Iterator[Add]:
    """Write a page answer by answer: yields a function that adds one with its input.

    The file appears when all answers are there; after an error nothing is written. Raises TriarchError when it cannot.
    """
    colours: dict[str, str] = {}
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(opening(f"triarch: {title}"))
        file.write(f'<header><h1>{escape(title)}</h1><p class="lede">{escape(lede)}</p></header>\n')
        file.write('<main class="grid">\n')
        yield lambda answer, input: print(card(answer, Asked(input, options, colours)), file=file)
        file.write(f"</main>\n<footer><p>Made by triarch {__version__}.</p></footer>{CLOSING}")
