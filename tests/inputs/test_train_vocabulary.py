"""Training a vocabulary: what is learned, what comes back, and that the reference opens it."""

import json
import random

import pytest
from transformers import AutoTokenizer, BertTokenizer, RobertaTokenizer

import tiny
from probes import BERT, PAIRS, PLAIN, PROBES, ROBERTA, XLM_ROBERTA
from triarch.checkpoint import load_tokenizer
from triarch.errors import InvalidInput, LimitExceeded, NotFound, TriarchError, Unsupported
from triarch.inputs.text.format import TextFormat
from triarch.inputs.text.train_vocabulary import KINDS, save_vocabulary, train_vocabulary
from triarch.models import family

TEXTS = [
    *tiny.SENTENCES,
    *tiny.SENTENCES[:6],
    "日本語 を 話す",
    "émoji 👍🏽 and 👨‍👩‍👧‍👦",
    "naïve Ångström",
    "tab\there\x00",
]
FORMATS = {"wordpiece": BERT, "bpe": ROBERTA, "unigram": XLM_ROBERTA}


def train(kind, size=400, texts=TEXTS, text_format=None, **options):
    return train_vocabulary(texts, kind, size, text_format or FORMATS.get(kind, BERT), **options)


def entries(processor):
    """Every entry in the order of its id, from 0 on without gaps."""
    vocabulary = processor.tokenizer.get_vocab()
    ordered = sorted(vocabulary, key=vocabulary.get)
    assert [vocabulary[entry] for entry in ordered] == list(range(processor.vocab_size))
    return ordered


@pytest.fixture(scope="module", params=KINDS)
def trained(request):
    return train(request.param)


# What is learned


@pytest.mark.parametrize(
    "kind, first",
    [
        ("wordpiece", ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]),
        ("bpe", ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]),
        ("unigram", ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]),
    ],
)
def test_special_tokens_come_first_in_the_order_of_the_family(kind, first):
    processor = train(kind)
    assert entries(processor)[:5] == first
    assert processor.id("pad_token") == first.index(processor.token("pad_token"))


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_sentinels_come_last_and_count_down(kind):
    found = entries(train(kind, 400, text_format=family("t5").reads))
    assert found[:3] == ["<pad>", "</s>", "<unk>"]
    assert found[-100:] == [f"<extra_id_{i}>" for i in reversed(range(100))]
    assert len(found) <= 400


def test_a_family_of_languages_has_a_vocabulary_without_any():
    processor = train("unigram", text_format=family("marian").reads)
    assert processor.encode("The fox").ids[-1] == processor.id("eos_token")


@pytest.mark.parametrize("kind, size", [("wordpiece", 150), ("bpe", 300), ("unigram", 120)])
def test_a_vocabulary_is_as_large_as_was_asked_for(kind, size):
    assert len(entries(train(kind, size))) == size


@pytest.mark.parametrize("kind, size", [("wordpiece", 60), ("bpe", 300), ("unigram", 24)])
def test_what_recurs_is_one_entry_and_what_is_new_is_spelled(kind, size):
    processor = train(kind, size, ["walk walks walked walking talk talks talked talking"] * 5)
    tokens = [token.strip("#Ġ▁") for token in processor.encode("walking salted", special_tokens=False).tokens]
    assert tokens[0].startswith("walk")
    assert "salted" not in tokens


def test_wordpiece_has_every_character_both_ways_it_occurs():
    found = entries(train("wordpiece", 30, ["ab ab", "ba", "c"]))
    assert found[5:] == ["a", "b", "c", "##a", "##b", "ab"]


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_pairs_are_joined_when_they_were_seen_often_enough(kind):
    texts = ["xy", "xy zz"]

    def pieces(**options):
        return {piece.replace("##", "") for piece in entries(train(kind, 300, texts, **options))}

    assert "xy" in pieces()
    assert "zz" not in pieces()
    assert "zz" in pieces(min_frequency=1)
    assert "xy" not in pieces(min_frequency=3)


