"""How fast each batch budget is on this machine: what the defaults of `budgets` were chosen by."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from triarch.engine.budgets import LEARNING, READING, WRITING
from triarch.engine.prepare import prepare
from triarch.family import Network
from triarch.generation import generate
from triarch.generation.settings import WRITES
from triarch.models import family

TOKENS, NEW = 64, 16  # of each text, and how many of these are written
TIMES = (1 / 4, 1 / 2, 1, 2, 4)  # the default budget
SECONDS = 14.0  # for all budgets of one kind of work; larger ones than there is time for are left out
ENOUGH = 1.0  # seconds for one budget after which the work is not repeated

# One layer of the usual size, which is what caches notice, and few words, so that it takes a minute
SIZES: dict[str, tuple[str, dict[str, int]]] = {
    "bert": ("BertModel", {"num_layers": 1, "vocab_size": 8000}),
    "gpt2": ("GPT2LMHeadModel", {"num_layers": 1, "vocab_size": 8000}),
    "bart": ("BartForConditionalGeneration", {"num_layers": 1, "decoder_layers": 1, "vocab_size": 8000}),
}


def made(name: str, device: torch.device) -> Network:
    """A model of `SIZES` with random weights."""
    architecture, sizes = SIZES[name]
    return family(name).build(family(name).module.Config(**sizes), architecture, device)


def sweep(model: Network) -> Iterator[dict[str, Any]]:
    """A row for each budget, smallest first, of each kind of work that the model is for; prepares the model for use."""
    device = next(model.parameters()).device
    works: list[tuple[str, Any, Any]] = [("learning", LEARNING, _learn), ("reading", READING, _read)]
    for work, default, run in [("writing", WRITING, _write)] if model.kind in WRITES else works:
        end = time.perf_counter() + SECONDS
        if work != "learning":
            prepare(model)
        run(model, _ids(model, TOKENS))  # warms up
        for times in TIMES:
            ids = _ids(model, int(times * default.of(model)))
            seconds = _fastest(partial(run, model, ids), device)
            yield {
                "work": work,
                "model": model.family.model_type,
                "budget": ids.numel(),
                "tokens_per_second": round(ids.numel() / seconds),
                "peak_mib": _peak(device) >> 20,
                "default": times == 1,
            }
            if time.perf_counter() + 2 * seconds > end:
                break


def _ids(model: Network, budget: int) -> Tensor:
    tokens = min(TOKENS, model.config.max_tokens)
    top = min(1000, model.config.vocab_size)
    return torch.randint(5, top, (budget // tokens, tokens), device=next(model.parameters()).device)


@torch.inference_mode()
def _read(model: Network, ids: Tensor) -> None:
    model.features(ids)


def _learn(model: Network, ids: Tensor) -> None:
    model.features(ids).float().square().mean().backward()
    model.zero_grad()


def _write(model: Network, ids: Tensor) -> None:
    new = min(NEW, ids.shape[1] // 2)
    generate(model, ids[:, new:].tolist(), max_new_tokens=new, ignore_eos=True)


def _fastest(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of several times, or of one if that takes long."""
    found: list[float] = []
    while not found or sum(found) < ENOUGH:
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - start)
    return min(found)


def _peak(device: torch.device) -> int:
    """The most bytes that this process has held so far; 0 where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
