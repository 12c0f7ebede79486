"""Stacks of blocks. The blocks themselves are written out in the file of each family.

Shapes: B sequences, T tokens, D hidden size, H heads.
"""

from collections.abc import Iterable

from torch import Tensor, nn

from triarch.layers.attention import Attention
from triarch.layers.cache import Slots
from triarch.layers.source import Source


class Encoder(nn.Module):
    """Blocks one after the other: (B, T, D) -> (B, T, D)."""

    def __init__(self, blocks: Iterable[nn.Module], *, norm_first: bool = False):
        """`norm_first`: attention reads what the block's `attention_norm` makes of its input."""
        super().__init__()
        self.blocks, self.norm_first = nn.ModuleList(blocks), norm_first

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            x = block(x, mask)
        return x

    def attention_maps(self, x: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """Where each token looks, for people to see: (B, H, T, T) of each block."""
        maps = []
        for block in self.blocks:
            attention, norm = block.get_submodule("attention"), block.get_submodule("attention_norm")
            assert isinstance(attention, Attention)
            maps.append(attention.weights(norm(x) if self.norm_first else x, mask))
            x = block(x, mask)
        return maps


class Decoder(nn.Module):
    """Blocks that look at a source, one after the other: (B, T, D) -> (B, T, D)."""

    def __init__(self, blocks: Iterable[nn.Module]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, source: Source, slots: Slots) -> Tensor:
        mask = slots.mask()
        for layer, block in enumerate(self.blocks):
            x = block(x, mask, source, slots[layer])
        return x
