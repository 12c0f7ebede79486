"""The rows that a model goes on with: what it has read of each, and the scores of what may follow.

Shapes: N rows, T tokens fed, S columns seen, V vocabulary, D hidden size.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from triarch.errors import InvalidInput, TriarchError
from triarch.family import EncoderDecoder, Network
from triarch.layers.cache import Cache
from triarch.layers.source import Source

CHUNK = 512  # tokens of a prompt whose scores of words are formed at once


class NotFinite(TriarchError):
    """The model's own scores are NaN or infinite: what would be chosen from them is arbitrary."""

    def __init__(self) -> None:
        super().__init__(
            "the model gave scores that are not finite; load it with dtype='float32', or check its weights"
        )


class Columns:
    """(N, S) ids that grow by columns; room for them doubles, so that a column moves none of those before it."""

    def __init__(self, ids: Tensor):
        self.ids = self._stored = ids

    def add(self, ids: Tensor) -> None:
        begin, end = self.ids.shape[1], self.ids.shape[1] + ids.shape[1]
        if end > self._stored.shape[1]:
            stored = ids.new_empty(len(ids), 2 * end)
            stored[:, :begin] = self.ids
            self._stored = stored
        self._stored[:, begin:end] = ids
        self.ids = self._stored[:, :end]


class Scores:
    """What a search is handed: of each row, the scores of the next token after each of the tokens that it fed."""

    def __init__(self, logits: Tensor, states: Tensor | None = None):
        """`logits` (N, T, V); `states` (N, S, D): what the scores are read off, of all tokens of a prompt."""
        self.logits, self.states = logits, states
        self.finite: list[list[bool]] = logits.isfinite().all(-1).tolist()
        self.best: list[list[int]] = logits.argmax(-1).tolist()

    def of(self, begin: int, end: int, padding: int = 0) -> Scores:
        """Those of some of the rows."""
        made = copy.copy(self)
        made.logits, made.finite, made.best = self.logits[begin:end], self.finite[begin:end], self.best[begin:end]
        made.states = None if self.states is None else self.states[begin:end, padding:]
        return made

    def after(self, place: int = 0) -> Tensor:
        """(N, V) after the fed token of that number. Raises NotFinite."""
        if not all(row[place] for row in self.finite):
            raise NotFinite
        return self.logits[:, place]


@dataclass(frozen=True)
class Ask:
    """What a search asks for: the scores after more tokens of its rows."""

    rows: list[int]  # the rows that it goes on with, as numbers of those that it had: some may occur again, or not
    tokens: list[list[int]]  # what each of them is fed
    forget: int = 0  # tokens to be forgotten before, of those fed last


@dataclass
class Prefix:
    """What a call leaves for the next one, whose prompt may begin alike: hand the same object to both."""

    ids: list[int] = field(default_factory=list)  # tokens in the cache
    cache: Cache | None = None
    model: Network | None = None  # that computed it
    prompt: int = 0  # tokens of the prompt with which it did
    reused: int = 0  # tokens of the last prompt that were not computed again


