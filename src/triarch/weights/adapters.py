"""Low-rank adapters on disk, as the `peft` library of Hugging Face writes and reads them.

A folder holds `adapter_config.json`, and `adapter_model.safetensors` with, for each adapted layer of the reference's
model, `base_model.model.<its path>.lora_A.weight` (R, I) and `lora_B.weight` (O, R), and whole tensors, mostly of the
head, under `base_model.model.<their name>`. Hu et al. 2021, https://arxiv.org/abs/2106.09685
"""

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from triarch import limits
from triarch.errors import CheckpointMismatch, CorruptFile, InvalidInput, TriarchError, UnsafeFile, Unsupported, show
from triarch.family import Network
from triarch.files import PLAIN_NAME, Folder, replacing, write_text
from triarch.kinds import Features, LabelScores, NextWordScores, SpanScores, TargetWordScores, TokenScores
from triarch.weights import files, legacy
from triarch.weights.stored import Entry
from triarch.weights.table import Layout

CONFIG, WEIGHTS, LEGACY = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."
FACTOR = re.compile(r"(.+)\.lora_([AB])\.weight")  # after PREFIX

# By the kind of scores, what peft calls the task; other kinds have no name there
TASKS = {
    NextWordScores: "CAUSAL_LM",
    TargetWordScores: "SEQ_2_SEQ_LM",
    LabelScores: "SEQ_CLS",
    TokenScores: "TOKEN_CLS",
    SpanScores: "QUESTION_ANS",
    Features: "FEATURE_EXTRACTION",
}

