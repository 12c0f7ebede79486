"""Vectors of texts, such that those that belong together lie near each other.

Each anchor has to find its positive among those of all rows in the batch, and all hard negatives: multiple negatives
ranking, Henderson et al. 2017, section 4.4, https://arxiv.org/abs/1705.00652.

The vector of a text is the one that the task `embedding` gives: its pooling, prompt and length are those that lie
beside the checkpoint, or else the mean over tokens, Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084. The
vectors of a long text's windows are averaged by length. What is compared are cosines, whatever length vectors have.

Shapes: B rows, S texts of a batch, W windows, T tokens, D size of a vector, C candidates.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from triarch import metrics
from triarch.data.columns import Candidate, Column
from triarch.errors import InvalidInput, Unsupported, show
from triarch.inputs.fit import Fit, Strategy
from triarch.kinds import Features, Text
from triarch.objectives._base import Batch, Example, Objective
from triarch.objectives._labels import LABEL_NAMES
from triarch.objectives._losses import rows, wide
from triarch.objectives._windows import text_in

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
    SCORES: ClassVar[type] = Features
    FIELDS: ClassVar[dict[str, Column]] = {
        "anchor": Column(Text, usual=("query",)),
        "positive": Column(Text, usual=("passage", "document")),
        "negative": Column(Text, usual=("hard_negative",), optional=True, gaps=True),
    }
    KEYS: ClassVar[tuple[tuple[str, ...], ...]] = (("anchor",), ("positive",))
    RANK: ClassVar[int] = 4
    METRIC: ClassVar[str] = "mrr"
    WHOLE: ClassVar[bool] = True

    temperature: float = 0.05  # what cosines are divided by
    symmetric: bool = False  # positives have to find their anchors too; the loss is the mean of both
    anchor_prompt: str | None = None  # put before anchors: a text, or the name of one of the model's; none: its default
    positive_prompt: str | None = None  # the same before positives and negatives
    long: Strategy = "window"  # a text longer than max_tokens is read in windows, cut, or refused
    max_tokens: int | None = None  # of one window, special ones included; none: what the checkpoint says

    def __post_init__(self) -> None:
        from triarch.inputs.text.sentence_recipe import Recipe

        super().__post_init__()
        if not self.temperature > 0:
            raise InvalidInput(f"temperature is {self.temperature}, wanted more than 0")
        self.most_tokens(self.max_tokens)
        self._fit = Fit(strategy=self.long, most=self.max_tokens)
        self._least = 2
        self._recipe, self._prompts = Recipe(), (self.anchor_prompt or "", self.positive_prompt or "")

    @classmethod
    def is_mine(cls, candidate: Candidate) -> bool:
        """A query and a passage with a label are a pair to be classified."""
        named = set(candidate.columns) & set(candidate.columns.values())
        return bool(named) or not any(name.lower() in LABEL_NAMES for name in candidate.found)

    def attach(self, network: Network) -> None:
        """Learn by the recipe beside the checkpoint.

        Raises InvalidInput for a prompt that it does not have, Unsupported for Dense layers, which nothing here trains.
        """
        from triarch.inputs.text.sentence_recipe import recipe

        found = recipe(network.sidecars)
        if found.layers:
            raise Unsupported(
                f"the model has Dense layers after pooling ({len(found.layers)}), which are not trained here; choose a "
                "checkpoint without them"
            )
        self._recipe = found
        self._prompts = found.named_or_written(self.anchor_prompt), found.named_or_written(self.positive_prompt)
        self._fit = replace(self._fit, usual=found.max_tokens)

    def prepare(self, rows: Iterable[dict[str, Any]]) -> None:
        """Where each row brings a negative of its own, a batch may be of one row."""
        self._least = 1 if all(_negatives(row) for row in rows) else 2

    @property
    def least(self) -> int:
        return self._least

    def examples(self, row: dict[str, Any]) -> list[Example]:
        """One example with all windows of all texts in a row; its target has the lengths of these, text by text, and
        how many tokens of a prompt at their beginnings are not pooled."""
        texts = [*(text_in(row, name) for name in ("anchor", "positive"))]
        texts += [text_in({"negative": text}, "negative") for text in _negatives(row)]
        if empty := [text for text in texts if not text.strip()]:
            raise InvalidInput(f"anchor, positive or negative is {show(repr(empty[0]), 20)}; leave the row out")
        ids, types = array("I"), array("I")
        target = []
        for number, text in enumerate(texts):
            prompt = self._prompts[min(number, 1)]
            whole = self._recipe.text(prompt, text)
            found = [piece.content for piece in self.processor.pieces((whole, None), self._fit)]
            for window in found:
                ids.extend(window.ids)
                types.extend(window.type_ids)
            target.append([(len(window), self._recipe.hidden(prompt, window)) for window in found])
        keys = [blake2b(text.encode(), digest_size=16).digest() for text in texts]
        return [Example(ids, types, target, keys)]

    def batch(self, examples: Sequence[Example]) -> Batch:
        """Texts are in the order of rows: anchor, positive, negatives of one, then of the next.

        `allowed` leaves out what is no true negative of an anchor: a text that is the same as it, as its positive, or
        as another positive of the same anchor.
        """
        import torch

        ids, types, texts, lengths, hidden = [], [], [], [], []
        anchors: list[int] = []  # their numbers among all texts
        positives: list[int] = []
        negatives: list[int] = []
        codes: dict[bytes, int] = {}  # the same for texts that are the same
        text: list[int] = []  # of all texts
        for example in examples:
            at = 0
            for number, (sizes, key) in enumerate(zip(example.target, example.note, strict=True)):
                (anchors, positives, negatives)[min(number, 2)].append(len(text))
                for length, behind in sizes:
                    ids.append(list(example.ids[at : at + length]))
                    types.append(list(example.type_ids[at : at + length]))
                    texts.append(len(text))
                    lengths.append(length)
                    hidden.append(behind)
                    at += length
                text.append(codes.setdefault(key, len(codes)))
        candidates = positives + negatives
        anchor, candidate = np.array(text)[anchors], np.array(text)[candidates]
        together = np.eye(len(codes), dtype=bool)  # a text with itself,
        together[anchor, candidate[: len(anchor)]] = True  # and an anchor with each of its positives
        allowed = ~together[anchor][:, candidate] | np.eye(len(anchors), len(candidates), dtype=bool)
        targets = {
            "texts": torch.tensor(texts),  # (W,)
            "lengths": torch.tensor(lengths),  # (W,)
            "hidden": torch.tensor(hidden),  # (W,), of tokens that are not pooled
            "anchors": torch.tensor(anchors),  # (B,)
            "candidates": torch.tensor(candidates),  # (C,), positives before negatives
            "allowed": torch.from_numpy(allowed),  # (B, C)
        }
        notes = [example.note for example in examples]
        return Batch(self.processor.pad(ids, types), targets, {"contrastive": float(len(examples))}, notes)

    def forward(self, model: Network, batch: Batch) -> Tensor:
        """(S, D): the vector of each text, of length 1."""
        import torch
        import torch.nn.functional as F

        targets = batch.targets
        x = wide(model(**batch.inputs).last_hidden_state)  # (W, T, D)
        places = torch.arange(x.shape[1], device=x.device)
        pooled = self._recipe.pool(x, (batch.inputs["attention_mask"] > 0) & (places >= targets["hidden"][:, None]))
        # Without the division by their lengths: only the direction of the mean counts
        weighted = pooled * targets["lengths"][:, None].to(x.dtype)
        sums = x.new_zeros(int(targets["texts"][-1]) + 1, x.shape[-1] * len(self._recipe.poolings))
        return F.normalize(sums.index_add(0, targets["texts"], weighted), dim=-1)

    def losses(self, scores: Tensor, batch: Batch) -> dict[str, Tensor]:
        import torch
        import torch.nn.functional as F

        targets = batch.targets
        with torch.autocast(scores.device.type, enabled=False):  # cosines lie close together
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


def _negatives(row: dict[str, Any]) -> list[Any]:
    negative = row.get("negative")
    if isinstance(negative, list | tuple):
        return list(negative)
    return [] if negative is None else [negative]


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
