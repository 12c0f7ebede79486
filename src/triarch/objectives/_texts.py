"""What objectives with one answer for a whole input, or a pair of texts, share.

Shapes: B sequences, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from triarch.data.columns import SECOND, Column
from triarch.inputs.fit import Fit, Strategy, mean
from triarch.inputs.processor import Piece
from triarch.kinds import LabelScores, Medium, Text
from triarch.objectives._base import Batch, Example, Objective
from triarch.objectives._labels import LABEL
from triarch.objectives._losses import rows
from triarch.objectives._windows import Part, by_row, kept, parts, text_in

if TYPE_CHECKING:
    from torch import Tensor


class Outcome(NamedTuple):
    part: Part
    length: int
    said: Any  # the answer; of a window the scores (L,), as windows have one answer together
    right: Any


@dataclass(kw_only=True)
class TextObjective(Objective):
    """Each piece of a long input is an example. In measuring they have one answer, from their scores averaged by
    length, as the task of the same head has it."""

    SCORES: ClassVar[type] = LabelScores
    FIELDS: ClassVar[dict[str, Column]] = {"input": Column(None), "text_pair": SECOND, "label": LABEL}

    long: Strategy = "window"  # an input longer than max_tokens is read in windows, cut, or refused
    stride: int = 0  # tokens that neighbouring windows share
    max_tokens: int | None = None  # of one window, special ones included; none: what the model takes

    def __post_init__(self) -> None:
        super().__post_init__()
        columns = self.kind(self.medium).columns
        self._inputs = {name: column for name, column in columns.items() if isinstance(column.sort, Medium)}
        most = None if self.max_tokens is None else self.most_tokens(self.max_tokens)
        self._fit = Fit(strategy=self.long, most=most, stride=self.stride)

    def target(self, row: dict[str, Any]) -> Any:
        """What is right for a row. Raises InvalidInput."""
        raise NotImplementedError

    def targets(self, found: list[Any]) -> tuple[Tensor, float]:
        """The targets of a batch, and the count of its loss."""
        raise NotImplementedError

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        raise NotImplementedError

    def answer(self, scores: np.ndarray) -> Any:
        """Scores (L,) -> the answer, in the manner of `target`."""
        raise NotImplementedError

    def score(self, right: list[Any], said: list[Any]) -> dict[str, float]:
        """The metrics of all rows."""
        raise NotImplementedError

    def examples(self, row: dict[str, Any]) -> list[Example]:
        given, target = self.given(row), self.target(row)
        found = self._pieces(given)
        if self.processor.keeps_ids:
            numbered = parts({"given": given, "target": str(target)}, len(found))
            return [kept(piece.content, target, part) for piece, part in zip(found, numbered, strict=True)]
        digests = [_digest(self.processor.collate([piece])) for piece in found]
        numbered = parts({"given": digests, "target": str(target)}, len(found))
        return [
            Example((), (), target, part, dropped=piece.dropped, given=given, cost=piece.cost, digest=digest)
            for piece, part, digest in zip(found, numbered, digests, strict=True)
        ]

    def given(self, row: dict[str, Any]) -> Any:
        """The input of a row, as the model's processor reads it: with a second text as a row of both."""
        found = {
            name: text_in(row, name) if column.sort == Text else row[name]
            for name, column in self._inputs.items()
            if not column.optional or row.get(name)
        }
        return found if len(found) > 1 else found[self.medium.name]

    def padded(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        if self.processor.keeps_ids:
            return super().padded(examples)
        pieces = [self._pieces(example.given)[example.note.number] for example in examples]
        read: dict[str, Tensor] = self.processor.collate(pieces)
        return read

    def _pieces(self, given: Any) -> list[Piece]:
        """What the model sees of an input. Raises InvalidInput and its kin."""
        pieces: list[Piece] = self.processor.pieces(self.processor.read(given), self._fit)
        return pieces

    def batch(self, examples: Sequence[Example]) -> Batch:
        targets, count = self.targets([example.target for example in examples])
        notes = [(example.note, example.length, example.target) for example in examples]
        return Batch(self.padded(examples), {"label": targets}, {self.NAME: count}, notes)

    def losses(self, scores: Any, batch: Batch) -> dict[str, Tensor]:
        return {self.NAME: self.loss(scores.logits, batch.targets["label"])}

    def outcomes(self, scores: Any, batch: Batch) -> list[Any]:
        return [
            Outcome(part, length, self.answer(row) if part.of == 1 else row.copy(), right)
            for row, (part, length, right) in zip(rows(scores.logits), batch.notes, strict=True)
        ]

    def measure(self, outcomes: list[Any]) -> dict[str, float]:
        return self.score(*self.answers(outcomes))

    def answers(self, outcomes: list[Any]) -> tuple[list[Any], list[Any]]:
        """Of each row what is right and what was said."""
        found = by_row(outcomes)
        return [windows[0].right for windows in found], [self._said(windows) for windows in found]

    def _said(self, found: list[Outcome]) -> Any:
        if found[0].part.of == 1:
            return found[0].said
        return self.answer(mean([window.said for window in found], [window.length for window in found]))


def _digest(inputs: dict[str, Tensor]) -> bytes:
    """Of what a model sees: the same for the same input, wherever it lies."""
    digest = blake2b(digest_size=16)
    for name, tensor in sorted(inputs.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.digest()
