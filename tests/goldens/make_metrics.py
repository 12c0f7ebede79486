"""What the reference implementations of metrics say of random and of odd samples.

    python -m venv /tmp/metrics
    /tmp/metrics/bin/pip install scikit-learn==1.9.1 scipy==1.17.1 seqeval==1.2.2
    /tmp/metrics/bin/python tests/goldens/make_metrics.py

Writes tests/goldens/metrics/reference.json: {"versions", "cases": [{"metric", "args", "value"}]}, where `metric` is the
name of a case of tests/test_metrics.py. Answers are measured by the evaluation script that came with SQuAD 2.0, whose
functions stand below as they were published (Rajpurkar et al., https://rajpurkar.github.io/SQuAD-explorer, MIT
licence). triarch is not imported.
"""

import collections
import importlib.metadata
import json
import math
import random
import re
import string
import warnings
from pathlib import Path

import numpy as np
from scipy import stats
from seqeval.metrics import accuracy_score as tag_accuracy
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities
from sklearn import metrics

HERE = Path(__file__).parent
warnings.simplefilter("ignore")  # of undefined shares, which are what is asked about


def normalize_answer(s):
    """Lower text and remove punctuation, articles and extra whitespace."""

    def remove_articles(text):
        regex = re.compile(r"\b(a|an|the)\b", re.UNICODE)
        return re.sub(regex, " ", text)

    def white_space_fix(text):
        return " ".join(text.split())

    def remove_punc(text):
        exclude = set(string.punctuation)
        return "".join(ch for ch in text if ch not in exclude)

    def lower(text):
        return text.lower()

    return white_space_fix(remove_articles(remove_punc(lower(s))))


def get_tokens(s):
    if not s:
        return []
    return normalize_answer(s).split()


def compute_exact(a_gold, a_pred):
    return int(normalize_answer(a_gold) == normalize_answer(a_pred))


def compute_f1(a_gold, a_pred):
    gold_toks = get_tokens(a_gold)
    pred_toks = get_tokens(a_pred)
    common = collections.Counter(gold_toks) & collections.Counter(pred_toks)
    num_same = sum(common.values())
    if len(gold_toks) == 0 or len(pred_toks) == 0:
        # If either is no-answer, then F1 is 1 if they agree, 0 otherwise
        return int(gold_toks == pred_toks)
    if num_same == 0:
        return 0
    precision = 1.0 * num_same / len(pred_toks)
    recall = 1.0 * num_same / len(gold_toks)
    return (2 * precision * recall) / (precision + recall)


def squad(answers, prediction):
    gold_answers = [a for a in answers if normalize_answer(a)]
    if not gold_answers:
        # For unanswerable questions, only correct answer is empty string
        gold_answers = [""]
    exact = max(compute_exact(a, prediction) for a in gold_answers)
    return exact, max(compute_f1(a, prediction) for a in gold_answers)


def classes(rng):
    """Right and predicted classes: balanced, rare, missing on one side, all alike, one sample."""
    yield [0, 1, 1, 0], [0, 1, 0, 0]
    yield [1, 1, 1], [1, 1, 1]
    yield [0, 0, 0], [1, 1, 1]
    yield [0], [0]
    yield [1], [0]
    yield [0, 2, 2], [2, 0, 2]
    for labels, count in ((2, 30), (3, 40), (5, 25), (9, 200)):
        right = rng.integers(0, labels, count)
        yield right.tolist(), np.where(rng.random(count) < 0.6, right, rng.integers(0, labels, count)).tolist()
        yield right.tolist(), np.zeros(count, int).tolist()


def numbers(rng):
    yield [1.0, 2.0, 3.0], [3.0, 1.0, 2.0]
    yield [1.0, 2.0, 2.0, 4.0], [1.0, 1.0, 1.0, 9.0]
    yield [1.0, 1.0, 1.0], [1.0, 2.0, 3.0]
    yield [1.0, 2.0, 3.0], [0.1, 0.1, 0.1]
    yield [1e8, 1e8 + 1, 1e8 + 2], [-1e-8, 0.0, 1e-8]
    for count in (2, 10, 101):
        right = rng.normal(size=count)
        yield right.tolist(), (right + rng.normal(size=count)).tolist()
        yield rng.integers(0, 4, count).tolist(), rng.integers(0, 4, count).tolist()


