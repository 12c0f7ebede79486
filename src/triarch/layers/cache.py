"""Keys and values of tokens that attention has seen, so that each token is computed once.

Shapes: B rows, K key-value heads, T new tokens, S columns held, E size of a head.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from triarch.errors import LimitExceeded

STEP = 64  # tokens that a growing cache makes room for at least


class Past(Protocol):
    """What attention asks of the tokens before the new ones."""

    def extend(self, keys: Tensor, values: Tensor, window: int | None = None) -> tuple[Tensor, Tensor]:
        """Add (B, K, T, E) and return all that is held with them, (B, K, S, E) each."""


class Nothing:
    """No tokens come before the new ones, and these are not kept."""

    def extend(self, keys: Tensor, values: Tensor, window: int | None = None) -> tuple[Tensor, Tensor]:
        return keys, values


NOTHING = Nothing()


class KeyValues:
    """What one layer holds. Room is taken in large steps, so that adding a token moves none of the others."""

    def __init__(self, room: int | None, sliding: bool):
        self.room, self.sliding = room, sliding
        self.stored: Tensor | None = None  # (2, B, K, room, E): keys and values, of which `held` columns are filled
        self.held = 0
        self.forgotten = 0  # columns before those
        self.window: int | None = None

    def extend(self, keys: Tensor, values: Tensor, window: int | None = None) -> tuple[Tensor, Tensor]:
        """As `Past` has it. `window`: how many tokens a query looks at, itself included; a sliding cache forgets what
        no later query can see. Raises LimitExceeded where a cache of fixed size is full."""
        end = self.held + keys.shape[2]
        if self.room is not None and self.forgotten + end > self.room:
            raise LimitExceeded(
                f"{self.forgotten + end:,} tokens, but the cache has room for {self.room:,}; make a larger one"
            )
        stored = self._with_room(keys, end)
        stored[0, :, :, self.held : end], stored[1, :, :, self.held : end] = keys, values
        self.stored, self.held, self.window = stored, end, window
        found = stored[:, :, :, :end]
        if window is not None and self.sliding and end >= 2 * window:  # moved rarely, not at each token
            self.held = window - 1
            self.forgotten += end - self.held
            self.stored = _copied(found[:, :, :, end - self.held :], 2 * window)
        return found[0], found[1]

    def _with_room(self, keys: Tensor, need: int) -> Tensor:
        """Storage for `need` columns, those that are held in it."""
        if self.stored is None:
            B, K, _, E = keys.shape
            return keys.new_empty(2, B, K, max(self.room or need + STEP, need), E)
        have = self.stored.shape[3]
        return self.stored if need <= have else _copied(self.stored[:, :, :, : self.held], max(2 * have, need + STEP))

    def beside(self, other: KeyValues, columns: int) -> None:
        """Take the rows of another in, padded on the left so that both have seen so many columns."""
        assert self.stored is not None
        assert other.stored is not None
        held = max(self.held, other.held)
        parts = [_shifted(one.stored[:, :, :, : one.held], held) for one in (self, other) if one.stored is not None]
        joined = torch.cat(parts, 1)
        self.stored = _copied(joined, max(self.room or held + STEP, held))
        self.held, self.forgotten = held, columns - held

    def cut(self, columns: int) -> None:
        """Drop the first columns, of which those that were forgotten are gone already."""
        gone = min(columns, self.forgotten)
        self.forgotten -= gone
        if self.stored is not None and (gone := columns - gone):
            self.stored = _copied(self.stored[:, :, :, gone : self.held], self.stored.shape[3])
            self.held -= gone


def _copied(held: Tensor, room: int) -> Tensor:
    """The same tokens, in memory of their own with room for more."""
    larger = held.new_empty(*held.shape[:3], room, held.shape[4])
    larger[:, :, :, : held.shape[3]] = held
    return larger


def _shifted(held: Tensor, columns: int) -> Tensor:
    """The same tokens with zeros on their left, which no mask lets a query see but which must be numbers."""
    return torch.nn.functional.pad(held, (0, 0, columns - held.shape[3], 0))


class Cache:
    """Keys and values of every layer.

    `room`: tokens to make room for at once, with which memory neither grows nor moves; what is more raises
    LimitExceeded. A `sliding` cache of a model whose attention sees a window forgets what lies before it, and can then
    not be cropped. `padding` (B,): columns on the left of each row that hold no token; None where all rows fill all.
    """

    def __init__(self, *, room: int | None = None, sliding: bool = True, padding: Tensor | None = None):
        self.room, self.sliding, self.padding = room, sliding, padding
        self.layers: dict[int, KeyValues] = defaultdict(lambda: KeyValues(room, sliding))

    def __getitem__(self, layer: int) -> KeyValues:
        return self.layers[layer]

    @property
    def length(self) -> int:
        """Columns that all layers have seen, padding and those that a sliding cache forgot included."""
        return min((layer.forgotten + layer.held for layer in self.layers.values()), default=0)

    def select(self, rows: Tensor) -> int:
        """Rows in another order, some of them several times or not at all: `rows` (N,) of numbers of rows.

        Columns that are then padding in all of them are cut; returns how many.
        """
        for layer in self.layers.values():
            if layer.stored is not None:
                layer.stored = layer.stored[:, rows]
        return self._pad(None if self.padding is None else self.padding[rows])

    def branch(self, rows: Tensor) -> Cache:
        """What `select` would leave, as a cache of its own; this one stays as it is."""
        made = Cache(room=self.room, sliding=self.sliding, padding=self.padding)
        made.layers.update({number: copy.copy(layer) for number, layer in self.layers.items()})
        made.select(rows)
        return made

    def join(self, other: Cache, padding: Tensor) -> None:
        """Take in the rows of another cache behind these; `padding` (B,) is that of all of them, once those that have
        seen fewer columns are padded on the left."""
        columns = max(self.length, other.length)
        for number, layer in self.layers.items():
            layer.beside(other[number], columns)
        self._pad(padding)

    def _pad(self, padding: Tensor | None) -> int:
        """So many columns are padding; those that are for all rows are cut, and their number is returned."""
        spare = 0 if padding is None or not len(padding) else int(padding.min())
        if padding is not None and spare:
            padding = padding - spare
            for layer in self.layers.values():
                layer.cut(spare)
        self.padding = padding if padding is not None and bool(padding.any()) else None
        return spare

    def crop(self, length: int) -> None:
        """Forget the columns from `length` on."""
        for layer in self.layers.values():
            assert not layer.forgotten, "a sliding cache has forgotten where it would go back to"
            layer.held = length

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken."""
        return sum(layer.stored.nbytes for layer in self.layers.values() if layer.stored is not None)

    @property
    def bytes_per_token(self) -> int:
        """Bytes that one more token of one row takes."""
        stored = [layer.stored for layer in self.layers.values() if layer.stored is not None]
        return sum(2 * one[0, 0, :, 0].numel() * one.element_size() for one in stored)


