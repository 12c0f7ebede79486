"""Show what a checkpoint holds; of the weights only the headers are read."""

import collections
import dataclasses
import functools
import math
from typing import Any

import click

from triarch.cli._output import json_option, pairs, to_json
from triarch.errors import CheckpointMismatch

HIGHLIGHTS = ("num_layers", "hidden_size", "num_heads", "intermediate_size", "vocab_size", "max_tokens")


@click.command()
@click.argument("model", envvar="TRIARCH_MODEL")
@click.option("--revision", help="Branch, tag or commit of the repo.")
@json_option
def command(model: str, revision: str | None, as_json: bool) -> None:
    """Show what a checkpoint holds, without reading its weights."""
    found = facts(model, revision)
    for line in [to_json(found)] if as_json else pairs(found):
        click.echo(line)


def facts(model: str, revision: str | None = None) -> dict[str, Any]:
    """All that can be said of a checkpoint without reading its weights. Raises what `load` would."""
    from triarch.checkpoint import choose, opened
    from triarch.tasks import task_class, tasks

    found = opened(model, revision=revision)
    folder, kind, entries = found.folders[0], found.kind, found.entries
    config = kind.config(found.raw)
    architecture = choose.choose(kind, config, entries)
    processor = found.processor(config)
    used = _fitted(kind, config, entries, architecture)
    kept = {name: entry for name, entry in entries.items() if name in used or not kind.weights.ignores(name)}
    gives = kind.head(architecture).kind
    served = [
        name
        for name in kind.heads
        if _fits(kind, config, entries, name) and not choose.borrowed(kind, config, name, architecture)
    ]
    return {
        "model": str(folder),
        "family": kind.model_type,
        "medium": kind.medium.name,
        "architecture": architecture,
        "tasks": [name for name in tasks() if task_class(name).serves(kind.medium, gives)],
        "heads_served": served,
        "heads_lacking": [name for name in kind.heads if name not in served],
        "parameters": sum(math.prod(entry.shape) for entry in kept.values()),
        "bytes": sum(entry.nbytes for entry in entries.values()),
        "dtypes": dict(collections.Counter(str(entry.dtype).removeprefix("torch.") for entry in kept.values())),
        **{name: getattr(config, name) for name in HIGHLIGHTS if hasattr(config, name)},
        "labels": [*config.id2label.values()],
        "adapters": [{"rank": adapter.rank, "base": adapter.base} for adapter in found.adapters],
        kind.reads.called.replace(" ", "_"): None if processor is None else processor.facts(),
        "sentence": _sentence(folder),
        "unused": sorted(kept.keys() - used),
        "files": {path.name: path.stat().st_size for path in sorted(folder.path.iterdir()) if path.is_file()},
    }


def _fitted(kind: Any, config: Any, entries: dict[str, Any], architecture: str) -> set[str]:
    """Names of the stored tensors that a head uses. Raises CheckpointMismatch if they do not fit.

    The model is loaded in earnest, but on the meta device, where tensors have shapes and no content.
    """
    import torch

    from triarch.weights import table

    def empty(entry: Any) -> Any:
        read = functools.partial(torch.empty, entry.shape, dtype=entry.dtype, device="meta")
        return dataclasses.replace(entry, read=read)

    network = kind.outline(config, architecture)
    unread = {name: empty(entry) for name, entry in entries.items()}
    table.load(network, kind.weights, unread, dtype=torch.float32, device="meta")
    rows = [kind.weights.find(name) for name in table.parameters(network)]
    return {next((name for name in (row.name, *row.others) if name in entries), row.copy) for row in rows}


def _fits(kind: Any, config: Any, entries: dict[str, Any], architecture: str) -> bool:
    try:
        return bool(_fitted(kind, config, entries, architecture))
    except CheckpointMismatch:
        return False


def _sentence(folder: Any) -> dict[str, Any] | None:
    """What the files of sentence-transformers ask for, where they are there."""
    from triarch.checkpoint import sidecars_of
    from triarch.inputs.text.sentence_recipe import recipe

    if not folder.has("modules.json"):
        return None
    found = recipe(sidecars_of(folder))
    return {
        "pooling": [*found.poolings],
        "dense_layers": len(found.layers),
        "normalize": found.normalize,
        "max_tokens": found.max_tokens,
        "prompts": [*found.prompts],
    }
