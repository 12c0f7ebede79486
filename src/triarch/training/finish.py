"""Before and after the steps: a trial of one batch, the model's folder, its last measurements, report and card."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from triarch import __version__, checkpoint
from triarch.data.rows import Rows
from triarch.engine.prepare import load
from triarch.errors import InvalidInput, show
from triarch.kinds import Features
from triarch.layers import low_rank
from triarch.objectives._base import Objective
from triarch.training import card, plan, report, writing
from triarch.training.facts import Data, Facts, Mistakes
from triarch.training.history import History
from triarch.training.history import read as read_log
from triarch.training.learner import Learner
from triarch.training.log import finite
from triarch.training.mistakes import mistakes
from triarch.training.model import make_objective, start
from triarch.training.plan import Source
from triarch.training.run import Run
from triarch.training.settings import Settings


def try_one(running: Run) -> dict[str, Any]:
    """Loss and seconds of the first batch, forward and backward; nothing is learned."""
    begin = time.perf_counter()
    _, _, examples = running.batch()
    found = running.learner.gradients(examples, (running.settings.seed, 0))
    return {"first loss": found.loss, "first batch": f"{found.tokens:,} tokens in {time.perf_counter() - begin:.2f} s"}


def finish(running: Run, folder: Path) -> dict[str, Any]:
    """Write the model, measure it, write report and card; returns what was measured."""
    planned, settings = running.plan, running.settings
    model, note = planned.model, planned.note
    model.eval()
    measured_on, metrics, went_wrong = _last_measurement(running)
    past = read_log(running.log_path)
    facts = _facts(running, folder, past, measured_on, metrics)
    if planned.objective.SCORES is not Features:  # of a sentence encoder's recipe, which this no longer is
        model.sidecars = {name: data for name, data in model.sidecars.items() if name == "generation_config.json"}
    if low_rank.wrapped(model):
        assert settings.model is not None
        checkpoint.save_adapter(model, folder, base=settings.model)
        if os.path.isdir(settings.model):
            note(f"adapter_config.json names its base by the path {os.path.abspath(settings.model)}")
    else:
        checkpoint.save(model, folder)
    report.write_report(folder, running.log_path, facts, went_wrong)
    card.write_card(folder, facts)
    shutil.rmtree(running.folder / "tokens", ignore_errors=True)  # the data, which is not the model's to carry along
    note(f"model, card and report are in {folder}")
    outcome: dict[str, Any] = {"output": str(folder), "steps": running.step, "seconds": round(running.seconds, 1)}
    if running.best:
        outcome["best step"] = running.best["step"]
    if measured_on is not None:
        outcome |= {f"{measured_on.part} {name}": value for name, value in finite(metrics).items()}
    return outcome


def evaluate(settings: Settings, rows: Any, note: Callable[[str], None]) -> dict[str, float]:
    """Metrics of a model as it is on data."""
    if rows is None and not settings.data:
        raise InvalidInput("there is no data; name files or folders to measure on")
    with tempfile.TemporaryDirectory(prefix="triarch-") as folder:
        started = start(settings)
        made, data, _ = plan.material(settings, note, rows, None, started)
        assert started.model is not None
        network = load(started.model, scores=(made.SCORES,), dtype="float32", device=settings.device)
        _check_problem(network.config.extra.get("problem_type"), made)
        objective = make_objective(settings, made, network, started)
        if isinstance(data, Rows):
            objective.prepare(data)
        source = plan.source_of(data, objective, settings, Path(folder), note)
        note(f"{objective.NAME} on {source.said}")
        if texts := writing.said(objective, len(source.examples)):
            note(f"writes {texts}")
        learning = Learner(
            network,
            objective,
            bfloat16=settings.precision == "bfloat16",
            micro_tokens=settings.micro_tokens,
            whole=settings.size,
            note=note,
        )
        return learning.measure(source.examples, settings.seed)[0]


def _check_problem(trained: Any, made: type[Objective]) -> None:
    """Raises InvalidInput where a model says that it has learned another thing about labels."""
    wanted = made.CONFIG.get("problem_type")
    if trained is not None and wanted is not None and trained != wanted:
        raise InvalidInput(
            f"the model has learned {show(trained)}, the data was read for {wanted} ({made.NAME}); name the objective"
        )


def _last_measurement(running: Run) -> tuple[Data | None, dict[str, float], Mistakes]:
    """On the test data if there are any, else on the validation data, of the model as it is kept."""
    planned, settings = running.plan, running.settings
    if planned.test is not None:
        part, names, source = "test", settings.test, planned.test
    elif planned.validation is not None:
        part, names, source = "validation", settings.validation or settings.data, planned.validation
    else:
        return None, {}, Mistakes()
    planned.note(f"measuring on the {part} data")
    metrics, outcomes = running.measure(source.examples)
    data = _data(_name(names), part, source)
    if texts := writing.said(planned.objective, len(source.examples)):
        data = replace(data, note="; ".join(filter(None, (data.note, f"written were {texts}"))))
    return data, metrics, mistakes(running.learner, source, outcomes)


def _data(name: str, part: str, source: Source) -> Data:
    """How much of it there is: rows, or passages of running text; and what was left out."""
    count = len(source.examples) if source.rows is None else len(source.rows)
    return Data(name, part, count, note=f"{source.skipped:,} rows left out" if source.skipped else "")


def _facts(running: Run, folder: Path, past: History, measured_on: Data | None, metrics: dict[str, float]) -> Facts:
    planned, settings, about = running.plan, running.settings, running.settings.about
    base = settings.model if settings.model is not None and not os.path.isdir(settings.model) else None
    started = "fresh weights" if settings.model is None else f"the checkpoint {Path(settings.model).name}"
    chosen = {name: value for name, value in asdict(settings).items() if value not in (None, [], {}, "")}
    for name in ("data", "validation", "test", "model", "teacher", "tokenizer", "output"):  # what is where is private
        if name in chosen:
            value = chosen[name]
            chosen[name] = _name(value) if isinstance(value, list) else _file_name(value)
    tokens = past.of_steps("tokens").values
    learned, licence = (
        _data(about.get("data", _name(settings.data)), "training", planned.train),
        about.get("data_licence"),
    )
    origin = "; ".join(filter(None, (about.get("data_source"), learned.note)))
    if measured_on is not None:
        measured_on = replace(measured_on, name=about.get("data", measured_on.name), license=licence)
    return Facts(
        name=about.get("name", folder.resolve().name),
        objective=planned.objective.NAME,
        architecture=planned.model.architecture,
        base_model=base,
        base_license=about.get("base_licence"),
        started=started,
        task=card.task_of(planned.model.family.medium, planned.objective.SCORES),
        languages=(about["language"],) if "language" in about else (),
        license=settings.licence,
        library="peft" if planned.adapted else "transformers",
        settings=chosen | {"about": {}},
        seed=settings.seed,
        seconds=running.seconds,
        steps=running.step,
        tokens=int(np.nansum(tokens)) if len(tokens) else 0,
        hardware={"processor": _processor(), "device": str(running.learner.device)},
        software={"triarch": __version__, "torch": torch.__version__, "python": platform.python_version()},
        data=(replace(learned, license=licence, note=origin),),
        metric=planned.metric,
        best_step=running.best.get("step"),
        metrics=metrics,
        measured_on=measured_on,
    )


def _file_name(path: str) -> str:
    """The last part of a path; a repo id whole."""
    return Path(path).name if os.path.exists(path) else path


def _name(paths: list[str]) -> str:
    return ", ".join(Path(path).name for path in paths) or "rows in memory"


def _processor() -> str:
    """The processor's name where the system tells it, and how many of its cores are used."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{name}, {torch.get_num_threads()} threads"
