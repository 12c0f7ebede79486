"""How every model that is used, and not trained, is loaded and made fast: by pipelines, the shell and `evaluate`."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import torch
from torch import nn

from triarch import checkpoint
from triarch.engine.linear import LEAST, FastLinear, can_pack
from triarch.errors import InvalidInput, show
from triarch.family import Network
from triarch.generation.settings import WRITES
from triarch.kinds import TargetWordScores
from triarch.layers import low_rank

# Without AVX-512, oneDNN takes 1.3 to 1.7 times as long as the ordinary layer for one row, and less for several: there
# only models are packed that write several rows as a rule, which are encoder–decoders with their beams
PACKED = WRITES if torch.backends.cpu.get_cpu_capability() != "AVX2" else (TargetWordScores,)
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load(model: str | os.PathLike[str] | checkpoint.Opened, *, precision: str | None = None, **options: Any) -> Network:
    """Load a checkpoint in eval mode and prepare it for use: a folder, or a repo id from the hub or its cache.

    `precision` is the type in which the model's linear layers multiply, see `prepare`. The other options, such as
    `dtype`, `device` and `revision`, and the errors are those of `checkpoint.load`.
    """
    _check_name(precision)
    return prepare(checkpoint.load(model, **options), precision)


def prepare(model: Network, precision: str | None = None) -> Network:
    """Replace linear layers of a loaded model, in place, where others are faster. Answers are the same up to rounding.

    `precision` None: layers multiply in the type in which the model was loaded. "float32" or "bfloat16": in this type;
    everything else, such as norms and embeddings, keeps the type of the model. In "bfloat16" a model of float32 takes
    half the memory, and its rounded weights can be neither saved nor trained. In "float32" a model of bfloat16 or
    float16 multiplies more exactly, takes twice the memory, and is saved as it was.

    `model.train()` and `low_rank.wrap` put the ordinary layers back, and `save` writes the ordinary weights. To be
    called before the model is used by several threads, never meanwhile.

    Raises InvalidInput for another precision, for one that does not suit the type of the model, and for low-rank
    adapters that are not merged.
    """
    product = _check_name(precision)
    if low_rank.wrapped(model):
        raise InvalidInput("the model has low-rank adapters; merge them first")
    held = next(tensor.dtype for tensor in model.parameters() if tensor.is_floating_point())
    if product is not None and (held == torch.float64 or (held, product) == (torch.float16, torch.bfloat16)):
        kind = str(held).removeprefix("torch.")
        raise InvalidInput(f'precision {precision} is no use to a model of {kind}; load it with dtype="{precision}"')
    owners = Counter(id(tensor) for module in model.modules() for tensor in module.parameters(recurse=False))
    made: dict[nn.Module, FastLinear] = {}
    for module in [*model.modules()]:
        for name, child in module.named_children():
            if type(child) is not nn.Linear:
                continue
            weight = child.weight
            wanted = product or weight.dtype
            packs = model.kind in PACKED and weight.numel() >= LEAST and can_pack(wanted, weight.device.type)
            if packs or wanted != weight.dtype:
                if child not in made:
                    made[child] = FastLinear(child, wanted, packs=packs, shared=owners[id(weight)] > 1)
                setattr(module, name, made[child])
    return model


def _check_name(precision: str | None) -> torch.dtype | None:
    if precision is not None and precision not in PRECISIONS:
        raise InvalidInput(f"precision is {show(repr(precision))}, wanted {' or '.join(PRECISIONS)}, or None")
    return None if precision is None else PRECISIONS[precision]
