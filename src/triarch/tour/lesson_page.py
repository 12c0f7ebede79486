"""The sections of the page on what the starters answer. All text from inputs and answers is escaped on its way in."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from html import escape
from typing import Any

from triarch.pages import key, table
from triarch.starters import Card
from triarch.tour.lessons import (
    SPLIT,
    Aligned,
    Blank,
    Continuation,
    Guess,
    Lesson,
    Name,
    Pair,
    Post,
    Reply,
    School,
    Summed,
    Tagged,
    Token,
    Utterance,
    Word,
    Written,
)

FAINT = 0.05  # a square of less is as good as white
UNSURE = 0.9  # below that the probability stands beside a tag
LIKELIEST = "g1"  # the colour of tokens that the model found likelier than all others

# Colours of kinds of words and of names; what is not here has none
TAGS = {
    "NOUN": "g1", "PROPN": "g7", "PRON": "g6", "VERB": "g0", "AUX": "g4", "ADJ": "g2", "ADV": "g5", "NUM": "g3",
}  # fmt: skip
KINDS = {
    "person": "g0", "location": "g1", "corporation": "g2", "product": "g4", "creative-work": "g6", "group": "g7",
}  # fmt: skip
QUESTIONS = ("g0", "g1", "g2", "g6", "g4", "g7")


def render(school: School) -> list[str]:
    """The sections, without their frame; none if there is neither a lesson nor one left out."""
    overview = [_overview(school)] if school.lessons or school.absent else []
    return [*overview, *(_section(lesson) for lesson in school.lessons)]


def _overview(school: School) -> str:
    absent = (
        f'<p class="after">Left out, because their starters were not found: {escape(", ".join(school.absent))}.</p>'
        if school.absent
        else ""
    )
    if not school.lessons:
        return f"<h2>Taught: small models at work</h2>{absent}"
    rows = [
        [
            f'<a href="#{escape(lesson.task)}">{escape(lesson.task)}</a>',
            f"<code>{escape(lesson.starter)}</code>",
            f"{lesson.stored / 1e6:.1f} MB",
            _measured(lesson.card),
            escape(lesson.card.licence or "unknown"),
            "{} of {}".format(*lesson.points),
        ]
        for lesson in school.lessons
    ]
    columns = ["task", "starter", "on disk", "measured on", "licence", "right below"]
    return f"""<h2>Taught: small models at work</h2>
<p>A trunk that makes vectors can be taught a task: a small head goes on top, and examples with their answers move the
weights. triarch comes with a few such models, its <b>starters</b>, all trained by itself. Most are low-rank adapters, a
few small matrices beside the frozen weights of all-MiniLM-L6-v2.</p>
<figure class="starters">{table(columns, rows, numbers={2})}
<figcaption>The scores are from the starters' cards and tell how good they are. The last column counts the handful of
inputs on this page, which were written once and not reworded when the answers were seen: ✓ is an answer that we meant,
✗ one that we did not.</figcaption></figure>{absent}"""


def _measured(card: Card) -> str:
    scores = [
        f"{name.replace('_', ' ')} {value:.3g}" for name, value in card.scores.items() if not name.endswith("loss")
    ]
    if not scores or card.data is None:
        return "its card does not say"
    part = f"{card.part} part of " if card.part else ""
    return escape(f"{part}{card.data}: {', '.join(scores)}")


def _section(lesson: Lesson) -> str:
    heading, body = SECTIONS[lesson.task]
    return f'<h2 id="{escape(lesson.task)}">{heading}</h2>{body(lesson.rows)}{_command(lesson.task)}'


def _command(task: str) -> str:
    return f"<pre>triarch run {escape(f'{task} {COMMANDS[task]}')} -m starter</pre>"


def _verdict(right: bool, means: str = "as we meant") -> str:
    if right:
        return f'<span class="tick" title="{escape(means)}">✓</span>'
    return f'<span class="cross" title="not {escape(means)}">✗</span>'


def percent(score: float) -> str:
    """Rounded, but never to "none" or to "sure"."""
    return "<1%" if score < 0.005 else ">99%" if score >= 0.995 else f"{score:.0%}"


def _bars(guesses: list[Guess], meant: str | None) -> str:
    rows = []
    for guess in guesses:
        wanted = guess.label == meant
        mark = f"{_verdict(True)} " if wanted else ""
        rows.append(
            f"<li{' class=wanted' if wanted else ''}><span>{mark}{escape(guess.label.replace('_', ' '))}</span>"
            f'<span class="number">{escape(percent(guess.score))}</span>'
            f'<span class="bar"><i style="width:{guess.score * 100:.0f}%"></i></span></li>'
        )
    return f'<ol class="hits">{"".join(rows)}</ol>'


def utterances(rows: list[Utterance]) -> str:
    cards = []
    for row in rows:
        if row.meant is None:
            late = "<p>None of the labels fits.</p>"
        elif row.points[0]:
            late = ""
        else:
            late = f"<p>{_verdict(False)} We meant <b>{escape(row.meant.replace('_', ' '))}</b>.</p>"
        bars = _bars(row.guesses, row.meant)
        cards.append(f'<div class="card"><h3 class="query">“{escape(row.text)}”</h3>{bars}{late}</div>')
    return f"""<p>Text classification gives a text one of a fixed set of labels, here what someone wants of an
