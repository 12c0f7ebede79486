"""Training: data, an objective and a model -> a better model, its card, and a report to look at.

    triarch.train("reviews.csv", model="bert-base-cased", output="reviews")
    triarch.evaluate("reviews", "more-reviews.csv")

torch is imported when a run begins, so that settings and help come at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from triarch.errors import InvalidInput, show
from triarch.training.settings import Settings, make

if TYPE_CHECKING:
    from triarch.data.rows import Rows

    Given = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | list[dict[str, Any]] | Rows | None

Note = Callable[[str], None]


def train(
    data: Given = None,
    *,
    validation: Given = None,
    test: Given = None,
    resume: bool = False,
    dry_run: bool = False,
    note: Note | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Train a model, and write it to the folder `output`; what was measured comes back.

    `data`, `validation` and `test` are files, folders, or rows: dicts with a value a column. `settings` are those of
    `triarch.training.settings.Settings`. What is learned is read from the data: a text and a label, tokens and tags, a
    question with context and answers, two texts of one meaning, a source and its target, conversations, running text.

    `resume` goes on with the run in the folder, to the bit where it stopped; `dry_run` says what would be done, tries
    one batch, and writes nothing. Raises InvalidInput and its kin before the first step for whatever is wrong with
    settings or data, NotFinite before a step that would have spoiled the weights.
    """
    given = {"data": data, "validation": validation, "test": test}
    rows = {name: value for name, value in given.items() if value is not None and not _is_paths(value)}
    for name, value in rows.items():
        _check_rows(name, value)
    paths = {name: _paths(value) for name, value in given.items() if value is not None and name not in rows}
    return train_by(make(settings | paths), rows, resume=resume, dry_run=dry_run, note=note or _say)


def train_by(
    settings: Settings, rows: dict[str, Any] | None = None, *, resume: bool, dry_run: bool, note: Note
) -> dict[str, Any]:
    """The same by settings, with rows in the place of files by the names of these."""
    from triarch.training import finish, plan, run
    from triarch.training.workplace import held, workplace

    if not settings.output and not dry_run:
        raise InvalidInput("there is no output; name a folder for the model")
    rows = rows or {}
    with workplace(settings.output, dry_run) as folder, held(folder, resume or dry_run) as begun:
        if resume and not begun:
            note("there is no run to go on with: starting at the beginning")
        planned = plan.prepare(
            settings,
            note,
            folder,
            train=rows.get("data"),
            validation=rows.get("validation"),
            test=rows.get("test"),
            trial=dry_run,
        )
        if not dry_run:
            for name, fact in planned.facts.items():
                note(f"{name}: {fact}")
        with run.Run(planned, folder) as running:
            if dry_run:
                return planned.facts | finish.try_one(running)
            running.train()
            return finish.finish(running, folder)


def evaluate(
    model: str | os.PathLike[str],
    data: Given,
    *,
    note: Note | None = None,
    **settings: Any,
) -> dict[str, float]:
    """Loss and metrics of a model on data, without training it.

    `settings` as for `train`, of which those about data, objective and machine matter. Raises InvalidInput, also for a
    model whose head cannot do what the data asks for.
    """
    from triarch.training import finish

    if not _is_paths(data):
        _check_rows("data", data)
    given = make(settings | {"model": os.fspath(model)} | ({"data": _paths(data)} if _is_paths(data) else {}))
    return finish.evaluate(given, None if _is_paths(data) else data, note or _say)


def rows(
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    format: str | None = None,
    columns: Mapping[str, str | int] | None = None,
    objective: str | None = None,
    on_bad_row: str = "refuse",
) -> Rows:
    """What a run reads in files or folders: rows in the columns of the objective that they are for.

    `columns` says which column of the data is which ({ours: theirs}), `objective` what the rows are for; what they do
    not say is told by names and values, and stands in the answer's `.reading`. `train` and `evaluate` take the rows.
    Raises NotFound, UnsafeFile, CorruptFile, and InvalidInput, which names bad rows by file and line.
    """
    from triarch.data.reading import read
    from triarch.objectives import kinds

    return read(data, kinds(), format=format, columns=columns, kind=objective, on_bad_row=on_bad_row)


def _is_paths(value: Any) -> bool:
    if isinstance(value, str | os.PathLike):
        return True
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(one, str | os.PathLike) for one in value)


def _paths(value: Any) -> list[str]:
    return [os.fspath(one) for one in ([value] if isinstance(value, str | os.PathLike) else value)]


def _check_rows(name: str, value: Any) -> None:
    """Raises InvalidInput unless it is a list of rows, or Rows as reading gives them."""
    from triarch.data.rows import Rows

    if not isinstance(value, list | tuple | Rows):
        raise InvalidInput(f"{name} is a {type(value).__name__}, wanted paths, or a list of rows: dicts of columns")


def _say(line: str) -> None:
    if sys.stderr is not None:
        with suppress(OSError, ValueError):  # one that is gone, or closed, is no reason to fail
            print(f"triarch: {show(line, 10_000)}", file=sys.stderr, flush=True)
