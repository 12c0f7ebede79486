"""Load and save: config.json -> family -> model -> weights -> processor, and back."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from triarch import hub, limits
from triarch.config import Config
from triarch.errors import CorruptFile, InvalidInput, LimitExceeded, TriarchError, UnsafeFile, Unsupported, show
from triarch.family import Network
from triarch.files import PLAIN_NAME, Folder, replacing, write_text
from triarch.inputs.text import TextProcessor, load_text
from triarch.models import Family, family
from triarch.models import scores as scores_of
from triarch.weights import files, table
from triarch.weights.stored import Entry

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}

# Beside the weights, kept and saved as they are; the folders of modules.json come on top
SIDECARS = ("generation_config.json", "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json")
MODULE_FILES = ("config.json", "model.safetensors")


def load(
    model: str | os.PathLike[str],
    *,
    head: str | None = None,
    scores: Sequence[str] = (),
    dtype: str | torch.dtype = "auto",
    device: str | int | torch.device = "auto",
    revision: str | None = None,
    new_head: bool = False,
    labels: list[str] | None = None,
) -> Network:
    """Load a checkpoint in eval mode: a folder, or a repo id from the hub or its cache.

    `head` is an architecture by the name config.json would give it; without it, the checkpoint's own, or one that gives
    any of `scores` (types of `family.py`) and whose weights the file holds. `new_head=True` starts a head afresh on a
    trunk that lacks it, with one class for each of `labels`. `dtype` "auto" is what the config says, else what the file
    holds.

    Raises NotFound, Offline, CorruptFile, UnsafeFile, Unsupported, InvalidInput and CheckpointMismatch.
    """
    folder = hub.find(model, revision)
    raw, kind = describe(folder)
    if labels is not None:
        raw = raw | label_tables(labels)
    config = kind.config(raw)
    entries = table.spell(kind.weights, files.entries(folder))
    architecture = head or choose_head(kind, config, entries, scores)
    network = kind.outline(config, architecture)
    place = pick_device(device)
    table.load(network, kind.weights, entries, dtype=pick_dtype(dtype, raw, entries), device=place, new_head=new_head)
    network.processor = load_processor(folder, kind, config)
    network.sidecars = sidecars_of(folder)
    return network


def load_processor(folder: Folder, kind: Family, config: Any) -> TextProcessor | None:
    """What turns raw input into a model's tensors; None if the folder holds no files of it."""
    if kind.text is None:
        return None
    return load_text(folder, kind.text, vocab_size=config.vocab_size, max_tokens=config.max_tokens)


def describe(folder: Folder) -> tuple[dict[str, Any], Family]:
    """config.json as it stands, and the family it names."""
    raw = folder.json("config.json")
    if not isinstance(raw, dict):
        raise CorruptFile(f"{folder}/config.json is a {type(raw).__name__}, wanted an object; download it again")
    model_type = raw.get("model_type")
    if not isinstance(model_type, str):
        raise InvalidInput(f'{folder}/config.json has no model_type; add the family\'s name, such as "bert"')
    return raw, family(model_type)


def choose_head(kind: Family, config: Config, entries: dict[str, Entry], wanted: Sequence[str] = ()) -> str:
    """The checkpoint's own head, or another of the family that gives the `wanted` scores and has its weights there.

    Raises Unsupported when there is none.
    """
    own = config.extra.get("architectures") or []
    if not isinstance(own, list) or not all(isinstance(name, str) for name in own):
        raise InvalidInput("config architectures is not a list of names; mend config.json")
    first = own[0] if own else next(iter(kind.heads))
    if not wanted or scores_of(kind.head(first)).__name__ in wanted:
        return first
    for name, head in kind.heads.items():
        held = scores_of(head).__name__ in wanted and entries.keys() >= set(_head_weights(kind, config, name).values())
        if held and not borrows(kind, config, name, first):
            return name
    raise Unsupported(
        f"{first} has no head that gives {' or '.join(wanted)}; choose another checkpoint, or train a head"
    )


def borrows(kind: Family, config: Config, name: str, own: str) -> bool:
    """Whether a head would read weights of the checkpoint's own under another meaning.

    A classifier of sequences and one of tokens have weights of the same names and shapes.
    """
    needed, used = (_head_weights(kind, config, architecture) for architecture in (name, own))
    return any(used.get(ours) != theirs and theirs in used.values() for ours, theirs in needed.items())


def _head_weights(kind: Family, config: Config, architecture: str) -> dict[str, str]:
    """Our names of a head's weights, with the checkpoint's."""
    names = [name for name in table.parameters(kind.outline(config, architecture)) if name.startswith("head.")]
    return {name: kind.weights.find(name).name for name in names}


