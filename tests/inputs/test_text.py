"""Text to tensors and back: WordPiece, byte-level BPE and tokenizer.json, against the reference library.

Where version 5 of the reference, the one installed here, differs from 4.57, the test states what 4.57 gives.
"""

import contextlib
import json
import random
import string
from concurrent.futures import ThreadPoolExecutor

import pytest
import tokenizers
import torch
from transformers import AutoTokenizer

from probes import BERT, PAIRS, PROBES, ROBERTA
from triarch import limits
from triarch.errors import CorruptFile, InvalidInput, LimitExceeded, NotFound, TriarchError, Unsupported
from triarch.files import Folder
from triarch.inputs.text.processor import check_text, load_text
from vocabularies import write

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "Hello world, this is a test of the hello world test.",
    "A café in Ångström, naïve or not, is a café; don't they're it's 123,456.78!",
    "It is what it is: the question and the answer and the question.",
]
WORDPIECES = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("the", "quick", "brown", "fox", "hello", "world", "test", "question", "answer", "cafe", "café", "is", "it"),
    *("an", "and", "12", "日", "本", "!", "?", ".", ",", "'", "[", "]"),
    *string.ascii_letters,
    *string.digits,
    *(f"##{letter}" for letter in string.ascii_letters + string.digits + "é"),
    *("##ing", "##ed", "##est", "##\u0301"),
]
LONG = " ".join(SENTENCES)


def load(folder, text_format=BERT, vocab_size=1000, max_tokens=64):
    return load_text(Folder(folder), text_format, vocab_size=vocab_size, max_tokens=max_tokens)


@pytest.fixture(scope="session")
def byte_pairs(tmp_path_factory):
    """vocab.json and merges.txt of a byte-level BPE."""
    folder = tmp_path_factory.mktemp("bpe")
    trainer = tokenizers.ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer.train_from_iterator(SENTENCES, vocab_size=400, special_tokens=special, show_progress=False)
    trainer.save_model(str(folder))
    return {
        "vocab_json": (folder / "vocab.json").read_text("utf-8"),
        "merges_txt": (folder / "merges.txt").read_text("utf-8"),
    }


# Each folder as the reference meets it, and what it takes to be read as 4.57 reads it
KINDS = {
    "WordPiece": BERT,
    "WordPiece, cased": BERT,
    "WordPiece, accents kept": BERT,
    "WordPiece, own names and tokens": BERT,
    "BPE": ROBERTA,
    "BPE, space before": ROBERTA,
}


@pytest.fixture(scope="session", params=KINDS)
def both(request, tmp_path_factory, byte_pairs):
    """One folder, opened by us and by the reference."""
    folder = tmp_path_factory.mktemp("folder")
    vocabulary = {"vocab_txt": "\n".join(WORDPIECES)}
    # Version 5 forgets that <mask> takes the space before it unless a file says so; 4.57 knows.
    mask = {"content": "<mask>", "lstrip": True, "rstrip": False, "single_word": False, "normalized": False}
    files = {
        "WordPiece": vocabulary,
        "WordPiece, cased": vocabulary | {"tokenizer_config_json": {"do_lower_case": False}},
        "WordPiece, accents kept": vocabulary
        | {"tokenizer_config_json": {"strip_accents": False, "tokenize_chinese_chars": False}},
        "WordPiece, own names and tokens": {
            "vocab_txt": "\n".join(WORDPIECES).replace("[SEP]", "<end>").replace("[CLS]", "<begin>"),
            "added_tokens_json": {"<new>": len(WORDPIECES), "zebra": len(WORDPIECES) + 1},
            "special_tokens_map_json": {
                "sep_token": "<end>",
                "cls_token": {"content": "<begin>", "lstrip": False, "rstrip": False, "normalized": False},
                "additional_special_tokens": ["<new>"],
            },
        },
        "BPE": byte_pairs | {"special_tokens_map_json": {"mask_token": mask}},
        "BPE, space before": byte_pairs
        | {"tokenizer_config_json": {"add_prefix_space": True}, "special_tokens_map_json": {"mask_token": mask}},
    }[request.param]
    model_type = "bert" if KINDS[request.param] is BERT else "roberta"
    write(folder, config_json={"model_type": model_type}, **files)
    return load(folder, KINDS[request.param]), AutoTokenizer.from_pretrained(folder)


