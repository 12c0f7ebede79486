"""Tasks of encoder–decoders beyond what tests/test_goldens.py asks: long texts, languages, the shell."""

import itertools
import json
import warnings

import pytest
import torch
import transformers

import pairs
import tiny
import triarch
from from_sources import ADA, FEW, PAGE, french, pieces_of, task
from triarch import limits
from triarch.cli import main
from triarch.errors import CorruptFile, InvalidInput, LimitExceeded, NotFound, TriarchError
from triarch.generation.rows import Generated

BOOK = PAGE * 30


@pytest.fixture(params=["bart", "t5"])
def model(request):
    return tiny.load(request.param)


def echo(made, monkeypatch):
    """The task with a model that writes what it reads, in capitals."""

    def written(found, options):
        return found.text

    def outputs(jobs, options, done, cancelled):
        return [
            [
                [Generated([7, 8], piece.text.upper(), "stop")] * options.num_return_sequences
                for piece in job.notes.pieces
            ]
            for job in jobs
        ]

    monkeypatch.setattr(made, "written", written)
    monkeypatch.setattr(made, "outputs", outputs)
    return made


# Long texts


@pytest.mark.parametrize("name", ["summarization", "translation_en_to_fr", "text2text-generation"])
def test_of_a_long_document_every_character_is_in_exactly_one_piece(name, model):
    document = pieces_of(task(name, model), BOOK)
    spans = [(piece.start, piece.start + len(piece.text)) for piece in document.pieces]
    edges = [0, *itertools.chain.from_iterable(spans), len(BOOK)]
    between = [BOOK[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]
    assert not "".join(between).strip()
    assert all(BOOK[piece.start : piece.start + len(piece.text)] == piece.text for piece in document.pieces)
    assert max(len(piece.ids) for piece in document.pieces) <= model.processor.max_tokens
    assert len(document.pieces) > 100


@pytest.mark.parametrize("name", ["summarization", "translation_en_to_fr"])
def test_a_long_document_is_answered_whole_and_says_so(name, model):
    made = task(name, model)
    text = PAGE * 3
    found = made(text, coverage=True, **FEW)
    tokens = len(model.processor.encode(text, special_tokens=False))
    pieces = len(pieces_of(made, text).pieces)
    assert found["coverage"] == {"tokens": tokens, "seen": tokens, "windows": pieces, "strategy": "window"}
    (record,) = found["result"]
    assert len(record) == 1


def test_the_answers_of_pieces_are_those_of_the_pieces_alone_in_order(model):
    made = task("text2text-generation", model)
    parts = [piece.text for piece in pieces_of(made, PAGE).pieces]
    alone = [made(part, **FEW)[0]["generated_text"].strip() for part in parts]
    assert made(PAGE, **FEW)[0]["generated_text"] == " ".join(filter(None, alone))


def test_pieces_end_where_sentences_do():
    parts = [piece.text for piece in pieces_of(task("summarization", "bart"), " ".join(tiny.SENTENCES)).pieces]
    assert len(parts) > 2
    assert all(part[-1] in ".!?" for part in parts)


def test_every_piece_has_the_prefix():
    made = task("summarization", "t5")
    encoded = made.processor.encode("summarize: ", special_tokens=False).ids
    document = pieces_of(made, PAGE)
    assert len(document.pieces) > 2
    assert all(piece.ids[: len(encoded) - 1] == encoded[:-1] for piece in document.pieces)


def test_pieces_are_as_short_as_is_asked_for(model):
    made = task("text2text-generation", model)
    short = pieces_of(made, PAGE, max_source_tokens=20).pieces
    assert max(len(piece.ids) for piece in short) <= 20
    assert len(short) > len(pieces_of(made, PAGE).pieces)


def test_a_text_that_fits_is_read_to_the_letter(model):
    text = f"  {ADA} \n"
    (piece,) = pieces_of(task("text2text-generation", model), text).pieces
    assert piece.ids == model.processor.encode(text).ids


def test_truncation_keeps_the_beginning_and_says_what_it_dropped(model):
    made = task("text2text-generation", model)
    found = made(PAGE, long="truncate", coverage=True, **FEW)
    assert found["coverage"]["strategy"] == "truncate"
    assert found["coverage"]["windows"] == 1
    kept = model.processor.cut(PAGE)[0].ids
    ends = sum(model.processor.cut(PAGE)[0].special_tokens_mask)
    assert found["coverage"]["seen"] == len(kept) - ends < found["coverage"]["tokens"]
    assert pieces_of(made, PAGE, long="truncate").pieces[0].ids == kept


def test_a_long_text_is_refused_on_request(model):
    made = task("text2text-generation", model)
    with pytest.raises(LimitExceeded, match=r'the input has [\d,]+ tokens, at most 64 fit; use long="window"'):
        made(PAGE, long="error", **FEW)
    assert made(ADA, long="error", **FEW) == made(ADA, **FEW)


@pytest.mark.parametrize("text", ["", " \n\t "])
def test_an_empty_text_is_refused(model, text):
    with pytest.raises(InvalidInput, match="the text is empty; give something to write from"):
        task("summarization", model)(text)


def test_a_prefix_that_leaves_no_room_is_refused(model):
    made = task("text2text-generation", model)
    with pytest.raises(LimitExceeded, match="of 64 tokens the prefix leaves none for the text; shorten it"):
        made(ADA, prefix=" ".join(tiny.SENTENCES))


def test_a_character_that_does_not_fit_is_refused(model):
    made = task("text2text-generation", model)
    specials = len(model.processor.encode(""))
    with pytest.raises(LimitExceeded, match=r"'👩' alone has \d tokens .* fit; raise max_source_tokens"):
        made("👩 " * 3, max_source_tokens=specials + 1)


def test_more_source_tokens_than_the_model_takes_are_refused(model):
    with pytest.raises(InvalidInput, match="max_source_tokens is 65, the model takes 64 tokens; ask for 1 to 64"):
        task("summarization", model)(ADA, max_source_tokens=65)


def test_too_many_pieces_are_refused(model, monkeypatch):
    monkeypatch.setattr(limits, "WINDOWS", 5)
    with pytest.raises(LimitExceeded, match=r"the input makes \d+ windows, over 5; split it"):
        task("summarization", model)(PAGE)


def test_settings_of_a_task_that_are_no_table_are_refused(tmp_path):
    config = tiny.MODELS["t5"] | {"task_specific_params": {"summarization": 5}}
    broken = triarch.load(tiny.write_checkpoint(tmp_path, **config))
    with pytest.raises(CorruptFile, match="task_specific_params that are no table of tables; mend it"):
        task("summarization", broken)


def test_a_length_of_twenty_that_a_task_says_holds(tmp_path):
    config = tiny.MODELS["bart"] | {"task_specific_params": {"summarization": {"max_length": 20}}}
    assert task("summarization", triarch.load(tiny.write_checkpoint(tmp_path, **config))).options({}).max_length == 20


def test_details_are_those_of_all_pieces():
    made = task("text2text-generation", "t5")
    (record,) = made(PAGE, details=True, logprobs=0, **FEW)
    parts = [made(piece.text, details=True, logprobs=0, **FEW)[0] for piece in pieces_of(made, PAGE).pieces]
    assert [one["id"] for one in record["tokens"]] == [one["id"] for part in parts for one in part["tokens"]]
    assert "length" in [part["finish_reason"] for part in parts]
    assert (record["finish_reason"], record["score"]) == ("length", None)


# Many inputs


def test_one_bad_input_among_many_fails_alone(model):
    made = task("summarization", model)
    texts = [ADA, "", PAGE, 7, tiny.SENTENCES[0]]
    found = list(made.stream(iter(texts), made.options(FEW)))
    assert [isinstance(one, TriarchError) for one in found] == [False, True, False, True, False]
    assert [found[i] for i in (0, 2, 4)] == [made(texts[i], **FEW) for i in (0, 2, 4)]
    with pytest.raises(InvalidInput, match="input 1: the text is empty"):
        made(texts[:3], **FEW)


def test_a_generator_is_answered_in_order(model):
    made = task("summarization", model)
    found = list(made((text for text in tiny.SENTENCES), **FEW))
    assert found == [made(text, **FEW) for text in tiny.SENTENCES]


def test_rows_of_files_are_read_by_their_usual_names(model):
    made = task("summarization", model)
    rows = [{name: ADA} for name in ("text", "source", "document", "article")]
    assert made(rows, **FEW) == [made(ADA, **FEW)] * 4
    with pytest.raises(InvalidInput, match="row has title, wanted text or source or document or article"):
        made({"title": ADA})


# Summaries


def test_summaries_are_summarized_again_until_they_fit():
    made = task("summarization", "bart")
    short = made(PAGE * 4, combine="again", **FEW)[0]["summary_text"]
    joined = made(PAGE * 4, **FEW)[0]["summary_text"]
    while len(pieces_of(made, joined).pieces) > 1:
        joined = made(joined, **FEW)[0]["summary_text"]
    assert short == made(joined, **FEW)[0]["summary_text"]


def test_summaries_that_get_no_shorter_are_left_as_they_are(monkeypatch):
    made = echo(task("summarization", "bart"), monkeypatch)
    assert made(PAGE, combine="again") == made(PAGE)


def test_summaries_without_a_word_are_left_as_they_are():
    ends_at_once = FEW | {"max_new_tokens": 2}  # a first and a last token are forced
    assert task("summarization", "bart")(PAGE, combine="again", **ends_at_once) == [{"summary_text": ""}]


def test_every_sequence_is_summarized_again():
    made = task("summarization", "bart")
    asked = FEW | {"num_beams": 2, "num_return_sequences": 2}
    assert len(made(PAGE, combine="again", **asked)) == 2


def test_a_summary_of_summaries_has_no_sources():
    with pytest.raises(InvalidInput, match="has no sentence or word of the text for its source; choose one"):
        task("summarization", "bart")(PAGE, combine="again", sources=True)


def test_several_sequences_of_pieces_are_joined_each_by_itself(model):
    made = task("text2text-generation", model)
    asked = {"num_beams": 3, "num_return_sequences": 3, "max_new_tokens": 3}
    found = made(PAGE, **asked)
    parts = [made(piece.text, **asked) for piece in pieces_of(made, PAGE).pieces]
    for number in range(3):
        texts = [part[number]["generated_text"].strip() for part in parts]
        assert found[number]["generated_text"] == " ".join(filter(None, texts))


# Translations


def test_lines_and_blank_lines_stay(model, monkeypatch):
    text = "  One line.\n\n\tTwo. Lines.\r\n \nThe last one\n"
    (record,) = echo(french(model), monkeypatch)(text)
    assert record["translation_text"] == text.upper()


@pytest.mark.parametrize("split, count", [("auto", 4), ("lines", 2), ("sentences", 4)])
def test_several_lines_are_split_as_is_asked_for(model, split, count):
    assert len(pieces_of(french(model), "One. Two.\nThree. Four.", split=split).pieces) == count


@pytest.mark.parametrize("split, count", [("auto", 1), ("lines", 1), ("sentences", 2)])
def test_a_line_that_fits_is_whole_unless_sentences_are_asked_for(model, split, count):
    assert len(pieces_of(french(model), "One. Two.", split=split).pieces) == count


def test_a_long_line_is_read_sentence_by_sentence(model):
    parts = [piece.text for piece in pieces_of(french(model), " ".join(tiny.SENTENCES)).pieces]
    assert "The quick brown fox jumps over the lazy dog." in parts
    assert "When was it written?" in parts


def test_a_pair_may_be_named_by_the_task_or_by_languages():
    by_task = french("t5")(ADA)
    assert task("translation", "t5")(ADA, src_lang="en", tgt_lang="fr") == by_task
    assert task("translation", "t5", src_lang="en")(ADA, tgt_lang="fr") == by_task
    assert task("translation", "t5")(ADA, tgt_lang="fr") == by_task  # there is one pair that ends so
    assert task("translation_en_to_de", "t5")(ADA) != by_task


def test_a_pair_that_nobody_chose_is_asked_for():
    made = task("translation", "t5")
    message = "has translation_en_to_de, translation_en_to_fr; choose one by src_lang and tgt_lang, or give a prefix"
    with pytest.raises(InvalidInput, match=message):
        made(ADA)
    (plain,) = task("text2text-generation", "t5")(ADA, **FEW)
    assert made(ADA, prefix="", **FEW) == [{"translation_text": plain["generated_text"]}]


def test_an_unknown_pair_is_refused_with_the_nearest():
    message = r"no pair 'translation_en_to_fi' \(did you mean translation_en_to_.*\?\); the checkpoint has"
    with pytest.raises(InvalidInput, match=message):
        task("translation_en_to_fi", "t5")
    with pytest.raises(InvalidInput, match="no pair 'translation_de_to_None'"):
        task("translation", "t5")(ADA, src_lang="de")
    with pytest.raises(NotFound, match="no task 'translation_en'"):
        task("translation_en", "t5")


def test_a_pair_that_has_a_prefix_of_the_callers_own_is_taken():
    made = task("translation", "t5", src_lang="en", tgt_lang="fi", prefix="translate English to Finnish: ")
    assert made.options({}).prefix == "translate English to Finnish: "


# Languages


@pytest.fixture(scope="module")
def segments():
    return pairs.train(pairs.ENGLISH + pairs.FRENCH)


def marian(folder, segments, *, codes=(), **settings):
    """A tiny translator, and the reference's."""
    pairs.write(folder, segments, segments, codes=codes, **settings)
    count = len(json.loads((folder / "vocab.json").read_text(encoding="utf-8")))
    shape = {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in SMALL.items()}
    theirs = transformers.MarianMTModel(
        transformers.MarianConfig(vocab_size=count, d_model=32, pad_token_id=2, eos_token_id=0,
                                  decoder_start_token_id=2, max_position_embeddings=64, **shape)
    )  # fmt: skip
    return saved(theirs, folder)


def reader(folder):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Recommended: pip install sacremoses")
        return transformers.MarianTokenizer.from_pretrained(folder)


SMALL = {"layers": 1, "attention_heads": 4, "ffn_dim": 48}


def saved(theirs, folder):
    torch.manual_seed(0)
    for tensor in theirs.parameters():
        if tensor.requires_grad:
            torch.nn.init.normal_(tensor, std=0.5 if tensor.dim() == 1 else 0.6)
    theirs.save_pretrained(folder)
    return triarch.load(folder), theirs.eval()


def mbart(folder, segments, kind, **settings):
    folder.mkdir()
    (folder / "sentencepiece.bpe.model").write_bytes(segments)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind} | settings))
    tokenizer = getattr(transformers, kind).from_pretrained(folder)
    shape = {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in SMALL.items()}
    start = 2 if kind == "MBart50Tokenizer" else None
    theirs = transformers.MBartForConditionalGeneration(
        transformers.MBartConfig(vocab_size=len(tokenizer), d_model=32, max_position_embeddings=64,
                                 decoder_start_token_id=start, **shape)
    )  # fmt: skip
    return *saved(theirs, folder), tokenizer


