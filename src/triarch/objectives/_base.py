"""What all objectives share.

An objective turns what was read into examples (`examples`, or `compose` and `continued` where it learns from running
text), examples into a batch (`batch`), and the model's scores for that batch into losses (`losses`). It knows nothing
of optimizers, steps or files.

A loss is a sum and a count, kept apart: over several micro-batches the sums add up, and so do the counts, so that a
batch taken in pieces has to the last bit of mathematics the gradient of the whole. The counts come from the targets
alone, before any forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, get_type_hints

import numpy as np

from triarch.checks import check
from triarch.inputs.fit import bounded

if TYPE_CHECKING:
    from torch import Tensor

    from triarch.family import Network
    from triarch.inputs.text.processor import TextProcessor

IGNORED = -100  # a target that no loss looks at, by the convention of torch's cross_entropy


class Example(NamedTuple):
    """One sequence of tokens, special ones included, and what is to be learned from it."""

    ids: Sequence[int]  # where examples are kept, an array of four bytes each
    type_ids: Sequence[int]
    target: Any = None  # each objective's own
    note: Any = None  # what measuring needs beside the target, such as the texts of the right answers
    written: int = 0  # tokens of the target, where that is a text which the model goes through as well
    dropped: int = 0  # tokens of the row that were cut, because that was asked for

    @property
    def length(self) -> int:
        return len(self.ids) + self.written


class Passage(NamedTuple):
    """A sentence of running text, as tokens without special ones."""

    ids: np.ndarray  # (T,) int64
    starts: np.ndarray  # (T,) bool: here a word begins


class Stretch(NamedTuple):
    """A part of a document, to the letter, as tokens without special ones."""

    ids: np.ndarray  # (T,) int64
    begins: bool  # the document begins with it
    ends: bool  # and ends with it


class Batch(NamedTuple):
    inputs: dict[str, Tensor]  # what the model takes
    targets: dict[str, Tensor]
    counts: dict[str, float]  # of each loss: what its sum is divided by
    notes: list[Any]  # of each row

    def to(self, device: Any) -> Batch:
        inputs, targets = (
            {name: tensor.to(device) for name, tensor in part.items()} for part in (self.inputs, self.targets)
        )
        return self._replace(inputs=inputs, targets=targets)


@dataclass
class Objective:
    """One way of learning. Subclasses are dataclasses; their fields are the options that a recipe can set.

    What is declared here is asked of the object rather than of its class, as it may depend on the options.
    """

    NAME: ClassVar[str]  # as recipes write it: the name of its file, with dashes
    SCORES: ClassVar[type]  # the kind of scores it trains, of `kinds`
    READS: ClassVar[str] = "rows"  # or "documents", sentences of running text; or "texts", all of it to the letter
    FIELDS: ClassVar[tuple[str, ...]] = ()  # columns of its rows, if these are its own; those ending in ? may be absent
    METRIC: ClassVar[str] = "loss"  # the one by which the best model is kept
    WHOLE: ClassVar[bool] = False  # the loss of a row depends on the other rows: batches are never taken in pieces
    PAIR: ClassVar[bool] = False  # of running text: a sequence has two segments, the second maybe of another document
    CLASSES: ClassVar[str | None] = None  # the targets that are classes to choose from by `logits`, if that is all
    LABELS: ClassVar[bool] = False  # it has `labels`, which `labels_of` finds in the data
    CONFIG: ClassVar[dict[str, Any]] = {}  # what config.json says of a model that has learned this
    GIVEN: ClassVar[tuple[str, ...]] = ("processor",)  # fields that are no options

    processor: TextProcessor

    def __init_subclass__(cls) -> None:
        cls.NAME = cls.__module__.rpartition(".")[2].replace("_", "-")

    @classmethod
    def options(cls) -> dict[str, Any]:
        """What a recipe can set: the type of each option, by its name."""
        hints = get_type_hints(cls, localns={"TextProcessor": object, "Network": object})
        return {f.name: hints[f.name] for f in fields(cls) if f.name not in cls.GIVEN}

    @classmethod
    def labels_of(cls, rows: Iterable[dict[str, Any]]) -> list[str]:
        """The labels that rows have, in the order in which a model numbers them."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        for name, kind in self.options().items():
            check(name, getattr(self, name), kind)

    def attach(self, network: Network) -> None:
        """Take from the model what depends on it, once and before `prepare`. Raises TriarchError if it does not fit."""

    def prepare(self, rows: Iterable[dict[str, Any]]) -> None:
        """Learn from all training rows, once and before the first example, what the options leave to them."""

    def examples(self, row: dict[str, Any]) -> list[Example]:
        """A row -> one example, or one for each window of a long text. Raises InvalidInput for a row it can't use."""
        raise NotImplementedError

    def compose(
        self, passages: Sequence[Passage], other: Callable[[], Sequence[Passage]], rng: np.random.Generator
    ) -> Example:
        """Running text -> an example, freshly corrupted. `other()` gives passages of another document."""
        raise NotImplementedError

    def continued(self, stretches: Sequence[Stretch]) -> Example:
        """Running text, to the letter -> an example; what follows one upon the other is of different documents."""
        raise NotImplementedError

    @property
    def room(self) -> int:
        """How many tokens of running text one example has: that many fit beside the special ones."""
        raise NotImplementedError

    def sizes(self, tokens: np.ndarray) -> np.ndarray:
        """How long examples are, at most, that are made of so many tokens of running text (N,)."""
        sizes: np.ndarray = tokens + self.processor.tokenizer.num_special_tokens_to_add(self.PAIR)
        return sizes

    @property
    def least(self) -> int:
        """Examples of a batch, with fewer of which there is nothing to learn."""
        return 1

    def batch(self, examples: Sequence[Example]) -> Batch:
        """Examples -> tensors (B, T), padded at the end."""
        raise NotImplementedError

    def forward(self, model: Network, batch: Batch) -> Any:
        """The scores that `losses` and `outcomes` read."""
        return model(**batch.inputs)

    def losses(self, scores: Any, batch: Batch) -> dict[str, Tensor]:
        """Of each loss the sum over the batch, to be divided by its count. All losses together are learned."""
        raise NotImplementedError

    def outcomes(self, scores: Any, batch: Batch) -> list[Any]:
        """What measuring keeps of a batch: a few numbers a row, never the scores themselves."""
        raise NotImplementedError

    def measure(self, outcomes: list[Any]) -> dict[str, float]:
        """Metrics by their names, of the outcomes of all batches. The loss is not among them."""
        raise NotImplementedError

    def choices(self, outcomes: list[Any]) -> tuple[list[str], list[str]] | None:
        """The right labels and those said, one for one, where the outcomes are choices among labels."""
        return None

    @property
    def writes(self) -> tuple[int, dict[str, Any]]:
        """From how many sources a measurement has the model write, and by which options of generating."""
        return 0, {}

    def compare(self, right: Sequence[Any], written: Sequence[str]) -> dict[str, float]:
        """Metrics by their names, of texts that were written, beside the notes of the examples that they are from."""
        return {}

    # Helpers of several objectives

    def padded(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """What the model takes: (B, T) each."""
        return self.processor.pad(
            [[*example.ids] for example in examples], [[*example.type_ids] for example in examples]
        )

    def most_tokens(self, wanted: int | None, name: str = "max_tokens", most: int | None = None) -> int:
        """Tokens of one sequence: as many as `wanted`, or as the model takes (`most`). Raises InvalidInput for more."""
        most = self.processor.max_tokens if most is None else most
        return most if wanted is None else bounded(name, wanted, most)
