"""What an encoder made of its inputs, for a decoder that writes from them.

Shapes: U sources, S tokens of the longest, D hidden size, H heads, E size of a head; N = U * C rows that are written.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

KeysValues = tuple[Tensor, Tensor]


class Source:
    """Each source is read once, and each layer's keys and values are made of it once, however many rows are written.

    The rows of a source stand side by side and are equally many, as beams are: `copies` of them. Rows that `select`
    leaves otherwise get a copy of their source each.
    """

    def __init__(self, states: Tensor, attention_mask: Tensor | None = None):
        """`states` (U, S, D); `attention_mask` (U, S), 0 for padding."""
        self.states = states
        self.mask = None if attention_mask is None else attention_mask.bool()[:, None, None, :]  # (U, 1, 1, S)
        self.copies = 1
        self.maps: list[Tensor] | None = None  # if a list, each layer adds where its tokens look: (B, H, T, S)
        self._made: dict[int, KeysValues] = {}

    def keys_values(self, layer: int, make: Callable[[Tensor], KeysValues]) -> KeysValues:
        """(U, H, S, E) each, which `make` makes of the states the first time that a layer asks.

        In learning nothing is kept: a layer asks once, and again where its activations are computed a second time.
        """
        if torch.is_grad_enabled():
            return make(self.states)
        if layer not in self._made:
            self._made[layer] = make(self.states)
        return self._made[layer]

    def select(self, rows: Tensor) -> None:
        """Rows in another order, some of them several times or not at all: `rows` (N,) of numbers of rows."""
        owners = torch.div(rows, self.copies, rounding_mode="floor").tolist()
        runs = [owners[i] for i in range(len(owners)) if i == 0 or owners[i] != owners[i - 1]]
        copies = len(owners) // len(runs) if runs else 1
        if [owner for owner in runs for _ in range(copies)] != owners:  # of unequal number, or apart
            runs, copies = owners, 1
        self.copies = copies
        if runs != list(range(len(self.states))):
            self._keep(torch.tensor(runs, dtype=torch.int64, device=self.states.device))

    def join(self, other: Source) -> None:
        """Take in the rows of another source behind these; the shorter sources are padded on the right."""
        if self.copies != other.copies:
            for one in (self, other):
                one._apart()
        S, others = self.states.shape[1], other.states.shape[1]
        if others != S or self.mask is not None or other.mask is not None:
            self.mask = torch.cat([_longer(one._all_mask(), max(S, others), -1) for one in (self, other)])
        self.states = torch.cat([_longer(one.states, max(S, others), -2) for one in (self, other)])
        made = self._made, other._made
        self._made = {}
        for layer, pair in made[0].items():
            both = zip(pair, made[1][layer], strict=True)
            keys, values = (torch.cat([_longer(one, max(S, others), -2) for one in two]) for two in both)
            self._made[layer] = keys, values

    def _all_mask(self) -> Tensor:
        if self.mask is not None:
            return self.mask
        return self.states.new_ones(len(self.states), 1, 1, self.states.shape[1], dtype=torch.bool)

    def _apart(self) -> None:
        """Every row gets a source of its own."""
        owners = torch.arange(len(self.states), device=self.states.device).repeat_interleave(self.copies)
        self.copies = 1
        self._keep(owners)

    def _keep(self, kept: Tensor) -> None:
        self.states = self.states[kept]
        self.mask = None if self.mask is None else self.mask[kept]
        self._made = {layer: (keys[kept], values[kept]) for layer, (keys, values) in self._made.items()}

    @property
    def nbytes(self) -> int:
        """Bytes that the keys and values take."""
        return sum(one.nbytes for pair in self._made.values() for one in pair)


def _longer(x: Tensor, size: int, dim: int) -> Tensor:
    """With zeros, or False, behind what there is along a dimension."""
    return torch.nn.functional.pad(x, (0, 0) * (-1 - dim) + (0, size - x.shape[dim]))
