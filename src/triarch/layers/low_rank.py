"""LoRA: a frozen linear layer, and beside it a product of two narrow matrices that learns.

Hu et al. 2021, https://arxiv.org/abs/2106.09685; rsLoRA: Kalajdzievski 2023, https://arxiv.org/abs/2312.03732

Shapes: (..., I) -> (..., O) as the linear layer; R is the rank.
"""

import math
import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triarch import limits
from triarch.errors import InvalidInput, show, some
from triarch.layers.brick import plain
from triarch.layers.dropout import Dropout
from triarch.suggest import did_you_mean

HEAD = "head."  # the head of a network is trained whole, so nothing in it is wrapped
ALL_LINEAR = r"(.+\.)?blocks\.\d+\..+"  # every linear layer inside the blocks


class LowRank(nn.Module):
    """y = linear(x) + scale * B A dropout(x), equation 3 of the paper; `linear` is frozen."""

    def __init__(
        self,
        linear: nn.Linear,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        *,
        rslora: bool = False,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.rank, self.alpha, self.rslora = rank, alpha, rslora
        self.dropout = Dropout(dropout)
        self.a = nn.Parameter(linear.weight.new_empty(rank, linear.in_features))  # (R, I)
        self.b = nn.Parameter(linear.weight.new_zeros(linear.out_features, rank))  # (O, R); zero: at first it adds none
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5), generator=generator)  # as in the paper's code

    @property
    def scale(self) -> float:
        return scale(self.rank, self.alpha, self.rslora)

    def forward(self, x: Tensor) -> Tensor:
        low: Tensor = F.linear(self.dropout(x), self.a)  # (..., R)
        return self.linear(x) + self.scale * F.linear(low, self.b)

    def merged(self) -> nn.Linear:
        """The plain layer that gives the same: W + scale * B A, added up in float32."""
        with torch.no_grad():
            whole = self.linear.weight.float() + self.scale * (self.b.float() @ self.a.float())
            self.linear.weight = nn.Parameter(whole.to(self.linear.weight.dtype))
        return self.linear.requires_grad_(True)


def scale(rank: int, alpha: float, rslora: bool) -> float:
    """What the product is multiplied by."""
    return alpha / math.sqrt(rank) if rslora else alpha / rank


def wrap(
    model: nn.Module,
    targets: str | Sequence[str] = ALL_LINEAR,
    *,
    rank: int = 8,
    alpha: float = 16.0,
    dropout: float = 0.0,
    rslora: bool = False,
    generator: torch.Generator | None = None,
) -> list[str]:
    """Freeze the model and put a `LowRank` in the place of linear layers; returns their names.

    `targets` is a regular expression for whole names ("encoder.blocks.0.attention.q"), or a list of names or of their
    ends ("q", "feed_forward.up"); by default every linear layer inside the blocks. The head is never wrapped and stays
    trainable, except for what it shares with the rest. A wrapped layer's state is `<name>.linear.weight`,
    `<name>.linear.bias`, `<name>.a` and `<name>.b`.

    Raises InvalidInput for numbers out of bounds, for targets that fit nothing, and for a model that is wrapped already
    or whose weights `precision` has rounded.
    """
    _check(rank, alpha, dropout)
    if wrapped(model):
        raise InvalidInput("the model is wrapped already; merge it first")
    plain(model)
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    names = _chosen(targets, [name for name in linear if not name.startswith(HEAD)])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(HEAD))
    for name in names:
        layer = LowRank(linear[name], rank, alpha, dropout, rslora=rslora, generator=generator)
        _replace(model, name, layer.train(linear[name].training))
    return names


def wrapped(model: nn.Module) -> dict[str, LowRank]:
    """The wrapped layers, by their names."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LowRank)}


def merge(model: nn.Module) -> list[str]:
    """Fold every `LowRank` into a plain linear layer; returns their names. All parameters are trainable again."""
    found = wrapped(model)
    for name, module in found.items():
        _replace(model, name, module.merged())
    model.requires_grad_(True)
    return [*found]


def _check(rank: int, alpha: float, dropout: float) -> None:
    if type(rank) is not int or not 0 < rank <= limits.HIDDEN_SIZE:
        raise InvalidInput(f"rank is {show(rank)}, wanted a count such as 8")
    if type(alpha) not in (int, float) or not 0 < alpha < math.inf:
        raise InvalidInput(f"alpha is {show(alpha)}, wanted a positive number such as 16")
    if type(dropout) not in (int, float) or not 0 <= dropout < 1:
        raise InvalidInput(f"dropout is {show(dropout)}, wanted a number from 0 to below 1")


def _chosen(targets: str | Sequence[str], names: list[str]) -> list[str]:
    if isinstance(targets, str):
        try:
            pattern = re.compile(targets)
        except re.error as error:
            raise InvalidInput(f"targets {show(targets)!r} is no regular expression ({show(error)}); mend it") from None
        if chosen := [name for name in names if pattern.fullmatch(name)]:
            return chosen
        raise InvalidInput(f"targets {show(targets)!r} fits no linear layer outside the head; there are {some(names)}")
    if not isinstance(targets, list | tuple) or not targets or not all(isinstance(target, str) for target in targets):
        raise InvalidInput(f"targets are {show(repr(targets))}, wanted a regular expression or a list of names")
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name in names):
            hint = did_you_mean(target, {name.rpartition(".")[2] for name in names})
            raise InvalidInput(f"no linear layer {show(target)!r} outside the head{hint}; there are {some(names)}")
    return [name for name in names if any(f".{name}".endswith(f".{target}") for target in targets)]


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