def test_lowercase_is_as_the_family_has_it_for_wordpiece_and_off_for_others():
    assert train("wordpiece").encode("PARIS").ids == train("wordpiece").encode("paris").ids
    assert train("wordpiece", text_format=ROBERTA).encode("PARIS").ids != train("wordpiece").encode("paris").ids
    for kind in ("bpe", "unigram"):
        assert train(kind).encode("PARIS").ids != train(kind).encode("paris").ids
        lower = train(kind, lowercase=True)
        assert lower.encode("PARIS").ids == lower.encode("paris").ids


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_the_rarest_characters_stay_unknown_on_request(kind):
    texts = ["aa bb aa bb ab"] * 3 + ["☃☃"]
    most = {"wordpiece": 2, "unigram": 3}[kind]  # in Unigram with the mark of a word's beginning
    some = train(kind, 60, texts, max_characters=most)
    assert not [entry for entry in entries(some) if "☃" in entry]
    assert [entry for entry in entries(train(kind, 60, texts)) if "☃" in entry]


def test_fewer_entries_than_asked_for_are_counted():
    for kind in KINDS:
        processor = train(kind, 50_000)
        assert len(entries(processor)) == processor.vocab_size < 50_000


def test_texts_are_read_once_one_by_one():
    ahead = []

    def generated():
        for number, text in enumerate(TEXTS * 3):
            ahead.append(number)
            yield text

    for kind in KINDS:
        ahead.clear()
        assert entries(train(kind, texts=generated())) == entries(train(kind, texts=TEXTS * 3))
        assert ahead == list(range(len(TEXTS) * 3))


@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_goes_with_any_family(kind):
    for text_format in (BERT, ROBERTA, XLM_ROBERTA, PLAIN):
        processor = train(kind, text_format=text_format)
        around = [processor.token(role) or "" for role in ("cls_token", "sep_token")]
        assert processor.decode(processor.encode("Paris").ids).strip().lower().startswith(around[0].lower())
        assert processor.segments == text_format.segments


# Always the same


def test_the_same_texts_give_the_same_files_byte_for_byte(trained, tmp_path, request):
    kind = request.node.callspec.params["trained"]
    folders = []
    for number in range(4):
        save_vocabulary(train(kind, texts=iter(TEXTS)), folder := tmp_path / str(number))
        folders.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert folders[0] == folders[1] == folders[2] == folders[3]


@pytest.mark.parametrize("kind", KINDS)
def test_ties_of_every_kind_are_decided_in_the_same_way(kind):
    rng = random.Random(5)
    words = ["".join(rng.choices("abcdefgh", k=rng.randint(1, 7))) for _ in range(300)]  # nearly all come but once
    texts = [" ".join(words[i : i + 10]) for i in range(0, len(words), 10)]
    first, *others = (train(kind, 340, texts).tokenizer.to_str() for _ in range(6))
    assert all(other == first for other in others)


# What comes back


def anything(count):
    """Texts of characters of all planes, and none of half a surrogate pair."""
    rng = random.Random(0)
    ranges = [(0, 128), (0, 0x500), (0x2000, 0x3100), (0xE000, 0x10000), (0x1F300, 0x1FAFF), (0, 0xD800)]
    return ["".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randrange(60))) for _ in range(count)]


@pytest.mark.parametrize("text", [*PROBES.values(), " <mask>", *anything(50)])
def test_byte_pairs_give_every_text_back_to_the_letter(text):
    processor = shared("bpe")
    ids = processor.encode(text, special_tokens=False, parse_special=False).ids
    assert processor.decode(ids) == text


@pytest.mark.parametrize("text", TEXTS)
def test_unigram_gives_text_back_in_its_normal_form(text):
    processor = shared("unigram")
    ids = processor.encode(f"  {text}\n\t", special_tokens=False).ids
    assert processor.decode(ids) == " ".join(processor.tokenizer.normalizer.normalize_str(text).split())


