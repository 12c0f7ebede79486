"""A run from its first step to its last: order, measurements, checkpoints, signals.

Everything random is a function of the seed and of the step, the epoch or the example; so is the learning rate. A
checkpoint therefore holds the weights, the optimizer's state and a few numbers, and a run that goes on from one makes
the same steps, to the bit on a CPU, as one that was never interrupted.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor, nn

from triarch.data import seeds
from triarch.errors import CheckpointMismatch, InvalidInput, TriarchError, show
from triarch.metrics import falls
from triarch.objectives._base import Example
from triarch.training import learner, state
from triarch.training.average import Average
from triarch.training.learner import Learner, NotFinite, Step
from triarch.training.log import Log
from triarch.training.optimizers import optimizer, restore, set_rate, state_of
from triarch.training.parameters import groups, trained
from triarch.training.plan import Plan
from triarch.training.progress import Progress
from triarch.training.schedules import schedule
from triarch.training.tensorboard import Board
from triarch.training.workplace import FOLDER, LOG

TERMINATED = 143
KEPT = {
    "identity": dict,
    "machine": dict,
    "optimizer": dict,
    "seconds": float,
    "best": dict,
    "stale": int,
    "measured": int,
}


class Run:
    """A plan being carried out in a folder that is held. Use it in a `with` statement, which closes the log."""

    def __init__(self, plan: Plan, output: Path):
        self.plan, self.folder = plan, output / FOLDER
        self.settings = plan.settings
        self.checkpoints, self.log_path = self.folder / "checkpoints", self.folder / LOG
        self.step = 0
        self.seconds = 0.0  # of training, over all of the run's processes
        self.best: dict[str, Any] = {}  # step and value of the best measurement
        self.best_saved: dict[str, Any] = {}  # the same, of those in checkpoints
        self.stale = 0  # measurements since then
        self.measured = self.saved = 0  # steps at which that was last done
        self.signal = 0
        self.average: Average | None = None
        self.board: Board | None = None
        self._set_up()
        self._start()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.log.close()
        if self.board is not None:
            self.board.close()

    def train(self) -> None:
        """Steps until the last, or until measurements stopped getting better.

        Raises KeyboardInterrupt or SystemExit after Ctrl-C or SIGTERM, once the state is saved, and NotFinite before a
        step that would have spoiled the weights.
        """
        with self._signals(), Progress(self.step, self.plan.total_steps, self.plan.note) as bar:
            while True:
                self._evaluate(bar)
                asked, last = self.signal, self.step == self.plan.total_steps or self._out_of_patience()
                if (asked or (self.saved < self.step and (last or self._worth_saving()))) and not self._save(
                    must=bool(asked) or last
                ):
                    self.best = self.best_saved  # what is not on disk cannot be returned to
                if asked:
                    _leave(asked)
                if last:
                    break
                self._advance(bar)
            if self.signal:  # that came while the last state was saved
                _leave(self.signal)
        if self._out_of_patience():
            self.plan.note(f"{self.plan.metric} has not improved in {self.stale} measurements: stopped")
        if not self.settings.best:
            self.best = {}
        elif self.best and self.best["step"] != self.step:
            self._return_to_best()
        if self.average is not None:
            self.average.apply()
            self.average = None  # the weights are its mean now

    def _worth_saving(self) -> bool:
        return self._due(self.settings.save_every) or (self.settings.best and self.best.get("step") == self.step)

    def _return_to_best(self) -> None:
        step = self.best["step"]
        try:
            found = state.verified(self.checkpoints / f"step-{step:08}", step)
        except state.DAMAGE as error:
            self.plan.note(f"{error}: the best model, that of step {step:,}, is lost; keeping the last")
            self.best = {}
            return
        self._restore_weights(found)
        self.plan.note(f"keeping the model of step {step:,}, the best in {self.plan.metric}")

    # One step

    def _advance(self, bar: Any) -> None:
        begin = time.perf_counter()
        settings = self.settings
        epoch, indices, examples = self.batch()
        self.trained.apply(self.step)
        rate = settings.lr * self.schedule(self.step)
        set_rate(self.optimizer, rate)
        try:
            found = self.learner.gradients(examples, (settings.seed, self.step))
            norm = learner.clip(self.parameters, settings.clip)
        except NotFinite as error:
            raise self._stop_before(error, epoch, indices, examples) from None
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.step)
        self.step += 1
        seconds = time.perf_counter() - begin
        self.seconds += seconds
        self._note_step(found, norm, rate, seconds, bar)

    def batch(self) -> tuple[int, list[int], list[Example]]:
        """Of the step that comes: its epoch, the numbers of its examples, and these."""
        epoch, found = self.plan.order.at(self.step)
        indices: list[int] = found.tolist()
        return (
            epoch,
            indices,
            [self.plan.train.examples.draw(i, seeds.generator("draw", self.settings.seed, epoch, i)) for i in indices],
        )

    def _stop_before(self, error: NotFinite, epoch: int, indices: list[int], examples: list[Example]) -> NotFinite:
        """Save the state before the step; the error, with where it stands."""
        culprit = learner.first_not_finite(self.plan.model)
        self.plan.model.zero_grad()
        saved = "is saved" if self._save() else "could not be saved"
        alone = self.learner.not_finite(examples)
        rows = list(dict.fromkeys(self.plan.train.place(indices[i]) for i in alone or range(len(indices))))
        where = ", ".join(rows[:3]) + (f" and {len(rows) - 3:,} more" if len(rows) > 3 else "")
        what = f", first in the gradient of {culprit}" if culprit else ""
        return NotFinite(
            f"{error} at step {self.step + 1:,} (epoch {epoch + 1}; {where}){what}; the state before it {saved}: look "
            "at these rows, or start anew with a lower lr or more warmup"
        )

    def _note_step(self, found: Step, norm: float, rate: float, seconds: float, bar: Any) -> None:
        line: dict[str, Any] = {"step": self.step, "epoch": round(self._epochs(), 4), "loss": found.loss}
        if len(found.losses) > 1:
            line["losses"] = found.losses
        line |= {"lr": rate, "grad_norm": norm, "tokens": found.tokens, "seconds": round(seconds, 4)}
        self._write(line)
        bar.step(found.loss, found.tokens, seconds)

    # Measuring

    def _evaluate(self, bar: Any) -> None:
        """Measure if it is time to. What a signal cuts short is done first by the run that goes on."""
        if self.plan.validation is None or self.measured == self.step or not self._due(self.settings.evaluate_every):
            return
        begin = time.perf_counter()
        try:
            metrics, _ = self.measure(self.plan.validation.examples)
        except _Stop:
            return
        self.measured = self.step
        self._write({"step": self.step, "evaluation": metrics, "seconds": round(time.perf_counter() - begin, 4)})
        value = metrics[self.plan.metric]
        better = not self.best or (
            (value < self.best["value"]) == falls(self.plan.metric) and value != self.best["value"]
        )
        if better and math.isfinite(value):
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

        with nullcontext() if self.average is None else self.average.swap():
            return self.learner.measure(source, self.settings.seed, interrupted)

    def _out_of_patience(self) -> bool:
        return self.settings.patience is not None and self.stale >= self.settings.patience

    def _due(self, every: int | None) -> bool:
        if not self.step or self.step == self.plan.total_steps:
            return bool(self.step)
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
            whole=settings.size,
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
            self._check_machine(found.state["machine"])
            self.plan.note(f"going on from step {self.step:,} of {self.plan.total_steps:,}")
        elif self.log_path.exists():
            self.plan.note("no checkpoint yet: starting at the beginning")
        if self.settings.tensorboard:
            self.board = Board(self.folder / "tensorboard", self.step)
        # Last, as a log is what says that a run has begun
        self.log = Log(self.log_path, self.step, self.measured)

    def _check_same(self, found: state.Checkpoint) -> None:
        """Raises InvalidInput, with the differences, for the state of a run with other settings or data."""
        if absent := [name for name, kind in KEPT.items() if type(found.state.get(name)) is not kind]:
            raise CheckpointMismatch(f"this run ({found.path})", absent, [], [], "start anew in another folder")
        ours, theirs = self.plan.identity, found.state["identity"]
        differing = [name for name in sorted(ours.keys() | theirs.keys()) if ours.get(name) != theirs.get(name)]
        if differing:
            listed = "; ".join(
                f"{name} was {show(repr(theirs.get(name)), 60)}, now {show(repr(ours.get(name)), 60)}"
                for name in differing
            )
            raise InvalidInput(f"{found.path} is of another run: {listed}; give the same, or choose another output")

    def _check_machine(self, before: dict[str, Any]) -> None:
        now = self.learner.machine
        if changed := [f"{name} {before.get(name)}" for name in now if before.get(name) != now[name]]:
            self.plan.note(f"so far the run had {', '.join(changed)}: it goes on, but not to the bit")

    def _restore(self, found: state.Checkpoint) -> None:
        self._restore_weights(found)
        restore(self.optimizer, found.read("optimizer"), found.state["optimizer"], self._learning())
        self.step = found.step
        self.seconds = found.state["seconds"]
        self.best, self.stale, self.measured = (found.state[name] for name in ("best", "stale", "measured"))
        self.saved, self.best_saved = found.step, self.best

    def _restore_weights(self, found: state.Checkpoint) -> None:
        state.fill(self._learning(), found.read("weights"), found.path)
        if self.average is not None:
            self.average.restore(found.read("average"))

    def _learning(self) -> dict[str, nn.Parameter]:
        """All that learns at any step, in an order that is the same in each process."""
        return {name: self.trained.parameters[name] for name in sorted(self.trained.names)}

    def _save(self, must: bool = False) -> bool:
        """A checkpoint of this step, and whether it is on disk; one that `must` be raises TriarchError if it can't."""
        learning = self._learning()
        slots, scalars = state_of(self.optimizer, learning)
        files: dict[str, Mapping[str, Tensor]] = {"weights": learning, "optimizer": slots}
        if self.average is not None:
            files["average"] = self.average.state()
        tensors = {name: {key: _plain(tensor) for key, tensor in group.items()} for name, group in files.items()}
        kept = {
            "identity": self.plan.identity,
            "machine": self.learner.machine,
            "optimizer": scalars,
            "seconds": self.seconds,
            "best": self.best,
            "stale": self.stale,
            "measured": self.measured,
        }
        self.log.flush()
        try:
            # The rule that made the step can overflow where the gradient did not
            if spoiled := [name for name, weights in learning.items() if not weights.isfinite().all()]:
                raise NotFinite(f"{spoiled[0]} is not finite any more after step {self.step:,}; take a lower lr")
            state.write(self.checkpoints, self.step, tensors, kept)
        except TriarchError as error:
            if must:
                raise
            self.plan.note(f"no checkpoint: {error}")
            return False
        self.saved, self.best_saved = self.step, self.best
        protected = [self.best["step"]] if self.settings.best and self.best else []
        state.purge(self.checkpoints, self.settings.keep, protected)
        return True

    def _write(self, line: dict[str, Any]) -> None:
        self.log.write(line)
        if self.board is not None:
            self.board(line)

    # Signals and progress

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the run at the next step; a second one ends it at once."""

        def stop(number: int, _frame: Any) -> None:
            if self.signal:
                _leave(number)
            self.signal = number
            with suppress(RuntimeError):  # of a stream that was being written to when the signal came
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


class _Stop(Exception):
    """A measurement broken off by a signal."""


def _leave(number: int) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(TERMINATED)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()
