"""Vectors of texts, such that those that belong together lie near each other.

Each anchor has to find its positive among those of all rows in the batch, and all hard negatives: multiple negatives
ranking, Henderson et al. 2017, section 4.4, https://arxiv.org/abs/1705.00652; the mean over tokens stands for a text,
Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084. A long text is read in windows, and the mean is over all
their tokens.

Shapes: B rows, S texts of a batch, W windows, T tokens, D hidden size, C candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from triarch import metrics
from triarch.errors import InvalidInput, show
from triarch.objectives._base import Batch, Example, Objective
from triarch.objectives._losses import rows, wide
from triarch.objectives._windows import Long, text_in, windows

if TYPE_CHECKING:
    from torch import Tensor

    from triarch.family import Network

CHUNK = 1024  # anchors that are compared with all candidates at once


class Outcome(NamedTuple):
    """The vectors (D,) of a row's texts, of length 1, and a key for each: two texts that are the same have the same."""

    keys: list[bytes]  # anchor, positive, negatives
    vectors: np.ndarray  # (texts, D) float32


@dataclass(kw_only=True)
class Contrastive(Objective):
    SCORES: ClassVar[str] = "Features"
    FIELDS: ClassVar[tuple[str, ...]] = ("anchor", "positive", "negative?")
    METRIC: ClassVar[str] = "mrr"
    WHOLE: ClassVar[bool] = True

    temperature: float = 0.05  # what cosines are divided by
    symmetric: bool = False  # positives have to find their anchors too; the loss is the mean of both
    long: Long = "window"  # a text longer than max_tokens is read in windows, cut, or refused
    max_tokens: int | None = None  # of one window, special ones included; none: what the model takes

    def __post_init__(self) -> None:
        super().__post_init__()
        self._most = self.most_tokens(self.max_tokens)
        if not self.temperature > 0:
            raise InvalidInput(f"temperature is {self.temperature}, wanted more than 0")

    def examples(self, row: dict[str, Any]) -> list[Example]:
        """One example with all windows of all texts in a row; its target has their lengths, text by text."""
        negative = row.get("negative")
        if not isinstance(negative, list | tuple):
            negative = [] if negative is None else [negative]
        texts = [*(text_in(row, name) for name in ("anchor", "positive"))]
        texts += [text_in({"negative": text}, "negative") for text in negative]
        if empty := [text for text in texts if not text.strip()]:
            raise InvalidInput(f"anchor, positive or negative is {show(repr(empty[0]), 20)}; leave the row out")
        found = [windows(self.processor, text, None, self.long, most=self._most, stride=0) for text in texts]
        flat = [window for windows in found for window in windows]
        return [
            Example(
                [id_ for window in flat for id_ in window.ids],
                [type_id for window in flat for type_id in window.type_ids],
                target=[[len(window) for window in windows] for windows in found],
                note=[blake2b(text.encode(), digest_size=16).digest() for text in texts],
            )
        ]

    def batch(self, examples: Sequence[Example]) -> Batch:
        """Texts are in the order of rows: anchor, positive, negatives of one, then of the next.

        `allowed` leaves out what is no true negative of an anchor: a text that is the same as it, as its positive, or
        as another positive of the same anchor.
        """
        import torch

        ids, types, texts = [], [], []
        anchors: list[int] = []  # their numbers among all texts
        positives: list[int] = []
        negatives: list[int] = []
        keys: list[bytes] = []  # of all texts
        for example in examples:
            at = 0
            for number, (lengths, key) in enumerate(zip(example.target, example.note, strict=True)):
                (anchors, positives, negatives)[min(number, 2)].append(len(keys))
                for length in lengths:
                    ids.append(example.ids[at : at + length])
                    types.append(example.type_ids[at : at + length])
                    texts.append(len(keys))
                    at += length
                keys.append(key)
        candidates = positives + negatives
        text = np.array(keys)
        same_anchor = text[anchors][:, None] == text[anchors]  # (B, B)
        equal = text[positives][:, None] == text[candidates]  # (B, C)
        wrong = (same_anchor @ equal) | (text[anchors][:, None] == text[candidates])
        allowed = ~wrong | (np.eye(len(anchors), len(candidates)) > 0)
        targets = {
            "texts": torch.tensor(texts),  # (W,)
            "anchors": torch.tensor(anchors),  # (B,)
            "candidates": torch.tensor(candidates),  # (C,), positives before negatives
            "allowed": torch.from_numpy(allowed),  # (B, C)
        }
        notes = [example.note for example in examples]
        return Batch(self.processor.pad(ids, types), targets, {"contrastive": float(len(examples))}, notes)

    def forward(self, model: Network, batch: Batch) -> Tensor:
        """(S, D): the mean over all tokens of each text, of length 1."""
        import torch.nn.functional as F

        x = wide(model(**batch.inputs).last_hidden_state)  # (W, T, D)
        mask = batch.inputs["attention_mask"].to(x.dtype)
        texts = batch.targets["texts"]
        # Without the division by their number: only the direction of the mean counts
        sums = x.new_zeros(int(texts[-1]) + 1, x.shape[-1]).index_add(0, texts, (x * mask[..., None]).sum(1))
        return F.normalize(sums, dim=-1)

    def losses(self, scores: Tensor, batch: Batch) -> dict[str, Tensor]:
        import torch
        import torch.nn.functional as F

        targets = batch.targets
        cosines = scores[targets["anchors"]] @ scores[targets["candidates"]].T
        logits = (cosines / self.temperature).masked_fill(~targets["allowed"], float("-inf"))  # (B, C)
        right = torch.arange(len(logits), device=logits.device)
        loss = F.cross_entropy(logits, right, reduction="sum")
        if self.symmetric:
            loss = (loss + F.cross_entropy(logits[:, : len(logits)].T, right, reduction="sum")) / 2
        return {"contrastive": loss}

    def outcomes(self, scores: Tensor, batch: Batch) -> list[Any]:
        """The vectors themselves: each anchor is measured against all rows, not only those of its batch."""
        found, vectors = 0, rows(scores)
        made = []
        for keys in batch.notes:
            made.append(Outcome(keys, vectors[found : found + len(keys)].copy()))
            found += len(keys)
        return made

    def measure(self, outcomes: list[Any]) -> dict[str, float]:
        """Where each anchor finds its positive among all different positives and negatives. Other positives of the
        same anchor do not stand in its way, nor does the anchor itself."""
        candidates: dict[bytes, np.ndarray] = {}
        for outcome in outcomes:
            candidates |= zip(outcome.keys[1:], outcome.vectors[1:], strict=True)
        places = list(_places(outcomes, candidates))
        return {
            "mrr": metrics.mean_reciprocal_rank(places),
            "recall@1": metrics.recall_at(1, places),
            "recall@10": metrics.recall_at(10, places),
        }


def _places(outcomes: list[Outcome], candidates: dict[bytes, np.ndarray]) -> Iterator[int]:
    """The rank of each row's positive."""
    if not outcomes:
        return
    numbers = {key: number for number, key in enumerate(candidates)}
    table = np.stack(list(candidates.values()))
    known: dict[bytes, set[int]] = {}  # of each anchor: its positives, and itself
    for anchor, positive, *_ in (outcome.keys for outcome in outcomes):
        known.setdefault(anchor, {numbers[anchor]} if anchor in numbers else set()).add(numbers[positive])
    for begin in range(0, len(outcomes), CHUNK):
        chunk = outcomes[begin : begin + CHUNK]
        scores = np.stack([outcome.vectors[0] for outcome in chunk]) @ table.T
        own = [numbers[outcome.keys[1]] for outcome in chunk]
        for row, (number, outcome) in enumerate(zip(own, chunk, strict=True)):
            scores[row, list(known[outcome.keys[0]] - {number})] = -np.inf
        yield from metrics.ranks(scores, own).tolist()
