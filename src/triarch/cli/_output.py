"""How results are written: for people as rows of a table, for machines as JSON. Notes go to stderr."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from triarch.errors import SOME_FAILED, InvalidInput, TriarchError, show
from triarch.files import replacing

CELLS = 8  # numbers or names of a list that people get to see; --json has them all

json_option = click.option("--json", "as_json", is_flag=True, help="Write one JSON document.")


def say(message: str) -> None:
    """One line on stderr, whatever the message holds. A stderr that is gone is no reason to fail."""
    try:
        print(f"triarch: {show(message, 10_000)}", file=sys.stderr, flush=True)
    except OSError:
        settle(sys.stderr)


def settle(stream: IO[str]) -> None:
    """Let what a broken stream still holds go nowhere, so that the interpreter can end in peace."""
    try:
        stream.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


@contextmanager
def opened(path: Path | None) -> Iterator[IO[str]]:
    """Where results go: stdout, or a file that appears whole or not at all."""
    if path is None:
        yield sys.stdout
    elif path.is_dir():
        raise InvalidInput(f"output {show(path)} is a folder; name a file in it")
    elif path.exists() and not path.is_file():  # a pipe or a device is written to, never replaced
        with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
            yield file
    else:
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
            yield file


def write(
    answers: Iterable[tuple[Any, Any]],
    only: bool,
    form: str | None,
    file: IO[str],
    lines: Callable[[Any, Any], Iterable[str]] | None = None,
) -> int:
    """Answers as they come, and the exit code for those that are errors. The error of an only input is raised.

    `lines` gives what people get to see of an answer and the id of its input: by default the rows of a table.
    """
    documents, code, lines = [], 0, lines or _Rows(only)
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
            for line in lines(id, answer):
                print(line, file=file, flush=True)
    if form == "json":
        print(to_json(documents[0] if only else documents), file=file, flush=True)
    return code


class _Rows:
    """Answers as people get them: aligned rows, each with the id of its input where there are several."""

    def __init__(self, only: bool):
        self.only, self.table = only, Table()

    def __call__(self, id: Any, answer: Any) -> Iterator[str]:
        shown = [row if self.only else {"id": id} | row for row in rows(answer)]
        if not shown:
            say("nothing found" if self.only else f"input {id}: nothing found")
        yield from self.table.lines(shown)


def harmless(text: str) -> str:
    """Text of a model that cannot paint the terminal: control characters, but for line ends and tabs, are escaped."""
    return "".join(c if c in "\n\t" or c.isprintable() else show(c) for c in text)


def to_json(result: Any) -> str:
    """Strict JSON on one line; arrays become lists."""
    try:
        return json.dumps(result, ensure_ascii=False, allow_nan=False, default=lambda array: array.tolist())
    except ValueError:
        raise TriarchError("the answer holds a number that is not finite; try --dtype float32") from None


def rows(result: Any) -> Iterator[dict[str, Any]]:
    """Any result as rows of a table."""
    for part in result if isinstance(result, list) else [result]:
        if isinstance(part, dict):
            yield from _spread(part)
        elif isinstance(part, list) and part and isinstance(part[0], dict | list):
            yield from rows(part)
        else:
            yield {"result": part}


def _spread(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Lists that are columns, such as labels and their scores, become as many rows; coverage becomes columns."""
    if row.keys() == {"result", "coverage"}:
        yield from (part | row["coverage"] for part in rows(row["result"]))
        return
    columns = {name: value for name, value in row.items() if isinstance(value, list)}
    rest = {name: value for name, value in row.items() if name not in columns}
    if len({len(column) for column in columns.values()}) == 1 and len(columns) > 1:
        for cells in zip(*columns.values(), strict=True):
            yield dict(zip(columns, cells, strict=True)) | rest
    else:
        yield row


class Table:
    """Aligned lines, row by row. The header is written again when the columns change; a column never gets narrower.

    A text that is alone in its row is no cell of a table: it is written whole, line by line.
    """

    def __init__(self) -> None:
        self.widths: dict[str, int] = {}

    def lines(self, rows: list[dict[str, Any]]) -> Iterator[str]:
        cells = [{name: _cell(value) for name, value in row.items()} for row in rows]
        for given, row in zip(rows, cells, strict=True):
            alone = next(iter(given.values())) if len(given) == 1 else None
            if isinstance(alone, str):
                yield from (show(line, 10 * len(line)) for line in alone.split("\n"))  # as long as escapes can be
                continue
            if [*row] != [*self.widths]:
                self.widths = {name: max(len(name), *(len(other.get(name, "")) for other in cells)) for name in row}
                if len(row) > 1:
                    yield self._line({name: name for name in row})
            self.widths = {name: max(width, len(row[name])) for name, width in self.widths.items()}
            yield self._line(row)

    def _line(self, row: dict[str, str]) -> str:
        return "  ".join(f"{cell:<{self.widths[name]}}" for name, cell in row.items()).rstrip()


def pairs(facts: dict[str, Any]) -> Iterator[str]:
    """Names and values, one a line."""
    width = max(map(len, facts))
    for name, value in facts.items():
        shown = f"{value:,}" if type(value) is int else _cell(value)
        yield f"{name:<{width}}  {shown or 'none'}"


def _cell(value: Any) -> str:
    if hasattr(value, "tolist"):  # numpy's arrays and numbers
        value = value.tolist()
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{show(name)} {_cell(part)}" for name, part in value.items())
    if isinstance(value, list):
        listed = ", ".join(map(_cell, value[:CELLS]))
        return listed if len(value) <= CELLS else f"{listed}, … {len(value)} in all"
    return show(value)
