"""Write the data of a recipe in the formats that `triarch train` reads.

    python recipes/prepare.py intents --data DIR --output work/data

NAME is a recipe's: intents, sentiment, pos, entities, qa, books, shakespeare, translation, splitting, tldr or digits.
DIR holds the public sources in folders of their names: clinc150 (https://github.com/clinc/oos-eval), sst2, ud_ewt
(https://universaldependencies.org), wnut17 (https://github.com/leondz/emerging_entities_17), squad2_dev_half and
fairytaleqa, classic_books, tinyshakespeare (https://github.com/karpathy/char-rnn), tatoeba_fra_eng
(https://www.manythings.org/anki), wiki_split (https://github.com/google-research-datasets/wiki-split), scitldr
(https://github.com/allenai/scitldr), sign_digits (https://github.com/ardamavi/Sign-Language-Digits-Dataset). What a
preparation leaves out it says.
"""

import argparse
import gzip
import json
import random
import re
import shutil
import sys
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

SQUAD = {"Immune_system": "validation", "Normans": "test", "Steam_engine": "test"}  # by article; the others train
PARALLEL = 20_000  # pairs of sentences
VALIDATION = 500  # pairs of a sentence and two
FEW = 500  # short sentences beside the pairs that are learned last
SPLIT, SUMMARIZE = "split: ", "summarize: "  # what one model for both is told before the text
HELD_OUT_BOOKS = (
    "Jane_Austen_Persuasion",
    "H_G_Wells_The_Time_Machine",
    "Lewis_Carroll_Through_the_Looking_Glass",
)


def intents(data: Path, output: Path) -> None:
    """The 150 intents in scope; the sets of questions out of scope are left out."""
    found = json.loads((data / "clinc150" / "data_full.json").read_text(encoding="utf-8"))
    for theirs, ours in (("train", "train"), ("val", "validation"), ("test", "test")):
        write(output / f"{ours}.jsonl", ({"text": text, "label": label} for text, label in found[theirs]))


def sentiment(data: Path, output: Path) -> None:
    for theirs, ours in (("train", "train"), ("dev", "validation"), ("test", "test")):
        lines = (data / "sst2" / f"{theirs}.tsv").read_text(encoding="utf-8").splitlines()
        pairs = (line.rsplit("\t", 1) for line in lines)
        names = {"0": "negative", "1": "positive"}
        write(output / f"{ours}.jsonl", ({"text": text, "label": names[label]} for text, label in pairs))


def pos(data: Path, output: Path) -> None:
    for theirs, ours in (("train", "train"), ("dev", "validation"), ("test", "test")):
        shutil.copyfile(data / "ud_ewt" / f"en_ewt-ud-{theirs}.conllu", output / f"{ours}.conllu")


def entities(data: Path, output: Path) -> None:
    names = {"train": "wnut17train.conll", "validation": "emerging.dev.conll", "test": "emerging.test.annotated"}
    for ours, theirs in names.items():
        shutil.copyfile(data / "wnut17" / theirs, output / f"{ours}.conll")


def qa(data: Path, output: Path) -> None:
    """SQuAD by article, and the questions of FairytaleQA whose answer stands in the text."""
    articles = json.loads((data / "squad2_dev_half" / "dev-v2.0.json").read_text(encoding="utf-8"))["data"]
    titles = {article["title"] for article in articles}
    if absent := SQUAD.keys() - titles:
        sys.exit(f"prepare.py: squad2_dev_half has no {', '.join(sorted(absent))}; it has {', '.join(sorted(titles))}")
    parts: dict[str, list[dict]] = {"train": [], "validation": [], "test": []}
    for article in articles:
        part = parts[SQUAD.get(article["title"], "train")]
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                answers = [{"text": a["text"], "start": a["answer_start"]} for a in asked["answers"]]
                row = {"id": asked["id"], "question": asked["question"], "context": paragraph["context"]}
                part.append(row | {"answers": answers})
    for theirs, ours in (("train", "train"), ("val", "validation"), ("test", "test")):
        kept, dropped = [], 0
        with gzip.open(data / "fairytaleqa" / f"{theirs}.jsonl.gz", "rt", encoding="utf-8") as file:
            for number, line in enumerate(file):
                row = json.loads(line)
                if row["span_start"] < 0:
                    dropped += 1
                    continue
                answers = [{"text": row["span_text"], "start": row["span_start"]}]
                named = {"id": f"fairytaleqa-{theirs}-{number}", "question": row["question"]}
                kept.append(named | {"context": row["context"], "answers": answers})
        print(f"fairytaleqa {theirs}: {len(kept)} kept, {dropped} without their answer in the text", file=sys.stderr)
        if ours == "test":
            write(output / "test-fairytaleqa.jsonl", kept)
        else:
            parts[ours] += kept
    write(output / "train.jsonl", parts["train"])
    write(output / "validation.jsonl", parts["validation"])
    write(output / "test-squad.jsonl", parts["test"])


