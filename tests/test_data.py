"""Training data: files of every format into rows of one kind, bad rows named by file and line, splits and order."""

import contextlib
import gzip
import json
import os
import time

import numpy as np
import pytest

from triarch import limits
from triarch.errors import CorruptFile, InvalidInput, LimitExceeded, NotFound, TriarchError, UnsafeFile, Unsupported
from triarch.objectives import objective, objectives
from triarch.training.data.columns import KINDS, kind_of
from triarch.training.data.examples import Examples
from triarch.training.data.order import Order
from triarch.training.data.reading import read, rows_of
from triarch.training.data.rows import Rows
from triarch.training.data.split import overlap, split

GOOD = '{"text": "fine", "label": "yes"}\n'
CONLL = "-DOCSTART- -X- O\n\nAda NNP B-PER\nwrote VBD O\n\nit PRP O\n"
CONLLU = """# text = don't go
1-2\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tdo\tdo\tAUX\tVB\t_\t0\troot\t_\t_
2\tn't\tnot\tPART\tRB\t_\t1\tadvmod\t_\t_
2.1\tyou\tyou\tPRON\tPRP\t_\t_\t_\t_\t_
3\tgo\tgo\tVERB\tVB\t_\t1\tdep\t_\t_

1\tYes\tyes\tINTJ\tUH\t_\t0\troot\t_\t_
"""
SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "Ada",
            "paragraphs": [
                {
                    "context": "It was Ada who wrote it.",
                    "qas": [
                        {"id": "1", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 7}]},
                        {"id": "2", "question": "When?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ],
}
SPANS = [
    {"id": "1", "question": "Who?", "context": "It was Ada who wrote it.", "answers": [{"text": "Ada", "start": 7}]},
    {"id": "2", "question": "When?", "context": "It was Ada who wrote it.", "answers": []},
]


@pytest.fixture
def file(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def values(rows, *names):
    return [tuple(row[name] for name in names) for row in rows]


# Formats


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.jsonl", '{"text": "a b", "label": 1}\n\n{"text": "c", "label": 0}\n'),
        ("a.json", '[{"text": "a b", "label": 1}, {"text": "c", "label": 0}]'),
        ("lines.json", '{"text": "a b", "label": 1}\n{"text": "c", "label": 0}\n'),
        ("nested.json", '{"data": [{"text": "a b", "label": 1}, {"text": "c", "label": 0}]}'),
        ("a.csv", 'text,label\n"a b",1\nc,0\n'),
        ("windows.csv", "\ufefftext,label\r\na b,1\r\nc,0\r\n"),
        ("a.tsv", "text\tlabel\na b\t1\nc\t0\n"),
        ("unknown.data", '{"text": "a b", "label": 1}\n{"text": "c", "label": 0}\n'),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a b", "label": 1}\n{"text": "c", "label": 0}\n')),
        ("packed.jsonl", gzip.compress(b'{"text": "a b", "label": 1}\n{"text": "c", "label": 0}\n')),
    ],
)
def test_the_same_rows_come_out_of_every_format(file, name, content):
    rows = read(file(name, content))
    assert values(rows, "text", "label") == [("a b", 1), ("c", 0)]
    assert kind_of(rows) == "classification"


def test_places_name_file_and_line_or_row(file):
    lines = read(file("a.jsonl", GOOD + "\n" + GOOD.replace("fine", "too")))
    assert lines.place(1).endswith("a.jsonl line 3")
    assert read(file("b.json", f"[{GOOD}, {GOOD}]")).place(1).endswith("b.json row 2")
    assert read(file("c.csv", 'text,label\n"two\nlines",1\nnext,0\n')).place(1).endswith("c.csv line 4")
    assert read(file("d.txt", "whole")).place(0).endswith("d.txt")
    assert rows_of([{"text": "a"}, {"text": "b"}]).place(1) == "row 2"


def test_a_text_file_is_one_document_and_a_folder_holds_many(file, tmp_path):
    for name, text in (("b/two.md", "\ufeffsecond\r\nline"), ("b/one.txt", "first"), ("b/.hidden", "never")):
        file(name, text)
    rows = read(tmp_path / "b")
    assert list(rows) == [{"text": "first"}, {"text": "second\nline"}]
    assert kind_of(rows) == "documents"


