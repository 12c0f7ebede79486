"""What learns: the model that a run starts from, its head and labels, its adapters, and the objective upon it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from triarch import hub
from triarch.checkpoint import Opened, choose, label_tables, load, opened
from triarch.config import Config
from triarch.errors import InvalidInput, Unsupported, show
from triarch.family import Network
from triarch.kinds import Medium, NextWordScores, TargetWordScores, Text, WordScores
from triarch.layers import low_rank
from triarch.models import Family, family
from triarch.objectives import objective as objective_class
from triarch.objectives._base import Objective
from triarch.suggest import did_you_mean
from triarch.training.settings import Settings


@dataclass(frozen=True)
class Start:
    """The checkpoints that a run names, each opened once."""

    model: Opened | None  # None: a new model
    family: Family | None  # of the model; None where the settings name neither
    teacher: Opened | None

    @property
    def medium(self) -> Medium:
        """What the model reads; text where the settings name none."""
        return Text if self.family is None else self.family.medium


def start(settings: Settings) -> Start:
    """Raises what `opened` raises, and NotFound for a family that there is not."""
    model = None if settings.model is None else opened(settings.model)
    named = None if settings.family is None else family(settings.family)
    return Start(
        model, named if model is None else model.kind, None if settings.teacher is None else opened(settings.teacher)
    )


def make_objective(settings: Settings, made: type[Objective], network: Network, started: Start) -> Objective:
    """The objective with the options of the settings, wrapped in a distillation where there is a teacher.

    Raises InvalidInput for an option that neither has, with the nearest one.
    """
    if network.processor is None:
        reads = network.family.reads
        raise Unsupported(f"the checkpoint has no {reads.called}; put {reads.files} beside the weights")
    outer: Any = None if started.teacher is None else objective_class("distillation")
    inner_options, outer_options = {}, {}
    for name, value in settings.options.items():
        if name in made.options() and name != "labels":
            inner_options[name] = value
        elif outer is not None and name in outer.options():
            outer_options[name] = value
        else:
            known = [name for name in (*made.options(), *(outer.options() if outer else ())) if name != "labels"]
            raise InvalidInput(
                f"{made.NAME} has no option {show(name)!r}{did_you_mean(name, known)}; it has {', '.join(known)}"
            )
    if made.LABELS:
        inner_options["labels"] = list(network.config.id2label.values())
    inner = made(processor=network.processor, medium=network.family.medium, **inner_options)
    inner.attach(network)
    if outer is None:
        return inner
    assert started.teacher is not None
    teacher = load(started.teacher, scores=(made.SCORES,), device=settings.device, dtype="float32")
    return outer(processor=network.processor, medium=inner.medium, inner=inner, teacher=teacher, **outer_options)


def of_text(kind: Family | None) -> str:
    """The objective that running text is for: next words, where the model has a head for these and none for hidden.

    Raises InvalidInput for a model that writes texts from others, of which there are several.
    """
    if kind is None:
        return "mlm"
    given = {head.kind for head in kind.heads.values()}
    if TargetWordScores in given:
        raise InvalidInput(
            f"{kind.model_type} learns from running text by span-corruption, as T5, or by infilling, as BART; name "
            "one of both as the objective"
        )
    return "clm" if NextWordScores in given and WordScores not in given else "mlm"


def make_network(settings: Settings, made: type[Objective], rows: Iterable[dict[str, Any]], started: Start) -> Network:
    """The model, in float32: a checkpoint's, with a new head where it lacks the one that is needed, or a new one.

    Its labels are those of the settings, else those that `rows` have.
    """
    labels = _labels(settings, made, rows, started)
    if started.model is not None:
        return load(started.model, scores=(made.SCORES,), new_head=True, labels=labels, dtype="float32", device="cpu")
    kind = started.family
    if settings.family is None or kind is None:
        raise InvalidInput("there is no model; name a checkpoint to start from, or a family and a tokenizer's folder")
    if settings.lora:
        raise InvalidInput("lora adapts a checkpoint, and there is none; name a model, or leave lora out")
    folder = None if settings.tokenizer is None else hub.find(settings.tokenizer)
    # What families write of a size that follows from others would hold against the sizes that are given
    raw = Config.to_hf(kind.config({})) | _spelled(kind, settings.config)
    raw |= kind.reads.settle(folder, kind.model_type, raw, Config.to_hf(kind.tiny))
    config = kind.config(raw | (label_tables(labels) if labels else {}))
    network = kind.build(config, choose.giving(kind, made.SCORES.__name__))
    network.processor = kind.reads.new(folder, config)
    network.fresh = [name for name, _ in network.named_parameters()]
    return network


def _labels(
    settings: Settings, made: type[Objective], rows: Iterable[dict[str, Any]], started: Start
) -> list[str] | None:
    """Names of the classes by their numbers; None for an objective that has none.

    Those of the data stand in the order of the checkpoint, or of the teacher, where that has the same ones. Where the
    data gives numbers and the checkpoint names for them, these are kept.
    """
    if settings.labels and not made.LABELS:
        raise InvalidInput(f"{made.NAME} has no labels; leave them out")
    if not made.LABELS:
        return list(made.CONFIG["id2label"].values()) if "id2label" in made.CONFIG else None
    found = made.labels_of(rows)
    if settings.labels:
        return settings.labels
    for checkpoint in (started.model, started.teacher):
        if checkpoint is not None:
            own = list(checkpoint.kind.config(checkpoint.raw).id2label.values())
            if sorted(own) == sorted(found):
                return own
            named = not any(name.isdecimal() or name.startswith("LABEL_") for name in own)
            if named and all(name.isdecimal() and int(name) < len(own) for name in found):
                return own
    return found


def _spelled(kind: Family, given: dict[str, Any]) -> dict[str, Any]:
    """Sizes by our names, or by those of config.json, in the latter's spelling. Raises InvalidInput for others.

    How many tokens there are says the tokenizer.
    """
    ours = {f.name: f.metadata["hf"] for f in fields(kind.tiny) if f.metadata and f.name != "vocab_size"}
    for name in given:
        if name not in ours and name not in ours.values():
            raise InvalidInput(
                f"{kind.model_type} has no size {show(name)!r}{did_you_mean(name, ours)}; it has {', '.join(ours)}"
            )
    spelled = {ours.get(name, name): value for name, value in given.items()}
    if len(spelled) < len(given):
        raise InvalidInput(f"config has a size twice ({show(', '.join(given))}); say each by one name")
    return spelled


def adapt(network: Network, settings: Settings) -> list[str]:
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
        elif isinstance(getattr(module, "dropout", None), int | float):  # attention, which keeps it as a number
            module.dropout = share  # type: ignore[assignment]
