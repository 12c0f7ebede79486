"""One file per kind of answer; a renderer is found by its file alone. Each file has two functions:

    fits(answer, asked)    how well the renderer matches the answer: the number of field names it recognises, 0 for none
    render(answer, asked)  the answer as HTML, with its input if that is known; all text from outside is escaped

The renderer with the highest `fits` is used. The files also hold the drawings that the tour and run reports share.
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
    """The renderer that matches best; `records`, a table, matches everything."""
    return max(_all(), key=lambda renderer: renderer.fits(answer, asked))


@functools.cache
def _all() -> list[Renderer]:
    modules = (importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))
    return [cast(Renderer, module) for module in modules]
