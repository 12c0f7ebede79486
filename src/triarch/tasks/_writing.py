"""What all tasks share in which an encoder–decoder writes a text from another one: prefixes, pieces, records.

What a checkpoint says of the task under `task_specific_params`, a prefix and options of generating, holds unless a call
says otherwise. A text longer than the model is read in pieces, each of which ends where a line or a sentence does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from triarch.errors import CorruptFile, InvalidInput, LimitExceeded, show
from triarch.generation.settings import make
from triarch.inputs.fit import Fit, Strategy, bounded, check_windows
from triarch.inputs.text import sentences
from triarch.inputs.text.given import text_of
from triarch.kinds import TargetWordScores
from triarch.tasks import _alignment, _generating
from triarch.tasks._base import Job
from triarch.tasks._generating import Generating

if TYPE_CHECKING:
    from tokenizers import Encoding

    from triarch.generation.rows import Generated
    from triarch.inputs.text.processor import TextProcessor


@dataclass(frozen=True, kw_only=True)
class Options(_generating.Options):
    prefix: str | None = None  # text before every piece of the input; None: what the checkpoint says of the task
    long: Strategy = "window"  # of a text longer than the model: read it in pieces
    truncation: bool | Literal["only_first", "longest_first"] = False  # the reference's long="truncate"
    max_source_tokens: int | None = None  # of one piece, with its prefix and special ones; None: what the model takes
    num_beams: int = 4  # sequences that grow side by side
    clean_up_tokenization_spaces: bool = False  # none left before punctuation
    alignment: bool | Literal["all"] = False  # answers say which word of the text each of theirs looks at most, or all

    @property
    def strategy(self) -> Strategy:
        return "truncate" if self.truncation else self.long


@dataclass(frozen=True)
class Piece:
    """A part of the input that is written from by itself."""

    text: str
    encoding: Encoding  # with the prefix and the special tokens
    start: int = 0  # where it stands in the input

    @property
    def ids(self) -> list[int]:
        return list(self.encoding.ids)


@dataclass(frozen=True)
class Document:
    """Notes of a job."""

    text: str  # the input
    pieces: list[Piece]  # all of it but white space between them


class Writing(Generating):
    """A task of an encoder–decoder."""

    NEEDS = (TargetWordScores,)
    OPTIONS: ClassVar[type[Any]] = Options
    NAME: ClassVar[str]  # of the answer: NAME_text
    PARAMS: ClassVar[str]  # the key of task_specific_params

    def options(self, given: dict[str, Any]) -> Any:
        asked = self.asked(given)
        said = self.said(asked)
        made = make(self.model, asked, self.OPTIONS, said=said)
        return made if made.prefix is not None else replace(made, prefix=self.prefix(asked, said))

    def said(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What the checkpoint says of this task. Raises CorruptFile where that is no table."""
        params = self.model.config.extra.get("task_specific_params") or {}
        said = params.get(self.params(asked)) if isinstance(params, dict) else None
        if not isinstance(params, dict) or not isinstance(said, dict | None):
            raise CorruptFile("config.json has task_specific_params that are no table of tables; mend it")
        return said or {}

    def params(self, asked: dict[str, Any]) -> str:
        return self.PARAMS

    def prefix(self, asked: dict[str, Any], said: dict[str, Any]) -> str | None:
        """What the checkpoint puts before its inputs. Raises CorruptFile where that is no text."""
        prefix = said.get("prefix", self.model.config.extra.get("prefix")) or ""
        if not isinstance(prefix, str):
            raise CorruptFile(f"config.json has the prefix {show(repr(prefix))}, wanted text; mend it")
        return prefix

    def shaped(self, answer: Any, inputs: Any, given: dict[str, Any]) -> Any:
        """Of a list of texts one record each, where each has but one."""
        listed = isinstance(inputs, list) and all(isinstance(one, str) for one in inputs)
        return [one[0] for one in answer] if listed and all(len(one) == 1 for one in answer) else answer

    def read(self, given: Any, options: Any) -> str:
        text = text_of(given, "text", "source", "document", "article")
        if not text.strip():
            raise InvalidInput("the text is empty; give something to write from")
        return text

    def prepare(self, item: str, options: Any) -> Job:
        document, dropped = self._document(item, options)
        check_windows(len(document.pieces))
        units = len(self.reader(options).encode(item, special_tokens=False)) if options.coverage else 0
        prompts = [self.prompt(piece.ids, options) for piece in document.pieces]
        return Job(prompts, units, dropped, len(prompts), notes=document)

    def answer(self, job: Job, outputs: list[list[Generated]], options: Any) -> list[dict[str, Any]]:
        """One record for each sequence that was asked for: the first of every piece together, and so on."""
        return [self._record(job.notes, list(one), options) for one in zip(*outputs, strict=True)]

    def _record(self, document: Document, found: list[Generated], options: Any) -> dict[str, Any]:
        """One answer as the user gets it."""
        whole = found[0]
        if len(found) > 1:  # what is said of one sequence is said of all of them in turn
            whole = replace(
                whole,
                ids=[token for one in found for token in one.ids],
                finish_reason=next((one.finish_reason for one in found if one.finish_reason != "stop"), "stop"),
                logprobs=_joined([one.logprobs for one in found]),
                alternatives=_joined([one.alternatives for one in found]),
                prompt_logprobs=_joined([one.prompt_logprobs for one in found]),
                score=None,
            )
        text = self.joined(document, found, options)
        record = self.record(self.NAME, self.begin(options), text, whole, options)
        if options.alignment:
            record["alignment"] = _alignment.words(self, document, found, options)
        return record

    def joined(self, document: Document, found: list[Generated], options: Any) -> str:
        """The text that those of the pieces make."""
        if len(found) == 1:
            return self.text(found[0], options)
        return " ".join(text for one in found if (text := self.text(one, options).strip()))

    def text(self, found: Generated, options: Any) -> str:
        from triarch.inputs.text.processor import cleaned

        written = self.written(found, options)
        return cleaned(written) if options.clean_up_tokenization_spaces else written

    def written(self, found: Generated, options: Any) -> str:
        """A target to the letter, with what it had to begin with."""
        target, begin = self.processor.target, self.begin(options)
        if options.stop:  # which may have cut the text
            return target.decode(begin, options.skip_special_tokens, clean_up=False) + found.text
        return target.decode([*begin, *found.ids], options.skip_special_tokens, clean_up=False)

    def begin(self, options: Any) -> list[int]:
        """The ids that every target begins with."""
        from triarch.generation.call import beginning

        return beginning(self.model, options)

    def reader(self, options: Any) -> TextProcessor:
        """What reads the input."""
        return self.processor

    def split(self, text: str, size: Any, room: int, options: Any) -> list[str]:
        """The text in pieces that fit; joined they are the text again."""
        return sentences.pieces(text, size, room)

    def encoded(self, text: str, options: Any) -> Encoding:
        """What the model reads of a piece."""
        return self.reader(options).encode(options.prefix + text)

    def _document(self, text: str, options: Any) -> tuple[Document, int]:
        """Its pieces, and how many tokens were dropped because cutting was asked for."""
        most = self.processor.max_tokens
        if options.max_source_tokens is not None:
            most = bounded("max_source_tokens", options.max_source_tokens, most)
        around = len(self.encoded("", options))  # prefix and special tokens
        if most - around < 1:
            raise LimitExceeded(f"of {most:,} tokens the prefix leaves none for the text; shorten it")
        if options.strategy == "error":
            Fit().refuse(len(self.encoded(text, options)), most)
        if options.strategy == "truncate":
            window, dropped = self.reader(options).cut(options.prefix + text, max_tokens=most)
            return Document(text, [Piece(text, window)]), dropped

        def size(part: str) -> int:
            return max(len(self.encoded(part.strip(), options)) - around, 0)

        pieces, place = list[Piece](), 0
        for part in self.split(text, size, most - around, options):
            if stripped := part.strip():
                encoding = self.encoded(stripped, options)
                if len(encoding) > most:
                    raise LimitExceeded(
                        f"{show(stripped)!r} alone has {len(encoding):,} tokens with what stands around it, {most:,} "
                        "fit; raise max_source_tokens, or shorten the prefix"
                    )
                pieces.append(Piece(stripped, encoding, place + part.index(stripped)))
            place += len(part)
        if len(pieces) == 1 and len(whole := self.encoded(text, options)) <= most:
            pieces = [Piece(text, whole)]  # a text that fits is read to the letter, as the reference reads it
        return Document(text, pieces), 0


def _joined(lists: list[list[Any] | None]) -> list[Any] | None:
    return None if any(one is None for one in lists) else [entry for one in lists if one for entry in one]