def reference(tokenizer, *texts, **options):
    """Ids, segments and offsets of every window, as the reference gives them."""
    options |= {"return_offsets_mapping": True, "return_token_type_ids": True}
    found = tokenizer(*texts, **options)
    columns = [found["input_ids"], found["token_type_ids"], found["offset_mapping"]]
    return list(zip(*columns, strict=True)) if options.get("return_overflowing_tokens") else [tuple(columns)]


def ours(*encodings):
    return [(encoding.ids, encoding.type_ids, encoding.offsets) for encoding in encodings]


@pytest.mark.parametrize("text", [*PROBES.values(), "the <new> zebra Zebra"], ids=[*PROBES, "added"])
def test_texts_give_the_ids_segments_and_offsets_of_the_reference(both, text):
    processor, tokenizer = both
    assert ours(processor.encode(text)) == reference(tokenizer, text)


@pytest.mark.parametrize("pair", PAIRS)
def test_pairs_give_the_ids_segments_and_offsets_of_the_reference(both, pair):
    processor, tokenizer = both
    assert ours(processor.encode(*pair)) == reference(tokenizer, *pair)


@pytest.mark.parametrize("stride", [0, 1, 9])
@pytest.mark.parametrize("texts", [(LONG,), ("What is it?", LONG)], ids=["text", "pair"])
def test_windows_are_those_of_the_reference(both, texts, stride):
    processor, tokenizer = both
    side = {"truncation": "only_first" if len(texts) == 1 else "only_second"}
    wanted = reference(tokenizer, *texts, max_length=28, stride=stride, return_overflowing_tokens=True, **side)
    assert len(wanted) > 3
    assert ours(*processor.windows(*texts, max_tokens=28, stride=stride, side="auto")) == wanted


CUTS = [
    ("auto", True, (LONG, SENTENCES[0])),
    ("auto", True, (SENTENCES[0], LONG)),
    ("auto", True, (LONG, LONG)),
    ("auto", True, (LONG,)),
    ("first", "only_first", (LONG, "hello")),
    ("second", "only_second", ("hello", LONG)),
]


@pytest.mark.parametrize("side, strategy, texts", CUTS)
@pytest.mark.parametrize("most", [40, 41])
def test_a_cut_is_that_of_the_reference_and_counts_what_it_dropped(both, texts, side, strategy, most):
    processor, tokenizer = both
    encoding, dropped = processor.cut(*texts, max_tokens=most, side=side)
    assert encoding.ids == tokenizer(*texts, truncation=strategy, max_length=most)["input_ids"]
    assert dropped == len(processor.encode(*texts)) - len(encoding) > 0


@pytest.mark.parametrize("text", [*PROBES.values(), "[SEP] hi", " <mask>"], ids=[*PROBES, "[SEP]", "<mask>"])
def test_special_tokens_in_text_are_plain_text_on_request(both, text):
    processor, tokenizer = both
    wanted = tokenizer(text, split_special_tokens=True)["input_ids"]
    assert processor.encode(text, parse_special=False).ids == wanted


def test_text_taken_literally_changes_nothing_for_other_threads(both):
    processor, _ = both
    text = "[MASK] <mask>"
    want = {parse: processor.encode(text, parse_special=parse).ids for parse in (True, False)}
    with ThreadPoolExecutor(4) as pool:
        jobs = [(parse, pool.submit(processor.encode, text, parse_special=parse)) for parse in [True, False] * 100]
    assert all(job.result().ids == want[parse] for parse, job in jobs)


@pytest.mark.parametrize("ids", [[5, 6, 7], list(range(60)), [2, 30, 1, 3]])
@pytest.mark.parametrize("skip", [True, False])
def test_decoding_is_that_of_the_reference(both, ids, skip):
    processor, tokenizer = both
    # 4.57 tidies what it decodes with a bare vocab.txt, version 5 does not
    tidy = processor.config.get("clean_up_tokenization_spaces", False)
    wanted = tokenizer.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=tidy)
    assert processor.decode(ids, skip_special_tokens=skip) == processor.decode(torch.tensor(ids), skip) == wanted
    assert processor.joined(processor.tokens(ids)) == tokenizer.convert_tokens_to_string(processor.tokens(ids))


