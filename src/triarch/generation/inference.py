"""A model that is fed tokens and gives the scores of the next ones; what it has seen stays in its cache.

Shapes: N rows, T tokens fed, S tokens seen, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from triarch.errors import InvalidInput
from triarch.family import EncoderDecoder, Network
from triarch.layers.cache import Cache
from triarch.layers.source import Source

CHUNK = 512  # tokens of a prompt whose scores of words are formed at once


class Steps(Protocol):
    """What a search needs of a model."""

    def start(self, copies: int) -> Tensor:
        """Read the prompts -> scores (N, V) of the next token, `copies` rows for each prompt."""

    def feed(self, tokens: Tensor) -> Tensor:
        """(N, T) tokens that follow -> scores (N, T, V), after each of them."""

    def select(self, rows: Tensor) -> None:
        """Go on with these rows, in this order."""

    def crop(self, length: int) -> None:
        """Forget the tokens from `length` on, counted as columns of the padded prompts and what was fed."""

    @property
    def length(self) -> int:
        """Tokens seen, padding included."""


@runtime_checkable
class Observed(Steps, Protocol):
    """Shows what the scores are read off, too."""

    def states(self) -> Tensor:
        """(N, T, D) of the tokens that were read last, N prompts or rows as they were then."""


@dataclass
class Prefix:
    """What a call leaves for the next one, whose prompt may begin alike: hand the same object to both."""

    ids: list[int] = field(default_factory=list)  # tokens in the cache
    cache: Cache | None = None
    model: Network | None = None  # that computed it
    prompt: int = 0  # tokens of the prompt with which it did
    reused: int = 0  # tokens of the last prompt that were not computed again


class Decoder:
    """A model on a batch of prompts, padded on the left: a decoder alone, or one that looks at a source of each."""

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
        self.model, self.sources = model, sources
        # (N, S) all that was seen, and where it is no padding
        self.tokens, self.mask = padded(prompts, next(model.parameters()).device, left=True)
        self.cache = Cache(room=room, sliding=sliding) if cache else None
        self.prompt = self.tokens.shape[1]
        self.begin = 0  # columns of the prompts that the cache holds already
        self.last: Tensor | None = None  # (N, T, D) features of the tokens read last
        self.source: Source | None = None  # what the encoder made of the sources, once it has read them
        if prefix is not None:
            self._go_on(prefix, prompts[0])

    def start(self, copies: int) -> Tensor:
        self.last = self._features(self.tokens[:, self.begin :])
        logits = self._words(self.last[:, -1])
        if copies > 1:
            self.select(torch.arange(len(self.tokens), device=logits.device).repeat_interleave(copies))
            logits = logits.repeat_interleave(copies, 0)
        return logits

    def prompt_logprobs(self) -> list[list[float]]:
        """Log-probability of each prompt's tokens but the first, of which nothing comes before. Reads the prompts."""
        x = self._features(self.tokens)
        found = []
        for begin in range(0, x.shape[1] - 1, CHUNK):  # the scores of all words at all places would not fit
            end = min(begin + CHUNK, x.shape[1] - 1)
            logs = self._words(x[:, begin:end]).float().log_softmax(-1)
            found.append(logs.gather(-1, self.tokens[:, begin + 1 : end + 1, None]).squeeze(-1))
        table = torch.cat(found, 1) if found else self.tokens.new_zeros(len(self.tokens), 0, dtype=torch.float32)
        sizes = [self.tokens.shape[1]] * len(self.tokens) if self.mask is None else self.mask.sum(1).tolist()
        return [
            row[len(row) - (size - 1) :].tolist() if size > 1 else [] for row, size in zip(table, sizes, strict=True)
        ]

    def feed(self, tokens: Tensor, real: Tensor | None = None) -> Tensor:
        """As `Steps` has it; `real` (N, T) is 0 where a row has fewer tokens than others."""
        if real is not None and self.mask is None:
            self.mask = torch.ones_like(self.tokens)
        self.tokens = torch.cat([self.tokens, tokens], 1)
        if self.mask is not None:
            self.mask = torch.cat([self.mask, torch.ones_like(tokens) if real is None else real], 1)
        x = self._features(self.tokens if self.cache is None else tokens)
        self.last = x[:, -tokens.shape[1] :]
        return self._words(self.last)

    def states(self) -> Tensor:
        assert self.last is not None
        return self.last

    def select(self, rows: Tensor) -> None:
        if len(rows) == len(self.tokens) and bool((rows == torch.arange(len(rows), device=rows.device)).all()):
            return
        self.tokens = self.tokens[rows]
        self.mask = None if self.mask is None else self.mask[rows]
        if self.cache is not None:
            self.cache.select(rows)
        if self.source is not None:
            self.source.select(rows)

    def branch(self, rows: Tensor) -> Decoder:
        """These rows, to go on with apart from this decoder, which stays where it is."""
        made = copy.copy(self)
        made.tokens = self.tokens[rows]
        made.mask = None if self.mask is None else self.mask[rows]
        made.cache = None if self.cache is None else self.cache.branch(rows)
        made.source = None if self.source is None else self.source.branch(rows)
        return made

    def crop(self, length: int) -> None:
        self.tokens = self.tokens[:, :length]
        self.mask = None if self.mask is None else self.mask[:, :length]
        if self.cache is not None:
            self.cache.crop(length)

    @property
    def length(self) -> int:
        return self.tokens.shape[1]

    def leave(self, prefix: Prefix) -> None:
        """Keep for the next call what was computed of the first row."""
        assert self.cache is not None
        if len(self.tokens) > 1:
            self.select(torch.zeros(1, dtype=torch.int64, device=self.tokens.device))
        prefix.ids, prefix.cache = self.tokens[0, : self.cache.length].tolist(), self.cache
        prefix.model, prefix.prompt = self.model, self.prompt

    def _go_on(self, prefix: Prefix, prompt: Sequence[int]) -> None:
        assert self.cache is not None
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

    def _features(self, tokens: Tensor) -> Tensor:
        if self.sources is None:
            return self.model.features(tokens, self.mask, cache=self.cache)
        assert isinstance(self.model, EncoderDecoder)
        if self.source is None:
            self.source = self.model.encode(*padded(self.sources, self.tokens.device, left=False))
        return self.model.decode(tokens, self.source, self.mask, cache=self.cache)

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
