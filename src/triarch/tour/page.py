"""The findings as one self-contained HTML page: no script, no request, light and dark."""

from __future__ import annotations

from html import escape
from importlib.resources import files

from triarch import __version__
from triarch.pages import cards, document, group, key, table, wide
from triarch.pages.renderers.labels import bars
from triarch.pages.renderers.similarity import Block, cosine, square
from triarch.pages.renderers.vectors import SHOWN
from triarch.tour import drawings
from triarch.tour.findings import Findings, Group, Look, Search, Token
from triarch.tour.lessons import School

PAPERS = {
    "Attention is all you need": "https://arxiv.org/abs/1706.03762",
    "BERT": "https://arxiv.org/abs/1810.04805",
    "WordPiece": "https://arxiv.org/abs/1609.08144",
    "Sentence-BERT": "https://arxiv.org/abs/1908.10084",
    "MiniLM": "https://arxiv.org/abs/2002.10957",
    "LoRA": "https://arxiv.org/abs/2106.09685",
}
POOLINGS = {
    "mean_tokens": "the mean: each number of the sentence is the average of the numbers above it",
    "cls_token": "the vector of the first token; the others are dropped",
    "max_tokens": "the largest of the numbers above each",
}
COMMANDS = """\
triarch run semantic-search "something I look for" --corpus notes.txt -m MODEL
triarch run sentence-similarity "A man is eating." --sentences "Someone eats" -m MODEL
triarch run embedding "A man is eating." -m MODEL --jsonl"""
PYTHON = """\
import triarch

embed = triarch.pipeline("embedding", model="MODEL")
vectors = embed(["A man is eating.", "Someone eats."])"""


def render(findings: Findings, school: School) -> str:
    """The whole page. All text from sentences, vocabulary, answers and names is escaped on its way in."""
    uses = [section(findings) for section in (search, groups, similarity)]
    inside = [section(findings) for section in (pieces, attention, pooling, speed)]
    sections = [*uses, *school.sections(), *inside]
    return document(
        f"triarch tour: {findings.name}",
        f"""{opening(findings, school)}
<main>
{"".join(f"<section>{section}</section>" for section in sections)}
</main>
{closing()}""",
        css=files(__package__).joinpath("page.css").read_text(encoding="utf-8"),
    )


def opening(findings: Findings, school: School) -> str:
    N, D = findings.vectors.shape
    speed = findings.speed
    taught = "what small models answer that were taught a task, and " if school.lessons else ""
    figures = {
        "queries find their sentence first": f"{findings.found_first} of {len(findings.searches)}",
        "sentences lie with their topic": f"{findings.settled} of {N}",
        f"sentences a second ({speed.where})": f"{speed.sentences:,.0f}",
        "to load the model": f"{speed.load_seconds:.2f} s",
    }
    return f"""<header>
<h1>What an encoder makes of a sentence</h1>
<p class="lede">{N} sentences have just gone through <b>{escape(findings.name)}</b>, a transformer encoder, on this
machine. Each came out as {D} numbers, its vector. Vectors of sentences with like meaning point the same way, and that
is all it takes to search, compare and group them. First you see what this is good for, then {taught}how it happens
inside.</p>
{cards(figures)}
</header>"""


def search(findings: Findings) -> str:
    return f"""<h2>Search by meaning</h2>
<p>No query shares a single word with the sentence that it should find (✓). The query becomes a vector as the sentences
did, and the nearest vectors win. The number is the cosine of the angle between the two: 1 in the same direction,
near 0 where there is nothing in common.</p>
<div class="grid">{"".join(_searched(one, findings) for one in findings.searches)}</div>"""


def _searched(one: Search, findings: Findings) -> str:
    wanted = findings.sentences[one.wanted].text
    hits = [(findings.sentences[number].text, score) for number, score in one.hits]
    drawn = bars(hits, meant=wanted, means="the sentence that should be found", spell=cosine)
    late = "" if one.rank <= len(one.hits) else f"<p>The sentence that it should find came at place {one.rank}.</p>"
    return f'<div class="card"><h3 class="query">“{escape(one.query)}”</h3>{drawn}{late}</div>'


