"""What all tasks share: inputs of every shape, long inputs, batches, answers in order.

A task reads one input (`read`), turns it into the windows that the model sees (`prepare`), and turns the model's scores
for these windows into the answer (`answer`). Everything between — one input or many, lists, generators, files, batches
over inputs of like length, progress — is here.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import numpy as np
from tqdm import tqdm

from triarch import limits
from triarch.errors import InvalidInput, LimitExceeded, TriarchError, Unsupported, show
from triarch.inputs.rows import read_rows
from triarch.suggest import did_you_mean

if TYPE_CHECKING:  # a task's options can be listed, and completed in a shell, without torch
    from tokenizers import Encoding
    from torch import Tensor

    from triarch.family import Network
    from triarch.inputs.text import TextProcessor

BATCH_TOKENS = {"cpu": 1024, "cuda": 65_536}  # with padding; on a CPU larger batches fall out of its caches
CHUNK_BATCHES = 32  # that many batches' worth of inputs are read ahead and sorted by length,
CHUNK_INPUTS = 8192  # or that many inputs,
WAIT = 0.1  # or, of a source that takes longer than that many seconds for them, those that are there
PROGRESS_DELAY = 2.0  # seconds before a bar appears


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every task can be asked for."""

    long: Literal["window", "truncate", "error"] = "window"  # what happens to an input longer than the model
    stride: int | None = None  # tokens that neighbouring windows share; None: the task's own
    max_length: int | None = None  # tokens of one window, special ones included; None: what the model takes
    truncation: bool | Literal["only_first", "only_second", "longest_first"] = (
        False  # the reference's `long="truncate"`
    )
    padding: bool | str = False  # the reference's; batches are padded as needed and no result depends on it
    batch_size: int | None = None  # at most that many windows at once; None: by a budget of tokens
    coverage: bool = False  # answer {"result": …, "coverage": {tokens, seen, windows, strategy}}

    def __post_init__(self) -> None:
        types = _types(type(self))
        for f in dataclasses.fields(self):
            _check_type(f.name, getattr(self, f.name), types[f.name])
        for name in ("stride", "max_length", "batch_size", "top_k"):
            value = getattr(self, name, None)
            if type(value) is int and not (name != "stride") <= value <= limits.ANSWERS:
                raise InvalidInput(f"{name} is {value}, wanted a count up to {limits.ANSWERS:,}")

    @property
    def strategy(self) -> str:
        return "truncate" if self.truncation else self.long


@dataclass
class Job:
    """One input on its way through the model."""

    row: Any  # as `read` gave it
    windows: list[Encoding]
    dropped: int = 0  # tokens that truncation, asked for, has cut off
    tokens: int = 0  # of the whole input; counted only when coverage is asked for
    notes: Any = None  # what `prepare` knows and `answer` needs
    parts: int = 0  # windows of the input, where each is seen more than once; 0: all of them

    def coverage(self, strategy: str) -> dict[str, Any]:
        parts = self.parts or len(self.windows)
        whole = parts == 1 and not self.dropped
        return {
            "tokens": self.tokens,
            "seen": self.tokens - self.dropped,
            "windows": parts,
            "strategy": "whole" if whole else strategy,
        }


