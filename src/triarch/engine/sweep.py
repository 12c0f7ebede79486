"""How fast each batch budget is on this machine: what the defaults of `budgets` were chosen by."""

from __future__ import annotations

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

# With BERT-base's sizes of a layer, which is what caches notice, but one layer and few words, so that it takes a minute
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertModel", {"num_layers": 1, "vocab_size": 8000}),
    "gpt2": ("GPT2LMHeadModel", {"num_layers": 1, "vocab_size": 8000}),
    "bart": (
        "BartForConditionalGeneration",
        {
            "hidden_size": 768,
            "num_layers": 1,
            "num_heads": 12,
            "intermediate_size": 3072,
            "decoder_layers": 1,
            "decoder_heads": 12,
            "decoder_intermediate_size": 3072,
            "vocab_size": 8000,
        },
    ),
}


def made(name: str, device: torch.device) -> Network:
    """A model of `SIZES` with random weights."""
    architecture, sizes = SIZES[name]
    kind = family(name)
    return kind.build(kind.module.Config(**sizes), architecture, device)


def sweep(model: Network) -> Iterator[dict[str, Any]]:
    """A row for each budget, smallest first, for each kind of work that the model is for. The model stays in eval mode
    and is prepared afterwards."""
    tokens = min(TOKENS, model.config.max_tokens)
    device = next(model.parameters()).device
    works: list[tuple[str, Any, Callable[[Tensor], object]]] = []
    if model.kind in WRITES:
        works.append(("writing", WRITING, partial(_write, model)))
    else:
        works += [("learning", LEARNING, partial(_learn, model)), ("reading", READING, partial(_read, model))]
    for work, default, run in works:
        end = time.perf_counter() + SECONDS
        if work != "learning":
            prepare(model)
        run(_ids(model, 1, tokens))  # warms up
        for budget in (int(times * default.on(device.type)) for times in TIMES):
            ids = _ids(model, max(1, budget // tokens), tokens)
            _forget_peak(device)
            seconds = _fastest(partial(run, ids), device)
            peak = _peak(device)
            yield {
                "work": work,
                "model": model.family.model_type,
                "budget": budget,
                "tokens_per_second": round(ids.numel() / seconds),
                "peak_mib": None if peak is None else round(peak / 2**20),
                "default": budget == default.on(device.type),
            }
            if time.perf_counter() + 2 * seconds > end:
                break


def _ids(model: Network, rows: int, tokens: int) -> Tensor:
    device = next(model.parameters()).device
    return torch.randint(5, min(1000, model.config.vocab_size), (rows, tokens), device=device)


@torch.inference_mode()
def _read(model: Network, ids: Tensor) -> None:
    model.features(ids)


def _learn(model: Network, ids: Tensor) -> None:
    model.features(ids).float().square().mean().backward()
    model.zero_grad()


def _write(model: Network, ids: Tensor) -> None:
    new = min(NEW, ids.shape[1] - 1)
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


def _peak(device: torch.device) -> int | None:
    """Bytes that were held at most since `_forget_peak`; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        with open("/proc/self/status", encoding="utf-8") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return None


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        with open("/proc/self/clear_refs", "w", encoding="utf-8") as file:
            file.write("5")
    except OSError:  # then the peak is that since the process began
        pass
