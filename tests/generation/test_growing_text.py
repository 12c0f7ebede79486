"""The text of a sequence while it grows: that of all its tokens at once, for the same work at each of them."""

import random

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers

import triarch
from tiny import load
from triarch.generation.rows import Certain, Row, Stops
from triarch.generation.settings import Settings
from triarch.inputs.text.processor import TextProcessor
from triarch.models import family
from writers import writer

WORDS = "The café isn't closed , is it ? Don't say \U0001f600 ' no ' ; 日本語 I've done it . Zürich !  two  spaces\n"
KINDS = ["byte-level", "byte-fallback", "bert", "roberta", "t5", "marian", "bart"]


@pytest.fixture(scope="module", params=KINDS)
def processor(request, tmp_path_factory):
    if request.param == "byte-level":
        return writer(tmp_path_factory.mktemp("writer")).processor
    if request.param == "byte-fallback":
        return byte_fallback(tmp_path_factory.mktemp("bytes"))
    return load(request.param).processor.target


def byte_fallback(folder):
    """As Llama's: letters are tokens, all else is spelled by bytes."""
    letters = sorted(set("abcdefghijklmnopqrstuvwxyz'!?,.DZI▁"))
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    kind = family("llama")
    config = kind.config(kind.tiny.to_hf() | {"vocab_size": len(tokens)})
    triarch.save(kind.build(config, "LlamaForCausalLM"), folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text("{}")
    return triarch.load(folder).processor


def sequence(processor, rng, tokens):
    """Text, bits of text, and any token at all."""
    ids = []
    while len(ids) < tokens:
        if rng.random() < 0.5:
            ids += processor.encode(WORDS[rng.randrange(len(WORDS)) :], special_tokens=False).ids
        else:
            ids += [rng.randrange(processor.tokenizer.get_vocab_size()) for _ in range(rng.randint(1, 12))]
    return ids[:tokens]


def spelled(processor, before, ids, skip):
    start = len(processor.decode(before[-4:], skip).rstrip("\ufffd"))
    return processor.decode([*before[-4:], *ids], skip)[start:]


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("skip", [False, True])
def test_growing_text_is_that_of_all_tokens_at_once(processor, skip, clean, monkeypatch):
    monkeypatch.setitem(processor.config, "clean_up_tokenization_spaces", clean)
    for seed in range(20):
        rng = random.Random(seed)
        before, ids = sequence(processor, rng, 6), sequence(processor, rng, 150)
        growing = Stops([], Settings(skip_special_tokens=skip), processor, before).growing()
        for end in range(1, len(ids) + 1):
            growing.read(ids[:end])
            if end % 7 == 0:
                assert growing.since(0) == spelled(processor, before, ids[:end], skip)
        assert growing.since(0) == spelled(processor, before, ids, skip)


@pytest.mark.parametrize("stop", ["is it ?", "é", "\U0001f600 '", "本語"])
def test_a_stop_text_that_spans_tokens_is_found_at_its_last_one(processor, stop):
    ids = processor.encode(WORDS * 3, special_tokens=False).ids
    whole = next((n for n in range(1, len(ids)) if stop in spelled(processor, [5], ids[:n], True)), None)
    stops, row = Stops([], Settings(stop=[stop]), processor, [5]), Row(0, 0, 10_000)
    for token in ids:
        row.ids.append(token)
        stops.check(row)
        if row.reason is not None:
            break
    assert (len(row.ids) if row.reason else None) == whole
    if whole is not None:
        assert row.cut == spelled(processor, [5], ids[:whole], True).find(stop)


def test_pieces_make_up_the_text(processor):
    for seed in range(10):
        row, stops = Row(0, 0, 300), Stops([], Settings(stop=["never said"]), processor, [5])
        certain, pieces = Certain(stops), []
        for token in sequence(processor, random.Random(seed), 300):
            row.ids.append(token)
            stops.check(row)
            pieces.append(certain.piece(row).text)
        assert row.reason == "length"
        assert "".join(pieces) == stops.text(row)


def test_decoding_costs_the_same_for_each_token_up_to_2000(processor, monkeypatch):
    """Counted in tokens that are decoded, with a stop text and a stream to look at each."""
    counted, plain = [], TextProcessor.decode

    def decode(self, ids, *args, **kwargs):
        counted.append(len(ids))
        return plain(self, ids, *args, **kwargs)

    monkeypatch.setattr(TextProcessor, "decode", decode)
    row, stops = Row(0, 0, 2000), Stops([], Settings(stop=["never said"]), processor, [5])
    certain, works = Certain(stops), []
    for token in sequence(processor, random.Random(0), 2000):
        row.ids.append(token)
        stops.check(row)
        certain.piece(row)
        works.append(sum(counted))
        counted.clear()
    first, last = sum(works[:500]), sum(works[1500:])
    assert last < 1.5 * first
    assert sum(works) < 150 * 2000
