"""Run one task on texts, files or a pipe."""

import functools
import inspect
import itertools
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from triarch.cli._options import options_of
from triarch.cli._output import Table, opened, rows, say, to_json
from triarch.errors import SOME_FAILED, TriarchError

if TYPE_CHECKING:
    from triarch.tasks._base import Task

SUFFIXES = (".txt", ".jsonl", ".json", ".csv", ".tsv")  # what ends in these is meant as a file, even if it is not there


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
        params=[*COMMON[:1], *options_of(made.OPTIONS), *COMMON[1:]],
        short_help=summary,
        help=f"{summary}\n\n{more}\n\n{made.__doc__}",
    )


def _path(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="file")]


COMMON = [
    click.Argument(
        ["inputs"],
        nargs=-1,
        metavar="[INPUT]...",
        shell_complete=_path,
        help="A text, the name of a file, or - for a pipe, which is also read when there is no INPUT.",
    ),
    click.Option(
        ["-m", "--model"],
        required=True,
        envvar="TRIARCH_MODEL",
        show_envvar=True,
        shell_complete=_path,
        help="A folder, a repo id, or starter: a small one that comes with triarch.",
    ),
    click.Option(["--revision"], help="Branch, tag or commit of the repo."),
    click.Option(["--device"], default="auto", show_default=True, help="cpu, cuda, cuda:1, …"),
    click.Option(["--dtype"], default="auto", show_default=True, help="float32, float16, bfloat16 or float64."),
    click.Option(
        ["--input-format"],
        type=click.Choice(["lines", "jsonl", "whole"]),
        help="An input a line, a JSON value a line, or all as one text. By default the file's suffix says.",
    ),
    click.Option(["-o", "--output"], type=Path, shell_complete=_path, help="Write to this file, whole or not at all."),
    click.Option(["form", "--json"], flag_value="json", help="One JSON document: the answer, or a list of them."),
    click.Option(["form", "--jsonl"], flag_value="jsonl", help='A line {"id", "result"} or {"id", "error"} an input.'),
]


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
    if not inputs and sys.stdin.isatty():
        context.fail("No INPUT: give a text or a file, or pipe lines in.")
    found: Iterator[Any] = itertools.chain.from_iterable(
        _read(each, made.INPUT, input_format) for each in inputs or ["-"]
    )

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
        code = _write(answers, only, form, file)
    context.exit(code)


def _write(answers: Iterable[tuple[Any, Any]], only: bool, form: str | None, file: IO[str]) -> int:
    """Answers as they come, and the exit code for those that are errors. The error of an only input is raised."""
    documents, table, code = [], Table(), 0
    for id, answer in answers:
        outcome = {"result": answer}
        failed = isinstance(answer, TriarchError)
        if failed:
            if only and form != "jsonl":
                raise answer
            code = answer.exit_code if only else SOME_FAILED
            outcome = {"error": {"type": type(answer).__name__, "message": str(answer)}}
        if form == "jsonl":
            print(to_json({"id": id} | outcome), file=file, flush=True)
        elif form == "json":
            documents.append(outcome if failed else answer)
        elif failed:
            say(f"input {id}: {answer}")
        else:
            shown = [row if only else {"id": id} | row for row in rows(answer)]
            if not shown:
                say("nothing found" if only else f"input {id}: nothing found")
            for line in table.lines(shown):
                print(line, file=file, flush=True)
    if form == "json":
        print(to_json(documents[0] if only else documents), file=file, flush=True)
    return code


def _read(given: str, name: str, kind: str | None) -> Iterator[Any]:
    """The rows of one INPUT: a text is one, a file or a pipe has many."""
    from triarch.inputs.rows import read_rows, rows_of

    if given == "-":
        yield from rows_of(sys.stdin.buffer, "stdin", name, kind or "lines")
    elif _is_file(given):
        say(f"reading {given}")
        yield from read_rows(Path(given), name, kind)
    else:
        yield given


def _is_file(given: str) -> bool:
    named = given.lower().endswith(SUFFIXES) and not any(map(str.isspace, given))
    return named or os.path.exists(given)


def _answers(task: "Task", inputs: Iterable[Any], given: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Answers or errors, each with the id that its input brought, else with its number."""
    ids: deque[Any] = deque()  # of inputs that were read and not answered yet

    def noted() -> Iterator[Any]:
        for number, row in enumerate(inputs):
            ids.append(row.get("id", number) if isinstance(row, dict) else number)
            yield row

    for answer in task.stream(noted(), task.options(given)):
        yield ids.popleft(), answer
