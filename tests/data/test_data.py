"""Training data that is bad or hostile: rows named by file and line, files refused."""

import contextlib
import gzip
import json
import os
import time

import numpy as np
import pytest

from reading import read, rows_of
from samples import CONLLU, GOOD, SPANS, SQUAD
from triarch import limits
from triarch.errors import CorruptFile, InvalidInput, LimitExceeded, NotFound, TriarchError, UnsafeFile

# Bad rows


@pytest.mark.parametrize("name", [1, None, ("a", "b")])
def test_columns_are_named_by_strings(name):
    with pytest.raises(InvalidInput, match=r"1 of 2 rows cannot be used: row 2 has a column .*; wanted names that are"):
        rows_of([{"text": "a", "label": "x"}, {name: "b", "label": "y"}])
    assert len(rows_of([{"text": "a", "label": "x"}, {name: "b"}], on_bad_row="skip")) == 1


@pytest.mark.parametrize(
    "row, message",
    [
        ({"text": "", "label": "x"}, "text is empty"),
        ({"text": " \n", "label": "x"}, "text is empty"),
        ({"text": None, "label": "x"}, "text is missing"),
        ({"label": "x"}, "text is missing"),
        ({"text": 5, "label": "x"}, "text is 5; wanted a string"),
        ({"text": "half \ud800", "label": "x"}, "text has half of a surrogate pair at 5"),
        ({"text": "a"}, "label is missing"),
        ({"text": "a", "label": None}, "label is missing"),
        ({"text": "a", "label": " "}, "label is missing"),
        ({"text": "a", "label": float("nan")}, "label is missing"),
        ({"text": "a", "label": 3}, "label is 3; wanted a name, as in other rows"),
        ({"text": "a", "label": ["x"]}, "label is \\['x'\\]; wanted a name"),
        ({"text": "a", "label": {}}, "label is {}; wanted a name"),
    ],
)
def test_bad_texts_and_labels_are_named_with_their_place(row, message):
    good = {"text": "fine", "label": "yes"}
    with pytest.raises(InvalidInput, match=f"1 of 4 rows cannot be used: row 3: {message}"):
        rows_of([good, good, row, good])


@pytest.mark.parametrize("label", [float("inf"), "much", None, True])
def test_amounts_are_finite_numbers(label):
    with pytest.raises(InvalidInput, match=r"row 2: label is (missing|.*wanted a finite number)"):
        rows_of([{"text": "a", "label": 0.5}, {"text": "b", "label": label}, {"text": "c", "label": 2}])


def test_a_missing_number_of_a_table_is_missing(file):
    with pytest.raises(InvalidInput, match=r"2 of 4 rows .*a.csv line 3: label is missing; .*a.csv line 4: label is"):
        read(file("a.csv", "text,label\nx,1\ny,nan\nz,\nw,2\n"))


@pytest.mark.parametrize(
    "row, message",
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "2 tokens have 1 tags"),
        ({"tokens": [], "tags": []}, "tokens are empty"),
        ({"tokens": ["a", ""], "tags": ["O", "O"]}, "tokens hold an empty one"),
        ({"tokens": "a b", "tags": ["O", "O"]}, "tokens is 'a b'; wanted a list"),
        ({"tokens": ["a"], "tags": [None]}, "tags hold missing"),
        ({"tokens": ["a"]}, "tags is missing"),
    ],
)
def test_tags_that_do_not_fit_their_tokens(row, message):
    with pytest.raises(InvalidInput, match=f"row 2: {message}"):
        rows_of([{"tokens": ["a"], "tags": ["O"]}, row])


