"""Generating: from prompts to texts, for every model that gives scores for the next word.

    triarch.generate(model, "Once upon a time", max_new_tokens=64)
    for piece in triarch.stream(model, "Once upon a time", do_sample=True, seed=1):
        print(piece.text, end="")
    triarch.generation.score(model, "The capital of France is", [" Paris", " Rome"])

`Settings` lists the options. The searches share what is around them: prompts and their bounds, filters, stops, results.

Importing this room takes no time, so that the options can be listed without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from triarch.generation.call import generate as generate
    from triarch.generation.call import stream as stream
    from triarch.generation.inference import Prefix as Prefix
    from triarch.generation.rows import Generated as Generated
    from triarch.generation.rows import Piece as Piece
    from triarch.generation.scoring import Likelihood as Likelihood
    from triarch.generation.scoring import score as score
    from triarch.generation.settings import Settings as Settings

_HOMES = {
    "Generated": "rows",
    "Likelihood": "scoring",
    "Piece": "rows",
    "Prefix": "inference",
    "Settings": "settings",
    "generate": "call",
    "score": "scoring",
    "stream": "call",
}

__all__ = ["Generated", "Likelihood", "Piece", "Prefix", "Settings", "generate", "score", "stream"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
