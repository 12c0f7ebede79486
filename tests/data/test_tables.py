"""Cells of tables: as Python's csv module cuts them, without its setting of the whole process."""

import csv
import random
import threading

import pytest

from triarch import limits
from triarch.data.tables import records
from triarch.errors import CorruptFile, TriarchError


def rows_of(text):
    return list(records(iter(enumerate(text.split("\n"), 1)), "a.csv", ","))


def test_cells_are_those_of_the_csv_module():
    rng = random.Random(0)
    for _ in range(3000):
        text = "".join(rng.choice('ab,"\n ') for _ in range(rng.randrange(16)))
        try:
            theirs = [row for row in csv.reader([line + "\n" for line in text.split("\n")], strict=True) if row]
        except csv.Error:
            theirs = None
        try:
            ours = [cells for _, cells in rows_of(text)]
            ours = None if any(isinstance(cells, TriarchError) for cells in ours) else ours
        except CorruptFile:
            ours = None
        assert ours == theirs, text


def test_the_setting_of_the_process_stays_as_it_was():
    before = csv.field_size_limit()
    assert len(rows_of("x" * (before + 1) + ',"y"')[0][1][0]) == before + 1
    assert csv.field_size_limit() == before


def test_a_cell_has_a_limit(monkeypatch):
    monkeypatch.setattr(limits, "LINE_BYTES", 100)
    lines = ('"' + "x\n" * 200 + '",1').split("\n")
    _, error = next(records(iter(enumerate(lines, 1)), "a.csv", ","))
    assert "a cell is over 100 characters" in str(error)


@pytest.mark.parametrize("size", [1000])
def test_threads_read_tables_at_once(size):
    found = []
    threads = [threading.Thread(target=lambda: found.append(rows_of('"a""b",c\n' * size))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(rows == found[0] and len(rows) == size for rows in found)


def test_public_rows_are_in_the_columns_of_an_objective(file):
    import triarch

    rows = triarch.rows(file("a.csv", "review,stars\nfine,1\nbad,2\n"))
    assert list(rows) == [{"text": "fine", "label": 1}, {"text": "bad", "label": 2}]
    assert rows.reading.kind == "classification"
