"""The lessons as rows of a table, for a terminal."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from triarch.tour.lesson_page import percent
from triarch.tour.lessons import Blank, Continuation, Lesson, Pair, Post, Reply, Tagged, Utterance, Written

SILENT = "the text does not say"
WORDS = 6  # of a sentence on a line


def rows(lesson: Lesson) -> list[list[str]]:
    """The headers, then the inputs, each in a row or more. What was meant stands only beside what was not."""
    headers, written = ROWS[lesson.task]
    return [headers, *itertools.chain.from_iterable(written(one) for one in lesson.rows)]


def _utterance(row: Utterance) -> list[list[str]]:
    best = row.guesses[0]
    meant = "none of them" if row.meant is None else _unless(best.label == row.meant, row.meant)
    return [[row.text, percent(best.score), best.label, meant]]


def _tagged(row: Tagged) -> list[list[str]]:
    lines = [row.words[start : start + WORDS] for start in range(0, len(row.words), WORDS)]
    return [
        [
            " ".join(f"{word.text}/{word.tag}" for word in words),
            " ".join(f"{word.text}/{word.meant}" for word in words if word.tag != word.meant) or "-",
        ]
        for words in lines
    ]


def _post(row: Post) -> list[list[str]]:
    found = [
        [
            row.text[name.start : name.end],
            f"{name.kind} {percent(name.score)}",
            _unless(row.is_right(name), "no such name"),
        ]
        for name in row.found
    ]
    missed = [[row.text[name.start : name.end], "not found", name.kind] for name in row.missed]
    names = [*found, *missed] or [["-", "nothing", "-"]]
    return [[row.text if number == 0 else "", *name] for number, name in enumerate(names)]


def _reply(row: Reply) -> list[list[str]]:
    meant = row.meant[0] if row.meant else SILENT
    return [[row.question, percent(row.said.score), row.said.text or SILENT, _unless(bool(row.points[0]), meant)]]


def _blank(row: Blank) -> list[list[str]]:
    guesses = ", ".join(f"{guess.label} {percent(guess.score)}" for guess in row.guesses)
    return [[f"{row.before}[…]{row.after}", guesses, row.word]]


def _pair(row: Pair) -> list[list[str]]:
    said = "yes" if row.said else "no"
    meant = _unless(row.said == row.follows, "no" if row.said else "yes")
    return [[row.first, row.second, f"{said} {percent(row.score)}", meant]]


def _continuation(row: Continuation) -> list[list[str]]:
    lines = [row.tokens[start : start + WORDS] for start in range(0, len(row.tokens), WORDS)]
    return [
        [row.begin if number == 0 else "", ", ".join(f"{token.text.strip()} {percent(token.score)}" for token in line)]
        for number, line in enumerate(lines)
    ] + [["", f"instead: {row.said.strip()}"]]


def _written(row: Written) -> list[list[str]]:
    return [[row.text, row.said, row.meant]]


def _unless(right: bool, meant: str) -> str:
    return "-" if right else meant


ROWS: dict[str, tuple[list[str], Callable[[Any], list[list[str]]]]] = {
    "text-classification": (["text", "sure", "label", "meant"], _utterance),
    "token-classification": (["words and their parts of speech", "meant"], _tagged),
    "ner": (["post", "name", "kind", "meant"], _post),
    "question-answering": (["question", "sure", "answer", "meant"], _reply),
    "fill-mask": (["text", "guesses", "the author's"], _blank),
    "next-sentence": (["first", "second", "follows", "in the book"], _pair),
    "text-generation": (["text", "the author's next tokens, and how likely the model found them"], _continuation),
    "translation": (["text", "translation", "meant"], _written),
    "text2text-generation": (["text", "in two sentences", "meant"], _written),
    "summarization": (["text", "in a sentence", "meant"], _written),
}
