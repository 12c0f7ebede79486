"""What went wrong in a measurement: counts of labels taken for others, and the rows with a wrong answer."""

import math

import pytest
import torch

import tiny
import triarch
from reading import rows_of
from triarch.objectives import objective
from triarch.training import plan
from triarch.training.facts import Mistakes
from triarch.training.learner import Learner
from triarch.training.mistakes import mistakes
from triarch.training.settings import Settings

S = tiny.SENTENCES
LONG = " ".join(S)  # of several windows
LABELS = ["negative", "neutral", "positive"]
WORDS = ["Ada", "Lovelace", "lived", "in", "London"]


@pytest.fixture
def found(tmp_path):
    """What a model gets wrong of rows for an objective."""

    def call(model, name, rows):
        labels = {"labels": list(model.config.id2label.values())} if objective(name).LABELS else {}
        learner = Learner(model, objective(name)(model.processor, **labels))
        source = plan.source_of(rows_of(rows, kind=name), learner.objective, Settings(on_bad_row="skip"), tmp_path, str)
        return mistakes(learner, source, learner.measure(source.examples, 0)[1])

    return call


@pytest.fixture(scope="module")
def classifier():
    return tiny.load("bert-labels")


@pytest.fixture(scope="module")
def tagger():
    return tiny.load("bert-tags")


def scores(classifier, text):
    """The probability of each label, by the task."""
    answers = triarch.pipeline("text-classification", classifier)(text, top_k=None)
    return {answer["label"]: answer["score"] for answer in answers}


def said(classifier, text):
    found = scores(classifier, text)
    return max(found, key=found.get)


def tags(tagger, words):
    """The tag of the first token of each word."""
    numbers = tagger.processor.encode(words).word_ids
    with torch.no_grad():
        best = tagger(**tagger.processor([words])).logits[0].argmax(-1).tolist()
    return [tagger.config.id2label[best[numbers.index(number)]] for number in range(len(words))]


# Counts


def test_counts_are_of_right_labels_by_predicted_ones(found, classifier):
    answers = [said(classifier, text) for text in S]
    confusion = found(classifier, "classification", [{"text": text, "label": "neutral"} for text in S]).confusion
    assert confusion.tolist() == [[0] * 3, [answers.count(label) for label in LABELS], [0] * 3]


def test_what_is_no_choice_among_labels_has_none(found):
    model = tiny.load("bert-multi-label")
    assert found(model, "multi-label", [{"text": S[0], "labels": ["toxic"]}]) == Mistakes()


# Rows


def test_rows_are_wrong_where_the_task_gives_another_label(found, classifier):
    rows = [{"text": text, "label": "positive"} for text in S]
    wrong = {(text, "positive", label) for text in S if (label := said(classifier, text)) != "positive"}
    assert 3 < len(wrong) < len(S)
    assert {(one.text, one.right, one.predicted) for one in found(classifier, "classification", rows).wrong} == wrong


def test_the_one_that_the_model_is_surest_of_comes_first(found, classifier):
    wrong = found(classifier, "classification", [{"text": text, "label": "positive"} for text in S]).wrong
    right = [scores(classifier, one.text)["positive"] for one in wrong]
    assert right == sorted(right)
    assert [one.loss for one in wrong] == pytest.approx([-math.log(score) for score in right], rel=1e-4)


def test_a_long_text_is_right_or_wrong_as_a_whole(found, classifier):
    label = said(classifier, LONG)
    other = next(name for name in LABELS if name != label)
    rows = [{"text": S[0], "label": said(classifier, S[0])}, {"text": LONG, "label": other}]
    (one,) = found(classifier, "classification", rows).wrong
    assert (one.text, one.right, one.predicted) == (LONG, other, label)
    assert not found(classifier, "classification", [rows[0], {"text": LONG, "label": label}]).wrong


def test_of_a_pair_both_texts_are_told(found, classifier):
    rows = [{"text": S[0], "text_pair": S[1], "label": label} for label in LABELS]
    assert [one.text for one in found(classifier, "classification", rows).wrong] == [f"{S[0]} {S[1]}"] * 2


def test_of_a_sentence_the_words_with_a_wrong_tag_are_told(found, tagger):
    given = tags(tagger, WORDS)
    wanted = ["B-LOC", *given[1:4], "B-LOC"]
    assert "B-LOC" not in given
    (one,) = found(tagger, "tagging", [{"tokens": WORDS, "tags": wanted}, {"tokens": WORDS, "tags": given}]).wrong
    assert one.text == "Ada Lovelace lived in London"
    assert one.right == "Ada B-LOC; London B-LOC"
    assert one.predicted == f"Ada {given[0]}; London {given[4]}"


def test_tags_stand_alone_where_a_word_cannot_have_one(found, tmp_path):
    labels = ["NOUN", "VERB"]  # no O for a word that the tokenizer leaves nothing of
    folder = tiny.write_checkpoint(tmp_path / "model", "bert", "BertForTokenClassification", labels=labels)
    rows = [{"tokens": ["Ada", "\u0085", "lived"], "tags": [tag] * 3} for tag in labels]
    wrong = found(triarch.load(folder), "tagging", rows).wrong
    assert {tag for one in wrong for tag in one.right.split("; ")} <= set(labels)
    assert sum(len(one.right.split("; ")) for one in wrong) == 2


def test_rows_that_were_left_out_do_not_shift_the_others(found, tagger):
    unreadable = {"tokens": ["\u0085"], "tags": ["O"]}
    rows = [unreadable, {"tokens": WORDS, "tags": ["B-LOC"] * 5}]
    assert [one.text for one in found(tagger, "tagging", rows).wrong] == ["Ada Lovelace lived in London"]