def books(data: Path, output: Path) -> None:
    """Each book as a text file; three are held out."""
    for path in sorted((data / "classic_books" / "books").glob("*.md")):
        folder = output / ("held-out" if path.stem in HELD_OUT_BOOKS else "train")
        folder.mkdir(exist_ok=True)
        (folder / f"{path.stem}.txt").write_text(book(path) + "\n", encoding="utf-8")


def book(path: Path) -> str:
    """Its text, without the lines about it and the marks of Markdown."""
    text = path.read_text(encoding="utf-8").partition("-------")[2]
    return re.sub(r"^#+.*$", "", text, flags=re.MULTILINE).replace("_", "").replace("*", "").strip()


def shakespeare(data: Path, output: Path) -> None:
    """The first nine tenths to learn from, and the last, as nanoGPT splits them."""
    text = (data / "tinyshakespeare" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    border = int(0.9 * len(text))
    (output / "train.txt").write_text(text[:border], encoding="utf-8")
    (output / "validation.txt").write_text(text[border:], encoding="utf-8")


def translation(data: Path, output: Path) -> None:
    """French with its English, split by English sentence; what was held out in French is not learned from either.

    The English of the training part goes into a file of its own, for learning what English is like.
    """
    with zipfile.ZipFile(data / "tatoeba_fra_eng" / "fra-eng.zip") as archive:
        lines = archive.read("fra-eng/fra.txt").decode("utf-8").splitlines()
    pairs = [line.split("\t")[:2] for line in lines]
    parts: dict[str, list[dict]] = {"train": [], "validation": [], "test": []}
    for english, french in pairs:
        number = zlib.crc32(english.encode()) % 100
        parts["test" if number == 0 else "validation" if number == 1 else "train"].append(
            {"source": french, "target": english}
        )
    held_out: set[str] = set()
    for name in ("test", "validation", "train"):  # the same French may have been said in several ways
        rows = [row for row in parts[name] if row["source"] not in held_out]
        print(f"{name}: {len(rows)} kept, {len(parts[name]) - len(rows)} with French that is held out", file=sys.stderr)
        held_out |= {row["source"] for row in rows}
        parts[name] = rows
    for name, rows in parts.items():
        random.Random(0).shuffle(rows)
        write(output / f"{name}.jsonl", rows)
    write(output / "parallel.jsonl", parts["train"][:PARALLEL])  # as of a language of which there is little
    write(output / "parallel-half.jsonl", parts["train"][: PARALLEL // 2])
    for name, column in (("english", "target"), ("french", "source")):
        texts = list(dict.fromkeys(row[column] for row in parts["train"]))  # in their random order
        (output / f"{name}.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")


def splitting(data: Path, output: Path) -> None:
    """A long sentence and the two that say the same; and short ones, which stay as they are, half of them from books.

    Most of the validation part is learned from too: there are 15,000 pairs in all.
    """
    pairs = {}
    for part in ("tune", "validation", "test"):
        lines = (data / "wiki_split" / f"{part}.tsv").read_text(encoding="utf-8").splitlines()
        split = (line.split("\t") for line in lines)
        pairs[part] = [(as_written(one), [as_written(half) for half in two.split(" <::::> ")]) for one, two in split]
        random.Random(0).shuffle(pairs[part])  # they come in the order of letters
    measured, more = pairs["validation"][:VALIDATION], pairs["validation"][VALIDATION:]
    learned = [pair for pair in pairs["tune"] + more if pair[0] not in {one for one, _ in measured + pairs["test"]}]
    halves = [two[number % len(two)] for number, (_, two) in enumerate(learned)]
    stay = [(one, [one]) for one in halves + short(data, len(halves))]
    parts = {"train": learned + stay, "pairs": learned + stay[:FEW], "validation": measured, "test": pairs["test"]}
    for name, part in parts.items():
        rows = ({"source": SPLIT + one, "target": " ".join(two)} for one, two in part)
        write(output / f"{name}.jsonl", rows)
    (output / "english.txt").write_text("\n".join(one for one, _ in learned) + "\n", encoding="utf-8")


def short(data: Path, count: int) -> list[str]:
    """Sentences of 15 to 70 characters from the books, in a random order."""
    found: list[str] = []
    for path in sorted((data / "classic_books" / "books").glob("*.md")):
        if path.stem not in HELD_OUT_BOOKS:
            paragraphs = (" ".join(paragraph.split()) for paragraph in book(path).split("\n\n"))
            sentences = (one for text in paragraphs for one in re.split(r"(?<=[.!?]) (?=[A-Z])", text))
            found += [one for one in sentences if re.fullmatch(r'[A-Z][^"]{13,68}[.!?]', one)]
    found = list(dict.fromkeys(found))
    random.Random(0).shuffle(found)
    return found[:count]


def as_written(text: str) -> str:
    """As people write it: the set has spaces around each mark, and two apostrophes for each quotation mark."""
    text = re.sub(r"'' (.*?) ''", r'"\1"', text).replace("''", '"')
    text = re.sub(r" ([,.;:?!%)\]]|'|'s|n't|'re|'ve|'ll|'d|'m)(?= |$)", r"\1", text)
    return re.sub(r"(?<=[(\[]) |(?<=[A-Za-z]) (?=- [A-Za-z])|(?<=[A-Za-z] -) (?=[A-Za-z])", "", text)


def tldr(data: Path, output: Path) -> None:
    """Abstracts of papers and what their authors say of them in a sentence."""
    for theirs, ours in (("train", "train"), ("dev", "validation"), ("test", "test")):
        lines = (data / "scitldr" / f"{theirs}.jsonl").read_text(encoding="utf-8").splitlines()
        found = (json.loads(line) for line in lines)
        pairs = [(" ".join(row["source"]), row["target"][0]) for row in found]
        write(output / f"{ours}.jsonl", ({"source": SUMMARIZE + one, "target": two} for one, two in pairs))
        if ours == "train":
            (output / "english.txt").write_text("\n\n".join(one for one, _ in pairs) + "\n", encoding="utf-8")


def digits(data: Path, output: Path) -> None:
    """Photographs of hands that show 0 to 9, a folder for each digit; no person is in two parts.

    Each person was photographed from 0 to 9 in a row, and photographs are numbered: a smaller digit than the one before
    is the next person. Of 20 people in a row the last 2 are tested on, and the 2 before them validated on.
    """
    found = sorted(
        (data / "sign_digits" / "Dataset").glob("*/*.JPG"), key=lambda path: int(path.stem.partition("_")[2])
    )
    person, before = 0, ""
    for path in found:
        digit = path.parent.name
        person += digit < before
        before = digit
        part = {18: "test", 19: "test", 16: "validation", 17: "validation"}.get(person % 20, "train")
        folder = output / part / digit
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / path.name)
    print(f"{len(found):,} photographs of {person + 1} people")


def write(path: Path, rows: Iterable[dict]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


RECIPES = {
    made.__name__: made
    for made in (intents, sentiment, pos, entities, qa, books, shakespeare, translation, splitting, tldr, digits)
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RECIPES, metavar="NAME", help=", ".join(RECIPES))
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--output", type=Path, default=Path("work/data"), metavar="DIR")
    given = parser.parse_args()
    folder = given.output / given.name
    folder.mkdir(parents=True, exist_ok=True)
    RECIPES[given.name](given.data, folder)
    print(folder)
