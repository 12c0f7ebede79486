"""From settings and data to all that a run needs: what is learned, from which examples, with which head and labels.

Everything that was inferred stands in `Plan.facts`, to be said before the start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from triarch import hub
from triarch.checkpoint import (
    architecture_for,
    label_tables,
    load,
    load_processor,
    load_tokenizer,
    opened,
    pick_device,
)
from triarch.errors import InvalidInput, Unsupported, show
from triarch.family import Network
from triarch.layers import low_rank
from triarch.layers.attention import Attention
from triarch.models import Family, family
from triarch.objectives import objective as objective_class
from triarch.objectives._base import Example, Objective
from triarch.suggest import did_you_mean
from triarch.training.data.columns import GROUP, kind_of
from triarch.training.data.examples import Examples
from triarch.training.data.order import Order
from triarch.training.data.passages import Passages
from triarch.training.data.reading import read, rows_of
from triarch.training.data.rows import Rows
from triarch.training.data.split import overlap, split
from triarch.training.data.store import TokenStore
from triarch.training.learner import mixed
from triarch.training.settings import Settings

# Settings that may differ when a run goes on: they do not touch its steps
FREE = ("output", "device", "keep", "save_every", "tensorboard", "licence", "about", "test")
BY_CONTENT = ("data", "validation", "model", "teacher")  # and these may lie elsewhere, as long as they are the same
DOCUMENTS = "documents"  # the kind of rows that running text is
BUCKET = 64  # batches whose examples are sorted by length together
Data = Rows | list[dict[str, Any]]  # as a caller gives it
Material = Rows | list[str]  # rows, or the paths of documents that are streamed
Note = Callable[[str], None]


@dataclass
class Source:
    """Examples to draw from, and where each was read."""

    examples: Examples | Passages
    place: Callable[[int], str]  # of an example: file and line
    said: str  # how much it is
    fingerprint: str


@dataclass
class Plan:
    """A run that has not begun."""

    settings: Settings
    objective: Objective
    model: Network
    train: Any
    validation: Any | None
    order: Order
    total_steps: int
    metric: str
    place: Callable[[int], str]  # of a training example: file and line
    identity: dict[str, Any]  # what a run that goes on must have in common with the one that it goes on from
    facts: dict[str, Any]
    adapted: list[str] = field(default_factory=list)  # layers with low-rank adapters
    fresh: list[str] = field(default_factory=list)  # parameters of the model that no checkpoint filled
    note: Note = lambda line: None


def prepare(
    settings: Settings, note: Note, folder: Path, *, train: Data | None = None, validation: Data | None = None
) -> Plan:
    """Read the data, infer what is learned, load the model. Raises TriarchError for whatever would fail later on.

    Tokens of running text are kept in `folder`.
    """
    if train is None and not settings.data:
        raise InvalidInput("there is no data; name files or folders to learn from")
    torch.manual_seed(mixed(settings.seed, 0))  # what is started afresh
    made, data, held = material(settings, note, train, validation)
    network = _network(settings, made, made.labels_of(data) if made.LABELS and isinstance(data, Rows) else None)
    objective = make_objective(settings, made, network)
    if isinstance(data, Rows):
        objective.prepare(data)
    stores = folder / "training" / "tokens"
    source = source_of(data, objective, settings, stores / "train", note)
    measured = None if held is None else source_of(held, objective, settings, stores / "validation", note)
    network.config.extra.update(objective.CONFIG)
    if settings.dropout is not None:
        set_dropout(network, settings.dropout)
    adapted = _adapt(network, settings)
    network.to(pick_device(settings.device))
    order = Order(
        source.examples.lengths,
        batch_size=None if settings.batch_tokens else settings.batch_size,
        batch_tokens=settings.batch_tokens,
        seed=settings.seed,
        bucket=BUCKET * settings.batch_size if settings.buckets and not settings.batch_tokens else None,
    )
    total = settings.steps or _steps(order, settings.epochs)
    metric = settings.metric or objective.METRIC
    known = ["loss", *objective.measure([])]
    if metric not in known:
        raise InvalidInput(
            f"{objective.NAME} has no metric {show(metric)!r}{did_you_mean(metric, known)}; it has {', '.join(known)}"
        )
    if settings.patience is not None and measured is None:
        raise InvalidInput("patience needs measurements; give validation files, or a validation_share")
    plan = Plan(
        settings,
        objective,
        network,
        source.examples,
        None if measured is None else measured.examples,
        order,
        total,
        metric,
        source.place,
        _identity(settings, objective, network, source, measured),
        {},
        adapted,
        list(network.fresh),
        note,
    )
    plan.facts = _facts(plan, data, source, measured)
    return plan


def make_objective(settings: Settings, made: type[Objective], network: Network) -> Objective:
    """The objective with the options of the settings, wrapped in a distillation where there is a teacher.

    Raises InvalidInput for an option that neither has, with the nearest one.
    """
    if network.processor is None:
        raise Unsupported("the checkpoint has no tokenizer; put tokenizer.json or the vocabulary beside the weights")
    outer: Any = None if settings.teacher is None else objective_class("distillation")
    inner_options, outer_options = {}, {}
    for name, value in settings.options.items():
        if name in made.options() and name != "labels":
            inner_options[name] = value
        elif outer is not None and name in outer.options():
            outer_options[name] = value
        else:
            known = [*made.options(), *(outer.options() if outer else [])]
            raise InvalidInput(
                f"{made.NAME} has no option {show(name)!r}{did_you_mean(name, known)}; it has {', '.join(known)}"
            )
    if made.LABELS:
        inner_options["labels"] = list(network.config.id2label.values())
    inner = made(processor=network.processor, **inner_options)
    if outer is None:
        return inner
    assert settings.teacher is not None
    teacher = load(settings.teacher, scores=(made.SCORES,), device=settings.device, dtype="float32")
    return outer(processor=network.processor, inner=inner, teacher=teacher, **outer_options)


def material(
    settings: Settings, note: Note, train: Data | None, validation: Data | None
) -> tuple[type[Objective], Material, Material | None]:
    """The objective's class, and what to learn from and to measure on."""
    wanted = None if settings.objective is None else objective_class(settings.objective)
    kind = None if wanted is None else _kind(wanted)
    data = found(settings, note, settings.data, train, kind)
    if isinstance(data, Rows):
        kind = kind_of(data)
    made = wanted or objective_class("mlm" if kind == DOCUMENTS else str(kind))
    if settings.validation or validation is not None:
        held = found(settings, note, settings.validation, validation, kind)
        if isinstance(data, Rows) and isinstance(held, Rows) and (common := overlap(data, held)):
            note(f"{common.count:,} rows of the validation data are in the training data too: {common.examples[0]}")
        return made, data, held
    if settings.validation_share:
        assert isinstance(data, Rows)
        return made, *split(data, settings.validation_share, settings.seed)
    return made, data, None


