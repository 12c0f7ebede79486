"""Texts that say which language they are in, as mBART's and mBART-50's do, against the reference and the package.

Ids are those of the sentencepiece package, moved as fairseq moves them. MBart50Tokenizer 5.23 leaves a piece for spaces
around text and before special tokens; MBartTokenizer 5.23 leaves normalisation out. 4.57 did neither.
"""

import json

import pytest
import sentencepiece
import transformers

import pairs
import tiny
from probes import PROBES, ROBERTA
from triarch.errors import InvalidInput
from triarch.files import Folder
from triarch.inputs.text.processor import load_text
from triarch.models import family

CLASSES = ["MBartTokenizer", "MBart50Tokenizer"]
SENTENCES = pairs.ENGLISH + pairs.FRENCH
LETTERS = ("marks", "Hangul")  # letters of several characters, see tests/test_sentencepiece.py
SPACED = ("RoBERTa's specials", "only spaces", "loose", "control")
NORMALISED = ("accents", "full width", "spaces", "control", "digits", "underlines", "beyond the BMP")


@pytest.fixture(scope="session")
def model():
    return pairs.train(SENTENCES)


@pytest.fixture(params=CLASSES)
def folder(request, model, tmp_path):
    return write(tmp_path / request.param, model, tokenizer_class=request.param)


def write(folder, model, **settings):
    folder.mkdir()
    (folder / "sentencepiece.bpe.model").write_bytes(model)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def ours(folder):
    return load_text(Folder(folder), family("mbart").reads, vocab_size=1000, max_tokens=512)


def theirs(folder):
    name = json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"]
    return getattr(transformers, name).from_pretrained(folder)


def alike(folder):
    """The probes of which the reference's class gives the ids of the package."""
    odd = NORMALISED if (folder / "tokenizer_config.json").read_text().count("MBartTokenizer") else SPACED
    return [*SENTENCES, *(text for name, text in PROBES.items() if name not in odd)]


def test_ids_are_those_of_the_package_moved_by_one(folder, model):
    processor, package = ours(folder), sentencepiece.SentencePieceProcessor(model_proto=model)
    for name, text in PROBES.items():
        if name not in LETTERS:
            wanted = [3 if id_ == package.unk_id() else id_ + 1 for id_ in package.encode(text)]
            assert processor.encode(text, special_tokens=False, parse_special=False).ids == wanted, name


def test_texts_have_the_ids_of_the_reference(folder):
    processor, tokenizer = ours(folder), theirs(folder)
    assert processor.tokenizer.get_vocab_size() == len(tokenizer)
    for text in alike(folder):
        assert processor.encode(text).ids == tokenizer(text)["input_ids"], text
        assert processor.target.encode(text).ids == tokenizer(text_target=text)["input_ids"], text
    assert processor.encode(*SENTENCES[:2]).ids == tokenizer(*SENTENCES[:2])["input_ids"]


def test_languages_have_the_ids_of_the_reference(folder):
    processor, tokenizer = ours(folder), theirs(folder)
    assert processor.languages == {code: tokenizer.convert_tokens_to_ids(code) for code in processor.languages}
    assert len(processor.languages) == (52 if "50" in folder.name else 25)
    assert processor.id("mask_token") == tokenizer.mask_token_id


def test_languages_of_the_settings_stand_around_sources_and_targets(model, tmp_path):
    for name in CLASSES:
        folder = write(tmp_path / name, model, tokenizer_class=name, src_lang="fr_XX", tgt_lang="de_DE")
        processor, tokenizer = ours(folder), theirs(folder)
        for text in SENTENCES:
            assert processor.encode(text).ids == tokenizer(text)["input_ids"]
            assert processor.target.encode(text).ids == tokenizer(text_target=text)["input_ids"]
        assert processor.languages["fr_XX"] in processor.encode("le").ids
        assert processor.languages["de_DE"] in processor.target.encode("le").ids


