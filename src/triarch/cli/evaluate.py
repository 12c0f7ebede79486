"""Measure a model on data, without training it."""

from typing import Any

import click
from click.core import ParameterSource

from triarch.cli._output import pairs, say, to_json
from triarch.cli.train import PARAMS

SHARED = (  # the settings of training that say something about measuring
    *("objective", "format", "columns", "options", "on_bad_row"),
    *("micro_tokens", "precision", "device", "seed"),
)


@click.command(
    params=[
        click.Argument(["data"], nargs=-1, required=True, metavar="DATA..."),
        click.Option(
            ["-m", "--model"], required=True, envvar="TRIARCH_MODEL", show_envvar=True, help="A folder or a repo id."
        ),
        *(param for param in PARAMS if param.name in SHARED),
        click.Option(["--json", "as_json"], is_flag=True, help="Write one JSON document."),
    ]
)
@click.pass_context
def command(context: click.Context, data: tuple[str, ...], model: str, as_json: bool, **flags: Any) -> None:
    """Measure a model on data, without training it.

    \b
    triarch evaluate more-reviews.csv -m reviews
    triarch evaluate held-out/ -m small-bert --objective mlm

    Loss and metrics are those of the objective that the data says, or that is named.
    """
    from triarch.training import evaluate
    from triarch.training.log import finite

    given = {
        name: value
        for name, value in flags.items()
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    found = finite(evaluate(model, list(data), note=say, **given))
    for line in [to_json(found)] if as_json else pairs(found):
        click.echo(line)
