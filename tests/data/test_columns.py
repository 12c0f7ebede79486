"""Columns of training data: what kind of rows they make, which is which, and what labels are."""

import pytest

from reading import kind_of, read, rows_of
from samples import SPANS
from triarch.errors import InvalidInput
from triarch.objectives import kinds, objective, objectives

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
        ({"source": "a", "target": "b"}, "seq2seq", {"source": "source", "target": "target"}),
        ({"Input": "a", "Output": "b"}, "seq2seq", {"source": "Input", "target": "Output"}),
        ({"src": "a", "tgt": "b"}, "seq2seq", {"source": "src", "target": "tgt"}),
        ({"document": "a", "summary": "b", "id": 1}, "seq2seq", {"source": "document", "target": "summary"}),
        ({"article": "a", "highlights": "b"}, "seq2seq", {"source": "article", "target": "highlights"}),
        ({"text": "a", "summary": "b"}, "seq2seq", {"source": "text", "target": "summary"}),
        ({"text": "a", "target": "b", "source": "c"}, "classification", {"text": "text", "label": "target"}),
        ({"text": "a", "target": 1, "input": "c"}, "classification", {"text": "text", "label": "target"}),
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
        (
            {"article": "a", "highlights": "b", "summary": "c"},
            "may be article to summary or article to highlights; say which: --column source=article",
        ),
        ({"foo": "a", "bar": "b"}, "the columns \\(foo, bar\\) fit no kind of rows; .*--column text=foo"),
    ],
)
def test_columns_that_may_be_several_are_asked_about(row, message):
    with pytest.raises(InvalidInput, match=message):
        rows_of([row])


def test_two_languages_of_a_translation_are_read_in_their_order_or_as_named():
    row = {"id": "1", "translation": {"en": "Hello", "fr": "Bonjour"}}
    rows = rows_of([row])
    assert list(rows) == [{"source": "Hello", "target": "Bonjour"}]
    assert str(rows.reading) == "seq2seq (source = translation.en, target = translation.fr; not read: id)"
    other = rows_of([row], columns={"source": "translation.fr", "target": "translation.en"})
    assert list(other) == [{"source": "Bonjour", "target": "Hello"}]
    three = {"translation": {"en": "a", "fr": "b", "de": "c"}}
    with pytest.raises(InvalidInput, match=r"fit no kind of rows; .*translation\.en"):
        rows_of([three])
    assert rows_of([three], columns={"source": "translation.de", "target": "translation.en"}).reading.kind == "seq2seq"
    with pytest.raises(InvalidInput, match=r"row 2: target \(column translation\.fr\) is missing"):
        rows_of([row, {"translation": {"en": "Hello"}}])
    with pytest.raises(InvalidInput, match=r"row 2: source \(column translation\.en\) is missing"):
        rows_of([row, {"translation": None}])


def test_a_table_without_a_header_has_its_source_and_target_by_number(file):
    rows = read(file("a.tsv", "Hello\tBonjour\tx\nYes\tOui\ty\n"), columns={"source": 1, "target": 2})
    assert list(rows) == [{"source": "Hello", "target": "Bonjour"}, {"source": "Yes", "target": "Oui"}]
    assert rows.reading.kind == "seq2seq"


def test_one_half_of_a_pair_may_be_named():
    assert list(rows_of([{"text": "a", "title": "b"}], columns={"target": "title"})) == [{"source": "a", "target": "b"}]
    with pytest.raises(InvalidInput, match="known as the target of seq2seq among text, title"):
        rows_of([{"text": "a", "title": "b"}], kind="seq2seq")


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
    declared = {kind.name: kind.columns for kind in kinds()}
    assert set(declared) == {name for name in objectives() if objective(name).FIELDS} | {"documents"}
    assert [*declared["span"]] == ["question", "context", "answers", "id"]
    assert declared["span"]["id"].optional
    assert "distillation" not in declared


def test_each_objective_of_rows_has_its_own_rank():
    ranks = [objective(name).RANK for name in objectives() if objective(name).FIELDS]
    assert len(set(ranks)) == len(ranks)


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