def pick_device(device: str | int | torch.device) -> torch.device:
    """`auto`, a name, or a number as the reference counts: -1 is the CPU. Raises InvalidInput for one there is not."""
    if type(device) is int:
        device = "cpu" if device < 0 else f"cuda:{device}"
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
        torch.empty(0, device=picked)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError):
        raise InvalidInput(f"device {show(device)!r} is not one of this machine; use cpu, or auto") from None
    return picked


def pick_dtype(dtype: str | torch.dtype, raw: dict[str, Any], entries: dict[str, Entry]) -> torch.dtype:
    """One floating-point type for the whole model. Both major versions' spellings of the config are read."""
    if dtype == "auto":
        dtype = raw.get("dtype", raw.get("torch_dtype")) or _most_common_dtype(entries)
    if isinstance(dtype, str):
        dtype = DTYPES.get(dtype.removeprefix("torch."), dtype)
    if dtype not in DTYPES.values():
        raise InvalidInput(f"dtype {show(dtype)!r} is not one of {', '.join(DTYPES)}; use auto")
    assert isinstance(dtype, torch.dtype)
    return dtype


def _most_common_dtype(entries: dict[str, Entry]) -> torch.dtype:
    sizes: dict[torch.dtype, int] = {torch.float32: 0}
    for entry in entries.values():
        if entry.dtype in DTYPES.values():
            sizes[entry.dtype] = sizes.get(entry.dtype, 0) + entry.nbytes
    return max(sizes, key=lambda dtype: sizes[dtype])


def label_tables(labels: list[str]) -> dict[str, Any]:
    """The three keys in which config.json keeps the names of the classes."""
    if not isinstance(labels, list | tuple) or not all(isinstance(name, str) for name in labels):
        raise InvalidInput(f"labels are {show(repr(labels))}, wanted a list of names")
    id2label = {str(i): name for i, name in enumerate(labels)}
    label2id = {name: i for i, name in enumerate(labels)}
    if len(label2id) < len(labels) or not labels:
        raise InvalidInput(f"labels {show(labels)} are empty or not distinct; name each class once")
    return {"id2label": id2label, "label2id": label2id, "num_labels": len(labels)}


def sidecars_of(folder: Folder) -> dict[str, bytes]:
    names = [name for name in SIDECARS if folder.has(name)]
    if "modules.json" in names:
        modules = folder.json("modules.json")
        if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
            raise CorruptFile(f"{folder}/modules.json is not a list of objects; download it again")
        if len(modules) > limits.MODULES:
            raise LimitExceeded(f"{folder}/modules.json lists {len(modules):,} modules; no model has as many")
        for path in filter(None, (module.get("path") for module in modules)):
            if not isinstance(path, str) or not PLAIN_NAME.fullmatch(path):
                raise UnsafeFile(f"{folder}/modules.json names the folder {show(path)!r}, which is not a plain name")
            names += [f"{path}/{name}" for name in MODULE_FILES if folder.has(f"{path}/{name}")]
    return {name: folder.read(name, limits.SIDECAR_BYTES) for name in dict.fromkeys(names)}


def save(model: Network, folder: str | os.PathLike[str], *, shard_bytes: int = 5_000_000_000) -> None:
    """Write a folder that the reference library opens unchanged: config, weights, tokenizer and what lay beside.

    Each file appears whole or not at all, the config last. Raises TriarchError when the folder cannot be written.
    """
    if not isinstance(model, Network):
        raise InvalidInput(f"model is {type(model).__name__}, wanted one that load() or build() gave")
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        for name in model.sidecars:
            (path / name).parent.mkdir(exist_ok=True)
    except OSError as error:
        raise TriarchError(f"cannot make the folder {show(path)} ({error.strerror}); choose another") from None
    tensors = table.export(model, model.family.weights)
    files.write(tensors, path, shard_bytes)
    for name, data in model.sidecars.items():
        with replacing(path / name) as temporary:
            temporary.write_bytes(data)
    if model.processor is not None:
        model.processor.save(path)
    dtype = next(t.dtype for t in tensors.values() if t.is_floating_point())
    raw = {key: value for key, value in model.config.to_hf().items() if key != "dtype"}
    raw |= {
        "architectures": [model.architecture],
        "model_type": model.family.model_type,
        "torch_dtype": str(dtype).removeprefix("torch."),  # the spelling that both major versions read
    }
    write_text(path / "config.json", json.dumps(raw, indent=2, sort_keys=True) + "\n")