def test_a_folder_with_anything_but_data_of_one_format_is_refused(file, tmp_path):
    file("b/one.txt", "first")
    picture = file("b/picture.png", "x")
    with pytest.raises(InvalidInput, match=r"not known as data \(picture.png\); name the data files"):
        read(tmp_path / "b")
    picture.unlink()
    file("b/two.jsonl", GOOD)
    with pytest.raises(InvalidInput, match="several formats \\(jsonl, text\\)"):
        read(tmp_path / "b")


def test_a_link_out_of_a_folder_is_refused(file, tmp_path):
    file("b/one.txt", "first")
    (tmp_path / "b" / "two.txt").symlink_to(file("secret.txt", "x"))
    with pytest.raises(UnsafeFile, match="leaves its folder"):
        read(tmp_path / "b")


def test_lines_are_documents_where_the_format_says_so(file):
    assert [row["text"] for row in read(file("a.txt", "one\n\ntwo\n"), format="lines")] == ["one", "two"]


def test_a_table_without_header_is_read_by_numbers(file):
    path = file("train.tsv", 'a "stirring" film\t1\n"one long\t0\n')
    rows = read(path, columns={"text": 1, "label": "2"})
    assert values(rows, "text", "label") == [('a "stirring" film', 1), ('"one long', 0)]
    assert str(rows.reading) == "classification (text = 1, label = 2)"


def test_numbers_do_not_make_a_header_a_row(file):
    with pytest.raises(InvalidInput, match="line 1 is a header \\(sentence, label\\)"):
        read(file("a.tsv", "sentence\tlabel\nfine\t1\n"), columns={"text": 1, "label": 2})
    rows = read(file("b.csv", "1,2\nfine,x\n"), columns={"text": 1, "label": 2})
    assert values(rows, "text", "label") == [("fine", "x")]


def test_cells_of_tab_separated_tables_are_unquoted_only_as_a_whole(file):
    rows = read(file("a.tsv", 'text\tlabel\n"say ""hi"""\t"x"\n"half\t"b" c\n'))
    assert values(rows, "text", "label") == [('say "hi"', "x"), ('"half', '"b" c')]


def test_a_quote_that_nothing_closes_does_not_swallow_the_rest(file):
    with pytest.raises(CorruptFile, match=r"a.csv line 3 opens a quote that nothing closes"):
        read(file("a.csv", 'text,label\nfine,1\n"open,1\nrest,0\n'), on_bad_row="skip")


def test_conll_ends_sentences_at_blank_lines_and_lines_of_white_space(file):
    rows = read(file("a.conll", CONLL.replace("\n\nit", "\n\t\nit")))
    assert list(rows) == [
        {"tokens": ["Ada", "wrote"], "tags": ["B-PER", "O"]},
        {"tokens": ["it"], "tags": ["O"]},
    ]
    assert rows.place(1).endswith("a.conll line 6")
    assert kind_of(rows) == "tagging"


def test_conll_columns_are_chosen_by_number(file):
    assert read(file("a.conll", CONLL), columns={"tags": 2})[0]["tags"] == ["NNP", "VBD"]
    with pytest.raises(InvalidInput, match="numbers from 1; tags was asked for as 'pos'"):
        read(file("a.conll", CONLL), columns={"tags": "pos"})


def test_conll_is_known_by_a_look_inside(file):
    assert len(read(file("emerging.annotated", "a\tO\nb\tB-x\n\nc\tO\n"))) == 2


def test_conll_keeps_words_that_are_spaces_elsewhere(file):
    assert read(file("a.conll", "a\u00a0b\tO\n\u3000\tO\n"))[0]["tokens"] == ["a\u00a0b", "\u3000"]


def test_conllu_passes_over_multiword_tokens_and_empty_nodes(file):
    rows = read(file("a.conllu", CONLLU))
    assert rows[0] == {"tokens": ["do", "n't", "go"], "tags": ["AUX", "PART", "VERB"]}
    assert len(rows) == 2
    assert read(file("a.conllu", CONLLU), columns={"tags": "xpos"})[0]["tags"] == ["VB", "RB", "VB"]
    assert str(rows.reading) == "tagging (tokens = form, tags = upos)"