@pytest.mark.parametrize(
    "answers, message",
    [
        ([{"text": "Ada", "start": 6}], "'Ada' starts at 6, where the context has ' Ad'"),
        ([{"text": "Ada", "start": -1}], "runs from -1 to 2, outside of the context of 11 characters"),
        ([{"text": "Ada", "start": 10**30}], "outside of the context"),
        ([{"text": "Ada. More", "start": 7}], "runs from 7 to 16, outside of the context of 11"),
        ([{"text": "", "start": 7}], "an answer is '' at 7"),
        ([{"text": "Ada", "start": 7.0}], "an answer is 'Ada' at 7.0"),
        ([{"text": "Ada"}], "an answer is 'Ada' at missing"),
        ({"text": ["Ada"], "answer_start": []}, "of one length"),
        (["Ada"], "answers are \\['Ada'\\]; wanted a list of"),
        (None, "answers are missing"),
    ],
)
def test_answers_outside_of_the_context_are_named(answers, message):
    row = {"question": "Who?", "context": "It was Ada.", "answers": answers}
    with pytest.raises(InvalidInput, match=f"row 2: .*{message}"):
        rows_of([SPANS[0], row])


def test_an_impossible_question_with_answers_is_a_bad_row(file):
    text = json.dumps(SQUAD).replace('"answers": []', '"answers": [{"text": "It", "answer_start": 0}]')
    with pytest.raises(InvalidInput, match=r"a.json row 2 is_impossible, and has answers"):
        read(file("a.json", text))


@pytest.mark.parametrize("labels", [["a", "a"], [1, 0, 1], [0.5], "a", [None]])
def test_labels_are_names_that_apply(labels):
    with pytest.raises(InvalidInput, match="row 2: labels"):
        rows_of([{"text": "x", "labels": ["a", "b"]}, {"text": "x", "labels": labels}, {"text": "x", "labels": []}])


def test_no_label_at_all_is_a_choice_of_labels():
    assert rows_of([{"text": "x", "labels": ["a"]}, {"text": "y", "labels": []}])[1]["labels"] == []


BAD_LINES = [
    (b'{"text": "a", "label": NaN}', "holds NaN, which is not JSON"),
    (b'{"text": "a", "text": "b", "label": 1}', "has the key 'text' twice"),
    (b'{"text": "\xff", "label": 1}', "is not UTF-8 at byte 10"),
    (b"nonsense", "is not JSON"),
    (b'{"text": "a"', "is not JSON"),
    (b"[1]", "is a list; wanted an object"),
    (b"[" * 100_000, "is nested too deep"),
    (b'{"text": "a", "label": ' + b"9" * 5000 + b"}", "is not JSON"),
]


@pytest.mark.parametrize("line, message", BAD_LINES)
def test_bad_lines_are_named_by_file_and_number(file, line, message):
    path = file("a.jsonl", GOOD.encode() + line + b"\n" + GOOD.encode())
    with pytest.raises(InvalidInput, match=f"1 of 3 rows cannot be used: .*a.jsonl line 2 {message}"):
        read(path)
    rows = read(path, on_bad_row="skip")
    assert (len(rows), rows.skipped_count) == (2, 1)
    assert "a.jsonl line 2" in rows.skipped[0]
    assert message in rows.skipped[0]


@pytest.mark.parametrize(
    "name, good, bad, message",
    [
        ("a.csv", "text,label\nx,1\n", "only one\n", "line 3 has 1 cells, wanted 2"),
        ("a.csv", "text,label\nx,1\n", '"a" b,1\n', "line 3 is no table row"),
        ("a.csv", "text,label\nx,1\n", b'"a\xff\nb",1\n', "line 3 is not UTF-8"),
        ("a.tsv", "text\tlabel\nx\t1\n", "a\tb\t1\n", "line 3 has 3 cells, wanted 2"),
        ("a.conll", "a\tO\n\n", "b O\tO\tO\n\n", "line 3 has 3 columns, wanted 2"),
        ("a.conll", "a\tO\n\n", b"\xff\tO\n\n", "line 3 is not UTF-8"),
        ("a.conllu", CONLLU + "\n", "1\ta\n\n", "line 10 is no line of CoNLL-U"),
        ("a.conllu", CONLLU + "\n", CONLLU.replace("INTJ", "_"), "line 17: the word has no upos"),
    ],
)
def test_bad_rows_of_tables_and_sentences(file, name, good, bad, message):
    path = file(
        name, good.encode() + (bad if isinstance(bad, bytes) else bad.encode()) + good.encode().split(b"\n")[-1]
    )
    with pytest.raises(InvalidInput, match=f"1 of .*{name} {message}"):
        read(path)
    assert read(path, on_bad_row="skip").skipped_count == 1


