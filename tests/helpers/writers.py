"""A tiny random GPT-2 with a byte-level vocabulary: it writes nonsense, but any nonsense."""

import json
from pathlib import Path

import torch

import triarch
from tiny import VOCABULARY
from triarch.models import family


def write(folder: Path, *, seed: int = 0, ends: bool = True, **config) -> Path:
    """A folder for `triarch.load`; without `ends` nothing says which token ends a text."""
    vocabulary = json.loads((VOCABULARY / "vocab.json").read_text())
    specials = {"unk_token": "<unk>", "bos_token": "<s>", "pad_token": "<pad>"} | (
        {"eos_token": "</s>"} if ends else {}
    )
    raw = family("gpt2").tiny.to_hf() | {
        "vocab_size": len(vocabulary) + 4,  # rows of the embedding that no token has
        "n_positions": 256,
        "eos_token_id": vocabulary["</s>"] if ends else None,
        **config,
    }
    kind = family("gpt2")
    torch.manual_seed(seed)
    model = kind.build(kind.config(raw), "GPT2LMHeadModel")
    with torch.no_grad():
        for tensor in model.parameters():
            torch.nn.init.normal_(tensor, std=0.5 if tensor.dim() == 1 else 0.2)
    triarch.save(model, folder)
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_bytes((VOCABULARY / name).read_bytes())
    settings = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False} | specials
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def writer(folder: Path, **options):
    return triarch.load(write(folder, **options))