def groups(findings: Findings) -> str:
    N = len(findings.sentences)
    cards = "".join(_listed(i, own, findings) for i, own in enumerate(findings.groups))
    strays = "".join(
        f"<li>{escape(findings.sentences[n].text)} {_tag(findings.sentences[n].topic)} lies with "
        f"<b>{escape(own.topic)}</b></li>"
        for own in findings.groups
        for n in own.strays
    )
    return f"""<h2>Groups that nobody named</h2>
<p>The sentences are on {len({sentence.topic for sentence in findings.sentences})} topics, which the model was not
told. K-means, told only how many groups to make, put {findings.settled} of the {N} sentences together with others of
their topic. Each group bears the name of the topic that most of its sentences have.</p>
<figure>{drawings.plane(findings)}
<figcaption>Each dot is a sentence; point at it to read it. The plane shows the two directions in which the vectors
differ most. They hold {findings.variance:.0%} of all differences, so groups that overlap here can lie well apart in the
other directions. A ring marks a sentence of another topic than its group's.</figcaption>
{f'<ul class="strays">{strays}</ul>' if strays else ""}
<details><summary>Read all {N} sentences, group by group</summary><div class="grid">{cards}</div></details></figure>"""


def _listed(number: int, own: Group, findings: Findings) -> str:
    lines = []
    for member in own.members:
        sentence = findings.sentences[member]
        lines.append(f"<li>{escape(sentence.text)}{' ' + _tag(sentence.topic) if member in own.strays else ''}</li>")
    heading = f"<h3>{escape(own.topic)} <span>{len(lines)}</span></h3>"
    return f'<div class="group {group(number)}">{heading}<ul>{"".join(lines)}</ul></div>'


def _tag(topic: str) -> str:
    return f'<span class="tag">{escape(topic)}</span>'


def similarity(findings: Findings) -> str:
    N = len(findings.sentences)
    order = [member for own in findings.groups for member in own.members]
    blocks = [Block(own.topic, len(own.members), group(i)) for i, own in enumerate(findings.groups)]
    rows = [
        [cosine(score), escape(findings.sentences[i].text), escape(findings.sentences[j].text)]
        for i, j, score in findings.closest
    ]
    return f"""<h2>Every sentence against every other</h2>
<p>All {N} × {N} cosines at once: the vectors, one under the other, are a matrix, and one product of it with itself
gives the whole picture. Machines do nothing faster, which is why search by vectors is quick.</p>
<figure>{wide(square(findings.vectors[order], blocks, cell=9.0), "cosines of all pairs")}
<figcaption>Rows and columns are the sentences, group by group. {key("p")} the stronger, the nearer in meaning;
{key("m")} below zero. The diagonal is each sentence against itself; the blocks along it are the groups.
Where two groups share a shade, as gardening and cooking may, their topics touch.</figcaption></figure>
<figure><h3>The nearest pairs</h3>
{table(["cosine", "one sentence", "the other"], rows, numbers={0})}
<figcaption>Most of these were written in pairs, to say the same thing in other words.</figcaption></figure>"""


def pieces(findings: Findings) -> str:
    look = findings.look
    words = "".join(
        f"<li><b>{escape(word)}</b> <span>→ {escape(' '.join(parts))}</span></li>" for word, parts in findings.split
    )
    colours = f"{key('s0')} 0 for the first sentence, {key('s1')} 1 for the second"
    segments = (
        f"The colour is the <b>segment</b>, or token type: {colours}."
        if findings.takes_segments
        else f"This model takes no segments; the colours here are {colours}."
    )
    columns = ["position", "piece", "id", "sentence", "characters", "in the text"]
    return f"""<h2>Inside: from text to pieces</h2>
<p>A model reads numbers, so text is first cut into pieces of a fixed vocabulary, here of
{escape(findings.facts["vocabulary"])} and of the kind <b>{escape(findings.vocabulary)}</b>. A frequent word is one
piece; a rare one is put together from several. In WordPiece, <b>##</b> says that a piece goes on with the word.</p>
<figure><ol class="pieces">{"".join(map(_chip, look.tokens))}</ol>
<figcaption>The two nearest sentences, read together as one input. The number below a piece is its row in the
vocabulary. {segments} Dashed are the special tokens: in BERT, <b>[CLS]</b> stands for the whole input and <b>[SEP]</b>
ends a sentence.</figcaption>
<details><summary>The same as a table, with offsets</summary>
{table(columns, [_token_row(i, token) for i, token in enumerate(look.tokens)], numbers={0, 2, 3})}
<p class="after">The offsets lead from each piece back to its characters, capitals and accents included. Answers that
are spans of a text, such as names or dates, are cut out with them.</p></details></figure>
<ul class="words">{words}</ul>
<p class="after">Other words that the vocabulary does not hold whole. What it cannot spell at all, such as an emoji it
has never seen, becomes the unknown token.</p>"""


