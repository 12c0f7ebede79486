"""A run from its first step to its last: order, measurements, checkpoints, signals.

Everything random is a function of the seed and of the step, the epoch or the example; so is the learning rate. A
checkpoint therefore holds the weights, the optimizer's state and a few numbers, and a run that goes on from one makes
the same steps, to the bit on a CPU, as one that was never interrupted.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import filelock
import torch
from torch import Tensor, nn
from tqdm import tqdm

from triarch.errors import CheckpointMismatch, CorruptFile, InvalidInput, NotFound, TriarchError, UnsafeFile, show
from triarch.files import write_text
from triarch.training import learner, state
from triarch.training.average import Average
from triarch.training.learner import Learner, NotFinite, Step
from triarch.training.optimizers import optimizer, restore, set_rate, state_of
from triarch.training.parameters import groups, trained
from triarch.training.plan import Plan
from triarch.training.schedules import schedule
from triarch.training.tensorboard import Board

FALLING = ("loss", "perplexity", "mse", "mae")  # metrics that are better when lower
FOLDER, LOG = "training", "log.jsonl"  # in the output folder, and in that one
NOTE_SECONDS = 30.0  # between lines of progress where stderr is no terminal
TERMINATED = 143


@contextmanager
def held(output: Path, resume: bool) -> Iterator[None]:
    """Hold a folder against other runs. Raises InvalidInput where one is at work in it, or was and is not resumed."""
    folder = output / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / "lock").acquire(timeout=0):
            if not resume and ((folder / LOG).exists() or any(folder.glob("checkpoints/step-*"))):
                raise InvalidInput(f"{output} holds a run; pass resume to go on with it, or choose another output")
            yield
    except filelock.Timeout:
        raise InvalidInput(f"{output} is in use by another run; wait for it, or choose another output") from None


class Run:
    """A plan being carried out in a folder that is held. Use it in a `with` statement, which closes the log."""

    def __init__(self, plan: Plan, output: Path):
        self.plan, self.folder = plan, output / FOLDER
        self.settings = plan.settings
        self.checkpoints, self.log_path = self.folder / "checkpoints", self.folder / LOG
        self.step = 0
        self.seconds = 0.0  # of training, over all of the run's processes
        self.best: dict[str, Any] = {}  # step and value of the best measurement
        self.stale = 0  # measurements since then
        self.measured = self.saved = 0  # steps at which that was last done
        self.evaluations: list[dict[str, Any]] = []
        self.signal = 0
        self.average: Average | None = None
        self.board: Board | None = None
        self._set_up()
        self._start()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()
        if self.board is not None:
            self.board.close()

    def train(self) -> None:
        """Steps until the last, or until measurements stopped getting better.

        Raises KeyboardInterrupt or SystemExit after Ctrl-C or SIGTERM, once the state is saved, and NotFinite before a
        step that would have spoiled the weights.
        """
        with self._signals(), self._bar() as bar:
            while True:
                try:
                    if self.step and self.measured < self.step and self._due(self.settings.evaluate_every):
                        self._evaluate(bar)
                except _Stop:
                    pass  # the measurement is made again when the run goes on
                if self.signal or (self.saved < self.step and self._worth_saving()):
                    self._save(must=bool(self.signal))
                if self.signal == signal.SIGINT:
                    raise KeyboardInterrupt
                if self.signal:
                    raise SystemExit(TERMINATED)
                if self.step == self.plan.total_steps or self._out_of_patience():
                    break
                self._advance(bar)
        if self._out_of_patience():
            self.plan.note(f"{self.plan.metric} has not improved in {self.stale} measurements: stopped")
        if self.settings.best and self.best and self.best["step"] != self.step:
            self._return_to_best()
        if self.average is not None:
            self.average.apply()
            self.average = None  # the weights are its mean now

    def _worth_saving(self) -> bool:
        return self._due(self.settings.save_every) or self.best.get("step") == self.step or self._out_of_patience()

    def _return_to_best(self) -> None:
        step = self.best["step"]
        try:
            found = state.verified(self.checkpoints / f"step-{step:08}", step)
        except (CorruptFile, NotFound, UnsafeFile) as error:
            self.plan.note(f"{error}: the best model, that of step {step:,}, is lost; keeping the last")
            return
        self._restore_weights(found)
        self.plan.note(f"keeping the model of step {step:,}, the best in {self.plan.metric}")

    # One step

    def _advance(self, bar: Any) -> None:
        begin = time.perf_counter()
        settings, plan = self.settings, self.plan
        epoch, indices = plan.order.at(self.step)
        examples = [plan.train.draw(int(i), learner.drawing(settings.seed, epoch, int(i))) for i in indices]
        self.trained.apply(self.step)
        rate = settings.lr * self.schedule(self.step)
        set_rate(self.optimizer, rate)
        try:
            found = self.learner.gradients(examples, (settings.seed, self.step))
            norm = learner.clip(self.parameters, settings.clip)
        except NotFinite as error:
            self._stop_before(error, epoch, indices)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.step)
        self.step += 1
        seconds = time.perf_counter() - begin
        self.seconds += seconds
        self._note_step(found, norm, rate, seconds, bar)

    def _stop_before(self, error: NotFinite, epoch: int, indices: Iterable[int]) -> None:
        """Save the state before the step, and say where it stands."""
        culprit = learner.first_not_finite(self.plan.model)
        self.plan.model.zero_grad()
        self._save()
        rows = [self.plan.place(int(i)) for i in indices]
        where = ", ".join(rows[:3]) + (", …" if len(rows) > 3 else "")
        what = f", first in the gradient of {culprit}" if culprit else ""
        raise NotFinite(
            f"{error} at step {self.step + 1:,} (epoch {epoch + 1}; {where}){what}; the state before it is saved: look "
            "at these rows, or start anew with a lower lr or more warmup"
        ) from None

    def _note_step(self, found: Step, norm: float, rate: float, seconds: float, bar: Any) -> None:
        line: dict[str, Any] = {"step": self.step, "epoch": round(self._epochs(), 4), "loss": found.loss}
        if len(found.losses) > 1:
            line["losses"] = found.losses
        line |= {"lr": rate, "grad_norm": norm, "tokens": found.tokens, "seconds": round(seconds, 4)}
        self._write(line)
        bar.step(found.loss, found.tokens, seconds)

    # Measuring

    def _evaluate(self, bar: Any) -> None:
        if self.plan.validation is None:
            return
        begin = time.perf_counter()
        metrics, _ = self.measure(self.plan.validation)
        self._write({"step": self.step, "evaluation": metrics, "seconds": round(time.perf_counter() - begin, 4)})
        self.evaluations.append({"step": self.step} | metrics)
        value = metrics[self.plan.metric]
        better = not self.best or (
            (value < self.best["value"]) == falling(self.plan.metric) and value != self.best["value"]
        )
        if better and not math.isnan(value):
            self.best, self.stale = {"step": self.step, "value": value}, 0
        else:
            self.stale += 1
        self.measured = self.step
        bar.say(f"step {self.step:,}: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))

    def measure(self, source: Any) -> tuple[dict[str, float], list[Any]]:
        """Metrics and outcomes of the model as it is kept: of the running mean where there is one."""

        def interrupted(_rows: int) -> None:
            if self.signal:
                raise _Stop

        if self.average is None:
            return self.learner.measure(source, self.settings.seed, interrupted)
        with self.average.swap():
            return self.learner.measure(source, self.settings.seed, interrupted)

    def _out_of_patience(self) -> bool:
        return self.settings.patience is not None and self.stale >= self.settings.patience

    def _due(self, every: int | None) -> bool:
        if self.step == self.plan.total_steps:
            return True
        return self.step % every == 0 if every else self._epochs().is_integer()

    def _epochs(self) -> float:
        """How often the data has been seen."""
        order = self.plan.order
        epoch = order.at(self.step - 1)[0]
        return epoch + (self.step - order.first_step(epoch)) / order.steps_per_epoch(epoch)

    # State

    def _set_up(self) -> None:
        settings, plan = self.settings, self.plan
        self.learner = Learner(
            plan.model,
            plan.objective,
            bfloat16=settings.precision == "bfloat16",
            micro_tokens=settings.micro_tokens,
            note=plan.note,
        )
        plan.model.train()
        self.trained = trained(plan.model, settings.freeze, settings.stages)
        self.parameters = [*self._learning().values()]
        made = groups(
            plan.model,
            self.trained.names,
            weight_decay=settings.weight_decay,
            layer_decay=settings.layer_decay,
            head_rate=settings.head_lr,
        )
        self.optimizer = optimizer(settings.optimizer, made, settings.lr, **settings.optimizer_options)
        warmup = int(settings.warmup) if float(settings.warmup).is_integer() else settings.warmup
        self.schedule = schedule(settings.schedule, plan.total_steps, warmup, **settings.schedule_options)
        if settings.average is not None:
            self.average = Average(self._learning(), settings.average)
        if settings.recompute:
            learner.recompute_blocks(plan.model)

    def _start(self) -> None:
        """Where the folder's run stopped, or at the beginning."""
        state.clean(self.checkpoints)
        found = state.newest(self.checkpoints, self.plan.note)
        if found is not None:
            self._check_same(found)
            self._restore(found)
            self.plan.note(f"going on from step {self.step:,} of {self.plan.total_steps:,}")
        elif self.log_path.exists():
            self.plan.note("no checkpoint yet: starting at the beginning")
        self._cut_log()
        self._log: IO[str] = self.log_path.open("a", encoding="utf-8", buffering=1)
        if self.settings.tensorboard:
            self.board = Board(self.folder / "tensorboard", self.step)

    def _check_same(self, found: state.Checkpoint) -> None:
        """Raises InvalidInput, with the differences, for the state of a run with other settings or data."""
        ours, theirs = self.plan.identity, found.state.get("identity")
        if not isinstance(theirs, dict):
            raise CheckpointMismatch("this run", ["identity"], [], [], "start anew in another folder")
        differing = [name for name in sorted(ours.keys() | theirs.keys()) if ours.get(name) != theirs.get(name)]
        if differing:
            listed = "; ".join(
                f"{name} was {show(repr(theirs.get(name)), 60)}, now {show(repr(ours.get(name)), 60)}"
                for name in differing
            )
            raise InvalidInput(f"{found.path} is of another run: {listed}; give the same, or choose another output")

    def _restore(self, found: state.Checkpoint) -> None:
        self._restore_weights(found)
        restore(self.optimizer, found.read("optimizer"), found.state["optimizer"], self._learning())
        self.step = found.step
        self.seconds = found.state["seconds"]
        self.best, self.stale = found.state["best"], found.state["stale"]
        self.measured, self.saved = found.state["measured"], found.step
        self.evaluations = found.state["evaluations"]

    def _restore_weights(self, found: state.Checkpoint) -> None:
        _fill(self._learning(), found.read("weights"), found.path)
        if self.average is not None:
            self.average.restore(found.read("average"))

    def _learning(self) -> dict[str, nn.Parameter]:
        """All that learns at any step, in an order that is the same in each process."""
        return {name: self.trained.parameters[name] for name in sorted(self.trained.names)}

    def _save(self, must: bool = False) -> None:
        """A checkpoint of this step. A full disk ends the run only where there is no later time for it."""
        learning = self._learning()
        slots, scalars = state_of(self.optimizer, learning)
        tensors = {"weights": {name: _plain(p.data) for name, p in learning.items()}}
        tensors["optimizer"] = {name: _plain(slot) for name, slot in slots.items()}
        if self.average is not None:
            tensors["average"] = {name: _plain(mean) for name, mean in self.average.state().items()}
        kept = {
            "identity": self.plan.identity,
            "optimizer": scalars,
            "seconds": self.seconds,
            "best": self.best,
            "stale": self.stale,
            "measured": self.measured,
            "evaluations": self.evaluations,
        }
        self._flush()
        try:
            state.write(self.checkpoints, self.step, tensors, kept)
        except TriarchError as error:
            if must or self.step == self.plan.total_steps:
                raise
            self.plan.note(f"{error}; training goes on, and the next one is tried in its turn")
            return
        self.saved = self.step
        state.purge(self.checkpoints, self.settings.keep, [self.best["step"]] if self.best else [])

    # The log

    def _write(self, line: dict[str, Any]) -> None:
        with suppress(OSError):  # a full disk must not lose the run; the checkpoints say when they fail
            self._log.write(json.dumps(_finite(line), allow_nan=False) + "\n")
        if self.board is not None:
            self.board(line)

    def _flush(self) -> None:
        with suppress(OSError):
            self._log.flush()
            os.fsync(self._log.fileno())

    def _cut_log(self) -> None:
        """Take off the lines after the state that the run goes on from: its steps write them again."""
        if not self.log_path.exists():
            return
        kept = []
        for number, line in enumerate(self.log_path.read_bytes().splitlines(keepends=True), start=1):
            with suppress(TriarchError):  # the last line of a killed run may be half a line
                if state.parse_log(line, f"{self.log_path} line {number}").get("step", 0) <= self.step:
                    kept.append(line.decode())
        write_text(self.log_path, "".join(kept))

    # Signals and progress

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the run at the next step; a second one ends it at once."""

        def stop(number: int, _frame: Any) -> None:
            if self.signal:
                raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(TERMINATED)
            self.signal = number
            self.plan.note("stopping after this step; once more to stop at once")

        before = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, stop)
        except ValueError:  # not the main thread, where alone a signal can be handled
            pass
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def _bar(self) -> Iterator[Progress]:
        with Progress(self.step, self.plan.total_steps, self.plan.note) as bar:
            yield bar


class _Stop(Exception):
    """A measurement broken off by a signal."""


class Progress:
    """A bar on a terminal; elsewhere, such as in a file, a line now and then."""

    def __init__(self, done: int, total: int, note: Callable[[str], None]):
        self.done, self.total, self.note = done, total, note
        self.bar = tqdm(total=total, initial=done, unit="step", disable=None, dynamic_ncols=True)
        self.first, self.start, self.told = done, time.monotonic(), time.monotonic()
        self.rate = 0.0  # tokens a second, averaged over about the last 20 steps

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def step(self, loss: float, tokens: int, seconds: float) -> None:
        rate = tokens / max(seconds, 1e-9)
        self.rate = rate if not self.rate else 0.95 * self.rate + 0.05 * rate
        self.done += 1
        self.bar.set_postfix_str(f"loss {loss:.4g}, {self.rate:,.0f} tokens/s", refresh=False)
        self.bar.update(1)
        now = time.monotonic()
        if self.bar.disable and now - self.told >= NOTE_SECONDS:
            left = (now - self.start) / (self.done - self.first) * (self.total - self.done)
            self.note(
                f"step {self.done:,} of {self.total:,}, loss {loss:.4g}, {self.rate:,.0f} tokens/s, {_clock(left)} left"
            )
            self.told = now

    def say(self, line: str) -> None:
        if self.bar.disable:
            self.note(line)
        else:
            self.bar.write(line, file=sys.stderr)


def falling(metric: str) -> bool:
    """Whether a metric is better when it is lower."""
    return metric in FALLING or metric.endswith("_loss")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _finite(value: Any) -> Any:
    """The same with null in the place of numbers that JSON does not know."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


@torch.no_grad()
def _fill(parameters: dict[str, Any], tensors: dict[str, Tensor], where: Path) -> None:
    missing, unexpected = sorted(parameters.keys() - tensors.keys()), sorted(tensors.keys() - parameters.keys())
    misshaped = [name for name in parameters.keys() & tensors.keys() if parameters[name].shape != tensors[name].shape]
    if missing or unexpected or misshaped:
        raise CheckpointMismatch(f"this run ({where})", missing, unexpected, misshaped, "choose another output")
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])