class Task:
    """One task on one model. Call it with an input or many; see its `OPTIONS` for what can be asked for."""

    ALIASES: ClassVar[tuple[str, ...]] = ()
    NEEDS: ClassVar[tuple[str, ...]] = ()  # kinds of heads that serve, by the names in family.py; none: any head
    INPUT: ClassVar[str] = "text"  # the name under which a row of a file holds the input
    OPTIONS: ClassVar[type[Options]] = Options

    def __init__(self, model: Network, **defaults: Any):
        from triarch.models import scores

        kind = scores(type(model.head)).__name__
        if self.NEEDS and kind not in self.NEEDS:
            wanted = " or ".join(self.NEEDS)
            raise Unsupported(f"{model.architecture} gives {kind}, this task needs {wanted}; choose another checkpoint")
        if model.processor is None:
            raise Unsupported(
                "the checkpoint has no tokenizer; put tokenizer.json or the vocabulary beside the weights"
            )
        self.model = model
        self.processor: TextProcessor = model.processor
        self.defaults = defaults
        self.options({})

    def read(self, given: Any, options: Any) -> Any:
        """One input as a user gives it -> one row. Raises InvalidInput."""
        raise NotImplementedError

    def prepare(self, row: Any, options: Any) -> Job:
        """One row -> the windows that the model will see."""
        raise NotImplementedError

    def compute(self, batch: dict[str, Tensor], windows: list[Encoding]) -> list[Any]:
        """A batch of windows -> one value each: by default the scores of the head."""
        logits: Tensor = self.model(**batch).logits
        return list(logits.float().cpu().numpy())

    def answer(self, job: Job, outputs: list[Any], options: Any) -> Any:
        """The values of a job's windows -> what the user gets."""
        raise NotImplementedError

    def single(self, inputs: Any, options: Any) -> bool:
        """Whether `inputs` is one input rather than many."""
        return isinstance(inputs, str | dict)

    # From here on nothing differs between tasks.

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """One input -> its answer; a list -> a list; a generator or a Path to a file -> an iterator, in order.

        Raises InvalidInput and its kin; for many inputs the error says which.
        """
        chosen = self.options(options)
        if self.single(inputs, chosen):
            return next(self.run([inputs], chosen))
        if isinstance(inputs, Path):
            inputs = read_rows(inputs, self.INPUT)
        elif isinstance(inputs, list | tuple):
            return list(self.run(inputs, chosen))
        elif not isinstance(inputs, Iterable):
            raise InvalidInput(f"input is {type(inputs).__name__}, wanted text, a list, a generator or a Path")
        return self.run(inputs, chosen)

    def options(self, given: dict[str, Any]) -> Any:
        """Options of one call, on top of the task's defaults; None means "as if not given" unless the option takes it.

        Raises InvalidInput, for an unknown name with the nearest one.
        """
        known = [f.name for f in dataclasses.fields(self.OPTIONS)]
        for name in self.defaults | given:
            if name not in known:
                hint = did_you_mean(name, known)
                raise InvalidInput(f"no option {show(name)!r}{hint}; there are {', '.join(known)}")
        types = _types(self.OPTIONS)

        def meant(some: dict[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in some.items() if value is not None or _fits(None, types[name])}

        return self.OPTIONS(**meant(self.defaults) | meant(given))

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
                jobs = [job for job in chunk if isinstance(job, Job)]
                outputs = iter(self._scores(jobs, options, bar))
                for job in chunk:
                    if isinstance(job, TriarchError):
                        yield job
                        bar.update(1)
                        continue
                    own = list(itertools.islice(outputs, len(job.windows)))
                    try:
                        _check_numbers(own)
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
            tokens += sum(map(len, job.windows)) if isinstance(job, Job) else 0
            if tokens >= CHUNK_BATCHES * self._budget() or len(chunk) >= most:
                slow = time.monotonic() - start > WAIT
                yield chunk
                most = 1 if slow else min(2 * most, CHUNK_INPUTS)
                chunk, tokens, start = [], 0, time.monotonic()
        if chunk:
            yield chunk

    def _job(self, given: Any, options: Any) -> Job:
        return self.prepare(self.read(given, options), options)

    def _scores(self, jobs: list[Job], options: Any, bar: Any) -> list[Any]:
        import torch

        from triarch.engine import batches

        windows = [window for job in jobs for window in job.windows]
        share = [1 / len(job.windows) for job in jobs for _ in job.windows]
        device = next(self.model.parameters()).device

        @torch.inference_mode()
        def compute(picked: list[Encoding]) -> list[Any]:
            batch = self.processor.collate(picked)
            if all(len(window) == len(picked[0]) for window in picked):
                del batch["attention_mask"]  # nothing to mask
            return self.compute({name: tensor.to(device) for name, tensor in batch.items()}, picked)

        return batches.run(
            windows,
            compute,
            lengths=[len(window) for window in windows],
            budget=self._budget(),
            most=options.batch_size,
            done=lambda batch: bar.update(sum(share[i] for i in batch)),
        )

    def _budget(self) -> int:
        return BATCH_TOKENS.get(next(self.model.parameters()).device.type, BATCH_TOKENS["cpu"])

    # Helpers that most tasks call from `prepare`

    def windows(
        self, text: str | list[str], pair: str | None, options: Any, *, stride: int = 0, side: str = "auto"
    ) -> Job:
        """The windows of a text or a pair, by the strategy for long inputs that was asked for."""
        processor, most = self.processor, options.max_length or self.processor.max_tokens
        if most > processor.max_tokens:
            raise InvalidInput(f"max_length is {most}, the model takes {processor.max_tokens} tokens; ask for less")
        tokens = len(processor.encode(text, pair, special_tokens=False)) if options.coverage else 0
        if options.strategy == "truncate":
            sides: dict[Any, Any] = {"only_first": "first", "only_second": "second", "longest_first": "auto"}
            window, dropped = processor.cut(text, pair, max_tokens=most, side=sides.get(options.truncation, side))
            return Job(None, [window], dropped, tokens)
        if options.strategy == "error":
            whole = processor.encode(text, pair)
            if len(whole) > most:
                raise LimitExceeded(f'input has {len(whole):,} tokens, the model takes {most:,}; use long="window"')
            return Job(None, [whole], 0, tokens)
        stride = stride if options.stride is None else options.stride
        return Job(None, processor.windows(text, pair, max_tokens=most, stride=stride, side=side), 0, tokens)


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


def mean_by_length(windows: list[Encoding], outputs: list[np.ndarray]) -> np.ndarray:
    """The scores of a whole input from those of its windows, each window counting by its tokens."""
    return np.average(outputs, axis=0, weights=[len(window) for window in windows])


def stitch(windows: list[Encoding], rows: list[np.ndarray], stride: int) -> tuple[list[tuple[int, int]], np.ndarray]:
    """One row for each token of the input from overlapping windows: the one with the most context on both sides.

    Returns where each token is, as (window, position), and its row. Special tokens are kept at both ends alone.
    """
    places = []
    for number, window in enumerate(windows):
        inner = [i for i, special in enumerate(window.special_tokens_mask) if not special]
        first = inner[0] + (stride // 2 if number else 0) if inner else 0
        last = inner[-1] - (stride - stride // 2 if number < len(windows) - 1 else 0) if inner else len(window) - 1
        first, last = (first if number else 0), (last if number < len(windows) - 1 else len(window) - 1)
        places += [(number, i) for i in range(first, last + 1)]
    return places, np.stack([rows[number][i] for number, i in places])


def softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis, in the precision of `x`."""
    shifted = np.exp(x - x.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _check_numbers(outputs: list[Any]) -> None:
    if any(np.isnan(output).any() for output in outputs):
        raise TriarchError("the model gives NaN; its weights are damaged, or their range is too wide for its dtype")


def _bar(total: int | None) -> str | None:
    return "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}" if total else None


# Cached, since some tasks make their options anew for each input
_types: Callable[[Any], dict[str, Any]] = cache(get_type_hints)


def _check_type(name: str, value: Any, wanted: Any) -> None:
    if not _fits(value, wanted):
        raise InvalidInput(f"{name} is {show(repr(value))}, wanted {_spelled(wanted)}")


def _fits(value: Any, wanted: Any) -> bool:
    if wanted is Any:
        return True
    if isinstance(wanted, UnionType) or get_origin(wanted) not in (None, Literal, list):
        return any(_fits(value, one) for one in get_args(wanted))
    if get_origin(wanted) is Literal:
        return value in get_args(wanted)
    if get_origin(wanted) is list:
        return isinstance(value, list | tuple) and all(_fits(one, get_args(wanted)[0]) for one in value)
    if wanted is float:
        return type(value) in (int, float) and bool(np.isfinite(value))
    return type(value) is wanted


def _spelled(wanted: Any) -> str:
    if get_origin(wanted) is Literal:
        return " or ".join(map(repr, get_args(wanted)))
    if get_args(wanted) and get_origin(wanted) is not list:
        return " or ".join(_spelled(one) for one in get_args(wanted))
    return "nothing" if wanted is NoneType else getattr(wanted, "__name__", str(wanted))