def test_conllu_columns_are_asked_for_by_their_names(file):
    with pytest.raises(InvalidInput, match="no column 'upo' \\(did you mean upos"):
        read(file("a.conllu", CONLLU), columns={"tags": "upo"})


@pytest.mark.parametrize("version", ["v1.1", "v2.0"])
def test_squad_becomes_spans(file, version):
    rows = read(file("a.json", json.dumps(SQUAD | {"version": version})), columns={"group": "title"})
    assert list(rows) == [row | {"group": "Ada"} for row in SPANS]
    assert list(read(file("b.json.gz", gzip.compress(json.dumps(SQUAD).encode())), format="squad")) == SPANS


def test_answers_of_data_sets_and_of_squad_become_the_same():
    lists = {"question": "Who?", "context": "It was Ada.", "answers": {"text": ["Ada"], "answer_start": [7]}}
    objects = lists | {"answers": [{"text": "Ada", "answer_start": 7}]}
    assert list(rows_of([lists])) == list(rows_of([objects]))


def test_parquet_without_its_reader_says_what_to_install(file):
    with pytest.raises(Unsupported, match=r"pip install triarch\[parquet\]"):
        read(file("a.parquet", b"PAR1"))


def test_several_files_are_one_set(file):
    rows = read([file("a.jsonl", GOOD), file("b.csv", "label,text\nno,other\n")])
    assert values(rows, "text", "label") == [("fine", "yes"), ("other", "no")]
    assert rows.place(1).endswith("b.csv line 2")


# Kinds and columns


@pytest.mark.parametrize(
    "row, kind, columns",
    [
        ({"review": "a", "stars": 3}, "classification", {"text": "review", "label": "stars"}),
        ({"Sentence": "a", "Label": "x"}, "classification", {"text": "Sentence", "label": "Label"}),
        ({"utterance": "a", "intent": "x"}, "classification", {"text": "utterance", "label": "intent"}),
        ({"text": "a", "label": True}, "classification", {"text": "text", "label": "label"}),
        (
            {"premise": "a", "hypothesis": "b", "label": 0, "idx": 1},
            "classification",
            {"text": "premise", "text_pair": "hypothesis", "label": "label"},
        ),
        (
            {"question": "a", "sentence": "b", "label": 0},
            "classification",
            {"text": "question", "text_pair": "sentence", "label": "label"},
        ),
        (
            {"sentence1": "a", "sentence2": "b", "score": 3.8},
            "regression",
            {"text": "sentence1", "text_pair": "sentence2", "label": "score"},
        ),
        ({"text": "a", "labels": ["x", "y"]}, "multi-label", {"text": "text", "labels": "labels"}),
        ({"tokens": ["a"], "ner_tags": ["O"]}, "tagging", {"tokens": "tokens", "tags": "ner_tags"}),
        ({"words": ["a"], "upos": ["X"]}, "tagging", {"tokens": "words", "tags": "upos"}),
        (SPANS[0], "span", {"question": "question", "context": "context", "answers": "answers", "id": "id"}),
        ({"anchor": "a", "positive": "b"}, "contrastive", {"anchor": "anchor", "positive": "positive"}),
        ({"query": "a", "passage": "b"}, "contrastive", {"anchor": "query", "positive": "passage"}),
        (
            {"query": "a", "passage": "b", "label": 1},
            "classification",
            {"text": "query", "text_pair": "passage", "label": "label"},
        ),
        ({"content": "a", "url": "b"}, "documents", {"text": "content"}),
    ],
)
def test_kind_and_columns_are_told_by_usual_names_and_values(row, kind, columns):
    reading = rows_of([row]).reading
    assert (reading.kind, reading.columns) == (kind, columns)
    assert set(reading.unused) == set(row) - set(columns.values())


