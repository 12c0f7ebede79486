"""What went wrong in a measurement of choices among labels: what was taken for what, and on which rows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from triarch.data.examples import Examples
from triarch.data.split import in_words
from triarch.metrics import confusion_matrix
from triarch.training.facts import Mistakes, Wrong
from triarch.training.learner import Learner
from triarch.training.plan import Source


def mistakes(learner: Learner, source: Source, outcomes: list[Any]) -> Mistakes:
    """`outcomes` are those of all examples of the source; none are told where they are no choices among labels."""
    chosen = learner.objective.choices(outcomes)
    if chosen is None:
        return Mistakes()
    labels = tuple(learner.model.config.id2label.values())
    numbers = {name: number for number, name in enumerate(labels)}
    right, said = ([numbers[name] for name in names] for names in chosen)
    wrong = sorted(_wrong(learner, source, outcomes), key=lambda one: -one.loss)
    return Mistakes(labels, confusion_matrix(right, said, len(labels)), tuple(wrong))


def _wrong(learner: Learner, source: Source, outcomes: list[Any]) -> Iterator[Wrong]:
    """The rows with a wrong answer; each of them is measured again, alone, for its loss."""
    assert isinstance(source.examples, Examples)
    assert source.rows is not None
    for number, windows in groupby(range(len(outcomes)), source.origin.__getitem__):
        own = list(windows)
        right, said = learner.objective.choices([outcomes[i] for i in own]) or ([], [])
        if right == said:
            continue
        row = source.rows[number]
        words = row.get("tokens", [])
        if len(words) != len(right):  # it is a text; or one of the words has no tag among the labels
            words = [""] * len(right)
        taken = [pair for pair in zip(words, right, said, strict=True) if pair[1] != pair[2]]
        measured, _ = learner.measure(Examples([source.examples.examples[i] for i in own]), seed=0)
        yield Wrong(
            text=in_words(source.rows, number),
            right="; ".join(f"{word} {label}".strip() for word, label, _ in taken),
            predicted="; ".join(f"{word} {label}".strip() for word, _, label in taken),
            loss=measured["loss"],
        )
