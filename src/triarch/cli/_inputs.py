"""What verbs that read inputs share: which inputs, of which model, in which form."""

import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from triarch.cli._output import say

SUFFIXES = (".txt", ".jsonl", ".json", ".csv", ".tsv")  # what ends in these is meant as a file, even if it is not there


def path(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="file")]


INPUTS = click.Argument(
    ["inputs"],
    nargs=-1,
    metavar="[INPUT]...",
    shell_complete=path,
    help="A text, the name of a file, or - for a pipe, which is also read when there is no INPUT.",
)
MODEL = [
    click.Option(
        ["-m", "--model"],
        required=True,
        envvar="TRIARCH_MODEL",
        show_envvar=True,
        shell_complete=path,
        help="A folder, a repo id, or starter: a small one that comes with triarch.",
    ),
    click.Option(["--revision"], help="Branch, tag or commit of the repo."),
    click.Option(["--device"], default="auto", show_default=True, help="cpu, cuda, cuda:1, …"),
    click.Option(["--dtype"], default="auto", show_default=True, help="float32, float16, bfloat16 or float64."),
    click.Option(
        ["--precision"],
        type=click.Choice(["float32", "bfloat16"]),
        help="The type in which the model's layers multiply; by default that of --dtype.",
    ),
]
FORMS = [
    click.Option(
        ["--input-format"],
        type=click.Choice(["lines", "jsonl", "whole"]),
        help="An input a line, a JSON value a line, or all as one text. By default the file's suffix says.",
    ),
    click.Option(["-o", "--output"], type=Path, shell_complete=path, help="Write to this file, whole or not at all."),
    click.Option(["form", "--json"], flag_value="json", help="One JSON document: the answer, or a list of them."),
    click.Option(["form", "--jsonl"], flag_value="jsonl", help='A line {"id", "result"} or {"id", "error"} an input.'),
]


def read(
    context: click.Context, inputs: tuple[str, ...], name: str, kind: str | None, suffixes: tuple[str, ...] = ()
) -> Iterator[Any]:
    """Rows of all inputs in turn, a pipe's where none is named; in a table of one column, that is `name`.

    A file with one of the `suffixes` is one input, and a folder stands for all of these in it.
    """
    if not inputs and sys.stdin.isatty():
        context.fail("No INPUT: give a text or a file, or pipe lines in.")
    return itertools.chain.from_iterable(_read(each, name, kind, suffixes) for each in inputs or ["-"])


def _read(given: str, name: str, kind: str | None, suffixes: tuple[str, ...]) -> Iterator[Any]:
    """The rows of one INPUT: a text is one, a file or a pipe has many."""
    from triarch.data.inputs import files_in, read_rows, rows_of

    if given.lower().endswith(suffixes):
        yield Path(given)
        return
    if suffixes and os.path.isdir(given):
        yield from files_in(Path(given), suffixes)
        return
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
