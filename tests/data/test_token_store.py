"""Running text on disk: sentences, stores that are whole or absent, damage that is found, and passages of them."""

import gzip
import itertools
import json
import os
import string
import subprocess
import sys
import time

import numpy as np
import pytest

import tiny
from reading import read, rows_of
from triarch import limits
from triarch.data import store as store_module
from triarch.data.passages import Passages
from triarch.data.sentences import paragraphs
from triarch.data.store import STARTS, TokenStore
from triarch.errors import CorruptFile, InvalidInput, LimitExceeded, NotFound, TriarchError, UnsafeFile
from triarch.inputs.text.sentences import sentence_ends
from triarch.objectives import objective

TEXTS = [" ".join(tiny.SENTENCES[:4]), "\n\n".join(tiny.SENTENCES[4:9]), " ".join(tiny.SENTENCES[9:])]


class Whole:
    """An objective that gives back what it is to compose."""

    def __init__(self, processor, room=20, pair=False):
        self.processor, self.room, self.PAIR = processor, room, pair

    def sizes(self, tokens):
        return tokens + self.processor.tokenizer.num_special_tokens_to_add(self.PAIR)

    def compose(self, passages, other, rng):
        return passages, other() if self.PAIR else None


@pytest.fixture(params=["bert-words", "roberta-words", "xlm-roberta-words"])
def processor(request):
    return tiny.load(request.param).processor


@pytest.fixture
def bert():
    return tiny.load("bert-words").processor


@pytest.fixture
def built(bert, tmp_path):
    return TokenStore.build(rows_of(TEXTS), bert, tmp_path / "store")


def ids_of(store, document):
    begin, end = store.sentences[store.documents[document : document + 2]]
    return (store.tokens[begin:end] & ~STARTS).tolist()


# Sentences


def split(text):
    ends = [0, *sentence_ends(text), len(text)]
    return [text[a:b].strip() for a, b in itertools.pairwise(ends)]


@pytest.mark.parametrize(
    "sentences",
    [
        ["It ends.", "Another begins!", "Does it?", "Yes…", "It does."],
        ['"Stop!" he said.', '"Why?"', "(Nobody knew.)", "[So it went.]"],
        ["Mr. Darcy met Mrs. Bennet and Dr. J. K. Watson.", "So did I.", "He left."],
        ["Prices rose 12.5% at www.example.com, e.g. here.", "In 1999 they fell.", "20 of them did."],
        ["これは本です。", "「そうですか？」", "はい！"],
        ["No stop at all, and no capital", ],
        ["यह एक किताब है।", "हाँ।"],
        ["Really?!", "Yes..."],
    ],
)  # fmt: skip
def test_sentences_end_where_one_would_say_so(sentences):
    joiner = "" if sentences[0].endswith("。") else " "
    assert split(joiner.join(sentences)) == sentences


def test_paragraphs_end_at_blank_lines():
    assert list(paragraphs(["a b", "c", "", " \t", "d", ""])) == ["a b c", "d"]


@pytest.mark.parametrize("text", ["word " * 100, "x" * 500, "A sentence here. " * 30])
def test_long_paragraphs_are_cut_and_keep_every_character(monkeypatch, text):
    monkeypatch.setattr(limits, "BLOCK_CHARACTERS", 50)
    blocks = list(paragraphs([text]))
    assert "".join(blocks) == text
    assert max(map(len, blocks)) <= 50
    lines = list(paragraphs(text.split(" ")))
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    if "." in text:
        assert all(block.rstrip().endswith(".") for block in blocks if block.strip())


@pytest.mark.parametrize(
    "piece", [". ", ".", '."', ". (", '"', ".\u201d ", "! A", "\u3002", ".  ", "a. A ", "." + ")" * 100]
)
def test_splitting_takes_no_longer_than_reading(piece):
    started = time.process_time()
    sentence_ends((piece * 100_000)[:100_000])
    sentence_ends("." + piece[-1] * 100_000)
    assert time.process_time() - started < 1


