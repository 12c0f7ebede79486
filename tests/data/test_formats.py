"""Training data of every format: the same rows come out, each with its place."""

import gzip
import json

import pytest

from reading import kind_of, read, rows_of
from samples import CONLLU, GOOD, SPANS, SQUAD
from triarch.errors import CorruptFile, InvalidInput, Unsupported

CONLL = "-DOCSTART- -X- O\n\nAda NNP B-PER\nwrote VBD O\n\nit PRP O\n"


def values(rows, *names):
    return [tuple(row[name] for name in names) for row in rows]


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
        ("a.jsonl.gz", gzip.compress(b'{"text": "a b", "label": 1}\n{"text": "c", "label": 0}\n', mtime=0)),
        ("packed.jsonl", gzip.compress(b'{"text": "a b", "label": 1}\n{"text": "c", "label": 0}\n', mtime=0)),
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
