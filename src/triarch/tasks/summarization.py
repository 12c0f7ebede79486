"""Say in a few sentences what a text says.

    triarch run summarization article.txt --input-format whole -m sshleifer/distilbart-cnn-12-6
    triarch run summarization report.txt --input-format whole --sources --json -m facebook/bart-large-cnn

A text longer than the model is read in pieces of whole sentences, whose summaries are joined; with combine="again" what
they make is summarized once more, until it fits the model whole or gets no shorter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from triarch.errors import InvalidInput, TriarchError
from triarch.tasks import _alignment, _writing
from triarch.tasks._base import Job
from triarch.tasks._writing import Document, Writing

if TYPE_CHECKING:
    from triarch.generation.rows import Generated


SHORTER = 0.9  # of the text: what summaries of its pieces have to come below to be summarized again


@dataclass(frozen=True, kw_only=True)
class Options(_writing.Options):
    combine: Literal["join", "again"] = "join"  # of a long text: the summaries of its pieces, or a summary of these
    sources: bool = False  # answers say which sentences of the text each of their own sentences looks at most

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.combine == "again" and (self.sources or self.alignment):
            raise InvalidInput("a summary of summaries has no sentence or word of the text for its source; choose one")


class Summarization(Writing):
    """Text -> [{"summary_text"}], one for each sequence."""

    STARTERS = {"summarization": "rewriting"}
    OPTIONS = Options
    NAME = "summary"
    PARAMS = "summarization"

    def answer(self, job: Job, outputs: list[list[Generated]], options: Options) -> list[dict[str, Any]]:
        document: Document = job.notes
        if options.combine == "again" and len(document.pieces) > 1:
            return [self._again(document, list(one), options) for one in zip(*outputs, strict=True)]
        return super().answer(job, outputs, options)

    def _again(self, document: Document, found: list[Generated], options: Options) -> dict[str, Any]:
        """What comes of the summaries of the pieces, which are shorter than these, or are left as they are."""
        text = self.joined(document, found, options)
        if not text or len(text) > SHORTER * sum(len(piece.text) for piece in document.pieces):
            return super()._record(document, found, options)
        answer: Any = next(self.stream([text], options))
        if isinstance(answer, TriarchError):
            raise answer
        made: dict[str, Any] = (answer["result"] if options.coverage else answer)[0]
        return made

    def _record(self, document: Document, found: list[Generated], options: Options) -> dict[str, Any]:
        record = super()._record(document, found, options)
        if options.sources:
            record["sources"] = _alignment.supports(self, document, found, options)
        return record