@pytest.mark.parametrize(
    "cells, kind, labels",
    [
        (["1", "0"], "classification", [1, 0]),
        (["good", "1"], "classification", ["good", "1"]),
        (["007", "008"], "classification", ["007", "008"]),
        (["True", "False"], "classification", ["True", "False"]),
        (["1", "2.5"], "regression", [1.0, 2.5]),
        (["-3", "1e2", "0.5"], "regression", [-3.0, 100.0, 0.5]),
        (["nan", "eng"], "classification", ["nan", "eng"]),
    ],
)
def test_cells_of_a_table_are_numbers_where_all_of_them_are(file, cells, kind, labels):
    rows = read(file("a.csv", "text,label\n" + "".join(f"x,{cell}\n" for cell in cells)))
    assert (kind_of(rows), rows.column("label")) == (kind, labels)
    assert [type(label) for label in rows.column("label")] == [type(label) for label in labels]


def test_strings_that_have_types_stay_strings():
    assert rows_of([{"text": "a", "label": "1"}])[0]["label"] == "1"


def test_truth_values_are_classes_by_name():
    assert rows_of([{"text": "a", "label": True}, {"text": "b", "label": False}]).column("label") == ["true", "false"]


@pytest.mark.parametrize("kind, label", [("classification", 1), ("regression", 1.0)])
def test_whole_numbers_written_as_fractions_are_not_guessed_at(kind, label):
    rows = [{"text": "a", "label": 1.0}, {"text": "b", "label": 0.0}]
    with pytest.raises(InvalidInput, match="say which as the objective: classification or regression"):
        rows_of(rows)
    found = rows_of(rows, kind=kind)[0]["label"]
    assert (found, type(found)) == (label, type(label))


@pytest.mark.parametrize(
    "row, message",
    [
        (
            {"tokens": ["a"], "ner_tags": ["O"], "pos_tags": ["X"]},
            "any of ner_tags, pos_tags; say which: --column tags=",
        ),
        ({"review": "a", "content": "b", "label": 1}, "the text of classification may be any of review, content"),
        ({"text": "a", "stars": 1, "intent": "b"}, "the label of classification may be any of stars, intent"),
        ({"foo": "a", "bar": "b"}, "the columns \\(foo, bar\\) fit no kind of rows; .*--column text=foo"),
    ],
)
def test_columns_that_may_be_several_are_asked_about(row, message):
    with pytest.raises(InvalidInput, match=message):
        rows_of([row])


def test_columns_that_were_named_are_taken():
    row = {"text": "a", "body": "b", "stars": 1, "intent": "x"}
    rows = rows_of([row], columns={"text": "body", "label": "intent"})
    assert list(rows) == [{"text": "b", "label": "x"}]
    assert str(rows.reading) == "classification (text = body, label = intent; not read: text, stars)"


def test_an_unknown_column_comes_with_the_nearest_name():
    with pytest.raises(InvalidInput, match="no column 'reveiw' \\(did you mean review\\?\\); found review, label"):
        rows_of([{"review": "a", "label": 1}], columns={"text": "reveiw"})
    with pytest.raises(InvalidInput, match="a column 'txt' \\(did you mean text"):
        rows_of([{"review": "a", "label": 1}], columns={"txt": "review"})


def test_a_kind_that_is_given_is_asked_of_the_columns():
    assert list(rows_of([{"text": "a", "label": 1}], kind="documents")) == [{"text": "a"}]
    with pytest.raises(InvalidInput, match="no column is known as the label of classification among text, foo"):
        rows_of([{"text": "a", "foo": 1}], kind="classification")
    with pytest.raises(InvalidInput, match="no kind 'taging' \\(did you mean tagging"):
        rows_of([{"text": "a"}], kind="taging")


def test_kinds_are_what_objectives_read():
    assert set(KINDS) == {name for name in objectives() if objective(name).FIELDS} | {"documents"}
    assert KINDS["span"] == ("question", "context", "answers", "id?")
    assert "distillation" not in KINDS


# Labels


@pytest.mark.parametrize("name, comma", [("a.csv", ","), ("a.tsv", "\t")])
def test_white_space_around_the_labels_of_a_table_is_taken_off(file, name, comma):
    rows = read(file(name, f"text{comma}label\n a {comma} pos\nb{comma}pos \nc{comma}neg\n"))
    assert rows.column("label") == ["pos", "pos", "neg"]
    assert rows[0]["text"] == " a "


