"""The subjects in which a text is read: labels, tags, names, answers, hidden words, what follows."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from triarch.pages import UNKNOWN, group, legend, percent, verdict
from triarch.pages.renderers.labels import bars
from triarch.pages.renderers.replies import SILENT, Reply, listed, passage
from triarch.pages.renderers.spans import Chip, Mark, chips, marked, percent_note
from triarch.tour.subject import Row, Subject, inputs, query, unless

if TYPE_CHECKING:
    from triarch.tasks._base import Task

UNSURE = 0.9  # below that the probability stands beside a tag
WORDS = 6  # of a sentence on a line of the terminal
# Colours of kinds of words and of names; a kind of word that is not here has none
TAGS = {
    "NOUN": "g1", "PROPN": "g7", "PRON": "g6", "VERB": "g0", "AUX": "g4", "ADJ": "g2", "ADV": "g5", "NUM": "g3",
}  # fmt: skip
NAMES = ("person", "location", "corporation", "product", "creative-work", "group")
KINDS = {name: group(number) for number, name in enumerate(NAMES)}


class Intents(Subject):
    TASK = "text-classification"
    HEADING = "What is wanted"
    ABOUT = """Text classification gives a text one of a fixed set of labels, here what someone wants of an
assistant. The percentages of all labels add up to 100; the best three are shown. The model has no way to say “none of
these”: what fits nowhere still gets a label, at best with low percentages."""
    COMMAND = '"Wake me at half past six tomorrow"'
    HEADERS = ("text", "sure", "label", "meant")
    GRID = "grid small"

    def ask(self, task: Task) -> list[Row]:
        asked = inputs()["utterances"]
        return list(map(Row, asked, task([one["text"] for one in asked], top_k=3)))

    def points(self, row: Row) -> tuple[int, int]:
        meant = row.asked.get("meant")
        return int(row.answer[0]["label"] == meant), int(meant is not None)

    def card(self, row: Row) -> str:
        meant = row.asked.get("meant", "").replace("_", " ")
        drawn = bars(((one["label"].replace("_", " "), one["score"]) for one in row.answer), meant=meant)
        if not meant:
            drawn += "<p>None of the labels fits.</p>"
        elif not self.points(row)[0]:
            drawn += f"<p>{verdict(False)} We meant <b>{escape(meant)}</b>.</p>"
        return query(row.asked["text"]) + drawn

    def lines(self, row: Row) -> list[list[str]]:
        best, meant = row.answer[0], row.asked.get("meant")
        told = "none of them" if meant is None else unless(best["label"] == meant, meant)
        return [[row.asked["text"], percent(best["score"]), best["label"], told]]


class Tags(Subject):
    TASK = "token-classification"
    HEADING = "What kind of word"
    ABOUT = """Here every word gets a label of its own, its part of speech. The same word can be two: whether
<i>book</i> is a verb or a noun only its neighbours tell."""
    COMMAND = '"The storm is coming."'
    HEADERS = ("words and their parts of speech", "meant")

    def ask(self, task: Task) -> list[Row]:
        """Every word by its first token, as it was learned."""
        found = []
        for line in inputs()["tagged"]["sentences"]:
            words, meant = zip(*(part.rsplit("/", 1) for part in line.split()), strict=True)
            (pieces,) = task([[*words]], is_split_into_words=True, ignore_labels=[])
            first = {piece["start"]: piece for piece in reversed(pieces)}
            starts = [sum(len(word) + 1 for word in words[:number]) for number in range(len(words))]
            found.append(Row({"words": words, "meant": meant}, [first[start] for start in starts]))
        return found

    def points(self, row: Row) -> tuple[int, int]:
        return sum(tag == meant for _, tag, _, meant in _tagged(row)), len(row.answer)

    def shown(self, rows: Sequence[Row]) -> str:
        used = {tag for row in rows for _, tag, _, _ in _tagged(row)}
        lines = "".join(chips(map(self._chip, *zip(*_tagged(row), strict=True))) for row in rows)
        return f"""<figure>{lines}
{legend({name: colour for name, colour in TAGS.items() if name in used}, others="others")}
<figcaption>The universal parts of speech. A percentage stands where the model was less than {UNSURE:.0%} sure. ✗ is a
tag that we did not mean; the one that we did stands in brackets.</figcaption></figure>"""

    def _chip(self, word: str, tag: str, score: float, meant: str) -> Chip:
        sure = percent_note(score) if score < UNSURE else ""
        wrong = "" if tag == meant else f"<small>{verdict(False)} ({escape(meant)})</small>"
        return Chip(word, TAGS.get(tag, UNKNOWN), tag, sure + wrong, f"{tag}: {score:.1%}")

    def lines(self, row: Row) -> list[list[str]]:
        words = _tagged(row)
        return [
            [
                " ".join(f"{word}/{tag}" for word, tag, _, _ in line),
                " ".join(f"{word}/{meant}" for word, tag, _, meant in line if tag != meant) or "-",
            ]
            for line in (words[start : start + WORDS] for start in range(0, len(words), WORDS))
        ]


def _tagged(row: Row) -> list[tuple[str, str, float, str]]:
    """Each word with its tag, how likely that was, and the tag that was meant."""
    words = zip(row.asked["words"], row.answer, row.asked["meant"], strict=True)
    return [(word, piece["entity"], piece["score"], meant) for word, piece, meant in words]


class Names(Subject):
    TASK = "ner"
    HEADING = "Names"
    ABOUT = """Names are found by labels on words too: <b>B-</b> begins a name, <b>I-</b> goes on with it,
