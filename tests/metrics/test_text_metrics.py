"""Measures of written texts against sacreBLEU and rouge_score: goldens/make_text_metrics.py kept their numbers."""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from triarch.errors import Unsupported
from triarch.metrics import falls, texts

FILE = Path(__file__).parents[1] / "goldens" / "metrics" / "texts.json"
CORPORA = json.loads(FILE.read_text(encoding="utf-8"))["corpora"]
OURS = {
    "bleu": texts.bleu,
    "chrf": texts.chrf,
    "chrf++": lambda right, written: texts.chrf(right, written, words=2),
}


@pytest.mark.parametrize("name", OURS)
def test_equals_sacrebleu(name):
    for corpus in CORPORA:
        found = OURS[name](corpus["right"], corpus["written"])
        assert found == pytest.approx(corpus[name], abs=1e-9), corpus


def test_rouge_equals_googles_without_stemming():
    for corpus in CORPORA:
        for right, written, wanted in zip(corpus["right"], corpus["written"], corpus["rouge"], strict=True):
            found = texts.rouge(right, written)
            assert found.keys() == wanted.keys()
            for kind, scores in wanted.items():
                assert found[kind] == pytest.approx(scores, abs=1e-9), (kind, right, written)


def test_goldens_hold_the_whole_range():
    for name in OURS:
        values = [corpus[name] for corpus in CORPORA]
        assert min(values) == 0
        assert max(values) == pytest.approx(100)
        assert sum(1 < value < 99 for value in values) > 20


def test_rouge_of_several_pairs_is_their_mean():
    found = texts.mean_rouge(["the cat", "a dog"], ["the cat", "one cow"])
    assert found == {"rouge1": 0.5, "rouge2": 0.5, "rougeL": 0.5, "rougeLsum": 0.5}


def test_exact_match_looks_at_every_letter_but_the_space_around():
    assert texts.exact_match(["Yes.", "no", "a  b"], [" Yes.\n", "No", "a b"]) == pytest.approx(1 / 3)


def test_nothing_written_is_nan():
    for measure in (*OURS.values(), texts.exact_match):
        assert math.isnan(measure([], []))
    assert all(math.isnan(value) for value in texts.mean_rouge([], []).values())


def test_texts_go_in_pairs():
    for measure in (*OURS.values(), texts.exact_match, texts.mean_rouge):
        with pytest.raises(ValueError, match="shorter"):
            measure(["a", "b"], ["a"])


def test_ter_is_sacrebleus(monkeypatch):
    def corpus_score(written, references):
        return SimpleNamespace(score=10 * len(written[0]) + len(references[0][0]))

    ter = SimpleNamespace(TER=lambda: SimpleNamespace(corpus_score=corpus_score))
    monkeypatch.setitem(sys.modules, "sacrebleu", ter)
    assert texts.ter(["abc"], ["a"]) == 13
    assert math.isnan(texts.ter([], []))
    assert falls("ter")


def test_without_sacrebleu_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(Unsupported, match=r"ter needs sacrebleu, .*pip install 'triarch\[metrics\]'"):
        texts.ter(["a"], ["a"])