assistant. The percentages of all labels add up to 100; the best three are shown. The model has no way to say “none of
these”: what fits nowhere still gets a label, at best with low percentages.</p>
<div class="grid small">{"".join(cards)}</div>"""


def tagged(rows: list[Tagged]) -> str:
    used = {word.tag for row in rows for word in row.words}
    keys = "".join(f"<li>{key(colour)} {name}</li>" for name, colour in TAGS.items() if name in used)
    lines = "".join(f'<ol class="tagged">{"".join(map(_word, row.words))}</ol>' for row in rows)
    return f"""<p>Here every word gets a label of its own, its part of speech. The same word can be two: whether
<i>book</i> is a verb or a noun only its neighbours tell.</p>
<figure>{lines}
<ul class="legend">{keys}<li>{key("none")} others</li></ul>
<figcaption>The universal parts of speech. A percentage stands where the model was less than {UNSURE:.0%} sure. ✗ is a
tag that we did not mean; the one that we did stands in brackets.</figcaption></figure>"""


def _word(word: Word) -> str:
    sure = f"<small>{escape(percent(word.score))}</small>" if word.score < UNSURE else ""
    wrong = "" if word.tag == word.meant else f"<small>{_verdict(False)} ({escape(word.meant)})</small>"
    hover = f"{word.tag}: {word.score:.1%}"
    return (
        f'<li class="{TAGS.get(word.tag, "none")}" title="{escape(hover)}"><b>{escape(word.text)}</b>'
        f"<i>{escape(word.tag)}</i>{sure}{wrong}</li>"
    )


def posts(rows: list[Post]) -> str:
    shown = "".join(f'<li class="card">{_post(row)}</li>' for row in rows)
    keys = "".join(f"<li>{key(colour)} {name}</li>" for name, colour in KINDS.items())
    return f"""<p>Names are found by labels on words too: <b>B-</b> begins a name, <b>I-</b> goes on with it,
<b>O</b> is outside. Of all sequences of labels, the best is chosen in which every <b>I-</b> has its <b>B-</b>.
Posts are a hard case: spelled as people please, on things that were not around a year before.</p>
<ul class="posts">{shown}</ul>
<ul class="legend">{keys}</ul>"""


def _post(row: Post) -> str:
    parts, at = [], 0
    for name in row.found:
        verdict = _verdict(row.is_right(name))
        label = f"<small>{escape(name.kind)} {escape(percent(name.score))} {verdict}</small>"
        text = escape(row.text[name.start : name.end])
        parts += [escape(row.text[at : name.start]), f'<mark class="{_kind(name)}">{text} {label}</mark>']
        at = name.end
    missed = [f"<b>{escape(row.text[name.start : name.end])}</b> ({escape(name.kind)})" for name in row.missed]
    if missed:
        note = f"<p>Not found as we meant it: {', '.join(missed)}.</p>"
    else:
        note = "" if row.found else "<p>Nothing found, and there is nothing.</p>"
    return f"<div>{''.join(parts)}{escape(row.text[at:])}</div>{note}"


def _kind(name: Name) -> str:
    return KINDS.get(name.kind, "none")


def replies(rows: list[Reply]) -> str:
    passage = rows[0].passage
    listed = "".join(_reply(number, row) for number, row in enumerate(rows))
    return f"""<p>The answer is looked for in the text itself: the model gives every token a probability of being its
