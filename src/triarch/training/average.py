"""A running mean of the weights, which is often better than the last of them.

Polyak and Juditsky 1992; here in its exponential form, as in TensorFlow's ExponentialMovingAverage, warm-up included.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from triarch.errors import CheckpointMismatch, InvalidInput
from triarch.training._options import number


class Average:
    """mean = decay * mean + (1 - decay) * weights, after each step; kept in float32 or better.

    With `warmup` the decay begins lower, at (1 + step) / (10 + step), so that the mean of a short run isn't mostly
    its start.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float = 0.999, *, warmup: bool = True):
        if number("average", decay, 0, 1) == 1:
            raise InvalidInput("average is 1, which never learns anything, wanted a number below 1")
        self.parameters, self.decay, self.warmup = dict(parameters), float(decay), warmup
        self.means = {name: self._wide(parameter.detach()).clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights that `step`, counted from 0, has left."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay
        for name, parameter in self.parameters.items():
            self.means[name].lerp_(self._wide(parameter), 1 - decay)

    @torch.no_grad()
    def apply(self) -> None:
        """Put the mean in the place of the weights, for good."""
        for name, parameter in self.parameters.items():
            parameter.copy_(self.means[name])

    @contextmanager
    def swap(self) -> Iterator[None]:
        """The mean in the place of the weights, which come back at the end to the bit."""
        kept = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(kept[name])

    def state(self) -> dict[str, Tensor]:
        """The means by the names of their parameters: the tensors that it goes on working with."""
        return self.means

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave. Raises CheckpointMismatch for the means of another model."""
        missing, unexpected = sorted(self.means.keys() - tensors.keys()), sorted(tensors.keys() - self.means.keys())
        shared = sorted(self.means.keys() & tensors.keys())
        misshaped = [
            name
            for name in shared
            if (tensors[name].shape, tensors[name].dtype) != (self.means[name].shape, self.means[name].dtype)
        ]
        if missing or unexpected or misshaped:
            advice = "go on with the model and the settings that it began with"
            raise CheckpointMismatch("the running mean of the weights", missing, unexpected, misshaped, advice)
        for name, mean in self.means.items():
            mean.copy_(tensors[name])

    @staticmethod
    def _wide(tensor: Tensor) -> Tensor:
        return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
