"""Three architectures, three modalities, one small library: https://huggingface.co checkpoints, as they are.

    import triarch

    answer = triarch.pipeline("question-answering", model="folder-or-repo-id")
    model = triarch.load("folder-or-repo-id")
    triarch.generate(model, "Once upon a time")
    triarch.save(model, "folder")
    triarch.show(answer)
    triarch.train("reviews.csv", model="folder-or-repo-id", output="folder")

Importing this module takes no time: torch is imported on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from triarch.checkpoint import save as save
    from triarch.engine.prepare import load as load
    from triarch.errors import TriarchError as TriarchError
    from triarch.generation import generate as generate
    from triarch.generation import stream as stream
    from triarch.pages.answers import show as show
    from triarch.tasks import pipeline as pipeline
    from triarch.training import evaluate as evaluate
    from triarch.training import rows as rows
    from triarch.training import train as train

__version__ = "0.1.0"

_HOMES = {
    "TriarchError": "errors",
    "evaluate": "training",
    "generate": "generation",
    "load": "engine.prepare",
    "pipeline": "tasks",
    "rows": "training",
    "save": "checkpoint",
    "show": "pages.answers",
    "stream": "generation",
    "train": "training",
}

__all__ = sorted(["__version__", *_HOMES])


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
