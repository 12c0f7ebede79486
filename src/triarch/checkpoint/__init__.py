"""From a folder or a repo id to a model, and back: which head, which weights, which device."""

from triarch.checkpoint import choose
from triarch.checkpoint.device import pick_device, pick_dtype
from triarch.checkpoint.loading import Opened, describe, label_tables, load, load_tokenizer, opened, sidecars_of
from triarch.checkpoint.saving import save, save_adapter

__all__ = [
    "Opened",
    "choose",
    "describe",
    "label_tables",
    "load",
    "load_tokenizer",
    "opened",
    "pick_device",
    "pick_dtype",
    "save",
    "save_adapter",
    "sidecars_of",
]
