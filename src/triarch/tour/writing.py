"""The subjects in which a text is written: continuations, translations, sentences made two, summaries."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar

from triarch.pages import key, percent
from triarch.pages.renderers.alignment import grid, looked_at, shares
from triarch.pages.renderers.text import LIKELIEST, probabilities
from triarch.tasks._alignment import WORD
from triarch.tour.subject import Row, Subject, inputs, query

if TYPE_CHECKING:
    from triarch.tasks._base import Task

SPLIT = "split: "  # what the starter is told that makes two sentences of one
TOKENS, SENTENCES = 24, 60  # the longest answers, of a sentence and of several
TOKENS_OF_A_LINE = 6  # in a terminal


class Continuations(Subject):
    TASK = "text-generation"
    HEADING = "What comes next"
    ABOUT = f"""A decoder gives every token a probability of coming next, and that is all it does: text is written by
taking one of them, and asking again. Below each beginning stand the author's own next words, in the model's tokens,
each with the probability that it had; {key(LIKELIEST)} marks those that the model found likeliest of all. What it goes
on with itself was drawn. The books are some that it has not read."""
    COMMAND = '"I stood up and looked" --max-new-tokens 20 --seed 1'
    HEADERS = ("text", "the author's next tokens, and how likely the model found them")

    def ask(self, task: Task) -> list[Row]:
        """The passages that follow one another in their book: how likely the second is, and another in its place."""
        import torch

        found = []
        for asked in (pair for pair in inputs()["pairs"] if pair["follows"]):
            begin, text = asked["first"], f"{asked['first']} {asked['second']}"
            (said,) = task(begin, max_new_tokens=TOKENS, seed=1, return_full_text=False)
            encoding = task.processor.encode(text)
            model: Any = task.model
            with torch.inference_mode():
                scores = model(torch.tensor([encoding.ids])).logits[0].softmax(-1)  # (T, V)
            tokens = [
                (text[start:end], float(row[id_]), bool(row[id_] == row.max()))
                for id_, (start, end), row in zip(encoding.ids[1:], encoding.offsets[1:], scores, strict=False)
                if end > len(begin)
            ]
            found.append(Row({"begin": begin, "tokens": tokens}, said))
        return found

    def points(self, row: Row) -> tuple[int, int]:
        return sum(best for _, _, best in row.asked["tokens"]), len(row.asked["tokens"])

    def card(self, row: Row) -> str:
        said = f"<p>The model goes on: <i>{escape(row.answer['generated_text'].strip())}</i></p>"
        return query(row.asked["begin"]) + probabilities(row.asked["tokens"]) + said

    def lines(self, row: Row) -> list[list[str]]:
        tokens = [f"{text.strip()} {percent(score)}" for text, score, _ in row.asked["tokens"]]
        lines = [tokens[start : start + TOKENS_OF_A_LINE] for start in range(0, len(tokens), TOKENS_OF_A_LINE)]
        told = [[row.asked["begin"] if number == 0 else "", ", ".join(line)] for number, line in enumerate(lines)]
        return [*told, ["", f"instead: {row.answer['generated_text'].strip()}"]]


class Writing(Subject):
    """A text that is written from another one."""

    INPUTS: ClassVar[str]  # the table of inputs.toml
    NAME: ClassVar[str]  # of the answer's field, with _text
    OPTIONS: ClassVar[dict[str, Any]]

    def ask(self, task: Task) -> list[Row]:
        return [Row(asked, task(asked["text"], **self.OPTIONS)[0]) for asked in inputs()[self.INPUTS]]

    def said(self, row: Row) -> str:
        return str(row.answer[f"{self.NAME}_text"])

    def points(self, row: Row) -> tuple[int, int]:
        """Words that are meant, and those of them that are said."""
        meant, said = (Counter(WORD.findall(text.lower())) for text in (row.asked["meant"], self.said(row)))
        return (meant & said).total(), meant.total()

    def card(self, row: Row) -> str:
        said = f"<p><b>{escape(self.said(row))}</b></p>{self.looks(row)}"
        return f'{self.source(row)}{said}<p class="after">We meant: {escape(row.asked["meant"])}</p>'

    def source(self, row: Row) -> str:
        return f'<h3 class="query">{escape(row.asked["text"])}</h3>'

    def looks(self, row: Row) -> str:
        """Which words of the text those of the answer looked at."""
        words = WORD.findall(row.asked["text"])
        return grid(words, [(one["word"], one["shares"]) for one in row.answer["alignment"]])

    def lines(self, row: Row) -> list[list[str]]:
        return [[row.asked["text"], self.said(row), row.asked["meant"]]]


class Translations(Writing):
    TASK = "translation"
    HEADING = "From French"
    ABOUT = """An encoder reads the French, and a decoder writes English, looking back at what was read before each
word. The darker a square, the more the English word in its line looked at the French word above, in the last but one of
the decoder's layers. Nobody taught the model which word says which: it came to look there."""
    COMMAND = '"Je ne sais pas où il habite." --alignment --json'
    HEADERS = ("text", "translation", "meant")
    INPUTS, NAME, OPTIONS = "translations", "translation", {"alignment": "all", "max_new_tokens": TOKENS}


class Rewritings(Writing):
    TASK = "text2text-generation"
    HEADING = "One sentence, or two"
    ABOUT = f"""A T5 takes every task for one of writing, and is told in words before the text which is wanted. This
small one learned English by writing what was cut out of texts, and then two tasks. After
<b>{escape(SPLIT.strip())}</b> it makes two sentences of a long one; one that is short already it should leave. Most
words are copied: each looks at itself, along the diagonal."""
    COMMAND = f'"{SPLIT}The bridge fell in 1902, and a new one was built beside it."'
    HEADERS = ("text", "in two sentences", "meant")
    INPUTS, NAME = "rewritings", "generated"
    OPTIONS = {"alignment": "all", "prefix": SPLIT, "max_new_tokens": SENTENCES}


class Summaries(Writing):
    TASK = "summarization"
    HEADING = "In a sentence"
    ABOUT = """The same model, and the other task: a sentence for the abstract of a paper. The darker a sentence of
the abstract, the more the summary looked at it while it was written."""
    COMMAND = '"We train a small model. It learns from little data." --sources --json'
    HEADERS = ("text", "in a sentence", "meant")
    INPUTS, NAME, OPTIONS = "summaries", "summary", {"sources": True, "max_new_tokens": SENTENCES}

    def source(self, row: Row) -> str:
        return f'<p class="passage">{looked_at(row.asked["text"], shares(row.answer["sources"]))}</p>'

    def looks(self, row: Row) -> str:
        return ""
