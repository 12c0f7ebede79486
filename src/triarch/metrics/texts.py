"""Measures of texts that a model wrote, beside those that it should have written: of all pairs together, right ones
first.

BLEU and chrF are those of sacreBLEU (Post 2018, https://arxiv.org/abs/1804.08771), from 0 to 100, with one right text
each; TER is computed by it, and needs it to be installed. ROUGE is that of Google's rouge_score without stemming.
"""

from __future__ import annotations

import html
import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from triarch.errors import Unsupported
from triarch.metrics import Scores

Texts = Sequence[str]
ORDER = 4  # the longest n-grams of BLEU
CHARACTERS, BETA = 6, 2  # of chrF: the longest n-grams, and how much more recall counts than precision


def exact_match(right: Texts, written: Texts) -> float:
    """The share of texts that are right to the letter, white space around them apart. nan of nothing."""
    pairs = list(zip(right, written, strict=True))
    return sum(a.strip() == b.strip() for a, b in pairs) / len(pairs) if pairs else math.nan


# BLEU: Papineni et al. 2002, https://aclanthology.org/P02-1040


def bleu(right: Texts, written: Texts) -> float:
    """How many n-grams of words, up to four, of what was written are right; less for what is too short. nan of nothing.

    Words are those of the tokenization 13a, in the case in which they are written. Where no n-gram of a length is
    right, half as much of one counts as in the last such case: smoothing exp of sacreBLEU.
    """
    if not len(right):
        return math.nan
    found, said = np.zeros(ORDER, np.int64), np.zeros(ORDER, np.int64)
    lengths = [0, 0]  # of right texts, and of those written
    for texts in zip(right, written, strict=True):
        wanted, given = (words_13a(text) for text in texts)
        lengths[0] += len(wanted)
        lengths[1] += len(given)
        for n in range(ORDER):
            grams = _ngrams(given, n + 1)
            said[n] += grams.total()
            found[n] += (grams & _ngrams(wanted, n + 1)).total()
    if not found.any() or not said.all():
        return 0.0
    logs, share = 0.0, 1.0
    for n in range(ORDER):
        if not found[n]:
            share /= 2
        logs += math.log((found[n] or share) / said[n])
    brevity = min(0.0, 1 - lengths[0] / lengths[1])
    return 100 * math.exp(brevity + logs / ORDER)


def words_13a(text: str) -> list[str]:
    """The words of a text as the script mteval-v13a cuts it: by white space and around most signs; not within numbers.

    Its names of characters (&quot; &amp; &lt; &gt;) are the characters.
    """
    text = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for name in ("&quot;", "&amp;", "&lt;", "&gt;"):
        text = text.replace(name, html.unescape(name))
    text = f" {text} "
    for pattern, spaced in _SPACED:
        text = pattern.sub(spaced, text)
    return text.split()


_SPACED = [
    (re.compile(r"([{-~\[-` -&(-+:-@/])"), r" \1 "),
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
]


# chrF: Popović 2015 and 2017, https://aclanthology.org/W15-3049, https://aclanthology.org/W17-4770


def chrf(right: Texts, written: Texts, words: int = 0) -> float:
    """F2 of n-grams of characters up to six, white space left out, averaged over their lengths; nan of nothing.

    chrF++ has n-grams of two `words` as well.
    """
    if not len(right):
        return math.nan
    counts = np.zeros((CHARACTERS + words, 3), np.int64)  # of each length: right and written, written, right
    for texts in zip(right, written, strict=True):
        wanted, given = (_grams(text, words) for text in texts)
        for n, (a, b) in enumerate(zip(wanted, given, strict=True)):
            counts[n] += ((a & b).total(), b.total() if a else 0, a.total())
    counts = counts[(counts[:, 1] > 0) & (counts[:, 2] > 0)]
    if not len(counts):
        return 0.0
    precision, recall = (float((counts[:, 0] / counts[:, i]).mean()) for i in (1, 2))
    if not precision + recall:
        return 0.0
    return 100 * (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)


def _grams(text: str, words: int) -> list[Counter[Any]]:
    letters = "".join(text.split())
    parts = [part for word in text.split() for part in _sign_apart(word)] if words else []
    return [
        *(_ngrams(letters, n) for n in range(1, CHARACTERS + 1)),
        *(_ngrams(parts, n) for n in range(1, words + 1)),
    ]