def test_all_is_read_before_it_is_refused_and_all_is_counted(file):
    first = file("a.jsonl", GOOD + "bad\n" * 4)
    second = file("b.jsonl", '{"text": "", "label": "x"}\n' * 4)
    with pytest.raises(InvalidInput) as refused:
        read([first, second])
    message = str(refused.value)
    assert "8 of 9 rows cannot be used" in message
    assert "a.jsonl line 2" in message
    assert "b.jsonl line 1: text is empty; and 3 more; mend them, or set on_bad_row to skip" in message
    assert "\n" not in message


def test_complaints_are_kept_in_bounds(monkeypatch):
    monkeypatch.setattr(limits, "COMPLAINTS", 3)
    rows = rows_of([{"text": ""}] * 10 + [{"text": "a"}], on_bad_row="skip")
    assert (len(rows.skipped), rows.skipped_count) == (3, 10)


def test_skipping_everything_is_an_error(file):
    with pytest.raises(InvalidInput, match="2 of 2 rows cannot be used"):
        read(file("a.jsonl", "bad\nbad\n"), on_bad_row="skip")
    with pytest.raises(InvalidInput, match="wanted refuse or skip"):
        rows_of([{"text": "a"}], on_bad_row="ignore")


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.tsv", "a.conll", "a.conllu", "a.json", "blank.data"])
@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_file_is_said_to_be_empty(file, name, content):
    with pytest.raises(InvalidInput, match=f"{name}.*(empty|holds no rows|cannot be told)"):
        read(file(name, content))


def test_a_table_of_nothing_but_a_header_has_no_rows(file):
    with pytest.raises(InvalidInput, match=r"a.csv holds no rows"):
        read(file("a.csv", "text,label\n"))


def test_a_long_line_is_read_and_one_over_the_bound_is_a_bad_row(file, monkeypatch):
    long = GOOD.replace("fine", "word " * 200_000)
    assert len(read(file("a.jsonl", GOOD + long))[1]["text"]) == 1_000_000
    monkeypatch.setattr(limits, "LINE_BYTES", 100_000)
    for name, content in (("b.jsonl", GOOD + long + GOOD), ("b.csv", f"text,label\nx,1\n{'w' * 200_000},1\nx,1\n")):
        with pytest.raises(InvalidInput, match=f"1 of 3 rows .*{name} line [23] is over 100,000 bytes"):
            read(file(name, content))


def test_files_read_at_once_have_a_bound(file, monkeypatch):
    monkeypatch.setattr(limits, "WHOLE_BYTES", 10)
    for name in ("a.txt", "a.json"):
        with pytest.raises(InvalidInput, match=f"{name} is over 10 bytes"):
            read(file(name, '["a", "b", "c"]'))


# Hostile files


@pytest.mark.parametrize(
    "name", ["a.py", "a.pkl", "a.pickle", "a.npy", "a.npz", "a.pt", "a.bin", "a.exe", "a.sh", "A.PY"]
)
@pytest.mark.parametrize("format", [None, "text", "jsonl"])
def test_programs_and_pickles_are_refused_by_name(file, name, format):
    with pytest.raises(UnsafeFile, match=r"save (its rows|it) as JSONL, CSV or Parquet"):
        read(file(name, GOOD), format=format)


@pytest.mark.parametrize(
    "head",
    [b"\x80\x04\x95", b"\x93NUMPY\x01\x00", b"\x7fELF\x02", b"MZ\x90\x00", gzip.compress(b"\x80\x04\x95", mtime=0)],
)
def test_programs_and_pickles_are_refused_under_any_name(file, head):
    for name in ("a.jsonl", "a.csv", "a.data"):
        with pytest.raises(UnsafeFile):
            read(file(name, head))


