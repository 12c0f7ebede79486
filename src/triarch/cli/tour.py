"""Explore bundled sentences with an encoder, ask the starters, and write a web page."""

from pathlib import Path

import click


@click.command()
@click.option("-o", "--output", type=Path, default="tour.html", show_default=True, help="The page to write.")
@click.option(
    "-m",
    "--model",
    envvar="TRIARCH_MODEL",
    show_envvar=True,
    help="The encoder: a folder or a repo id, for the small one.",
)
def command(output: Path, model: str | None) -> None:
    """Explore bundled sentences with an encoder, ask the starters, and write a web page."""
    from triarch.tour import tour

    tour(output, model)