class Slots:
    """Where the tokens of one forward pass stand: after those in the cache, if there is one.

    `attention_mask` (B, S), of the tokens in the cache too, is 0 for padding; other numbers tell apart texts that share
    a row. Without one, padding is what the cache says.
    """

    def __init__(self, ids: Tensor, attention_mask: Tensor | None = None, cache: Cache | None = None):
        self.tokens, self.device, self.cache = ids.shape[1], ids.device, cache
        self.past = 0 if cache is None else cache.length
        self.seen = self.past + self.tokens
        self._held = {} if cache is None else {layer.window: layer.held for layer in cache.layers.values()}
        self._texts = attention_mask  # (B, S), which text a token belongs to
        self._padding = None if cache is None or attention_mask is not None else cache.padding
        if self._padding is not None:
            self._texts = (torch.arange(self.seen, device=self.device) >= self._padding[:, None]).long()

    def __getitem__(self, layer: int) -> Past:
        return NOTHING if self.cache is None else self.cache[layer]

    @cached_property
    def positions(self) -> Tensor:
        """Where each of the new tokens stands in its own text, from 0: (T,), or (B, T) with padding.

        Positions are counted from the first token of a text: padding before it, and other texts in the same row, do not
        count. Padding itself stands at 0, so that no amount of it is too much; within a text it takes a place.
        """
        index = torch.arange(self.seen, device=self.device)
        if self._texts is None:
            return index[self.past :]
        real = self._texts != 0
        if self._padding is not None and self.past:  # no text begins among the new tokens
            return index[self.past :] - self._padding[:, None]
        # padding goes on with the text that it follows
        text = self._texts.gather(1, torch.where(real, index, 0).cummax(1).values)
        begins = torch.ones_like(real)
        begins[:, 1:] = text[:, 1:] != text[:, :-1]
        starts = torch.where(begins, index, 0).cummax(1).values
        return ((index - starts) * real)[:, self.past :]

    @property
    def longest(self) -> int:
        """Tokens of the longest text so far."""
        return self.seen if self._texts is None else int(self.positions.max()) + 1 if self.positions.numel() else 0

    @property
    def lengths(self) -> Tensor | int:
        """How long the text of each of the new tokens is so far: one number, or (B, T)."""
        if self._texts is None:
            return self.seen
        starts = torch.arange(self.past, self.seen, device=self.device) - self.positions
        ends = torch.zeros_like(self._texts).scatter_reduce(1, starts, self.positions + 1, "amax")
        return ends.gather(1, starts)

    def mask(self, window: int | None = None) -> Tensor | None:
        """Where each of the new tokens may look among all that layers with this window hold: at itself and back, (T, S)
        or (B, 1, T, S) of True; None where that is everywhere. With a `window`, so many tokens back at most, itself
        included; never at padding or at another text."""
        T, seen = self.tokens, self._held.get(window, self.past) + self.tokens
        if self._texts is None and T == 1 and (window is None or seen <= window):
            return None
        columns = torch.arange(seen, device=self.device)
        back = columns[seen - T :, None] - columns  # (T, S)
        allowed = back >= 0 if window is None else (back >= 0) & (back < window)
        if self._texts is None:
            return allowed
        texts = self._texts[:, self._texts.shape[1] - seen :]
        return (allowed & (texts[:, seen - T :, None] == texts[:, None, :]))[:, None]
