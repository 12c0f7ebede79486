"""Choose among labels that the model has never seen.

    triarch run zero-shot-classification "The striker scored twice" --candidate-labels sports,politics -m MODEL

With a model of natural language inference each label becomes a hypothesis, and its score is how far the text entails
it; Yin et al. 2019, section 5, https://arxiv.org/abs/1909.00161. With a decoder its score is how likely the model finds
the hypothesis to go on with it after the text. A text longer than the model is read in windows with the hypothesis
whole in each. An NLI model, BART too, reads both together from its first layer on, so nothing that it makes of a text
serves a second label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from triarch import limits
from triarch.errors import InvalidInput, Unsupported, show, some
from triarch.inputs.fit import Fit, mean
from triarch.inputs.text.given import text_of
from triarch.kinds import LabelScores, NextWordScores
from triarch.tasks import _label_prompts, _options
from triarch.tasks._base import Job, Task, dealt, together
from triarch.tasks._scores import softmax

if TYPE_CHECKING:
    from triarch.inputs.processor import Piece


@dataclass(frozen=True, kw_only=True)
class Options(_options.Options):
    candidate_labels: list[str] | str = ""  # a list, or one text with commas between
    hypothesis_template: str = "This example is {}."  # {} stands for the label
    multi_label: bool = False  # each label by itself, entailment against contradiction
    label_score: Literal["mean", "sum"] | None = None  # of the log-probabilities of a label's tokens; None: the mean

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

    NEEDS = (LabelScores, NextWordScores)
    FIELD = "sequence"
    OPTIONS = Options
    FIT = Fit(side="first")

    def __init__(self, model: Any, **defaults: Any):
        super().__init__(model, **defaults)
        if self.decoder:
            return
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

    @property
    def decoder(self) -> bool:
        return self.model.kind is NextWordScores

    def options(self, given: dict[str, Any]) -> Any:
        chosen = super().options(given)
        if self.decoder and chosen.multi_label:
            raise InvalidInput("multi_label needs a model of natural language inference; a decoder chooses one label")
        if not self.decoder and chosen.label_score is not None:
            raise InvalidInput(f"label_score does nothing with {self.model.architecture}; it is for decoders")
        return chosen

    def read(self, given: Any, options: Options) -> str:
        least = 2 if self.decoder else 1  # a decoder tells only which label is likelier
        if len(options.labels) < least:
            found = f"{len(options.labels) or 'no'} candidate_labels"
            raise InvalidInput(f"{found}; name at least {'one' if least == 1 else 'two'}")
        return text_of(given, "sequence", "text")

    def prepare(self, item: str, options: Options) -> Job:
        if self.decoder:
            return _label_prompts.prompts(self.model, item, self.fit(options), options)
        hypotheses = [options.hypothesis_template.replace("{}", label) for label in options.labels]
        prepare = super().prepare
        jobs = [prepare((item, hypothesis), options) for hypothesis in hypotheses]
        units = max(jobs, key=lambda job: job.parts).units
        return together(jobs, units=units, dropped=max(job.dropped for job in jobs), notes=(item, jobs))

    def scored(self, pieces: list[Piece], options: Options, cancelled: Callable[[], bool]) -> Sequence[np.ndarray]:
        if self.decoder:
            return _label_prompts.totals(self.model, [piece.content for piece in pieces])
        return super().scored(pieces, options, cancelled)

    def answer(self, job: Job, outputs: list[np.ndarray], options: Options) -> dict[str, Any]:
        if self.decoder:
            row, scores = job.notes, _label_prompts.probabilities(job, outputs, options.label_score or "mean")
        else:
            row, scores = self._entailed(job, outputs, options)
        order = scores.argsort()[::-1]
        return {
            "sequence": row,
            "labels": [options.labels[i] for i in order],
            "scores": [float(scores[i]) for i in order],
        }

    def _entailed(self, job: Job, outputs: list[np.ndarray], options: Options) -> tuple[str, np.ndarray]:
        row, jobs = job.notes
        pairs = zip(jobs, dealt(jobs, outputs), strict=True)
        table = np.stack([mean(own, one.costs) for one, own in pairs])  # (labels, L)
        if options.multi_label or len(table) == 1:
            return row, softmax(table[:, [self.contradiction, self.entailment]])[:, 1]
        return row, softmax(table[:, self.entailment])