# Keys of adapter_config.json that say nothing of the mathematics once the tensors are there. Whichever other key is
# set asks for mathematics that we do not have.
HARMLESS = {
    *("peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "base_model_name_or_path", "task_type"),
    *("auto_mapping", "inference_mode", "peft_version", "revision", "ensure_weight_tying"),
    *("target_modules", "modules_to_save", "exclude_modules", "layers_pattern", "layers_to_transform"),
    *("megatron_core", "qalora_group_size", "eva_config"),
    "fan_in_fan_out",  # that the base keeps its layers transposed; the table of the family knows
}
HARMLESS_VALUES = {  # and of these keys these values
    "bias": ("none",),
    "init_lora_weights": (True, "gaussian", "eva", "orthogonal"),  # others change the base as well
}


@dataclass(frozen=True)
class Adapter:
    """What an adapter folder holds; its tensors are not read yet."""

    where: str
    rank: int
    scale: float
    base: str  # the model that it changes, as the file names it
    revision: str | None
    task: str | None  # by the values of TASKS
    architecture: str | None  # the reference's class that it was trained on
    entries: dict[str, Entry]  # by the names in the file


@dataclass(frozen=True)
class Settings:
    """What is written beside the tensors."""

    rank: int
    alpha: float
    dropout: float
    rslora: bool
    base: str
    scores: type  # the kind of scores that the head gives
    architecture: str


def present(folder: Folder) -> bool:
    """Whether a folder holds an adapter rather than a model. Raises InvalidInput where it holds both."""
    if not folder.has(CONFIG):
        return False
    for name in (files.SINGLE, files.INDEX, files.LEGACY, files.LEGACY_INDEX):
        if folder.has(name):
            raise InvalidInput(f"{folder} holds a whole model, {name}, beside an adapter; move one of them elsewhere")
    return True


def read(folder: Folder) -> Adapter:
    """Read what an adapter folder says; of the tensors only the headers.

    Raises CorruptFile, Unsupported for another kind of adapter and for options that change the mathematics, all in one
    error, and what `files.safetensors` raises.
    """
    where = str(folder.path / CONFIG)
    raw = folder.json(CONFIG)
    if not isinstance(raw, dict):
        raise CorruptFile(f"{where} is a {type(raw).__name__}, wanted an object; download it again")
    if raw.get("peft_type") != "LORA":
        raise Unsupported(f"{where} has peft_type {show(raw.get('peft_type'))}; only LORA is implemented")
    odd = [key for key, value in raw.items() if value and key not in HARMLESS | HARMLESS_VALUES.keys()]
    odd += [key for key, known in HARMLESS_VALUES.items() if raw.get(key) and raw[key] not in known]
    if odd:
        asked = ", ".join(f"{show(key, 40)}={show(raw[key], 40)}" for key in sorted(odd)[:5])
        raise Unsupported(f"{where} asks for {asked}; only plain low-rank adapters are implemented")
    rank, alpha, base = raw.get("r"), raw.get("lora_alpha"), raw.get("base_model_name_or_path")
    if not isinstance(rank, int) or isinstance(rank, bool) or not 0 < rank <= limits.HIDDEN_SIZE:
        raise CorruptFile(f"{where} has r={show(repr(rank))}, wanted a count; download it again")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not abs(alpha) < 1e30:
        raise CorruptFile(f"{where} has lora_alpha={show(repr(alpha))}, wanted a number; download it again")
    for key in ("base_model_name_or_path", "revision", "task_type"):
        if not isinstance(raw.get(key), str | None):
            raise CorruptFile(f"{where} has {key}={show(repr(raw[key]))}, wanted a text; download it again")
    mapping = raw.get("auto_mapping")
    architecture = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    modern = folder.has(WEIGHTS) or not folder.has(LEGACY)
    found = files.safetensors(folder, WEIGHTS) if modern else legacy.entries(folder, LEGACY)
    return Adapter(
        where=str(folder),
        rank=rank,
        scale=alpha / math.sqrt(rank) if raw.get("use_rslora") else alpha / rank,
        base=base or "",
        revision=raw.get("revision"),
        task=raw.get("task_type"),
        architecture=architecture if isinstance(architecture, str) else None,
        entries=found,
    )


def base_of(folder: Folder, adapter: Adapter) -> Path | str:
    """Where the base of an adapter is to be looked for: a folder inside the adapter's, an absolute path, or a repo id.

    Raises UnsafeFile for a name that is none of these, InvalidInput where there is none.
    """
    name = adapter.base
    if not name:
        raise InvalidInput(f"{folder}/{CONFIG} names no base model; say which with base=")
    parts = name.split("/")
    plain = len(parts) <= 2 and all(PLAIN_NAME.fullmatch(part) and part.strip(".") for part in parts)
    if not plain and not (os.path.isabs(name) and ".." not in parts and name.isprintable()):
        raise UnsafeFile(f"{folder}/{CONFIG} names the base model {show(name)!r}; if you trust it, give it as base=")
    if adapter.revision and not PLAIN_NAME.fullmatch(adapter.revision):
        raise UnsafeFile(f"{folder}/{CONFIG} names the revision {show(adapter.revision)!r}; give the base as base=")
    inside = folder.path / name
    return inside if plain and inside.is_dir() and inside.resolve().is_relative_to(folder.path.resolve()) else name


def merged(adapter: Adapter, base: Mapping[str, Entry], layout: Layout) -> dict[str, Entry]:
    """The tensors of the base, by the table's spelling, with the adapter's put in or added when they are read.

    W + scale * B A is added up in float32. Raises CheckpointMismatch with all that does not fit, and Unsupported for
    layers that checkpoints keep fused.
    """
    factors: dict[str, dict[str, Entry]] = {}
    whole: dict[str, Entry] = {}
    for name, entry in adapter.entries.items():
        bare = name.removeprefix(PREFIX)
        hit = FACTOR.fullmatch(bare)
        among = factors.setdefault(layout.spell(f"{hit[1]}.weight"), {}) if hit else whole
        key = hit[2] if hit else layout.spell(bare)
        if key in among:
            raise CorruptFile(f"{adapter.where} holds {show(name)} under two spellings; remove one")
        among[key] = entry
    missing = [f"{name}: lora_{side}" for name, pair in factors.items() for side in "AB" if side not in pair]
    unexpected = [name for name in factors if name not in base or name in whole]
    unexpected += [name for name in whole if layout.stored(name) is None and not layout.ignores(name)]
    misshaped = []
    for name, pair in factors.items():
        if name in unexpected or len(pair) < 2:
            continue
        row = layout.stored(name)
        if row is not None and row.of > 1:
            raise Unsupported(f"{adapter.where} adapts {show(name)}, which is kept fused; not implemented")
        shape = base[name].shape if row is None else row.shape(base[name].shape)
        out, into = shape if len(shape) == 2 else (0, 0)
        for side, wanted in {"A": (adapter.rank, into), "B": (out, adapter.rank)}.items():
            if pair[side].shape != wanted or not pair[side].dtype.is_floating_point:
                found = f"{[*pair[side].shape]} of {pair[side].dtype}"
                misshaped.append(f"{name}: lora_{side} is {found}, base and rank ask {[*wanted]}")
    if missing or unexpected or misshaped:
        advice = "check that it belongs to this base, or name its own with base="
        raise CheckpointMismatch(f"the base of {adapter.where}", missing, unexpected, misshaped, advice)
    added = {}
    for name, pair in factors.items():
        row = layout.stored(name)
        transposed = row is not None and row.transposed
        added[name] = replace(base[name], read=_sum(base[name], pair["A"], pair["B"], adapter.scale, transposed))
    rows = [row for row in map(layout.stored, whole) if row is not None]
    outdated = {row.copy for row in rows} - whole.keys()  # the base's copies of what the adapter brings anew
    return {name: entry for name, entry in {**base, **added, **whole}.items() if name not in outdated}


def _sum(weight: Entry, a: Entry, b: Entry, scale: float, transposed: bool) -> Callable[[], Tensor]:
    def read() -> Tensor:
        stored = weight.read()
        wide = torch.promote_types(stored.dtype, torch.float32)
        product = b.read().to(wide) @ a.read().to(wide)
        return stored.to(wide) + scale * (product.t() if transposed else product)

    return read


def check_tied(adapter: Adapter, network: Network, layout: Layout, entries: Mapping[str, Entry]) -> None:
    """Raise Unsupported where the adapter trained a tensor of its own that the network shares with another.

    peft takes a copy of what it trains whole, and with it of an embedding that the head shares.
    """
    held = {layout.spell(name.removeprefix(PREFIX)) for name in adapter.entries}
    first = {id(tensor): name for name, tensor in network.named_parameters()}
    for name, tensor in network.named_parameters(remove_duplicate=False):
        theirs, shared = layout.find(name).name, layout.find(first[id(tensor)]).name
        if theirs == shared or theirs not in held or shared not in entries:
            continue
        if not torch.equal(entries[theirs].read(), entries[shared].read()):
            raise Unsupported(
                f"{adapter.where} trained {theirs} apart from {shared}, and the model shares them; "
                "set tie_word_embeddings to false in its config.json"
            )


def write(
    network: Network, factors: Mapping[str, tuple[Tensor, Tensor]], settings: Settings, layout: Layout, folder: Path
) -> None:
    """Write both files; `factors` are A (R, I) and B (O, R) of each adapted layer, by our names.

    With them goes the head, except for modules that have nothing of their own, such as one that reads words off with
    the embedding. Raises Unsupported for layers that checkpoints keep fused.
    """
    names = {name: layout.find(f"{name}.weight") for name in factors}
    if odd := [row.name for row in names.values() if row.of > 1]:
        raise Unsupported(f"checkpoints keep {show(odd[0])} fused; adapters of such are not implemented")
    head: dict[str, Tensor] = {
        theirs: tensor
        for ours, tensor in network.named_parameters(remove_duplicate=False)  # peft asks for what is tied as well
        if ours.startswith("head.")
        for theirs in filter(None, (layout.find(ours).name, layout.find(ours).copy))
    }
    modules = {name: row.name.removesuffix(".weight") for name, row in names.items()}
    bare = all(theirs.startswith(layout.trunk) for theirs in (*modules.values(), *head))
    cut = layout.trunk if bare else ""  # the reference's model of the trunk alone has no prefix
    frozen = {id(tensor) for ours, tensor in network.named_parameters() if not ours.startswith("head.")}
    learned = {_top(theirs, layout.trunk) for theirs, tensor in head.items() if id(tensor) not in frozen}
    head = {theirs: tensor for theirs, tensor in head.items() if _top(theirs, layout.trunk) in learned}
    tensors: dict[str, Tensor] = {f"{PREFIX}{theirs.removeprefix(cut)}": tensor for theirs, tensor in head.items()}
    for name, (a, b) in factors.items():
        tensors[f"{PREFIX}{modules[name].removeprefix(cut)}.lora_A.weight"] = a
        tensors[f"{PREFIX}{modules[name].removeprefix(cut)}.lora_B.weight"] = b
    with replacing(folder / WEIGHTS) as temporary:
        try:
            copies = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
            save_file(copies, temporary, metadata={"format": "pt"})
        except SafetensorError as error:
            raise TriarchError(f"cannot write {folder / WEIGHTS} ({show(error)}); the old file is untouched") from None
    config = {
        "peft_type": "LORA",
        "task_type": TASKS.get(settings.scores),
        "base_model_name_or_path": settings.base,
        "auto_mapping": {"base_model_class": settings.architecture, "parent_library": "transformers"},
        "inference_mode": True,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "use_rslora": settings.rslora,
        "bias": "none",
        "fan_in_fan_out": any(row.transposed for row in names.values()),
        "init_lora_weights": True,
        "target_modules": sorted(module.removeprefix(cut) for module in modules.values()),
        "modules_to_save": sorted({_top(theirs, layout.trunk).removeprefix(cut) for theirs in head}) or None,
    }
    write_text(folder / CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")


def _top(name: str, trunk: str) -> str:
    """The module right below the model, or below its trunk, that a tensor of the head lies in; peft nests none."""
    prefix = trunk if name.startswith(trunk) else ""
    return prefix + name.removeprefix(prefix).partition(".")[0]
