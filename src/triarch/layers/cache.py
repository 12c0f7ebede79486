"""Keys and values of tokens that attention has seen, so that each token is computed once.

Shapes: B sequences, K key-value heads, T new tokens, S tokens held, E size of a head.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from triarch.errors import LimitExceeded

STEP = 64  # tokens that a growing cache makes room for at least


class KeyValues:
    """What one layer holds. Room is taken in large steps, so that adding a token moves none of the others."""

    def __init__(self, room: int | None, sliding: bool):
        self.room, self.sliding = room, sliding
        self.keys: Tensor | None = None  # (B, K, room, E), of which `held` tokens are filled
        self.values: Tensor | None = None
        self.held = 0

    def extend(self, keys: Tensor, values: Tensor, window: int | None = None) -> tuple[Tensor, Tensor]:
        """Add (B, K, T, E) and return all that is held with them, (B, K, S, E) each.

        `window`: how many tokens a query looks at, itself included. A sliding cache forgets what no later one can see.
        """
        T = keys.shape[2]
        self._make_room(keys, values, T)
        assert self.keys is not None and self.values is not None
        end = self.held + T
        self.keys[:, :, self.held : end] = keys
        self.values[:, :, self.held : end] = values
        self.held = end
        found = self.keys[:, :, :end], self.values[:, :, :end]
        if window is not None and self.sliding and end >= 2 * window:  # moved rarely, not at each token
            self._keep(end - (window - 1), end)
        return found

    def select(self, rows: Tensor) -> None:
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[rows], self.values[rows]

    def crop(self, dropped: int) -> None:
        self.held -= dropped

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in (self.keys, self.values) if tensor is not None)

    def _make_room(self, keys: Tensor, values: Tensor, T: int) -> None:
        B, K, _, E = keys.shape
        have = 0 if self.keys is None else self.keys.shape[2]
        need = self.held + T
        if need <= have:
            return
        room = max(2 * have, need + STEP) if self.room is None else max(self.room, need)
        larger = keys.new_empty(B, K, room, E), values.new_empty(B, K, room, values.shape[3])
        if self.keys is not None and self.values is not None:
            larger[0][:, :, : self.held] = self.keys[:, :, : self.held]
            larger[1][:, :, : self.held] = self.values[:, :, : self.held]
        self.keys, self.values = larger

    def _keep(self, begin: int, end: int) -> None:
        """Only these tokens, in memory of their own: what `extend` returned stays as it is."""
        assert self.keys is not None and self.values is not None
        kept = self.keys[:, :, begin:end], self.values[:, :, begin:end]
        room = (end - begin) + max(STEP, end - begin)
        for name, part in zip(("keys", "values"), kept, strict=True):
            fresh = part.new_empty(*part.shape[:2], room, part.shape[3])
            fresh[:, :, : end - begin] = part
            setattr(self, name, fresh)
        self.held = end - begin


class Cache:
    """Keys and values of every layer.

    `room`: tokens to make room for at once, with which memory neither grows nor moves; what is more raises
    LimitExceeded. A `sliding` cache of a model whose attention sees a window forgets what lies before it, and can then
    not be cropped.
    """

    def __init__(self, *, room: int | None = None, sliding: bool = True):
        self.room, self.sliding = room, sliding
        self.length = 0  # tokens seen by all layers, those that a sliding cache forgot included
        self._layers: dict[int, KeyValues] = defaultdict(lambda: KeyValues(room, sliding))

    def __getitem__(self, layer: int) -> KeyValues:
        return self._layers[layer]

    def advance(self, tokens: int) -> None:
        """Called once for each forward pass, before its layers. Raises LimitExceeded where there is no room."""
        if self.room is not None and self.length + tokens > self.room:
            raise LimitExceeded(
                f"{self.length + tokens:,} tokens, but the cache has room for {self.room:,}; make a larger one"
            )
        self.length += tokens

    def select(self, rows: Tensor) -> None:
        """Sequences in another order, some of them several times or not at all: `rows` (N,) of numbers of sequences."""
        for layer in self._layers.values():
            layer.select(rows)

    def crop(self, length: int) -> None:
        """Forget the tokens from `length` on."""
        assert 0 <= length <= self.length and not any(layer.held < self.length for layer in self._layers.values())
        for layer in self._layers.values():
            layer.crop(self.length - length)
        self.length = length

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken."""
        return sum(layer.nbytes for layer in self._layers.values())


def positions_of(tokens: int, cache: Cache | None, attention_mask: Tensor | None, device: torch.device) -> Tensor:
    """Where each of the new tokens stands in its own text, from 0: (T,), or (B, T) with a mask.

    Positions are counted from the first token of a text: padding before it, and other texts in the same row, do not
    count. The mask is (B, S), of all tokens that the cache has seen and of the new ones.
    """
    past = 0 if cache is None else cache.length
    index = torch.arange(past + tokens, device=device)
    if attention_mask is None:
        return index[past:]
    begins = torch.ones_like(attention_mask, dtype=torch.bool)  # where a text, or padding, begins
    begins[:, 1:] = attention_mask[:, 1:] != attention_mask[:, :-1]
    padded_end = (attention_mask == 0) & (index > 0)
    starts = torch.where(begins & ~padded_end, index, 0).cummax(1).values
    return (index - starts)[:, past:]