@pytest.mark.parametrize("text", ["paris is the capital of france", "the cafe in zurich"])
def test_wordpiece_gives_words_back(text):
    processor = shared("wordpiece")
    assert processor.decode(processor.encode(text, special_tokens=False).ids) == text


SHARED = {}


def shared(kind):
    """A vocabulary that is trained once."""
    return SHARED.get(kind) or SHARED.setdefault(kind, train(kind))


# Files


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text_format", [BERT, ROBERTA, XLM_ROBERTA], ids=["bert", "roberta", "xlm-roberta"])
def test_the_reference_gives_the_same_ids(kind, text_format, tmp_path):
    processor = train(kind, text_format=text_format)
    save_vocabulary(processor, tmp_path)
    theirs, again = AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(tmp_path)
    for text in [*PROBES.values(), *TEXTS]:
        assert theirs(text)["input_ids"] == processor.encode(text).ids == again.encode(text).ids
    for pair in PAIRS:
        encoding = processor.encode(*pair)
        assert theirs(*pair)["input_ids"] == encoding.ids
        assert theirs(*pair, return_token_type_ids=True)["token_type_ids"] == encoding.type_ids
    ids = processor.encode(TEXTS[0]).ids
    assert theirs.decode(ids, skip_special_tokens=True) == processor.decode(ids, True) == again.decode(ids, True)
    for role, token in text_format.specials.items():
        assert getattr(theirs, role) == token == again.token(role)


def test_bare_files_are_those_of_the_older_classes(tmp_path):
    """Opened without tokenizer.json beside them."""
    for kind, made, names in (
        ("wordpiece", BertTokenizer, ["vocab.txt"]),
        ("bpe", RobertaTokenizer, ["vocab.json", "merges.txt"]),
    ):
        save_vocabulary(train(kind), tmp_path / kind)
        bare = tmp_path / f"bare {kind}"
        bare.mkdir()
        for name in names:
            (tmp_path / kind / name).rename(bare / name)
        theirs, ours = made.from_pretrained(bare), load_tokenizer(bare, family_name=made.__name__[:-9].lower())
        for text in TEXTS:
            assert theirs(text)["input_ids"] == shared(kind).encode(text).ids == ours.encode(text).ids


