"""What a model can learn: one file per objective; the file's name, with dashes, is the objective's, and that is the
registry."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from triarch.data.columns import DOCUMENTS
from triarch.errors import NotFound, show
from triarch.kinds import Medium, Text
from triarch.suggest import did_you_mean

if TYPE_CHECKING:
    from triarch.data.columns import Kind
    from triarch.objectives._base import Objective


def objectives() -> list[str]:
    """Every objective, by its name."""
    return sorted(info.name.replace("_", "-") for info in pkgutil.iter_modules(__path__) if info.name[0] != "_")


def objective(name: str) -> type[Objective]:
    """Raises NotFound, with the nearest name, for an objective there is not."""
    if name not in (known := objectives()):
        raise NotFound(f"no objective {show(name)!r}{did_you_mean(name, known)}; there are {', '.join(known)}")
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    made: type[Objective] = getattr(module, name.title().replace("-", ""))
    return made


def kinds(medium: Medium = Text) -> list[Kind]:
    """The kinds of rows that there is an objective for, in the order in which they are tried; running text, which is
    for models of text alone, is last."""
    made = sorted((objective(name) for name in objectives()), key=lambda each: each.RANK)
    running = [DOCUMENTS] if medium == Text else []
    return [*(each.kind(medium) for each in made if each.FIELDS), *running]