def test_a_script_without_suffix_is_refused(file):
    with pytest.raises(UnsafeFile, match="is a program, which is never run"):
        read(file("data", "#!/bin/sh\ntrue\n"))


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.7z"])
def test_archives_are_to_be_unpacked(file, name):
    with pytest.raises(InvalidInput, match="is an archive; unpack it"):
        read(file(name, "x"))


@pytest.mark.parametrize("content", [GOOD.encode("utf-16-le"), b"\x89PNG\r\n\x1a\n\0\0\0"])
def test_zero_bytes_are_no_text(file, content):
    with pytest.raises(InvalidInput, match="holds zero bytes, as binary files and UTF-16 do"):
        read(file("a.jsonl", content))


@pytest.mark.parametrize("content", ["hello\n", "just some words\nand other words here\n", "{}\x01"])
def test_a_format_that_cannot_be_told_is_asked_for(file, content):
    with pytest.raises(TriarchError, match=r"a.data"):
        read(file("a.data", content))
    with pytest.raises(InvalidInput, match="no data format 'jsnl' \\(did you mean jsonl"):
        read(file("a.data", content), format="jsnl")


def test_devices_pipes_and_absent_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    started = time.monotonic()
    for path in (tmp_path / "pipe.jsonl", "/dev/zero"):
        with pytest.raises(UnsafeFile, match="not a regular file"):
            read(path)
    assert time.monotonic() - started < 1
    with pytest.raises(NotFound, match="is not there"):
        read(tmp_path / "absent.jsonl")
    with pytest.raises(NotFound):
        read("a\0b.jsonl")
    with pytest.raises(InvalidInput, match="no data file is named"):
        read([])


def test_a_link_out_of_a_folder_is_refused(file, tmp_path):
    file("b/one.txt", "first")
    (tmp_path / "b" / "two.txt").symlink_to(file("secret.txt", "x"))
    with pytest.raises(UnsafeFile, match="leaves its folder"):
        read(tmp_path / "b")


def test_a_file_that_unpacks_to_too_much_is_refused(file, monkeypatch):
    bomb = file("a.jsonl.gz", gzip.compress(b"[" * 3_000_000))
    with pytest.raises(LimitExceeded, match="over 200 times its size"):
        read(bomb)
    honest = file("b.txt.gz", gzip.compress(bytes(range(32, 127)) * 100))
    monkeypatch.setattr(limits, "UNPACKED_BYTES", 1000)
    with pytest.raises(LimitExceeded, match="unpacks to over 1,000 bytes"):
        read(honest)


def test_damaged_gzip_is_named(file):
    packed = gzip.compress(GOOD.encode() * 1000)
    for damaged in (packed[:-10], packed[:20] + b"\xff" * 10 + packed[30:], b"no gzip"):
        with pytest.raises(CorruptFile, match=r"a.jsonl.gz is damaged"):
            read(file("a.jsonl.gz", damaged))


@pytest.mark.parametrize("whole", [{"data": 1}, {"train": [["a", "b"]]}, {}, 5, {"data": [{"paragraphs": [5]}]}])
def test_json_of_another_shape(file, whole):
    with pytest.raises(TriarchError, match=r"a.json"):
        read(file("a.json", json.dumps(whole)))


@pytest.mark.parametrize("name", ["jsonl", "json", "squad", "csv", "tsv", "conll", "conllu", "text", "lines"])
def test_random_bytes_end_in_typed_errors(file, name):
    rng = np.random.default_rng(0)
    pieces = [
        b'"',
        b"\n",
        b"\t",
        b",",
        b"{",
        b"[",
        b"}",
        b"]",
        b"1",
        b"\xff",
        b"\r",
        b" ",
        b"a",
        b":",
        b"text",
        b"O",
        b"-",
    ]
    for _ in range(100):
        content = b"".join(pieces[i] for i in rng.integers(len(pieces), size=200))
        with contextlib.suppress(TriarchError):
            read(file("a.data", content), format=name, on_bad_row="skip")
