"""Load and save: config.json -> family -> model -> weights -> processor, and back."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from triarch import heads, hub, limits
from triarch.config import Config
from triarch.errors import (
    CorruptFile,
    InvalidInput,
    LimitExceeded,
    NotFound,
    TriarchError,
    UnsafeFile,
    show,
)
from triarch.family import Network, TextFormat
from triarch.files import PLAIN_NAME, Folder, replacing, write_text
from triarch.inputs.text.processor import TextProcessor, load_text
from triarch.layers import low_rank
from triarch.models import Family, family
from triarch.weights import adapters, files, table
from triarch.weights.adapters import Adapter
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
ADAPTERS = 4  # one upon the other; a longer chain goes in a circle


def load(
    model: "str | os.PathLike[str] | Opened",
    *,
    head: str | None = None,
    scores: Sequence[type | str] = (),
    dtype: str | torch.dtype = "auto",
    device: str | int | torch.device = "auto",
    revision: str | None = None,
    new_head: bool = False,
    labels: list[str] | None = None,
    base: str | os.PathLike[str] | None = None,
) -> Network:
    """Load a checkpoint in eval mode: a folder, a repo id from the hub or its cache, or what `opened` found there.

    `head` is an architecture by the name config.json would give it; without it, the checkpoint's own, or one that gives
    any of `scores` (types of `kinds`, or their names) and whose weights the file holds. `new_head=True` takes the first
    head of the family that gives them where the file holds none, and starts afresh what the head needs and the file
    lacks, or has for other `labels`; the model's `fresh` lists it. `dtype` "auto" is what the config says, else what
    the file holds.

    A folder with a low-rank adapter gives the model it was trained on with the adapter's weights merged in. That model
    is `base`, or the one that adapter_config.json names: a folder inside the adapter's, an absolute path, or a repo id.

    Raises NotFound, Offline, CorruptFile, UnsafeFile, Unsupported, InvalidInput and CheckpointMismatch.
    """
    found = model if isinstance(model, Opened) else opened(model, revision=revision, base=base)
    raw, kind, entries = found.raw, found.kind, found.entries
    if labels is not None:
        raw = raw | label_tables(labels)
    config = kind.config(raw)
    wanted = [one if isinstance(one, str) else one.__name__ for one in scores]
    architecture = head or heads.choose(kind, config, entries, wanted, new_head=new_head)
    network = kind.outline(config, architecture)
    table.untie(network, kind.weights, entries)
    for adapter in found.adapters:
        adapters.check_tied(adapter, network, kind.weights, entries)
    if new_head:
        renamed = labels is not None and labels != list(kind.config(found.raw).id2label.values())
        strange = heads.foreign(kind, config, architecture, renamed=renamed)
        entries = {name: entry for name, entry in entries.items() if name not in strange}
    place = pick_device(device)
    table.load(network, kind.weights, entries, dtype=pick_dtype(dtype, raw, entries), device=place, new_head=new_head)
    network.processor = found.processor(config)
    network.sidecars = {}
    for folder in reversed(found.folders):
        network.sidecars |= sidecars_of(folder)
    return network


@dataclass(frozen=True)
class Opened:
    """A checkpoint of which nothing but the headers has been read."""

    folders: list[Folder]  # that of the model; before it those of adapters upon it, the last one first
    adapters: list[Adapter]  # in the order of their folders
    raw: dict[str, Any]  # config.json
    kind: Family
    entries: dict[str, Entry]  # by the table's spelling, the adapters merged in as they are read

    def processor(self, config: Config) -> TextProcessor | None:
        """That of the first folder that has one: what lies beside an adapter goes before what its base has."""
        found = (load_processor(folder, self.kind, config) for folder in self.folders)
        return next((processor for processor in found if processor is not None), None)


def opened(
    model: str | os.PathLike[str], *, revision: str | None = None, base: str | os.PathLike[str] | None = None
) -> Opened:
    """Find a checkpoint, and what it says of itself. Arguments and errors are those of `load`."""
    folder = hub.find(model, revision)
    chain, bottom = _chain(folder, base)
    raw, kind = _described(chain, bottom)
    entries = table.spell(kind.weights, files.entries(bottom))
    for _, adapter in reversed(chain):
        entries = adapters.merged(adapter, entries, kind.weights)
    return Opened([*(source for source, _ in chain), bottom], [adapter for _, adapter in chain], raw, kind, entries)


def _chain(folder: Folder, base: str | os.PathLike[str] | None) -> tuple[list[tuple[Folder, Adapter]], Folder]:
    """The adapters that lie one upon the other, the last one first, and the folder of the model at the bottom.

    `base` is that of the first one, in place of what its file names.
    """
    if base is not None and not adapters.present(folder):
        raise InvalidInput(f"{folder} holds no {adapters.CONFIG}, so it has no other base; leave base out")
    chain: list[tuple[Folder, Adapter]] = []
    bottom = folder
    while adapters.present(bottom):
        if len(chain) == ADAPTERS:
            raise LimitExceeded(f"{folder} is an adapter on over {ADAPTERS - 1} others, or on itself; name its base=")
        adapter = adapters.read(bottom)
        chain.append((bottom, adapter))
        if base is not None and len(chain) == 1:
            bottom = hub.find(base)
        else:
            bottom = hub.find(adapters.base_of(bottom, adapter), adapter.revision)
    return chain, bottom


def _described(chain: list[tuple[Folder, Adapter]], bottom: Folder) -> tuple[dict[str, Any], Family]:
    """The config.json of the last adapter that has one, else of the model, with the head that the adapter names."""
    for folder, adapter in chain:
        if folder.has("config.json"):
            return describe(folder)
        if adapter.architecture or adapter.task:
            raw, kind = describe(bottom)
            scores = next((scores for scores, task in adapters.TASKS.items() if task == adapter.task), None)
            if adapter.architecture in kind.heads:
                raw = raw | {"architectures": [adapter.architecture]}
            elif scores is not None and kind.kind(heads.own(kind, kind.config(raw))) is not scores:
                raw = raw | {"architectures": [heads.giving(kind, scores.__name__)]}
            return raw, kind
    return describe(bottom)


def load_processor(folder: Folder, kind: Family, config: Any) -> TextProcessor | None:
    """What turns raw input into a model's tensors; None if the folder holds no files of it."""
    if kind.text is None:
        return None
    return load_text(
        folder,
        kind.text,
        vocab_size=config.vocab_size,
        max_tokens=config.max_tokens,
        target_vocab_size=config.target_vocab_size,
        max_target_tokens=config.max_target_tokens,
    )


