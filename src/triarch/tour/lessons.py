"""What the starters answer to the bundled inputs: one lesson a task, every answer with what was meant beside it."""

from __future__ import annotations

import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from triarch import starters
from triarch.errors import NotFound
from triarch.starters import Card
from triarch.tasks import pipeline, task_class
from triarch.tasks._alignment import WORD

if TYPE_CHECKING:
    from triarch.tasks._base import Task

SPLIT = "split: "  # what the starter is told that makes two sentences of one
SHOWN_INTENTS, SHOWN_WORDS, SHOWN_TOKENS, SHOWN_WRITTEN = 3, 5, 24, 60


@dataclass(frozen=True)
class Guess:
    label: str
    score: float  # the probability that the model gives it


@dataclass(frozen=True)
class Utterance:
    text: str
    guesses: list[Guess]  # best first
    meant: str | None  # None: the model has no label for it

    @property
    def points(self) -> tuple[int, int]:
        """How many answers are right, of how many that can be; so in all that follow."""
        return int(self.guesses[0].label == self.meant), int(self.meant is not None)


@dataclass(frozen=True)
class Word:
    text: str
    tag: str
    score: float
    meant: str


@dataclass(frozen=True)
class Tagged:
    words: list[Word]

    @property
    def points(self) -> tuple[int, int]:
        return sum(word.tag == word.meant for word in self.words), len(self.words)


@dataclass(frozen=True)
class Name:
    start: int
    end: int
    kind: str
    score: float = 1.0


@dataclass(frozen=True)
class Post:
    text: str
    found: list[Name]  # in the order of the text
    meant: list[Name]

    def is_right(self, name: Name) -> bool:
        """Whether its span and its kind are those of a name that was meant."""
        return any(self._same(name, other) for other in self.meant)

    @property
    def missed(self) -> list[Name]:
        return [name for name in self.meant if not any(self._same(name, other) for other in self.found)]

    @property
    def points(self) -> tuple[int, int]:
        return len(self.meant) - len(self.missed), len(self.meant)

    @staticmethod
    def _same(one: Name, other: Name) -> bool:
        return (one.start, one.end, one.kind) == (other.start, other.end, other.kind)


@dataclass(frozen=True)
class Span:
    start: int
    end: int
    score: float
    text: str  # empty: the passage does not say


@dataclass(frozen=True)
class Reply:
    question: str
    title: str  # of the passage
    passage: str
    spans: list[Span]  # best first
    meant: list[str]  # whichever of these is right; none: the passage does not say

    @property
    def said(self) -> Span:
        return self.spans[0]

    @property
    def points(self) -> tuple[int, int]:
        return int(self.said.text.lower() in [answer.lower() for answer in self.meant or [""]]), 1


@dataclass(frozen=True)
class Blank:
    before: str
    after: str
    guesses: list[Guess]  # best first
    word: str  # the author's
    book: str

    @property
    def points(self) -> tuple[int, int]:
        return int(self.word in [guess.label for guess in self.guesses]), 1


@dataclass(frozen=True)
class Pair:
    first: str
    second: str
    said: bool  # whether the second follows the first
    score: float
    follows: bool

    @property
    def points(self) -> tuple[int, int]:
        return int(self.said == self.follows), 1


@dataclass(frozen=True)
class Token:
    text: str
    score: float  # the probability that the model gave it, before it was read
    likeliest: bool  # whether no other had a higher one


@dataclass(frozen=True)
class Continuation:
    begin: str
    tokens: list[Token]  # that the author goes on with
    said: str  # what the model goes on with

    @property
    def points(self) -> tuple[int, int]:
        return sum(token.likeliest for token in self.tokens), len(self.tokens)


@dataclass(frozen=True)
class Written:
    text: str
    said: str
    meant: str

    @property
    def points(self) -> tuple[int, int]:
        """Words that are meant, and those of them that are said."""
        meant = Counter(WORD.findall(self.meant.lower()))
        return (meant & Counter(WORD.findall(self.said.lower()))).total(), meant.total()


@dataclass(frozen=True)
class Aligned(Written):
    words: list[str]  # of the text
    looks: list[tuple[str, list[float]]]  # each word of what is said, and how it divides its attention among these


@dataclass(frozen=True)
class Summed(Written):
    sources: list[Span]  # the sentences of the text that were looked at most, in its order, and how much


@dataclass(frozen=True)
class Lesson:
    task: str  # as `triarch run` calls it
    starter: str
    stored: int  # bytes of the starter's folder
    card: Card
    rows: list[Any]  # of the class that belongs to the task

    @property
    def points(self) -> tuple[int, int]:
        right, of = zip(*(row.points for row in self.rows), strict=True)
        return sum(right), sum(of)


@dataclass(frozen=True)
class School:
    """All lessons, and why some are left out."""

    lessons: list[Lesson]
    absent: dict[str, str]  # tasks -> what is the matter with their starters


@cache
def inputs() -> dict[str, Any]:
    """inputs.toml."""
    return tomllib.loads(files(__package__).joinpath("inputs.toml").read_text(encoding="utf-8"))


def attend(note: Callable[[str], None]) -> School:
    """Ask every starter that is here; of one that is not, say so."""
    lessons, absent = [], {}
    for task, ask in TASKS.items():
        note(f"asking the starter for {task}")
        try:
            lessons.append(learn(task, ask))
        except NotFound as error:
            absent[task] = str(error)
    return School(lessons, absent)


def learn(task: str, ask: Callable[[Any], list[Any]]) -> Lesson:
    """One task with its starter. Raises NotFound where that is not here, and what `load` raises."""
    folder = starters.resolve(task, task_class(task).STARTERS, starters.NAME)
    return Lesson(
        task=task,
        starter=folder.name,
        stored=sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
        card=starters.card(folder),
        rows=ask(pipeline(task, folder)),
    )