class Decoder:
    """A model on rows that are padded on the left: a decoder alone, or one that looks at a source of each."""

    def __init__(
        self,
        model: Network,
        prompts: Sequence[Sequence[int]],
        *,
        sources: Sequence[Sequence[int]] | None = None,
        cache: bool = True,
        room: int | None = None,
        sliding: bool = True,
        prefix: Prefix | None = None,
    ):
        self.model, self.sources, self.cached = model, sources, cache
        tokens, mask = padded(prompts, next(model.parameters()).device, left=True)
        self.columns = Columns(tokens)  # all that was seen
        padding = None if mask is None else (mask == 0).sum(1)
        self.cache = Cache(room=room, sliding=sliding and cache, padding=padding)
        self.prompt = tokens.shape[1]
        self.begin = 0  # columns of the prompts that the cache holds already
        self.last: Tensor | None = None  # (N, T, D) features of the tokens read last
        self.source: Source | None = None  # what the encoder made of the sources, once it has read them
        if prefix is not None:
            self._go_on(prefix, prompts[0])

    @property
    def tokens(self) -> Tensor:
        return self.columns.ids

    @property
    def length(self) -> int:
        """Columns seen."""
        return self.tokens.shape[1]

    @property
    def padding(self) -> list[int]:
        """Of each row."""
        return [0] * len(self.tokens) if self.cache.padding is None else self.cache.padding.tolist()

    def start(self) -> Tensor:
        """Read the prompts -> scores (N, V) of the next token."""
        self.last = self._features(self.tokens[:, self.begin :])
        return self._words(self.last[:, -1])

    def prompt_logprobs(self) -> list[list[float]]:
        """Log-probability of each prompt's tokens but the first, of which nothing comes before. Reads the prompts."""
        x = self._features(self.tokens)
        found = []
        for begin in range(0, x.shape[1] - 1, CHUNK):  # the scores of all words at all places would not fit
            end = min(begin + CHUNK, x.shape[1] - 1)
            logs = self._words(x[:, begin:end]).float().log_softmax(-1)
            found.append(logs.gather(-1, self.tokens[:, begin + 1 : end + 1, None]).squeeze(-1))
        table = torch.cat(found, 1) if found else self.tokens.new_zeros(len(self.tokens), 0, dtype=torch.float32)
        return [row[padding:] for row, padding in zip(table.tolist(), self.padding, strict=True)]

    def feed(self, tokens: Tensor, real: Tensor | None = None) -> Tensor:
        """(N, T) tokens that follow -> scores (N, T, V), after each of them.

        `real` (N, T) is 0 where a row has fewer tokens than others; then nothing can be fed after them.
        """
        self.columns.add(tokens)
        mask = None if real is None else torch.cat([self._mask(self.length - real.shape[1]), real], 1)
        x = self._features(tokens if self.cached else self.tokens, mask)
        self.last = x[:, -tokens.shape[1] :]
        return self._words(self.last)

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order."""
        if [*rows] == [*range(len(self.tokens))]:
            return
        kept = torch.tensor(rows, dtype=torch.int64, device=self.tokens.device)
        cut = self.cache.select(kept)
        self.columns = Columns(self.tokens[kept, cut:])
        if self.source is not None:
            self.source.select(kept)

    def branch(self, rows: Sequence[int]) -> Decoder:
        """These rows, to go on with apart from this decoder, which stays where it is."""
        made, kept = copy.copy(self), self.tokens.new_tensor(rows)
        made.cache = self.cache.branch(kept)
        made.columns = Columns(self.tokens[kept, min(self.padding[row] for row in rows) :])
        if self.source is not None:
            made.source = copy.copy(self.source)
            made.source.select(kept)
        return made

    def join(self, other: Decoder) -> None:
        """Go on with the rows of another decoder, too, which come behind these. The other one is used up."""
        width = max(self.length, other.length)
        tables = [torch.nn.functional.pad(one.tokens, (width - one.length, 0)) for one in (self, other)]
        padding = [width - one.length + place for one in (self, other) for place in one.padding]
        self.columns = Columns(torch.cat(tables))
        self.cache.join(other.cache, self.tokens.new_tensor(padding))
        if self.source is not None and other.source is not None:
            self.source.join(other.source)

    def crop(self, length: int) -> None:
        """Forget the columns from `length` on."""
        self.columns = Columns(self.tokens[:, :length])
        self.cache.crop(length)

    def leave(self, prefix: Prefix, row: int) -> None:
        """Keep for the next call what was computed of a row."""
        one = self.branch([row])
        prefix.ids, prefix.cache = one.tokens[0, : one.cache.length].tolist(), one.cache
        prefix.model, prefix.prompt = self.model, self.prompt

    def _go_on(self, prefix: Prefix, prompt: Sequence[int]) -> None:
        assert not self.cache.sliding
        if prefix.model not in (None, self.model):
            raise InvalidInput("the prefix was computed by another model; begin one for this model with Prefix()")
        if prefix.cache is not None and prefix.cache.room != self.cache.room:
            raise InvalidInput(
                f"cache_room is {self.cache.room}, that of the prefix {prefix.cache.room}; use one for both, or begin "
                "another with Prefix()"
            )
        common = 0
        if self.model.reads_as(prefix.prompt) == self.model.reads_as(len(prompt)):
            for ours, theirs in zip(prompt[:-1], prefix.ids, strict=False):  # one token is left to be fed
                if ours != theirs:
                    break
                common += 1
        prefix.reused = common if prefix.cache is not None else 0
        if prefix.cache is not None:
            prefix.cache.crop(common)
            self.cache, self.begin = prefix.cache, common
        prefix.ids, prefix.cache = [], None  # until `leave`: a call that fails leaves nothing half done

    def _mask(self, columns: int) -> Tensor:
        """(N, S) 1 for tokens, 0 for padding."""
        index = torch.arange(columns, device=self.tokens.device)
        return (index >= self.tokens.new_tensor(self.padding)[:, None]).long()

    def _features(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        cache = self.cache if self.cached else None
        if cache is None and mask is None and self.cache.padding is not None:
            mask = self._mask(self.length)
        if self.sources is None:
            return self.model.features(tokens, mask, cache=cache)
        assert isinstance(self.model, EncoderDecoder)
        if self.source is None:
            self.source = self.model.encode(*padded(self.sources, self.tokens.device, left=False))
        return self.model.decode(tokens, self.source, mask, cache=cache)

    def _words(self, x: Tensor) -> Tensor:
        logits: Any = self.model.scores(x).logits
        return logits


def padded(texts: Sequence[Sequence[int]], device: torch.device, *, left: bool) -> tuple[Tensor, Tensor | None]:
    """Ids as a table (N, S), and 1 where they are no padding; None if nothing is."""
    width = max(map(len, texts))

    def table(rows: Sequence[list[int]]) -> Tensor:
        filled = [[0] * (width - len(row)) + row if left else row + [0] * (width - len(row)) for row in rows]
        return torch.tensor(filled, dtype=torch.int64, device=device)

    if all(len(text) == width for text in texts):
        return table([list(text) for text in texts]), None
    return table([list(text) for text in texts]), table([[1] * len(text) for text in texts])
