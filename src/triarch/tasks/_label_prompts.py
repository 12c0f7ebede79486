"""Labels as what a decoder would write after a text: the text, a line with the beginning of a sentence, the label.

Radford et al. 2019, section 3, and Brown et al. 2020, section 2.4, https://arxiv.org/abs/2005.14165, chose so among
answers. A text longer than the model is read in windows, each with the sentence after it.

Shapes: C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from triarch.errors import LimitExceeded
from triarch.inputs.fit import Fit, cut, mean
from triarch.inputs.processor import Piece
from triarch.tasks._base import Job
from triarch.tasks._scores import softmax

if TYPE_CHECKING:
    from triarch.family import Network


@dataclass
class Prompt:
    """A window of the text with what stands after it, and the ids of every label that may follow."""

    ids: list[int]
    labels: list[list[int]]

    def __len__(self) -> int:
        return len(self.ids) + max(map(len, self.labels))


def prompts(model: Network, text: str, fit: Fit, options: Any) -> Job:
    """The windows of a text. Raises LimitExceeded where cutting was ruled out, and for labels that leave no room."""
    from triarch.generation.scoring import common, split

    before, _, after = options.hypothesis_template.partition("{}")
    shared, labels = split(model, f"{text}\n{before}", [label + after.replace("{}", label) for label in options.labels])
    begin = shared[:1] if shared[:1] == [model.processor.id("bos_token")] else []
    own, rest = model.processor.encode(text, special_tokens=False).ids, shared[len(begin) :]
    body, sentence = rest[: (size := common(own, rest))], rest[size:]
    most, stride = fit.sizes(model.config.max_tokens)
    room = most - len(begin) - len(sentence) - max(map(len, labels))
    if room <= stride:
        raise LimitExceeded(f"of {most:,} tokens the labels leave {max(room, 0):,} for the text; shorten them")
    if fit.strategy == "error":
        fit.refuse(most - room + len(body), most)
    windows, dropped = cut(len(body), room, stride, fit.strategy)
    made = [Prompt([*begin, *body[window], *sentence], labels) for window in windows]
    return Job([Piece(one, len(one)) for one in made], len(body), dropped, len(made), notes=text)


def totals(model: Network, windows: Sequence[Prompt]) -> list[np.ndarray]:
    """The log-probability of every label after each of some windows, (C,) each."""
    from triarch.generation.scoring import score_ids

    found = score_ids(model, [window.ids for window in windows], [window.labels for window in windows])
    return [np.array([likelihood.total for likelihood in likelihoods]) for likelihoods in found]


def probabilities(job: Job, outputs: list[np.ndarray], label_score: str) -> np.ndarray:
    """(C,) of the labels among themselves: by the log-probability of their tokens, its mean or its sum."""
    logs = mean(outputs, job.costs)
    if label_score == "mean":
        logs = logs / np.array([len(label) for label in job.pieces[0].content.labels])
    return softmax(logs)
