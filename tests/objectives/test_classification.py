"""One answer for a whole text, or a pair of texts: a label, several labels, or a number."""

import numpy as np
import pytest
import torch

import triarch
from material import LABELS, MANY, ROWS, S
from triarch import metrics
from triarch.errors import InvalidInput, LimitExceeded
from triarch.objectives._windows import Part, by_row, parts
from triarch.objectives.classification import Classification
from triarch.objectives.multi_label import MultiLabel
from triarch.objectives.regression import Regression


def random_logits(rows=3, labels=3):
    return torch.randn(rows, labels, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("weights", [None, [0.2, 1.0, 3.0]])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_and_label_smoothing_are_torchs(weights, smoothing, processor):
    made = Classification(processor, labels=LABELS, class_weights=weights, label_smoothing=smoothing)
    targets, count = made.targets([2, 0, 1])
    wanted = torch.nn.CrossEntropyLoss(None if weights is None else torch.tensor(weights), label_smoothing=smoothing)
    got = made.loss(random_logits(), targets) / count
    torch.testing.assert_close(got, wanted(random_logits(), targets), atol=1e-6, rtol=1e-6)


def test_balanced_weights_are_scikit_learns(processor):
    made = Classification(processor, labels=LABELS, class_weights="balanced")
    made.prepare({"text": "", "label": label} for label in ["bad"] * 6 + ["fair"] * 3 + ["good"])
    assert made._weights == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    with pytest.raises(InvalidInput, match="no row has label 'fair'"):
        made.prepare([{"text": "", "label": "bad"}])


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0, 1.0], [0.0, 0.0, 0.0]])
def test_class_weights_that_cannot_be(weights, processor):
    with pytest.raises(InvalidInput, match="wanted 3 numbers of at least 0"):
        Classification(processor, labels=LABELS, class_weights=weights)


@pytest.mark.parametrize(
    "label, message",
    [
        ("goof", r"label is 'goof' \(did you mean good\?\); there are bad, fair, good"),
        (3, "label is 3; there are"),
        (-1, "label is -1; there are"),
        (None, "label is None, wanted the name of a label"),
        ("", "wanted the name of a label"),
        (float("nan"), "label is nan, wanted the name"),
        ("x\nnasty", r"\\n"),
    ],
)
def test_a_label_outside_of_the_labels(label, message, processor):
    with pytest.raises(InvalidInput, match=message):
        Classification(processor, labels=LABELS).examples({"text": "a", "label": label})


def test_numbers_are_labels_by_name_where_labels_are_numbers(processor):
    made = Classification(processor, labels=["1", "2", "3"])
    assert made.target({"label": 1}) == 0
    with pytest.raises(InvalidInput, match="label is 0; there are 1, 2, 3"):
        made.target({"label": 0})


@pytest.mark.parametrize("labels", [[], ["one"], ["a", "a"]])
def test_labels_that_leave_no_choice(labels, processor):
    with pytest.raises(InvalidInput, match="wanted at least 2, each once"):
        Classification(processor, labels=labels)


@pytest.mark.parametrize("row", [{"label": "good"}, {"text": 3, "label": "good"}, {"text": None, "label": "good"}])
def test_a_row_without_text(row, processor):
    with pytest.raises(InvalidInput, match=r"text is .*, wanted text"):
        Classification(processor, labels=LABELS).examples(row)


def test_long_texts_are_windows_or_cut_or_refused(processor):
    row = {"text": " ".join(S), "label": "good"}

    def examples(**options):
        return Classification(processor, labels=LABELS, **options).examples(row)

    found = examples(stride=4)
    whole = processor.encode(row["text"], special_tokens=False).ids
    read = [found[0].ids[1:-1], *(example.ids[5:-1] for example in found[1:])]
    assert [id_ for ids in read for id_ in ids] == whole
    assert {example.target for example in found} == {2}
    assert [len(example.ids) for example in examples(long="truncate")] == [64]
    assert max(len(example.ids) for example in examples(max_tokens=20)) == 20
    with pytest.raises(LimitExceeded, match='at most 64 fit; use long="window"'):
        examples(long="error")


def test_windows_of_a_row_have_one_answer_by_length(processor):
    made = Classification(processor, labels=LABELS)
    examples = [e for _ in range(2) for e in made.examples({"text": " ".join(S), "label": "good"})]  # a row twice
    examples += made.examples({"text": "a", "label": "bad"})
    batch = made.batch(examples)
    logits = torch.randn(len(examples), 3, generator=torch.Generator().manual_seed(3))
    count = (len(examples) - 1) // 2
    logits[count:-1] = logits[:count]
    outcomes = made.outcomes(triarch.kinds.LabelScores(logits), batch)
    found = by_row(outcomes[::-1])
    assert sorted(map(len, found)) == [1, count, count]
    weights = [example.length for example in examples[:count]]
    answer = int(np.average(logits[:count].numpy(), axis=0, weights=weights).argmax())
    assert [made._said(windows) for windows in found[1:]] == [answer] * 2
    right = [answer == 2] * 2 + [int(logits[-1].argmax()) == 0]
    assert made.measure(outcomes)["accuracy"] == pytest.approx(np.mean(right))


def test_windows_of_different_rows_are_kept_apart():
    class Seen:
        def __init__(self, part):
            self.part = part

    one, other = (parts({"text": text}, 2) for text in "ab")
    seen = [Seen(part) for part in (one[1], other[0], one[0], Part(), other[1], Part())]
    assert by_row(seen) == [[seen[2], seen[0]], [seen[1], seen[4]], [seen[3]], [seen[5]]]


@pytest.mark.parametrize("label", [float("nan"), float("inf"), "many", None, True, [1.0], ""])
def test_a_label_that_is_no_number(label, processor):
    with pytest.raises(InvalidInput, match="wanted a finite number"):
        Regression(processor).examples({"text": "a", "label": label})


def test_regression_measures_what_metrics_do(processor):
    made = Regression(processor)
    examples = [e for row in ROWS["regression"] for e in made.examples(row)]
    scores = triarch.kinds.LabelScores(torch.tensor([[2.0], [-2.0], [1.25]]))
    found = made.measure(made.outcomes(scores, made.batch(examples)))
    right, said = [2.5, -1.0, 0.25], [2.0, -2.0, 1.25]
    assert found["pearson"] == pytest.approx(metrics.pearson(right, said))
    assert found["mse"] == pytest.approx(2.25 / 3)


def test_multi_label_counts_each_decision(processor):
    made = MultiLabel(processor, labels=MANY)
    examples = [e for row in ROWS["multi-label"] for e in made.examples(row)]
    batch = made.batch(examples)
    logits = torch.tensor([[-1.0, 2.0, -3.0, 1.0], [-1.0, -1.0, -1.0, 1.0], [1.0, 1.0, -1.0, -1.0]])
    found = made.measure(made.outcomes(triarch.kinds.LabelScores(logits), batch))
    assert batch.counts == {"multi-label": 12}
    assert batch.targets["label"].tolist() == [[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert found == pytest.approx({"f1_micro": 6 / 8, "f1_macro": (1 + 2 / 3 + 0 + 2 / 3) / 4, "accuracy": 1 / 3})


@pytest.mark.parametrize("labels", ["rude", None, ["ruder"], [["rude"]]])
def test_labels_that_are_no_list_of_names(labels, processor):
    with pytest.raises(InvalidInput, match="label"):
        MultiLabel(processor, labels=MANY).examples({"text": "a", "labels": labels})