# Building


def test_a_store_holds_every_token_of_every_document(processor, tmp_path):
    store = TokenStore.build(rows_of(TEXTS), processor, tmp_path / "store")
    assert (store.header["documents"], store.header["tokens"]) == (3, len(store.tokens))
    for i, text in enumerate(TEXTS):
        pieces = [processor.encode(part, special_tokens=False).ids for part in text.split("\n\n")]
        assert ids_of(store, i) == [id_ for piece in pieces for id_ in piece]


def test_sentences_are_those_of_the_text(processor, tmp_path):
    store = TokenStore.build(rows_of(TEXTS), processor, tmp_path / "store")
    assert np.diff(store.documents).tolist() == [4, 5 + 1 + 2, 3 + 1]  # some lines have two sentences, or three
    first = (store.tokens[: store.sentences[1]] & ~STARTS).tolist()
    assert first == processor.encode(tiny.SENTENCES[0], special_tokens=False).ids


def test_words_are_marked_where_they_begin(bert, tmp_path):
    store = TokenStore.build(rows_of(["Wolfgang walks"]), bert, tmp_path / "store")
    encoding = bert.encode("Wolfgang walks", special_tokens=False)
    words = encoding.word_ids
    expected = [i == 0 or words[i] != words[i - 1] for i in range(len(words))]
    assert ((store.tokens & STARTS) > 0).tolist() == expected
    assert 1 < sum(expected) <= len(expected)


def test_text_that_spells_a_special_token_is_text(bert, tmp_path):
    store = TokenStore.build(rows_of(["a [MASK] b [SEP]"]), bert, tmp_path / "store")
    assert not {bert.id("mask_token"), bert.id("sep_token")} & set(ids_of(store, 0))


def test_files_and_rows_come_to_the_same(bert, tmp_path):
    stores = [TokenStore.build(rows_of(TEXTS), bert, tmp_path / "rows")]
    (tmp_path / "texts").mkdir()
    for i, text in enumerate(TEXTS):
        (tmp_path / "texts" / f"{i}.txt").write_text(text)
    lines = "".join(json.dumps({"body": text, "url": "x"}) + "\n" for text in TEXTS)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    stores.append(TokenStore.build(tmp_path / "texts", bert, tmp_path / "from texts"))
    stores.append(TokenStore.build([tmp_path / "a.jsonl.gz"], bert, tmp_path / "from lines"))
    stores.append(TokenStore.build([{"text": text} for text in TEXTS], bert, tmp_path / "dicts"))
    for name in ("tokens", "sentences", "documents"):
        assert len({getattr(store, name).tobytes() for store in stores}) == 1, name


def test_a_store_of_the_same_is_not_built_again(bert, tmp_path):
    text = tmp_path / "a.txt"
    text.write_text(TEXTS[0])
    made = TokenStore.build(text, bert, tmp_path / "store")
    inode = os.stat(tmp_path / "store" / "tokens.bin").st_ino
    assert TokenStore.build(text, bert, tmp_path / "store").fingerprint == made.fingerprint
    assert os.stat(tmp_path / "store" / "tokens.bin").st_ino == inode


def test_another_text_or_tokenizer_is_built_anew(bert, tmp_path):
    text = tmp_path / "a.txt"
    text.write_text(TEXTS[0])
    stores = [TokenStore.build(text, bert, tmp_path / "store")]
    text.write_text(TEXTS[1])
    stores.append(TokenStore.build(text, bert, tmp_path / "store"))
    stores.append(TokenStore.build(text, tiny.load("roberta-words").processor, tmp_path / "store"))
    assert len({store.fingerprint for store in stores}) == 3
    assert TokenStore.open(tmp_path / "store").fingerprint == stores[-1].fingerprint
    assert len(ids_of(stores[0], 0)) > 0  # which was open while its files were replaced


