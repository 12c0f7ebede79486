"""Scaled dot-product attention with several heads.

Vaswani et al. 2017, section 3.2, https://arxiv.org/abs/1706.03762
"""

import torch.nn.functional as F
from torch import Tensor, nn

from triarch.layers.dropout import dropped_attention


def padding_mask(attention_mask: Tensor) -> Tensor:
    """(B, T) of 1 for real tokens -> (B, 1, 1, T) of True where attention may look."""
    return attention_mask.bool()[:, None, None, :]


class Attention(nn.Module):
    """Attention over `x`, or from `x` onto `context`."""

    def __init__(self, hidden_size: int, num_heads: int, *, dropout: float = 0.0):
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.q = nn.Linear(hidden_size, hidden_size)
        self.k = nn.Linear(hidden_size, hidden_size)
        self.v = nn.Linear(hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        q, k, v = self._split(self.q(x)), self._split(self.k(context)), self._split(self.v(context))
        if self.training and self.dropout:
            y = dropped_attention(q, k, v, mask, self.dropout)
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (B, H, T, D/H)
        return self.out(y.transpose(1, 2).flatten(2))  # (B, T, D)

    def weights(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Where each token looks: (B, H, T, T), rows sum to 1. For people; `forward` never forms this matrix."""
        q, k = self._split(self.q(x)), self._split(self.k(x))
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        return (scores if mask is None else scores.masked_fill(~mask, float("-inf"))).softmax(-1)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, T, D) -> (B, H, T, D/H)