def found(settings: Settings, note: Note, paths: list[str], given: Data | None, kind: str | None) -> Material:
    """Rows in memory, those of files, or the paths of documents where no row has to be looked at."""
    columns = settings.columns | ({GROUP: settings.group} if settings.group else {})
    if given is None and kind == DOCUMENTS and not settings.validation_share:
        return paths
    if given is None:
        rows = read(paths, format=settings.format, columns=columns, kind=kind, on_bad_row=settings.on_bad_row)
    elif isinstance(given, Rows):
        rows = given
    else:
        rows = rows_of(given, columns=columns, kind=kind, on_bad_row=settings.on_bad_row)
    if rows.skipped_count:
        note(f"{rows.skipped_count:,} rows left out: {'; '.join(rows.skipped[:3])}")
    return rows


def tested(plan: Plan, given: Data | None) -> Material:
    """What to measure on at the end, read as the training data were."""
    kind = _kind(type(plan.objective)) if plan.settings.teacher is None else None
    return found(plan.settings, plan.note, plan.settings.test, given, kind)


def _kind(made: type[Objective]) -> str:
    """The kind of rows that an objective takes."""
    return DOCUMENTS if made.READS == DOCUMENTS else made.NAME


def _network(settings: Settings, made: type[Objective], labels: list[str] | None) -> Network:
    """The model, in float32: a checkpoint's, with a new head where it lacks the one that is needed, or a new one."""
    if "id2label" in made.CONFIG:
        labels = list(made.CONFIG["id2label"].values())
    if settings.model is not None:
        labels = labels and _own_order(settings.model, labels)
        return load(settings.model, scores=(made.SCORES,), new_head=True, labels=labels, dtype="float32", device="cpu")
    if settings.family is None or settings.tokenizer is None:
        raise InvalidInput("there is no model; name a checkpoint to start from, or a family and a tokenizer's folder")
    kind = family(settings.family)
    size = load_tokenizer(settings.tokenizer, family_name=settings.family).vocab_size
    raw = kind.config({}).to_hf() | _spelled(kind, settings.config) | {"vocab_size": size}
    config = kind.config(raw | (label_tables(labels) if labels else {}))
    network = kind.build(config, architecture_for(kind, made.SCORES))
    network.processor = load_processor(hub.find(settings.tokenizer), kind, config)
    network.fresh = [name for name, _ in network.named_parameters()]
    return network


def _spelled(kind: Family, given: dict[str, Any]) -> dict[str, Any]:
    """Sizes by our names, or by those of config.json, in the latter's spelling. Raises InvalidInput for others."""
    ours = {f.name: f.metadata["hf"] for f in fields(kind.tiny) if f.metadata}
    for name in given:
        if name not in ours and name not in ours.values():
            raise InvalidInput(
                f"{kind.model_type} has no size {show(name)!r}{did_you_mean(name, ours)}; it has {', '.join(ours)}"
            )
    return {ours.get(name, name): value for name, value in given.items()}


def _own_order(model: str, labels: list[str]) -> list[str]:
    """The labels in the checkpoint's own order, if it has the same ones."""
    found = opened(model)
    own = list(found.kind.config(found.raw).id2label.values())
    return own if sorted(own) == sorted(labels) else labels