<b>O</b> is outside. Of all sequences of labels, the best is chosen in which every <b>I-</b> has its <b>B-</b>.
Posts are a hard case: spelled as people please, on things that were not around a year before."""
    COMMAND = '"just landed in Reykjavik" --aggregation-strategy first --constrained'
    HEADERS = ("post", "name", "kind", "meant")

    def ask(self, task: Task) -> list[Row]:
        asked = inputs()["posts"]
        texts = [one["text"] for one in asked]
        return list(map(Row, asked, task(texts, aggregation_strategy="first", constrained=True)))

    def points(self, row: Row) -> tuple[int, int]:
        meant = row.asked["names"]
        return len(meant) - len(_missed(row)), len(meant)

    def shown(self, rows: Sequence[Row]) -> str:
        return super().shown(rows) + legend(KINDS)

    def card(self, row: Row) -> str:
        marks = []
        for one in row.answer:
            right = verdict(_span(one) in _meant(row))
            after = f" <small>{escape(one['entity_group'])} {escape(percent(one['score']))} {right}</small>"
            marks.append(Mark(one["start"], one["end"], KINDS.get(one["entity_group"], UNKNOWN), after=after))
        note = "" if row.answer else '<p class="soft">Nothing found, and there is nothing.</p>'
        if missed := _missed(row):
            names = ", ".join(f"<b>{escape(name)}</b> ({escape(kind)})" for name, kind in missed)
            note = f'<p class="soft">Not found as we meant it: {names}.</p>'
        return f'<div class="marked">{marked(row.asked["text"], marks)}</div>{note}'

    def lines(self, row: Row) -> list[list[str]]:
        text = row.asked["text"]
        found = [
            [
                text[one["start"] : one["end"]],
                f"{one['entity_group']} {percent(one['score'])}",
                unless(_span(one) in _meant(row), "no such name"),
            ]
            for one in row.answer
        ]
        names = [*found, *([name, "not found", kind] for name, kind in _missed(row))] or [["-", "nothing", "-"]]
        return [[text if number == 0 else "", *name] for number, name in enumerate(names)]


def _span(one: dict[str, Any]) -> tuple[int, int, str]:
    return one["start"], one["end"], one["entity_group"]


def _meant(row: Row) -> dict[tuple[int, int, str], str]:
    """The names that were meant by their spans and kinds, by which they are told right."""
    text = row.asked["text"]
    return {(at, at + len(name), kind): name for name, kind in row.asked["names"].items() for at in [text.index(name)]}


def _missed(row: Row) -> list[tuple[str, str]]:
    """Names that were meant and not found, with their kinds."""
    found = {_span(one) for one in row.answer}
    return [(name, span[2]) for span, name in _meant(row).items() if span not in found]


class Answers(Subject):
    TASK = "question-answering"
    HEADING = "Answers in a text"
    ABOUT = """The answer is looked for in the text itself: the model gives every token a probability of being its
