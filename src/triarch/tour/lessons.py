"""What the starters answer to the bundled inputs: one lesson a task, every answer with what was meant beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape

from triarch import starters
from triarch.errors import NotFound
from triarch.pages import table
from triarch.starters import Card
from triarch.tasks import pipeline, task_class
from triarch.tour import reading, writing
from triarch.tour.subject import Row, Subject

# In the order in which they are shown
SUBJECTS: tuple[Subject, ...] = (
    reading.Intents(),
    reading.Tags(),
    reading.Names(),
    reading.Answers(),
    reading.Blanks(),
    reading.Pairs(),
    writing.Continuations(),
    writing.Translations(),
    writing.Rewritings(),
    writing.Summaries(),
)


@dataclass(frozen=True)
class Lesson:
    """A subject with what its starter made of it."""

    subject: Subject
    starter: str
    stored: int  # bytes of the starter's folder
    card: Card
    rows: list[Row]

    @property
    def task(self) -> str:
        return self.subject.TASK

    @property
    def points(self) -> tuple[int, int]:
        right, of = zip(*map(self.subject.points, self.rows), strict=True)
        return sum(right), sum(of)

    def section(self) -> str:
        """On the page."""
        return self.subject.section(self.rows)

    def table(self) -> list[list[str]]:
        """In a terminal: the headers, then the inputs, each in a row or more."""
        return [[*self.subject.HEADERS], *(line for row in self.rows for line in self.subject.lines(row))]


@dataclass(frozen=True)
class School:
    """All lessons, and why some are left out."""

    lessons: list[Lesson]
    absent: dict[str, str]  # tasks -> what is the matter with their starters

    def sections(self) -> list[str]:
        """On the page; none if there is neither a lesson nor one left out."""
        overview = [_overview(self)] if self.lessons or self.absent else []
        return [*overview, *(lesson.section() for lesson in self.lessons)]


def attend(note: Callable[[str], None]) -> School:
    """Ask every starter that is here; of one that is not, say so."""
    lessons, absent = [], {}
    for subject in SUBJECTS:
        note(f"asking the starter for {subject.TASK}")
        try:
            lessons.append(learn(subject))
        except NotFound as error:
            absent[subject.TASK] = str(error)
    return School(lessons, absent)


def learn(subject: Subject) -> Lesson:
    """One subject with its starter. Raises NotFound where that is not here, and what `load` raises."""
    folder = starters.resolve(subject.TASK, task_class(subject.TASK).STARTERS, starters.NAME)
    return Lesson(
        subject=subject,
        starter=folder.name,
        stored=sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
        card=starters.card(folder),
        rows=subject.ask(pipeline(subject.TASK, folder)),
    )


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
