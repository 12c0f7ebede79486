"""Run one task on texts, files or a pipe."""

import functools
import inspect
import itertools
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from triarch.cli._inputs import FORMS, INPUTS, MODEL, read
from triarch.cli._options import options_of
from triarch.cli._output import opened, say, write

if TYPE_CHECKING:
    from triarch.tasks._base import Task


class Tasks(click.Group):
    """One command for each task."""

    def list_commands(self, context: click.Context) -> list[str]:
        from triarch.tasks import tasks

        return tasks()

    def get_command(self, context: click.Context, name: str) -> click.Command:
        return task_command(name)


@click.group(cls=Tasks, subcommand_metavar="TASK [INPUT]... -m MODEL")
def command() -> None:
    """Run one task on texts, files or a pipe.

    Every task has options of its own; `triarch run TASK --help` lists them.
    """


def task_command(name: str) -> click.Command:
    """The command of a task, its options those of the task. Raises NotFound."""
    from triarch.tasks import task_class

    made = task_class(name)
    summary, _, more = inspect.getdoc(sys.modules[made.__module__]).partition("\n\n")  # type: ignore[union-attr]
    more = more.replace("    triarch run", "\b\ntriarch run")  # keeps click from filling the line
    return click.Command(
        name,
        callback=click.pass_context(functools.partial(_run, name)),
        params=[INPUTS, *options_of(made.OPTIONS), *MODEL, *FORMS],
        short_help=summary,
        help=f"{summary}\n\n{more}\n\n{made.__doc__}",
    )


def _run(
    name: str,
    context: click.Context,
    *,
    inputs: tuple[str, ...],
    model: str,
    revision: str | None,
    device: str,
    dtype: str,
    input_format: str | None,
    output: Path | None,
    form: str | None,
    **options: Any,
) -> None:
    from triarch.tasks import pipeline, task_class

    made = task_class(name)
    given = {key: options[key] for key in options if context.get_parameter_source(key) is not ParameterSource.DEFAULT}
    made.OPTIONS(**given)  # what is wrong here, or with the first inputs, shows before the model is loaded
    found = read(context, inputs, made.field(), input_format, made.INPUT.suffixes)
    first = list(itertools.islice(found, 2))
    only = len(first) == 1
    if not first:
        say("no input")

    with opened(output) as file:
        task = pipeline(name, model, dtype=dtype, device=device, revision=revision)
        answers: Iterable[tuple[Any, Any]]
        if only and form != "jsonl" and task.single(first[0], task.options(given)):
            answers = [(0, task(first[0], **given))]  # what Python gives for it, to the letter
        else:
            answers = _answers(task, itertools.chain(first, found), given)
        code = write(answers, only, form, file)
    context.exit(code)


def _answers(task: "Task", inputs: Iterable[Any], given: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Answers or errors, each with the id that its input brought, else with its number."""
    ids: deque[Any] = deque()  # of inputs that were read and not answered yet

    def noted() -> Iterator[Any]:
        for number, row in enumerate(inputs):
            ids.append(row.get("id", number) if isinstance(row, dict) else number)
            yield row

    for answer in task.stream(noted(), task.options(given)):
        yield ids.popleft(), answer