def test_numbers_with_white_space_around_them_are_numbers(file):
    assert read(file("a.csv", "text,label\na, 1\nb,0\n")).column("label") == [1, 0]


def test_strings_that_have_types_keep_their_white_space(file):
    assert read(file("a.jsonl", '{"text": "a", "label": " pos"}\n')).column("label") == [" pos"]


@pytest.mark.parametrize(
    "labels", [[[0, 1], [1, 0]], [[1, 0, 1], [0, 0, 0]], [[0.0, 1.0], [1.0, 1.0]], [[True, False], [False, False]]]
)
@pytest.mark.parametrize("kind", [None, "multi-label"])
def test_a_number_for_each_class_is_not_taken_for_names(labels, kind):
    with pytest.raises(InvalidInput, match=r"column 'labels' holds lists of 0 and 1, one number a class; wanted names"):
        rows_of([{"text": "a", "labels": row} for row in labels], kind=kind)


@pytest.mark.parametrize("labels", [[[0], [1]], [[0, 1], [1]], [[0, 2], [1, 0]]])
def test_lists_of_classes_by_number_are_taken(labels):
    rows = rows_of([{"text": "a", "labels": row} for row in labels])
    assert rows.column("labels") == [[str(label) for label in row] for row in labels]


@pytest.mark.parametrize("column, label", [("labels", lambda i: [f"l{i}"]), ("label", lambda i: i), ("id", None)])
def test_labels_that_hardly_recur_are_doubted(column, label):
    made = [{"text": f"a {i}", column: label(i) if label else i} for i in range(21)]
    rows = rows_of(made, columns=None if label else {"label": "id"})
    assert rows.warnings == [
        f"of 21 labels in column {column} 21 occur only once; if they are amounts, set the objective to regression, if "
        f"they are no labels, name another column: --column {'labels' if column == 'labels' else 'label'}=NAME"
    ]
    assert rows_of(made[:20], columns=None if label else {"label": "id"}).warnings == []
    twice = made + [row | {"text": f"{row['text']} again"} for row in made[:11]]
    assert rows_of(twice, columns=None if label else {"label": "id"}).warnings == []


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
    "head", [b"\x80\x04\x95", b"\x93NUMPY\x01\x00", b"\x7fELF\x02", b"MZ\x90\x00", gzip.compress(b"\x80\x04\x95")]
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


def test_questions_of_one_context_stay_together():
    rows = [{"question": f"{i}?", "context": f"context {i // 5}", "answers": []} for i in range(50)]
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


# Order

LENGTHS = np.random.default_rng(0).integers(1, 60, size=500)
ORDERS = [
    {"batch_size": 8},
    {"batch_size": 7, "bucket": 100},
    {"batch_tokens": 256},
    {"batch_tokens": 64, "bucket": 50},
    {"batch_size": 1000},
]


@pytest.mark.parametrize("how", ORDERS)
def test_every_index_comes_once_an_epoch(how):
    order = Order(LENGTHS, seed=3, **how)
    step = 0
    for epoch in range(3):
        assert order.first_step(epoch) == step
        seen = []
        for _ in range(order.steps_per_epoch(epoch)):
            at, indices = order.at(step)
            assert at == epoch
            assert len(indices)
            seen += indices.tolist()
            step += 1
        assert sorted(seen) == list(range(500))


@pytest.mark.parametrize("how", ORDERS)
def test_any_step_can_be_asked_for_at_once(how):
    steps = range(0, 300, 7)
    straight = [Order(LENGTHS, seed=3, **how)] * len(steps)
    resumed = [Order(LENGTHS, seed=3, **how) for _ in steps]
    for one, other, step in zip(straight, resumed, steps, strict=True):
        assert one.at(step)[0] == other.at(step)[0]
        assert one.at(step)[1].tolist() == other.at(step)[1].tolist()