def test_a_damaged_store_is_built_anew(bert, built, tmp_path):
    path = tmp_path / "store" / "tokens.bin"
    path.write_bytes(b"\0" * path.stat().st_size)
    again = TokenStore.build(rows_of(TEXTS), bert, tmp_path / "store")
    assert again.header["files"] == built.header["files"]
    TokenStore.open(tmp_path / "store")


def test_a_failure_leaves_nothing_and_the_old_store_stays(bert, built, tmp_path):
    def documents():
        yield from (tmp_path / "good.txt", tmp_path / "absent.txt")

    (tmp_path / "good.txt").write_text("Good.")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(NotFound):
        TokenStore.build(documents(), bert, tmp_path / "store")
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\nbad\n')
    with pytest.raises(InvalidInput, match=r"1 of 2 rows cannot be used: .*bad.jsonl line 2 is not JSON"):
        TokenStore.build(tmp_path / "bad.jsonl", bert, tmp_path / "store")
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "bad.jsonl"])
    assert TokenStore.open(tmp_path / "store").fingerprint == built.fingerprint


def test_a_disk_that_is_full_is_a_typed_error(bert, tmp_path, monkeypatch):
    def full(self, values):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module._Array, "add", full)
    with pytest.raises(TriarchError, match=r"cannot write .*No space left on device"):
        TokenStore.build(rows_of(TEXTS), bert, tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_bad_rows_can_be_left_out_and_are_counted(bert, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\nbad\n{"text": ""}\n{"text": "b"}\n')
    store = TokenStore.build(tmp_path / "a.jsonl", bert, tmp_path / "store", on_bad_row="skip")
    assert (store.header["documents"], store.header["skipped"]) == (2, 2)
    assert "a.jsonl line 3: text is empty" in store.header["skipped_first"][1]


def test_a_text_without_tokens_is_named(bert, tmp_path):
    for name, text in (("a.txt", "words"), ("b.txt", "\u200b\u200b")):
        (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInput, match=r"1 of 2 rows .*b.txt: the tokenizer finds no token"):
        TokenStore.build([tmp_path / "a.txt", tmp_path / "b.txt"], bert, tmp_path / "store")
    (tmp_path / "c.txt").write_text(" \n\n")
    with pytest.raises(InvalidInput, match=r"1 of 1 rows .*c.txt is empty"):
        TokenStore.build(tmp_path / "c.txt", bert, tmp_path / "store", on_bad_row="skip")


def test_bad_lines_of_a_text_are_named(bert, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"fine\nnot \xff fine\n")
    with pytest.raises(InvalidInput, match=r"a.txt line 2 is not UTF-8 at byte 4"):
        TokenStore.build(tmp_path / "a.txt", bert, tmp_path / "store")


def test_a_folder_with_something_else_is_not_overwritten(bert, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "thesis.txt").write_text("x")
    with pytest.raises(InvalidInput, match="holds something other than a token store"):
        TokenStore.build(rows_of(TEXTS), bert, tmp_path / "store")


def test_rows_of_another_kind_are_refused(bert, tmp_path):
    with pytest.raises(InvalidInput, match=r"the rows are classification .*, wanted documents; give rows of a text"):
        TokenStore.build(rows_of([{"text": "a", "label": 1}]), bert, tmp_path / "store")


# Opening


@pytest.mark.parametrize("name", ["tokens.bin", "sentences.bin", "documents.bin", "header.json"])
@pytest.mark.parametrize("damage", ["cut", "longer", "gone", "flipped", "link", "empty"])
def test_every_damage_is_found(built, tmp_path, name, damage):
    path = tmp_path / "store" / name
    data = path.read_bytes()
    path.unlink()
    if damage == "link":
        (tmp_path / "elsewhere").write_bytes(data)
        path.symlink_to(tmp_path / "elsewhere")
    elif damage != "gone":
        flipped = data[:9] + bytes([data[9] ^ 64]) + data[10:]
        path.write_bytes({"cut": data[:-1], "longer": data + b"\0", "flipped": flipped, "empty": b""}[damage])
    with pytest.raises({"link": UnsafeFile, "gone": NotFound}.get(damage, CorruptFile)):
        TokenStore.open(tmp_path / "store")


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": -1},
        {"tokens": 1 << 60},
        {"sentences": True},
        {"documents": "3"},
        {"documents": 0},
        {"version": 2},
        {"format": "else"},
        {"files": {}},
        {"files": None},
        {"made_of": []},
        {"made_of": {}},
        {"vocab_size": 5},
        {"fingerprint": 3},
    ],
)
def test_a_header_that_lies_is_found(built, tmp_path, change):
    path = tmp_path / "store" / "header.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CorruptFile, match="store"):
        TokenStore.open(tmp_path / "store")


