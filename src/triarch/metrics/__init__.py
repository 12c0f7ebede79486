"""Measures of what a model gives beside what is right: plain functions from lists and arrays to numbers.

Classes are whole numbers from 0 on. What is right comes first, as in scikit-learn. Where there is nothing to measure
the answer is nan; a share of nothing, such as the precision of a model that never says yes, is 0.0.

Shapes: N samples, L labels, C candidates.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

Numbers = Sequence[Any] | np.ndarray


class Scores(NamedTuple):
    precision: float
    recall: float
    f1: float


FALLING = frozenset({"loss", "perplexity", "bits_per_byte", "mse", "mae", "ter"})


def falls(name: str) -> bool:
    """Whether a metric, by the name that objectives give it, is better when it is lower; parts of the loss are."""
    return name in FALLING or name.endswith("_loss")


# Classes


def accuracy(right: Numbers, predicted: Numbers) -> float:
    """The share of samples (N,) that are right."""
    same = np.asarray(right) == np.asarray(predicted)
    return float(same.mean()) if same.size else math.nan


def confusion_matrix(right: Numbers, predicted: Numbers, labels: int) -> np.ndarray:
    """(L, L) counts: rows are what is right, columns what was predicted."""
    cells = np.asarray(right, np.int64) * labels + np.asarray(predicted, np.int64)
    return np.bincount(cells, minlength=labels * labels).reshape(labels, labels)


def f1_by_label(right: Numbers, predicted: Numbers, labels: int | None = None) -> np.ndarray:
    """(L,): the harmonic mean of precision and recall of each label.

    Samples are classes (N,), or sets of labels as (N, L) of truth values. A label that is neither right nor predicted
    anywhere has 0.0.
    """
    true, said, wanted = _label_counts(right, predicted, labels)
    return _shares(2 * true, said + wanted)


def f1(
    right: Numbers,
    predicted: Numbers,
    average: Literal["binary", "micro", "macro"] = "binary",
    positive: int = 1,
) -> float:
    """F1 of the `positive` label, of all decisions together, or the mean over labels.

    Samples as for `f1_by_label`. The mean is over labels that are right or predicted somewhere; over all of them where
    samples are sets of labels. nan without samples.
    """
    if not len(right):
        return math.nan
    true, said, wanted = _label_counts(right, predicted, None)
    if average == "micro":
        return float(_shares(2 * true.sum(), said.sum() + wanted.sum()))
    each = _shares(2 * true, said + wanted)
    if average == "binary":
        return float(each[positive]) if positive < len(each) else 0.0
    return float(each.mean() if np.ndim(right) == 2 else each[said + wanted > 0].mean())


def matthews(right: Numbers, predicted: Numbers) -> float:
    """The correlation of classes, two or more. 0.0 where all right or all predicted ones are of one class.

    Gorodkin 2004, https://doi.org/10.1016/j.compbiolchem.2004.09.006
    """
    if not len(right):
        return math.nan
    table = confusion_matrix(right, predicted, int(max(np.max(right), np.max(predicted))) + 1).astype(float)
    count, wanted, said = table.sum(), table.sum(1), table.sum(0)
    spread = (count**2 - (wanted**2).sum()) * (count**2 - (said**2).sum())
    return float((np.trace(table) * count - wanted @ said) / math.sqrt(spread)) if spread else 0.0


def _label_counts(right: Numbers, predicted: Numbers, labels: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(L,) each: how often a label was predicted rightly, was predicted, was right."""
    wanted, said = np.asarray(right), np.asarray(predicted)
    if wanted.ndim == 2:
        wanted, said = wanted.astype(bool), said.astype(bool)
        return (wanted & said).sum(0), said.sum(0), wanted.sum(0)
    if labels is None:
        labels = int(max(wanted.max(initial=0), said.max(initial=0))) + 1
    table = confusion_matrix(wanted, said, labels)
    return np.diag(table), table.sum(0), table.sum(1)


def _shares(part: Any, whole: Any) -> np.ndarray:
    """part / whole, and 0.0 of nothing."""
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=np.asarray(whole) != 0)


# Numbers


def pearson(right: Numbers, predicted: Numbers) -> float:
    """Linear correlation. nan with fewer than two samples, or where one side never varies."""
    x, y = np.asarray(right, np.float64), np.asarray(predicted, np.float64)
    if len(x) < 2 or np.all(x == x[0]) or np.all(y == y[0]):
        return math.nan
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip((x / np.linalg.norm(x)) @ (y / np.linalg.norm(y)), -1, 1))


