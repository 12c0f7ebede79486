"""The network that every block applies to each position by itself."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triarch.layers.dropout import Dropout

_gelu_tanh = partial(F.gelu, approximate="tanh")

# By the names of config.json's hidden_act. The tanh form goes by three names in the wild.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}


class FeedForward(nn.Module):
    def __init__(
        self, hidden_size: int, intermediate_size: int, activation: str, *, bias: bool = True, dropout: float = 0.0
    ):
        super().__init__()
        self.up = nn.Linear(hidden_size, intermediate_size, bias=bias)
        self.down = nn.Linear(intermediate_size, hidden_size, bias=bias)
        self.activation = ACTIVATIONS[activation]
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(_fitting(self.dropout(self.activation(self.up(x))), self.down))


class GatedFeedForward(nn.Module):
    """One layer says how much passes of what another makes. Shazeer 2020, https://arxiv.org/abs/2002.05202"""

    def __init__(
        self, hidden_size: int, intermediate_size: int, activation: str, *, bias: bool = False, dropout: float = 0.0
    ):
        super().__init__()
        self.gate = nn.Linear(hidden_size, intermediate_size, bias=bias)
        self.up = nn.Linear(hidden_size, intermediate_size, bias=bias)
        self.down = nn.Linear(intermediate_size, hidden_size, bias=bias)
        self.activation = ACTIVATIONS[activation]
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(_fitting(self.dropout(self.activation(self.gate(x)) * self.up(x)), self.down))


def _fitting(x: Tensor, layer: nn.Linear) -> Tensor:
    """A model of float16 may have a layer that is kept wider."""
    return x.to(layer.weight.dtype) if x.dtype == torch.float16 else x