@pytest.mark.parametrize("name, value", [("sentences", -5), ("sentences", 1 << 40), ("documents", 0)])
def test_offsets_that_would_read_elsewhere_are_found(built, tmp_path, name, value):
    import hashlib

    path, header = tmp_path / "store" / f"{name}.bin", tmp_path / "store" / "header.json"
    offsets = np.fromfile(path, dtype="<i8")
    offsets[1] = value
    offsets.tofile(path)
    told = json.loads(header.read_text())
    told["files"][f"{name}.bin"]["sha256"] = hashlib.sha256(offsets.tobytes()).hexdigest()
    header.write_text(json.dumps(told))
    with pytest.raises(CorruptFile, match="offsets out of order"):
        TokenStore.open(tmp_path / "store")


# Passages


def tokens_of(passages, chunk):
    return [id_ for passage in passages.passages(chunk) for id_ in passage.ids.tolist()]


@pytest.mark.parametrize("room", [1, 2, 3, 7, 20, 1000])
def test_chunks_are_the_whole_store_in_order(built, bert, room):
    passages = Passages(built, Whole(bert, room))
    chunks = [tokens_of(passages, i) for i in range(len(passages))]
    assert [id_ for chunk in chunks for id_ in chunk] == (built.tokens & ~STARTS).tolist()
    assert 1 <= min(map(len, chunks)) <= max(map(len, chunks)) <= room
    assert passages.lengths.tolist() == [len(chunk) + 2 for chunk in chunks]


def test_chunks_are_packed_as_full_as_sentences_allow(built, bert):
    room = 30
    passages = Passages(built, Whole(bert, room))
    expected = []
    for document in range(3):
        ends = built.sentences[built.documents[document] : built.documents[document + 1] + 1]
        lengths = []
        for size in np.diff(ends).tolist():
            while size > room:
                lengths.append(room)
                size -= room
            lengths.append(size)
        chunk = 0
        for length in lengths:
            if chunk + length > room:
                expected.append(chunk)
                chunk = 0
            chunk += length
        expected.append(chunk)
    assert (passages.lengths - 2).tolist() == expected


def test_passages_are_sentences_with_their_words(built, bert):
    passages = Passages(built, Whole(bert, 1000))
    assert len(passages) == 3
    first = passages.passages(0)
    assert first[0].ids.tolist() == bert.encode(tiny.SENTENCES[0], special_tokens=False).ids
    assert len(first) == 4
    assert all(passage.ids.dtype == np.int64 and passage.starts.dtype == bool for passage in first)
    assert all(len(passage.ids) == len(passage.starts) and passage.starts[0] for passage in first)


def test_the_other_chunk_is_of_another_document(built, bert):
    passages = Passages(built, Whole(bert, 12, pair=True))
    documents = [set(), set(), set()]
    for index in range(len(passages)):
        documents[passages._document(index)].add(tuple(tokens_of(passages, index)))
    for index in range(len(passages)):
        own = passages._document(index)
        for seed in range(20):
            _, other = passages.draw(index, np.random.default_rng(seed))
            drawn = tuple(id_ for passage in other for id_ in passage.ids.tolist())
            assert drawn in set().union(*(documents[i] for i in range(3) if i != own))


