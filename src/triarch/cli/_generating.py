"""The options of generating, which `generate` and `chat` share."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from triarch import limits
from triarch.cli._inputs import path
from triarch.cli._options import options_of
from triarch.errors import InvalidInput, show
from triarch.generation.settings import Settings

if TYPE_CHECKING:
    from triarch.family import Network


def _schema(_context: click.Context, _option: click.Parameter, given: str | None) -> Any:
    """A schema, or true for any object, as it stands, and the text of a file otherwise."""
    if given is None or given.lstrip().startswith("{"):
        return given
    if given == "true":
        return True
    try:
        with Path(given).open("rb") as file:
            data = file.read(limits.JSON_BYTES + 1)
    except OSError as error:
        raise click.BadParameter(f"no JSON and no file to read: {show(given)} ({error.strerror}).") from None
    from triarch.data.inputs import decoded

    return decoded(data, given, limits.JSON_BYTES)


def _biases(_context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[int, float]:
    try:
        return {int(id): float(bias) for id, _, bias in (entry.partition("=") for entry in given)}
    except ValueError:
        raise click.BadParameter(f"found {show(', '.join(given))}, wanted {option.metavar}.") from None


WRITTEN = {"json_schema", "negative_prompt", "num_return_sequences"}  # by hand, below
SETTINGS = [
    click.Option(["num_return_sequences", "-n", "--num-return-sequences"], type=int, help="Sequences of each prompt."),
    *(option for option in options_of(Settings) if option.name not in WRITTEN),
    click.Option(
        ["--json-schema"], metavar="FILE|TEXT", callback=_schema, shell_complete=path, help="JSON of this schema alone."
    ),
    click.Option(["--negative-prompt"], help="What guidance_scale leans away from."),
    click.Option(
        ["--logit-bias"],
        multiple=True,
        metavar="ID=BIAS",
        callback=_biases,
        help="Added to the score of a token.  [repeatable]",
    ),
    click.Option(["--assistant-model"], shell_complete=path, help="A smaller model of the same vocabulary, to guess."),
]


def given(context: click.Context, flags: dict[str, Any]) -> dict[str, Any]:
    """The settings that the command line names. Raises InvalidInput for those out of bounds, without a model."""
    names = {option.name for option in SETTINGS}
    asked = {
        name: value
        for name, value in flags.items()
        if name in names and context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    Settings(**{name: value for name, value in asked.items() if name != "assistant_model"})
    return asked


def load(flags: dict[str, Any], settings: dict[str, Any], *, from_source: bool) -> "Network":
    """The model, one that writes from a source only where that is asked for; and into the settings the one that guesses
    for it."""
    from triarch import starters
    from triarch.tasks._generating import Generating
    from triarch.tasks.text_generation import TextGeneration

    task = Generating if from_source else TextGeneration

    def loaded(name: str, revision: str | None) -> "Network":
        folder = starters.resolve("text-generation", TextGeneration.STARTERS, name)
        chosen = {name: flags[name] for name in ("dtype", "precision", "device")}
        return task.load(folder, revision=revision, **chosen)

    model = loaded(flags["model"], flags["revision"])
    if "assistant_model" in settings:
        settings["assistant_model"] = loaded(settings["assistant_model"], None)
    if model.processor is None:
        raise InvalidInput(f"{show(flags['model'])} has no tokenizer, so it neither reads nor writes text")
    return model