first and its last, and the likeliest span wins. It may also say that the text has no answer.</p>
<figure><h3>{escape(rows[0].title)}</h3><p class="passage">{_marked(passage, rows)}</p>
<ol class="replies">{listed}</ol>
<figcaption>The marks in the text bear the number of their question. The percentage is the model's own, of the whole
span; it is shared out among all spans, those that differ by a word included.</figcaption></figure>"""


def _marked(passage: str, rows: list[Reply]) -> str:
    """The passage with every answer marked. Answers may overlap, so it is cut wherever one of them begins or ends."""
    answers = [(n, row.said) for n, row in enumerate(rows) if row.said.text]
    cuts = sorted({0, len(passage), *(cut for _, said in answers for cut in (said.start, said.end))})
    parts = []
    for start, end in itertools.pairwise(cuts):
        inside = [n for n, said in answers if said.start <= start and end <= said.end]
        text = escape(passage[start:end])
        if inside:
            begun = "".join(f"<sup>{n + 1}</sup>" for n, said in answers if said.start == start)
            text = f'<mark class="{QUESTIONS[inside[0] % len(QUESTIONS)]}">{begun}{text}</mark>'
        parts.append(text)
    return "".join(parts)


def _reply(number: int, row: Reply) -> str:
    said = row.said
    answer = f"<mark>{escape(said.text)}</mark>" if said.text else "<b>the text does not say</b>"
    right = bool(row.points[0])
    meant = "" if right else f" We meant: {escape(row.meant[0] if row.meant else 'the text does not say')}."
    others = " ".join(
        f"Next: {escape(other.text) if other.text else 'the text does not say'}, {escape(percent(other.score))}."
        for other in row.spans[1:]
    )
    return (
        f'<li class="{QUESTIONS[number % len(QUESTIONS)]}"><b>{escape(row.question)}</b>'
        f'<div>{answer} <span class="number">{escape(percent(said.score))}</span> {_verdict(right)}</div>'
        f"<p>{others}{meant}</p></li>"
    )


def blanks(rows: list[Blank]) -> str:
    cards = []
    for row in rows:
        hidden = '<span class="blank" title="the hidden word">⋯</span>'
        sentence = f'<h3 class="query">“{escape(row.before)}{hidden}{escape(row.after)}”</h3>'
        bars = _bars(row.guesses, row.word)
        late = "" if row.points[0] else f"<p>The author wrote <b>{escape(row.word)}</b>.</p>"
        cards.append(f'<div class="card">{sentence}{bars}{late}<p class="book">{escape(row.book)}</p></div>')
    return f"""<p>This is how BERT learns before anyone teaches it a task: words are hidden, and it guesses them from
what stands around. No one has to write down answers; any text will do. This small one began with random weights and
read books of the 19th century. The sentences are from books that it has not read; ✓ is the author's own word.</p>
<div class="grid small">{"".join(cards)}</div>"""


def pairs(rows: list[Pair]) -> str:
    shown = "".join(
        f'<li class="card"><p>{escape(row.first)}</p><p>{escape(row.second)}</p><div>'
        f'<b>{"yes" if row.said else "no"}</b> <span class="number">{escape(percent(row.score))}</span> '
        f"{_verdict(row.said == row.follows, 'as in the book')}</div></li>"
        for row in rows
    )
    return f"""<p>The other thing that BERT learns at the same time: whether a passage followed another in its book, or
was put there from a different one. The same model, and the same books that it has not read.</p>
<ul class="pairs">{shown}</ul>"""


def continuations(rows: list[Continuation]) -> str:
    cards = "".join(
        f'<div class="card"><h3 class="query">“{escape(row.begin)}”</h3>'
        f'<ol class="tagged">{"".join(map(_token, row.tokens))}</ol>'
        f"<p>The model goes on: <i>{escape(row.said.strip())}</i></p></div>"
        for row in rows
    )
    return f"""<p>A decoder gives every token a probability of coming next, and that is all it does: text is written by
