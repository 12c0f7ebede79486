"""Scaled dot-product attention with several heads.

Vaswani et al. 2017, section 3.2, https://arxiv.org/abs/1706.03762

Shapes: B sequences, T tokens that look, S tokens that are looked at, H heads, K key-value heads, E size of a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triarch.layers.cache import NOTHING, Past
from triarch.layers.dropout import dropped_attention
from triarch.layers.source import Source


def padding_mask(attention_mask: Tensor | None) -> Tensor | None:
    """(B, T) of 1 for real tokens -> (B, 1, 1, T) of True where attention may look; None where that is everywhere."""
    return None if attention_mask is None else attention_mask.bool()[:, None, None, :]


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, scale: float | None = None, dropout: float = 0.0
) -> Tensor:
    """q (B, H, T, E) onto k and v (B, K, S, E) -> (B, H, T, E); each key-value head serves H / K heads in turn.

    Ainslie et al. 2023, https://arxiv.org/abs/2305.13245
    """
    H, K, T = q.shape[1], k.shape[1], q.shape[2]
    if H != K and T == 1 and not dropout:  # the heads that share keys look as if they were tokens: nothing is copied
        shared = q.view(q.shape[0], K, H // K, q.shape[3])
        return _product(shared, k, v, mask, scale).view_as(q)
    if H != K:
        k, v = k.repeat_interleave(H // K, 1), v.repeat_interleave(H // K, 1)
    if dropout:
        return dropped_attention(q, k, v, mask, dropout, scale)
    return _product(q, k, v, mask, scale)


def _product(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """What torch has for it; for one query in bfloat16 its CPU kernel takes three times as long as for two."""
    if q.shape[2] == 1 and q.dtype == torch.bfloat16 and q.device.type == "cpu":
        twice = torch.cat([q, q], 2)
        return F.scaled_dot_product_attention(twice, k, v, attn_mask=mask, scale=scale)[:, :, :1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


def attend_source(
    q: Tensor,
    keys_values: tuple[Tensor, Tensor],
    source: Source,
    *,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """q (N, H, T, E) onto keys and values (U, H, S, E) of the source -> (N, H, T, E).

    The rows of a source look as if they were tokens of one: what they share is neither copied nor read several times.
    """
    k, v = keys_values
    C = source.copies
    together = q if C == 1 else q.unflatten(0, (-1, C)).transpose(1, 2).flatten(2, 3)  # (U, H, C * T, E)
    y = attend(together, k, v, source.mask, scale=scale, dropout=dropout)
    return y if C == 1 else y.unflatten(2, (C, -1)).transpose(1, 2).flatten(0, 1)


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None, scale: float | None = None) -> Tensor:
    """How much each token looks at each: q (B, H, T, E) onto k (B, H, S, E) -> (B, H, T, S), rows sum to 1."""
    scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    return (scores if mask is None else scores.masked_fill(~mask, torch.finfo(scores.dtype).min)).softmax(-1)


class Attention(nn.Module):
    """Attention of tokens onto one another, or onto those of a source."""

    def __init__(self, hidden_size: int, num_heads: int, *, dropout: float = 0.0, qkv_bias: bool = True):
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.q = nn.Linear(hidden_size, hidden_size, bias=qkv_bias)
        self.k = nn.Linear(hidden_size, hidden_size, bias=qkv_bias)
        self.v = nn.Linear(hidden_size, hidden_size, bias=qkv_bias)
        self.out = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, mask: Tensor | None = None, past: Past = NOTHING) -> Tensor:
        """(B, T, D) -> (B, T, D), onto what the `past` holds too."""
        q, (k, v) = self._split(self.q(x)), past.extend(*self._keys_values(x))
        return self._joined(attend(q, k, v, mask, dropout=self.dropout if self.training else 0.0))

    def across(self, x: Tensor, source: Source, layer: int) -> Tensor:
        """(N, T, D) onto the source, of which the keys and values of the decoder's layer of that number are made."""
        q, made = self._split(self.q(x)), source.keys_values(layer, self._keys_values)
        if source.maps is not None:
            source.maps.append(attention_weights(q, made[0], source.mask))
        return self._joined(attend_source(q, made, source, dropout=self.dropout if self.training else 0.0))

    def weights(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Where each token looks, for people to see: (B, H, T, T); `forward` never forms this matrix."""
        return attention_weights(self._split(self.q(x)), self._split(self.k(x)), mask)

    def _keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        return self._split(self.k(context)), self._split(self.v(context))

    def _joined(self, y: Tensor) -> Tensor:
        return self.out(y.transpose(1, 2).flatten(2))  # (B, H, T, D/H) -> (B, T, D)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, T, D) -> (B, H, T, D/H)
