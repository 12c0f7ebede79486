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

from triarch import limits
from triarch.errors import InvalidInput, LimitExceeded
from triarch.tasks._base import Job
from triarch.tasks._scores import mean_by_length, softmax

if TYPE_CHECKING:
    from triarch.family import Network


@dataclass
class Prompt:
    """A window of the text with what stands after it, and the ids of every label that may follow."""

    ids: list[int]
    labels: list[list[int]]

    def __len__(self) -> int:
        return len(self.ids) + max(map(len, self.labels))


def prompts(model: Network, text: str, options: Any) -> Job:
    """The windows of a text. Raises LimitExceeded where cutting was ruled out, and for labels that leave no room."""
    from triarch.generation.scoring import common, split

    before, _, after = options.hypothesis_template.partition("{}")
    shared, labels = split(model, f"{text}\n{before}", [label + after.replace("{}", label) for label in options.labels])
    begin = shared[:1] if shared[:1] == [model.processor.id("bos_token")] else []
    own, rest = model.processor.encode(text, special_tokens=False).ids, shared[len(begin) :]
    body, sentence = rest[: (size := common(own, rest))], rest[size:]
    most: int = options.max_length or model.config.max_tokens
    if most > model.config.max_tokens:
        raise InvalidInput(f"max_length is {most}, the model takes {model.config.max_tokens} tokens; ask for less")
    room = most - len(begin) - len(sentence) - max(map(len, labels))
    stride = options.stride or 0
    if room <= stride:
        raise LimitExceeded(f"of {most:,} tokens the labels leave {max(room, 0):,} for the text; shorten them")
    if options.strategy == "error" and len(body) > room:
        found = most - room + len(body)
        raise LimitExceeded(f'input has {found:,} tokens, the model takes {most:,}; use long="window"')
    starts = range(0, max(len(body) - stride, 1), room - stride)
    if len(starts) > limits.WINDOWS:
        raise LimitExceeded(
            f"the text makes {len(starts):,} windows, over {limits.WINDOWS:,}; split it, or overlap less"
        )
    windows = [body[start : start + room] for start in starts]
    dropped = 0
    if options.strategy == "truncate":
        dropped, windows = max(len(body) - room, 0), windows[:1]
    made: list[Any] = [Prompt([*begin, *window, *sentence], labels) for window in windows]
    return Job(made, stride, len(body), dropped, parts=len(made), notes=text)


def totals(model: Network, windows: Sequence[Any]) -> list[np.ndarray]:
    """The log-probability of every label after each of some windows, (C,) each."""
    from triarch.generation.scoring import score_ids

    found = score_ids(model, [window.ids for window in windows], [window.labels for window in windows])
    return [np.array([likelihood.total for likelihood in likelihoods]) for likelihoods in found]


def probabilities(job: Job, outputs: list[np.ndarray], label_score: str) -> np.ndarray:
    """(C,) of the labels among themselves: by the log-probability of their tokens, its mean or its sum."""
    logs = mean_by_length(job.windows, outputs)
    if label_score == "mean":
        logs = logs / np.array([len(label) for label in job.windows[0].labels])  # type: ignore[attr-defined]
    return softmax(logs)
