"""List the tasks, the families of models, or their heads."""

import inspect
import sys
from typing import TYPE_CHECKING, Any

import click

from triarch.cli._output import Table, json_option, to_json

if TYPE_CHECKING:
    from triarch.kinds import Medium


@click.command()
@click.argument("what", type=click.Choice(["tasks", "families", "heads"]), default="tasks")
@json_option
def command(what: str, as_json: bool) -> None:
    """List the tasks, the families of models, or their heads.

    A family is what config.json calls model_type, and a head what it calls architectures. A starter is the model that
    `triarch run TASK -m starter` takes; ner has one of its own.
    """
    rows = {"tasks": _tasks, "families": _families, "heads": _heads}[what]()
    for line in [to_json(rows)] if as_json else Table().lines(rows):
        click.echo(line)


def _tasks() -> list[dict[str, Any]]:
    from triarch.tasks import task_class, tasks

    classes = {name: task_class(name) for name in tasks()}
    return [
        {
            "task": name,
            "reads": made.INPUT.name,
            "aliases": [*made.ALIASES],
            "starters": [*made.STARTERS.values()],
            "what": _summary(made.__module__),
        }
        for name, made in classes.items()
    ]


def _families() -> list[dict[str, Any]]:
    from triarch.models import families, family

    return [
        {"family": name, "reads": made.medium.name, "what": _summary(made.module.__name__)}
        for name in families()
        for made in [family(name)]
    ]


def _heads() -> list[dict[str, Any]]:
    from triarch.models import families, family
    from triarch.tasks import task_class, tasks

    def served(medium: "Medium", gives: type) -> list[str]:
        made = {name: task_class(name) for name in tasks()}
        return [name for name, task in made.items() if task.NEEDS and task.serves(medium, gives)]

    return [
        {"family": name, "head": head, "gives": gives.__name__, "tasks": served(family(name).medium, gives)}
        for name in families()
        for head, made in family(name).heads.items()
        for gives in [made.kind]
    ]


def _summary(module: str) -> str:
    """The first line of a module's docstring."""
    return (inspect.getdoc(sys.modules[module]) or "").partition("\n")[0]
