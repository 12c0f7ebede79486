"""From settings and data to all that a run needs: what is learned, from which examples, with which head and labels.

Everything that was inferred stands in `Plan.facts`, to be said before the start.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from triarch.checkpoint import (
    pick_device,
)
from triarch.data import seeds
from triarch.data.columns import DOCUMENTS, GROUP, Kinds, infer
from triarch.data.examples import Examples
from triarch.data.order import Order
from triarch.data.passages import Passages
from triarch.data.reading import read, rows_of
from triarch.data.rows import Rows
from triarch.data.split import overlap, split
from triarch.data.store import TokenStore
from triarch.data.stretches import Stretches
from triarch.errors import InvalidInput, TriarchError, show
from triarch.family import Network
from triarch.objectives import kinds
from triarch.objectives import objective as objective_class
from triarch.objectives._base import Example, Objective
from triarch.suggest import did_you_mean
from triarch.training import writing
from triarch.training.model import Start, adapt, make_network, make_objective, of_text, set_dropout, start
from triarch.training.settings import EPOCHS, Settings

# Settings that may differ when a run goes on: they do not touch its steps
FREE = ("output", "device", "keep", "save_every", "tensorboard", "licence", "about", "test")
BY_CONTENT = (
    "data",
    "validation",
    "model",
    "teacher",
    "tokenizer",
)  # and these may lie elsewhere, as long as they are the same
SAMPLE = 100_000  # tokens of running text that a trial reads
BUCKET = 64  # batches whose examples are sorted by length together
Data = Rows | list[dict[str, Any]]  # as a caller gives it
Material = Rows | list[str]  # rows, or the paths of documents that are streamed
Note = Callable[[str], None]


@dataclass
class Source:
    """Examples to draw from, and where each was read."""

    examples: Examples | Passages | Stretches
    place: Callable[[int], str]  # of an example: file and line
    said: str  # how much it is
    fingerprint: str
    rows: Rows | None = None  # what examples were made of, if that was rows
    origin: list[int] = field(default_factory=list)  # of each example its row, if there are rows
    skipped: int = 0  # rows that were left out
    files: dict[str, str] = field(default_factory=dict)  # of running text: names by sha256


@dataclass
class Plan:
    """A run that has not begun."""

    settings: Settings
    objective: Objective
    model: Network
    train: Source
    validation: Source | None
    test: Source | None  # what is measured once, at the end
    order: Order
    total_steps: int
    metric: str
    identity: dict[str, Any]  # what a run that goes on must have in common with the one that it goes on from
    facts: dict[str, Any]
    adapted: list[str] = field(default_factory=list)  # layers with low-rank adapters
    fresh: list[str] = field(default_factory=list)  # parameters of the model that no checkpoint filled
    note: Note = lambda line: None


def prepare(
    settings: Settings,
    note: Note,
    folder: Path,
    *,
    train: Data | None = None,
    validation: Data | None = None,
    test: Data | None = None,
    trial: bool = False,
) -> Plan:
    """Read the data, infer what is learned, load the model. Raises TriarchError for whatever would fail later on.

    Tokens of running text are kept in `folder`; for a `trial`, those of a sample of it.
    """
    if train is None and not settings.data:
        raise InvalidInput("there is no data; name files or folders to learn from")
    torch.manual_seed(seeds.seed("weights", settings.seed))  # what is started afresh
    started = start(settings)
    made, data, held = material(settings, note, train, validation, started)
    network = make_network(
        settings, made, chain.from_iterable(rows for rows in (data, held) if isinstance(rows, Rows)), started
    )
    objective = make_objective(settings, made, network, started)
    if isinstance(data, Rows):
        objective.prepare(data)
    stores = folder / "training" / "tokens"
    source = source_of(data, objective, settings, stores / "train", note, trial, True)
    measured = None if held is None else source_of(held, objective, settings, stores / "validation", note, trial)
    tested = None
    if test is not None or settings.test:
        kind = kind_of(data, kinds(started.medium)) if isinstance(data, Rows) else DOCUMENTS.name
        last = found(settings, note, settings.test, test, kind, kinds(started.medium))
        tested = source_of(last, objective, settings, stores / "test", note, trial)
    for part, one, other, another in (
        ("validation", measured, "training", source),
        ("test", tested, "training", source),
        ("test", tested, "validation", measured),
    ):
        if one is not None and another is not None:
            _note_overlap(note, part, one, other, another)
    network.config.extra.pop("problem_type", None)  # of what it learned before
    network.config.extra.update(objective.CONFIG)
    if settings.dropout is not None:
        set_dropout(network, settings.dropout)
    adapted = adapt(network, settings)
    network.to(pick_device(settings.device))
    order = Order(
        source.examples.lengths,
        batch_size=None if settings.batch_tokens else settings.size,
        batch_tokens=settings.batch_tokens,
        seed=settings.seed,
        bucket=BUCKET * settings.size if settings.buckets else None,
        least=objective.least,
    )
    total = settings.steps or _steps(order, settings.epochs or EPOCHS)
    metric = settings.metric or objective.METRIC
    losses = objective.batch([source.examples.draw(0, seeds.generator("draw", settings.seed, 0, 0))]).counts
    parts = [f"{name}_loss" for name in losses] if len(losses) > 1 else []
    known = ["loss", *parts, *objective.measure([]), *objective.compare([], [])]
    if metric not in known:
        raise InvalidInput(
            f"{objective.NAME} has no metric {show(metric)!r}{did_you_mean(metric, known)}; it has {', '.join(known)}"
        )
    for name in ("patience", "metric", "evaluate_every"):
        if getattr(settings, name) is not None and measured is None:
            raise InvalidInput(f"{name} needs measurements; give validation files, or a validation_share")
    plan = Plan(
        settings,
        objective,
        network,
        source,
        measured,
        tested,
        order,
        total,
        metric,
        _identity(settings, objective, network, source, measured),
        {},
        adapted,
        list(network.fresh),
        note,
    )
    plan.facts = _facts(plan, data)
    return plan


def material(
    settings: Settings, note: Note, train: Data | None, validation: Data | None, started: Start
) -> tuple[type[Objective], Material, Material | None]:
    """The objective's class, and what to learn from and to measure on."""
    wanted = None if settings.objective is None else objective_class(settings.objective)
    if wanted is not None and wanted.WRAPS:
        raise InvalidInput(f"{wanted.NAME} is of another objective; name that one, and a teacher")
    kind = None if wanted is None else _kind(wanted)
    known = kinds(started.medium)
    if wanted is not None and kind == DOCUMENTS.name and DOCUMENTS not in known:
        raise InvalidInput(
            f"{wanted.NAME} learns from running text, and the model reads {started.medium.name}; name another objective"
        )
    data = found(settings, note, settings.data, train, kind, known)
    if isinstance(data, Rows):
        kind = kind_of(data, known)
    made = wanted or objective_class(of_text(started.family) if kind == DOCUMENTS.name else str(kind))
    if settings.validation or validation is not None:
        held = found(settings, note, settings.validation, validation, kind, known)
        return made, data, held
    if settings.validation_share:
        assert isinstance(data, Rows)
        return made, *split(data, settings.validation_share, settings.seed)
    return made, data, None


