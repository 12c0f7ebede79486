"""A part of the rows held out for validation, and what two sets of rows have in common."""

import json
import os
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from triarch.data import seeds
from triarch.data.columns import GROUP
from triarch.data.rows import Rows
from triarch.errors import InvalidInput, show
from triarch.kinds import Medium, Text


@dataclass(frozen=True)
class Overlap:
    """Rows of a validation set whose texts are in the training set too."""

    count: int
    examples: list[str]  # the first few: where both rows are, and what they say

    def __bool__(self) -> bool:
        return self.count > 0


def split(whole: Rows, share: float, seed: int, group: str | None = None) -> tuple[Rows, Rows]:
    """Rows to train on, and about `share` of them to validate with; the same ones for the same seed.

    Equal texts, equal contexts of questions, and rows with the same value in the column `group` (by default "group",
    where reading gave it) stay on one side. Both sides keep the order of the rows. Raises InvalidInput where that
    leaves a side without rows, or for a share outside of 0 to 1.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise InvalidInput(f"the share to hold out is {show(share)}; wanted a number between 0 and 1")
    by_group = group is not None or (whole.reading is not None and GROUP in whole.reading.columns)
    knots = _Knots(len(whole))
    for i, row in enumerate(whole):
        if by_group:
            if (value := row.get(group or GROUP)) is None:
                raise InvalidInput(f"{whole.place(i)} has no column {show(group)!r} to group by; read it as a column")
            knots.tie(i, (GROUP, value))
        for key in keys(whole, row):
            knots.tie(i, key)
    clusters = knots.clusters()
    sizes = np.bincount(clusters)
    wanted = round(share * len(whole))
    held, taken = 0, np.zeros(len(sizes), dtype=bool)
    for cluster in seeds.generator("split", seed).permutation(len(sizes)):
        # One large group must not take the place of many.
        if held + sizes[cluster] <= max(wanted, 1):
            taken[cluster] = True
            held += int(sizes[cluster])
    if not 0 < held < len(whole):
        raise InvalidInput(
            f"{len(whole):,} rows make {len(sizes):,} sets of equal texts or groups, of which none can be {share:.1%} "
            "of all; give a file to validate with, or another share"
        )
    side = taken[clusters]
    return whole.take(np.flatnonzero(~side).tolist()), whole.take(np.flatnonzero(side).tolist())


def overlap(train: Rows, validation: Rows, most: int = 5) -> Overlap:
    """How many rows to validate with have the text, or the context, of a row to train on; the first `most` of them."""
    first: dict[Hashable, int] = {}
    for i, row in enumerate(train):
        for key in keys(train, row):
            first.setdefault(key, i)
    count, examples = 0, list[str]()
    for i, row in enumerate(validation):
        own = keys(validation, row)
        both = next((which for which, key in enumerate(own) if key in first), None)
        if both is not None:
            count += 1
            if len(examples) < most:
                words = show(in_words(validation, i, both), 60)
                examples.append(f"{validation.place(i)} = {train.place(first[own[both]])}: {words}")
    return Overlap(count, examples)


def keys(rows: Rows, row: dict[str, Any]) -> list[tuple[Any, ...]]:
    """What makes a row the same as another, whatever its label, as their kind declares it: any of these."""
    named = rows.reading.keys if rows.reading is not None else (tuple(row),)
    return [
        (names[0], *(part for name in names for part in _parts(row.get(name)) if part is not None)) for names in named
    ]


def in_words(rows: Rows, index: int, which: int = 0) -> str:
    """What one of the keys of a row says, for people: texts, or of an input in a file the end of its path, or else the
    place of the row."""
    row = rows[index]
    found: list[Hashable] = []
    for name in rows.reading.keys[which] if rows.reading is not None else row:
        sort = rows.reading.fields[name].sort if rows.reading is not None else Text
        if isinstance(sort, Medium) and sort.suffixes:
            given = row.get(name)
            named = isinstance(given, str | os.PathLike)
            found.append("/".join(Path(given).parts[-2:]) if named and given else rows.place(index))
        else:
            found += [part for part in _parts(row.get(name)) if part]
    return " ".join(map(str, found))


def _parts(value: Any) -> list[Hashable]:
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return list(value)
    return [value if isinstance(value, Hashable) else json.dumps(value, sort_keys=True, default=str)]


class _Knots:
    """Rows tied together by what they share. Union-find, with paths halved."""

    def __init__(self, size: int):
        self.parent = list(range(size))
        self.first: dict[Hashable, int] = {}

    def tie(self, row: int, key: Hashable) -> None:
        one, other = self.root(self.first.setdefault(key, row)), self.root(row)
        self.parent[max(one, other)] = min(one, other)

    def root(self, row: int) -> int:
        while self.parent[row] != row:
            self.parent[row] = row = self.parent[self.parent[row]]
        return row

    def clusters(self) -> np.ndarray:
        """(rows,) int64: the cluster of each row, numbered in the order of their first rows."""
        return np.unique([self.root(row) for row in range(len(self.parent))], return_inverse=True)[1]
