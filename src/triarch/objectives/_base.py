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
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, get_type_hints

import numpy as np

from triarch.checks import check
from triarch.data.columns import Candidate, Column, Kind
from triarch.data.examples import Example as Example
from triarch.data.examples import Passage as Passage
from triarch.data.examples import Stretch as Stretch
from triarch.errors import InvalidInput
from triarch.inputs.fit import bounded
from triarch.kinds import Medium, Text

if TYPE_CHECKING:
    from torch import Tensor

    from triarch.family import Network

IGNORED = -100  # a target that no loss looks at, by the convention of torch's cross_entropy


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
    FIELDS: ClassVar[dict[str, Column]] = {}  # columns of its rows, by canonical names; none: running text
    KEYS: ClassVar[tuple[tuple[str, ...], ...]] = ()  # columns that make rows the same; none: all inputs together
    RANK: ClassVar[int] = 0  # rows are tried as those of the objective with the lowest rank first
    METRIC: ClassVar[str] = "loss"  # the one by which the best model is kept
    WHOLE: ClassVar[bool] = False  # the loss of a row depends on the other rows: batches are never taken in pieces
    PAIR: ClassVar[bool] = False  # of running text: a sequence has two segments, the second maybe of another document
    CLASSES: ClassVar[str | None] = None  # the targets that are classes to choose from by `logits`, if that is all
    LABELS: ClassVar[bool] = False  # it has `labels`, which `labels_of` finds in the data
    CONFIG: ClassVar[dict[str, Any]] = {}  # what config.json says of a model that has learned this
    WRAPS: ClassVar[bool] = False  # it is of another objective, and of a teacher
    GIVEN: ClassVar[tuple[str, ...]] = ("processor", "medium")  # fields that are no options

    processor: Any  # a `Processor`; objectives of one medium know which
    medium: Medium = field(default=Text, kw_only=True)  # what the model reads

    def __init_subclass__(cls) -> None:
        cls.NAME = cls.__module__.rpartition(".")[2].replace("_", "-")

    @classmethod
    def options(cls) -> dict[str, Any]:
        """What a recipe can set: the type of each option, by its name."""
        hints = get_type_hints(cls, localns={"Network": object})
        return {f.name: hints[f.name] for f in fields(cls) if f.name not in cls.GIVEN}

    @classmethod
    def kind(cls, medium: Medium = Text) -> Kind:
        """What its rows are for a model that reads `medium`: a column of the model's own medium is called by that.

        Columns that data may lack are for models of their medium only.
        """
        found: dict[str, Column] = {}
        for name, column in cls.FIELDS.items():
            if column.sort is None:
                found[medium.name] = replace(column, sort=medium, usual=medium.usual)
            elif not (column.optional and isinstance(column.sort, Medium) and column.sort != medium):
                found[name] = column
        inputs = tuple(name for name, column in found.items() if isinstance(column.sort, Medium))
        return Kind(cls.NAME, found, cls.is_mine, cls.KEYS or (inputs,))

    @classmethod
    def is_mine(cls, candidate: Candidate) -> bool:
        """Whether rows whose columns have the names of this objective hold its values; else the next one is tried."""
        return True

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
    def classes(self) -> list[str] | None:
        """The names of its labels, by their numbers; None for an objective that has none."""
        return None

    @property
    def guide(self) -> Network | None:
        """The model that it learns from beside the data."""
        return None

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
        """What the model takes of ids: (B, T) each."""
        padded: dict[str, Tensor] = self.processor.pad(
            [[*example.ids] for example in examples], [[*example.type_ids] for example in examples]
        )
        return padded

    def most_tokens(self, wanted: int | None, name: str = "max_tokens", most: int | None = None) -> int:
        """Tokens of one sequence: as many as `wanted`, or as the model takes (`most`). Raises InvalidInput for more."""
        if not self.processor.keeps_ids:
            raise InvalidInput(f"{name} counts tokens of text, and the model reads {self.medium.name}; leave it out")
        most = int(self.processor.max_tokens) if most is None else most
        return most if wanted is None else bounded(name, wanted, most)
