"""New parts for trained models.

A BART for a new source language gets an encoder of its own for it, with fresh weights, in the place of its token
vectors; then that encoder is trained with little else, and after that everything together. Lewis et al. 2019, section
3.4, https://arxiv.org/abs/1910.13461
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from triarch import checkpoint
from triarch.errors import InvalidInput, TriarchError, Unsupported, show
from triarch.family import Network
from triarch.models import family

WRITES = "BartForConditionalGeneration"


def add_source_encoder(
    bart: str | os.PathLike[str],
    tokenizer: str | os.PathLike[str],
    *,
    layers: int = 6,
    heads: int | None = None,
    intermediate_size: int | None = None,
    max_tokens: int | None = None,
    seed: int = 0,
) -> Network:
    """A BART that reads another language and writes as before: a model of the family `bart-source`.

    `tokenizer` is a folder with the vocabulary of the new language. The new encoder has so many `layers`; its other
    sizes are those of BART's encoder unless they are given, and what it gives is as long as the vectors it stands for.

    Raises Unsupported for a checkpoint of another family, InvalidInput for sizes that do not fit together, and what
    `load` and `load_tokenizer` raise.
    """
    if (found := checkpoint.opened(bart).kind.model_type) != "bart":
        raise Unsupported(f"{show(bart)} is of the family {found}, wanted bart; choose another")
    base = checkpoint.load(bart, head=WRITES, device="cpu")
    if base.processor is None:
        raise Unsupported(f"{show(bart)} has no tokenizer; put its vocabulary beside the weights")
    processor = checkpoint.load_tokenizer(tokenizer, family_name="bart")
    kind, c = family("bart-source"), base.config
    raw = c.to_hf() | {
        "source_vocab_size": processor.vocab_size,
        "source_layers": layers,
        "source_attention_heads": c.num_heads if heads is None else heads,
        "source_ffn_dim": c.intermediate_size if intermediate_size is None else intermediate_size,
        "source_max_position_embeddings": c.max_positions if max_tokens is None else max_tokens,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind.build(kind.config(raw), f"BartSource{WRITES.removeprefix('Bart')}")
    model = model.to(next(base.parameters()).dtype)
    absent, unknown = model.load_state_dict(base.state_dict(), strict=False)
    assert not unknown
    assert all(name.startswith("source_encoder.") for name in absent)
    with torch.no_grad():
        last = model.get_parameter(f"source_encoder.encoder.blocks.{layers - 1}.feed_forward_norm.weight")
        last.fill_(float(base.get_parameter("token.weight").float().std()) * (c.hidden_size**0.5 if c.scaled else 1.0))
    processor.max_tokens = min(processor.max_tokens, model.config.max_tokens)
    processor.write_with(base.processor)
    model.processor, model.sidecars = processor, base.sidecars
    model.fresh = absent
    return model


def save_new(model: Network, folder: str | os.PathLike[str]) -> None:
    """Save into a folder that is not there yet, or empty. Raises InvalidInput for one in use, and as `save`."""
    path = Path(folder)
    try:
        used = path.exists() and (not path.is_dir() or any(path.iterdir()))
    except OSError as error:
        raise TriarchError(f"cannot look into {show(path)} ({error.strerror}); choose another folder") from None
    if used:
        raise InvalidInput(f"{show(path)} is not empty; choose another folder")
    checkpoint.save(model, path)