def found(
    settings: Settings, note: Note, paths: list[str], given: Data | None, kind: str | None, known: Kinds
) -> Material:
    """Rows in memory, those of files, or the paths of documents where no row has to be looked at."""
    columns = settings.columns | ({GROUP: settings.group} if settings.group else {})
    if given is None and kind == DOCUMENTS.name and not settings.validation_share:
        return paths
    if given is None:
        rows = read(paths, known, format=settings.format, columns=columns, kind=kind, on_bad_row=settings.on_bad_row)
    elif isinstance(given, Rows):
        rows = given
    else:
        rows = rows_of(given, known, columns=columns, kind=kind, on_bad_row=settings.on_bad_row)
    if rows.skipped_count:
        note(f"{rows.skipped_count:,} rows left out: {'; '.join(rows.skipped[:3])}")
    for warning in rows.warnings:
        note(warning)
    return rows


def kind_of(rows: Rows, known: Kinds) -> str:
    """The kind that rows were read as, or that they are of. Raises InvalidInput as `infer` does."""
    return (rows.reading or infer(rows, known)).kind


def _kind(made: type[Objective]) -> str:
    """The kind of rows that an objective takes."""
    return made.NAME if made.READS == "rows" else DOCUMENTS.name


def _note_overlap(note: Note, part: str, measured: Source, other: str, learned: Source) -> None:
    """Say so where data to measure on are among those to learn from: rows by their texts, files of text by content."""
    if measured.rows is not None and learned.rows is not None:
        if common := overlap(learned.rows, measured.rows):
            note(f"{common.count:,} rows of the {part} data are in the {other} data too: {common.examples[0]}")
    elif twice := measured.files.keys() & learned.files.keys():
        names = show(", ".join(sorted(measured.files[sha256] for sha256 in twice)), 80)
        note(f"{len(twice):,} files of the {part} data are in the {other} data too: {names}")