def test_the_reference_reads_the_same_ids_from_what_we_save(both, tmp_path):
    processor, _ = both
    processor.save(tmp_path)
    write(tmp_path, config_json={"model_type": "bert" if processor.segments else "roberta"})
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    again = load(tmp_path, BERT if processor.segments else ROBERTA)
    for text in PROBES.values():
        assert tokenizer(text)["input_ids"] == processor.encode(text).ids == again.encode(text).ids
    assert tokenizer(*PAIRS[0]).keys() == processor(*PAIRS[0]).keys()
    assert tokenizer.mask_token == processor.token("mask_token") == again.token("mask_token")


def test_tensors_are_those_of_the_reference(both):
    processor, tokenizer = both
    texts, pairs = ["the fox", "a"], ["hello world", "it is a question"]
    wanted, found = tokenizer(texts, pairs, padding=True, return_tensors="pt"), processor(texts, pairs)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in found.items())


def test_words_are_encoded_as_the_reference_does(both):
    processor, tokenizer = both
    words = (["Hello", ",", "wörld", "日本", "", "a b"], ["don't", "👍🏽"])
    if processor.tokenizer.to_str().count('"add_prefix_space":false'):
        with pytest.raises(Unsupported, match="set add_prefix_space"):
            processor.encode(words[0])
    else:
        assert ours(processor.encode(*words)) == reference(tokenizer, *words, is_split_into_words=True)


# From here on without the reference


@pytest.fixture
def bert(tmp_path):
    return load(write(tmp_path / "bert", vocab_txt="\n".join(WORDPIECES)))


@pytest.fixture
def roberta(tmp_path, byte_pairs):
    return load(write(tmp_path / "roberta", **byte_pairs), ROBERTA)


@pytest.mark.parametrize("text", ["👍🏽 日本\u00a0cafe\u0301 the fox", "\u202eabc 🇫🇷!", "a\u3000\ud7a3 B"])
def test_offsets_count_characters_of_the_text_given(bert, text):
    for id_, (start, end) in pairs_of(bert.encode(text)):
        source = text[start:end]
        assert source == source.strip() != ""
        assert bert.tokens([id_])[0] in ("[UNK]", source.lower(), f"##{source}", "cafe")


def pairs_of(encoding):
    special = encoding.special_tokens_mask
    return [
        pair for pair, skip in zip(zip(encoding.ids, encoding.offsets, strict=True), special, strict=True) if not skip
    ]


def test_offsets_of_byte_level_tokens_cover_the_text_without_its_spaces(roberta):
    text = "hello 👍🏽 wörld\u00a0日本"
    covered = {i for _, (start, end) in pairs_of(roberta.encode(text)) for i in range(start, end)}
    assert "".join(text[i] for i in sorted(covered)) == text.replace(" ", "")


def test_a_mask_takes_the_space_before_it_where_spaces_belong_to_words(roberta):
    # 4.57; version 5, given vocab.json and merges.txt alone, leaves a token for the space
    assert roberta.encode("hello <mask>").ids == [*roberta.encode("hello").ids[:-1], roberta.id("mask_token"), 2]


def test_a_bare_vocabulary_is_lowercase_where_the_family_is_unless_its_config_says_otherwise(tmp_path):
    vocabulary = "\n".join(["[UNK]", "[CLS]", "[SEP]", "a", "A"])
    assert load(write(tmp_path, vocab_txt=vocabulary)).encode("A").tokens[1] == "a"
    cased = write(tmp_path, tokenizer_config_json={"do_lower_case": False})
    assert load(cased).encode("A").tokens[1] == "A"


def test_a_line_of_vocab_txt_ends_only_where_the_reference_ends_it(tmp_path):
    pieces = ["[UNK]", "[CLS]", "[SEP]", "\u2028", "\x0b", "\x85", "a"]
    assert load(write(tmp_path, vocab_txt="\r\n".join(pieces))).tokens([6]) == ["a"]


