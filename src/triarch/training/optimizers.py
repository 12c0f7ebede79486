"""Optimizers by name, and their state as plain tensors.

Each is a torch.optim.Optimizer. `set_rate` gives every group its share of the learning rate; `state_of` and `restore`
carry the state over files, to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Muon, Optimizer

from triarch.errors import CheckpointMismatch, InvalidInput, show
from triarch.training._options import check_names, number, pick
from triarch.training.parameters import Group

Groups = list[dict[str, Any]]  # as torch.optim takes them


class Lion(Optimizer):
    """The sign of an interpolated momentum. Chen et al. 2023, algorithm 2, https://arxiv.org/abs/2302.06675

    Its steps are larger than AdamW's at the same rate: the authors take a rate 3 to 10 times smaller, and a weight
    decay as many times larger.
    """

    def __init__(self, params: Groups, lr: float, betas: tuple[float, float]):
        super().__init__(params, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group, parameter, gradient, state in _learning(self):
            if not state:
                state["exp_avg"] = torch.zeros_like(parameter)
            momentum, (beta1, beta2) = state["exp_avg"], group["betas"]
            update = momentum.lerp(gradient, 1 - beta1).sign_()
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])
            momentum.lerp_(gradient, 1 - beta2)


class Adafactor(Optimizer):
    """Second moments kept as a row and a column of each matrix. Shazeer and Stern 2018, https://arxiv.org/abs/1804.04235

    As T5 was trained, and as the reference's own class with `relative_step=False`: algorithms 4 and 5 with clipped
    updates, no momentum, and the schedule's learning rate. torch.optim.Adafactor is another one: it caps the rate at
    1/sqrt(step) and stops learning where gradients are below 1e-7.
    """

    def __init__(self, params: Groups, lr: float, decay: float, clip: float, eps: tuple[float, float], scaled: bool):
        super().__init__(params, {"lr": lr, "decay": decay, "clip": clip, "eps": eps, "scaled": scaled})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group, parameter, gradient, state in _learning(self):
            if not state:
                shapes = _adafactor_slots(parameter, group)
                state.update({slot: parameter.new_zeros(shape) for slot, shape in shapes.items()})
                state["step"] = torch.zeros(())
            state["step"] += 1
            share = state["step"].item() ** -group["decay"]  # of the newest square in the averages
            squares = gradient.square().add_(group["eps"][0])
            if parameter.ndim >= 2:
                row = state["row"].lerp_(squares.mean(-1, keepdim=True), share)
                column = state["column"].lerp_(squares.mean(-2, keepdim=True), share)
                update = gradient * (row / row.mean(-2, keepdim=True)).rsqrt_() * column.rsqrt()
            else:
                update = gradient * state["square"].lerp_(squares, share).rsqrt()
            rate = group["lr"] / (_size(update) / group["clip"]).clamp_(min=1)
            scale = _size(parameter).clamp_(min=group["eps"][1]) if group["scaled"] else 1.0
            parameter.mul_(1 - group["lr"] * scale * group["weight_decay"]).sub_(update * (rate * scale))


def _learning(optimizer: Optimizer) -> Iterator[tuple[dict[str, Any], nn.Parameter, Tensor, dict[str, Any]]]:
    """What a step goes through: group, parameter, gradient and state, of each parameter that has a gradient."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                yield group, parameter, parameter.grad, optimizer.state[parameter]


def _size(x: Tensor) -> Tensor:
    """Root of the mean square."""
    return x.norm() / math.sqrt(x.numel())


class MuonWithAdamW(Optimizer):
    """Two that act as one: Muon on the matrices of hidden layers, AdamW on embeddings, head, norms and biases.

    Updates of Muon are scaled to the size of AdamW's, so that one rate and one weight decay are right for both: Liu et
    al. 2025, https://arxiv.org/abs/2502.16982, section 2.2. Muon itself: https://kellerjordan.github.io/posts/muon
    """

    def __init__(self, muon: Muon, adamw: AdamW | None):
        self.parts: list[Optimizer] = [muon] if adamw is None else [muon, adamw]
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self.param_groups = [group for part in self.parts for group in part.param_groups]  # the very same objects
        for part in self.parts:
            part.state = self.state

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()


# By name: groups, learning rate and options -> an optimizer


def _betas(beta1: float, beta2: float) -> tuple[float, float]:
    return _below_one("beta1", beta1), _below_one("beta2", beta2)


