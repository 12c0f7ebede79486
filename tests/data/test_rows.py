"""Rows of files: what is read, and what is an error in its place."""

import io

import pytest

from triarch import limits
from triarch.data.inputs import rows_of
from triarch.errors import LimitExceeded, TriarchError

MARK = "\ufeff"  # what editors on Windows put before UTF-8


def rows(text, kind):
    return list(rows_of(io.BytesIO(text.encode()), "here", "text", kind))


@pytest.mark.parametrize(
    "text, kind",
    [("a", "lines"), ('{"text": "a"}', "jsonl"), ('[{"text": "a"}]', "json"), ("text\na", "csv"), ("a", "whole")],
)
def test_a_mark_before_the_text_is_no_part_of_it(text, kind):
    assert rows(MARK + text, kind) == rows(text, kind)


def test_a_cell_may_hold_a_long_text():
    text = "word " * 100_000
    assert rows(f'text\n"{text}"\n', "csv") == [{"text": text}]


def test_a_json_file_over_the_limit_is_said_to_be_so(monkeypatch):
    monkeypatch.setattr(limits, "LINE_BYTES", 10)
    with pytest.raises(LimitExceeded, match="is over 10 bytes"):
        rows('["a", "b", "c"]', "json")


def test_a_bad_line_is_an_error_in_its_place():
    first, second, third = rows('"a"\nnonsense\n"b"\n', "jsonl")
    assert (first, third) == ("a", "b")
    assert isinstance(second, TriarchError)
    assert "here line 2 is not JSON" in str(second)