# tokenizer.json


@pytest.fixture
def whole(bert):
    """The content of a tokenizer.json, to be changed."""
    return json.loads(bert.tokenizer.to_str())


SETTINGS = [
    {"do_lower_case": False},
    {"do_lower_case": True, "strip_accents": False},
    {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": False},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_tokenizer_config_goes_before_tokenizer_json(tmp_path, whole, settings):
    folder = write(tmp_path, tokenizer_json=whole, config_json={"model_type": "bert"}, tokenizer_config_json=settings)
    tokenizer, processor = AutoTokenizer.from_pretrained(folder), load(folder)
    for text in PROBES.values():
        assert processor.encode(text).ids == tokenizer(text)["input_ids"]


@pytest.mark.parametrize("prefix", [True, False])
def test_tokenizer_config_says_whether_a_space_is_put_before_text(tmp_path, roberta, prefix):
    state = json.loads(roberta.tokenizer.to_str())
    state["post_processor"] = {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0]}
    state["post_processor"] |= {"trim_offsets": True, "add_prefix_space": not prefix}
    folder = write(
        tmp_path / "whole",
        tokenizer_json=state,
        config_json={"model_type": "roberta"},
        tokenizer_config_json={"add_prefix_space": prefix, "tokenizer_class": "RobertaTokenizer"},
    )
    tokenizer, processor = AutoTokenizer.from_pretrained(folder), load(folder, ROBERTA)
    for text in ("hello world", " hello", "  hello  "):
        assert ours(processor.encode(text)) == reference(tokenizer, text)


def test_truncation_and_padding_inside_tokenizer_json_are_off(tmp_path, whole):
    whole["truncation"] = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    padding = {"strategy": {"Fixed": 90}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0}
    whole["padding"] = padding | {"pad_type_id": 0, "pad_token": "[PAD]"}
    assert len(load(write(tmp_path, tokenizer_json=whole)).encode("a b ! ? . a b ! ? .")) == 12


def test_the_longest_text_is_the_shorter_of_what_model_and_tokenizer_take(tmp_path):
    vocabulary = "\n".join(WORDPIECES)
    assert load(write(tmp_path, vocab_txt=vocabulary)).max_tokens == 64
    assert load(write(tmp_path, tokenizer_config_json={"model_max_length": 20})).max_tokens == 20
    assert load(write(tmp_path, tokenizer_config_json={"model_max_length": 1e30})).max_tokens == 64


def test_what_version_5_writes_opens_in_version_4_once_we_saved_it(tmp_path, whole):
    settings = {"tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["[SEP]"], "mask_token": "[MASK]"}
    load(write(tmp_path, tokenizer_json=whole, tokenizer_config_json=settings)).save(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved/tokenizer_config.json").read_text("utf-8"))
    assert saved["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert saved["additional_special_tokens"] == ["[SEP]"]
    assert "extra_special_tokens" not in saved


# Roles


def test_a_role_is_empty_where_neither_folder_nor_vocabulary_has_its_token(tmp_path):
    processor = load(write(tmp_path, vocab_txt="\n".join(["[UNK]", "[CLS]", "[SEP]", "a"])))
    assert processor.token("mask_token") is processor.id("mask_token") is processor.id("pad_token") is None
    assert (processor.token("cls_token"), processor.id("cls_token")) == ("[CLS]", 1)
    assert processor(["a", "a a"])["input_ids"].tolist() == [[1, 3, 2, 0], [1, 3, 3, 2]]


# Long text


def test_windows_lose_nothing_and_overlap_by_the_stride(bert):
    whole, windows = bert.encode(LONG, special_tokens=False), bert.windows(LONG, max_tokens=20, stride=4)
    assert max(map(len, windows)) == 20
    body = [window.ids[1:-1] for window in windows]
    assert body[0] + [id_ for ids in body[1:] for id_ in ids[4:]] == whole.ids


def test_text_that_fits_is_one_window(bert):
    assert [window.ids for window in bert.windows("the fox", "a")] == [bert.encode("the fox", "a").ids]


@pytest.mark.parametrize("side", ["auto", "first", "second"])
def test_windows_run_over_both_sides_where_one_leaves_no_room(bert, side):
    texts = LONG, LONG.upper()
    windows = bert.windows(*texts, max_tokens=43, stride=3, side=side)
    for number, text in enumerate(texts):
        spans = {
            offset
            for window in windows
            for offset, sequence in zip(window.offsets, window.sequence_ids, strict=True)
            if sequence == number
        }
        assert sorted(spans) == bert.encode(text, special_tokens=False).offsets
    beginnings = {(w.offsets[1], w.offsets[w.sequence_ids.index(1)]) for w in windows}
    assert len(beginnings) == len(windows) == len({a for a, _ in beginnings}) * len({b for _, b in beginnings})
    assert all(w.type_ids == [int(i > w.sequence_ids.index(1) - 1) for i in range(len(w))] for w in windows)


@pytest.mark.parametrize("stride", [-1, 18, 10**6])
def test_a_stride_that_no_window_can_hold_is_refused(bert, stride):
    with pytest.raises(InvalidInput, match=r"windows of 18 tokens cannot overlap by .*wanted 0 to 17"):
        bert.windows(LONG, max_tokens=20, stride=stride)


def test_too_many_windows_are_refused_before_they_are_made(bert, monkeypatch):
    monkeypatch.setattr(limits, "WINDOWS", 10)
    with pytest.raises(LimitExceeded, match=r"makes \d+ windows, over 10"):
        bert.windows(LONG, LONG, max_tokens=30)


def test_text_over_the_limit_is_refused_unless_a_cut_is_asked_for(bert):
    with pytest.raises(LimitExceeded, match=r"\d+ tokens, at most 64 fit; take it in windows\(\), or cut it"):
        bert(LONG)
    assert bert(LONG, truncation=True)["input_ids"].shape == (1, 64)
    assert bert([LONG, "a"], ["a", LONG], truncation=True, max_length=9)["input_ids"].shape == (2, 9)


def test_no_room_for_text_is_said(bert):
    with pytest.raises(InvalidInput, match="3 tokens leave no room for text; wanted at least 5"):
        bert.cut("a", "a", max_tokens=3)
    with pytest.raises(LimitExceeded, match="the second text gets none"):
        bert.cut(LONG, "a", max_tokens=20, side="second")
    with pytest.raises(InvalidInput, match="side is 'left'; wanted auto, first or second"):
        bert.windows(LONG, side="left")


@pytest.mark.parametrize("pair", ["a", ["a"], []])
def test_texts_and_pairs_come_in_equal_numbers(bert, pair):
    with pytest.raises(InvalidInput, match=r"2 texts came with \d pairs; give one pair for each text"):
        bert(["a", "a"], pair)


def test_nothing_makes_no_tensors(bert):
    for make in (bert, bert.collate):
        with pytest.raises(InvalidInput, match="there is no text"):
            make([])


# What is no text


@pytest.mark.parametrize("text", [None, 5, b"bytes", {"text": "a"}])
def test_text_of_another_type_is_refused_by_name(bert, text):
    for use in (check_text, bert, bert.encode, bert.windows, bert.cut):
        with pytest.raises(InvalidInput, match=f"the text is a {type(text).__name__}; wanted a string"):
            use(text)


def test_half_a_surrogate_pair_is_refused_by_its_place():
    with pytest.raises(InvalidInput, match=r"lone surrogate, '\\ud800', at character 3; decode its bytes"):
        check_text("abc\ud800d")


def test_a_text_that_is_too_long_is_refused(monkeypatch):
    monkeypatch.setattr(limits, "TEXT_CHARACTERS", 10)
    check_text("a" * 10)
    for text in ("a" * 11, ["aaaa"] * 3):
        with pytest.raises(LimitExceeded, match="at most 10 are taken at once"):
            check_text(text)


@pytest.mark.parametrize("ids", [[-1], [1000], [2**63], [1.5], ["a"], torch.tensor([[1, 2]])])
def test_ids_that_are_none_are_refused(bert, ids):
    for read in (bert.decode, bert.tokens):
        with pytest.raises(InvalidInput, match=r"there is no id|not a sequence of whole numbers"):
            read(ids)


# Files that are broken or hostile


def test_a_folder_without_tokenizer_files_has_no_text(tmp_path):
    assert load(tmp_path) is None


def test_settings_without_a_vocabulary_are_an_incomplete_download(tmp_path):
    with pytest.raises(NotFound, match=r"no vocabulary: tokenizer\.json, vocab\.txt, vocab\.json with merges\.txt, or"):
        load(write(tmp_path, tokenizer_config_json={"do_lower_case": True}))


def test_a_tokenizer_json_cut_anywhere_is_corrupt(tmp_path, whole):
    data = json.dumps(whole)
    for length in range(0, len(data), len(data) // 40):
        with pytest.raises(CorruptFile, match="cannot be used"):
            load(write(tmp_path, tokenizer_json=data[:length]))


def test_a_tokenizer_json_with_flipped_bytes_is_read_or_refused(tmp_path, whole):
    data, rng = json.dumps(whole).encode(), random.Random(0)
    for _ in range(200):
        broken = bytearray(data)
        broken[rng.randrange(len(data))] = rng.randrange(256)
        with contextlib.suppress(CorruptFile, InvalidInput):
            load(write(tmp_path, tokenizer_json=bytes(broken))).encode("hello")


HOSTILE = {
    "nested arrays": '{"version": "1.0", "normalizer": ' + "[" * 100_000,
    "nested steps": '{"normalizer": ' + '{"type": "Sequence", "normalizers": [' * 100_000,
    "no object": "[]",
    "nothing": "",
    "bytes": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_tokenizer_json_is_refused(tmp_path, content):
    with pytest.raises(CorruptFile, match="download it again"):
        load(write(tmp_path, tokenizer_json=content))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_panic_of_the_library_is_a_corrupt_file(tmp_path, whole, capfd):
    charsmap = "CAAAAP//////////YWJj"  # an automaton whose first step leaves it
    whole["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": charsmap}
    with pytest.raises(CorruptFile, match="index out of bounds"):
        load(write(tmp_path, tokenizer_json=whole)).encode("hello")
    assert "panicked" in capfd.readouterr().err


GROWING = {
    "normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000},
    "decoder": {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000},
    "steps": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "aa"}] * 10},
}


@pytest.mark.parametrize("name", GROWING)
def test_a_tokenizer_json_that_multiplies_text_is_refused(tmp_path, whole, name):
    whole["decoder" if name == "decoder" else "normalizer"] = GROWING[name]
    with pytest.raises(LimitExceeded, match=r"makes text 1,\d+ times as long"):
        load(write(tmp_path, tokenizer_json=whole))


def test_ids_without_a_row_of_the_embedding_are_refused_at_load(tmp_path, whole):
    folder = write(tmp_path, tokenizer_json=whole)
    rows = len(WORDPIECES)
    assert load(folder, vocab_size=rows)
    with pytest.raises(InvalidInput, match=rf"has the id {rows - 1}, but the embedding has {rows - 1} rows"):
        load(folder, vocab_size=rows - 1)
    with pytest.raises(InvalidInput, match=rf"'<new>' has the id {rows}, but the embedding has {rows} rows"):
        load(write(tmp_path, special_tokens_map_json={"mask_token": "<new>"}), vocab_size=rows)


def test_a_special_token_around_text_that_has_no_row_is_refused(tmp_path, whole):
    whole["post_processor"]["special_tokens"]["[CLS]"]["ids"] = [10**6]
    with pytest.raises(InvalidInput, match="has the id 1000000"):
        load(write(tmp_path, tokenizer_json=whole))


def test_two_tokens_with_one_id_are_refused_and_gaps_are_not(tmp_path, whole):
    whole["model"]["vocab"]["gap"] = 900
    assert load(write(tmp_path, tokenizer_json=whole)).encode("gap").ids[1] == 900
    whole["model"]["vocab"]["twin"] = 900
    with pytest.raises(InvalidInput, match=r"'(gap' and 'twin|twin' and 'gap)' have the same id"):
        load(write(tmp_path, tokenizer_json=whole))


def test_many_added_tokens_are_refused_by_the_embedding(tmp_path, whole):
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    whole["added_tokens"] = [{"id": 500 + i, "content": f"<{i}>", "special": True} | flags for i in range(20_000)]
    whole["added_tokens"].append({"id": 20_500, "content": "", "special": True} | flags)
    with pytest.raises(InvalidInput, match="the embedding has 1000 rows"):
        load(write(tmp_path, tokenizer_json=whole))


BROKEN = {
    "no unknown token": ({"vocab_txt": "a\nb"}, r"lacks the unknown token '\[UNK\]'"),
    "no token to begin with": ({"vocab_txt": "[UNK]\n[SEP]"}, r"lacks the special token '\[CLS\]'"),
    "empty": ({"vocab_txt": ""}, "lacks the unknown token"),
    "not UTF-8": ({"vocab_txt": b"[UNK]\n\xe9"}, "can't decode byte 0xe9"),
    "a flag that is none": (
        {"vocab_txt": "[UNK]", "tokenizer_config_json": {"do_lower_case": "yes"}},
        "do_lower_case in tokenizer_config.json is 'yes'; wanted true or false",
    ),
    "a token that is none": (
        {"vocab_txt": "[UNK]", "tokenizer_config_json": {"mask_token": 5}},
        "its mask_token is '5'; wanted a string",
    ),
    "settings that are none": ({"vocab_txt": "[UNK]", "tokenizer_config_json": []}, "is not a JSON object"),
    "a length that is none": (
        {"vocab_txt": "[UNK]\n[CLS]\n[SEP]", "tokenizer_config_json": {"model_max_length": -1}},
        "model_max_length in tokenizer_config.json is '-1'",
    ),
    "ids in a list": ({"vocab_json": ["a"], "merges_txt": ""}, "does not give every token a number"),
    "a path for a vocabulary": ({"vocab_json": "/etc/passwd", "merges_txt": ""}, "is not JSON"),
    "ids that are text": ({"vocab_json": {"a": "0"}, "merges_txt": ""}, "does not give every token a number"),
    "a merge of three": ({"vocab_json": {"a": 0}, "merges_txt": "a a a"}, "a line that does not name two tokens"),
    "a merge of unknowns": ({"vocab_json": {"a": 0}, "merges_txt": "#version: 0.2\nx y"}, "out of vocabulary"),
    "merges in a circle": ({"vocab_json": {"a": 0, "b": 1, "ab": 2}, "merges_txt": "a b\nab a"}, "cannot be used"),
}


@pytest.mark.parametrize("files, message", BROKEN.values(), ids=BROKEN)
def test_a_broken_vocabulary_is_corrupt(tmp_path, files, message):
    with pytest.raises(CorruptFile, match=message):
        load(write(tmp_path, **files))


def test_a_vocabulary_of_endless_lines_is_refused_without_reading_them_all(tmp_path):
    with pytest.raises(InvalidInput, match="has the id 1000, but the embedding has 1000 rows"):
        load(write(tmp_path, vocab_txt="[UNK]\n" + "\n".join(map(str, range(100_000)))))


def test_endless_merges_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MERGES", 10)
    with pytest.raises(LimitExceeded, match="has over 10 lines"):
        load(write(tmp_path, vocab_json={"a": 0}, merges_txt="a a\n" * 11))


def test_an_added_token_that_would_get_another_id_than_listed_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="<new> is listed as id 900, but comes to"):
        load(write(tmp_path, vocab_txt="\n".join(WORDPIECES), added_tokens_json={"<new>": 900}))


def test_a_listed_id_of_any_length_makes_a_short_error(tmp_path):
    with pytest.raises(InvalidInput) as refused:
        load(write(tmp_path, vocab_txt="\n".join(WORDPIECES), added_tokens_json={"<new>": "x" * 5000}))
    assert len(str(refused.value)) < 1000


def test_a_tokenizer_is_saved_whole_or_not_at_all(tmp_path, whole):
    text = load(write(tmp_path / "a", tokenizer_json=whole))
    (tmp_path / "b" / "tokenizer.json").mkdir(parents=True)
    with pytest.raises(TriarchError, match="cannot write"):
        text.save(tmp_path / "b")
