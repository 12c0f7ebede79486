"""Batches by token budget: inputs of like length run together, so hardly any padding is computed."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def token_batches(lengths: Sequence[int], budget: int, most: int | None = None) -> list[list[int]]:
    """Indices in batches, longest first, each within `budget` tokens with its padding and at most `most` rows.

    An input longer than the budget is a batch of its own.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        full = not batches or (len(batches[-1]) + 1) * lengths[batches[-1][0]] > budget or len(batches[-1]) == most
        if full:
            batches.append([])
        batches[-1].append(i)
    return batches


def run(
    items: Sequence[Item],
    compute: Callable[[list[Item]], Sequence[Result]],
    *,
    lengths: Sequence[int],
    budget: int,
    most: int | None = None,
    done: Callable[[list[int]], object] = lambda batch: None,
) -> list[Result]:
    """`compute` over all items in such batches; results in the order of the items. `done` hears of each batch.

    When the device has no memory for a batch, its halves are run instead.
    """
    results: dict[int, Result] = {}

    def once(batch: list[int]) -> None:
        try:
            found = compute([items[i] for i in batch])
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            found = None
        if found is None:  # outside of the handler, which would keep the failed batch's tensors alive
            half = len(batch) // 2
            once(batch[:half])
            once(batch[half:])
        else:
            results.update(zip(batch, found, strict=True))
            done(batch)

    for batch in token_batches(lengths, budget, most):
        once(batch)
    return [results[i] for i in range(len(items))]
