"""SentencePiece models read without the sentencepiece package, against that package."""

import contextlib
import random

import pytest
import sentencepiece
from transformers import AutoTokenizer

from probes import PAIRS, PLAIN, PROBES, ROBERTA, XLM_ROBERTA
from triarch import limits
from triarch.errors import CorruptFile, InvalidInput, LimitExceeded, TriarchError, Unsupported
from triarch.files import Folder
from triarch.inputs.text import sentencepiece as reader
from triarch.inputs.text.processor import load_text
from vocabularies import AS_IT_STANDS, SENTENCES, train
from wire import message, piece, varint

MODELS = {
    "unigram": {"model_type": "unigram", "vocab_size": 120},
    "unigram, no prefix": {"model_type": "unigram", "vocab_size": 120, "add_dummy_prefix": False},
    "unigram, bytes": {"model_type": "unigram", "vocab_size": 400, "byte_fallback": True},
    "BPE": {"model_type": "bpe", "vocab_size": 150},
    "BPE, text as it stands": {"model_type": "bpe", "vocab_size": 400, **AS_IT_STANDS},
    "BPE, text as it stands, no prefix": {
        "model_type": "bpe",
        "vocab_size": 400,
        "add_dummy_prefix": False,
        **AS_IT_STANDS,
    },
}


def load(folder, data, text_format=PLAIN, vocab_size=1000, name="spiece.model"):
    (folder / name).write_bytes(data)
    return load_text(Folder(folder), text_format, vocab_size=vocab_size, max_tokens=64)


@pytest.fixture(scope="session", params=MODELS)
def both(request, tmp_path_factory):
    """One model, read by us and by the package."""
    data = train(**MODELS[request.param])
    package = sentencepiece.SentencePieceProcessor(model_proto=data)
    return load(tmp_path_factory.mktemp("model"), data), package, request.param


@pytest.fixture(scope="session")
def unigram():
    return train(**MODELS["unigram"])


LETTERS = ("marks", "Hangul")  # letters of several characters


@pytest.mark.parametrize("name", PROBES)
def test_pieces_are_those_of_the_package(both, name):
    processor, package, kind = both
    text = PROBES[name]
    if name in LETTERS and "stands" not in kind:
        text = "cafe\u0301"  # the next test says what becomes of longer letters
    elif "no prefix" in kind:
        text = text.lstrip("▁")  # the package takes it for a space to strip; the reference has no such model
    assert processor.encode(text, parse_special=False).ids == package.encode(text)


def test_normalisation_leaves_a_letter_with_many_marks_as_it_is(both):
    processor, package, kind = both
    # So does the reference, which looks up letters; the package looks up characters and composes the first two
    if "stands" not in kind:
        ids = processor.encode("e\u0301\u0301\u0301").ids
        assert package.piece_to_id("e") in ids
        assert package.piece_to_id("é") not in ids


def test_decoding_is_that_of_the_package(both):
    processor, package, _ = both
    for sentence in SENTENCES[:3]:
        ids = processor.encode(sentence).ids
        assert processor.decode(ids) == package.decode(ids) == sentence


def test_symbols_of_the_user_stay_whole_and_control_symbols_are_special(both):
    processor, package, _ = both
    assert package.piece_to_id("<usr>") in processor.encode("the <usr>fox").ids
    assert package.eos_id() in processor.encode("the</s>").ids
    assert package.eos_id() not in processor.encode("the</s>", parse_special=False).ids
    assert processor.decode(processor.encode("the</s>").ids, skip_special_tokens=True) == "the"


@pytest.mark.parametrize("text", [text for text in PROBES.values() if len(text) < 100])
def test_offsets_cover_the_text_in_order(both, text):
    processor, *_ = both
    spans = processor.encode(text).offsets
    covered = "".join(text[start:end] for start, end in spans)
    assert all(0 <= start <= end <= len(text) for start, end in spans)
    assert spans == sorted(spans)
    assert [c for c in covered if c.isalnum()] or not [c for c in text if c.isalnum()]


# XLM-RoBERTa's numbering


@pytest.fixture
def xlm_roberta(tmp_path, unigram):
    return load(tmp_path, unigram, XLM_ROBERTA, name="sentencepiece.bpe.model")


