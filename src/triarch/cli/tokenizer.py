"""Train a tokenizer, or turn text into ids and back."""

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from triarch.cli._inputs import path, read
from triarch.cli._output import opened, say, to_json, write
from triarch.errors import SOME_FAILED, InvalidInput, TriarchError, Unsupported, show
from triarch.files import parse_json

if TYPE_CHECKING:
    from triarch.inputs.text.processor import TextProcessor


@click.group()
def command() -> None:
    """Train a tokenizer, or turn text into ids and back.

    \b
    triarch tokenizer train corpus.txt --kind wordpiece --family bert --vocab-size 8000 -o FOLDER
    triarch tokenizer encode "some text" -m FOLDER
    triarch tokenizer decode 2 731 94 3 -m FOLDER
    """


_model = click.option(
    "-m",
    "--model",
    required=True,
    envvar="TRIARCH_MODEL",
    show_envvar=True,
    shell_complete=path,
    help="A folder or a repo id; one with a tokenizer and nothing else will do.",
)
_family = click.option("--family", help="The family, for a bare vocabulary without config.json.")
_revision = click.option("--revision", help="Branch, tag or commit of the repo.")
_output = click.option(
    "-o",
    "--output",
    type=Path,
    shell_complete=path,
    help="Write to this file, whole or not at all.",
)
_json = click.option("form", "--json", flag_value="json", help="One JSON document: the result, or a list of them.")
_jsonl = click.option(
    "form", "--jsonl", flag_value="jsonl", help='A line {"id", "result"} or {"id", "error"} an input.'
)
_format = click.option(
    "--input-format",
    type=click.Choice(["lines", "jsonl", "whole"]),
    help="A text a line, a JSON value a line, or all as one text. By default the file's suffix says.",
)


@command.command()
@click.argument("files", nargs=-1, required=True, shell_complete=path)
@click.option("--kind", default="wordpiece", show_default=True, help="wordpiece, bpe (of bytes), unigram, characters.")
@click.option("--family", default="bert", show_default=True, help="Whose special tokens, and their places, it takes.")
@click.option("--vocab-size", type=int, required=True, help="Entries at most, special tokens included.")
@click.option("--lowercase/--no-lowercase", default=None, help="By default as the family for wordpiece, else not.")
@click.option("--min-frequency", type=int, help="Join pairs seen that often; wordpiece and bpe.  [default: 2]")
@click.option("--max-characters", type=int, help="Know only that many characters, the most frequent; not for bpe.")
@click.option("--column", default="text", show_default=True, help="Of a table, or of objects, the one with the text.")
@_format
@click.option("-o", "--output", type=Path, required=True, shell_complete=path, help="The folder to write.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON document.")
def train(
    files: tuple[str, ...],
    kind: str,
    family: str,
    vocab_size: int,
    lowercase: bool | None,
    min_frequency: int | None,
    max_characters: int | None,
    column: str,
    input_format: str | None,
    output: Path,
    as_json: bool,
) -> None:
    """Train a tokenizer on texts: FILES with a text a line, tables, JSON, or - for a pipe."""
    from tqdm import tqdm

    from triarch import models
    from triarch.inputs.text.format import TextFormat
    from triarch.inputs.text.train_vocabulary import save_vocabulary, train_vocabulary

    text_format = models.family(family).reads
    if not isinstance(text_format, TextFormat):
        raise Unsupported(f"{family} reads no text; choose another family")
    seen = itertools.count()
    texts = (text for text, _ in zip(_texts(files, column, input_format), seen, strict=False))
    processor = train_vocabulary(
        tqdm(texts, delay=1.0, disable=None, leave=False, unit=" texts"),
        kind,
        vocab_size,
        text_format,
        lowercase=lowercase,
        min_frequency=min_frequency,
        max_characters=max_characters,
    )
    save_vocabulary(processor, output)
    if (found := processor.vocab_size) < vocab_size:
        say(f"the texts gave {found:,} entries, fewer than the {vocab_size:,} asked for")
    count = next(seen)
    facts = {"folder": str(output), "kind": kind, "family": family, "entries": found, "texts": count}
    click.echo(to_json(facts) if as_json else f"{output}: {found:,} entries from {count:,} texts")