taking one of them, and asking again. Below each beginning stand the author's own next words, in the model's tokens,
each with the probability that it had; {key(LIKELIEST)} marks those that the model found likeliest of all. What it goes
on with itself was drawn. The books are some that it has not read.</p>
<div class="grid">{cards}</div>"""


def _token(token: Token) -> str:
    return (
        f'<li class="{LIKELIEST if token.likeliest else "none"}" title="{token.score:.2%}"><b>{escape(token.text)}</b>'
        f"<small>{escape(percent(token.score))}</small></li>"
    )


def _written(row: Written, shown: str, picture: str = "") -> str:
    """What was made of a text, which is `shown` above it."""
    said = f'<p><b>{escape(row.said)}</b></p>{picture}<p class="after">We meant: {escape(row.meant)}</p>'
    return f'<div class="card">{shown}{said}</div>'


def _asked(row: Written) -> str:
    return f'<h3 class="query">{escape(row.text)}</h3>'


def translations(rows: list[Aligned]) -> str:
    cards = "".join(_written(row, _asked(row), _alignment(row)) for row in rows)
    return f"""<p>An encoder reads the French, and a decoder writes English, looking back at what was read before each
word. The darker a square, the more the English word in its line looked at the French word above, in the last but one of
the decoder's layers. Nobody taught the model which word says which: it came to look there.</p>
<div class="grid">{cards}</div>"""


def rewritings(rows: list[Aligned]) -> str:
    cards = "".join(_written(row, _asked(row), _alignment(row)) for row in rows)
    return f"""<p>A T5 takes every task for one of writing, and is told in words before the text which is wanted. This
small one learned English by writing what was cut out of texts, and then two tasks. After
<b>{escape(SPLIT.strip())}</b> it makes two sentences of a long one; one that is short already it should leave. Most
words are copied: each looks at itself, along the diagonal.</p>
<div class="grid">{cards}</div>"""


def summaries(rows: list[Summed]) -> str:
    cards = "".join(_written(row, f'<p class="passage">{_looked_at(row)}</p>') for row in rows)
    return f"""<p>The same model, and the other task: a sentence for the abstract of a paper. The darker a sentence of
the abstract, the more the summary looked at it while it was written.</p>
<div class="grid">{cards}</div>"""


def _looked_at(row: Summed) -> str:
    parts, at = [], 0
    for source in row.sources:
        style = f'style="--share:{source.score:.2f}" title="{source.score:.0%}"'
        parts += [escape(row.text[at : source.start]), f'<span class="looked" {style}>{escape(source.text)}</span>']
        at = source.end
    return "".join(parts) + escape(row.text[at:])


def _alignment(row: Aligned) -> str:
    """A word of what is said a line, a word of the text a column."""
    head = "".join(f"<th><span>{escape(word)}</span></th>" for word in row.words)
    lines = "".join(f"<tr><th>{escape(word)}</th>{''.join(map(_square, shares))}</tr>" for word, shares in row.looks)
    rows = f"<thead><tr><td></td>{head}</tr></thead><tbody>{lines}</tbody>"
    return f'<div class="looks"><table class="alignment">{rows}</table></div>'


def _square(share: float) -> str:
    return "<td></td>" if share < FAINT else f'<td style="--share:{share:.2f}"></td>'


# By task: the heading, and what makes the section of the lesson's rows
SECTIONS: dict[str, tuple[str, Callable[[list[Any]], str]]] = {
    "text-classification": ("What is wanted", utterances),
    "token-classification": ("What kind of word", tagged),
    "ner": ("Names", posts),
    "question-answering": ("Answers in a text", replies),
    "fill-mask": ("Hidden words", blanks),
    "next-sentence": ("What follows", pairs),
    "text-generation": ("What comes next", continuations),
    "translation": ("From French", translations),
    "text2text-generation": ("One sentence, or two", rewritings),
    "summarization": ("In a sentence", summaries),
}
COMMANDS = {
    "text-classification": '"Wake me at half past six tomorrow"',
    "token-classification": '"The storm is coming."',
    "ner": '"just landed in Reykjavik" --aggregation-strategy first --constrained',
    "question-answering": '--question "Where did Ada live?" "Ada lived in London."',
    "fill-mask": '"I was very [MASK] and sleepy."',
    "next-sentence": '"I stood up." --text-pair "I looked round me."',
    "text-generation": '"I stood up and looked" --max-new-tokens 20 --seed 1',
    "translation": '"Je ne sais pas où il habite." --alignment --json',
    "text2text-generation": f'"{SPLIT}The bridge fell in 1902, and a new one was built beside it."',
    "summarization": '"We train a small model. It learns from little data." --sources --json',
}