def _sign_apart(word: str) -> list[str]:
    """A word without the sign at its end, else at its beginning; and that."""
    if len(word) > 1 and word[-1] in string.punctuation:
        return [word[:-1], word[-1]]
    return [word[0], word[1:]] if len(word) > 1 and word[0] in string.punctuation else [word]


# TER: Snover et al. 2006, https://aclanthology.org/2006.amta-papers.25


def ter(right: Texts, written: Texts) -> float:
    """Edits that make what was written right, moves of phrases among them, for 100 words; the lower, the better.

    Raises Unsupported without sacreBLEU. nan of nothing.
    """
    check_ter()
    from sacrebleu import TER

    return float(TER().corpus_score([*written], [[*right]]).score) if len(right) else math.nan


def check_ter() -> None:
    """Raises Unsupported where TER cannot be computed."""
    try:
        import sacrebleu  # noqa: F401
    except ImportError:
        raise Unsupported("ter needs sacrebleu, which is not installed; run: pip install 'triarch[metrics]'") from None


# ROUGE: Lin 2004, https://aclanthology.org/W04-1013


def rouge(right: str, written: str) -> dict[str, Scores]:
    """Of one pair, from 0 to 1: rouge1 and rouge2, of words and pairs of them; rougeL, of the longest sequence of words
    that both have; rougeLsum, the same with each line a sentence by itself.

    Words are of Latin letters without accents, and of digits, in any case: nothing else is seen.
    """
    wanted, given = _plain_words(right), _plain_words(written)
    scores = {}
    for n in (1, 2):
        a, b = _ngrams(wanted, n), _ngrams(given, n)
        scores[f"rouge{n}"] = _scores((a & b).total(), b.total(), a.total())
    scores["rougeL"] = _scores(len(_common(wanted, given)), len(given), len(wanted))
    lines = [[_plain_words(line) for line in text.split("\n")] for text in (right, written)]
    scores["rougeLsum"] = _scores(_common_in_lines(*lines), len(given), len(wanted))
    return scores


def mean_rouge(right: Texts, written: Texts) -> dict[str, float]:
    """F1 of each kind, averaged over the pairs; nan of nothing."""
    found = [rouge(a, b) for a, b in zip(right, written, strict=True)]
    kinds = rouge("", "")
    return {kind: float(np.mean([one[kind].f1 for one in found])) if found else math.nan for kind in kinds}


def _common_in_lines(wanted: list[list[str]], given: list[list[str]]) -> int:
    """Words of the right lines that are in a longest common sequence with any written line; each counts as often as
    both texts have it at most."""
    left = Counter(word for line in wanted for word in line) & Counter(word for line in given for word in line)
    hits = 0
    for line in wanted:
        for i in sorted({i for other in given for i in _common(line, other)}):
            if left[line[i]]:
                left[line[i]] -= 1
                hits += 1
    return hits


def _common(wanted: list[str], given: list[str]) -> list[int]:
    """Where in `wanted` the words of a longest common sequence stand, from the last on; of several the first there."""
    table = np.zeros((len(wanted) + 1, len(given) + 1), np.int32)
    numbers = {word: i for i, word in enumerate(dict.fromkeys((*wanted, *given)))}
    b = np.array([numbers[word] for word in given], np.int64)
    for i, word in enumerate(wanted):
        # A cell is the largest of the one above it, of the one to its left, and of the match on the diagonal
        table[i + 1, 1:] = np.maximum(table[i, 1:], table[i, :-1] + (b == numbers[word]))
        np.maximum.accumulate(table[i + 1], out=table[i + 1])
    places, i, j = list[int](), len(wanted), len(given)
    while i and j:
        if wanted[i - 1] == given[j - 1]:
            places.append(i - 1)
            i, j = i - 1, j - 1
        elif table[i, j - 1] > table[i - 1, j]:
            j -= 1
        else:
            i -= 1
    return places


def _plain_words(text: str) -> list[str]:
    return re.findall("[a-z0-9]+", text.lower())


def _scores(found: int, said: int, wanted: int) -> Scores:
    precision, recall = found / max(said, 1), found / max(wanted, 1)
    return Scores(precision, recall, 2 * precision * recall / (precision + recall) if found else 0.0)


def _ngrams(items: Sequence[Any], n: int) -> Counter[Any]:
    """Runs of `n` of them, and how often each is there."""
    runs = (items[i : i + n] for i in range(len(items) - n + 1))
    return Counter(runs if isinstance(items, str) else map(tuple, runs))