def describe(folder: Folder) -> tuple[dict[str, Any], Family]:
    """config.json as it stands, and the family it names."""
    raw = folder.json("config.json")
    if not isinstance(raw, dict):
        raise CorruptFile(f"{folder}/config.json is a {type(raw).__name__}, wanted an object; download it again")
    model_type = raw.get("model_type")
    if not isinstance(model_type, str):
        raise InvalidInput(f'{folder}/config.json has no model_type; add the family\'s name, such as "bert"')
    return raw, family(model_type)


def load_tokenizer(
    model: str | os.PathLike[str], *, family_name: str | None = None, revision: str | None = None
) -> TextProcessor:
    """What reads and writes the text of a checkpoint, or of a folder that holds a tokenizer and nothing else.

    The family, which config.json names otherwise, has to be given for a bare vocabulary such as vocab.txt. Raises what
    `load_text` raises, and NotFound where there is no tokenizer.
    """
    folder = hub.find(model, revision)
    if folder.has("config.json") and family_name is None:
        raw, kind = describe(folder)
        processor = load_processor(folder, kind, kind.config(raw))
    else:
        alone = TextFormat(single="$A", pair="$A $B", specials={})  # tokenizer.json says the rest
        text_format = (family(family_name).text if family_name else None) or alone
        if text_format is alone and not folder.has("tokenizer.json"):
            raise NotFound(f"{folder} has no tokenizer.json and no config.json; say which family its vocabulary is of")
        processor = load_text(folder, text_format, vocab_size=limits.VOCABULARY, max_tokens=limits.POSITIONS)
        if processor is not None:
            for one in (processor, processor.target):
                one.vocab_size = max(one.tokenizer.get_vocab().values()) + 1
            inputs = processor.config.get("model_input_names")
            processor.segments |= isinstance(inputs, list) and "token_type_ids" in inputs
    if processor is None:
        raise NotFound(f"{folder} holds no tokenizer; wanted tokenizer.json, or a vocabulary")
    return processor


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

    Each file appears whole or not at all, the config last. Raises TriarchError when the folder cannot be written,
    InvalidInput for a model whose low-rank adapters are not merged.
    """
    _check_model(model)
    if low_rank.wrapped(model):
        raise InvalidInput("the model has low-rank adapters; merge them first, or use save_adapter")
    path = _made(folder, model)
    tensors = table.export(model, model.family.weights.under(model.architecture))
    files.write(tensors, path, shard_bytes)
    _write_beside(model, path)


def save_adapter(model: Network, folder: str | os.PathLike[str], *, base: str | os.PathLike[str]) -> None:
    """Write the low-rank adapters and the head of a model that `low_rank.wrap` has wrapped, in the format of peft.

    `base` is the model that they were trained on, a repo id or a folder; of a folder the absolute path is kept. With
    config.json and the tokenizer beside, `load` needs nothing else. Raises InvalidInput for a model without adapters.
    """
    _check_model(model)
    layers = low_rank.wrapped(model)
    kinds = {(layer.rank, layer.alpha, layer.dropout.p, layer.rslora) for layer in layers.values()}
    if len(kinds) != 1:
        raise InvalidInput(
            f"the model has {len(kinds) or 'no'} kinds of low-rank adapters, wanted one; wrap() it first"
        )
    rank, alpha, dropout, rslora = kinds.pop()
    name = os.fsdecode(base)
    settings = adapters.Settings(
        rank=rank,
        alpha=alpha,
        dropout=dropout,
        rslora=rslora,
        base=os.path.abspath(name) if os.path.isdir(name) else name,
        scores=model.kind,
        architecture=model.architecture,
    )
    factors = {name: (layer.a.detach(), layer.b.detach()) for name, layer in layers.items()}
    path = _made(folder, model)
    adapters.write(model, factors, settings, model.family.weights.under(model.architecture), path)
    _write_beside(model, path)


def _check_model(model: object) -> None:
    if not isinstance(model, Network):
        raise InvalidInput(f"model is {type(model).__name__}, wanted one that load() or build() gave")


def _made(folder: str | os.PathLike[str], model: Network) -> Path:
    """The folder, which is made where it is not there, and those of the sidecars."""
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        for name in model.sidecars:
            (path / name).parent.mkdir(exist_ok=True)
    except OSError as error:
        raise TriarchError(f"cannot make the folder {show(path)} ({error.strerror}); choose another") from None
    return path


def _write_beside(model: Network, path: Path) -> None:
    """Everything but the weights, the config last."""
    for name, data in model.sidecars.items():
        with replacing(path / name) as temporary:
            temporary.write_bytes(data)
    if model.processor is not None:
        model.processor.save(path)
    dtype = next(t.dtype for t in model.parameters() if t.is_floating_point())
    raw = {key: value for key, value in model.config.to_hf().items() if key != "dtype"}
    raw |= {
        "architectures": [model.architecture],
        "model_type": model.family.model_type,
        "torch_dtype": str(dtype).removeprefix("torch."),  # the spelling that both major versions read
    }
    write_text(path / "config.json", json.dumps(raw, indent=2, sort_keys=True) + "\n")
