"""One update of the weights, and one measurement: what happens between a list of examples and a number.

Shapes: B rows of a batch, T tokens.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from triarch.data import seeds
from triarch.engine import budgets
from triarch.engine.batches import token_batches
from triarch.errors import TriarchError
from triarch.family import Network
from triarch.objectives._base import Example, Objective
from triarch.training import writing

Result = TypeVar("Result")


class NotFinite(TriarchError):
    """A loss or a gradient is NaN or infinite. The weights are those before the step."""


@dataclass(frozen=True)
class Step:
    """What one update was."""

    loss: float
    losses: dict[str, float]  # each by its own name
    grad_norm: float  # before clipping
    tokens: int  # without padding


class Learner:
    """A model, what it learns, and the machine it learns on. Holds no optimizer: `gradients` leaves them in the model.

    A batch is taken in pieces of at most `micro_tokens` tokens, rows of like length together, so hardly any padding is
    computed. Each loss is divided by its count over the whole batch, so the gradient is that of the whole batch. When
    the device has no memory for a piece, pieces are halved from then on, and the batch is the same.
    """

    def __init__(
        self,
        model: Network,
        objective: Objective,
        *,
        bfloat16: bool = False,
        micro_tokens: int | None = None,
        whole: int = 32,
        note: Callable[[str], None] = lambda line: None,
    ):
        """`whole`: rows of a batch in measuring, where they depend on each other."""
        self.model, self.objective, self.bfloat16, self.whole, self.note = model, objective, bfloat16, whole, note
        self.device = next(model.parameters()).device
        self.micro_tokens = micro_tokens or budgets.LEARNING.on(self.device.type)

    @property
    def machine(self) -> dict[str, Any]:
        """What the last bits of all numbers depend on."""
        return {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": self.device.type}

    def gradients(self, examples: Sequence[Example], seed: tuple[int, int]) -> Step:
        """Gradients of the loss over all examples, in `.grad`; dropout is a function of `seed`.

        Raises NotFinite for a loss that is not a number, TriarchError where not even one example fits in memory.
        """
        return self._within_memory(partial(self._gradients, examples, seed), examples)

    def _within_memory(self, work: Callable[[], Result], examples: Sequence[Example]) -> Result:
        """What `work` gives; again in smaller pieces each time that the device has no memory for one."""
        while True:
            try:
                return work()
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
            # Outside of the handler, which would keep the failed piece's tensors alive
            self.model.zero_grad()
            self._halve(examples)

    def _gradients(self, examples: Sequence[Example], seed: tuple[int, int]) -> Step:
        # On a CPU not by torch.manual_seed, which asks all other kinds of devices too: a millisecond each time
        manual_seed = torch.default_generator.manual_seed if self.device.type == "cpu" else torch.manual_seed
        manual_seed(seeds.seed("dropout", *seed))
        batches = [self.objective.batch([examples[i] for i in piece]) for piece in self._pieces(examples)]
        counts: dict[str, float] = {}
        for batch in batches:
            for name, count in batch.counts.items():
                counts[name] = counts.get(name, 0.0) + count
        sums = dict.fromkeys(counts, 0.0)
        # One context for all pieces: it casts each weight once
        with self._autocast():
            for batch in batches:
                placed = batch.to(self.device)
                scores = self.objective.forward(self.model, placed)
                with self._plain():
                    losses = self.objective.losses(scores, placed)
                # A batch may hold nothing to learn of one kind, such as only windows without a word's first piece
                terms = [loss / counts[name] for name, loss in losses.items() if counts[name]]
                if terms:
                    torch.stack(terms).sum().backward()
                for name, loss in losses.items():
                    sums[name] += float(loss.detach())
        means = {name: sums[name] / counts[name] for name in sums if counts[name]}
        if not all(map(math.isfinite, means.values())):
            raise NotFinite(f"the loss is {means}")
        return Step(sum(means.values()), means, 0.0, sum(example.length for example in examples))

    def measure(
        self,
        source: Any,
        seed: int,
        done: Callable[[int], object] = lambda rows: None,
    ) -> tuple[dict[str, float], list[Any]]:
        """Loss and metrics over a source, in eval mode, and the outcomes that they are of: a few numbers a row.

        Raises TriarchError where not even one example fits in memory.
        """
        sums: dict[str, float] = {}
        counts: dict[str, float] = {}
        outcomes: list[Any] = []
        chunk = self.whole if self.objective.WHOLE else budgets.EXAMPLES_AHEAD
        with evaluating(self.model), torch.inference_mode(), self._autocast():
            edges = [*range(0, len(source), chunk), len(source)]
            if len(edges) > 2 and edges[-1] - edges[-2] < self.objective.least:
                del edges[-2]  # too few rows to tell apart: they join those before
            for indices in map(range, edges, edges[1:]):
                examples = [source.draw(i, seeds.generator("measure", seed, i)) for i in indices]
                found, pieces = self._within_memory(partial(self._measured, examples, done), examples)
                outcomes += found
                for name, loss, count in pieces:
                    sums[name] = sums.get(name, 0.0) + loss
                    counts[name] = counts.get(name, 0.0) + count
            texts = writing.measured(self.model, self.objective, source, seed, self.micro_tokens, done)
        losses = {name: sums[name] / counts[name] for name in sums if counts[name]}
        parts = {f"{name}_loss": loss for name, loss in losses.items()} if len(losses) > 1 else {}
        return {"loss": sum(losses.values())} | parts | self.objective.measure(outcomes) | texts, outcomes

    def _measured(
        self, examples: Sequence[Example], done: Callable[[int], object]
    ) -> tuple[list[Any], list[tuple[str, float, float]]]:
        """Outcomes in the order of the examples; and of each piece the losses: name, sum and count."""
        order: list[int] = []
        found: list[Any] = []
        parts: list[tuple[str, float, float]] = []
        for piece in self._pieces(examples):
            batch = self.objective.batch([examples[i] for i in piece]).to(self.device)
            scores = self.objective.forward(self.model, batch)
            with self._plain():
                losses = self.objective.losses(scores, batch)
                found += self.objective.outcomes(scores, batch)
            parts += [(name, float(loss), batch.counts[name]) for name, loss in losses.items()]
            order += piece
            done(len(piece))
        return [found[i] for i in np.argsort(order)], parts

    def not_finite(self, examples: Sequence[Example]) -> list[int]:
        """Which of the examples have a loss that is not a number, each taken alone and without dropout."""
        if self.objective.WHOLE:
            return []
        with evaluating(self.model), torch.inference_mode(), self._autocast():
            return [
                i
                for i, example in enumerate(examples)
                if not all(math.isfinite(loss) for _, loss, _ in self._measured([example], lambda rows: None)[1])
            ]

    def _pieces(self, examples: Sequence[Example]) -> list[list[int]]:
        if self.objective.WHOLE:
            return [list(range(len(examples)))]
        return token_batches([example.length for example in examples], self.micro_tokens)

    def _halve(self, examples: Sequence[Example]) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        lengths = [example.length for example in examples]
        longest = max(lengths)
        largest = max(len(piece) * lengths[piece[0]] for piece in self._pieces(examples))  # what was tried, padded
        if self.objective.WHOLE or largest <= longest:
            raise TriarchError(
                "out of memory: not even one piece of the batch fits; ask for recompute, precision bfloat16, or a "
                "smaller batch_size or max_tokens"
            )
        self.micro_tokens = max(largest // 2, longest)
        self.note(f"out of memory: going on with {self.micro_tokens:,} tokens at once; the batch stays the same")

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)

    def _plain(self) -> torch.autocast:
        """Losses and metrics are computed as they are written: similarities in bfloat16 would change their order."""
        return torch.autocast(self.device.type, enabled=False)


def clip(parameters: list[nn.Parameter], longest: float | None) -> float:
    """Scale gradients so that together their norm is at most `longest`; returns the norm before.

    Raises NotFinite, naming the first parameter whose gradient is not a number, and changes nothing then.
    """
    held = [parameter for parameter in parameters if parameter.grad is not None]
    norm = float(nn.utils.get_total_norm([p.grad for p in held if p.grad is not None]))
    if not math.isfinite(norm):
        raise NotFinite(f"the norm of the gradient is {norm}")
    if longest is not None:
        nn.utils.clip_grads_with_norm_(held, longest, torch.tensor(norm))
    return norm


def first_not_finite(model: nn.Module) -> str:
    """The name of the first parameter whose gradient is not a number; empty if all are."""
    grads = ((name, parameter.grad) for name, parameter in model.named_parameters())
    return next((name for name, grad in grads if grad is not None and not grad.isfinite().all()), "")


def recompute_blocks(model: nn.Module) -> None:
    """Keep only what goes into each block, and compute the rest again on the way back. Chen et al. 2016,
    https://arxiv.org/abs/1604.06174"""
    for blocks in (module for module in model.modules() if isinstance(module, nn.ModuleList)):
        for block in blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode, and whatever it was before at the end."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)  # the CPU's has no type
