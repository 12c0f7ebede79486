"""Zero-shot classification with a decoder: labels as what it would write after the text."""

import numpy as np
import pytest

import tiny
import triarch
from triarch.errors import InvalidInput, LimitExceeded
from triarch.generation import score

LABELS = ["sports", "politics", "the law"]
TEXTS = ["The striker scored twice.", "Parliament will vote on Tuesday. ", "", "A lovely day\n"]
LONG = " ".join(tiny.SENTENCES)


@pytest.fixture(scope="module")
def classify():
    return triarch.pipeline("zero-shot-classification", tiny.load("gpt2"), candidate_labels=LABELS)


def directly(text, how, before="\nThis example is ", after="."):
    found = score(tiny.load("gpt2"), text + before, [label + after for label in LABELS])
    exp = np.exp([getattr(one, how) for one in found])
    return dict(zip(LABELS, exp / exp.sum(), strict=True))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("option, how", [("sum", "total"), ("mean", "mean")])
def test_scores_are_those_of_the_labels_as_what_follows(classify, text, option, how):
    found = classify(text, label_score=option)
    assert list(found) == ["sequence", "labels", "scores"]
    assert found["sequence"] == text
    assert found["scores"] == sorted(found["scores"], reverse=True)
    assert dict(zip(found["labels"], found["scores"], strict=True)) == pytest.approx(directly(text, how), abs=1e-5)


def test_the_mean_is_what_holds_without_a_word(classify):
    assert classify(TEXTS[0]) == classify(TEXTS[0], label_score="mean")


def test_the_template_is_the_end_of_the_prompt(classify):
    found = classify(TEXTS[0], hypothesis_template="About {}!")
    wanted = directly(TEXTS[0], "mean", "\nAbout ", "!")
    assert dict(zip(found["labels"], found["scores"], strict=True)) == pytest.approx(wanted, abs=1e-5)


def test_many_texts_get_what_each_gets_alone(classify):
    for found, text in zip(classify([*TEXTS, LONG]), [*TEXTS, LONG], strict=True):
        alone = classify(text)
        assert found["labels"] == alone["labels"]
        assert found["scores"] == pytest.approx(alone["scores"], abs=1e-5)


def test_a_long_text_is_read_whole_in_windows_that_hold_the_template(classify):
    job = classify.prepare(LONG, classify.options({"stride": 3}))
    processor = classify.processor
    ids = processor.encode(LONG).ids
    sentence = processor.encode("\nThis example is").ids
    windows = job.contents
    assert len(windows) > 3
    assert all(window.ids[-len(sentence) :] == sentence for window in windows)
    assert all(len(window) <= 64 for window in windows)
    parts = [window.ids[: -len(sentence)] for window in windows]
    assert parts[0] + [token for part in parts[1:] for token in part[3:]] == ids
    coverage = classify(LONG, coverage=True)["coverage"]
    assert coverage["seen"] == coverage["tokens"] == len(ids)


def test_a_long_text_is_cut_or_refused_when_asked_for(classify):
    coverage = classify(LONG, truncation=True, coverage=True)["coverage"]
    assert coverage["seen"] < 64 < coverage["tokens"]
    assert coverage["strategy"] == "truncate"
    with pytest.raises(LimitExceeded, match=r'tokens, at most 64 fit; use long="window"'):
        classify(LONG, long="error")


@pytest.mark.parametrize(
    "model, options, error, message",
    [
        ("gpt2", {"candidate_labels": "sports"}, InvalidInput, "1 candidate_labels; name at least two"),
        ("gpt2", {"candidate_labels": ""}, InvalidInput, "no candidate_labels; name at least two"),
        ("gpt2", {"multi_label": True}, InvalidInput, "multi_label needs a model of natural language inference"),
        ("gpt2", {"candidate_labels": ["a " * 80, "b"]}, LimitExceeded, "the labels leave 0 for the text"),
        ("gpt2", {"max_length": 65}, InvalidInput, "max_length is 65, the model takes 64 tokens"),
        ("bert-nli", {"label_score": "sum"}, InvalidInput, "label_score does nothing with BertForSequence"),
    ],
)
def test_what_does_not_go_with_the_model_is_refused(model, options, error, message):
    made = triarch.pipeline("zero-shot-classification", tiny.load(model))
    with pytest.raises(error, match=message):
        made(TEXTS[0], **{"candidate_labels": LABELS} | options)
