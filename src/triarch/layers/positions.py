"""Positions that are computed rather than learned: sines and cosines of one angle after the other.

Vaswani et al. 2017, section 3.5, https://arxiv.org/abs/1706.03762
"""

import torch
from torch import Tensor


def sinusoids(count: int, hidden_size: int) -> Tensor:
    """(count, hidden_size): sines in the even columns, cosines in the odd ones."""
    angle = _angles(torch.arange(count), hidden_size)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).float()


def sines_then_cosines(places: Tensor, hidden_size: int) -> Tensor:
    """Positions (T,) or (B, T) -> (T, hidden_size) or (B, T, hidden_size): the same, all sines before all cosines."""
    angle = _angles(places, hidden_size)
    return torch.cat([angle.sin(), angle.cos()], dim=-1).float()


def _angles(places: Tensor, hidden_size: int) -> Tensor:
    column = torch.arange(0, hidden_size, 2, dtype=torch.float64, device=places.device)
    return places[..., None].double() / 10_000 ** (column / hidden_size)
