"""A translator's two vocabularies, against the reference's MarianTokenizer.

sacremoses is not installed here, so neither of the two mends punctuation.
"""

import copy
import json
import warnings

import pytest
import torch
import transformers

import pairs
import triarch
from probes import PAIRS, PROBES
from triarch.checkpoint import load_tokenizer
from triarch.errors import CorruptFile, InvalidInput, NotFound, Unsupported
from triarch.files import Folder
from triarch.inputs.text.processor import load_text
from triarch.models import family

MARIAN = family("marian").reads
CODES = (">>fra<<", ">>deu<<", ">>zho_Hans<<")
LEFT_OUT = ("▁the", "s", "é")
KINDS = {
    "one table": {},
    "one table, with codes": {"codes": CODES},
    "one table without some pieces": {"left_out": LEFT_OUT},
    "two tables": {"apart": True},
    "two tables, with codes and without some pieces": {"apart": True, "codes": CODES, "left_out": LEFT_OUT},
}
TEXTS = [
    *PROBES.values(),
    *pairs.ENGLISH,
    *pairs.FRENCH,
    ">>fra<< The fox",
    ">>fra<<The fox",
    ">>fra<<   the   fox ",
    ">>fra<<",
    " >>fra<< the fox",
    "the >>fra<< fox >>deu<<",
    ">>zho_Hans<< >>fra<< fox",
    "The fox</s>the dog <unk> <pad>",
    "<pad> The fox",
]


@pytest.fixture(scope="session")
def models():
    return pairs.train(pairs.ENGLISH), pairs.train(pairs.FRENCH)


def theirs(folder):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Recommended: pip install sacremoses")
        return transformers.MarianTokenizer.from_pretrained(folder)


def ours(folder):
    return load_text(Folder(folder), MARIAN, vocab_size=1000, max_tokens=512)


@pytest.fixture(params=KINDS)
def both(request, models, tmp_path):
    folder = pairs.write(tmp_path / "pair", *models, **KINDS[request.param])
    return ours(folder), theirs(folder)


def known(text, tokenizer):
    """Whether the code that a text begins with, if any, is one of the table."""
    return not text.startswith(">>") or text[: text.find("<<") + 2] in tokenizer.encoder


def test_sources_have_the_ids_of_the_reference(both):
    processor, tokenizer = both
    for text in TEXTS:
        if known(text, tokenizer):
            assert processor.encode(text).ids == tokenizer(text)["input_ids"], text
    for first, second in PAIRS:
        assert processor.encode(first, second).ids == tokenizer(first, second)["input_ids"]


def test_targets_have_the_ids_of_the_reference(both):
    processor, tokenizer = both
    for text in TEXTS:
        if known(text, tokenizer):
            assert processor.target.encode(text).ids == tokenizer(text_target=text)["input_ids"], text


@pytest.mark.parametrize("text", [*pairs.FRENCH, "Le renard</s>", "<pad> Le <unk>renard"])
def test_what_is_written_is_decoded_as_the_reference_does(both, text):
    processor, tokenizer = both
    ids = processor.target.encode(text).ids
    assert processor.target.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids, skip_special_tokens=True)
    got, wanted = processor.target.decode(ids), tokenizer.decode(ids)  # which puts a space after special tokens
    assert got.replace(" ", "") == wanted.replace(" ", "")


def test_a_text_comes_back(both):
    processor, _ = both
    sentence = pairs.FRENCH[0]
    if processor.id("unk_token") not in processor.target.encode(sentence).ids:
        assert processor.target.decode(processor.target.encode(sentence).ids, skip_special_tokens=True) == sentence


def test_special_tokens_in_text_are_plain_text_on_request(both):
    processor, tokenizer = both
    for text in TEXTS:
        if known(text, tokenizer):
            got = processor.encode(text, parse_special=False).ids
            assert got == tokenizer(text, split_special_tokens=True)["input_ids"], text