def test_decoding_in_version_4_changes_no_spaces(trained, tmp_path):
    save_vocabulary(trained, tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["clean_up_tokenization_spaces"] is False


def test_a_saved_vocabulary_knows_its_size_and_segments(trained, tmp_path):
    save_vocabulary(trained, tmp_path)
    again = load_tokenizer(tmp_path)
    assert (again.vocab_size, again.segments) == (trained.vocab_size, trained.segments)


def test_a_longest_text_is_kept(tmp_path):
    save_vocabulary(train("bpe", max_tokens=77), tmp_path)
    assert load_tokenizer(tmp_path).max_tokens == 77


def test_a_folder_without_a_tokenizer(tmp_path):
    with pytest.raises(NotFound, match="say which family"):
        load_tokenizer(tmp_path)
    with pytest.raises(NotFound, match="holds no tokenizer"):
        load_tokenizer(tmp_path, family_name="bert")


def test_saving_into_a_file_is_refused(trained, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TriarchError, match="cannot make the folder"):
        save_vocabulary(trained, tmp_path / "file")


# Bad input


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", [[], [""], [" \n", "\u3000"]])
def test_no_text_is_refused(kind, texts):
    with pytest.raises(InvalidInput, match="no text to learn from"):
        train(kind, texts=texts)


def test_text_that_normalisation_leaves_out_is_refused():
    with pytest.raises(InvalidInput, match="nothing but what normalisation leaves out"):
        train("wordpiece", texts=["\x00\x01"])


@pytest.mark.parametrize(
    "kind, message",
    [("wordpiece", "5 special tokens and 5 characters"), ("bpe", "256 bytes"), ("unigram", "and 4 characters")],
)
def test_a_vocabulary_too_small_for_its_alphabet_is_refused_with_what_it_takes(kind, message):
    texts = ["ab ab", "ba", "c"]
    with pytest.raises(InvalidInput, match=rf"{message}.*ask for at least (\d+)") as refused:
        train(kind, 7, texts)
    least = int(str(refused.value).split("at least ")[1].split(",")[0])
    assert train(kind, least, texts).vocab_size == least


BAD = [
    ({"kind": "wordpice"}, r"no kind 'wordpice' \(did you mean wordpiece\?\)"),
    ({"texts": "abc"}, "texts are a str"),
    ({"texts": 5}, "texts are a int"),
    ({"texts": ["a", 5]}, "text 1: it is a int, wanted a string"),
    ({"texts": ["a", None]}, "text 1: it is a NoneType"),
    ({"texts": ["a", "b", "\ud800"]}, "text 2: the text has a lone surrogate"),
    ({"size": 0}, "vocab_size is 0"),
    ({"size": True}, "vocab_size is True"),
    ({"size": 1 << 40}, "wanted a count up to 16,777,216"),
    ({"min_frequency": 0}, "min_frequency is 0"),
    ({"max_characters": "3"}, "max_characters is 3, wanted a count"),
    ({"kind": "unigram", "min_frequency": 2}, "which unigram does not join"),
    ({"kind": "characters", "min_frequency": 2}, "which characters does not join"),
    ({"kind": "characters", "size": 20}, "5 special tokens and 74 characters; ask for at least 79, or set max_char"),
    ({"kind": "bpe", "max_characters": 2}, "byte-level BPE has bytes"),
    ({"max_characters": 1, "texts": ["abc abd"]}, "no word is left of the 1 most frequent characters"),
]


@pytest.mark.parametrize("given, message", BAD)
def test_bad_input_is_refused_by_name(given, message):
    with pytest.raises(InvalidInput, match=message):
        train(**{"kind": "wordpiece"} | given)


def test_a_text_that_is_too_long_is_refused(monkeypatch):
    monkeypatch.setattr("triarch.limits.TEXT_CHARACTERS", 10)
    with pytest.raises(LimitExceeded, match="text 1: the text has 11 characters"):
        train("bpe", texts=["a", "a" * 11])


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_a_family_without_an_unknown_token_takes_bytes(kind):
    text_format = TextFormat(single="$A", pair="$A $B", specials={"eos_token": "<|end|>"})
    with pytest.raises(Unsupported, match='use kind "bpe"'):
        train(kind, text_format=text_format)
    assert train("bpe", text_format=text_format).encode("a").ids


def test_an_error_of_the_source_comes_through():
    def failing():
        yield "some text"
        raise InvalidInput("line 7 is broken")

    for kind in KINDS:
        with pytest.raises(InvalidInput, match=r"^line 7 is broken$"):
            train(kind, texts=failing())


# Characters


def test_characters_come_back_to_the_letter_here_and_in_the_reference(tmp_path):
    text = "First Citizen:\nBefore we\n\n  proceed — señor 👍🏽<s>\t"
    processor = train("characters", texts=text.split("\n"), text_format=FORMATS["bpe"])
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    assert entries(processor) == [*specials, *sorted(set(text))]
    ids = processor.encode(text, special_tokens=False, parse_special=False).ids
    assert len(ids) == len(text)
    assert processor.decode(ids) == text
    save_vocabulary(processor, tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json"}
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    plain = text.replace("<s>", "")
    assert theirs(plain)["input_ids"] == processor.encode(plain).ids
    assert theirs.decode(ids) == text


def test_characters_that_were_not_seen_are_unknown():
    processor = train("characters", texts=["abba ba", "b c"], max_characters=3)
    assert entries(processor)[5:] == ["\n", " ", "a", "b"]
    assert processor.tokens(processor.encode("a\ncz", special_tokens=False).ids) == ["a", "\n", "[UNK]", "[UNK]"]
