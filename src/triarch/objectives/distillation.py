"""Learn from a larger model: its probabilities beside what the data says is right.

Hinton et al. 2015, section 2, https://arxiv.org/abs/1503.02531: softened by a temperature, and times its square, so
that the gradient keeps its size.

Shapes: N choices that the loss is about, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, get_origin, get_type_hints

import numpy as np

from triarch.errors import InvalidInput, Unsupported
from triarch.objectives._base import IGNORED, Batch, Example, Objective, Passage, Stretch
from triarch.objectives._losses import wide

if TYPE_CHECKING:
    from torch import Tensor

    from triarch.family import Network

OWN = {"NAME", "WRAPS", "GIVEN"}  # what it declares itself; in all else it is as the objective that it wraps


class Both(NamedTuple):
    student: Any
    teacher: Tensor  # logits (N, C)


@dataclass(kw_only=True)
class Distillation(Objective):
    """Wraps another objective, whose scores are choices among classes: labels, tags, words.

    The teacher sees the same batches, so it has to read alike, of text with the same vocabulary, and to have the same
    labels. Where one of both has scores for rows behind the vocabulary, which pad it to a round number, these are not
    compared. A teacher that tells two segments apart, of a model that does not, sees both texts of a pair as the first.
    """

    WRAPS: ClassVar[bool] = True
    GIVEN: ClassVar[tuple[str, ...]] = ("processor", "medium", "inner", "teacher")

    inner: Objective
    teacher: Network
    alpha: float = 0.5  # the teacher's share of the loss; the rest is that of the data
    temperature: float = 2.0  # what logits are divided by before they are compared

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise InvalidInput(f"alpha is {self.alpha}, wanted a share of 0 to 1")
        if not self.temperature > 0:
            raise InvalidInput(f"temperature is {self.temperature}, wanted more than 0")
        for name, hint in get_type_hints(Objective, localns={}).items():
            if get_origin(hint) is ClassVar and name not in OWN:
                setattr(self, name, getattr(self.inner, name))
        if self.inner.CLASSES is None:
            raise Unsupported(
                f"{self.inner.NAME} is no choice among classes; there is nothing to compare with a teacher"
            )
        _check_teacher(self.teacher, self.inner)
        self.teacher.eval()

    @property
    def classes(self) -> list[str] | None:
        return self.inner.classes

    @property
    def guide(self) -> Network:
        return self.teacher

    def prepare(self, rows: Iterable[dict[str, Any]]) -> None:
        self.inner.prepare(rows)

    def examples(self, row: dict[str, Any]) -> list[Example]:
        return self.inner.examples(row)

    def compose(
        self, passages: Sequence[Passage], other: Callable[[], Sequence[Passage]], rng: np.random.Generator
    ) -> Example:
        return self.inner.compose(passages, other, rng)

    def continued(self, stretches: Sequence[Stretch]) -> Example:
        return self.inner.continued(stretches)

    @property
    def room(self) -> int:
        return self.inner.room

    def sizes(self, tokens: np.ndarray) -> np.ndarray:
        return self.inner.sizes(tokens)

    def batch(self, examples: Sequence[Example]) -> Batch:
        batch = self.inner.batch(examples)
        return batch._replace(counts=batch.counts | {"distillation": float(self._chosen(batch).sum())})

    def forward(self, model: Network, batch: Batch) -> Both:
        import torch

        student = self.inner.forward(model, batch)
        teacher = self.teacher.to(next(iter(batch.inputs.values())).device)
        taken = (*self.teacher.INPUTS, *(name for name in batch.inputs if name.startswith("decoder_")))
        inputs = {name: tensor for name, tensor in batch.inputs.items() if name in taken}
        with torch.no_grad():
            scores = self.inner.forward(teacher, batch._replace(inputs=inputs))
        return Both(student, self._choices(scores, batch))

    def losses(self, scores: Both, batch: Batch) -> dict[str, Tensor]:
        import torch.nn.functional as F

        student = self._choices(scores.student, batch) / self.temperature
        teacher = scores.teacher / self.temperature
        known = min(student.shape[-1], teacher.shape[-1])
        student, teacher = student[:, :known], teacher[:, :known]
        apart = F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction="sum", log_target=True)
        hard = {name: (1 - self.alpha) * loss for name, loss in self.inner.losses(scores.student, batch).items()}
        return hard | {"distillation": self.alpha * self.temperature**2 * apart}

    def outcomes(self, scores: Both, batch: Batch) -> list[Any]:
        return self.inner.outcomes(scores.student, batch)

    def measure(self, outcomes: list[Any]) -> dict[str, float]:
        return self.inner.measure(outcomes)

    def choices(self, outcomes: list[Any]) -> tuple[list[str], list[str]] | None:
        return self.inner.choices(outcomes)

    @property
    def writes(self) -> tuple[int, dict[str, Any]]:
        return self.inner.writes

    def compare(self, right: Sequence[Any], written: Sequence[str]) -> dict[str, float]:
        return self.inner.compare(right, written)

    def _chosen(self, batch: Batch) -> Tensor:
        assert self.inner.CLASSES is not None
        return batch.targets[self.inner.CLASSES] != IGNORED

    def _choices(self, scores: Any, batch: Batch) -> Tensor:
        """(N, C): the logits that the inner loss is about."""
        chosen = self._chosen(batch)
        picked = scores.logits.ndim == 2 and chosen.ndim == 2  # words come picked already
        return wide(scores.logits if picked else scores.logits[chosen])


def _check_teacher(teacher: Network, inner: Objective) -> None:
    """Raises InvalidInput for another way to read, or other labels; Unsupported for another head or medium."""
    if teacher.kind is not inner.SCORES:
        given, needed = teacher.kind.__name__, inner.SCORES.__name__
        raise Unsupported(f"the teacher gives {given}, {inner.NAME} needs {needed}; choose another teacher")
    if (medium := teacher.family.medium) != inner.medium:
        raise Unsupported(
            f"the teacher reads {medium.name}, the model {inner.medium.name}; choose a teacher that reads the same"
        )
    if inner.processor.keeps_ids:
        _check_vocabulary(teacher, inner)
    elif teacher.processor is not None and teacher.processor.fingerprint() != inner.processor.fingerprint():
        raise InvalidInput(
            f"the teacher's {teacher.family.reads.called} is not the model's; choose a teacher that reads alike"
        )
    names = list(teacher.config.id2label.values())
    if inner.classes is not None and names != inner.classes:
        raise InvalidInput(
            f"the teacher's labels are {names[:5]}, the objective's {inner.classes[:5]}; give labels in its order"
        )


def _check_vocabulary(teacher: Network, inner: Objective) -> None:
    """Raises InvalidInput for another vocabulary, or too few tokens."""
    ours, theirs = inner.processor.vocab_size, teacher.config.vocab_size  # rows of the embeddings
    if teacher.processor is not None:
        known, other = inner.processor.tokenizer.get_vocab(), teacher.processor.tokenizer.get_vocab()
        if known != other:
            raise InvalidInput(
                f"the teacher's vocabulary of {len(other):,} tokens is not the model's of {len(known):,}; choose a "
                "teacher with the same"
            )
    elif ours != theirs:
        raise InvalidInput(
            f"the teacher has no tokenizer, and {theirs:,} tokens where the model has {ours:,}; choose a teacher with "
            "the same vocabulary"
        )
    longest = getattr(inner, "max_tokens", None) or inner.processor.max_tokens
    most = teacher.config.max_tokens if teacher.processor is None else teacher.processor.max_tokens
    if longest > most:
        raise InvalidInput(
            f"the teacher takes {most:,} tokens, {inner.NAME} shows it up to {longest:,}; set the option max_tokens to "
            f"{most}, or choose another teacher"
        )
