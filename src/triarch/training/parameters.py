"""Which parameters learn, at which step, and how fast.

A pattern names parameters by our names: a module with all that is in it ("embeddings", "encoder.blocks.3"), a range of
blocks ("encoder.blocks.0-5"), any name with the wildcards of the shell ("*.norm.*"), or "all". "@name" stands for the
patterns that the family lists under that name.

Frozen parts are left in the mode that the model is in, so that their dropout stays as it is. Switch it off by the
dropout of the config where it isn't wanted.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from triarch import limits
from triarch.errors import InvalidInput, show
from triarch.family import Network
from triarch.suggest import did_you_mean
from triarch.training._options import number

HEAD = "head"  # the module that every Network has its head under
Stage = str | tuple[str | Sequence[str], int | None]


@dataclass(frozen=True)
class Group:
    """Parameters that are treated alike."""

    parameters: dict[str, nn.Parameter]
    share: float  # of the learning rate
    weight_decay: float
    hidden: bool  # matrices inside the network, neither embeddings nor head: what Muon is for


@dataclass(frozen=True)
class Trained:
    """Which parameters learn at which step: a pure function of the step."""

    parameters: dict[str, nn.Parameter]  # all that could learn when this was made
    stages: tuple[tuple[frozenset[str], int | None], ...]  # names, and the step from which the next stage holds

    @property
    def names(self) -> frozenset[str]:
        """All that learn at any step."""
        return frozenset().union(*(names for names, _ in self.stages))

    def at(self, step: int) -> frozenset[str]:
        """Names of those that learn at `step`, the first of which is 0."""
        return next(names for names, until in self.stages if until is None or step < until)

    def apply(self, step: int) -> None:
        """Make these, and no others, gather gradients. Gradients of the others are dropped: no optimizer moves them."""
        learning = self.at(step)
        for name, parameter in self.parameters.items():
            parameter.requires_grad_(name in learning)
            if name not in learning:
                parameter.grad = None


def trained(model: nn.Module, freeze: str | Iterable[str] = (), stages: Iterable[Stage] = ()) -> Trained:
    """What learns in the course of a training; to be made before it begins, and again the same way when it goes on.

    `freeze`: patterns of what never learns, beside what already takes no gradients. `stages`: what of the rest learns
    until which step, in order, as ("head", 100) or "head:100"; the last goes on to the end, as ("all", None) or "all".
    Several patterns stand in a list, or between commas. Raises InvalidInput for a pattern that matches nothing, and
    where nothing is left to learn.
    """
    parameters = {name: one for name, one in model.named_parameters() if one.requires_grad}
    learning = parameters.keys() - matching(parameters, _meant(freeze, model))
    if not learning:
        raise InvalidInput("every parameter is frozen, wanted some that learn; freeze fewer")
    read = [_stage(stage) for stage in stages] or [("all", None)]
    made: list[tuple[frozenset[str], int | None]] = []
    for i, (patterns, until) in enumerate(read):
        names = frozenset(matching(parameters, _meant(patterns, model)) & learning)
        where = f"stage {i + 1} ({show(patterns)})"
        if not names:
            raise InvalidInput(f"{where} has only frozen parameters, wanted some that learn; freeze fewer")
        if (until is None) != (i == len(read) - 1):
            raise InvalidInput(f"{where} ends at step {until}; every stage but the last one ends at a step")
        if until is not None and until <= max((end for _, end in made if end is not None), default=0):
            raise InvalidInput(f"{where} ends at step {until}, before it begins; put the stages in order")
        made.append((names, until))
    return Trained(parameters, tuple(made))


def _meant(patterns: str | Iterable[str], model: nn.Module) -> list[str]:
    """The patterns, with those of a preset in the place of "@name". Raises InvalidInput where there is none."""
    presets: dict[str, tuple[str, ...]] = getattr(model, "PRESETS", {})
    listed = [part.strip() for part in patterns.split(",")] if isinstance(patterns, str) else list(patterns)
    found: list[str] = []
    for pattern in listed:
        if not isinstance(pattern, str) or not pattern.startswith("@"):
            found.append(pattern)
        elif pattern[1:] in presets:
            found += presets[pattern[1:]]
        else:
            known = f"; there are {', '.join(f'@{name}' for name in presets)}" if presets else ", the family has none"
            raise InvalidInput(f"no preset {show(pattern)!r}{known}")
    return found


def matching(names: Collection[str], patterns: str | Iterable[str]) -> set[str]:
    """Those of `names` that any pattern matches. Raises InvalidInput for a pattern that matches none of them."""
    listed = [part.strip() for part in patterns.split(",")] if isinstance(patterns, str) else list(patterns)
    found: set[str] = set()
    for pattern in listed:
        if not isinstance(pattern, str):
            raise InvalidInput(f"pattern {show(repr(pattern))} is not a text; write a name such as encoder.blocks.0-5")
        spelled = ["*"] if pattern == "all" else _spelled(pattern)
        for one in spelled:
            hits = {name for name in names if fnmatchcase(name, one) or fnmatchcase(name, f"{one}.*")}
            if not hits:
                raise InvalidInput(f"pattern {show(one)!r} matches no parameter that can learn{_hint(one, names)}")
            found |= hits
    return found


def groups(
    model: Network,
    names: Collection[str] | None = None,
    *,
    weight_decay: float = 0.0,
    layer_decay: float | None = None,
    head_rate: float = 1.0,
) -> list[Group]:
    """The parameters `names`, by default all that take gradients, grouped by how they are to be treated.

    Weights decay only in matrices: not in biases and norms. With `layer_decay`, a block learns that much more slowly
    than the one above it (Howard and Ruder 2018, arXiv 1801.06146, section 3.2): with n blocks the embeddings have the
    depth 0, block i has i + 1, the head n + 1, and the rate's share is layer_decay ** (n + 1 - depth); in a model
    whose head has no parameters, the last block has the full rate. `head_rate` is one more factor, for the head.
    Raises InvalidInput for values out of range, or if no parameter is left.
    """
    decay = number("weight_decay", weight_decay, 0)
    fading = 1.0 if layer_decay is None else number("layer_decay", layer_decay, 0, 1, above=True)
    head_share = number("head_rate", head_rate, 0, above=True)
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    all_names = [name for name, _ in model.named_parameters()]
    depth = depths(all_names)
    made: dict[tuple[float, float, bool], dict[str, nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not (parameter.requires_grad if names is None else name in names):
            continue
        in_head = name.split(".")[0] == HEAD
        share = fading ** (max(depth.values()) - depth[name]) * (head_share if in_head else 1.0)
        hidden = parameter.ndim == 2 and not in_head and id(parameter) not in tables
        key = (share, decay if parameter.ndim >= 2 else 0.0, hidden)
        made.setdefault(key, {})[name] = parameter
    if not made:
        raise InvalidInput("no parameter takes gradients, wanted some that learn; freeze fewer")
    return [Group(parameters, *key) for key, parameters in made.items()]


def depths(names: Sequence[str]) -> dict[str, int]:
    """How far from the input each parameter lies, of all names in the order of the model.

    The number of a block is the first number in a name. The blocks of a decoder lie above those of its encoder. What
    has no number lies with the last block before it in the model, that is, below all blocks where it comes first, and
    above them with the head where none comes after it.
    """
    numbers = [None if name.split(".")[0] == HEAD else re.search(r"\.(\d+)\.", name) for name in names]
    last = max((i for i, found in enumerate(numbers) if found is not None), default=-1)
    below: dict[str, int] = {}  # stacks of blocks by what stands before their numbers -> blocks below them
    made: dict[str, int] = {}
    top = 0
    for i, (name, found) in enumerate(zip(names, numbers, strict=True)):
        if found is not None:
            made[name] = below.setdefault(name[: found.start()], top) + int(found[1]) + 1
            top = max(top, made[name])
        elif i < last and name.split(".")[0] != HEAD:
            made[name] = top
    return {name: made.get(name, top + 1) for name in names}


def _stage(stage: Stage) -> tuple[str | Sequence[str], int | None]:
    if isinstance(stage, str):
        patterns, colon, end = stage.rpartition(":")
        if not colon:
            return stage, None
        if re.fullmatch(r"[0-9]{1,15}", end):
            return patterns, int(end)
    elif isinstance(stage, list | tuple) and len(stage) == 2:
        until = stage[1]
        if until is None or type(until) is int:
            return stage[0], until
    raise InvalidInput(f"stage {show(repr(stage))} is not a pattern with a step; write head:100, or all for the last")


def _spelled(pattern: str) -> list[str]:
    """`blocks.0-5` -> `blocks.0`, …, `blocks.5`."""
    found = re.search(r"(?<![^.])([0-9]{1,6})-([0-9]{1,6})(?![^.])", pattern)
    if found is None:
        return [pattern]
    low, high = int(found[1]), int(found[2])
    if high < low or high >= limits.LAYERS:
        raise InvalidInput(f"pattern {show(pattern)!r} has no blocks from {low} to {high}; write the lower one first")
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [f"{before}{i}{after}" for i in range(low, high + 1)]


def _hint(pattern: str, names: Iterable[str]) -> str:
    split = [name.split(".") for name in names]
    known = dict.fromkeys(".".join(parts[:depth]) for parts in split for depth in range(1, len(parts) + 1))
    return did_you_mean(pattern, known) or f"; there are {', '.join(dict.fromkeys(parts[0] for parts in split))}"
