"""Everything that a training run can be told: one dataclass, whether it comes from Python, a recipe or the shell.

A recipe is a TOML or YAML file with these names; those that hold a dict are tables in it. Paths in a recipe
are relative to where the command runs, as they are in the shell.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from triarch.checks import check_fields
from triarch.errors import InvalidInput, LimitExceeded, NotFound, show
from triarch.suggest import did_you_mean

RECIPE_BYTES = 1 << 20
ABOUT = ("name", "language", "data", "data_licence", "data_source", "base_licence")  # what a model's card says besides
EPOCHS, BATCH_SIZE = 3.0, 32  # where nothing else is said
SUFFIXES = (".toml", ".yaml", ".yml")
COUNTS = ("steps", "batch_size", "batch_tokens", "micro_tokens", "evaluate_every", "save_every", "keep", "patience")
NEEDS = {  # settings that say nothing without another
    "config": "family",
    "tokenizer": "family",
    "group": "validation_share",
    "lora_alpha": "lora",
    "lora_dropout": "lora",
    "lora_targets": "lora",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    # What is learned from
    data: list[str] = field(default_factory=list)  # files or folders to learn from
    validation: list[str] = field(default_factory=list)  # files to measure on while learning
    test: list[str] = field(default_factory=list)  # files to measure on once, at the end
    validation_share: float = 0.0  # the part of the data set aside for measuring where no validation file is given
    group: str | None = None  # column whose values never stand on both sides of that split
    format: str | None = None  # of the files, where the suffix does not say
    columns: dict[str, str] = field(default_factory=dict)
    on_bad_row: Literal["refuse", "skip"] = "refuse"  # a row that cannot be used ends the run, or is counted and named

    # What learns
    model: str | None = None  # folder or repo id of the checkpoint to start from
    family: str | None = None  # without a model: the family to start from nothing
    config: dict[str, Any] = field(default_factory=dict)
    tokenizer: str | None = None  # without a model: the folder of a tokenizer, or of another medium's processor
    objective: str | None = None  # what is learned; by default what the columns of the data say
    options: dict[str, Any] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)  # names of the classes, in order; by default those in the data
    teacher: str | None = None  # folder or repo id of a model to learn from: distillation of the objective
    output: str | None = None  # folder for the model, its card, the report, the log and the checkpoints

    # How long, and in what portions
    epochs: float | None = None  # passes over the data; None: 3, or as many as `steps` make
    steps: int | None = None  # updates of the weights, in place of epochs
    batch_size: int | None = None  # examples of one update; None: 32, or as many as fit into `batch_tokens`
    batch_tokens: int | None = None  # in place of batch_size: tokens of one update, padding included
    buckets: bool = False  # examples of like length share an update; faster, and less random
    micro_tokens: int | None = None  # tokens in memory at once, padding included; None: what the device does best

    # How it learns
    optimizer: Literal["adamw", "lion", "adafactor", "muon", "sgd"] = "adamw"  # the rule of the updates
    lr: float = 5e-5  # the highest learning rate
    schedule: Literal["linear", "cosine", "inverse-sqrt", "warmup-stable-decay", "tri-stage", "constant"] = (
        "linear"  # how the learning rate goes on after the warm-up
    )
    schedule_options: dict[str, Any] = field(default_factory=dict)
    warmup: float = 0.0  # steps in which the rate rises; below 1, their share of all
    weight_decay: float = 0.01  # on matrices; never on norms and biases
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    clip: float | None = 1.0  # the gradient's longest norm
    layer_decay: float = 1.0  # a layer's rate is that of the one above it, times this
    head_lr: float = 1.0  # the head's rate is lr times this
    freeze: list[str] = field(default_factory=list)  # patterns of parameters that stay as they are
    stages: list[str] = field(
        default_factory=list
    )  # "PATTERN:STEP" in turn: what learns until that step; the last has none
    lora: int = 0  # rank of low-rank adapters on frozen weights; 0: the weights themselves learn
    lora_alpha: float | None = None  # strength of the adapters; None: twice the rank
    lora_dropout: float = 0.0  # on the way into an adapter
    lora_targets: str | None = None  # pattern of the layers that get one; None: all of the blocks'
    dropout: float | None = None  # all of the model's dropouts, in place of its own
    average: float | None = None  # decay of a running mean of the weights, which is what is measured and kept
    seed: int = 0  # of everything random

    # Machine
    device: str = "auto"  # cpu, cuda, cuda:1, …
    precision: Literal["float32", "bfloat16"] = "float32"  # of the mathematics; weights are always float32
    recompute: bool = False  # activations of blocks are computed again rather than kept: less memory, slower

    # Measuring and keeping
    evaluate_every: int | None = None  # steps; None: once an epoch
    metric: str | None = None  # the best model is the one best in this; None: the objective's own
    patience: int | None = None  # measurements without improvement after which the run ends
    best: bool = True  # the model that was measured best is kept, not the last
    save_every: int | None = None  # steps between checkpoints; None: once an epoch
    keep: int = 2  # newest checkpoints that are kept, beside the best
    tensorboard: bool = False  # scalars for TensorBoard too
    licence: str | None = None  # of the model, for its card
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)
        for name in COUNTS:
            self._at_least(name, 1)
        for name in ("lora", "seed", "weight_decay", "warmup"):
            self._at_least(name, 0)
        for name in ("epochs", "lr", "clip", "layer_decay", "head_lr", "lora_alpha"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise InvalidInput(f"{name} is {value}, wanted more than 0")
        for name in ("validation_share", "lora_dropout", "dropout", "average"):
            if (value := getattr(self, name)) is not None and not 0 <= value < 1:
                raise InvalidInput(f"{name} is {value}, wanted a share from 0 to below 1")
        for name, table in vars(self).items():
            if isinstance(table, dict) and not all(isinstance(key, str) for key in table):
                raise InvalidInput(f"{name} is {show(repr(table))}, wanted names and values")
        if self.layer_decay > 1:
            raise InvalidInput(f"layer_decay is {self.layer_decay}, wanted at most 1")
        for one, other in (("epochs", "steps"), ("batch_size", "batch_tokens"), ("buckets", "batch_tokens")):
            if getattr(self, one) and getattr(self, other):
                raise InvalidInput(f"{one} and {other} are both given, and both say the same; choose one")
        for name in ("columns", "options", "config", "optimizer_options", "schedule_options"):
            if not _is_plain(getattr(self, name)):
                raise InvalidInput(
                    f"{name} holds {show(repr(getattr(self, name)), 80)}, wanted texts, numbers and lists"
                )
        if self.validation and self.validation_share:
            raise InvalidInput("validation and validation_share are both given; choose one")
        if self.model is not None and self.family is not None:
            raise InvalidInput("model and family are both given; a model brings its family: choose one")
        for name, value in self.about.items():
            if name not in ABOUT or not isinstance(value, str):
                raise InvalidInput(
                    f"about has {show(name)} = {show(repr(value), 40)}{did_you_mean(name, ABOUT)}; wanted texts under "
                    + ", ".join(ABOUT)
                )
        for name, needed in NEEDS.items():
            default = Settings.__dataclass_fields__[name].default
            if getattr(self, name) not in (default, {}) and not getattr(self, needed):
                raise InvalidInput(f"{name} is given without {needed}, and does nothing then; give both, or neither")
        if self.seed >= 1 << 32:
            raise InvalidInput(f"seed is {self.seed}, wanted less than 2^32")

    @property
    def size(self) -> int:
        """Examples of one update; where tokens say how large one is, of a batch that is never taken in pieces."""
        return self.batch_size or BATCH_SIZE

    def _at_least(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if value is not None and value < least:
            raise InvalidInput(f"{name} is {value}, wanted at least {least}")


def _is_plain(value: Any) -> bool:
    """Whether JSON can hold it: a recipe knows dates too."""
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_plain(part) for name, part in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))


def make(given: dict[str, Any]) -> Settings:
    """Settings from names and values. Raises InvalidInput, for an unknown name with the nearest one."""
    known = {f.name for f in dataclasses.fields(Settings)}
    for name in given:
        if name not in known:
            raise InvalidInput(f"no setting {show(name)!r}{did_you_mean(name, known)}; see triarch train --help")
    lists = {"data", "validation", "test", "freeze", "stages", "labels"}
    values: dict[str, Any] = {
        name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in given.items()
    }
    values |= {name: [value] for name, value in values.items() if name in lists and isinstance(value, str)}
    return Settings(**values)


def read_recipe(path: Path) -> dict[str, Any]:
    """The settings in a TOML or YAML file. Raises NotFound, InvalidInput and LimitExceeded."""
    try:
        if path.exists() and not path.is_file():
            raise InvalidInput(f"recipe {show(path)} is a folder or a device; name a file")
        with path.open("rb") as file:
            data = file.read(RECIPE_BYTES + 1)
    except OSError as error:
        raise NotFound(f"recipe {show(path)} cannot be read ({error.strerror}); check the path") from None
    if len(data) > RECIPE_BYTES:
        raise LimitExceeded(f"recipe {show(path)} is over {RECIPE_BYTES:,} bytes; no recipe is")
    try:
        found = tomllib.loads(data.decode()) if path.suffix.lower() == ".toml" else _yaml(data)
    except (ValueError, RecursionError) as error:  # the errors of both parsers, and of the encoding
        raise InvalidInput(f"recipe {show(path)} cannot be read ({show(error)}); mend it") from None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise InvalidInput(f"recipe {show(path)} holds no names and values; see triarch train --help")
    return found


def _yaml(data: bytes) -> Any:
    """As TOML would have it: 1e-5 is a number, and a name stands once."""
    import yaml  # of those that huggingface_hub brings along

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            made: dict[Any, Any] = super().construct_mapping(node, deep)
            if len(made) < len(node.value):
                raise ValueError("a name stands twice")
            return made

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), [*"+-.0123456789"]
    )
    try:
        if b"&" in data and any(isinstance(token, yaml.AliasToken) for token in yaml.scan(data)):
            raise ValueError("aliases are not taken")  # a few of them can stand for billions of values
        return yaml.load(data, Loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