def spearman(right: Numbers, predicted: Numbers) -> float:
    """Correlation of ranks, equal values sharing the mean of theirs. nan as `pearson`."""
    return pearson(_ranks(right), _ranks(predicted))


def _ranks(values: Numbers) -> np.ndarray:
    _, places, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[places]


def perplexity(loss: float, count: float) -> float:
    """exp of a summed loss over its count: among how many words the model wavers. nan of nothing."""
    if not count:
        return math.nan
    return math.exp(loss / count) if loss / count < 700 else math.inf


def bits_per_byte(loss: float, size: float) -> float:
    """A summed loss over the bytes of the text, in bits: comparable whatever the tokens are. nan of nothing."""
    return loss / math.log(2) / size if size else math.nan


# Tags


def entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """(kind, first, last) of each entity, as seqeval finds them in its default mode.

    B-, I-, E- and S- tags in any scheme (IO, BIO, IOB2, BIOES); what breaks a scheme is read leniently: an entity may
    begin with I-, and another kind begins another entity.
    """
    found = []
    before, kind_before, first = "O", "", 0
    for i, tag in enumerate([*tags, "O"]):
        mark, kind = tag[:1], tag[1:].split("-", maxsplit=1)[-1] or "_"
        inside = before not in ("O", ".")
        new_kind = kind != kind_before
        if before in ("E", "S") or (before in ("B", "I") and mark in ("B", "S", "O")) or (inside and new_kind):
            found.append((kind_before, first, i - 1))
        opens = before in ("E", "S", "O") and mark in ("E", "I")
        if mark in ("B", "S") or opens or (mark not in ("O", ".") and new_kind):
            first = i
        before, kind_before = mark, kind
    return found


def entity_f1(right: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Scores:
    """Of whole entities, in all sequences together: one is found when its kind and both its ends are right."""
    pairs = [(set(entities(r)), set(entities(p))) for r, p in zip(right, predicted, strict=True)]
    found = sum(len(r & p) for r, p in pairs)
    wanted, said = sum(len(r) for r, _ in pairs), sum(len(p) for _, p in pairs)
    return Scores(found / said if said else 0.0, found / wanted if wanted else 0.0, _f1(found, said, wanted))


def tag_accuracy(right: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> float:
    """The share of tags that are right, in all sequences together."""
    pairs = [pair for r, p in zip(right, predicted, strict=True) for pair in zip(r, p, strict=True)]
    return sum(r == p for r, p in pairs) / len(pairs) if pairs else math.nan


# Answers, by the rules of SQuAD: Rajpurkar et al. 2016 and 2018, https://rajpurkar.github.io/SQuAD-explorer


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation, articles and spare white space."""
    bare = "".join(character for character in text.lower() if character not in _PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def exact_match(right: Sequence[str], predicted: str) -> float:
    """1.0 if the answer is one of the right ones, once normalised. Without a right one the answer has to be ""."""
    return max(float(normalize_answer(answer) == normalize_answer(predicted)) for answer in _answers(right))


def answer_f1(right: Sequence[str], predicted: str) -> float:
    """How much the words of the answer and of the nearest right one overlap; as `exact_match` where there is none."""
    return max(
        _overlap(normalize_answer(answer).split(), normalize_answer(predicted).split()) for answer in _answers(right)
    )


_PUNCTUATION = frozenset(string.punctuation)


def _answers(right: Sequence[str]) -> Sequence[str]:
    return [answer for answer in right if normalize_answer(answer)] or [""]


def _overlap(right: list[str], predicted: list[str]) -> float:
    if not right or not predicted:
        return float(right == predicted)
    return _f1(sum((Counter(right) & Counter(predicted)).values()), len(predicted), len(right))


def _f1(found: int, said: int, wanted: int) -> float:
    return 2 * found / (said + wanted) if said + wanted else 0.0


# Retrieval


def ranks(scores: np.ndarray, right: Numbers) -> np.ndarray:
    """(N, C) scores and which candidate (N,) is right -> its place (N,), from 1 on; behind all that score the same."""
    own = np.take_along_axis(scores, np.asarray(right, np.int64)[:, None], axis=1)
    return (scores >= own).sum(1)


def recall_at(k: int, places: Numbers) -> float:
    """The share of right candidates among the first `k`, of their `ranks`."""
    return float((np.asarray(places) <= k).mean()) if len(places) else math.nan


def mean_reciprocal_rank(places: Numbers) -> float:
    """1 where the right candidate always comes first, of the `ranks`."""
    return float((1 / np.asarray(places)).mean()) if len(places) else math.nan
