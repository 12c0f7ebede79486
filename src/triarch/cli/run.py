"""Run one task on texts, files or a pipe."""

import functools
import inspect
import itertools
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from triarch.cli._inputs import FORMS, INPUTS, MODEL, path, read
from triarch.cli._options import options_of
from triarch.cli._output import opened, say, write

if TYPE_CHECKING:
    from triarch.pages.answers import Add
    from triarch.tasks._base import Task

HTML = click.Option(["--html"], type=Path, shell_complete=path, help="Also write inputs and answers as an HTML page.")


class Tasks(click.Group):
    """One command for each task."""

    def list_commands(self, context: click.Context) -> list[str]:
        from triarch.tasks import tasks

        return tasks()

    def get_command(self, context: click.Context, name: str) -> click.Command:
        return task_command(name)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of tasks, without importing them."""
        from triarch.tasks import summary, tasks

        with formatter.section("Commands"):
            formatter.write_dl([(name, summary(name)) for name in tasks()])


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
        params=[INPUTS, *options_of(made.OPTIONS), *MODEL, *FORMS, HTML],
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
    precision: str | None,
    input_format: str | None,
    output: Path | None,
    form: str | None,
    html: Path | None,
    **options: Any,
) -> None:
    from triarch.pages import answers as pages
    from triarch.tasks import pipeline, task_class

    made = task_class(name)
    given = {key: options[key] for key in options if context.get_parameter_source(key) is not ParameterSource.DEFAULT}
    made.OPTIONS(**given)  # what is wrong here, or with the first inputs, shows before the model is loaded
    found = read(context, inputs, made.field(), input_format, made.INPUT.suffixes)
    first = list(itertools.islice(found, 2))
    only = len(first) == 1
    if not first:
        say("no input")

    shown = nullcontext() if html is None else pages.page(html, f"triarch run {name}", Path(model).name or model, given)
    with opened(output) as file, shown as add:
        task = pipeline(name, model, dtype=dtype, precision=precision, device=device, revision=revision)
        answers: Iterable[tuple[Any, Any, Any]]
        if only and form != "jsonl" and task.single(first[0], task.options(given)):
            answers = [(0, first[0], task(first[0], **given))]  # what Python gives for it, to the letter
        else:
            answers = _answers(task, itertools.chain(first, found), given)
        code = write(_shown(answers, add), only, form, file)
    context.exit(code)


def _answers(task: "Task", inputs: Iterable[Any], given: dict[str, Any]) -> Iterator[tuple[Any, Any, Any]]:
    """For each input its id (or its number if it has none), the input, and its answer or error."""
    from triarch.tasks._base import progress

    waiting: deque[tuple[Any, Any]] = deque()  # ids and inputs read but not yet answered

    def noted() -> Iterator[Any]:
        for number, row in enumerate(inputs):
            waiting.append((row.get("id", number) if isinstance(row, dict) else number, row))
            yield row

    with progress(inputs) as bar:
        for answer in task.stream(noted(), task.options(given), done=bar.update):
            yield *waiting.popleft(), answer


def _shown(answers: Iterable[tuple[Any, Any, Any]], add: "Add | None") -> Iterator[tuple[Any, Any]]:
    """Ids and answers; each answer is also added to a page if there is one."""
    for id, row, answer in answers:
        if add is not None:
            add(answer, row)
        yield id, answer
