"""Blocks as in the first transformer, and a stack of them.

Vaswani et al. 2017, section 3.1, https://arxiv.org/abs/1706.03762: the norm comes after each residual sum. With
`norm_first` it comes before what is added. Xiong et al. 2020, https://arxiv.org/abs/2002.04745
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from triarch.layers.attention import Attention
from triarch.layers.cache import NOTHING, Past, Slots
from triarch.layers.dropout import Dropout
from triarch.layers.feed_forward import FeedForward
from triarch.layers.source import Source

MOST_OF_HALF = torch.finfo(torch.float16).max - 1000  # beyond lies infinity, and no number after it


class Block(nn.Module):
    """Attention, then feed-forward; in the decoder of an encoder–decoder, attention onto the source between them."""

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        intermediate_size: int,
        activation: str,
        *,
        norm_eps: float,
        attention_dropout: float,
        attention_out_dropout: float,
        feed_forward_dropout: float,
        activation_dropout: float = 0.0,
        norm_first: bool = False,
        layer: int | None = None,
    ):
        """`layer`: its number in a decoder that looks at a source; None for a block that looks at none."""
        super().__init__()
        self.norm_first, self.layer = norm_first, layer
        self.attention = Attention(hidden_size, num_heads, dropout=attention_dropout)
        self.attention_norm = nn.LayerNorm(hidden_size, norm_eps)
        if layer is not None:
            self.cross_attention = Attention(hidden_size, num_heads, dropout=attention_dropout)
            self.cross_attention_norm = nn.LayerNorm(hidden_size, norm_eps)
        self.feed_forward = FeedForward(hidden_size, intermediate_size, activation, dropout=activation_dropout)
        self.feed_forward_norm = nn.LayerNorm(hidden_size, norm_eps)
        self.attention_dropout = Dropout(attention_out_dropout)
        self.feed_forward_dropout = Dropout(feed_forward_dropout)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, source: Source | None = None, past: Past = NOTHING
    ) -> Tensor:
        x = self._attended(x, mask, past)
        if self.layer is not None and source is not None:
            layer, read = self.layer, source
            x = self._added(
                x,
                self.cross_attention_norm,
                lambda x: self.attention_dropout(self.cross_attention.across(x, read, layer)),
            )
        return self._added(x, self.feed_forward_norm, lambda x: self.feed_forward_dropout(self.feed_forward(x)))

    def cross_map(self, x: Tensor, mask: Tensor | None, source: Source) -> Tensor:
        """Where each token looks in the source: (B, H, T, S)."""
        x = self._attended(x, mask, NOTHING)
        x = self.cross_attention_norm(x) if self.norm_first else x
        return self.cross_attention.weights(x, source.mask, source.states)

    def _attended(self, x: Tensor, mask: Tensor | None, past: Past) -> Tensor:
        return self._added(x, self.attention_norm, lambda x: self.attention_dropout(self.attention(x, mask, past)))

    def _added(self, x: Tensor, norm: nn.Module, made: Callable[[Tensor], Tensor]) -> Tensor:
        """The sum of `x` and what is made of it, with the norm where this kind of block has it.

        Where no norm comes after, sums grow from block to block; those of float16 stay short of its end.
        """
        if not self.norm_first:
            return norm(x + made(x))
        x = x + made(norm(x))
        return x.clamp(-MOST_OF_HALF, MOST_OF_HALF) if x.dtype == torch.float16 else x


class Encoder(nn.Module):
    """Blocks one after the other: (B, T, D) -> (B, T, D)."""

    def __init__(self, blocks: Iterable[Block]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            x = block(x, mask)
        return x

    def attention_maps(self, x: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """For people who want to look: (B, H, T, T) of each block."""
        maps = []
        for block in self.blocks:
            assert isinstance(block, Block)
            maps.append(block.attention.weights(block.attention_norm(x) if block.norm_first else x, mask))
            x = block(x, mask)
        return maps


class Decoder(nn.Module):
    """Blocks that look at a source, one after the other: (B, T, D) -> (B, T, D)."""

    def __init__(self, blocks: Iterable[Block]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, source: Source, slots: Slots) -> Tensor:
        mask = slots.mask()
        for layer, block in enumerate(self.blocks):
            x = block(x, mask, source, slots[layer])
        return x

    def cross_maps(self, x: Tensor, source: Source, slots: Slots) -> list[Tensor]:
        """For people who want to look: (B, H, T, S) of each block, with one target for each source."""
        mask, maps = slots.mask(), []
        for block in self.blocks:
            assert isinstance(block, Block)
            maps.append(block.cross_map(x, mask, source))
            x = block(x, mask, source)
        return maps
