"""Measure how fast this machine is."""

from collections.abc import Iterator
from typing import Any

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
    found = []
    for row in _rows(model, device):
        found.append(row)
        say(f"{row['work']} with {row['model']}, {row['budget']:,} tokens: {row['tokens_per_second']:,} tokens/s")
    for line in [to_json(found)] if as_json else Table().lines(found):
        click.echo(line)


def _rows(model: str | None, device: str) -> Iterator[dict[str, Any]]:
    from triarch import checkpoint
    from triarch.engine.sweep import SIZES, made, sweep

    if model is not None:
        yield from sweep(checkpoint.load(model, device=device))
        return
    for name in SIZES:
        yield from sweep(made(name, checkpoint.pick_device(device)))
