"""Say whether one text follows another, as BERT was pretrained to.

    triarch run next-sentence "I was hungry." --text-pair "So I ate." -m bert-base-uncased

Devlin et al. 2018, section 3.1. Pairs longer than the model are read in windows, whose scores are averaged by length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from triarch.errors import InvalidInput
from triarch.inputs.fit import mean
from triarch.inputs.text.given import pair_of
from triarch.kinds import FollowsScores, PretrainingScores
from triarch.tasks import _options
from triarch.tasks._base import Job, Task
from triarch.tasks._scores import softmax

if TYPE_CHECKING:
    from torch import Tensor

    from triarch.inputs.processor import Piece


@dataclass(frozen=True, kw_only=True)
class Options(_options.Options):
    text_pair: str | None = None  # the second text of every input that brings none


class NextSentence(Task):
    """{"text": …, "text_pair": …} -> {"label": "IsNext" | "NotNext", "score"}."""

    NEEDS = (FollowsScores, PretrainingScores)
    TAG = ""
    TRY = {"text": "I was hungry.", "text_pair": "So I ate."}
    STARTERS = {"next-sentence": "bert-books"}
    OPTIONS = Options

    def read(self, given: Any, options: Options) -> tuple[str, str]:
        text, pair = pair_of(given, options.text_pair)
        if pair is None:
            raise InvalidInput('input is one text, wanted two; write {"text": …, "text_pair": …}')
        return text, pair

    def compute(self, batch: dict[str, Tensor], pieces: list[Piece], options: Options) -> list[np.ndarray]:
        *_, follows = self.model(**batch)  # which comes last in both kinds of scores
        return list(follows.float().cpu().numpy())

    def answer(self, job: Job, outputs: list[np.ndarray], options: Options) -> dict[str, Any]:
        follows, not_follows = softmax(mean(outputs, job.costs))
        label = "IsNext" if follows >= not_follows else "NotNext"
        return {"label": label, "score": float(max(follows, not_follows))}
