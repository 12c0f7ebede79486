"""What all tasks share: inputs of every shape, long inputs, batches, answers in order.

A task reads one input (`read`), turns it into the windows that the model sees (`prepare`), and turns the model's scores
for these windows into the answer (`answer`). Everything between — one input or many, lists, generators, files, batches
over inputs of like length, progress — is here. A task whose model does something else with a job than to score its
windows has its own `outputs`.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from tqdm import tqdm

from triarch.checks import fits, kinds
from triarch.data.inputs import read_rows
from triarch.errors import InvalidInput, LimitExceeded, TriarchError, Unsupported, show
from triarch.kinds import Medium, Text
from triarch.suggest import did_you_mean
from triarch.tasks._options import Options, Shared

if TYPE_CHECKING:  # a task's options can be listed, and completed in a shell, without torch
    from tokenizers import Encoding
    from torch import Tensor

    from triarch.family import Network
    from triarch.inputs.text.processor import TextProcessor

BATCH_TOKENS = {"cpu": 1024, "cuda": 65_536}  # with padding; on a CPU larger batches fall out of its caches
CHUNK_INPUTS = 8192  # that many inputs are read ahead and sorted by length, or READ_AHEAD batches' worth,
WAIT = 0.1  # or, of a source that takes longer than that many seconds for them, those that are there
PROGRESS_DELAY = 2.0  # seconds before a bar appears


@dataclass
class Job:
    """One input on its way through the model."""

    windows: list[Encoding]
    stride: int = 0  # tokens that neighbouring windows share
    tokens: int = 0  # of the whole input; counted only when coverage is asked for
    dropped: int = 0  # of these, tokens that no window holds, because cutting was asked for
    parts: int = 1  # windows of the input; less than len(windows) where it is seen with several others
    notes: Any = None  # what `prepare` knows and `answer` needs

    def coverage(self, strategy: str) -> dict[str, Any]:
        whole = self.parts == 1 and not self.dropped
        return {
            "tokens": self.tokens,
            "seen": self.tokens - self.dropped,
            "windows": self.parts,
            "strategy": "whole" if whole else strategy,
        }


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
    READ_AHEAD: ClassVar[int] = 32

    def __init__(self, model: Network, **defaults: Any):
        if (medium := model.family.medium) is not self.INPUT:
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
                "the checkpoint has no tokenizer; put tokenizer.json or the vocabulary beside the weights"
            )
        self.model = model
        self.processor: TextProcessor = model.processor
        self.defaults = defaults
        self.options({})

    @classmethod
    def load(cls, model: str | os.PathLike[str], **options: Any) -> Network:
        """A model that the task alone holds, with the head that it needs. Arguments and errors as of `triarch.load`."""
        from triarch import checkpoint

        return checkpoint.load(model, scores=cls.NEEDS, **options)

    @classmethod
    def field(cls) -> str:
        """The name under which a row of a file holds the input."""
        return cls.FIELD or cls.INPUT.name

    @classmethod
    def serves(cls, medium: Medium, scores: type) -> bool:
        """Whether a checkpoint that reads this medium can do it with a head that gives these scores."""
        return medium is cls.INPUT and (not cls.NEEDS or scores in cls.NEEDS)

    def read(self, given: Any, options: Any) -> Any:
        """One input as a user gives it -> one row. Raises InvalidInput."""
        raise NotImplementedError

    def prepare(self, row: Any, options: Any) -> Job:
        """One row -> the windows that the model will see."""
        raise NotImplementedError

    def compute(self, batch: dict[str, Tensor], windows: list[Encoding], options: Any) -> list[Any]:
        """A batch of windows -> one array each: by default the scores of the head."""
        logits: Tensor = self.model(**batch).logits
        return list(logits.float().cpu().numpy())

    def answer(self, job: Job, outputs: list[Any], options: Any) -> Any:
        """What the model made of a job, by default the values of its windows -> what the user gets."""
        raise NotImplementedError

    def single(self, inputs: Any, options: Any) -> bool:
        """Whether `inputs` is one input rather than many."""
        return isinstance(inputs, str | dict)

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
            return self.run(read_rows(inputs, self.field()), chosen)
        elif isinstance(inputs, Iterable):
            return self.run(inputs, chosen)
        else:
            raise InvalidInput(f"input is {type(inputs).__name__}, wanted text, a list, a generator or a Path")
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
        for number, answer in enumerate(self.stream(inputs, options)):
            if isinstance(answer, TriarchError):
                if not (isinstance(inputs, Sized) and len(inputs) == 1):
                    answer.args = (f"input {number}: {answer}",)
                raise answer
            yield answer

    def stream(self, inputs: Iterable[Any], options: Any) -> Iterator[Any]:
        """As `run`, but an input that fails gives its error as its answer, and the rest goes on."""
        total = len(inputs) if isinstance(inputs, Sized) else None
        with tqdm(
            total=total, delay=PROGRESS_DELAY, disable=None, leave=False, unit="input", bar_format=_bar(total)
        ) as bar:
            for chunk in self._chunks(inputs, options):
                outputs = iter(self.outputs([job for job in chunk if isinstance(job, Job)], options, bar))
                for job in chunk:
                    if isinstance(job, TriarchError):
                        yield job
                        bar.update(1)
                        continue
                    own = next(outputs)
                    if isinstance(own, TriarchError):
                        yield own
                        continue
                    try:
                        answer = self.answer(job, own, options)
                    except TriarchError as error:
                        yield error
                        continue
                    yield {"result": answer, "coverage": job.coverage(options.strategy)} if options.coverage else answer

    def _chunks(self, inputs: Iterable[Any], options: Any) -> Iterator[list[Job | TriarchError]]:
        """Inputs to be answered together: as many as make good batches, but from a slow source none has to wait."""
        chunk: list[Job | TriarchError] = []
        tokens, most = 0, CHUNK_INPUTS if isinstance(inputs, Sized) else 1
        start = time.monotonic()
        for given in inputs:
            try:
                job: Job | TriarchError = given if isinstance(given, TriarchError) else self._job(given, options)
            except TriarchError as error:
                job = error
            chunk.append(job)
            tokens += self.size(job, options) if isinstance(job, Job) else 0
            if tokens >= self.READ_AHEAD * self.budget() or len(chunk) >= most:
                slow = time.monotonic() - start > WAIT
                yield chunk
                most = 1 if slow else min(2 * most, CHUNK_INPUTS)
                chunk, tokens, start = [], 0, time.monotonic()
        if chunk:
            yield chunk

    def _job(self, given: Any, options: Any) -> Job:
        return self.prepare(self.read(given, options), options)

    def size(self, job: Job, options: Any) -> int:
        """Tokens that a job costs."""
        return sum(map(len, job.windows))

    def outputs(self, jobs: list[Job], options: Any, bar: Any) -> Sequence[list[Any] | TriarchError]:
        """What the model makes of each job: by default what `compute` gives for its windows."""
        import torch

        from triarch.engine import batches

        windows = [window for job in jobs for window in job.windows]
        share = [1 / len(job.windows) for job in jobs for _ in job.windows]

        @torch.inference_mode()
        def compute(picked: list[Encoding]) -> list[Any]:
            return self.scored(picked, options)

        scores = iter(
            batches.run(
                windows,
                compute,
                lengths=[len(window) for window in windows],
                budget=self.budget(),
                most=options.batch_size,
                done=lambda batch: bar.update(sum(share[i] for i in batch)),
            )
        )
        return [_numbers(list(itertools.islice(scores, len(job.windows)))) for job in jobs]

    def scored(self, windows: list[Encoding], options: Any) -> list[Any]:
        """One array for each of some windows that are worked on together."""
        device = next(self.model.parameters()).device
        batch = self.processor.collate(windows)
        if all(len(window) == len(windows[0]) for window in windows):
            del batch["attention_mask"]  # nothing to mask
        return self.compute({name: tensor.to(device) for name, tensor in batch.items()}, windows, options)

    def budget(self) -> int:
        """Tokens of a batch."""
        return BATCH_TOKENS.get(next(self.model.parameters()).device.type, BATCH_TOKENS["cpu"])

    # A helper that most tasks call from `prepare`

    def windows(
        self, text: str | list[str], pair: str | None, options: Any, *, share: float = 0.0, side: str = "auto"
    ) -> Job:
        """The windows of a text or a pair, by the strategy for long inputs that was asked for.

        `share`: the part of a window that its neighbour has too, where no `stride` was asked for.
        """
        processor, most = self.processor, options.max_length or self.processor.max_tokens
        if most > processor.max_tokens:
            raise InvalidInput(f"max_length is {most}, the model takes {processor.max_tokens} tokens; ask for less")
        stride = int(most * share) if options.stride is None else options.stride
        dropped = 0
        if options.strategy == "truncate":
            sides: dict[Any, Any] = {"only_first": "first", "only_second": "second", "longest_first": "auto"}
            window, dropped = processor.cut(text, pair, max_tokens=most, side=sides.get(options.truncation, side))
            windows = [window]
        elif options.strategy == "error":
            windows = [processor.encode(text, pair)]
            if (found := len(windows[0])) > most:
                raise LimitExceeded(f'input has {found:,} tokens, the model takes {most:,}; use long="window"')
        else:
            windows = processor.windows(text, pair, max_tokens=most, stride=stride, side=side)
        tokens = len(processor.encode(text, pair, special_tokens=False)) if options.coverage else 0
        return Job(windows, stride, tokens, dropped, parts=len(windows))


def text_of(given: Any, *names: str) -> str:
    """The text under the first of `names` that a row has, or the row itself. Raises InvalidInput."""
    if isinstance(given, dict):
        name = next((name for name in names if given.get(name) is not None), None)
        if name is None:
            raise InvalidInput(f"row has {', '.join(map(show, given)) or 'nothing'}, wanted {' or '.join(names)}")
        given = given[name]
    if not isinstance(given, str):
        raise InvalidInput(f"{names[0]} is {type(given).__name__}, wanted text")
    return given


def pair_of(given: Any, default: str | None) -> tuple[str, str | None]:
    """A text and its pair: the row's own, or the one of all rows."""
    pair = given.get("text_pair", default) if isinstance(given, dict) else default
    return text_of(given, "text"), text_of(pair, "text_pair") if pair else None  # an empty pair is none, as ever


def _numbers(outputs: list[Any]) -> list[Any] | TriarchError:
    if any(np.isnan(output).any() for output in outputs):
        return TriarchError("the model gives NaN; its weights are damaged, or their range is too wide for its dtype")
    return outputs


def _bar(total: int | None) -> str | None:
    return "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}" if total else None
