"""Dropout, and attention with dropout, for training on a CPU as well as on a GPU.

Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html

On a CPU torch draws one random number after the other for each element, which is a quarter of the time of a training
step. Here one number of 64 bits serves four elements, each with a chance that is right to 1/65,536. The generator is
torch's own, so that its seed decides what is dropped.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CHANCES = 1 << 16  # values of the 16 bits that decide on an element


class Dropout(nn.Dropout):
    """Sets a share `p` of the elements to zero while training, and scales the others by 1 / (1 - p)."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        return _Dropout.apply(x, self.p) if x.device.type == "cpu" else F.dropout(x, self.p)


def dropped_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, p: float, scale: float | None = None
) -> Tensor:
    """Scaled dot-product attention with dropout on its weights: (B, H, T, D) each -> (B, H, T, D).

    `mask` is True where attention may look, or what is added to the scores, broadcast to (B, H, T, T); `scale` is what
    products of q and k are multiplied by, D^-0.5 if not given. The same as torch's up to rounding.
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p, scale=scale)
    return _Attention.apply(q, k, v, mask, p, q.shape[-1] ** -0.5 if scale is None else scale)


def kept(shape: torch.Size, p: float) -> Tensor:
    """A bool tensor that is False with the chance `p`."""
    count = math.prod(shape)
    drawn = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(1 << 63), None)
    threshold = round(p * CHANCES) - CHANCES // 2
    return (drawn.view(torch.int16)[:count] >= threshold).view(shape)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        ctx.scale = 1 / (1 - p) if p < 1 else 0.0
        mask = kept(x.shape, p)
        ctx.save_for_backward(mask)
        return (x * mask).mul_(ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return (grad * mask).mul_(ctx.scale), None


class _Attention(torch.autograd.Function):
    """Written out so that the (T, T) matrices stay in the dtype of q: under autocast they would be cast four times."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, p: float, scale: float) -> Tensor:
        ctx.scale, ctx.rest = scale, 1 / (1 - p) if p < 1 else 0.0
        scores = torch.matmul(q * ctx.scale, k.transpose(-1, -2))
        if mask is not None and mask.dtype == torch.bool:
            scores.masked_fill_(~mask, torch.finfo(scores.dtype).min)
        elif mask is not None:
            scores += mask
        ctx.biased = None if mask is None else (mask.shape, mask.dtype)
        weights = scores.softmax(-1)
        keep = kept(weights.shape, p)
        ctx.save_for_backward(q, k, v, weights, keep)
        return torch.matmul((weights * keep).mul_(ctx.rest), v)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None, None, None]:
        q, k, v, weights, keep = ctx.saved_tensors
        keep = keep.to(weights.dtype).mul_(ctx.rest)
        grad_v = torch.matmul((weights * keep).transpose(-1, -2), grad)
        grad_weights = torch.matmul(grad, v.transpose(-1, -2)).mul_(keep)
        grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
        grad_mask = None
        if ctx.needs_input_grad[3]:
            shape, dtype = ctx.biased
            grad_mask = grad_scores.to(dtype).sum_to_size(shape)
        grad_q = torch.matmul(grad_scores, k).mul_(ctx.scale)  # not the scores themselves: they may be grad_mask
        grad_k = torch.matmul(grad_scores.transpose(-1, -2), q).mul_(ctx.scale)
        return grad_q, grad_k, grad_v, grad_mask, None, None
