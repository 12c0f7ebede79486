"""Go on with a prompt."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from triarch.cli._generating import SETTINGS, given, load
from triarch.cli._inputs import FORMS, INPUTS, MODEL, read
from triarch.cli._output import harmless, opened, say, write
from triarch.errors import InvalidInput, TriarchError
from triarch.generation.settings import make

if TYPE_CHECKING:
    from triarch.family import Network
    from triarch.generation import Generated

PARAMS = [
    INPUTS,
    *MODEL,
    *SETTINGS,
    click.Option(["--chat"], is_flag=True, help="Each input is a message of a user, written by the chat template."),
    click.Option(["--system"], help="With --chat: what the system says first."),
    click.Option(["--stream/--no-stream"], default=None, help="Write words as they come; by default on a terminal."),
    *FORMS,
]


@click.command(params=PARAMS)
@click.pass_context
def command(
    context: click.Context,
    inputs: tuple[str, ...],
    input_format: str | None,
    output: Path | None,
    form: str | None,
    chat: bool,
    system: str | None,
    stream: bool | None,
    **flags: Any,
) -> None:
    """Go on with a prompt, or write from a source: a text, a file of texts, or a pipe, one a line.

    \b
    triarch generate "Once upon a time" -m openai-community/gpt2
    triarch generate "Who was Ada Lovelace?" --chat -m MODEL --do-sample --temperature 0.7 --seed 1
    triarch generate prompts.txt -m MODEL --max-new-tokens 40 --jsonl
    triarch generate "translate English to French: It rains." -m google-t5/t5-small --num-beams 4
    triarch generate "A cat as JSON:" -m MODEL --json-schema cat.json

    What generation_config.json of the checkpoint says holds unless an option says otherwise. The prompt is not
    repeated. With --chat a row of JSON may hold a whole conversation as "messages".
    """
    if system is not None and not chat:
        raise InvalidInput("--system only matters with --chat; give both, or neither")
    settings = given(context, flags)
    found = read(context, inputs, "text", input_format)
    first = list(itertools.islice(found, 2))
    only = len(first) == 1
    if not first:
        say("no input")

    with opened(output) as file:
        model = load(flags, settings, from_source=True)
        prompts = _prompts(model, itertools.chain(first, found), chat, system)
        alone = only and form is None and make(model, settings).rows == 1
        if stream and not alone:
            raise InvalidInput("--stream is for one text as text; leave out other prompts, --json, -n and beams")
        if alone and (file.isatty() if stream is None else stream):
            _stream(model, *prompts, settings, file)
            return
        code = write(_answers(model, prompts, settings), only, form, file, _Lines(only, file))
    context.exit(code)


def _prompts(model: "Network", rows: Iterable[Any], chat: bool, system: str | None) -> Iterator[tuple[Any, Any]]:
    """The id of each input, or its number, and its prompt as `generate` takes it, or an error in its place."""
    for number, row in enumerate(rows):
        id = row.get("id", number) if isinstance(row, dict) else number
        try:
            yield id, _prompt(model, row, chat, system)
        except TriarchError as error:
            yield id, error


def _prompt(model: "Network", row: Any, chat: bool, system: str | None) -> Any:
    from triarch.inputs.text.given import text_of

    if not chat:
        return text_of(row, "text", "prompt")
    spoken = isinstance(row, dict) and "messages" in row
    messages = row["messages"] if spoken else [{"role": "user", "content": text_of(row, "text", "prompt")}]
    if system is not None and isinstance(messages, list):  # what is none is refused below
        messages = [{"role": "system", "content": system}, *messages]
    return model.processor.chat_ids(messages, add_generation_prompt=True)


def _answers(
    model: "Network", prompts: Iterable[tuple[Any, Any]], settings: dict[str, Any]
) -> Iterator[tuple[Any, Any]]:
    """What is known of each sequence, as a dict, or a list of them where several were asked for; or an error."""
    from triarch.generation import generate

    for id, prompt in prompts:
        try:
            if isinstance(prompt, TriarchError):
                raise prompt
            found = generate(model, prompt, **settings)
        except TriarchError as error:
            yield id, error
        else:
            yield id, [*map(_facts, found)] if isinstance(found, list) else _facts(found)


def _facts(found: "Generated") -> dict[str, Any]:
    return {name: value for name, value in asdict(found).items() if value is not None and name != "prompt"}


def _stream(model: "Network", prompt: tuple[Any, Any], settings: dict[str, Any], file: IO[str]) -> None:
    from triarch.generation import stream

    if isinstance(prompt[1], TriarchError):
        raise prompt[1]
    shown = harmless if file.isatty() else str
    for piece in stream(model, prompt[1], **settings):
        print(shown(piece.text), end="", file=file, flush=True)
    print(file=file, flush=True)


class _Lines:
    """Texts as people get them; where there are several, stderr says which is which."""

    def __init__(self, only: bool, file: IO[str]):
        self.only, self.shown = only, harmless if file.isatty() else str

    def __call__(self, id: Any, answer: Any) -> Iterator[str]:
        for number, found in enumerate(answer if isinstance(answer, list) else [answer]):
            if not self.only or isinstance(answer, list):
                say(f"input {id}, sequence {number}:" if isinstance(answer, list) else f"input {id}:")
            yield self.shown(found["text"])
