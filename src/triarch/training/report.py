"""A run as one self-contained HTML page: curves, mistakes, and everything to do it again."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from triarch import __version__
from triarch.errors import show
from triarch.files import write_text
from triarch.pages import cards, document, key, number, table, wide
from triarch.pages.renderers import records
from triarch.training import drawings, history
from triarch.training.drawings import Line, chart, plural
from triarch.training.facts import Facts, Mistakes, duration, flat
from triarch.training.history import History

MOST_ROWS = 200  # of a table
MOST_WRONG = 20
MOST_PAIRS = 10
SMALL = (430.0, 220.0)  # pictures of which two stand side by side


def write_report(folder: Path, log: Path, facts: Facts, mistakes: Mistakes | None = None) -> Path:
    """Write `report.html` into `folder`, from the run's `log.jsonl`. Returns where it is.

    Raises TriarchError when it cannot be written. A log without lines, or none at all, leaves out the curves.
    """
    path = folder / "report.html"
    write_text(path, render(history.read(log), facts, mistakes or Mistakes()))
    return path


def render(past: History, facts: Facts, mistakes: Mistakes) -> str:
    """The whole page. All text from data, labels and settings is escaped on its way in."""
    sections = [
        losses(past, facts),
        measurements(past, facts),
        pace(past),
        confusion(mistakes),
        wrong(mistakes),
        again(facts),
    ]
    return document(
        f"Training report: {facts.name}",
        f"""{opening(past, facts)}
<main>
{"".join(f"<section>{section}</section>" for section in sections if section)}
</main>
<footer><p>Made by triarch {__version__}. This page stands alone: it asks nothing of the network and runs no script.
It names what the run was given, and may quote the data; mind that before you publish it.</p></footer>""",
        css=files(__package__).joinpath("report.css").read_text(encoding="utf-8"),
    )


def opening(past: History, facts: Facts) -> str:
    shown = sorted(facts.metrics, key=lambda name: name != facts.metric)[:3]
    figures = {f"{name}{_on(facts)}": number(facts.metrics[name]) for name in shown} | {
        "steps": f"{facts.steps:,}",
        "tokens seen": drawings.short(facts.tokens),
        "time of training": duration(facts.seconds),
    }
    began = escape(facts.base_model or facts.started)
    lost = (
        f'<p class="say">Not shown: {plural(past.unreadable, "line")} of the log that could not be read.</p>'
        if past.unreadable
        else ""
    )
    return f"""<header>
<h1>{escape(facts.name)}</h1>
<p class="lede">{escape(facts.architecture)}, trained on <b>{escape(facts.objective)}</b>, beginning with {began}.</p>
{cards(figures)}
{lost}
</header>"""


def _on(facts: Facts) -> str:
    return f" ({facts.measured_on.part})" if facts.measured_on else ""


def losses(past: History, facts: Facts) -> str:
    train, measured = past.of_steps("loss"), past.of_evaluations("loss")
    if not len(train.known()):
        return "<h2>Loss</h2>\n<p>The log holds no loss of any step.</p>"
    lines = [Line("training", train, noisy=True)]
    if len(measured):
        lines.append(Line("validation", measured, dots=True))
    first, last = train.known().values[0], drawings.smooth(train.values)[~np.isnan(train.values)][-1]
    label = f"training loss over {len(train):,} steps, from {number(first)} at the start to {number(last)} at the end"
    drawn = chart(lines, label=label, best=facts.best_step)
    unknown = len(train) - len(train.known())
    parts = past.losses()
    more = ""
    if len(parts) > 1:
        small = chart(
            [Line(show(name, 20), past.of_loss(name), noisy=True) for name in parts[: drawings.KINDS]],
            label=f"the parts of the loss: {', '.join(parts[: drawings.KINDS])}",
        )
        listed = ", ".join(f"<b>{escape(name)}</b>" for name in parts)
        more = f"""<figure>{wide(small.drawing, "parts of the loss")}
<figcaption>The loss is the sum of {listed}.{_beyond(small.beyond)}</figcaption></figure>"""
    return f"""<h2>Loss</h2>
<figure>{wide(drawn.drawing, "loss over the steps")}
<figcaption>{key("c0")} the training loss: the line is smoothed, the shade is the range of single
steps.{f" {key('c1')} dots: the loss measured on validation data." if len(measured) else ""}{_mark(facts)}
{_beyond(drawn.beyond)}{f" Not a number: at {plural(unknown, 'step')}." if unknown else ""}</figcaption></figure>
{more}"""


def _mark(facts: Facts) -> str:
    return f" {key('best')} step {facts.best_step:,}, best in {escape(facts.metric)}." if facts.best_step else ""


def _beyond(count: int) -> str:
    return f" Above the picture: {plural(count, 'value')}." if count else ""


def measurements(past: History, facts: Facts) -> str:
    names = past.metrics()
    if not names:
        return ""
    figures = []
    for name in names:
        points = past.of_evaluations(name)
        if name != "loss" and len(points):
            label = f"{name} over {len(points)} measurements, at the end {number(points.values[-1])}"
            figures.append(_small(Line(name, points, dots=True), label, best=facts.best_step))
    shown = past.evaluations[-MOST_ROWS:]
    rows = [
        [f"{line['step']:,}{' ✓' if line['step'] == facts.best_step else ''}"]
        + [_cell(line["evaluation"].get(name)) for name in names]
        for line in shown
    ]
    kept = "" if len(shown) == len(past.evaluations) else f" The last {len(shown)} of {len(past.evaluations):,}."
    heads = ["step", *(escape(show(name, 40)) for name in names)]
    return f"""<h2>Measurements</h2>
