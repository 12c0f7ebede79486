"""What a model writes, measured: from the sources of some examples, by its own tokens and not by the right ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from triarch.data import seeds
from triarch.engine.batches import run
from triarch.family import Network
from triarch.generation import generate
from triarch.objectives._base import Objective

ROWS = 32  # that are written side by side, beams included


def chosen(objective: Objective, count: int) -> list[int]:
    """Which of so many examples are written from: as many as the objective asks for, spread over all of them."""
    wanted = min(objective.writes[0], count)
    return [i * count // wanted for i in range(wanted)]


def said(objective: Objective, count: int) -> str | None:
    """What is written of so many examples, in words; None for nothing."""
    rows, options = objective.writes
    if not rows:
        return None
    beams = options.get("num_beams", 1)
    search = "the likeliest token each time" if beams == 1 else f"{beams} beams"
    names = ", ".join(objective.compare([], []))
    return f"{len(chosen(objective, count)):,} of {count:,} targets, by {search}, for {names}"


def measured(
    model: Network,
    objective: Objective,
    source: Any,
    seed: int,
    budget: int,
    done: Callable[[int], object] = lambda rows: None,
) -> dict[str, float]:
    """Metrics of texts written from examples of a source; none where the objective asks for none.

    `budget`: tokens of sources that are read at once.
    """
    indices = chosen(objective, len(source))
    if not indices:
        return {}
    examples = [source.draw(i, seeds.generator("measure", seed, i)) for i in indices]
    options = objective.writes[1]

    def written(group: list[Sequence[int]]) -> list[str]:
        done(0)
        return [str(one) for one in generate(model, [[*ids] for ids in group], **options)]

    ids = [example.ids for example in examples]
    most = max(ROWS // options.get("num_beams", 1), 1)
    texts = run(ids, written, lengths=[len(one) for one in ids], budget=budget, most=most)
    return objective.compare([example.note for example in examples], texts)