def source_of(material: Material, objective: Objective, settings: Settings, folder: Path, note: Note) -> Source:
    """Examples of an objective; running text goes through a store of tokens in `folder`.

    Rows that the objective can't use are refused together, or left out and reported, as `on_bad_row` has it.
    """
    policy = settings.on_bad_row
    if objective.READS == DOCUMENTS:
        columns = settings.columns if isinstance(material, list) else None
        store = TokenStore.build(
            material, objective.processor, folder, format=settings.format, columns=columns, on_bad_row=policy
        )
        passages, counts = Passages(store, objective), store.header
        said = f"{counts['documents']:,} documents, {counts['sentences']:,} sentences, {counts['tokens']:,} tokens"
        return Source(passages, passages.place, said, store.fingerprint)
    assert isinstance(material, Rows)
    rows, examples, bad = material, [], []
    origin: list[int] = []
    for i, row in enumerate(rows):
        try:
            found = objective.examples(row)
        except InvalidInput as error:
            bad.append(f"{rows.place(i)}: {error}")
            continue
        examples += found
        origin += [i] * len(found)
    if bad:
        listed = "; ".join(bad[:3]) + (f"; and {len(bad) - 3:,} more" if len(bad) > 3 else "")
        if policy == "refuse" or not examples:
            raise InvalidInput(f"{len(bad):,} of {len(rows):,} rows cannot be used: {listed}")
        note(f"{len(bad):,} of {len(rows):,} rows left out: {listed}")
    made = Examples(examples, objective)
    said = f"{len(rows) - len(bad):,} rows, {len(made):,} examples, {int(made.lengths.sum()):,} tokens"
    return Source(made, lambda index: rows.place(origin[index]), said, _digest_examples(examples))


def _adapt(network: Network, settings: Settings) -> list[str]:
    """Put low-rank adapters around layers, and bring the matrices below them into the dtype they are used in."""
    if not settings.lora:
        return []
    alpha = 2.0 * settings.lora if settings.lora_alpha is None else settings.lora_alpha
    targets = settings.lora_targets or low_rank.ALL_LINEAR
    names = low_rank.wrap(network, targets, rank=settings.lora, alpha=alpha, dropout=settings.lora_dropout)
    if settings.precision == "bfloat16":
        # Autocast would cast them at each use; what is saved of them comes from the checkpoint, not from here
        for layer in low_rank.wrapped(network).values():
            layer.linear.to(torch.bfloat16)
    return names


def set_dropout(network: nn.Module, share: float) -> None:
    """All dropouts of a model, in its layers and in its attention."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = share
        elif isinstance(module, Attention):
            module.dropout = share


def _steps(order: Order, epochs: float) -> int:
    whole = int(epochs)
    rest = epochs - whole
    return max(1, order.first_step(whole) + round(rest * order.steps_per_epoch(whole)))


def _identity(
    settings: Settings, objective: Objective, network: Network, source: Source, held: Source | None
) -> dict[str, Any]:
    chosen = {name: value for name, value in asdict(settings).items() if name not in FREE + BY_CONTENT}
    return chosen | {
        "objective": objective.NAME,
        "data": source.fingerprint,
        "validation": None if held is None else held.fingerprint,
        "model": _digest_model(network),
        "torch": torch.__version__,
    }


def _digest_examples(examples: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        digest.update(np.array(example.ids, dtype=np.int32).tobytes())
        digest.update(repr(example.target).encode())
    return digest.hexdigest()


def _digest_model(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, parameter in network.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _facts(plan: Plan, data: Material, source: Source, measured: Source | None) -> dict[str, Any]:
    settings, network = plan.settings, plan.model
    learning = sum(p.numel() for p in network.parameters() if p.requires_grad)
    labels = getattr(plan.objective, "labels", None)
    facts: dict[str, Any] = {
        "objective": plan.objective.NAME,
        "data": source.said,
        "read as": str(data.reading) if isinstance(data, Rows) else DOCUMENTS,
        "validation": None if measured is None else measured.said,
        "model": f"{settings.model or settings.family} as {network.architecture}",
        "labels": f"{len(labels)}: {show(', '.join(labels), 100)}" if labels else None,
        "new": f"{len(plan.fresh)} tensors start afresh: {show(', '.join(plan.fresh), 80)}" if plan.fresh else None,
        "parameters": f"{learning:,} of {sum(p.numel() for p in network.parameters()):,} learn",
        "adapters": f"rank {settings.lora} on {len(plan.adapted)} layers" if plan.adapted else None,
        "steps": f"{plan.total_steps:,} of "
        + (f"{settings.batch_tokens:,} tokens" if settings.batch_tokens else f"{settings.batch_size} examples"),
        "optimizer": f"{settings.optimizer}, lr {settings.lr:g}, {settings.schedule}, warm-up {settings.warmup:g}",
        "precision": settings.precision,
        "device": str(next(network.parameters()).device),
        "best by": plan.metric if measured is not None else None,
    }
    return {name: value for name, value in facts.items() if value is not None}