def test_languages_that_are_chosen_go_before_those_of_the_settings(folder):
    processor, tokenizer = ours(folder), theirs(folder)
    tokenizer.src_lang, tokenizer.tgt_lang = "ro_RO", "fr_XX"
    chosen = processor.between("ro_RO", "fr_XX")
    assert chosen.encode("le").ids == tokenizer("le")["input_ids"]
    assert chosen.target.encode("le").ids == tokenizer(text_target="le")["input_ids"]
    assert chosen.between(tgt_lang="de_DE").encode("le").ids == chosen.encode("le").ids
    ids, code = chosen.encode("le", special_tokens=False).ids, chosen.languages["ro_RO"]
    assert chosen.frame(ids)[0] == chosen.encode("le").ids
    assert code in chosen.frame(ids)[0]
    assert processor.encode("le").ids == theirs(folder)("le")["input_ids"]  # the one it came from is as it was


def test_a_text_that_spells_a_language_is_plain_text_on_request(folder):
    processor = ours(folder)
    assert processor.languages["fr_XX"] in processor.encode("the fr_XX fox", special_tokens=False).ids
    plain = processor.encode("the fr_XX fox", special_tokens=False, parse_special=False).ids
    assert not {*plain} & {*processor.languages.values()}
    assert processor.decode(processor.encode("the fox").ids, skip_special_tokens=True) == "the fox"


@pytest.mark.parametrize("name, near", [("fr_FR", "fr_XX"), ("fr", "fr_XX"), ("en-XX", "en_XX")])
def test_a_language_that_there_is_not_is_refused_with_names_that_begin_alike(folder, name, near):
    for chosen in ({"src_lang": name}, {"tgt_lang": name}):
        message = rf"has no language '{name}' \(did you mean {near}\?\); it has ar_AR, .* more"
        with pytest.raises(InvalidInput, match=message):
            ours(folder).between(**chosen)


@pytest.mark.parametrize("name", ["xx_XX", ["en_XX"], 5])
def test_a_language_of_the_settings_that_there_is_not_is_refused(model, tmp_path, name):
    with pytest.raises(InvalidInput, match="has no language"):
        ours(write(tmp_path / "source", model, src_lang=name))
    with pytest.raises(InvalidInput, match="has no language"):
        _ = ours(write(tmp_path / "target", model, tgt_lang=name)).target


def test_we_and_the_reference_read_the_same_ids_and_languages_from_what_we_save(folder, tmp_path):
    processor = ours(folder).between("fr_XX", "de_DE")
    processor.save(tmp_path / "saved")
    (tmp_path / "saved/config.json").write_text('{"model_type": "mbart"}')
    again, tokenizer = ours(tmp_path / "saved"), transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert (tokenizer.src_lang, tokenizer.tgt_lang) == ("fr_XX", "de_DE")
    for text in PROBES.values():
        assert again.encode(text).ids == processor.encode(text).ids
    for text in alike(folder):
        assert processor.encode(text).ids == tokenizer(text)["input_ids"]
        wanted = tokenizer(text_target=text)["input_ids"]
        assert processor.target.encode(text).ids == again.target.encode(text).ids == wanted
    assert again.between("ro_RO").encode("le").ids == processor.between("ro_RO").encode("le").ids


def test_the_class_may_be_named_in_the_config_of_the_model(model, tmp_path):
    folder = write(tmp_path / "model", model)
    assert len(ours(folder).languages) == 25
    (folder / "config.json").write_text('{"model_type": "mbart", "tokenizer_class": "MBart50TokenizerFast"}')
    assert len(ours(folder).languages) == 52


def test_a_processor_without_languages_has_none_to_choose(tmp_path, model):
    folder = write(tmp_path / "model", model)
    processor = load_text(Folder(folder), ROBERTA, vocab_size=1000, max_tokens=512)
    assert processor.target is processor
    assert processor.languages == {}
    with pytest.raises(InvalidInput, match="no languages to choose from"):
        processor.between("en_XX")
    assert processor.between().encode("le").ids == processor.encode("le").ids


def test_languages_are_read_off_the_vocabulary_once():
    """A long text asks for each of its pieces, and a vocabulary of 58,000 takes 20 ms to list."""
    processor = tiny.load("marian").processor
    assert processor.languages is processor.languages