LINE = "The quick brown fox"
ASKED = {"max_new_tokens": 9, "no_repeat_ngram_size": 1}


def written(theirs, ids, **options):
    asked = {"num_beams": 4} | ASKED | options
    return theirs.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), **asked)[0].tolist()


def test_a_translator_of_one_pair_writes_what_the_reference_writes(tmp_path, segments):
    ours, theirs = marian(tmp_path / "marian", segments)
    tokenizer = reader(tmp_path / "marian")
    wanted = written(theirs, tokenizer(LINE)["input_ids"])
    assert task("translation", ours)(LINE, return_tensors=True, **ASKED) == [{"translation_token_ids": wanted}]
    text = tokenizer.decode(wanted, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert task("translation_en_to_fr", ours)(LINE, **ASKED) == [{"translation_text": text}]
    assert task("translation_eng_to_fra", ours)(LINE, **ASKED) == [{"translation_text": text}]
    with pytest.raises(InvalidInput, match="no pair 'translation_en_to_de'; the checkpoint has translation_en_to_fr;"):
        task("translation_en_to_de", ours)


def test_a_translator_into_several_languages_is_told_which(tmp_path, segments):
    codes = (">>fra<<", ">>spa<<")
    ours, theirs = marian(tmp_path / "marian", segments, codes=codes, target_lang="ROMANCE")
    tokenizer = reader(tmp_path / "marian")
    made, asked = task("translation", ours), {"return_tensors": True} | ASKED
    for code in codes:
        wanted = written(theirs, tokenizer(f"{code} {LINE}")["input_ids"])
        assert made(f"{code} {LINE}", **asked) == [{"translation_token_ids": wanted}]
        assert made(LINE, tgt_lang=code[2:-2], src_lang="en", **asked) == [{"translation_token_ids": wanted}]
        (piece,) = pieces_of(made, LINE, tgt_lang=code).pieces
        assert piece.ids == tokenizer(f"{code} {LINE}")["input_ids"]
    with pytest.raises(InvalidInput, match=r"has no language 'fr' \(did you mean fra\?\); it has fra, spa"):
        made(LINE, tgt_lang="fr")
    with pytest.raises(InvalidInput, match="no pair 'translation_de_to_ROMANCE'"):
        made(LINE, src_lang="de", tgt_lang="fra")


def test_every_line_is_told_the_language(tmp_path, segments):
    ours, _ = marian(tmp_path / "marian", segments, codes=(">>fra<<",), target_lang="ROMANCE")
    document = pieces_of(task("translation", ours), f"{LINE}\n{LINE}", tgt_lang="fra")
    assert [piece.ids[0] for piece in document.pieces] == [ours.processor.languages["fra"]] * 2


def test_a_language_is_the_first_token_that_mbart50_writes(tmp_path, segments):
    ours, theirs, tokenizer = mbart(tmp_path / "mbart", segments, "MBart50Tokenizer")
    made, asked = task("translation", ours), {"return_tensors": True} | ASKED
    tokenizer.src_lang = "ro_RO"
    code = tokenizer.convert_tokens_to_ids("fr_XX")
    wanted = written(theirs, tokenizer(LINE)["input_ids"], forced_bos_token_id=code)
    assert wanted[:2] == [2, code]
    assert made(LINE, src_lang="ro_RO", tgt_lang="fr_XX", **asked) == [{"translation_token_ids": wanted}]
    assert task("translation_ro_RO_to_fr_XX", ours)(LINE, **asked) == [{"translation_token_ids": wanted}]


def test_a_language_is_what_mbart_begins_with(tmp_path, segments):
    ours, theirs, tokenizer = mbart(tmp_path / "mbart", segments, "MBartTokenizer")
    tokenizer.src_lang = "ro_RO"
    code = tokenizer.convert_tokens_to_ids("fr_XX")
    wanted = written(theirs, tokenizer(LINE)["input_ids"], decoder_start_token_id=code)
    assert wanted[0] == code
    found = task("translation", ours)(LINE, src_lang="ro_RO", tgt_lang="fr_XX", return_tensors=True, **ASKED)
    assert found == [{"translation_token_ids": wanted}]


@pytest.mark.parametrize("kind", ["MBartTokenizer", "MBart50Tokenizer"])
def test_languages_that_nobody_chose_are_asked_for(tmp_path, segments, kind):
    ours, _, _ = mbart(tmp_path / "mbart", segments, kind)
    made = task("translation", ours)
    with pytest.raises(InvalidInput, match="translates between many languages; give src_lang and tgt_lang, of ar_AR"):
        made(LINE)
    with pytest.raises(InvalidInput, match="give src_lang, of"):
        made(LINE, tgt_lang="fr_XX")
    with pytest.raises(InvalidInput, match=r"has no language 'fr' \(did you mean fr_XX\?\)"):
        made(LINE, src_lang="en_XX", tgt_lang="fr")
    with pytest.raises(InvalidInput, match=r"has no language 'en' \(did you mean en_XX\?\)"):
        task("translation_en_to_fr", ours)


def test_languages_that_the_checkpoint_says_need_not_be_given(tmp_path, segments):
    kind, said = "MBart50Tokenizer", {"src_lang": "en_XX", "tgt_lang": "fr_XX"}
    ours, _, _ = mbart(tmp_path / "said", segments, kind, **said)
    made = task("translation", ours)
    assert made(LINE, **FEW) == made(LINE, **said, **FEW)
    assert made(LINE, return_tensors=True, **FEW)[0]["translation_token_ids"][1] == ours.processor.languages["fr_XX"]
    other = made(LINE, tgt_lang="de_DE", return_tensors=True, **FEW)[0]["translation_token_ids"]
    assert other[1] == ours.processor.languages["de_DE"]


@pytest.mark.parametrize("language", [5, True, ["en"]])
def test_a_language_that_is_no_text_is_refused(language):
    with pytest.raises(InvalidInput, match=r"src_lang is .*, wanted str"):
        task("translation", "marian")(ADA, src_lang=language, **FEW)


# From the shell


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return lambda name: str(tiny.write_checkpoint(tmp_path_factory.mktemp(name), **tiny.MODELS[name]))


@pytest.fixture
def shell(capsys):
    return lambda *arguments: (main(["run", *arguments]), *capsys.readouterr())


@pytest.mark.parametrize(
    "name, model, key",
    [
        ("summarization", "bart", "summary_text"),
        ("translation", "bart", "translation_text"),
        ("translation_en_to_fr", "t5", "translation_text"),
        ("text2text-generation", "t5", "generated_text"),
    ],
)
def test_the_shell_gives_what_python_gives(shell, folder, name, model, key):
    code, out, _ = shell(name, ADA, "-m", folder(model), "--max-new-tokens", "4", "--json")
    assert code == 0
    assert json.loads(out) == task(name, model)(ADA, max_new_tokens=4)
    assert key in out


def test_the_shell_translates_between_languages_that_are_named(shell, folder):
    arguments = ["translation", ADA, "-m", folder("t5"), "--json", "--src-lang", "en", "--tgt-lang"]
    code, out, _ = shell(*arguments, "fr")
    assert (code, json.loads(out)) == (0, french("t5")(ADA))
    code, _, err = shell(*arguments, "fi")
    assert code == InvalidInput.exit_code
    assert "no pair 'translation_en_to_fi'" in err
    assert err.count("\n") == 1
