"""Find the answer to a question in a text: where it begins and where it ends.

Devlin et al. 2018, sections 4.2 and 4.3, https://arxiv.org/abs/1810.04805. A long context is read in overlapping
windows, with the question in each; a window without the whole answer points at its first token, which stands for "no
answer here". The positions of padding are no candidates, so that a loss does not depend on what shares the batch.

Shapes: B sequences, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from triarch import metrics
from triarch.data.answers import answers_in
from triarch.data.columns import Column
from triarch.errors import InvalidInput, show
from triarch.inputs.fit import QUESTION
from triarch.kinds import SpanScores, Text
from triarch.objectives._base import Batch, Example, Objective
from triarch.objectives._losses import cross_entropy, wide
from triarch.objectives._windows import Part, by_row, kept, parts, text_in

if TYPE_CHECKING:
    from tokenizers import Encoding
    from torch import Tensor


class Place(NamedTuple):
    """Where the tokens of a window's context lie in it."""

    part: Part
    context: str
    first: int  # the first token of the context
    offsets: np.ndarray  # (N, 2) uint32: its characters, and those of the ones behind it
    right: list[str]


class Outcome(NamedTuple):
    part: Part
    text: str  # of the best span
    score: float
    null: float  # the score of "no answer"
    right: list[str]


@dataclass(kw_only=True)
class Span(Objective):
    SCORES: ClassVar[type] = SpanScores
    FIELDS: ClassVar[dict[str, Column]] = {
        "question": Column(Text),
        "context": Column(Text, recurs=True),
        "answers": Column("answers"),
        "id": Column("name", optional=True),
    }
    KEYS: ClassVar[tuple[tuple[str, ...], ...]] = (("context",),)
    RANK: ClassVar[int] = 3
    METRIC: ClassVar[str] = "f1"

    max_tokens: int | None = None  # of a window with its question; none: 384, or what the model takes
    stride: int | None = None  # tokens that neighbouring windows share; none: 128, at most half a window
    max_answer_tokens: int = 30  # in measuring: the longest answer that is looked for
    no_answer: bool = False  # in measuring: "" may be the answer, also where each row of the data has one
    threshold: float = 0.0  # in measuring: how much more than the best span's the score of no answer has to be

    def __post_init__(self) -> None:
        super().__post_init__()
        self.most_tokens(self.max_tokens)
        self._fit = replace(QUESTION, most=self.max_tokens, stride=self.stride)
        if self.max_answer_tokens < 1:
            raise InvalidInput(f"max_answer_tokens is {self.max_answer_tokens}, wanted at least 1")

    def examples(self, row: dict[str, Any]) -> list[Example]:
        """Of several right answers the first is learned; in measuring all count.

        Raises InvalidInput for an answer that is not where it is said to be, or in no window whole.
        """
        question, context = text_in(row, "question"), text_in(row, "context")
        if not question.strip() or not context.strip():
            raise InvalidInput("question or context is empty; leave the row out")
        answers = [_bare(*answer) for answer in answers_in(row.get("answers"), context)]
        found = [piece.content for piece in self.processor.pieces((question, context), self._fit)]
        most, _ = self._fit.sizes(self.processor.max_tokens)
        targets = [(0, 0)] * len(found)
        if answers:
            targets = [_tokens(w, *answers[0], i == 0, i == len(found) - 1) for i, w in enumerate(found)]
            if not any(end for _, end in targets):
                text = context[slice(*answers[0])]
                raise InvalidInput(
                    f"answer {show(text, 40)!r} fits whole into no window of {most} tokens; ask for a larger "
                    "stride or max_tokens, or leave the row out"
                )
        texts = [context[begin:end] for begin, end in answers]
        examples = []
        read = {"question": question, "context": context, "answers": str(answers)}
        for window, target, part in zip(found, targets, parts(read, len(found)), strict=True):
            inner = _inner(window)
            offsets = np.array([window.offsets[i] for i in inner], np.uint32).reshape(-1, 2)
            examples.append(kept(window, target, Place(part, context, inner[0] if inner else 0, offsets, texts)))
        return examples

    def batch(self, examples: Sequence[Example]) -> Batch:
        import torch

        start, end = torch.tensor([example.target for example in examples]).unbind(-1)
        inputs = self.padded(examples)
        context = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
        for row, example in enumerate(examples):
            context[row, example.note.first : example.note.first + len(example.note.offsets)] = True
        targets = {"start": start, "end": end, "context": context}
        return Batch(inputs, targets, {"span": float(len(examples))}, [example.note for example in examples])

    def losses(self, scores: Any, batch: Batch) -> dict[str, Tensor]:
        padding = batch.inputs["attention_mask"] == 0
        both = [
            cross_entropy(logits.masked_fill(padding, float("-inf")), batch.targets[name])
            for name, logits in (("start", scores.start_logits), ("end", scores.end_logits))
        ]
        return {"span": sum(both[1:], both[0]) / 2}

    def outcomes(self, scores: Any, batch: Batch) -> list[Any]:
        """The best span of each window within its context, and the score of its first token."""
        import torch.nn.functional as F

        outside = ~batch.targets["context"]
        start, end = (wide(logits) for logits in (scores.start_logits, scores.end_logits))
        null = (start[:, 0] + end[:, 0]).tolist()
        start, end = (logits.masked_fill(outside, float("-inf")) for logits in (start, end))
        reach = min(self.max_answer_tokens, end.shape[1])
        ends = F.pad(end, (0, reach - 1), value=float("-inf")).unfold(1, reach, 1)  # (B, T, reach)
        best, at = (start[:, :, None] + ends).flatten(1).max(-1)
        found = zip(best.tolist(), at.tolist(), null, batch.notes, strict=True)
        return [Outcome(p.part, _text(p, *divmod(i, reach)), score, nothing, p.right) for score, i, nothing, p in found]

    def measure(self, outcomes: list[Any]) -> dict[str, float]:
        """By the rules of SQuAD, as shares of 1; of answerable and unanswerable questions also apart, if there are
        both. "" may be the answer where some row has none, or `no_answer` asks for it."""
        rows = by_row(outcomes)
        allowed = self.no_answer or any(not row[0].right for row in rows)
        exact, f1 = [], []
        for row in rows:
            best = max(row, key=lambda window: window.score)
            nothing = allowed and min(window.null for window in row) - best.score > self.threshold
            said = "" if nothing else best.text
            exact.append(metrics.exact_match(best.right, said))
            f1.append(metrics.answer_f1(best.right, said))
        answerable = np.array([bool(row[0].right) for row in rows], bool)
        kinds = {"": np.ones_like(answerable)}
        if answerable.any() and not answerable.all():
            kinds |= {"_answerable": answerable, "_unanswerable": ~answerable}
        return {
            name + kind: float(np.mean(np.array(values)[of])) if of.any() else float("nan")
            for kind, of in kinds.items()
            for name, values in (("exact_match", exact), ("f1", f1))
        }