<p>Taken on the validation data while training went on.{_mark(facts)}{kept}</p>
<div class="pair">{"".join(figures)}</div>
<details><summary>All values as a table</summary>
{table(heads, rows, numbers=range(len(names) + 1))}</details>"""


def _cell(value: object) -> str:
    return number(value) if isinstance(value, int | float) else "–"


def pace(past: History) -> str:
    figures = []
    for line in (
        Line("learning rate", past.of_steps("lr")),
        Line("norm of the gradient", past.of_steps("grad_norm"), noisy=True),
        Line("tokens a second", drawings.rates(past.of_steps("tokens"), past.of_steps("seconds"))),
    ):
        name, points = line.name, line.points
        known = points.known().values
        if not len(known):
            continue
        label = f"{name} over the steps, from {number(known.min())} to {number(known.max())}"
        figures.append(_small(line, label, floor=0.0))
    return f'<h2>Rate and pace</h2>\n<div class="pair">{"".join(figures)}</div>' if figures else ""


def _small(line: Line, label: str, **more: Any) -> str:
    """One curve in half the width of the page; `more` is what `chart` takes."""
    drawn = chart([line], label=label, width=SMALL[0], height=SMALL[1], **more)
    said = f"<figcaption>{_beyond(drawn.beyond)}</figcaption>" if drawn.beyond else ""
    picture = wide(drawn.drawing, f"{line.name} over the steps")
    return f"<figure><h3>{escape(show(line.name, 60))}</h3>{picture}{said}</figure>"


def confusion(mistakes: Mistakes) -> str:
    counts, labels = mistakes.confusion, mistakes.labels
    if counts is None or not counts.sum():
        return ""
    L = len(labels)
    drawn = ""
    if L <= drawings.MOST_LABELS:
        drawn = f"""<figure>{wide(drawings.confusion(counts, labels), "labels against labels")}
<figcaption>A row is the right label, a column what was predicted, a number how many examples. The stronger the colour,
the larger the share of its row; a perfect model has all on the diagonal.</figcaption></figure>"""
    pairs = sorted(
        ((int(counts[i, j]), i, j) for i, j in itertools.product(range(L), range(L)) if i != j and counts[i, j]),
        reverse=True,
    )
    rows = [{"examples": count, "right": labels[i], "predicted": labels[j]} for count, i, j in pairs[:MOST_PAIRS]]
    most = records.table(rows) if rows else "<p>Nothing was confused.</p>"
    order = np.argsort(-counts.sum(1), kind="stable")[:MOST_ROWS].tolist()
    kept = "" if L <= MOST_ROWS else f"<p>The {MOST_ROWS} most frequent of {L:,}.</p>"
    own = table(["label", "examples", "precision", "recall"], _by_label(counts, labels, order), numbers={1, 2, 3})
    return f"""<h2>What was taken for what</h2>
{drawn}
<div class="pair"><figure><h3>Most often confused</h3>{most}</figure>
<figure><h3>Each label by itself</h3>{kept}{own}</figure></div>"""


def _by_label(counts: np.ndarray, labels: Sequence[str], order: Sequence[int]) -> list[list[str]]:
    def share(right: int, of: int) -> str:
        return f"{right / of:.3f}" if of else "–"

    there, said = counts.sum(1), counts.sum(0)
    return [
        [escape(show(labels[i])), f"{there[i]:,}", share(counts[i, i], said[i]), share(counts[i, i], there[i])]
        for i in order
    ]


def wrong(mistakes: Mistakes) -> str:
    if not mistakes.wrong:
        return ""
    rows = [
        {"text": one.text, "right": one.right, "predicted": one.predicted, "loss": one.loss}
        for one in mistakes.wrong[:MOST_WRONG]
    ]
    return f"""<h2>Most wrong</h2>
<p>Of {plural(len(mistakes.wrong), "row")} with a wrong answer those of the highest loss, where the model was surest of
it. Look for wrong labels among them.</p>
<figure class="texts">{records.table(rows)}</figure>"""


def again(facts: Facts) -> str:
    data = [
        {"part": one.part, "name": one.name, "rows": one.rows, "licence": one.license or "unknown", "": one.note}
        for one in facts.data
    ]
    seed = {} if facts.seed is None else {"seed": str(facts.seed)}
    read = f"<figure><h3>Data</h3>{records.table(data)}</figure>"
    return f"""<h2>To do it again</h2>
{read if data else ""}
<div class="pair">{_facts("Settings", flat(facts.settings) | seed)}
<div>{_facts("Machine", facts.hardware)}{_facts("Software", facts.software)}</div></div>"""


def _facts(title: str, found: Mapping[str, str]) -> str:
    if not found:
        return ""
    rows = [{"name": name, "value": value} for name, value in found.items()]
    return f'<figure><h3>{title}</h3><div class="facts">{records.table(rows)}</div></figure>'
