"""Linear layers whose weights lie in memory as oneDNN reads them fastest, which on a CPU is what decoding waits for.

`pack(model)` changes a loaded model in place; answers are the same up to rounding, memory is the same but for a head
that shares its weights with the embedding, which then has them twice. Saving a packed model gives the plain weights.
The operators are private ones of torch: where they are not there, or cannot take a layer's type, it stays as it is.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

ROWS = 16  # tokens at once for which the layout is chosen; it serves one as well as hundreds


class Packed(nn.Module):
    """y = x W^T + b, for inference alone: (..., I) -> (..., O)."""

    weight: Tensor  # (O, I), in a layout of oneDNN's own

    def __init__(self, linear: nn.Linear, *, shared: bool):
        """`shared`: the weight has an owner elsewhere in the model, which is the one to save it."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), ROWS)
        if shared:
            self.weight = weight
        else:
            self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features)
        y = torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, "none", [], "")
        return y.view(*x.shape[:-1], self.out_features)


def pack(model: nn.Module) -> int:
    """Pack every linear layer that can be; returns how many were. The model is for inference from then on."""
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    packed = 0
    for module in [*model.modules()]:
        for name, child in module.named_children():
            if type(child) is nn.Linear and can_pack(child.weight.dtype, child.weight.device.type):
                setattr(module, name, Packed(child, shared=owners[id(child.weight)] > 1))
                packed += 1
    return packed


@cache
def can_pack(dtype: torch.dtype, device: str) -> bool:
    """Whether this torch, on this processor, has the operators for a type. float16 has none."""
    if device != "cpu" or dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    try:
        probe = Packed(nn.Linear(2, 2, dtype=dtype), shared=True)
        return probe(torch.zeros(1, 2, dtype=dtype)).shape == (1, 2)
    except (AttributeError, RuntimeError, TypeError):  # gone, or with other arguments
        return False