def test_we_and_the_reference_read_the_same_ids_from_what_we_save(both, tmp_path):
    processor, _ = both
    processor.save(tmp_path / "saved")
    again, tokenizer = ours(tmp_path / "saved"), theirs(tmp_path / "saved")
    assert not (tmp_path / "saved/tokenizer.json").exists()
    for text in TEXTS:
        if known(text, tokenizer):
            assert processor.encode(text).ids == again.encode(text).ids == tokenizer(text)["input_ids"]
            wanted = tokenizer(text_target=text)["input_ids"]
            assert processor.target.encode(text).ids == again.target.encode(text).ids == wanted
    assert again.config["source_lang"] == "en"


def test_the_model_is_found_by_its_type_in_the_reference_too(models, tmp_path):
    pairs.write(tmp_path, *models)
    ours(tmp_path).save(tmp_path / "saved")
    (tmp_path / "saved/config.json").write_text('{"model_type": "marian"}')
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Recommended: pip install sacremoses")
        assert type(transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")) is transformers.MarianTokenizer


def test_tokens_that_were_added_are_saved_with_their_ids(models, tmp_path):
    pairs.write(tmp_path, *models)
    count = len(json.loads((tmp_path / "vocab.json").read_text()))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<name>": count}))
    assert count in ours(tmp_path).encode("The <name> fox").ids
    ours(tmp_path).save(tmp_path / "saved")
    again = ours(tmp_path / "saved").encode("The <name> fox").ids
    assert count in again
    assert theirs(tmp_path / "saved")("The <name> fox")["input_ids"] == again


def test_two_tables_may_number_special_tokens_differently(models, tmp_path):
    pairs.write(tmp_path, *models, apart=True)
    table = json.loads((tmp_path / "target_vocab.json").read_text())
    (tmp_path / "target_vocab.json").write_text(json.dumps(table | {"<pad>": len(table)}))
    ours(tmp_path).save(tmp_path / "saved")
    for folder in (tmp_path, tmp_path / "saved"):
        processor = ours(folder)
        assert (processor.id("pad_token"), processor.target.id("pad_token")) == (2, len(table))


@pytest.mark.parametrize("text", [">>fra<< The  fox lives", ">>fra<<The fox", "The café, 日本", "\ufb01ve"])
def test_offsets_are_those_of_the_text(models, tmp_path, text):
    processor = ours(pairs.write(tmp_path, *models, codes=CODES))
    encoding = processor.encode(text)
    spans = [span for span, special in zip(encoding.offsets, encoding.special_tokens_mask, strict=True) if not special]
    assert spans == sorted(spans)
    covered = {place for begin, end in spans for place in range(begin, end)}
    assert covered >= {place for place, character in enumerate(text) if character != " "}
    if text.startswith(">>"):
        assert spans[0] == (0, 7)


def test_long_texts_are_read_in_windows(models, tmp_path):
    processor = ours(pairs.write(tmp_path, *models))
    text = " ".join(pairs.ENGLISH)
    whole = processor.encode(text).ids
    windows = processor.windows(text, max_tokens=20)
    assert [id_ for window in windows for id_ in window.ids[:-1]] == whole[:-1]
    assert {window.ids[-1] for window in windows} == {processor.id("eos_token")}


def test_words_come_already_split_too(models, tmp_path):
    processor = ours(pairs.write(tmp_path, *models))
    assert processor.encode(["The", "fox"]).ids == processor.encode("The fox").ids
    assert processor.encode(["The", "fox"]).word_ids[0] == 0


def test_a_code_that_the_table_lacks_is_plain_text(models, tmp_path):
    folder = pairs.write(tmp_path, *models, codes=CODES)
    text = ">> what << you wrote"
    assert theirs(folder).tokenize(text)[0] == ">> what <<"  # an unknown word, whatever it says
    processor = ours(folder)
    assert "what" in processor.decode(processor.encode(text).ids)
    assert len(processor.encode(">>fre<< The fox").ids) > len(processor.encode(">>fra<< The fox").ids)


# Languages


def test_a_language_that_is_chosen_stands_before_every_text(models, tmp_path):
    processor = ours(pairs.write(tmp_path, *models, codes=CODES))
    assert list(processor.languages) == ["fra", "deu", "zho_Hans"]
    assert processor.tokens(processor.languages.values()) == list(CODES)
    into = processor.between(tgt_lang="deu")
    assert into.encode("The fox").ids == processor.encode(">>deu<< The fox").ids
    assert into.frame([7, 8])[0] == [processor.languages["deu"], 7, 8, 0]
    assert processor.between(tgt_lang=">>fra<<").encode("The fox").ids == processor.encode(">>fra<< The fox").ids
    assert into.target.encode("Le renard").ids == processor.target.encode("Le renard").ids
    assert processor.encode("The fox").ids[0] != processor.languages["deu"]  # the one it came from is as it was


def test_a_language_that_there_is_not_is_refused_with_the_nearest(models, tmp_path):
    many = ours(pairs.write(tmp_path / "many", *models, codes=CODES))
    with pytest.raises(InvalidInput, match=r"has no language 'fre' \(did you mean fra\?\); it has fra, deu, zho_Hans"):
        many.between(tgt_lang="fre")
    with pytest.raises(InvalidInput, match="reads its sources without a language; leave 'fra' out"):
        many.between(src_lang="fra")
    one = ours(pairs.write(tmp_path / "one", *models))
    assert one.languages == {}
    with pytest.raises(InvalidInput, match="has no languages to choose from; leave 'fra' out"):
        one.between(tgt_lang="fra")


# Models and files


@pytest.fixture
def checkpoint(models, tmp_path):
    """A tiny random translator with two tables, as the reference saves it."""
    pairs.write(tmp_path, *models, apart=True)
    sizes = [len(json.loads((tmp_path / name).read_text())) for name in ("vocab.json", "target_vocab.json")]
    config = {
        "vocab_size": sizes[0],
        "decoder_vocab_size": sizes[1],
        "share_encoder_decoder_embeddings": False,
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
        "max_position_embeddings": 64,
        "pad_token_id": 2,
        "decoder_start_token_id": 2,
    }
    torch.manual_seed(0)
    model = transformers.MarianMTModel(transformers.MarianConfig(**config)).eval()
    for tensor in model.parameters():
        if tensor.requires_grad:
            torch.nn.init.normal_(tensor, std=0.5)
    model.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("beams", [1, 4])
def test_what_a_model_writes_is_text_of_the_target(checkpoint, beams):
    model, tokenizer = triarch.load(checkpoint), theirs(checkpoint)
    asked = {"max_new_tokens": 10, "num_beams": beams, "bad_words_ids": [[2]]}
    found = triarch.generate(model, pairs.ENGLISH, **asked)
    batch = tokenizer(pairs.ENGLISH, return_tensors="pt", padding=True)
    written = transformers.MarianMTModel.from_pretrained(checkpoint).eval().generate(**batch, **asked)
    assert [each.text for each in found] == tokenizer.batch_decode(written, skip_special_tokens=True)
    assert any(each.text for each in found)


def test_a_model_is_saved_with_both_vocabularies(checkpoint, tmp_path):
    model = triarch.load(checkpoint)
    triarch.save(model, tmp_path / "ours")
    again, tokenizer = triarch.load(tmp_path / "ours"), theirs(tmp_path / "ours")
    for text in pairs.FRENCH:
        wanted = tokenizer(text_target=text)["input_ids"]
        assert model.processor.target.encode(text).ids == again.processor.target.encode(text).ids == wanted


def test_a_copy_of_a_model_reads_and_writes_as_it_does(checkpoint):
    model = triarch.load(checkpoint)
    made = copy.deepcopy(model)
    found = [triarch.generate(one, "The fox", max_new_tokens=5).text for one in (model, made)]
    assert found[0] == found[1] != ""


def test_a_folder_of_vocabularies_alone_is_read_with_the_name_of_its_family(models, tmp_path):
    processor = load_tokenizer(pairs.write(tmp_path, *models, apart=True), family_name="marian")
    for one, name in ((processor, "vocab.json"), (processor.target, "target_vocab.json")):
        assert one.vocab_size == len(json.loads((tmp_path / name).read_text()))


def test_a_form_is_spelled_in_pieces(checkpoint):
    written = triarch.generate(triarch.load(checkpoint), "The fox", choice=["le chat", "la"], max_new_tokens=20)
    assert written.text in ("le chat", "la")


def test_stores_of_tokens_tell_models_of_pieces_apart(models, tmp_path):
    source, target = models
    made = [ours(pairs.write(tmp_path / "one", source, target)), ours(pairs.write(tmp_path / "again", source, target))]
    assert len({one.fingerprint() for one in made}) == 1
    (tmp_path / "again/source.spm").write_bytes(pairs.train(pairs.ENGLISH[1:]))
    assert ours(tmp_path / "again").fingerprint() != made[0].fingerprint()


BROKEN = {
    "no target.spm": (lambda folder: (folder / "target.spm").unlink(), NotFound, "target.spm is not there"),
    "no table": (lambda folder: (folder / "vocab.json").unlink(), NotFound, "vocab.json is not there"),
    "no table of the target": (
        lambda folder: (folder / "tokenizer_config.json").write_text('{"separate_vocabs": true}'),
        NotFound,
        "target_vocab.json is not there",
    ),
    "a list": (lambda folder: (folder / "vocab.json").write_text("[]"), CorruptFile, "not a table of tokens and ids"),
    "names for ids": (
        lambda folder: (folder / "vocab.json").write_text('{"<unk>": "1"}'),
        CorruptFile,
        "not a table of tokens and ids",
    ),
    "no unknown token": (
        lambda folder: (folder / "vocab.json").write_text('{"</s>": 0}'),
        CorruptFile,
        "not a table of tokens and ids with <unk>",
    ),
    "an id below zero": (
        lambda folder: (folder / "vocab.json").write_text('{"<unk>": -1}'),
        CorruptFile,
        "'<unk>' has no id",
    ),
    "two tokens of one id": (
        lambda folder: (folder / "vocab.json").write_text('{"<unk>": 1, "</s>": 1}'),
        InvalidInput,
        "have the same id",
    ),
    "an id without a row": (
        lambda folder: (folder / "vocab.json").write_text('{"<unk>": 1, "</s>": 1000}'),
        InvalidInput,
        "has the id 1000, but the embedding has 1000 rows",
    ),
    "no end": (
        lambda folder: (folder / "vocab.json").write_text('{"<unk>": 1}'),
        CorruptFile,
        "lacks the special token '</s>'",
    ),
    "pieces that are none": (
        lambda folder: (folder / "source.spm").write_bytes(b"no such file"),
        CorruptFile,
        "not a SentencePiece model",
    ),
    "bytes for the unknown": (
        lambda folder: (folder / "source.spm").write_bytes(
            pairs.train(pairs.ENGLISH, byte_fallback=True, vocab_size=400)
        ),
        Unsupported,
        "spells unknown text in bytes",
    ),
}


@pytest.mark.parametrize("breaks, error, message", BROKEN.values(), ids=BROKEN)
def test_files_that_do_not_go_together_are_refused(models, tmp_path, breaks, error, message):
    breaks(pairs.write(tmp_path, *models))
    with pytest.raises(error, match=message):
        ours(tmp_path)


def test_source_spm_goes_before_a_tokenizer_json_that_stands_beside_it(models, tmp_path):
    pairs.write(tmp_path, *models)
    (tmp_path / "tokenizer.json").write_text('{"added_tokens": []}')
    assert ours(tmp_path).encode("The fox").ids == theirs(tmp_path)("The fox")["input_ids"]


def test_pieces_of_other_kinds_are_cut_as_the_package_cuts_them(tmp_path):
    as_it_stands = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    kinds = [{"model_type": "bpe"}, {"model_type": "unigram"} | as_it_stands, {"user_defined_symbols": ["<usr>"]}]
    for number, kind in enumerate(kinds):
        folder = pairs.write(tmp_path / str(number), pairs.train(pairs.ENGLISH, **kind), pairs.train(pairs.FRENCH))
        processor, tokenizer = ours(folder), theirs(folder)
        for text in [*PROBES.values(), "the <usr>fox"]:
            assert processor.encode(text).ids == tokenizer(text)["input_ids"], (kind, text)
