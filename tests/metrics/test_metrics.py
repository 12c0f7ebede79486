"""Metrics against their reference implementations, whose numbers goldens/make_metrics.py wrote down, and by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from triarch import metrics

FILE = Path(__file__).parents[1] / "goldens" / "metrics" / "reference.json"
GOLDENS = json.loads(FILE.read_text(encoding="utf-8"))["cases"]


def places(scores, right):
    return metrics.ranks(np.array(scores), right)


OURS = {
    "accuracy": metrics.accuracy,
    "matthews": metrics.matthews,
    "f1 micro": lambda right, said: metrics.f1(right, said, "micro"),
    "f1 macro": lambda right, said: metrics.f1(right, said, "macro"),
    "f1 binary": metrics.f1,
    "f1 by label": metrics.f1_by_label,
    "confusion": lambda right, said: metrics.confusion_matrix(right, said, max(right + said) + 1),
    "pearson": metrics.pearson,
    "spearman": metrics.spearman,
    "entities": metrics.entity_f1,
    "tag accuracy": metrics.tag_accuracy,
    "spans": lambda tags: [list(entity) for entity in metrics.entities(tags)],
    "answer": lambda right, said: [metrics.exact_match(right, said), metrics.answer_f1(right, said)],
    "reciprocal rank": lambda scores, right: metrics.mean_reciprocal_rank(places(scores, right)),
    "recall 1": lambda scores, right: metrics.recall_at(1, places(scores, right)),
    "recall 3": lambda scores, right: metrics.recall_at(3, places(scores, right)),
}


@pytest.mark.parametrize("name", OURS)
def test_equals_its_reference(name):
    cases = [case for case in GOLDENS if case["metric"] == name]
    assert cases
    for case in cases:
        got, want = OURS[name](*case["args"]), case["value"]
        if name == "spans":
            assert got == want
        else:
            want = math.nan if want is None else want
            np.testing.assert_allclose(got, want, atol=1e-9, rtol=0, err_msg=str(case["args"]))


def test_every_golden_is_compared():
    assert {case["metric"] for case in GOLDENS} == set(OURS)


@pytest.mark.parametrize("measure", [metrics.accuracy, metrics.matthews, metrics.f1, metrics.pearson, metrics.spearman])
def test_nothing_measured_is_nan(measure):
    assert math.isnan(measure([], []))


def test_nothing_found_is_nan_or_zero():
    assert math.isnan(metrics.tag_accuracy([], []))
    assert metrics.entity_f1([], []) == (0.0, 0.0, 0.0)
    assert math.isnan(metrics.recall_at(1, []))
    assert math.isnan(metrics.mean_reciprocal_rank([]))
    assert metrics.f1_by_label([], [], labels=2).tolist() == [0.0, 0.0]


def test_correlation_of_one_sample_is_nan():
    assert math.isnan(metrics.pearson([1.0], [2.0]))
    assert math.isnan(metrics.spearman([1.0], [2.0]))


def test_a_label_that_no_sample_has_counts_as_zero_in_sets_of_labels():
    assert metrics.f1([[1, 0], [1, 0]], [[1, 0], [1, 0]], "macro") == 0.5


def test_perplexity():
    assert metrics.perplexity(3 * math.log(8), 3) == pytest.approx(8)
    assert math.isnan(metrics.perplexity(0.0, 0))
    assert metrics.perplexity(1e9, 1) == math.inf


def test_vectors_that_are_all_alike_find_nothing():
    assert places(np.ones((3, 4)), [0, 1, 2]).tolist() == [4, 4, 4]


def test_sequences_of_different_length_are_refused():
    with pytest.raises(ValueError, match="zip"):
        metrics.tag_accuracy([["O"]], [["O", "O"]])
