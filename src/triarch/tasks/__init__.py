"""One file per task; the file's name, with dashes, is the task's, and that is the registry."""

from __future__ import annotations

import ast
import copy
import importlib
import importlib.util
import pkgutil
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triarch.errors import InvalidInput, NotFound, show
from triarch.suggest import did_you_mean

if TYPE_CHECKING:
    import os

    from triarch.family import Network
    from triarch.tasks._base import Task


PAIR = re.compile(r"translation_(?P<src_lang>\w+)_to_(?P<tgt_lang>\w+)")  # the reference's names of one task


def tasks() -> list[str]:
    """Every task, by its own name."""
    return sorted(info.name.replace("_", "-") for info in pkgutil.iter_modules(__path__) if info.name[0] != "_")


def task_class(name: str) -> type[Task]:
    """Raises NotFound, with the nearest name, for a task there is not. Translation has a name for each pair, too."""
    if PAIR.fullmatch(name):
        name = "translation"
    if name in tasks():
        return _class(name)
    classes = {task: _class(task) for task in tasks()}
    aliases = {alias: made for made in classes.values() for alias in made.ALIASES}
    if name not in classes | aliases:
        known = [*classes, *aliases]
        raise NotFound(f"no task {show(name)!r}{did_you_mean(name, known)}; there are {', '.join(known)}")
    return (classes | aliases)[name]


def summary(task: str) -> str:
    """What the task of that name does: the first paragraph of its file, which is read without being imported."""
    spec = importlib.util.find_spec(f"{__name__}.{task.replace('-', '_')}")
    assert spec is not None
    assert spec.origin is not None
    text = Path(spec.origin).read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0]


def _class(task: str) -> type[Task]:
    module = importlib.import_module(f"{__name__}.{task.replace('-', '_')}")
    made: type[Task] = getattr(module, task.title().replace("-", ""))
    return made


def pipeline(
    task: str,
    model: str | os.PathLike[str] | Network | None = None,
    *,
    tokenizer: str | os.PathLike[str] | None = None,
    dtype: Any = "auto",
    device: Any = "auto",
    precision: str | None = None,
    revision: str | None = None,
    torch_dtype: Any = None,
    **defaults: Any,
) -> Task:
    """A task on a model: a folder, a repo id, what `load` gave, or "starter", the small one that comes with triarch.

    `defaults` are options of every call.

    `tokenizer` is the folder or repo id of another one than the model's own; `precision` is that of `triarch.load`, and
    `torch_dtype` the old name of `dtype`.

    Names, arguments and answers are those of the reference library's 4.57 pipelines. Raises NotFound for an unknown
    task, Unsupported for a model whose head cannot do it, and what `load` raises.
    """
    made = task_class(task)
    if pair := PAIR.fullmatch(task):
        defaults = pair.groupdict() | defaults
    if model is None:
        raise InvalidInput(f'no model for {task}; give a folder or a repo id, or "starter"')
    from triarch import hub, starters
    from triarch.family import Network

    if not isinstance(model, Network):
        dtype = dtype if torch_dtype is None else torch_dtype
        folder = starters.resolve("translation" if pair else task, made.STARTERS, model)
        model = made.load(folder, dtype=dtype, device=device, precision=precision, revision=revision)
    elif precision is not None:
        raise InvalidInput("precision is chosen when a model is loaded, and this one is; give it to triarch.load")
    if tokenizer is not None:
        model = copy.copy(model)  # with the same weights; who else holds the model keeps its own tokenizer
        model.processor = model.family.reads.load(hub.find(tokenizer), model.config)
    return made(model, **defaults)
