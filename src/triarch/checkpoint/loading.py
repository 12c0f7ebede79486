"""Load: config.json -> family -> model -> weights -> processor."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from triarch import hub, limits
from triarch.checkpoint import choose
from triarch.checkpoint.device import pick_device, pick_dtype
from triarch.config import Config
from triarch.errors import (
    CorruptFile,
    InvalidInput,
    LimitExceeded,
    NotFound,
    UnsafeFile,
    show,
)
from triarch.family import Network
from triarch.files import PLAIN_NAME, Folder
from triarch.inputs.text.format import TextFormat
from triarch.inputs.text.processor import TextProcessor
from triarch.models import Family, family
from triarch.weights import adapters, files, table
from triarch.weights.adapters import Adapter
from triarch.weights.stored import Entry

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
    """Load a checkpoint in eval mode: a folder, a repo id from the hub or its cache, or what `opened` gave.

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
    architecture = head or choose.choose(kind, config, entries, wanted, new_head=new_head)
    network = kind.outline(config, architecture)
    table.untie(network, kind.weights, entries)
    for adapter in found.adapters:
        adapters.check_tied(adapter, network, kind.weights, entries)
    if new_head:
        renamed = labels is not None and labels != list(kind.config(found.raw).id2label.values())
        strange = choose.foreign(kind, config, architecture, renamed=renamed)
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

    def processor(self, config: Config) -> Any:
        """A `Processor`, or None: that of the first folder that has one. What lies beside an adapter goes before what
        its base has."""
        found = (self.kind.reads.load(folder, config) for folder in self.folders)
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
            elif scores is not None and kind.head(choose.own(kind, kind.config(raw))).kind is not scores:
                raw = raw | {"architectures": [choose.giving(kind, scores.__name__)]}
            return raw, kind
    return describe(bottom)


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
        if not isinstance(kind.reads, TextFormat):
            raise InvalidInput(f"{folder} holds a {kind.model_type}, which reads {kind.medium.name}, no text")
        processor = kind.reads.load(folder, kind.config(raw))
        if processor is None:
            raise NotFound(f"{folder} holds no tokenizer; wanted tokenizer.json, or a vocabulary")
    else:
        alone = TextFormat(single="$A", pair="$A $B", specials={})  # tokenizer.json says the rest
        text_format = family(family_name).reads if family_name else alone
        if not isinstance(text_format, TextFormat):
            raise InvalidInput(f"{family_name} reads no text; name the family that the vocabulary is of")
        if text_format is alone and not folder.has("tokenizer.json"):
            raise NotFound(f"{folder} has no tokenizer.json and no config.json; say which family its vocabulary is of")
        processor = text_format.alone(folder)
    return processor


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
