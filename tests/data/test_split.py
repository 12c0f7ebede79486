"""Rows in memory: a sequence, split in two, and what two sets have in common."""

import json

import pytest

from reading import rows_of
from triarch.data.rows import Rows
from triarch.data.split import overlap, split
from triarch.errors import InvalidInput

# Rows


def test_rows_are_a_sequence():
    rows = rows_of([{"text": str(i)} for i in range(10)])
    assert isinstance(rows[2:5], Rows)
    assert [row["text"] for row in rows[::-3]] == ["9", "6", "3", "0"]
    assert rows[-1] == {"text": "9"}
    assert rows[2:5].place(0) == "row 3"
    assert rows.take([7, 1]).column("text") == ["7", "1"]


def test_values_that_recur_are_held_once():
    rows = rows_of([json.loads('{"tokens": ["Ada", "Ada"], "tags": ["O", "O"]}') for _ in range(2)])
    assert len({id(word) for row in rows for word in row["tokens"]}) == 1


# Splits


def numbered(count):
    return rows_of([{"text": f"text {i}", "label": i % 2} for i in range(count)])


def test_a_split_is_a_function_of_the_seed():
    rows = numbered(100)
    train, held = split(rows, 0.2, seed=1)
    assert (len(train), len(held)) == (80, 20)
    assert split(rows, 0.2, seed=1)[1].column("text") == held.column("text")
    assert split(rows, 0.2, seed=2)[1].column("text") != held.column("text")
    assert sorted([*train.column("text"), *held.column("text")]) == sorted(rows.column("text"))
    assert (train.reading, train.place(0)) == (rows.reading, rows.place(rows.column("text").index(train[0]["text"])))


def test_equal_texts_stay_on_one_side():
    rows = rows_of([{"text": f"text {i % 10}", "label": i % 2} for i in range(100)])
    for seed in range(5):
        train, held = split(rows, 0.3, seed)
        assert len(held) == 30
        assert not overlap(train, held)


def test_groups_stay_on_one_side_even_through_equal_texts():
    rows = [{"text": f"text {i}", "story": f"story {i // 10}"} for i in range(100)]
    rows[5]["text"] = rows[95]["text"]
    for seed in range(10):
        train, held = split(rows_of(rows, columns={"group": "story"}), 0.25, seed)
        stories, others = set(train.column("group")), set(held.column("group"))
        assert not stories & others
        assert ("story 0" in stories) == ("story 9" in stories)


def test_targets_of_one_source_stay_together():
    rows = rows_of([{"source": f"text {i // 2}", "target": f"summary {i}"} for i in range(20)])
    train, held = split(rows, 0.3, seed=0)
    assert not {*train.column("source")} & {*held.column("source")}
    assert overlap(rows, held).count == len(held) == 6


def test_questions_of_one_context_stay_together():
    rows = rows_of([{"question": f"{i}?", "context": f"context {i // 5}", "answers": []} for i in range(50)])
    train, held = split(rows, 0.2, seed=0)
    assert not set(train.column("context")) & set(held.column("context"))


@pytest.mark.parametrize("share", [0, 1, -1, float("nan"), True, "half"])
def test_a_share_is_between_0_and_1(share):
    with pytest.raises(InvalidInput, match="wanted a number between 0 and 1"):
        split(numbered(10), share, seed=0)


def test_a_split_that_cannot_be_made():
    with pytest.raises(InvalidInput, match="make 1 sets of equal texts"):
        split(rows_of([{"text": "a"}] * 10), 0.1, seed=0)
    with pytest.raises(InvalidInput, match="row 1 has no column 'story'"):
        split(numbered(10), 0.1, seed=0, group="story")


def test_an_overlap_is_counted_and_shown():
    train, held = numbered(10), rows_of([{"text": "new"}, {"text": "text 3"}, {"text": "text 3"}])
    found = overlap(train, held)
    assert found.count == 2
    assert found.examples[0] == "row 2 = row 4: text 3"
    assert not overlap(train, rows_of([{"text": "new"}]))
