"""Tokenizers of decoders: byte-level BPE cut in several ways, and SentencePiece BPE whose ends the settings decide.

All of it was compared with 4.57 of the reference. Where version 5, the one installed here, gives other ids, the
sentencepiece package or the test itself states what 4.57 gives.
"""

import json
import re

import pytest
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from probes import PAIRS, PROBES
from triarch.errors import CorruptFile, InvalidInput
from triarch.files import Folder
from triarch.inputs.text.processor import load_text
from triarch.models import family
from vocabularies import AS_IT_STANDS, SENTENCES, train, write

TEXTS = [
    *PROBES.values(),
    "Hello <s> world</s> .",
    "<s>Hello</s>",
    " <s> x  </s>  y",
    "<|begin|>Hi<|turn|> there <|end|>\n<|endoftext|>",
    "123 4567 89.0 1,000,000",
    "x\n\n  y\t\tz \r\n",
    "<0x41> bytes <0x0A>",
]


def load(folder, name="llama"):
    return load_text(Folder(folder), family(name).reads, vocab_size=1000, max_tokens=10_000)


def assert_same(processor, tokenizer):
    """Ids, offsets and what is decoded are those of the reference."""
    for text in TEXTS:
        got, wanted = processor.encode(text), tokenizer(text, return_offsets_mapping=True)
        assert got.ids == wanted["input_ids"]
        assert got.offsets == wanted["offset_mapping"]
        assert processor.decode(got.ids) == tokenizer.decode(got.ids)
        literal = processor.encode(text, parse_special=False).ids
        assert literal == tokenizer(text, split_special_tokens=True)["input_ids"]
    for pair in PAIRS:
        assert processor.encode(*pair).ids == tokenizer(*pair)["input_ids"]


def assert_saved(processor, name, folder):
    """We and the reference read the same ids from what we save."""
    processor.save(folder)
    again, tokenizer = (
        load(write(folder, config_json={"model_type": name}), name),
        AutoTokenizer.from_pretrained(folder),
    )
    for text in TEXTS:
        assert processor.encode(text).ids == again.encode(text).ids == tokenizer(text)["input_ids"]
        assert processor.decode(processor.encode(text).ids) == again.decode(again.encode(text).ids)
    for pair in PAIRS:
        assert processor.encode(*pair).ids == again.encode(*pair).ids == tokenizer(*pair)["input_ids"]


# Byte-level BPE

# As tiktoken's cl100k and Llama 3 cut text: up to three digits, and a word with the sign before it
THREE_DIGITS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def byte_level(splitter, *special):
    """A BPE of bytes, trained on a few sentences, in a tokenizer.json."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = splitter, decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=450, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return json.loads(tokenizer.to_str())


def llama3():
    """Words of the vocabulary are found whole, also where no merges lead to them."""
    state = byte_level(
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(THREE_DIGITS), "isolated"), BYTES]),
        *("<|begin|>", "<|end|>", "<|turn|>"),
    )
    state["model"] |= {"ignore_merges": True, "merges": state["model"]["merges"][:-30]}
    tokenizer = Tokenizer.from_str(json.dumps(state))
    begin = ("<|begin|>", tokenizer.token_to_id("<|begin|>"))
    around = processors.TemplateProcessing("<|begin|> $A", "<|begin|> $A <|begin|>:1 $B:1", [begin])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), around])
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin|>", "eos_token": "<|end|>"}
    return {"tokenizer_json": json.loads(tokenizer.to_str()), "tokenizer_config_json": settings}


def smollm():
    """GPT-2's, with each digit by itself."""
    digits = pre_tokenizers.Digits(individual_digits=True)
    splitter = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    settings = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "bos_token": "<|begin|>",
        "eos_token": "<|end|>",
        "unk_token": "<|endoftext|>",
        "additional_special_tokens": ["<|begin|>", "<|end|>"],
    }
    state = byte_level(splitter, "<|endoftext|>", "<|begin|>", "<|end|>")
    return {"tokenizer_json": state, "tokenizer_config_json": settings}


def gpt2():
    state = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), "<|endoftext|>")
    return {"tokenizer_json": state, "tokenizer_config_json": {"tokenizer_class": "GPT2Tokenizer"}}


def bare(**settings):
    """vocab.json and merges.txt."""
    model = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))["model"]
    vocabulary = model["vocab"] | {"<|endoftext|>": len(model["vocab"])}
    merges = "\n".join(["#version: 0.2", *map(" ".join, model["merges"]), ""])
    return {"vocab_json": vocabulary, "merges_txt": merges, "tokenizer_config_json": settings}