def test_lengths_are_never_exceeded_where_segments_are_put_together(built, bert):
    nsp = objective("nsp")(processor=bert, max_tokens=24)
    passages = Passages(built, nsp)
    for index in range(len(passages)):
        for seed in range(10):
            assert passages.draw(index, np.random.default_rng(seed)).length <= passages.lengths[index] <= 24


def test_a_draw_is_a_function_of_its_generator(built, bert):
    passages = Passages(built, Whole(bert, 12, pair=True))
    one, other = (passages.draw(2, np.random.default_rng(5))[1] for _ in range(2))
    assert [passage.ids.tolist() for passage in one] == [passage.ids.tolist() for passage in other]


def test_one_document_cannot_give_another(bert, tmp_path):
    store = TokenStore.build(rows_of(TEXTS[:1]), bert, tmp_path / "store")
    assert len(Passages(store, Whole(bert))) > 1
    with pytest.raises(InvalidInput, match="the text is one document"):
        Passages(store, Whole(bert, pair=True))


def test_a_store_of_another_tokenizer_is_refused(built):
    with pytest.raises(InvalidInput, match="built by another tokenizer"):
        Passages(built, Whole(tiny.load("roberta-words").processor))


def test_no_room_for_text(built, bert):
    with pytest.raises(InvalidInput, match="leave no room for text"):
        Passages(built, Whole(bert, 0))


def test_a_chunk_knows_its_document_and_sentence(built, bert):
    passages = Passages(built, Whole(bert, 20))
    places = [passages.place(index) for index in range(len(passages))]
    assert places[0] == "row 1, sentence 1"
    assert sorted({place.split(",")[0] for place in places}) == ["row 1", "row 2", "row 3"]
    last = max(int(place.rpartition(" ")[2]) for place in places if place.startswith("row 3"))
    assert 1 < last <= np.diff(built.documents)[2]