def _below_one(what: str, value: float) -> float:
    if number(what, value, 0, 1) == 1:
        raise InvalidInput(f"{what} of 1 never forgets what came first, wanted a number below 1")
    return float(value)


def _adamw(groups: Groups, lr: float, *, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> AdamW:
    """Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101"""
    places = {parameter.device.type for group in groups for parameter in group["params"]}
    fused = places <= {"cpu", "cuda"}  # one pass over memory instead of a dozen
    return AdamW(groups, lr=lr, betas=_betas(beta1, beta2), eps=number("eps", eps, 0), fused=fused)


def _lion(groups: Groups, lr: float, *, beta1: float = 0.9, beta2: float = 0.99) -> Lion:
    return Lion(groups, lr, _betas(beta1, beta2))


def _adafactor(
    groups: Groups,
    lr: float,
    *,
    decay: float = 0.8,
    clip: float = 1.0,
    eps: Sequence[float] = (1e-30, 1e-3),
    scale_parameter: bool = True,
) -> Adafactor:
    """`scale_parameter`: the rate is relative to the size of each parameter; T5 is fine-tuned so, at a rate of 1e-3."""
    if not isinstance(eps, list | tuple) or len(eps) != 2:
        raise InvalidInput(f"eps is {show(eps)}, wanted two numbers: for squared gradients, for the size of parameters")
    if not isinstance(scale_parameter, bool):
        raise InvalidInput(f"scale_parameter is {show(scale_parameter)}, wanted true or false")
    floors = (number("eps", eps[0], 0, above=True), number("eps", eps[1], 0))
    slowing, most = number("decay", decay, 0, 1, above=True), number("clip", clip, 0, above=True)
    return Adafactor(groups, lr, slowing, most, floors, scale_parameter)


def _muon(
    groups: Groups,
    lr: float,
    *,
    momentum: float = 0.95,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> MuonWithAdamW:
    """The betas and `eps` are those of the AdamW beside it."""
    hidden = [group for group in groups if group["hidden"]]
    others = [group for group in groups if not group["hidden"]]
    if not hidden:
        raise InvalidInput("muon found no matrix of a hidden layer that learns, wanted at least one; take adamw")
    muon = Muon(hidden, lr=lr, momentum=_below_one("momentum", momentum), adjust_lr_fn="match_rms_adamw")
    return MuonWithAdamW(muon, _adamw(others, lr, beta1=beta1, beta2=beta2, eps=eps) if others else None)


def _sgd(groups: Groups, lr: float, *, momentum: float = 0.9, nesterov: bool = False) -> SGD:
    """Its weight decay is that of the gradient, and so passes through the momentum."""
    if not isinstance(nesterov, bool) or (nesterov and not momentum):
        raise InvalidInput(f"nesterov is {show(nesterov)}, wanted false, or true with some momentum")
    return SGD(groups, lr=lr, momentum=_below_one("momentum", momentum), nesterov=nesterov)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adamw": _adamw,
    "lion": _lion,
    "adafactor": _adafactor,
    "muon": _muon,
    "sgd": _sgd,
}


def optimizer(name: str, groups: Sequence[Group], lr: float, **options: Any) -> Optimizer:
    """The optimizer of that name, for groups as parameters.groups() gives them; `lr` is the peak rate.

    Raises InvalidInput for an unknown name or option, and for values out of range.
    """
    make = pick("optimizer", name, OPTIMIZERS)
    check_names(f"optimizer {name}", make, options)
    made = make(
        [
            {
                "params": list(group.parameters.values()),
                "weight_decay": group.weight_decay,
                "share": group.share,
                "hidden": group.hidden,
            }
            for group in groups
        ],
        number("learning rate", lr, 0, above=True),
        **options,
    )
    set_rate(made, lr)
    return made


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Give each group its share of the rate, to be used by the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]


# State, in files: what a parameter has of it is fixed by the optimizer and the parameter's shape


def _adamw_slots(parameter: Tensor, group: Mapping[str, Any]) -> dict[str, torch.Size]:
    return {"step": torch.Size(), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}


def _lion_slots(parameter: Tensor, group: Mapping[str, Any]) -> dict[str, torch.Size]:
    return {"exp_avg": parameter.shape}


