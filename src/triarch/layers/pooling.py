"""From the vectors of tokens to one for their text.

Reimers & Gurevych 2019, https://arxiv.org/abs/1908.10084; the names are those of the sentence-transformers library.

Shapes: B texts, T tokens, D hidden size. `mask` (B, T) is true for the tokens that count, at least one in each row.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def first(x: Tensor, mask: Tensor) -> Tensor:
    return x[torch.arange(len(x), device=x.device), mask.int().argmax(1)]


def last(x: Tensor, mask: Tensor) -> Tensor:
    return first(x.flip(1), mask.flip(1))


def mean(x: Tensor, mask: Tensor) -> Tensor:
    return _summed(x, mask) / mask.sum(1, keepdim=True)


def mean_by_root(x: Tensor, mask: Tensor) -> Tensor:
    """The sum over the root of the number of tokens."""
    return _summed(x, mask) / mask.sum(1, keepdim=True).sqrt()


def mean_by_place(x: Tensor, mask: Tensor) -> Tensor:
    """The mean in which the first token counts once, the second twice, and so on."""
    weights = mask.cumsum(1) * mask
    return _summed(x, weights) / weights.sum(1, keepdim=True)


def largest(x: Tensor, mask: Tensor) -> Tensor:
    """The largest of each number."""
    return x.masked_fill(~mask[..., None], float("-inf")).amax(1)


def _summed(x: Tensor, weights: Tensor) -> Tensor:
    return (x * weights[..., None].to(x.dtype)).sum(1)


POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # (B, T, D), (B, T) -> (B, D)
    "cls_token": first,
    "mean_tokens": mean,
    "max_tokens": largest,
    "mean_sqrt_len_tokens": mean_by_root,
    "weightedmean_tokens": mean_by_place,
    "lasttoken": last,
}