def _chip(token: Token) -> str:
    kind = "special" if token.special else f"s{token.segment}{' part' if token.piece.startswith('##') else ''}"
    start, end = token.span
    hover = "special token" if token.special else f"characters {start} to {end}: {token.text}"
    return f'<li class="{kind}" title="{escape(hover)}"><b>{escape(token.piece)}</b><small>{token.id}</small></li>'


def _token_row(position: int, token: Token) -> list[str]:
    start, end = token.span
    where = "" if token.special else f"{start}–{end}"
    piece = f"<code>{escape(token.piece)}</code>"
    return [str(position), piece, str(token.id), str(token.segment), where, escape(token.text)]


def attention(findings: Findings) -> str:
    look = findings.look
    layer, head = look.layers[look.chosen[0]] + 1, look.chosen[1] + 1
    L, H = look.maps.shape[:2]
    rows = [[_word(look, i), _word(look, j), f"{share:.2f}"] for i, j, share in look.looks]
    return f"""<h2>Inside: where the tokens look</h2>
<p>In every layer each token gathers from the others what it needs: this is <b>attention</b>. It looks backward and
forward alike, which is what makes the model an encoder. Each layer does so several times side by side, in
<b>heads</b>, and each head has learned to look for something else.</p>
<figure><div class="beside">{wide(drawings.head(look), "attention of one head")}
<div><h3>Strongest looks across</h3>{table(["from", "to", "share"], rows, numbers={2})}</div></div>
<figcaption>Layer {layer}, head {head}: of all heads, the one in which the two sentences most look at one another.
A row is the token that looks, a column the token looked at; each row adds up to 1. Dashed lines part the sentences: top
right and bottom left are the looks across. A full column at a special token is where those look that find nothing to
their taste.</figcaption></figure>
<figure>{wide(drawings.heads(look), "attention of all heads")}
<figcaption>{L} layers with {H} heads each, on the same two sentences; the framed one is the one above. A diagonal
line: tokens look at themselves or at a neighbour. An upright line: all look at one token, often [CLS], [SEP] or a full
stop.</figcaption></figure>"""


def _word(look: Look, position: int) -> str:
    token = look.tokens[position]
    return f'<b class="s{token.segment}">{escape(token.piece)}</b>'


def pooling(findings: Findings) -> str:
    pooled = findings.pooled
    how = (
        POOLINGS.get(pooled.how[0], pooled.how[0].replace("_", " ")) if len(pooled.how) == 1 else "several, end to end"
    )
    D = findings.vectors.shape[1]
    shown = min(SHOWN, D)
    text = escape(findings.sentences[findings.look.sentences[0]].text)
    return f"""<h2>Inside: from many vectors to one</h2>
<p>The last layer leaves one vector for each token. <b>Pooling</b> makes a single one of them, here by {escape(how)}.
In the end the vector is brought to length 1, so that only its direction counts.</p>
<figure>{wide(drawings.pooling(pooled), "pooling")}
<figcaption>“{text}”, read alone; the first {shown} of its {D} numbers. {key("p")} above zero, {key("m")} below, the
stronger the larger.</figcaption></figure>
<figure>{wide(drawings.strips(findings), "vectors of all sentences")}
<figcaption>The vectors of all sentences, a line each. Shown are the {shown} of {D} numbers that tell the groups apart
best, in the order of the groups, less the average of all sentences. No single number means “music”: it is the pattern
that a group has in common.</figcaption></figure>"""


def speed(findings: Findings) -> str:
    measured = findings.speed
    figures = {
        "to load the model": f"{measured.load_seconds:.2f} s",
        "sentences a second": f"{measured.sentences:,.0f}",
        "tokens a second": f"{measured.tokens:,.0f}",
        "measured on": measured.where,
        **findings.facts,
    }
    return f"""<h2>How fast, and how to go on</h2>
<p>Measured while this page was made, with all {len(findings.sentences)} sentences handed over at once; the
fastest of several passes counts.</p>
{cards(figures)}
<p class="after">The same on texts of your own, in the shell and in Python; MODEL is a folder or a repo id, such as
<code>sentence-transformers/all-MiniLM-L6-v2</code>:</p>
<pre>{escape(COMMANDS)}</pre>
<pre>{escape(PYTHON)}</pre>"""


def closing() -> str:
    links = ", ".join(f'<a href="{url}">{escape(name)}</a>' for name, url in PAPERS.items())
    return f"""<footer><p>Made by triarch {__version__}. The sentences were written for this tour.
Where the ideas come from: {links}.</p></footer>"""