@pytest.mark.parametrize("name", sorted(PROBES.keys() - {"marks"}))
def test_ids_are_those_of_fairseq_with_its_own_pieces_first(xlm_roberta, unigram, name):
    package = sentencepiece.SentencePieceProcessor(model_proto=unigram)
    wanted = [0, *(id_ + 1 if id_ else 3 for id_ in package.encode(PROBES[name])), 2]
    assert xlm_roberta.encode(PROBES[name], parse_special=False).ids == wanted


def test_fairseq_pieces_have_the_first_ids_and_the_mask_the_last(xlm_roberta, unigram):
    size = sentencepiece.SentencePieceProcessor(model_proto=unigram).get_piece_size()
    assert xlm_roberta.tokens(range(4)) == ["<s>", "<pad>", "</s>", "<unk>"]
    assert xlm_roberta.id("mask_token") == size + 1
    assert xlm_roberta.encode("the", "fox").tokens == ["<s>", "▁the", "</s>", "</s>", *["▁", "f", "o", "x"], "</s>"]
    # 4.57: the space belongs to the mask; version 5 leaves a piece for it
    assert xlm_roberta.encode("the <mask>").ids[1:-1] == [xlm_roberta.encode("the").ids[1], size + 1]


def test_special_tokens_in_text_are_plain_text_on_request_though_the_vocabulary_lists_them(xlm_roberta):
    special = {xlm_roberta.id(role) for role in ("bos_token", "eos_token", "pad_token", "mask_token")}
    text = "the <s></s> <pad><mask>"
    assert special <= set(xlm_roberta.encode(text).ids)
    assert not special & set(xlm_roberta.encode(text, special_tokens=False, parse_special=False).ids)


@pytest.mark.parametrize("text_format", [PLAIN, XLM_ROBERTA], ids=["plain", "XLM-RoBERTa"])
def test_the_reference_reads_the_same_ids_from_what_we_save(tmp_path, both, unigram, text_format):
    processor = both[0] if text_format is PLAIN else load(tmp_path, unigram, XLM_ROBERTA)
    processor.save(tmp_path / "saved")
    (tmp_path / "saved/config.json").write_text('{"model_type": "xlm-roberta"}')
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    again = load_text(Folder(tmp_path / "saved"), text_format, vocab_size=1000, max_tokens=64)
    for text in PROBES.values():
        assert tokenizer(text)["input_ids"] == processor.encode(text).ids == again.encode(text).ids
    for pair in PAIRS:
        assert tokenizer(*pair)["input_ids"] == processor.encode(*pair).ids


# The file itself, written by hand


UNKNOWN = piece("<unk>", kind=2)


def test_absent_fields_have_the_defaults_of_the_format():
    data = message(f1=[UNKNOWN, message(f1=b"a", f2=-1.5)])
    assert reader.read(data, "file", 2) == reader.Model([("<unk>", 0.0, 2), ("a", -1.5, 1)])


def test_unknown_fields_are_passed_over():
    later = message(f4=b"self test", f200=b"extension", f201=1, f202=1.0) + varint(203 << 3 | 1) + bytes(8)
    assert reader.read(later + message(f1=UNKNOWN) + later, "file", 1).pieces == [("<unk>", 0.0, 2)]


def test_bpe_merges_the_best_piece_first(tmp_path):
    pieces = ["▁", "a", "b", "c", ("bc", -1.0), ("ab", -2.0), ("▁ab", -3.0)]
    pieces = [piece(*each) if isinstance(each, tuple) else piece(each, -9.0) for each in pieces]
    processor = load(tmp_path, message(f1=[UNKNOWN, *pieces], f2=message(f3=2)))
    assert processor.encode("ab abc").tokens == ["▁ab", "▁", "a", "bc"]


