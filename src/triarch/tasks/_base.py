"""What all tasks share: inputs of every shape, long inputs, batches, answers in order.

A task reads one input (`read`), turns it into the pieces that the model sees (`prepare`), and turns the model's scores
for these pieces into the answer (`answer`). Everything between — one input or many, lists, generators, files, batches
over inputs of like length, progress — is here, for every medium: what a piece is, the model's processor says.

A task may be called from several threads at once.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from tqdm import tqdm

from triarch.checks import fits, kinds
from triarch.data.inputs import read_rows
from triarch.engine import budgets
from triarch.errors import InvalidInput, TriarchError, Unsupported, show
from triarch.inputs import fit
from triarch.inputs.fit import Fit
from triarch.inputs.processor import Piece
from triarch.kinds import Medium, Text
from triarch.suggest import did_you_mean
from triarch.tasks._options import Options, Shared

if TYPE_CHECKING:  # a task's options can be listed, and completed in a shell, without torch
    from torch import Tensor

    from triarch.family import Network

WAIT = 0.1  # seconds that inputs are collected for from a slow source before those that are there are answered
PROGRESS_DELAY = 2.0  # seconds before a bar appears


@dataclass
class Job:
    """One input on its way through the model."""

    pieces: list[Piece]
    units: int = 0  # of the whole input: tokens, patches, frames
    dropped: int = 0  # of these, units that no piece holds, because cutting was asked for
    parts: int = 1  # pieces of the input; less than len(pieces) where it is seen with several others
    notes: Any = None  # what `prepare` knows and `answer` needs

    @property
    def contents(self) -> list[Any]:
        return [piece.content for piece in self.pieces]

    @property
    def costs(self) -> list[int]:
        return [piece.cost for piece in self.pieces]


class Cancelled(Exception):
    """Nobody waits for the answers any more."""


class Task:
    """One task on one model. Call it with an input or many; see its `OPTIONS` for what can be asked for."""

    ALIASES: ClassVar[tuple[str, ...]] = ()
    NEEDS: ClassVar[tuple[type, ...]] = ()  # kinds of scores that serve, of `kinds`; none: any head
    INPUT: ClassVar[Medium] = Text  # what it asks about
    FIELD: ClassVar[str | None] = None  # the name under which a row of a file holds the input; None: the medium's
    TRY: ClassVar[Any] = None  # an input that shows it off; a task without one is on no card
    TAG: ClassVar[str | None] = None  # the hub's name of it, where that is another one; empty: it has none
    STARTERS: ClassVar[Mapping[str, str]] = {}  # the starter for each name that it is called by
    OPTIONS: ClassVar[type[Shared]] = Options
    READ_AHEAD: ClassVar[int] = budgets.BATCHES_AHEAD
    FIT: ClassVar[Fit] = Fit()  # how an input longer or larger than the model is read, unless options say otherwise

    def __init__(self, model: Network, **defaults: Any):
        if (medium := model.family.medium) != self.INPUT:
            raise Unsupported(
                f"{model.architecture} reads {medium.name}, this task needs one that reads {self.INPUT.name}; choose "
                "another checkpoint"
            )
        if self.NEEDS and model.kind not in self.NEEDS:
            given, wanted = model.kind.__name__, " or ".join(kind.__name__ for kind in self.NEEDS)
            raise Unsupported(
                f"{model.architecture} gives {given}, this task needs {wanted}; choose another checkpoint"
            )
        if model.processor is None:
            raise Unsupported(
                f"the checkpoint has no {model.family.reads.called}; put {model.family.reads.files} beside the weights"
            )
        self.model = model
        self.processor: Any = model.processor  # a `Processor`; tasks of one medium know which
        self.defaults = defaults
        self.options({})

    @classmethod
    def load(cls, model: str | os.PathLike[str], **options: Any) -> Network:
        """A model that the task alone holds, with the head that it needs. Arguments and errors as of `triarch.load`."""
        from triarch.engine.prepare import load

        return load(model, scores=cls.NEEDS, **options)

    @classmethod
    def field(cls) -> str:
        """The name under which a row of a file holds the input."""
        return cls.FIELD or cls.INPUT.name

    @classmethod
    def serves(cls, medium: Medium, scores: type) -> bool:
        """Whether a checkpoint that reads this medium can do it with a head that gives these scores."""
        return medium == cls.INPUT and (not cls.NEEDS or scores in cls.NEEDS)

    def read(self, given: Any, options: Any) -> Any:
        """One input as a user gives it -> what `prepare` takes. Raises InvalidInput."""
        return self.processor.read(given)

    def prepare(self, item: Any, options: Any) -> Job:
        """One input -> the pieces of it that the model will see."""
        pieces = self.processor.pieces(item, self.fit(options))
        first: Piece = pieces[0]
        units = first.cost if first.whole is None else first.whole
        return Job(pieces, units, first.dropped, len(pieces))

    def fit(self, options: Any) -> Fit:
        """What is done with an input that does not fit."""
        chosen: Fit = options.fit(self.FIT)
        return chosen

    def compute(self, batch: dict[str, Tensor], pieces: list[Piece], options: Any) -> list[Any]:
        """A batch of pieces -> one array each: by default the scores of the head."""
        logits: Tensor = self.model(**batch).logits
        return list(logits.float().cpu().numpy())

    def answer(self, job: Job, outputs: list[Any], options: Any) -> Any:
        """What the model made of a job's pieces -> what the user gets."""
        raise NotImplementedError

    def single(self, inputs: Any, options: Any) -> bool:
        """Whether `inputs` is one input rather than many."""
        return isinstance(inputs, dict) or self.processor.single(inputs)

    def shaped(self, answer: Any, inputs: Any, given: dict[str, Any]) -> Any:
        """The answer of a call in the shape that the reference gives it for such inputs, at times an odd one."""
        return answer

    # From here on nothing differs between tasks.

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """One input -> its answer; a list -> a list; a generator or a Path to a file -> an iterator, in order.

        Raises InvalidInput and its kin; for many inputs the error says which.
        """
        chosen = self.options(options)
        if self.single(inputs, chosen):
            answer = next(self.run([inputs], chosen))
        elif isinstance(inputs, list | tuple):
            answer = list(self.run(inputs, chosen))
        elif isinstance(inputs, Path):
            return self.run(read_rows(inputs, self.field(), medium=self.INPUT), chosen)
        elif isinstance(inputs, Iterable):
            return self.run(inputs, chosen)
        else:
            raise InvalidInput(f"input is {type(inputs).__name__}, wanted one input, a list, a generator or a Path")
        return answer if chosen.coverage else self.shaped(answer, inputs, options)

    def options(self, given: dict[str, Any]) -> Any:
        """Options of one call, on top of the task's defaults; None means "as if not given" unless the option takes it.

        Raises InvalidInput, for an unknown name with the nearest one.
        """
        return self.OPTIONS(**self.asked(given))

    def asked(self, given: dict[str, Any]) -> dict[str, Any]:
        """What `options` takes of a call and of the task's defaults, all names known."""
        known = kinds(self.OPTIONS)
        for name in self.defaults | given:
            if name not in known:
                hint = did_you_mean(name, known)
                raise InvalidInput(f"no option {show(name)!r}{hint}; there are {', '.join(known)}")

        def meant(some: dict[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in some.items() if value is not None or fits(None, known[name])}

        return meant(self.defaults) | meant(given)

    def run(self, inputs: Iterable[Any], options: Any) -> Iterator[Any]:
        """Answers in the order of the inputs, as they come. Raises the first error, saying which input it was."""
        with progress(inputs) as bar:
            for number, answer in enumerate(self.stream(inputs, options, done=bar.update)):
                if isinstance(answer, TriarchError):
                    if not (isinstance(inputs, Sized) and len(inputs) == 1):
                        answer.args = (f"input {number}: {answer}",)
                    raise answer
                yield answer

    def stream(
        self,
        inputs: Iterable[Any],
        options: Any,
        cancelled: Callable[[], bool] = lambda: False,
        done: Callable[[float], object] = lambda share: None,
    ) -> Iterator[Any]:
        """As `run`, but an input that fails gives its error as its answer, and the rest goes on.

        Once `cancelled()` is true the answers end, after the batch that the model is at. `done` is told each time what
        share of an input, or how many of them, the model is done with.
        """

        def told(share: float) -> None:
            done(share)
            if cancelled():
                raise Cancelled

        try:
            for chunk in self._chunks(inputs, options, cancelled):
                jobs = [job for job in chunk if isinstance(job, Job)]
                outputs = iter(self.outputs(jobs, options, told, cancelled))
                for job in chunk:
                    yield self._answered(job, next(outputs), options) if isinstance(job, Job) else job
                    if not (isinstance(job, Job) and job.pieces):
                        told(1)
        except Cancelled:
            return

    def _answered(self, job: Job, outputs: list[Any] | TriarchError, options: Any) -> Any:
        if isinstance(outputs, TriarchError):
            return outputs
        try:
            answer = self.answer(job, outputs, options)
        except TriarchError as error:
            return error
        if not options.coverage:
            return answer
        return {"result": answer, "coverage": fit.coverage(job.units, job.dropped, job.parts, options.strategy)}

    def _chunks(
        self, inputs: Iterable[Any], options: Any, cancelled: Callable[[], bool]
    ) -> Iterator[list[Job | TriarchError]]:
        """Inputs to be answered together: as many as make good batches, but from a slow source none has to wait."""
        chunk: list[Job | TriarchError] = []
        cost, most = 0, budgets.INPUTS_AHEAD if isinstance(inputs, Sized) else 1
        start = time.monotonic()
        for given in inputs:
            if cancelled():
                return
            try:
                job: Job | TriarchError = given if isinstance(given, TriarchError) else self._job(given, options)
            except TriarchError as error:
                job = error
            chunk.append(job)
            cost += sum(job.costs) if isinstance(job, Job) else 0
            if cost >= self.READ_AHEAD * self.budget() or len(chunk) >= most:
                slow = time.monotonic() - start > WAIT
                yield chunk
                most = 1 if slow else min(2 * most, budgets.INPUTS_AHEAD)
                chunk, cost, start = [], 0, time.monotonic()
        if chunk:
            yield chunk

    def _job(self, given: Any, options: Any) -> Job:
        return self.prepare(self.read(given, options), options)

    def outputs(
        self, jobs: list[Job], options: Any, done: Callable[[float], object], cancelled: Callable[[], bool]
    ) -> list[list[Any] | TriarchError]:
        """What the model makes of the pieces of each job, or what went wrong."""
        from triarch.engine import batches

        pieces = [piece for job in jobs for piece in job.pieces]
        share = [1 / len(job.pieces) for job in jobs for _ in job.pieces]
        found = batches.run(
            pieces,
            lambda picked: self.scored(picked, options, cancelled),
            lengths=[piece.cost for piece in pieces],
            budget=self.budget(),
            most=self.together(options),
            done=lambda batch: done(sum(share[i] for i in batch)),
        )
        return [self.checked(own) for own in dealt(jobs, found)]

    def scored(self, pieces: list[Piece], options: Any, cancelled: Callable[[], bool]) -> Sequence[Any]:
        """What `compute` gives for some pieces that are worked on together."""
        import torch

        device = next(self.model.parameters()).device
        with torch.inference_mode():
            batch = {name: tensor.to(device) for name, tensor in self.processor.collate(pieces).items()}
            return self.compute(batch, pieces, options)

    def checked(self, outputs: list[Any]) -> list[Any] | TriarchError:
        """The outputs of one job, or what is wrong with them."""
        if any(np.isnan(output).any() for output in outputs):
            return TriarchError(
                "the model gives NaN; its weights are damaged, or their range is too wide for its dtype"
            )
        return outputs

    def together(self, options: Any) -> int | None:
        """Pieces of a batch, at most; None: as many as the budget allows."""
        most: int | None = options.batch_size
        return most

    def budget(self) -> int:
        """What the pieces of a batch may cost with padding."""
        return budgets.READING.of(self.model)


def together(jobs: list[Job], **known: Any) -> Job:
    """One job of several that are seen together; `known` are its other fields."""
    return Job([piece for job in jobs for piece in job.pieces], parts=max(job.parts for job in jobs), **known)


def dealt(jobs: Iterable[Job], found: Iterable[Any]) -> list[list[Any]]:
    """What was found for the pieces of all jobs, job by job."""
    rest = iter(found)
    return [list(itertools.islice(rest, len(job.pieces))) for job in jobs]


def progress(inputs: Iterable[Any]) -> tqdm[Any]:
    """A bar on stderr, where that is a terminal and the work takes a while."""
    total = len(inputs) if isinstance(inputs, Sized) else None
    form = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}" if total else None
    return tqdm(total=total, delay=PROGRESS_DELAY, disable=None, leave=False, unit="input", bar_format=form)