@command.command()
@click.argument("inputs", nargs=-1, metavar="[TEXT|FILE|-]...", shell_complete=path)
@_model
@_family
@_revision
@click.option("--special-tokens/--no-special-tokens", default=True, help="Put the model's around each text.")
@click.option("--literal", is_flag=True, help="Take special tokens that a text spells for plain text.")
@_format
@_output
@_json
@_jsonl
@click.pass_context
def encode(
    context: click.Context,
    inputs: tuple[str, ...],
    model: str,
    family: str | None,
    revision: str | None,
    special_tokens: bool,
    literal: bool,
    input_format: str | None,
    output: Path | None,
    form: str | None,
) -> None:
    """Texts to ids, tokens, and where each token lies in the text: characters from and to."""
    rows = read(context, inputs, "text", input_format)
    processor = _load(model, family, revision)

    def encoded(row: Any) -> Any:
        found = processor.encode(_text(row, "text"), special_tokens=special_tokens, parse_special=not literal)
        if form:
            return {"ids": found.ids, "tokens": found.tokens, "offsets": found.offsets}
        tokens = zip(found.tokens, found.ids, found.offsets, strict=True)
        return [{"token": token, "token_id": id, "start": start, "end": end} for token, id, (start, end) in tokens]

    context.exit(_write_all(rows, encoded, form, output))


@command.command()
@click.argument("ids", nargs=-1, metavar="[ID]...|-")
@_model
@_family
@_revision
@click.option("--skip-special-tokens", is_flag=True, help="Leave the model's own tokens out.")
@_output
@_json
@_jsonl
@click.pass_context
def decode(
    context: click.Context,
    ids: tuple[str, ...],
    model: str,
    family: str | None,
    revision: str | None,
    skip_special_tokens: bool,
    output: Path | None,
    form: str | None,
) -> None:
    """Ids to text: of the command line, or those of each line of a pipe, with spaces or as JSON."""
    rows = read(context, (), "text", None) if ids in ((), ("-",)) else iter([" ".join(ids)])
    processor = _load(model, family, revision)

    def decoded(row: Any) -> str:
        return processor.decode(_ids(row), skip_special_tokens)

    if form:
        context.exit(_write_all(rows, decoded, form, output))
    code = 0
    with opened(output) as file:  # the texts as they are, not a table of them
        for number, answer in enumerate(_answers(rows, decoded)):
            if isinstance(answer, TriarchError):
                if len(ids) > 1:
                    raise answer
                say(f"input {number}: {answer}")
                code = SOME_FAILED
            else:
                print(answer, file=file, flush=True)
    context.exit(code)


def _load(model: str, family: str | None, revision: str | None) -> "TextProcessor":
    from triarch.checkpoint import load_tokenizer

    return load_tokenizer(model, family_name=family, revision=revision)


def _answers(rows: Iterable[Any], answer: Callable[[Any], Any]) -> Iterator[Any]:
    """The answer to each row as it comes, or its error."""
    for row in rows:
        try:
            yield row if isinstance(row, TriarchError) else answer(row)
        except TriarchError as error:
            yield error


def _write_all(rows: Iterator[Any], answer: Callable[[Any], Any], form: str | None, output: Path | None) -> int:
    """Write the answer to each row, under its number; returns the exit code."""
    first = list(itertools.islice(rows, 2))
    if not first:
        say("no input")
    with opened(output) as file:
        answers = enumerate(_answers(itertools.chain(first, rows), answer))
        return write(answers, len(first) == 1, form, file)


def _texts(files: Iterable[str], column: str, kind: str | None) -> Iterator[str]:
    """The texts of all files. A row that cannot be read ends it: a vocabulary is of all texts or of none."""
    from triarch.data.inputs import read_rows, rows_of

    for name in files:
        found = rows_of(sys.stdin.buffer, "stdin", column, kind or "lines") if name == "-" else None
        for row in found or read_rows(Path(name), column, kind):
            if isinstance(row, TriarchError):
                raise row
            yield _text(row, column)


def _text(row: Any, column: str) -> str:
    text = row.get(column) if isinstance(row, dict) else row
    if not isinstance(text, str):
        had = f"row has {', '.join(map(show, row)) or 'nothing'}" if isinstance(row, dict) else show(repr(row))
        raise InvalidInput(f"{had}, wanted text" + (f" under {column!r}" if isinstance(row, dict) else ""))
    return text


def _ids(row: Any) -> list[int]:
    """The ids of a line: numbers with spaces between, a JSON list, or a line of `encode --jsonl`."""
    given = row
    if isinstance(row, str):
        try:
            given = parse_json(row.encode(), "line") if row.lstrip()[:1] in ("[", "{") else [*map(int, row.split())]
        except ValueError:
            raise InvalidInput(f"{show(row)!r} is not a row of ids, wanted whole numbers with spaces between") from None
    while isinstance(given, dict):
        given = given.get("ids", given.get("result"))
    if not isinstance(given, list):
        raise InvalidInput(f"{show(row)!r} is not a row of ids, wanted whole numbers, or a list of them")
    return given