BYTE_LEVEL = {
    "Llama 3": ("llama", llama3),
    "SmolLM2": ("llama", smollm),
    "GPT-2": ("gpt2", gpt2),
    "GPT-2, bare": ("gpt2", bare),
    "Qwen2, bare": ("qwen2", lambda: bare(tokenizer_class="Qwen2Tokenizer", eos_token="<|endoftext|>")),
}


@pytest.fixture(scope="module", params=BYTE_LEVEL)
def folder(request, tmp_path_factory):
    name, files = BYTE_LEVEL[request.param]
    return name, write(tmp_path_factory.mktemp("folder"), config_json={"model_type": name}, **files())


def test_byte_level_text_is_read_and_written_as_the_reference_does(folder):
    name, path = folder
    assert_same(load(path, name), AutoTokenizer.from_pretrained(path))


def test_byte_level_text_comes_back_as_it_was(folder):
    processor = load(folder[1], folder[0])
    for text in TEXTS:
        composed = (
            text if "NFC" not in processor.tokenizer.to_str() else processor.tokenizer.normalizer.normalize_str(text)
        )
        assert processor.decode(processor.encode(text, special_tokens=False).ids) == composed


def test_byte_level_text_is_read_the_same_from_what_we_save(folder, tmp_path):
    name, path = folder
    assert_saved(load(path, name), name, tmp_path)


def test_a_word_of_the_vocabulary_is_found_whole_where_merges_are_ignored(tmp_path):
    files = llama3()
    merged = {"".join(merge) for merge in files["tokenizer_json"]["model"]["merges"]}
    unreachable = next(
        word for word in files["tokenizer_json"]["model"]["vocab"] if len(word) > 4 and word not in merged
    )
    text = unreachable.replace("Ġ", " ")
    assert load(write(tmp_path, **files)).encode(text, special_tokens=False).tokens == [unreachable]


@pytest.mark.parametrize(
    "name, pieces", [("Llama 3", ["123", "45"]), ("SmolLM2", [*"12345"]), ("Qwen2, bare", [*"12345"])]
)
def test_digits_are_cut_as_each_family_does(tmp_path, name, pieces):
    kind, files = BYTE_LEVEL[name]
    processor = load(write(tmp_path, **files()), kind)
    splitter = processor.tokenizer.pre_tokenizer
    assert [piece for piece, _ in splitter.pre_tokenize_str("12345")] == pieces


# SentencePiece BPE


@pytest.fixture(scope="module")
def model():
    return train(model_type="bpe", vocab_size=400, **AS_IT_STANDS)


def spoken(package, text, *, begin=True, end=False):
    """Ids as the package gives them for each stretch of text between special tokens."""
    parts = [part for part in re.split(r"(<s>|</s>|<unk>|<usr>)", text) if part]
    inner = [
        id_
        for part in parts
        for id_ in ([package.piece_to_id(part)] if part in ("<s>", "</s>", "<unk>", "<usr>") else package.encode(part))
    ]
    return [1] * begin + inner + [2] * end


SPOKEN = {
    "no settings": ({}, {}),
    "class": ({"tokenizer_class": "LlamaTokenizer"}, {}),
    "the class of version 4": ({"tokenizer_class": "LlamaTokenizerFast", "legacy": True}, {}),
    "end asked for": ({"add_eos_token": True}, {"end": True}),
    "nothing asked for": ({"add_bos_token": False, "add_eos_token": False}, {"begin": False}),
}


@pytest.mark.parametrize("settings, ends", SPOKEN.values(), ids=SPOKEN)
@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_a_sentencepiece_model_is_read_as_the_package_does_and_framed_as_the_settings_say(
    tmp_path, model, name, settings, ends
):
    package = sentencepiece.SentencePieceProcessor(model_proto=model)
    processor = load(write(tmp_path, tokenizer_model=model, tokenizer_config_json=settings), name)
    for text in TEXTS:
        assert processor.encode(text).ids == spoken(package, text, **ends)


def test_text_of_a_sentencepiece_model_comes_back_as_it_was(tmp_path, model):
    processor = load(write(tmp_path, tokenizer_model=model, tokenizer_config_json={}))
    for text in PROBES.values():
        if "▁" not in text:  # which stands for a space
            assert processor.decode(processor.encode(text, parse_special=False, special_tokens=False).ids) == text


