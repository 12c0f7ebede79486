"""What copying gives, ROUGE and BLEU of the source itself and of its first sentence, and what a model does.

    python recipes/baselines.py work/data/tldr/test.jsonl
    python recipes/baselines.py work/data/splitting/test.jsonl -m starters/rewriting --options '{"num_beams": 4}'

Beside them stand how many have two sentences or more, and how many are the source again.
"""

import argparse
import json
from pathlib import Path

from prepare import SPLIT, SUMMARIZE

from triarch import pipeline
from triarch.inputs.text.sentences import sentence_ends
from triarch.metrics import texts


def lead(text: str) -> str:
    """The first sentence."""
    return text[: (sentence_ends(text) or [len(text)])[0]]


def bare(source: str) -> str:
    """Without the words that say what is wanted."""
    return source.removeprefix(SPLIT).removeprefix(SUMMARIZE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, nargs="+")
    parser.add_argument("-m", "--model", help="a folder; what it writes is measured too")
    parser.add_argument("--options", type=json.loads, default={}, metavar="JSON", help="of how it writes")
    parser.add_argument("--rows", type=int, help="the first of each file; by default all")
    given = parser.parse_args()
    for path in given.pairs:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()][: given.rows]
        sources, right = [bare(row["source"]) for row in rows], [row["target"] for row in rows]
        written = {"the source": sources, "its first sentence": list(map(lead, sources))}
        if given.model is not None:
            write = pipeline("text2text-generation", given.model, max_new_tokens=128, **given.options)
            written[given.model] = [one["generated_text"] for one in write([row["source"] for row in rows])]
        for name, said in written.items():
            found = texts.mean_rouge(right, said) | {"bleu": texts.bleu(right, said)}
            found["two sentences"] = sum(map(several, said)) / len(said)
            found["unchanged"] = sum(one == source for one, source in zip(said, sources, strict=True)) / len(said)
            print(f"{path}: {name}: " + ", ".join(f"{measure} {value:.3f}" for measure, value in found.items()))


def several(text: str) -> bool:
    return lead(text) != text


if __name__ == "__main__":
    main()