TRUSTED = message(f1=[UNKNOWN, piece("a")])
REFUSED = {
    "nothing": (b"", CorruptFile, "its unknown piece is number 0 of 0"),
    "text": (b"#version: 0.2\n", CorruptFile, "wire type 3"),
    "zeros": (bytes(100), CorruptFile, "field number 0"),
    "a group": (b"\x0b\x0c", CorruptFile, "wire type 3"),
    "an endless number": (b"\xff" * 12, CorruptFile, "too long"),
    "a number cut off": (b"\x80", CorruptFile, "cut off"),
    "a length beyond the end": (b"\x0a\x7fabc", CorruptFile, "a field of 127 bytes where 3 are left"),
    "a number for a piece": (message(f1=7), CorruptFile, "field 1 is not a message"),
    "text for a number": (TRUSTED + message(f2=message(f40=b"x")), CorruptFile, "field 40 is not a number"),
    "a piece without text": (message(f1=message(f2=1.0)), CorruptFile, "piece 0 has no text"),
    "an empty piece": (message(f1=piece("")), CorruptFile, "piece 0 is empty"),
    "a piece that is no text": (message(f1=piece(b"\xff")), CorruptFile, "piece 0 is not UTF-8"),
    "a score of nan": (message(f1=piece("a", float("nan"))), CorruptFile, "not a finite number"),
    "a score of infinity": (message(f1=piece("a", float("inf"))), CorruptFile, "not a finite number"),
    "a piece twice": (message(f1=[UNKNOWN, UNKNOWN]), CorruptFile, "a piece comes twice"),
    "no unknown piece": (TRUSTED + message(f2=message(f40=2)), CorruptFile, "unknown piece is number 2 of 2"),
    "unknown below 0": (TRUSTED + message(f2=message(f40=(1 << 64) - 1)), CorruptFile, "unknown piece is number -1"),
    "a long piece": (message(f1=piece("a" * 257)), LimitExceeded, "piece 0 has over 256 characters"),
    "many pieces": (message(f1=[piece(f"{i}") for i in range(1001)]), InvalidInput, r"more pieces than .* \(1000\)"),
    "words": (TRUSTED + message(f2=message(f3=3)), Unsupported, "splits text into words or characters"),
    "space as suffix": (TRUSTED + message(f2=message(f24=1)), Unsupported, "marks spaces at the end of words"),
    "a short table": (TRUSTED + message(f3=message(f2=b"abc")), CorruptFile, "normalisation is not a table"),
    "a table of nothing": (TRUSTED + message(f3=message(f2=b"\xff" * 40)), CorruptFile, "Cannot parse"),
    "text grown by a table": (
        TRUSTED + message(f3=message(f2=bytes([4, 0, 0, 0, 0, 0, 0, 0]) + b"a" * 300)),
        LimitExceeded,
        "makes over 256 bytes of one character",
    ),
}


@pytest.mark.parametrize("data, error, message", REFUSED.values(), ids=REFUSED)
def test_a_model_that_breaks_the_format_is_refused(tmp_path, data, error, message):
    with pytest.raises(error, match=message):
        load(tmp_path, data)


def test_a_model_over_the_limits_is_refused(tmp_path, monkeypatch):
    pieces = [piece("a" * length, -float(length)) for length in range(1, 30)]
    monkeypatch.setattr(limits, "MERGES", 100)
    with pytest.raises(LimitExceeded, match="over 100 merges"):
        load(tmp_path, message(f1=[UNKNOWN, *pieces], f2=message(f3=2)))
    monkeypatch.setattr(limits, "SENTENCEPIECE_BYTES", 100)
    with pytest.raises(LimitExceeded, match="over 100 bytes"):
        load(tmp_path, bytes(101))


def test_a_model_without_the_tokens_of_its_family_is_corrupt(tmp_path, unigram):
    with pytest.raises(CorruptFile, match="lacks the special token '<s>'"):
        load(tmp_path, TRUSTED, ROBERTA)


def test_a_model_cut_anywhere_is_read_or_refused(tmp_path, unigram):
    for length in range(0, len(unigram), len(unigram) // 100):
        outcome(tmp_path, unigram[:length])


def test_a_model_with_random_bytes_is_read_or_refused(tmp_path, unigram):
    rng = random.Random(0)
    for count in (1, 1, 1, 5, 50) * 40:
        broken = bytearray(unigram)
        for _ in range(count):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        outcome(tmp_path, bytes(broken))
    for length in (1, 10, 1000, 100_000):
        outcome(tmp_path, rng.randbytes(length))


def outcome(folder, data):
    with contextlib.suppress(TriarchError):
        load(folder, data).encode("Hello wörld ﬁ 日本")