def _bare(text: str, start: int) -> tuple[int, int]:
    """The characters of an answer, without white space around it."""
    begin = start + len(text) - len(text.lstrip())
    return begin, begin + len(text.strip())


def _inner(window: Encoding) -> list[int]:
    """The places of the context's tokens."""
    return [i for i, sequence in enumerate(window.sequence_ids) if sequence == 1]


def _tokens(window: Encoding, begin: int, end: int, opens: bool, closes: bool) -> tuple[int, int]:
    """The first and the last token of characters `begin` to `end`, or (0, 0) where the window does not hold all.

    `opens`, `closes`: nothing of the context lies before the window, or behind it.
    """
    inner = _inner(window)
    inside = [i for i in inner if window.offsets[i][1] > begin and window.offsets[i][0] < end]
    if not inside:
        return 0, 0
    whole_left = opens or inside[0] > inner[0] or window.offsets[inside[0]][0] <= begin
    whole_right = closes or inside[-1] < inner[-1] or window.offsets[inside[-1]][1] >= end
    return (inside[0], inside[-1]) if whole_left and whole_right else (0, 0)


def _text(place: Place, start: int, more: int) -> str:
    """What the tokens from `start` on, and so many more, stand for."""
    first = start - place.first
    offsets = place.offsets[first : first + more + 1]
    return place.context[offsets[0, 0] : offsets[-1, 1]] if len(offsets) else ""
