"""Give a text, or a pair of texts, one of a model's labels.

    triarch run text-classification "What a lovely day" -m distilbert-base-uncased-finetuned-sst-2-english

A text longer than the model is read in windows, whose scores are averaged by length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from triarch.errors import InvalidInput
from triarch.inputs.fit import mean
from triarch.inputs.text.given import pair_of
from triarch.kinds import LabelScores
from triarch.tasks import _options
from triarch.tasks._base import Job, Task
from triarch.tasks._scores import labelled


@dataclass(frozen=True, kw_only=True)
class Options(_options.Options):
    text_pair: str | None = None  # the second text of every input that brings none
    top_k: int | Literal["best"] | None = "best"  # that many best labels; None: all; "best": one, and not in a list
    return_all_scores: bool = False  # the reference's old way to ask for all labels, in the model's order
    function_to_apply: Literal["sigmoid", "softmax", "none"] | None = None  # None: as the config's problem_type asks


class TextClassification(Task):
    """Text, or {"text": …, "text_pair": …} -> [{"label", "score"}]."""

    ALIASES = ("sentiment-analysis",)
    NEEDS = (LabelScores,)
    TRY = "I loved it."
    STARTERS = {"text-classification": "intents"}
    OPTIONS = Options

    def shaped(self, answer: Any, inputs: Any, given: dict[str, Any]) -> Any:
        return [answer] if isinstance(inputs, str) and "top_k" not in given else answer

    def read(self, given: Any, options: Options) -> tuple[str, str | None]:
        if isinstance(given, list) and len(given) == 1 and isinstance(given[0], list) and len(given[0]) == 2:
            given = {"text": given[0][0], "text_pair": given[0][1]}  # the reference's old way to write a pair
        if isinstance(given, list):
            raise InvalidInput('input is a list within a list; write a pair as {"text": …, "text_pair": …}')
        return pair_of(given, options.text_pair)

    def answer(self, job: Job, outputs: list[np.ndarray], options: Options) -> Any:
        ranked = labelled(mean(outputs, job.costs), self.model.config, options.function_to_apply)
        if options.return_all_scores:
            return ranked
        ranked.sort(key=lambda label: -label["score"])
        return ranked[0] if options.top_k == "best" else ranked[: options.top_k]
