"""Sequences while they are generated: their tokens, why they ended, and the text that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from triarch.generation.settings import Settings
    from triarch.generation.structure import Form
    from triarch.inputs.text.processor import TextProcessor

Reason = Literal["stop", "length", "time", "cancelled"]
BEFORE = 4  # tokens before the new ones that may change how these are spelled: as many as a character has bytes
BROKEN = "\ufffd"  # how bytes that are no character yet are decoded


@dataclass
class Row:
    """One sequence."""

    prompt: int  # the number of the prompt that it continues
    sample: int  # which of the prompt's sequences it is
    room: int  # new tokens that it may have
    seed: int | None = None
    ids: list[int] = field(default_factory=list)  # new tokens
    logprobs: list[float] = field(default_factory=list)
    alternatives: list[list[tuple[int, float]]] = field(default_factory=list)
    reason: Reason | None = None  # None: it goes on
    cut: int | None = None  # where its text ends, if a stop text was found
    score: float | None = None  # of a beam
    guessed: int = 0  # tokens that were guessed before they were chosen


@dataclass(frozen=True)
class Generated:
    """One generated sequence; `str` of it is its text."""

    ids: list[int]  # new tokens, with the one that ended it
    text: str  # of these, unless asked for without special tokens and stop text; empty without a tokenizer
    finish_reason: Reason  # "stop": an end token or a stop text; "length", "time", "cancelled": it was cut off
    prompt: int = 0  # the number of the prompt
    seed: int | None = None  # that draws it again
    score: float | None = None  # of beams: log-probability over length to the power of length_penalty
    logprobs: list[float] | None = None  # natural, of the model's own distribution before any filter; with guidance,
    # of the one that it leads to
    alternatives: list[list[tuple[int, float]]] | None = None  # likeliest tokens at each place, with theirs
    prompt_logprobs: list[float] | None = None  # of the prompt's tokens but the first
    guessed: int | None = None  # how many of the tokens were guessed ahead, and took no pass of their own

    def __str__(self) -> str:
        return self.text


class Stops:
    """What ends a sequence: its tokens, its text, its length; or its form, where no token could say that it ends."""

    def __init__(
        self,
        ends: Sequence[int],
        settings: Settings,
        processor: TextProcessor | None,
        prompts: Sequence[Sequence[int]],
        form: Form | None = None,
    ):
        self.prompts = prompts
        self.ends, self.texts, self.include = frozenset(ends), list(settings.stop), settings.include_stop
        self.skip, self.processor = settings.skip_special_tokens, processor
        self.form = None if ends else form
        self.clean = form is None  # mending the spaces around signs could break it

    def check(self, row: Row) -> None:
        """Set the reason, if its last token is the last."""
        if self.texts and (cut := self._found(row)) is not None:
            row.reason, row.cut = "stop", cut
        elif row.ids[-1] in self.ends or (self.form is not None and self.form.complete(row.ids)):
            row.reason = "stop"
        elif len(row.ids) >= row.room:
            row.reason = "length"

    def text(self, row: Row) -> str:
        if self.processor is None:
            return ""
        text = self._spelled(row, self.skip)
        return text if row.cut is None else text[: row.cut]

    def _spelled(self, row: Row, skip: bool) -> str:
        """What the new tokens add to the text of those before them: alone, the first would lose the space before it."""
        assert self.processor is not None
        before = list(self.prompts[row.prompt][-BEFORE:])
        start = len(self.processor.decode(before, skip, clean_up=self.clean).rstrip(BROKEN))
        return self.processor.decode([*before, *row.ids], skip, clean_up=self.clean)[start:]

    def _found(self, row: Row) -> int | None:
        """Where the text ends if it holds a stop text, which may be that of a special token."""
        shown = self._spelled(row, self.skip)
        places = [(at, len(stop)) for stop in self.texts if (at := shown.find(stop)) >= 0]
        if places:
            at, size = min(places)
            return at + (size if self.include else 0)
        whole = self._spelled(row, False)
        return len(shown) if any(stop in whole for stop in self.texts) else None


class Piece(NamedTuple):
    """What a stream gives."""

    text: str  # that came to be certain
    ids: list[int]  # tokens since the last piece
    prompt: int = 0
    sample: int = 0
    finish_reason: Reason | None = None  # of the last piece of a sequence


class Certain:
    """The text of a growing row that later tokens cannot change any more."""

    def __init__(self, stops: Stops):
        self.stops = stops
        self.shown = 0  # characters given
        self.tokens = 0

    def piece(self, row: Row) -> Piece:
        text = self.stops.text(row)
        end = len(text) if row.reason is not None else self._certain(text)
        fresh, ids = text[self.shown : end], row.ids[self.tokens :]
        self.shown, self.tokens = max(self.shown, end), len(row.ids)
        return Piece(fresh, ids, row.prompt, row.sample, row.reason)

    def _certain(self, text: str) -> int:
        processor = self.stops.processor
        end = len(text.rstrip(BROKEN))
        if processor is not None and processor.config.get("clean_up_tokenization_spaces") is True:
            end = min(end, max(len(text) - 4, 0))  # a space before the next character may still go
        for stop in self.stops.texts:  # the beginning of a stop text may come to be all of it
            for size in range(min(len(stop) - 1, len(text)), 0, -1):
                if text.endswith(stop[:size]):
                    end = min(end, len(text) - size)
                    break
        return end


def note_logprobs(rows: Sequence[Row], logits: Tensor, tokens: Sequence[int], alternatives: int) -> None:
    """Of (N, V) scores as the model gave them and the tokens that were chosen."""
    logs = logits.float().log_softmax(-1)
    chosen = [float(logs[i, token]) for i, token in enumerate(tokens)]
    best = logs.topk(alternatives) if alternatives else None
    for i, row in enumerate(rows):
        row.logprobs.append(chosen[i])
        if best is not None:
            row.alternatives.append(list(zip(best.indices[i].tolist(), best.values[i].tolist(), strict=True)))
