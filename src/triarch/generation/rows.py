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
RECENT = 8  # tokens at the end whose text a later one may still change
BYTE = "<0x"  # how tokens of SentencePiece begin that are a byte: a run of them is text if all of it is
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
    texts: list[Growing] = field(default_factory=list)  # that of the new tokens, and that with special tokens


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


class Growing:
    """The text of a sequence to which tokens are added. Each is decoded a few times, in the company of those around it,
    however long the sequence has become.

    What the last tokens spell is the text of a window of tokens, without that of the first of them, which are there
    because decoders spell a token by what stands before it.
    """

    def __init__(self, processor: TextProcessor, before: Sequence[int], skip: bool, clean: bool):
        """`before`: the tokens before the new ones, of which the text is no part."""
        self.processor, self.skip, self.clean = processor, skip, clean
        self.left_out = processor.special_ids if skip else frozenset[int]()
        self.window = [token for token in before[-BEFORE:] if token not in self.left_out]
        self.inside = len(self._decoded(self.window).rstrip(BROKEN))  # characters of the window that are not its text
        self.done = ""  # the text before the window
        self.count = 0  # new tokens read
        self.text = ""  # of the window

    def __copy__(self) -> Growing:
        made = object.__new__(Growing)
        made.__dict__ |= self.__dict__
        made.window = list(self.window)
        return made

    def __len__(self) -> int:
        """Characters."""
        return len(self.done) + len(self.text)

    def read(self, ids: Sequence[int]) -> int:
        """Take in what the sequence has become; returns the character from which on the text may have changed."""
        begin = len(self.done)
        for token in ids[self.count :]:
            if token in self.left_out:
                continue
            self.window.append(token)
            if len(self.window) >= 3 * RECENT and len(self.window) % RECENT == 0:
                self._move()
        if len(ids) > self.count:
            self.count = len(ids)
            self.text = self._decoded(self.window)[self.inside :]
        return begin

    def since(self, place: int) -> str:
        """The text from this character on."""
        return self.done[place:] + self.text if place < len(self.done) else self.text[place - len(self.done) :]

    @property
    def settled(self) -> int:
        """How many characters no later token changes. Bytes of SentencePiece are text if all that stand together are:
        what they spell is known once another token follows."""
        tokens = self.processor.tokens(self.window)
        run = next((i for i, token in enumerate(reversed(tokens)) if not token.startswith(BYTE)), len(tokens))
        text = self._decoded(self.window[:-run])[self.inside :] if run else self.text
        return len(self.done) + len(text.rstrip(BROKEN))

    def _decoded(self, ids: Sequence[int]) -> str:
        return self.processor.decode(ids, self.skip, clean_up=self.clean)

    def _move(self) -> None:
        """Let the window begin later, if there is a place in it at which the text is cut by tokens: what follows is
        then spelled alike with more tokens or fewer before it."""
        whole, tokens = self._decoded(self.window), self.processor.tokens(self.window)
        for place in range(len(self.window) - RECENT, len(self.window) - 2 * RECENT, -1):
            if tokens[place - 1].startswith(BYTE) and tokens[place].startswith(BYTE):
                continue
            before, begin = self._decoded(self.window[:place]), place - RECENT
            inside = len(self._decoded(self.window[begin:place]))
            if whole.startswith(before) and whole[len(before) :] == self._decoded(self.window[begin:])[inside:]:
                self.done += before[self.inside :]
                self.inside = inside - max(0, self.inside - len(before))
                self.window = self.window[begin:]
                return


class Stops:
    """What ends a sequence: its tokens, its text, its length; or its form, where no token could say that it ends."""

    def __init__(
        self,
        ends: Sequence[int],
        settings: Settings,
        processor: TextProcessor | None,
        prompt: Sequence[int],
        form: Form | None = None,
    ):
        self.prompt = prompt
        self.ends, self.texts, self.include = frozenset(ends), list(settings.stop), settings.include_stop
        self.longest = max(map(len, self.texts), default=0)
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

    def growing(self, skip: bool | None = None) -> Growing:
        """The text of a row that has no tokens yet: what these add to the text of those before them, as alone the first
        would lose the space before it."""
        assert self.processor is not None
        return Growing(self.processor, self.prompt, self.skip if skip is None else skip, self.clean)

    def text(self, row: Row) -> str:
        if self.processor is None:
            return ""
        growing = self.growing()
        growing.read(row.ids)
        return growing.since(0) if row.cut is None else growing.since(0)[: row.cut]

    def _found(self, row: Row) -> int | None:
        """Where the text ends if it holds a stop text, which may be that of a special token."""
        if not row.texts:
            row.texts += [self.growing(), *([self.growing(False)] if self.skip else [])]
        for number, growing in enumerate(row.texts):
            begin = max(growing.read(row.ids) - self.longest, 0)
            fresh = growing.since(begin)
            places = [(begin + at, len(stop)) for stop in self.texts if (at := fresh.find(stop)) >= 0]
            if places and number == 0:
                at, size = min(places)
                return at + (size if self.include else 0)
            if places:
                return len(row.texts[0])
        return None


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
        self.text = None if stops.processor is None else stops.growing()
        self.shown = 0  # characters given
        self.tokens = 0
        self.ended = False

    def piece(self, row: Row) -> Piece:
        fresh, ids = "", row.ids[self.tokens :]
        if self.text is not None:
            self.text.read(row.ids)
            fresh = self.text.since(self.shown)
            if row.reason is None:
                fresh = fresh[: min(self._certain(fresh), max(self.text.settled - self.shown, 0))]
            elif row.cut is not None:
                fresh = fresh[: max(row.cut - self.shown, 0)]
        self.shown, self.tokens, self.ended = self.shown + len(fresh), len(row.ids), row.reason is not None
        return Piece(fresh, ids, row.prompt, row.sample, row.reason)

    def _certain(self, text: str) -> int:
        """How many of these characters, which are not given yet."""
        processor = self.stops.processor
        end = len(text)
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
