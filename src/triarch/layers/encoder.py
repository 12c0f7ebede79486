"""A stack of blocks as in the first transformer: the norm comes after each residual sum.

Vaswani et al. 2017, section 3.1, https://arxiv.org/abs/1706.03762
"""

from collections.abc import Iterable

from torch import Tensor, nn

from triarch.layers.attention import Attention
from triarch.layers.dropout import Dropout
from triarch.layers.feed_forward import FeedForward


class PostNormBlock(nn.Module):
    """Attention, then feed-forward."""

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
    ):
        super().__init__()
        self.attention = Attention(hidden_size, num_heads, dropout=attention_dropout)
        self.attention_norm = nn.LayerNorm(hidden_size, norm_eps)
        self.feed_forward = FeedForward(hidden_size, intermediate_size, activation)
        self.feed_forward_norm = nn.LayerNorm(hidden_size, norm_eps)
        self.attention_dropout = Dropout(attention_out_dropout)
        self.feed_forward_dropout = Dropout(feed_forward_dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.attention_norm(x + self.attention_dropout(self.attention(x, mask=mask)))
        return self.feed_forward_norm(x + self.feed_forward_dropout(self.feed_forward(x)))


class Encoder(nn.Module):
    """Blocks one after the other: (B, T, D) -> (B, T, D)."""

    def __init__(self, blocks: Iterable[PostNormBlock]):
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
            assert isinstance(block, PostNormBlock)
            maps.append(block.attention.weights(x, mask))
            x = block(x, mask)
        return maps
