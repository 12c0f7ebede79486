"""Linear layers for a model that is not being trained: packed weights, and products in another precision.

On a CPU writing waits for weights to be read from memory, and oneDNN reads them fastest in a layout of its own. A layer
packs its weight at the first call without gradients, so that loading takes no longer; the ordinary copy is dropped. At
the first call with gradients it gets its ordinary weight back and keeps it. The operators are private ones of torch:
where they are missing, or cannot take a layer's type, the layer stays ordinary.

Shapes: (..., I) -> (..., O).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triarch.layers.brick import Brick

ROWS = 16  # tokens at once for which the layout is chosen; it serves one as well as hundreds
LEAST = 1 << 19  # weights of a layer; oneDNN's fixed cost by call makes smaller ones slower than ordinary layers
_LOCK = Lock()  # held while a weight changes its layout, never while a product is computed


class FastLinear(Brick, nn.Linear):
    """y = x W^T + b, multiplied in the type `product` and given back in the type of the model.

    `shared`: the weight also belongs to another layer, such as the token embedding. It stays as it is then, and this
    layer holds a copy.
    """

    weight: nn.Parameter  # (O, I); while it is packed, in oneDNN's layout, which only `to_dense` can read
    training: bool

    def __init__(self, linear: nn.Linear, product: torch.dtype, *, packs: bool, shared: bool):
        nn.Module.__init__(self)
        self.__dict__.update(linear.__dict__)  # its parameters, sizes and hooks
        self.stored, self.product = linear.weight.dtype, product
        self.packs, self.shared = packs, shared
        self.fast: Tensor | None = None  # what is multiplied with, where that is not the weight itself
        self.version = 0  # of the shared weight that `fast` was made of
        self.ordinary = not packs and not (shared and product != self.stored)  # `fast` is not to be made
        if not shared:
            self.weight.data = self.weight.data.to(product)

    @property
    def rounded(self) -> bool:
        return not self.shared and torch.promote_types(self.product, self.stored) != self.product

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self._multiplied(x)
        bias: Tensor | None = self.bias
        if self.product is not self.stored:
            x, bias = x.to(self.product), None if bias is None else bias.to(self.product)
            weight = weight if weight.is_mkldnn else weight.to(self.product)
        if weight.is_mkldnn:
            y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        else:
            y = F.linear(x, weight, bias)
        return y if self.product is self.stored else y.to(self.stored)

    def plain(self) -> nn.Linear:
        self.settle()
        if not self.shared:
            self.weight.data = self.weight.data.to(self.stored)
        made = nn.Linear.__new__(nn.Linear)
        made.__dict__.update(self.__dict__)
        return made

    def settle(self) -> None:
        """Unpack the weight, for good."""
        with _LOCK, torch.inference_mode(False):
            if self.weight.is_mkldnn:
                _exchange(self.weight, self.weight.detach().to_dense())
            self.ordinary = True
            self.fast = None  # last: until then other threads go on with it

    def _multiplied(self, x: Tensor) -> Tensor:
        """The weight to multiply with now."""
        if torch.is_grad_enabled() or torch.is_autocast_enabled(x.device.type):
            if not self.shared and not self.ordinary:
                self.settle()
            return self.weight
        fast = self.fast
        if fast is None or (self.shared and _version(self.weight) != self.version):
            fast = None if self.ordinary else self._made()
        return self.weight if fast is None else fast

    def _made(self) -> Tensor | None:
        """`fast`, made once whatever number of threads ask for it."""
        with _LOCK, torch.inference_mode(False), torch.no_grad():
            version = _version(self.weight)
            if self.ordinary or (self.fast is not None and self.version == version):
                return self.fast
            made = self.weight.detach().to(self.product)
            if self.packs:
                made = torch.ops.mkldnn._reorder_linear_weight(made, ROWS)
            if not self.shared:
                try:
                    _exchange(self.weight, made)
                except RuntimeError:  # something outside, such as a graph of gradients, refers to the ordinary weight
                    self.ordinary = True
                    return None
                version = _version(self.weight)
            self.fast, self.version = made, version
            return made

    # Copies, moves and state know the ordinary weight alone

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__ | {"fast": None}
        if self.weight.is_mkldnn:
            dense = nn.Parameter(self.weight.detach().to_dense(), self.weight.requires_grad)
            state["_parameters"] = self._parameters | {"weight": dense}
        return state

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FastLinear:
        self.settle()
        super()._apply(fn, recurse)
        if self.weight.dtype != (self.stored if self.shared else self.product):  # as `model.half()` does
            self.stored = self.product = self.weight.dtype
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        weight = destination[f"{prefix}weight"]
        if weight.is_mkldnn:
            weight = weight.detach().to_dense()
        destination[f"{prefix}weight"] = weight if self.shared or self.rounded else weight.to(self.stored)

    def _load_from_state_dict(self, *args: Any) -> None:
        self.settle()
        super()._load_from_state_dict(*args)


def _exchange(parameter: nn.Parameter, tensor: Tensor) -> None:
    """Give a parameter another tensor, also of another layout; whoever holds the parameter holds the new one."""
    torch.utils.swap_tensors(parameter, nn.Parameter(tensor, parameter.requires_grad))


def _version(tensor: Tensor) -> int:
    """Rises with each change in place."""
    return 0 if tensor.is_inference() else tensor._version


@cache
def can_pack(dtype: torch.dtype, device: str) -> bool:
    """Whether this torch, on this processor, has the operators for a type. float16 has none."""
    if device != "cpu" or dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    try:
        weight = torch.ops.mkldnn._reorder_linear_weight(torch.zeros(2, 2, dtype=dtype), ROWS)
        found: Tensor = torch.ops.mkldnn._linear_pointwise(torch.zeros(1, 2, dtype=dtype), weight, None, "none", [], "")
        return found.shape == (1, 2)
    except (AttributeError, RuntimeError, TypeError):  # gone, or with other arguments
        return False
