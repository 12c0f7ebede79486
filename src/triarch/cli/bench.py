"""Measure how fast this machine is."""

import itertools

import click

from triarch.cli._inputs import path
from triarch.cli._output import Table, json_option, say, to_json


@click.command()
@click.option("--budgets", is_flag=True, help="Tokens worked on at once: the table that the defaults were chosen by.")
@click.option("-m", "--model", shell_complete=path, help="A folder or a repo id; by default random models.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, …")
@json_option
@click.pass_context
def command(context: click.Context, budgets: bool, model: str | None, device: str, as_json: bool) -> None:
    """Measure how fast this machine is.

    \b
    triarch bench --budgets
    triarch bench --budgets -m google-bert/bert-base-cased --json

    Without a model it takes about a minute. The machine should have nothing else to do.
    """
    if not budgets:
        context.fail("Nothing to measure: give --budgets.")
    from triarch import checkpoint
    from triarch.engine.sweep import SIZES, made, sweep

    place, found = checkpoint.pick_device(device), []
    models = (made(name, place) for name in SIZES) if model is None else [checkpoint.load(model, device=place)]
    for row in itertools.chain.from_iterable(map(sweep, models)):
        found.append(row)
        say(f"{row['work']} with {row['model']}, {row['budget']:,} tokens: {row['tokens_per_second']:,} tokens/s")
    for line in [to_json(found)] if as_json else Table().lines(found):
        click.echo(line)