def utterances(classify: Task) -> list[Utterance]:
    asked = inputs()["utterances"]
    answers = classify([one["text"] for one in asked], top_k=SHOWN_INTENTS)
    return [
        Utterance(one["text"], [Guess(guess["label"], guess["score"]) for guess in answer], one.get("meant"))
        for one, answer in zip(asked, answers, strict=True)
    ]


def tagged(tag: Task) -> list[Tagged]:
    """Every word by its first token, as it was learned."""
    found = []
    for line in inputs()["tagged"]["sentences"]:
        pairs = [part.rsplit("/", 1) for part in line.split()]
        words = [word for word, _ in pairs]
        (pieces,) = tag([words], is_split_into_words=True, ignore_labels=[])
        starts = {piece["start"]: piece for piece in reversed(pieces)}
        row, at = [], 0
        for word, meant in pairs:
            piece = starts[at]
            row.append(Word(word, piece["entity"], piece["score"], meant))
            at += len(word) + 1
        found.append(Tagged(row))
    return found


def posts(find: Task) -> list[Post]:
    asked = inputs()["posts"]
    answers = find([one["text"] for one in asked], aggregation_strategy="first", constrained=True)
    return [
        Post(
            one["text"],
            [Name(name["start"], name["end"], name["entity_group"], name["score"]) for name in answer],
            [Name(at, at + len(name), kind) for name, kind in one["names"].items() for at in [one["text"].index(name)]],
        )
        for one, answer in zip(asked, answers, strict=True)
    ]


def replies(answer: Task) -> list[Reply]:
    passage = inputs()["passage"]
    found = []
    for asked in passage["questions"]:
        row = {"question": asked["text"], "context": passage["text"]}
        given = answer(row, top_k=2, handle_impossible_answer=True)
        spans = [Span(one["start"], one["end"], one["score"], one["answer"]) for one in given]
        found.append(Reply(asked["text"], passage["title"], passage["text"], spans, asked["answers"]))
    return found


def blanks(fill: Task) -> list[Blank]:
    mask = fill.processor.token("mask_token") or ""
    found = []
    for asked in inputs()["masks"]:
        before, _, after = asked["text"].partition("[MASK]")
        guesses = [Guess(one["token_str"], one["score"]) for one in fill(before + mask + after, top_k=SHOWN_WORDS)]
        found.append(Blank(before, after, guesses, asked["word"], asked["book"]))
    return found


def pairs(judge: Task) -> list[Pair]:
    asked = inputs()["pairs"]
    answers = judge([{"text": one["first"], "text_pair": one["second"]} for one in asked])
    return [
        Pair(one["first"], one["second"], said["label"] == "IsNext", said["score"], one["follows"])
        for one, said in zip(asked, answers, strict=True)
    ]


def continuations(go_on: Task) -> list[Continuation]:
    """The passages that follow one another in their book: how likely the second is, and another in its place."""
    import torch

    found = []
    for asked in (pair for pair in inputs()["pairs"] if pair["follows"]):
        begin, text = asked["first"], f"{asked['first']} {asked['second']}"
        (said,) = go_on(begin, max_new_tokens=SHOWN_TOKENS, seed=1, return_full_text=False)
        encoding = go_on.processor.encode(text)
        with torch.inference_mode():
            scores = go_on.model(torch.tensor([encoding.ids])).logits[0].softmax(-1)  # (T, V)
        tokens = [
            Token(text[start:end], float(row[id_]), bool(row[id_] == row.max()))
            for id_, (start, end), row in zip(encoding.ids[1:], encoding.offsets[1:], scores, strict=False)
            if end > len(begin)
        ]
        found.append(Continuation(begin, tokens, said["generated_text"]))
    return found


def translations(translate: Task) -> list[Aligned]:
    return [
        _aligned(translate, asked, "translation", max_new_tokens=SHOWN_TOKENS) for asked in inputs()["translations"]
    ]


def _aligned(write: Task, asked: dict[str, str], name: str, **options: Any) -> Aligned:
    (said,) = write(asked["text"], alignment="all", **options)
    looks = [(word["word"], word["shares"]) for word in said["alignment"]]
    return Aligned(asked["text"], said[f"{name}_text"], asked["meant"], WORD.findall(asked["text"]), looks)


def rewritings(write: Task) -> list[Aligned]:
    return [
        _aligned(write, asked, "generated", prefix=SPLIT, max_new_tokens=SHOWN_WRITTEN)
        for asked in inputs()["rewritings"]
    ]


def summaries(sum_up: Task) -> list[Summed]:
    found = []
    for asked in inputs()["summaries"]:
        (said,) = sum_up(asked["text"], sources=True, max_new_tokens=SHOWN_WRITTEN)
        shares: dict[tuple[int, int], float] = defaultdict(float)
        for sentence in said["sources"]:
            for one in sentence["sources"]:
                shares[one["start"], one["end"]] += one["score"] / len(said["sources"])
        sources = [Span(start, end, share, asked["text"][start:end]) for (start, end), share in sorted(shares.items())]
        found.append(Summed(asked["text"], said["summary_text"], asked["meant"], sources))
    return found


# In the order in which they are shown
TASKS: dict[str, Callable[[Any], list[Any]]] = {
    "text-classification": utterances,
    "token-classification": tagged,
    "ner": posts,
    "question-answering": replies,
    "fill-mask": blanks,
    "next-sentence": pairs,
    "text-generation": continuations,
    "translation": translations,
    "text2text-generation": rewritings,
    "summarization": summaries,
}
