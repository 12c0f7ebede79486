"""Choose among labels that the model has never seen, with a model of natural language inference.

    triarch run zero-shot-classification "The striker scored twice" --candidate-labels sports,politics -m MODEL

Each label becomes a hypothesis, and its score is how far the text entails it; Yin et al. 2019, section 5,
https://arxiv.org/abs/1909.00161. A text longer than the model is read in windows with the hypothesis whole in each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from triarch import limits
from triarch.errors import InvalidInput, Unsupported, show, some
from triarch.tasks import _options
from triarch.tasks._base import Job, Task, text_of
from triarch.tasks._scores import mean_by_length, softmax


@dataclass(frozen=True, kw_only=True)
class Options(_options.Options):
    candidate_labels: list[str] | str = ""  # a list, or one text with commas between
    hypothesis_template: str = "This example is {}."  # {} stands for the label
    multi_label: bool = False  # each label by itself, entailment against contradiction

    def __post_init__(self) -> None:
        super().__post_init__()
        if "{}" not in self.hypothesis_template:
            raise InvalidInput(f"hypothesis_template {show(self.hypothesis_template)!r} has no {{}} for the label")
        if len(self.labels) > limits.CANDIDATE_LABELS:
            raise InvalidInput(f"{len(self.labels):,} candidate_labels, at most {limits.CANDIDATE_LABELS:,}")

    @property
    def labels(self) -> list[str]:
        given = self.candidate_labels
        return [label.strip() for label in given.split(",") if label.strip()] if isinstance(given, str) else list(given)


class ZeroShotClassification(Task):
    """Text -> {"sequence", "labels", "scores"}, best label first."""

    NEEDS = ("LabelScores",)
    INPUT = "sequence"
    OPTIONS = Options

    def __init__(self, model: Any, **defaults: Any):
        super().__init__(model, **defaults)
        names = self.model.config.id2label
        entails = [i for i, name in names.items() if name.lower().startswith("entail")]
        if not entails or len(names) < 2:
            raise Unsupported(f"labels are {some([*names.values()])}, wanted one named entailment; choose an NLI model")
        self.entailment = entails[0]
        self.contradiction = len(names) - 1 if self.entailment == 0 else 0

    def __call__(self, sequences: Any, candidate_labels: Any = None, **options: Any) -> Any:  # type: ignore[override]
        """As the reference's: the labels may come second without a name."""
        if candidate_labels is not None:
            options["candidate_labels"] = candidate_labels
        return super().__call__(sequences, **options)

    def read(self, given: Any, options: Options) -> str:
        if not options.labels:
            raise InvalidInput("no candidate_labels; name at least one")
        return text_of(given, "sequence", "text")

    def prepare(self, row: str, options: Options) -> Job:
        hypotheses = [options.hypothesis_template.replace("{}", label) for label in options.labels]
        jobs = [self.windows(row, hypothesis, options, side="first") for hypothesis in hypotheses]
        windows = [window for job in jobs for window in job.windows]
        most = max(jobs, key=lambda job: len(job.windows))
        return replace(most, windows=windows, dropped=max(job.dropped for job in jobs), notes=(row, jobs))

    def answer(self, job: Job, outputs: list[np.ndarray], options: Options) -> dict[str, Any]:
        row, jobs = job.notes
        rest = iter(outputs)
        logits = [mean_by_length(one.windows, list(islice(rest, len(one.windows)))) for one in jobs]
        table = np.stack(logits)  # (labels, L)
        if options.multi_label or len(table) == 1:
            scores = softmax(table[:, [self.contradiction, self.entailment]])[:, 1]
        else:
            scores = softmax(table[:, self.entailment])
        order = scores.argsort()[::-1]
        return {
            "sequence": row,
            "labels": [options.labels[i] for i in order],
            "scores": [float(scores[i]) for i in order],
        }