def test_documents_are_known_by_their_files_and_lines(bert, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n\n{"text": "b"}\n{"text": "c"}\n')
    (tmp_path / "b.txt").write_text("d")
    (tmp_path / "c.txt").write_text("e")
    files = [tmp_path / name for name in ("a.jsonl", "b.txt", "c.txt")]
    TokenStore.build(files, bert, tmp_path / "store")
    store = TokenStore.open(tmp_path / "store")
    assert [store.place(i) for i in range(5)] == [
        "a.jsonl line 1",
        "a.jsonl line 3",
        "a.jsonl line 4",
        "b.txt",
        "c.txt",
    ]
    assert Passages(store, Whole(bert)).place(1) == "a.jsonl line 3, sentence 1"


def test_places_are_kept_in_bounds(bert, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "ORIGINS", 2)
    for name in "abcd":
        (tmp_path / f"{name}.txt").write_text("text")
    store = TokenStore.build([tmp_path / f"{name}.txt" for name in "abcd"], bert, tmp_path / "store")
    assert [store.place(i) for i in range(4)] == ["a.txt", "b.txt", "document 3", "document 4"]
    assert len(store.header["origins"]["files"]) == len(store.header["made_of"]["files"]) == 2
    lines = tmp_path / "lines.txt"
    lines.write_text("text\n" * 50)
    store = TokenStore.build(lines, bert, tmp_path / "lines", format="lines")
    assert store.place(49) == "lines.txt line 50"


def test_a_store_that_does_not_know_its_files_numbers_documents(built, tmp_path):
    path = tmp_path / "store" / "header.json"
    header = json.loads(path.read_text())
    del header["origins"]
    path.write_text(json.dumps(header))
    assert TokenStore.open(tmp_path / "store").place(2) == "document 3"


@pytest.mark.parametrize(
    "origins",
    [
        [],
        {"files": []},
        {"files": [["a", ""]], "runs": [[0, 1, 0]]},
        {"files": [["a", ""]], "runs": [[0, -1, 0]]},
        {"files": [["a"]], "runs": []},
        {"files": [["a", 3]], "runs": []},
        {"files": [["a", ""]], "runs": [["0", 0, 0]]},
        {"files": [["a", ""]], "runs": [[0, 0]]},
    ],
)
def test_places_that_are_none_are_found(built, tmp_path, origins):
    path = tmp_path / "store" / "header.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"origins": origins}))
    with pytest.raises(CorruptFile, match="does not say where its documents were read"):
        TokenStore.open(tmp_path / "store")


def test_long_text_is_streamed_within_bounds(bert, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "BLOCK_CHARACTERS", 200)
    monkeypatch.setattr(limits, "WHOLE_BYTES", 1000)
    text = " ".join(f"{letter} word." for letter in string.ascii_lowercase * 20)
    (tmp_path / "a.txt").write_text(text)
    store = TokenStore.build(tmp_path / "a.txt", bert, tmp_path / "store")
    assert ids_of(store, 0) == bert.encode(text, special_tokens=False).ids


# One sentence a line


LINES = "one sentence without an end\nanother one\n\n \nthe second document\n"


def test_lines_are_sentences_and_blank_lines_end_documents(bert, tmp_path):
    (tmp_path / "a.txt").write_text(LINES)
    streamed = TokenStore.build(tmp_path / "a.txt", bert, tmp_path / "streamed", format="sentences")
    held = TokenStore.build(read(tmp_path / "a.txt", format="sentences"), bert, tmp_path / "held")
    for store in (streamed, held):
        assert np.diff(store.documents).tolist() == [2, 1]
        assert store.place(1) == "a.txt line 5"
        first, end = store.sentences[:2]
        said = bert.encode("one sentence without an end", special_tokens=False).ids
        assert (store.tokens[first:end] & ~STARTS).tolist() == said
    assert TokenStore.build(tmp_path / "a.txt", bert, tmp_path / "text").header["documents"] == 1


def test_documents_that_no_blank_line_ends_have_a_bound(bert, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "WHOLE_BYTES", 100)
    (tmp_path / "a.txt").write_text("a line\n" * 10 + "\n" + "a line\n" * 20)
    with pytest.raises(LimitExceeded, match=r"a.txt has over 100 characters from line 12 on without a blank line"):
        TokenStore.build(tmp_path / "a.txt", bert, tmp_path / "store", format="sentences")


# Trials, and builds that were killed


def test_a_trial_takes_the_beginnings_of_several_documents(bert, tmp_path):
    for i in range(20):
        (tmp_path / f"{i:02}.txt").write_text("\n\n".join(f"paragraph {j}" for j in range(100)))
    whole = TokenStore.build(tmp_path, bert, tmp_path / "out" / "whole")
    trial = TokenStore.build([tmp_path / f"{i:02}.txt" for i in range(20)], bert, tmp_path / "out" / "a", trial=160)
    assert trial.header["documents"] == 8
    assert 160 <= trial.header["tokens"] < 200
    assert ids_of(trial, 1) == ids_of(whole, 1)[: len(ids_of(trial, 1))]
    assert trial.fingerprint != whole.fingerprint
    assert len(Passages(trial, Whole(bert, pair=True)))


def test_a_trial_reads_no_further_than_it_needs(bert, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "some words"}\n' * 100 + "bad\n")
    store = TokenStore.build(tmp_path / "a.jsonl", bert, tmp_path / "store", trial=20)
    assert store.header["documents"] < 20


def test_what_killed_builds_left_is_removed(bert, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    for name in (
        f".store.{process.pid}.tmp",
        f".store.{process.pid}.old",
        ".store.1.tmp",
        ".other.2.tmp",
        ".store.x.tmp",
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokens.bin").write_bytes(b"x")
    TokenStore.build(rows_of(TEXTS), bert, tmp_path / "store")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.2.tmp", ".store.1.tmp", ".store.x.tmp", "store"]
