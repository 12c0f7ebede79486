"""The order in which examples are seen: a pure function of the seed, the epoch and the step.

No iterator and no state: a position in the data is the number of the step, and any step can be asked for at once.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from triarch.data import seeds
from triarch.errors import InvalidInput


class Order:
    """Batches of indices, by step. Each index is seen exactly once an epoch, and the last, smaller batch is kept."""

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        *,
        batch_size: int | None = None,
        batch_tokens: int | None = None,
        seed: int = 0,
        bucket: int | None = None,
        least: int = 1,
    ):
        """`lengths` are those of the examples, in tokens. A batch has `batch_size` rows, or at most `batch_tokens`
        tokens with its padding.

        With `bucket`, stretches of that many examples of the shuffled order are sorted by length before they are cut
        into batches, and the batches shuffled: less padding, hardly less chance. By tokens the default is 8,192.

        No batch has fewer than `least` rows, for what is learned from several together. If the last one would, it joins
        the one before; or takes rows from that one, where tokens bound them. Raises InvalidInput for sizes that no
        batch can have.
        """
        self.lengths = np.asarray(lengths, dtype=np.int64)
        if (batch_size is None) == (batch_tokens is None):
            raise InvalidInput("a batch needs one size; give batch_size or batch_tokens")
        for name, size in (("batch_size", batch_size), ("batch_tokens", batch_tokens), ("bucket", bucket)):
            if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
                raise InvalidInput(f"{name} is {size}; wanted a whole number from 1 up")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise InvalidInput(f"the seed is {seed}; wanted a whole number from 0 up")
        if not len(self.lengths):
            raise InvalidInput("there are no examples to put in order; give at least one")
        if batch_size is not None and batch_size < least:
            raise InvalidInput(
                f"batch_size is {batch_size}, and what is learned here is to tell the rows of a batch apart; ask for "
                f"{least} or more"
            )
        if len(self.lengths) < least:
            raise InvalidInput(
                f"there is {len(self.lengths)} example, and what is learned here is to tell {least} or more apart; "
                "give more rows"
            )
        room = 2 * least - 1  # rows that each batch has room for, so that it can spare what the last one lacks
        if batch_tokens is not None and room * (longest := int(self.lengths.max())) > batch_tokens:
            tokens = f"{longest:,} tokens" + (f", times {room}" if room > 1 else "")
            raise InvalidInput(f"an example has {tokens}, over batch_tokens={batch_tokens:,}; raise it")
        self.batch_size, self.batch_tokens, self.seed, self.least = batch_size, batch_tokens, seed, least
        self.bucket = 8192 if bucket is None and batch_tokens is not None else bucket
        self._steps = 0 if batch_size is None else len(self._cuts(self.lengths)) - 1  # of each epoch
        self._firsts = [0]  # the first step of each epoch, as far as is known, and of the one after
        self._epoch = lru_cache(maxsize=2)(self._cut)

    def __len__(self) -> int:
        return len(self.lengths)

    def steps_per_epoch(self, epoch: int = 0) -> int:
        """How many batches an epoch has. By tokens this differs a little from epoch to epoch."""
        if self.batch_size is not None:
            return self._steps
        return self.first_step(epoch + 1) - self.first_step(epoch)

    def first_step(self, epoch: int) -> int:
        """The step at which an epoch begins: how many steps the epochs before it have."""
        if self.batch_size is not None:
            return epoch * self.steps_per_epoch()
        while len(self._firsts) <= epoch:
            self._firsts.append(self._firsts[-1] + len(self._epoch(len(self._firsts) - 1)[1]) - 1)
        return self._firsts[epoch]

    def at(self, step: int) -> tuple[int, np.ndarray]:
        """The epoch (from 0) and the indices (rows,) int64 of a step (from 0)."""
        if step < 0:
            raise InvalidInput(f"there is no step {step}; they count from 0")
        if self.batch_size is not None:
            epoch = step // self.steps_per_epoch()
        else:
            epoch = 0
            while self.first_step(epoch + 1) <= step:
                epoch += 1
        indices, cuts = self._epoch(epoch)
        batch = step - self.first_step(epoch)
        return epoch, indices[cuts[batch] : cuts[batch + 1]]

    def _cut(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The indices of an epoch, batch after batch; and where batches begin, with the end of the last."""
        rng = seeds.generator("order", self.seed, epoch)
        indices = rng.permutation(len(self))
        if self.bucket is None:
            assert self.batch_size is not None
            return indices, self._cuts(self.lengths)
        parts = []
        for turn, first in enumerate(range(0, len(self), self.bucket)):
            part = indices[first : first + self.bucket]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            parts.append(part[:: -1 if turn % 2 else 1])  # up and down in turns: batches across an edge are even too
        indices = np.concatenate(parts)
        cuts = self._cuts(self.lengths[indices])
        batches = rng.permutation(len(cuts) - 1)
        sizes = np.diff(cuts)[batches]
        ends = np.cumsum(sizes)
        places = np.repeat(cuts[:-1][batches] - (ends - sizes), sizes) + np.arange(len(self))
        return indices[places], np.concatenate([[0], ends])

    def _cuts(self, lengths: np.ndarray) -> np.ndarray:
        """Where batches begin, and the end of the last."""
        if self.batch_size is not None:
            return self._evened([*range(0, len(lengths), self.batch_size), len(lengths)])
        assert self.batch_tokens is not None
        cuts, longest = [0], 0
        for i, length in enumerate(lengths.tolist()):
            longest = max(longest, length)
            if (i + 1 - cuts[-1]) * longest > self.batch_tokens:
                cuts.append(i)
                longest = length
        return self._evened([*cuts, len(lengths)])

    def _evened(self, cuts: list[int]) -> np.ndarray:
        short = self.least - (cuts[-1] - cuts[-2])
        if short > 0 and self.batch_tokens is not None:
            cuts[-2] -= short
        elif short > 0:
            del cuts[-2]
        return np.array(cuts)
