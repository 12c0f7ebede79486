"""Keys and values of tokens that attention has seen, so that each token is computed once.

Shapes: B sequences, K key-value heads, T new tokens, S tokens held, E size of a head.
"""

from __future__ import annotations

import copy
from collections import defaultdict

import torch
from torch import Tensor

from triarch.errors import LimitExceeded

STEP = 64  # tokens that a growing cache makes room for at least


class KeyValues:
    """What one layer holds. Room is taken in large steps, so that adding a token moves none of the others."""

    def __init__(self, room: int | None, sliding: bool):
        self.room, self.sliding = room, sliding
        self.stored: Tensor | None = None  # (2, B, K, room, E): keys and values, of which `held` tokens are filled
        self.held = 0

    def extend(self, keys: Tensor, values: Tensor, window: int | None = None) -> tuple[Tensor, Tensor]:
        """Add (B, K, T, E) and return all that is held with them, (B, K, S, E) each.

        `window`: how many tokens a query looks at, itself included. A sliding cache forgets what no later one can see.
        """
        end = self.held + keys.shape[2]
        stored = self._with_room(keys, end)
        stored[0, :, :, self.held : end], stored[1, :, :, self.held : end] = keys, values
        self.stored, self.held = stored, end
        found = stored[:, :, :, :end]
        if window is not None and self.sliding and end >= 2 * window:  # moved rarely, not at each token
            self.held = window - 1
            self.stored = _copied(found[:, :, :, end - self.held :], 2 * window)
        return found[0], found[1]

    def _with_room(self, keys: Tensor, need: int) -> Tensor:
        """Storage for `need` tokens, those that are held in it."""
        if self.stored is None:
            B, K, _, E = keys.shape
            return keys.new_empty(2, B, K, max(self.room or need + STEP, need), E)
        have = self.stored.shape[3]
        return self.stored if need <= have else _copied(self.stored[:, :, :, : self.held], max(2 * have, need + STEP))


def _copied(held: Tensor, room: int) -> Tensor:
    """The same tokens, in memory of their own with room for more."""
    larger = held.new_empty(*held.shape[:3], room, held.shape[4])
    larger[:, :, :, : held.shape[3]] = held
    return larger


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
            if layer.stored is not None:
                layer.stored = layer.stored[:, rows]

    def branch(self, rows: Tensor) -> Cache:
        """What `select` would leave, as a cache of its own; this one stays as it is."""
        made = Cache(room=self.room, sliding=self.sliding)
        made.length = self.length
        made._layers.update({number: copy.copy(layer) for number, layer in self._layers.items()})
        made.select(rows)
        return made

    def crop(self, length: int) -> None:
        """Forget the tokens from `length` on."""
        for layer in self._layers.values():
            assert layer.held == self.length, "a sliding cache has forgotten where it would go back to"
            layer.held = length
        self.length = length

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken."""
        return sum(layer.stored.nbytes for layer in self._layers.values() if layer.stored is not None)

    @property
    def bytes_per_token(self) -> int:
        """Bytes that one more token of one sequence takes."""
        stored = [layer.stored for layer in self._layers.values() if layer.stored is not None]
        return sum(2 * one[0, 0, :, 0].numel() * one.element_size() for one in stored)


def positions_of(tokens: int, cache: Cache | None, attention_mask: Tensor | None, device: torch.device) -> Tensor:
    """Where each of the new tokens stands in its own text, from 0: (T,), or (B, T) with a mask.

    Positions are counted from the first token of a text: padding before it, and other texts in the same row, do not
    count. Padding itself stands at 0, so that no amount of it is too much; within a text it takes a place. The mask is
    (B, S), of all tokens that the cache has seen and of the new ones.
    """
    past = 0 if cache is None else cache.length
    index = torch.arange(past + tokens, device=device)
    if attention_mask is None:
        return index[past:]
    real = attention_mask != 0
    text = attention_mask.gather(
        1, torch.where(real, index, 0).cummax(1).values
    )  # padding goes on with what it follows
    begins = torch.ones_like(real)
    begins[:, 1:] = text[:, 1:] != text[:, :-1]
    starts = torch.where(begins, index, 0).cummax(1).values
    return ((index - starts) * real)[:, past:]


def lengths_of(places: Tensor, attention_mask: Tensor) -> Tensor:
    """How long the text of each of the new tokens is so far, (B, T), from what `positions_of` gives."""
    starts = torch.arange(attention_mask.shape[1], device=places.device)[-places.shape[1] :] - places
    ends = torch.zeros_like(attention_mask, dtype=places.dtype).scatter_reduce(1, starts, places + 1, "amax")
    return ends.gather(1, starts)
