"""What copying gives: ROUGE and BLEU of the source itself, and of its first sentence, as if they were the target.

python recipes/baselines.py work/data/tldr/test.jsonl
"""

import argparse
import json
from pathlib import Path

from triarch.inputs.sentences import sentence_ends
from triarch.metrics import texts


def lead(text: str) -> str:
    """The first sentence."""
    return text[: (sentence_ends(text) or [len(text)])[0]]


def bare(source: str) -> str:
    """Without the words that say what is wanted."""
    return source.removeprefix("split: ").removeprefix("summarize: ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, nargs="+")
    given = parser.parse_args()
    for path in given.pairs:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        right = [row["target"] for row in rows]
        for name, written in (
            ("the source", [bare(row["source"]) for row in rows]),
            ("its first sentence", [lead(bare(row["source"])) for row in rows]),
        ):
            found = texts.mean_rouge(right, written) | {"bleu": texts.bleu(right, written)}
            print(f"{path}: {name}: " + ", ".join(f"{measure} {value:.3f}" for measure, value in found.items()))


if __name__ == "__main__":
    main()
