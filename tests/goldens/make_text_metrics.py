"""What the reference implementations say of texts beside the right ones, random and odd.

    python -m venv /tmp/metrics
    /tmp/metrics/bin/pip install sacrebleu==2.5.1 rouge_score==0.1.2
    /tmp/metrics/bin/python tests/goldens/make_text_metrics.py

Writes tests/goldens/metrics/texts.json: {"versions", "corpora": [{"right", "written", "bleu", …}]}, with what they
make of each corpus, and of each pair in it for ROUGE. triarch is not imported.
"""

import importlib.metadata
import json
import random
from pathlib import Path

from rouge_score import rouge_scorer
from sacrebleu import BLEU, CHRF

HERE = Path(__file__).parent
WORDS = """
    the the a cat sat on mat The Cat , . ! ? ; ( x ) 3.5 1,000 5-6 U.S. a.b - -- well-known state-of-the-art end.
    l'été naïve Café über 日本 мир "quoted" &amp; &quot;so&quot; & $5 50% <skipped> x² ... it's
"""
ODD = [
    (["The cat sat on the mat."], ["The cat sat on the mat."]),
    (["the cat"], ["the cat"]),  # shorter than the longest n-grams
    (["the cat sat on the mat"], ["a dog lay by that rug"]),  # nothing right
    (["the cat sat on the mat"], ["mat the on sat cat the"]),  # no two words
    (["the cat sat on the mat"], [""]),
    ([""], ["the cat"]),
    ([""], [""]),
    (["...", "!?"], ["!?", "..."]),
    (["The first line.\nThe second one."], ["The second one.\nThe first line."]),
    (["a b c a b c"], ["a a a b\nb c c\n\na"]),
    (["soft-\nware"], ["software"]),
    (["the cat sat on the mat all day long and slept"], ["all day long the cat sat on the mat and slept"]),
    (["日本語のテキスト"], ["日本のテキスト"]),
    (["trailing space "], ["trailing  space"]),
]


def text(draw):
    words = [draw.choice(WORDS.split()) for _ in range(draw.randint(0, 16))]
    return " ".join(f"{word}\n" if draw.random() < 0.08 else word for word in words)


def changed(right, draw):
    words = right.split(" ")
    for _ in range(draw.randint(0, 4)):
        words[draw.randrange(len(words))] = draw.choice(WORDS.split())
    if draw.random() < 0.5:  # a phrase elsewhere
        a, b = sorted(draw.randrange(len(words) + 1) for _ in range(2))
        phrase, words = words[a:b], words[:a] + words[b:]
        at = draw.randrange(len(words) + 1)
        words[at:at] = phrase
    return " ".join(words[: draw.randint(1, 20)])


def measured(right, written):
    rouge = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"])
    return {
        "right": right,
        "written": written,
        "bleu": BLEU().corpus_score(written, [right]).score,
        "chrf": CHRF().corpus_score(written, [right]).score,
        "chrf++": CHRF(word_order=2).corpus_score(written, [right]).score,
        "rouge": [rouge.score(a, b) for a, b in zip(right, written, strict=True)],
    }


def main():
    draw = random.Random(0)
    corpora = list(ODD)
    for _ in range(60):
        right = [text(draw) for _ in range(draw.randint(1, 4))]
        corpora.append((right, [changed(one, draw) if draw.random() < 0.8 else text(draw) for one in right]))
    versions = {name: importlib.metadata.version(name) for name in ("sacrebleu", "rouge_score")}
    found = {"versions": versions, "corpora": [measured(*corpus) for corpus in corpora]}
    path = HERE / "metrics" / "texts.json"
    path.write_text(json.dumps(found, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