def source_of(
    material: Material,
    objective: Objective,
    settings: Settings,
    folder: Path,
    note: Note,
    trial: bool = False,
    learned: bool = False,
) -> Source:
    """Examples of an objective; running text goes through a store of tokens in `folder`, for a `trial` a part of it.

    Where they are `learned`, they need not be the same each time that they are drawn.

    Rows that the objective can't use are refused together, or left out and reported, as `on_bad_row` has it.
    """
    policy = settings.on_bad_row
    if objective.READS != "rows":
        exact = objective.READS == "texts"
        columns = settings.columns if isinstance(material, list) else None
        store = TokenStore.build(
            material,
            objective.processor,
            folder,
            format=settings.format,
            columns=columns,
            on_bad_row=policy,
            trial=SAMPLE if trial else None,
            exact=exact,
        )
        running = Stretches(store, objective, moving=learned) if exact else Passages(store, objective)
        counts = store.header
        said = f"{counts['documents']:,} documents, {counts['sentences']:,} sentences, {counts['tokens']:,} tokens"
        said = f"a sample, also for steps and epochs: {said}" if trial else said
        files = {file["sha256"]: file["name"] for file in counts["made_of"].get("files", [])}
        fingerprint, skipped = store.fingerprint, counts["skipped"]
        return Source(running, running.place, said, fingerprint, skipped=skipped, files=files)
    assert isinstance(material, Rows)
    rows, examples, bad = material, [], []
    origin: list[int] = []
    for i, row in enumerate(rows):
        try:
            found = objective.examples(row)
        except TriarchError as error:  # an input of its own file may also be damaged, or not be there
            bad.append(f"{rows.place(i)}: {error}")
            continue
        examples += found
        origin += [i] * len(found)
    if bad:
        listed = "; ".join(bad[:3]) + (f"; and {len(bad) - 3:,} more" if len(bad) > 3 else "")
        if policy == "refuse" or not examples:
            raise InvalidInput(f"{len(bad):,} of {len(rows):,} rows cannot be used: {listed}")
        note(f"{len(bad):,} of {len(rows):,} rows left out: {listed}")
    if cut := [example.dropped for example in examples if example.dropped]:
        note(f"{len(cut):,} of {len(examples):,} examples were cut, by {sum(cut):,} tokens together, as asked")
    made = Examples(examples)
    said = f"{len(rows) - len(bad):,} rows, {len(made):,} examples, {int(made.lengths.sum()):,} tokens"
    skipped = rows.skipped_count + len(bad)
    fingerprint = _digest_examples(examples)
    return Source(made, lambda index: rows.place(origin[index]), said, fingerprint, rows, origin, skipped)


def _steps(order: Order, epochs: float) -> int:
    whole = int(epochs)
    rest = epochs - whole
    return max(1, order.first_step(whole) + round(rest * order.steps_per_epoch(whole)))


def _identity(
    settings: Settings, objective: Objective, network: Network, source: Source, held: Source | None
) -> dict[str, Any]:
    chosen = {name: value for name, value in asdict(settings).items() if name not in FREE + BY_CONTENT}
    found = chosen | {
        "objective": objective.NAME,
        "data": source.fingerprint,
        "validation": None if held is None else held.fingerprint,
        "model": _digest_model(network),
        "teacher": None if objective.guide is None else _digest_model(objective.guide),
        "tokenizer": objective.processor.fingerprint(),
    }
    kept: dict[str, Any] = json.loads(json.dumps(found))  # as a checkpoint gives it back
    return kept


def _digest_examples(examples: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        digest.update(np.array(example.ids, dtype=np.int32).tobytes())
        digest.update(repr(example.target).encode())
        digest.update(example.digest)
    return digest.hexdigest()


def _digest_model(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, parameter in network.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        digest.update(parameter.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _facts(plan: Plan, data: Material) -> dict[str, Any]:
    settings, network = plan.settings, plan.model
    learning = sum(p.numel() for p in network.parameters() if p.requires_grad)
    labels = plan.objective.classes
    facts: dict[str, Any] = {
        "objective": plan.objective.NAME,
        "data": plan.train.said,
        "read as": str(data.reading) if isinstance(data, Rows) else DOCUMENTS.name,
        "validation": None if plan.validation is None else plan.validation.said,
        "test": None if plan.test is None else plan.test.said,
        "writes": None if plan.validation is None else writing.said(plan.objective, len(plan.validation.examples)),
        "model": f"{settings.model or settings.family} as {network.architecture}",
        "labels": f"{len(labels)}: {show(', '.join(labels), 100)}" if labels else None,
        "new": f"{len(plan.fresh)} tensors start afresh: {show(', '.join(plan.fresh), 80)}" if plan.fresh else None,
        "parameters": f"{learning:,} of {sum(p.numel() for p in network.parameters()):,} learn",
        "adapters": f"rank {settings.lora} on {len(plan.adapted)} layers" if plan.adapted else None,
        "steps": f"{plan.total_steps:,} of "
        + (f"{settings.batch_tokens:,} tokens" if settings.batch_tokens else f"{settings.size} examples"),
        "optimizer": f"{settings.optimizer}, lr {settings.lr:g}, {settings.schedule}, warm-up {settings.warmup:g}",
        "precision": settings.precision,
        "device": str(next(network.parameters()).device),
        "best by": plan.metric if plan.validation is not None else None,
    }
    return {name: value for name, value in facts.items() if value is not None}
