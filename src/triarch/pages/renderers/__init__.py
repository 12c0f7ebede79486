"""One file per kind of answer, and that is the registry. Each has two functions:

    fits(answer, asked)    how many of the answer's field names it knows, or another number as fits; the highest wins
    render(answer, asked)  HTML, with the input where that is known; everything from outside is escaped

Beside them stand the drawings that the tour and the reports of runs share.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import Any, Protocol, cast

from triarch.pages.asked import Asked


class Renderer(Protocol):
    def fits(self, answer: Any, asked: Asked) -> int: ...

    def render(self, answer: Any, asked: Asked) -> str: ...


def choose(answer: Any, asked: Asked) -> Renderer:
    """The one that knows most of an answer; `records` fits all."""
    return max(_all(), key=lambda renderer: renderer.fits(answer, asked))


@functools.cache
def _all() -> list[Renderer]:
    modules = (importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))
    return [cast(Renderer, module) for module in modules]