def test_epochs_and_seeds_have_orders_of_their_own():
    order, other = Order(LENGTHS, batch_size=500, seed=3), Order(LENGTHS, batch_size=500, seed=4)
    orders = [order.at(0)[1], order.at(1)[1], other.at(0)[1]]
    assert len({indices.tobytes() for indices in orders}) == 3


def test_batches_by_tokens_stay_within_them_and_hardly_pad():
    order = Order(LENGTHS, batch_tokens=256, seed=0)
    batches = [LENGTHS[order.at(step)[1]] for step in range(order.steps_per_epoch())]
    padded = [len(lengths) * max(lengths) for lengths in batches]
    assert max(padded) <= 256
    assert sum(padded) < 1.1 * LENGTHS.sum()


def test_buckets_pad_less_and_are_shuffled():
    def padded(order):
        return sum(len(b) * LENGTHS[b].max() for b in (order.at(i)[1] for i in range(order.steps_per_epoch())))

    plain, sorted_ = Order(LENGTHS, batch_size=8), Order(LENGTHS, batch_size=8, bucket=128)
    assert padded(sorted_) < 1.15 * LENGTHS.sum() < padded(plain)
    longest = [LENGTHS[sorted_.at(i)[1]].max() for i in range(16)]
    assert longest != sorted(longest)


def test_the_last_smaller_batch_is_kept():
    order = Order(range(1, 11), batch_size=4)
    assert sorted(len(order.at(step)[1]) for step in range(3)) == [2, 4, 4]


@pytest.mark.parametrize("least", [2, 3])
@pytest.mark.parametrize("count", [3, 4, 5, 9, 10, 33])
@pytest.mark.parametrize("how", [{"batch_size": 3}, {"batch_size": 4, "bucket": 6}, {"batch_tokens": 300}])
def test_no_batch_has_fewer_rows_than_are_told_apart(how, count, least):
    order = Order(LENGTHS[:count], seed=1, least=least, **how)
    for epoch in range(8):
        first = order.first_step(epoch)
        batches = [order.at(first + step)[1] for step in range(order.steps_per_epoch(epoch))]
        assert order.at(first + len(batches))[0] == epoch + 1
        assert sorted(np.concatenate(batches)) == list(range(count))
        assert min(map(len, batches)) >= least
        assert max(map(len, batches)) < how.get("batch_size", count) + least
        if "batch_tokens" in how:
            assert max(len(batch) * LENGTHS[batch].max() for batch in batches) <= 300


def test_a_last_single_row_joins_the_batch_before_it():
    order = Order([5] * 33, batch_size=32, least=2)
    assert (order.steps_per_epoch(), len(order.at(0)[1])) == (1, 33)
    assert Order([5] * 33, batch_size=32).steps_per_epoch() == 2


@pytest.mark.parametrize(
    "how, message",
    [
        (
            {"batch_size": 1, "least": 2},
            "batch_size is 1, and what is learned here is to tell the rows of a batch apart",
        ),
        ({"batch_tokens": 100, "least": 2}, r"has 59 tokens, times 3, over batch_tokens=100; raise it"),
        ({"batch_size": 999, "least": 501}, "there is 500 example, and what is learned here is to tell 501 or more"),
        ({}, "give batch_size or batch_tokens"),
        ({"batch_size": 1, "batch_tokens": 1}, "give batch_size or batch_tokens"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": True}, "batch_size is True"),
        ({"batch_size": 2.0}, "batch_size is 2.0"),
        ({"batch_tokens": 10}, "has 59 tokens, over batch_tokens=10; raise it"),
        ({"batch_size": 4, "bucket": 0}, "bucket is 0"),
        ({"batch_size": 4, "seed": -1}, "the seed is -1"),
    ],
)
def test_sizes_that_no_batch_can_have(how, message):
    with pytest.raises(InvalidInput, match=message):
        Order(LENGTHS, **how)


def test_no_examples_have_no_order():
    with pytest.raises(InvalidInput, match="no examples"):
        Order([], batch_size=1)
    with pytest.raises(InvalidInput, match="no step -1"):
        Order([1], batch_size=1).at(-1)
    with pytest.raises(InvalidInput, match="no examples"):
        Examples([])
