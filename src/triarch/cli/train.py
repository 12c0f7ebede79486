"""Train a model from a recipe, or from files and flags."""

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from triarch.cli._options import options_of, value_of
from triarch.cli._output import pairs, say, to_json
from triarch.errors import InvalidInput, show
from triarch.training.settings import SUFFIXES, Settings, make, read_recipe

TABLES = {  # settings that are tables, each with its flag and what an entry of it says
    "columns": ("--column", "OURS=THEIRS", "Column of the data that holds the text, label, tokens, tags, …"),
    "options": ("--option", "NAME=VALUE", "An option of the objective, such as share=0.15 of mlm."),
    "config": ("--config", "NAME=VALUE", "A size of a model that starts from nothing, such as num_layers=4."),
    "optimizer_options": ("--optimizer-option", "NAME=VALUE", "An option of the optimizer, such as beta2=0.98."),
    "about": ("--about", "NAME=TEXT", "For the card: name, language, data, data_licence, data_source, base_licence."),
    "schedule_options": ("--schedule-option", "NAME=VALUE", "An option of the schedule, such as minimum=0.1."),
}


def _entries(_context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    found = {}
    for entry in given:
        name, equals, value = entry.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"found {entry!r}, wanted {option.metavar}.")
        found[name] = value if option.name in ("columns", "about") else value_of(value)
    return found


PARAMS = [
    click.Argument(["given"], nargs=-1, metavar="[RECIPE|DATA]..."),
    *(option for option in options_of(Settings) if option.name not in ("data", "model", "output")),
    click.Option(["-m", "--model"], envvar="TRIARCH_MODEL", show_envvar=True, help="Folder or repo id to start from."),
    click.Option(["-o", "--output"], help="Folder for the model, its card, the report, the log and the checkpoints."),
    *(
        click.Option([name, flag], multiple=True, metavar=metavar, callback=_entries, help=f"{help}  [repeatable]")
        for name, (flag, metavar, help) in TABLES.items()
    ),
    click.Option(["--resume"], is_flag=True, help="Go on with the run in the output folder."),
    click.Option(["--dry-run"], is_flag=True, help="Say what would be done, try one batch, and stop."),
    click.Option(["--json", "as_json"], is_flag=True, help="Write the outcome as one JSON document."),
]


@click.command(params=PARAMS)
@click.pass_context
def command(
    context: click.Context, given: tuple[str, ...], resume: bool, dry_run: bool, as_json: bool, **flags: Any
) -> None:
    """Train a model from a recipe, or from files and flags.

    \b
    triarch train reviews.csv -m bert-base-cased -o reviews
    triarch train recipe.toml --lr 3e-5 -o other
    triarch train books/ --family bert --tokenizer vocabulary --objective bert -o small-bert
    triarch train books/ --family gpt2 --tokenizer vocabulary --objective clm -o small-gpt2
    triarch train summaries.jsonl -m google-t5/t5-small --option "prefix=summarize: " -o short

    What is learned, with which head and which labels, is read from the data and printed before the start. Flags go
    before the recipe's values.
    """
    from triarch.training import train_by

    outcome = train_by(settings_of(context, given, flags), resume=resume, dry_run=dry_run, note=say)
    for line in [to_json(outcome)] if as_json else pairs(outcome):
        click.echo(line)


def settings_of(context: click.Context, given: tuple[str, ...], flags: dict[str, Any]) -> Settings:
    """The recipe's settings, and what the command line says on top of them."""
    recipes = [name for name in given if name.lower().endswith(SUFFIXES)]
    if len(recipes) > 1:
        raise InvalidInput(f"{len(recipes)} recipes ({show(', '.join(recipes))}), wanted one; name the others as data")
    chosen = read_recipe(Path(recipes[0])) if recipes else {}
    if data := [name for name in given if name not in recipes]:
        chosen["data"] = data
    for name, value in flags.items():
        source = context.get_parameter_source(name)
        if source is ParameterSource.ENVIRONMENT:  # weaker than the recipe
            if "family" not in chosen:
                chosen.setdefault(name, value)
        elif name in TABLES:
            held = chosen.setdefault(name, {})
            if isinstance(held, dict):  # if not, the settings say so
                chosen[name] = held | value
        elif source is not ParameterSource.DEFAULT:
            chosen[name] = value
    return make(chosen)