first and its last, and the likeliest span wins. It may also say that the text has no answer."""
    COMMAND = '--question "Where did Ada live?" "Ada lived in London."'
    HEADERS = ("question", "sure", "answer", "meant")

    def ask(self, task: Task) -> list[Row]:
        text = inputs()["passage"]
        return [
            Row(
                {"question": asked["text"], "meant": asked["answers"], "context": text["text"], "title": text["title"]},
                task({"question": asked["text"], "context": text["text"]}, top_k=2, handle_impossible_answer=True),
            )
            for asked in text["questions"]
        ]

    def points(self, row: Row) -> tuple[int, int]:
        meant = [answer.lower() for answer in row.asked["meant"] or [""]]
        return int(row.answer[0]["answer"].lower() in meant), 1

    def shown(self, rows: Sequence[Row]) -> str:
        asked = rows[0].asked
        best = [(row.answer[0]["start"], row.answer[0]["end"]) for row in rows]
        return f"""<figure><h3>{escape(asked["title"])}</h3>{passage(asked["context"], best)}
{listed(map(self._reply, rows))}
<figcaption>The marks in the text bear the number of their question. The percentage is the model's own, of the whole
span; it is shared out among all spans, those that differ by a word included.</figcaption></figure>"""

    def _reply(self, row: Row) -> Reply:
        best, *others = row.answer
        right = bool(self.points(row)[0])
        told = [f"Next: {one['answer'] or SILENT}, {percent(one['score'])}." for one in others]
        told += [] if right else [f"We meant: {(row.asked['meant'] or [SILENT])[0]}."]
        note = f"<p>{escape(' '.join(told))}</p>"
        return Reply(best["answer"], best["score"], row.asked["question"], verdict(right), note)

    def lines(self, row: Row) -> list[list[str]]:
        best, meant = row.answer[0], (row.asked["meant"] or [SILENT])[0]
        told = unless(bool(self.points(row)[0]), meant)
        return [[row.asked["question"], percent(best["score"]), best["answer"] or SILENT, told]]


class Blanks(Subject):
    TASK = "fill-mask"
    HEADING = "Hidden words"
    ABOUT = """This is how BERT learns before anyone teaches it a task: words are hidden, and it guesses them from
what stands around. No one has to write down answers; any text will do. This small one began with random weights and
read books of the 19th century. The sentences are from books that it has not read; ✓ is the author's own word."""
    COMMAND = '"I was very [MASK] and sleepy."'
    HEADERS = ("text", "guesses", "the author's")
    GRID = "grid small"

    def ask(self, task: Task) -> list[Row]:
        mask = task.processor.token("mask_token") or ""
        return [Row(asked, task(asked["text"].replace("[MASK]", mask), top_k=5)) for asked in inputs()["masks"]]

    def points(self, row: Row) -> tuple[int, int]:
        return int(row.asked["word"] in [guess["token_str"] for guess in row.answer]), 1

    def card(self, row: Row) -> str:
        before, _, after = row.asked["text"].partition("[MASK]")
        hidden = '<span class="blank" title="the hidden word">⋯</span>'
        word = escape(row.asked["word"])
        late = "" if self.points(row)[0] else f"<p>The author wrote <b>{word}</b>.</p>"
        guesses = bars(((guess["token_str"], guess["score"]) for guess in row.answer), meant=row.asked["word"])
        return (
            f'<h3 class="query">“{escape(before)}{hidden}{escape(after)}”</h3>{guesses}{late}'
            f'<p class="book">{escape(row.asked["book"])}</p>'
        )

    def lines(self, row: Row) -> list[list[str]]:
        guesses = ", ".join(f"{guess['token_str']} {percent(guess['score'])}" for guess in row.answer)
        return [[row.asked["text"].replace("[MASK]", "[…]"), guesses, row.asked["word"]]]


class Pairs(Subject):
    TASK = "next-sentence"
    HEADING = "What follows"
    ABOUT = """The other thing that BERT learns at the same time: whether a passage followed another in its book, or
was put there from a different one. The same model, and the same books that it has not read."""
    COMMAND = '"I stood up." --text-pair "I looked round me."'
    HEADERS = ("first", "second", "follows", "in the book")
    GRID = "pairs"

    def ask(self, task: Task) -> list[Row]:
        asked = inputs()["pairs"]
        return list(map(Row, asked, task([{"text": one["first"], "text_pair": one["second"]} for one in asked])))

    def points(self, row: Row) -> tuple[int, int]:
        return int((row.answer["label"] == "IsNext") == row.asked["follows"]), 1

    def card(self, row: Row) -> str:
        return (
            f"<p>{escape(row.asked['first'])}</p><p>{escape(row.asked['second'])}</p><div>"
            f'<b>{self._said(row)}</b> <span class="number">{escape(percent(row.answer["score"]))}</span> '
            f"{verdict(bool(self.points(row)[0]), 'as in the book')}</div>"
        )

    def lines(self, row: Row) -> list[list[str]]:
        meant = unless(bool(self.points(row)[0]), "yes" if row.asked["follows"] else "no")
        return [[row.asked["first"], row.asked["second"], f"{self._said(row)} {percent(row.answer['score'])}", meant]]

    def _said(self, row: Row) -> str:
        return "yes" if row.answer["label"] == "IsNext" else "no"
