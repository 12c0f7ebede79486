"""Positions that are computed rather than learned."""

import torch
from torch import Tensor


def sinusoids(count: int, hidden_size: int) -> Tensor:
    """(count, hidden_size): sines in the even columns, cosines in the odd ones. Vaswani et al. 2017, section 3.5."""
    column = torch.arange(0, hidden_size, 2, dtype=torch.float64)
    angle = torch.arange(count, dtype=torch.float64)[:, None] / 10_000 ** (column / hidden_size)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).float()
