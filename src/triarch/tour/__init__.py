"""What a newcomer sees first: real sentences through a real encoder, as tables in the terminal and a page of pictures.

triarch tour --output tour.html
"""

from __future__ import annotations

import time
from importlib.resources import files
from pathlib import Path

from triarch import hub
from triarch.checkpoint import load
from triarch.errors import NotFound
from triarch.files import write_text
from triarch.starters import ENCODER
from triarch.tasks.embedding import Embedding
from triarch.tour import page, terminal
from triarch.tour.findings import Findings, Sentence, find_out
from triarch.tour.lessons import attend


def tour(output: Path, model: str | None = None) -> None:
    """Read, compare, search and group the bundled sentences, ask the starters; print tables, write a page to `output`.

    `model` is the folder or repo id of an encoder; without it, that of the installed package. Starters that are not
    here are left out, which page and terminal say. Raises NotFound when
    there is none, what `load` raises, and TriarchError when the page cannot be written.
    """
    findings = explore(model, bundled_sentences())
    school = attend(terminal.note)
    write_text(output, page.render(findings, school))
    terminal.say(terminal.report(findings, school))
    terminal.say(f"Page: {output.resolve()}")


def explore(model: str | None, sentences: list[Sentence]) -> Findings:
    """Load the model, and find out everything about the sentences that is shown."""
    folder, name = (bundled_model(), "all-MiniLM-L6-v2") if model is None else (model, Path(model).name or model)
    terminal.note(f"loading {name}")
    start = time.perf_counter()
    embed = Embedding(load(folder))
    seconds = time.perf_counter() - start
    return find_out(embed, name, sentences, seconds, terminal.note)


def bundled_model() -> str:
    """The model folder of the installed package, which is found but not imported. Raises NotFound."""
    if (inside := hub.packaged(ENCODER)) is None:
        raise NotFound(f"the tour's model is not installed; {hub.installing(ENCODER)}, or pass `--model FOLDER`")
    return str(inside)


def bundled_sentences() -> list[Sentence]:
    """sentences.txt: text, topic and, for some, a query, between tabs."""
    lines = files(__package__).joinpath("sentences.txt").read_text(encoding="utf-8").splitlines()
    return [Sentence(*line.split("\t")) for line in lines]