def tag_sequences(rng):
    """In every scheme, and in none; with some tags that break it."""
    schemes = {"IO": "IO", "BIO": "BIO", "BIOES": "BIOES"}
    yield [["O", "O"]], [["O", "O"]]
    yield [["B-PER"]], [["O"]]
    yield [["B-PER", "I-PER"], ["O"]], [["B-PER", "I-LOC"], ["S-LOC"]]
    yield [["I-PER", "B-PER", "I-PER"]], [["I-PER", "I-PER", "I-PER"]]
    yield [["B", "I", "O", "I"]], [["B", "I", "O", "O"]]
    yield [["B-A-B", "I-A-B"]], [["B-A-B", "I-A"]]
    for marks in schemes.values():
        tags = ["O"] + [f"{mark}-{kind}" for mark in marks if mark != "O" for kind in ("PER", "LOC", "ORG")]
        for _ in range(8):
            right = [[rng.choice(tags) for _ in range(rng.randint(1, 12))] for _ in range(rng.randint(1, 5))]
            said = [[tag if rng.random() < 0.7 else rng.choice(tags) for tag in sentence] for sentence in right]
            yield right, said


ANSWERS = [
    (["Denver Broncos"], "The Denver Broncos!"),
    (["Santa Clara, California", "Levi's Stadium"], "Levis stadium in Santa Clara"),
    (["the the the a"], "the"),
    (["the"], ""),
    ([], ""),
    ([], "something"),
    (["1,000.50"], "100050"),
    (["Zürich"], "zürich"),
    (["a cat and a dog"], "a dog and a cat and a dog"),
    (["An"], "an"),
    (["état — été"], "Été"),
    (["x"], ""),
    (["No.", "nope"], "no"),
    (["  spaced \t out\nanswer "], "spaced out answer"),
]


def made(metric, args, value):
    plain = value.tolist() if isinstance(value, np.ndarray) else value
    return {"metric": metric, "args": args, "value": None if isinstance(plain, float) and math.isnan(plain) else plain}


def cases():
    rng, plain = np.random.default_rng(0), random.Random(0)
    for right, said in classes(rng):
        args, labels = [right, said], max(right + said) + 1
        yield made("accuracy", args, float(metrics.accuracy_score(right, said)))
        yield made("matthews", args, float(metrics.matthews_corrcoef(right, said)))
        for average in ("micro", "macro"):
            yield made(f"f1 {average}", args, float(metrics.f1_score(right, said, average=average)))
        if labels <= 2:
            yield made("f1 binary", args, float(metrics.f1_score(right, said, average="binary")))
        every = list(range(labels))
        yield made("f1 by label", args, metrics.f1_score(right, said, labels=every, average=None))
        yield made("confusion", args, metrics.confusion_matrix(right, said, labels=every))
    for labels, count in ((1, 5), (3, 20), (6, 50)):
        right = (rng.random((count, labels)) < 0.3).astype(int)
        said = np.where(rng.random(right.shape) < 0.8, right, 1 - right)
        for average in ("micro", "macro"):
            if labels > 1:  # one column is a binary problem to scikit-learn
                value = float(metrics.f1_score(right, said, average=average))
                yield made(f"f1 {average}", [right.tolist(), said.tolist()], value)
    for right, said in numbers(rng):
        yield made("pearson", [right, said], float(stats.pearsonr(right, said).statistic))
        yield made("spearman", [right, said], float(stats.spearmanr(right, said).statistic))
    for right, said in tag_sequences(plain):
        value = [float(score(right, said)) for score in (precision_score, recall_score, f1_score)]
        yield made("entities", [right, said], value)
        yield made("tag accuracy", [right, said], float(tag_accuracy(right, said)))
        for sentence in said:
            yield made("spans", [sentence], [list(entity) for entity in get_entities(sentence)])
    for right, said in ANSWERS:
        yield made("answer", [right, said], [float(value) for value in squad(right, said)])
    for count, candidates in ((1, 1), (6, 4), (30, 50)):
        scores = rng.integers(0, 20, (count, candidates)) / 4  # ties
        right = rng.integers(0, candidates, count)
        wanted = np.arange(candidates) == right[:, None]
        value = float(metrics.label_ranking_average_precision_score(wanted, scores)) if candidates > 1 else 1.0
        yield made("reciprocal rank", [scores.tolist(), right.tolist()], value)
        distinct = rng.permuted(np.tile(np.arange(candidates) / 4, (count, 1)), axis=1)
        for k in (1, 3):
            every = range(candidates)
            value = float(metrics.top_k_accuracy_score(right, distinct, k=k, labels=every)) if candidates > 2 else 1.0
            yield made(f"recall {k}", [distinct.tolist(), right.tolist()], value)


def main():
    versions = {name: importlib.metadata.version(name) for name in ("scikit-learn", "scipy", "seqeval", "numpy")}
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases())
    text = f'{{"versions": {json.dumps(versions)}, "cases": [\n{lines}\n]}}\n'
    (HERE / "metrics" / "reference.json").write_text(text, encoding="utf-8")


main()
