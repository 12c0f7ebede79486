"""Ids into vectors; what is wrong with them is said in a sentence, not by a kernel."""

import torch
from torch import Tensor, nn

from triarch.errors import InvalidInput, LimitExceeded


def fold(ids: Tensor | None) -> Tensor | None:
    """The choices of multiple choice become rows of the batch: (B, C, T) -> (B·C, T); (B, T) stays."""
    return None if ids is None else ids.flatten(0, -2)


def look_up(table: nn.Embedding, ids: Tensor, what: str) -> Tensor:
    """Rows of `table`: (B, T) -> (B, T, D).

    Raises InvalidInput for ids of another shape, and for one without a row: on a GPU that would end the process.
    """
    if ids.ndim != 2:
        raise InvalidInput(f"ids have the shape {[*ids.shape]}, wanted (B, T), or (B, C, T) for multiple choice")
    if ids.numel():
        low, high = ids.aminmax()
        if low < 0 or high >= table.num_embeddings:
            found = int(low if low < 0 else high)
            raise InvalidInput(
                f"{what} {found} is outside 0..{table.num_embeddings - 1}; use this model's own tokenizer"
            )
    return table(ids)


def check_length(tokens: int, most: int) -> None:
    if tokens > most:
        raise LimitExceeded(f"{tokens:,} tokens, but the model has {most:,} positions; split the input into windows")


def last_token(x: Tensor, attention_mask: Tensor | None) -> Tensor:
    """The vector of each row's last token that is no padding: (B, T, D) -> (B, D)."""
    if attention_mask is None:
        return x[:, -1]
    index = torch.arange(x.shape[1], device=x.device)
    last = torch.where(attention_mask != 0, index, 0).amax(1)
    return x[torch.arange(len(x), device=x.device), last]


def last_end(x: Tensor, ids: Tensor, end: int) -> Tensor:
    """What stands where the last end token of each row does, (B, T, D) -> (B, D).

    Rows may have unequal numbers of them, as texts that spell one do; of such the reference makes no batch, and gives
    for each alone what it gets here. Raises InvalidInput for a row that has none.
    """
    ends = ids == end
    if bool((absent := ~ends.any(1)).any()):
        row = int(absent.nonzero()[0])
        raise InvalidInput(f"row {row} has no end token (id {end}), which is read off; encode with special tokens")
    last = torch.where(ends, torch.arange(ids.shape[1], device=ids.device), 0).amax(1)
    return x[torch.arange(len(x), device=x.device), last]
