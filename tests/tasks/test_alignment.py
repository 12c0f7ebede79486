"""Where the words and sentences that are written come from."""

import numpy as np
import pytest
import torch

import tiny
from from_sources import ADA, FEW, PAGE, french, pieces_of, task
from triarch.generation.rows import Generated
from triarch.tasks import _alignment


@pytest.fixture(params=["bart", "t5"])
def model(request):
    return tiny.load(request.param)


def looking(made, monkeypatch, places, layers=2):
    """The task with a model whose target tokens, in turn, look at the source tokens of these places alone."""

    def alignment(input_ids, attention_mask, decoder_input_ids):
        T, S = decoder_input_ids.shape[1], input_ids.shape[1]
        maps = torch.full((1, 3, T, S), 0.1 / S)
        for row, place in enumerate(places[:T]):
            maps[0, :, row, place] += 0.9
        blurred = torch.full((1, 3, T, S), 1 / S)
        return [blurred, maps, blurred][-layers - 1 :] if layers > 1 else [maps]

    monkeypatch.setattr(made.model, "alignment", alignment)
    return made


def aligned(made, text, target, **options):
    """What `_alignment.words` says of a text and the ids of what was written from it."""
    document = pieces_of(made, text, **options)
    chosen = made.options(options | {"alignment": True})
    return _alignment.words(made, document, [Generated(target, "", "stop")] * len(document.pieces), chosen)


@pytest.mark.parametrize("prefix", ["", "translate English to French: "])
def test_words_are_those_that_attention_points_at(monkeypatch, prefix):
    made = french("t5", prefix=prefix)
    before = len(made.processor.encode(prefix, special_tokens=False)) - (1 if prefix else 0)
    target = made.processor.encode("London was closed", special_tokens=False).ids
    assert len(target) == 3
    source = made.processor.encode(prefix + "Ada lived in Berlin", special_tokens=False).tokens
    assert source[-4:] == ["▁Ada", "▁lived", "▁in", "▁Berlin"]
    places = [len(source) - 1, len(source) - 4, len(source) - 2]
    assert before <= len(source) - 4
    looking(made, monkeypatch, places)
    found = aligned(made, "Ada lived in Berlin", target)
    assert [(one["word"], one["source"], one["start"], one["end"]) for one in found] == [
        ("London", "Berlin", 13, 19),
        ("was", "Ada", 0, 3),
        ("closed", "in", 10, 12),
    ]
    assert all(0.9 < one["score"] <= 1 for one in found)


def test_a_single_layer_is_looked_at_itself(monkeypatch):
    made = looking(french("t5", prefix=""), monkeypatch, [1], layers=1)
    target = made.processor.encode("London", special_tokens=False).ids
    assert aligned(made, "Ada lived", target)[0]["source"] == "lived"


def test_places_count_characters_of_the_whole_input(monkeypatch):
    made = looking(french("t5", prefix=""), monkeypatch, [0])
    text = "Ada lived\n\n  Berlin"
    target = made.processor.encode("London", special_tokens=False).ids
    found = aligned(made, text, target)
    assert [(one["source"], text[one["start"] : one["end"]]) for one in found] == [("Ada", "Ada"), ("Berlin", "Berlin")]


@pytest.mark.parametrize("text", [ADA, "  The café 😀 was closed!", PAGE])
def test_every_word_that_is_written_is_listed_with_its_place(model, text):
    made = french(model)
    (record,) = made(text, alignment=True, num_beams=1, max_new_tokens=7)
    written = _alignment.WORD.findall(record["translation_text"])
    assert written
    assert [one["word"] for one in record["alignment"]] == written
    assert all(text[one["start"] : one["end"]] == one["source"] for one in record["alignment"])
    assert all(0 <= one["score"] <= 1 for one in record["alignment"])


def test_words_and_sentences_of_a_text_that_was_cut_come_from_what_was_read(model):
    (record,) = french(model, long="truncate", alignment=True)(PAGE, **FEW)
    read = len(pieces_of(french(model, long="truncate"), PAGE).pieces[0].encoding)
    end = model.processor.encode(PAGE).offsets[read][0]
    assert record["alignment"]
    assert all(one["end"] <= end for one in record["alignment"])
    (record,) = task("summarization", model, long="truncate", sources=True)(PAGE, **FEW)
    assert record["sources"]


@pytest.mark.parametrize("name, key", [("text2text-generation", "generated"), ("summarization", "summary")])
def test_every_task_that_writes_from_a_source_says_where_words_come_from(model, name, key):
    (record,) = task(name, model)(ADA, alignment=True, prefix="", **FEW)
    assert [one["word"] for one in record["alignment"]] == _alignment.WORD.findall(record[f"{key}_text"])


@pytest.mark.parametrize("stop", [[], ["o"]])
def test_words_of_a_text_that_was_cut_off_are_listed_too(stop):
    made = french("t5")
    (record,) = made(ADA, alignment=True, stop=stop, **FEW | {"max_new_tokens": 9})
    assert [one["word"] for one in record["alignment"]] == _alignment.WORD.findall(record["translation_text"])


def test_sentences_name_those_of_the_source_the_most_looked_at_first(monkeypatch):
    made = task("summarization", "bart")
    text = "Ada lived in London. Paris is the capital. I love this film. It was a game."
    offsets = made.processor.encode(text).offsets
    place = next(i for i, (start, end) in enumerate(offsets) if text[start:end].strip() == "capital")
    looking(made, monkeypatch, [place] * 64)
    (record,) = made(text, sources=True, **FEW)
    for one in record["sources"]:
        assert one["sources"][0]["text"] == "Paris is the capital."
        assert [text[found["start"] : found["end"]] for found in one["sources"]] == [
            found["text"] for found in one["sources"]
        ]
        scores = [found["score"] for found in one["sources"]]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == _alignment.SUPPORT


def test_sources_of_a_long_text_point_at_it(model):
    made = task("summarization", model)
    (record,) = made(PAGE, sources=True, **FEW)
    assert record["sources"]
    for one in record["sources"]:
        assert all(PAGE[found["start"] : found["end"]] == found["text"] for found in one["sources"])


def test_shares_sum_to_one():
    attention = np.random.RandomState(0).dirichlet(np.ones(5), size=3)
    source, target = [(0, 0), (0, 3), (3, 6), (7, 9), (0, 0)], [(0, 2), (2, 5), (5, 5)]
    shares = _alignment._shares(attention, source, target, (0, 5), [(0, 6), (7, 9)])
    assert shares.sum() == pytest.approx(1)
    assert shares[0] == pytest.approx(attention[:2, 1:3].sum() / attention[:2, 1:4].sum())
    assert not len(_alignment._shares(attention, source, target, (6, 7), [(0, 6)]))
