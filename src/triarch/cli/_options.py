"""A task's `Options`, a dataclass, as options of the command line."""

import ast
import dataclasses
import inspect
import re
import tomllib
from contextlib import suppress
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import click
from click.shell_completion import CompletionItem

from triarch.suggest import did_you_mean

TYPED = (bool, str, int, float)
COMMENT = re.compile(r"  # (.*)")  # at the end of a field's line


def options_of(made: type) -> list[click.Option]:
    """One option for each field, the class's own before those of its bases.

    Fields that hold what cannot be typed, such as a dict or a function, are left out.
    """
    hints, comments = get_type_hints(made), _comments(made)
    inherited = {
        f.name for base in made.__mro__[1:] if dataclasses.is_dataclass(base) for f in dataclasses.fields(base)
    }
    fields = sorted(dataclasses.fields(made), key=lambda f: f.name in inherited)
    return [
        _option(field, kinds, comments.get(field.name, ""))
        for field, kinds in ((field, _alternatives(hints[field.name])) for field in fields)
        if any(get_origin(kind) is Literal or kind in TYPED or _element(kind) is not None for kind in kinds)
    ]


def _option(field: dataclasses.Field[Any], kinds: tuple[Any, ...], comment: str) -> click.Option:
    flag = "--" + field.name.replace("_", "-")
    if bool in kinds and not any(get_origin(kind) is dict for kind in kinds):
        return click.Option([field.name, f"{flag}/--no-{flag[2:]}"], default=None, help=comment)
    element = next(filter(None, map(_element, kinds)), None)
    if element is not None:
        one = element in kinds  # the task takes a single text apart itself

        def gathered(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> Any:
            return given[0] if one and len(given) == 1 else list(given)

        kind = Value((element,), None)
        return click.Option(
            [field.name, flag], type=kind, multiple=True, callback=gathered, help=f"{comment}  [repeatable]"
        )
    known = "" if field.default is None else str(field.default).strip()
    help = f"{comment}  [default: {known}]" if known else comment
    return click.Option([field.name, flag], type=Value(kinds, field.default), help=help)


class Value(click.ParamType):
    """What an annotation allows: one of its words, a number, or any text."""

    def __init__(self, kinds: tuple[Any, ...], default: Any):
        self.words = {str(word): word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)}
        if NoneType in kinds and default is not None:
            self.words.setdefault("none", None)
        self.kind = next((kind for kind in (int, float, str) if kind in kinds), None)
        names = {int: "INTEGER", float: "FLOAT", str: "TEXT", None: ""}
        self.name = "|".join(filter(None, [*self.words, names[self.kind]]))

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in self.words:
            return self.words[value]
        with suppress(ValueError):
            if self.kind is not None:
                return self.kind(value)
        raise click.BadParameter(f"found {value!r}, wanted {self.name}{did_you_mean(value, self.words)}.", ctx, param)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(word) for word in self.words if word.startswith(incomplete)]


def _element(kind: Any) -> type | None:
    """What a list of such things holds, if each can be typed."""
    inside = get_args(kind) if get_origin(kind) is list else ()
    return inside[0] if inside and inside[0] in TYPED else None


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _comments(made: type) -> dict[str, str]:
    """Each field's comment, read from the source; a subclass's go before those of its bases."""
    found: dict[str, str] = {}
    for cls in reversed(made.__mro__[:-1]):
        with suppress(OSError):  # installed without sources: the options work, unexplained
            source = inspect.getsource(cls)
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    field = "\n".join(source.splitlines()[node.lineno - 1 : node.end_lineno])
                    if hit := COMMENT.search(field):
                        found[node.target.id] = hit[1]
    return found


def value_of(text: str) -> Any:
    """Numbers, truth values and lists as a recipe would write them; anything else is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