def test_a_pair_is_framed_text_by_text(tmp_path, model):
    settings = {"add_bos_token": True, "add_eos_token": True}
    processor = load(write(tmp_path, tokenizer_model=model, tokenizer_config_json=settings))
    first, second = (processor.encode(text).ids for text in ("the fox", "a dog"))
    assert processor.encode("the fox", "a dog").ids == first + second


# With tokenizer.json. Version 5 reads it as 4.57 does where the settings say legacy=false


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """The files that 4.57 would write for the model: by whether a space is put after special tokens too."""

    def state(legacy):
        settings = {"legacy": legacy, "tokenizer_class": "LlamaTokenizer"}
        folder = write(tmp_path_factory.mktemp("model"), tokenizer_model=model, tokenizer_config_json=settings)
        return json.loads(load(folder).tokenizer.to_str())

    return {legacy: state(legacy) for legacy in (True, False)}


NAMED = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


@pytest.mark.parametrize("prefix", [None, True, False])
def test_a_new_tokenizer_is_that_of_the_reference(tmp_path, model, whole, prefix):
    settings = NAMED | {"legacy": False, "add_prefix_space": prefix}
    files = {"tokenizer_model": model, "tokenizer_json": whole[False], "tokenizer_config_json": settings}
    folder = write(tmp_path, config_json={"model_type": "llama"}, **files)
    assert_same(load(folder), AutoTokenizer.from_pretrained(folder))


FRAMED = {
    "as usual": ({}, ["<s>", "it"]),
    "end asked for": ({"add_eos_token": True}, ["<s>", "it", "</s>"]),
    "beginning refused": ({"add_bos_token": False}, ["it"]),
    "both turned": ({"add_bos_token": False, "add_eos_token": True}, ["it", "</s>"]),
    "no class": ({"tokenizer_class": None, "add_eos_token": True}, ["<s>", "it", "</s>"]),
    "another class": ({"tokenizer_class": "PreTrainedTokenizerFast", "add_eos_token": True}, ["</s>", "it"]),
}


@pytest.mark.parametrize("settings, wanted", FRAMED.values(), ids=FRAMED)
def test_the_settings_of_a_llama_tokenizer_go_before_the_frame_in_tokenizer_json(tmp_path, whole, settings, wanted):
    around = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "</s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}},
    }
    files = {"tokenizer_json": whole[True] | {"post_processor": around}, "tokenizer_config_json": NAMED | settings}
    processor = load(write(tmp_path, **files))
    inner = processor.encode("it", special_tokens=False).tokens
    assert processor.encode("it").tokens == [t for name in wanted for t in (inner if name == "it" else [name])]


def test_tokenizer_json_is_passed_over_where_the_settings_say_how_text_begins(tmp_path, model, whole):
    settings = NAMED | {"add_prefix_space": False}
    alone = load(write(tmp_path / "alone", tokenizer_json=whole[True], tokenizer_config_json=settings))
    files = {"tokenizer_model": model, "tokenizer_json": whole[True], "tokenizer_config_json": settings}
    beside = load(write(tmp_path / "beside", **files))
    assert alone.encode("the").tokens[1].startswith("▁")
    assert not beside.encode("the").tokens[1].startswith("▁")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"legacy": False},
        {"add_prefix_space": False},
        {"add_bos_token": False},
        {"add_eos_token": True, "pad_token": "</s>"},
        {"pad_token": "<pad>", "legacy": False},
    ],
    ids=str,
)
def test_a_sentencepiece_model_is_read_the_same_from_what_we_save(tmp_path, model, settings):
    processor = load(write(tmp_path / "read", tokenizer_model=model, tokenizer_config_json=settings))
    assert_saved(processor, "llama", tmp_path / "saved")


REFUSED = {
    "no beginning is named": ({"bos_token": None}, InvalidInput, "add_bos_token asks for a bos_token"),
    "no end is named": ({"eos_token": None, "add_eos_token": True}, InvalidInput, "add_eos_token asks for"),
    "a number for a flag": ({"add_bos_token": 1}, CorruptFile, "add_bos_token .* wanted true or false"),
    "text for a flag": ({"legacy": "no"}, CorruptFile, "legacy .* wanted true or false"),
}


@pytest.mark.parametrize("settings, error, message", REFUSED.values(), ids=REFUSED)
def test_settings_that_cannot_be_are_refused(tmp_path, model, settings, error, message):
    with pytest.raises(error, match=message):
        load(write(tmp_path, tokenizer_model=model, tokenizer_config_json=settings))