def _adafactor_slots(parameter: Tensor, group: Mapping[str, Any]) -> dict[str, torch.Size]:
    if parameter.ndim < 2:
        return {"step": torch.Size(), "square": parameter.shape}
    *more, rows, columns = parameter.shape
    return {"step": torch.Size(), "row": torch.Size([*more, rows, 1]), "column": torch.Size([*more, 1, columns])}


def _muon_slots(parameter: Tensor, group: Mapping[str, Any]) -> dict[str, torch.Size]:
    return {"momentum_buffer": parameter.shape} if group["hidden"] else _adamw_slots(parameter, group)


def _sgd_slots(parameter: Tensor, group: Mapping[str, Any]) -> dict[str, torch.Size]:
    return {"momentum_buffer": parameter.shape} if group["momentum"] else {}


SLOTS: dict[type[Optimizer], tuple[str, Callable[[Tensor, Mapping[str, Any]], dict[str, torch.Size]]]] = {
    AdamW: ("adamw", _adamw_slots),
    Lion: ("lion", _lion_slots),
    Adafactor: ("adafactor", _adafactor_slots),
    MuonWithAdamW: ("muon", _muon_slots),
    SGD: ("sgd", _sgd_slots),
}


def state_of(optimizer: Optimizer, parameters: Mapping[str, nn.Parameter]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of an optimizer of these parameters: tensors by "<parameter>.<slot>", and the rest, as JSON takes it.

    The tensors are those that the optimizer goes on working with: write them, or copy them, before the next step.
    """
    name, _ = SLOTS[type(optimizer)]
    tensors: dict[str, Tensor] = {}
    started: list[str] = []  # parameters that have learned; those frozen so far have no state
    for parameter_name, parameter, _ in _named(optimizer, parameters):
        state = {slot: value for slot, value in optimizer.state.get(parameter, {}).items() if value is not None}
        tensors |= {f"{parameter_name}.{slot}": value for slot, value in state.items()}
        if state:
            started.append(parameter_name)
    return tensors, {"optimizer": name, "started": started}


def restore(
    optimizer: Optimizer,
    tensors: Mapping[str, Tensor],
    scalars: Mapping[str, Any],
    parameters: Mapping[str, nn.Parameter],
) -> None:
    """Take over what `state_of` gave, copied to where the parameters are; nothing is changed if anything is wrong.

    Raises InvalidInput for the state of another optimizer, CheckpointMismatch for that of another model.
    """
    own, slots_of = SLOTS[type(optimizer)]
    name, started = scalars.get("optimizer"), scalars.get("started")
    if name != own or not isinstance(started, list):
        raise InvalidInput(f"state is that of optimizer {show(name)!r}, wanted {own}; go on with the one it began with")
    held = {name: (parameter, group) for name, parameter, group in _named(optimizer, parameters)}
    strange = [show(name) for name in started if name not in held]
    wanted: dict[str, tuple[nn.Parameter, str]] = {}
    misshaped: list[str] = []
    for name in filter(held.__contains__, started):
        parameter, group = held[name]
        for slot, shape in slots_of(parameter, group).items():
            wanted[key := f"{name}.{slot}"] = parameter, slot
            dtype = torch.float32 if slot == "step" else parameter.dtype
            if key in tensors and (tensors[key].shape, tensors[key].dtype) != (shape, dtype):
                misshaped.append(key)
    missing, unexpected = sorted(wanted.keys() - tensors.keys()), sorted({*strange, *(tensors.keys() - wanted.keys())})
    if missing or unexpected or misshaped:
        advice = "go on with the model and the settings that it began with"
        raise CheckpointMismatch(f"the state of optimizer {own}", missing, unexpected, misshaped, advice)
    optimizer.state.clear()
    for key, (parameter, slot) in wanted.items():
        # Step counts stay on the CPU, where reading them waits for nothing, unless one kernel does the whole step
        place = parameter.device if slot != "step" or isinstance(optimizer, AdamW | MuonWithAdamW) else "cpu"
        optimizer.state[parameter][slot] = tensors[key].to(place, copy=True)


def _named(
    optimizer: Optimizer, parameters: Mapping[str, nn.Parameter]
) -> Iterator[tuple[str, nn.Parameter, dict[str, Any]]]:
    names = {id(parameter): name for name, parameter in parameters.items()}
    for group in optimizer.param_groups:
        yield from ((names[id(parameter)], parameter, group) for parameter in group["params"])
