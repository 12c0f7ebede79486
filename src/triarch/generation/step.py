"""Requests that write side by side: each asks for scores of its rows, and one forward pass gives them to all that ask.

    batch = Batch(model)
    batch.join(request)  # at any time; a request gets the same tokens whatever the others are
    while batch.requests:
        for request in batch.step():
            ...          # it got tokens, or came to its end: request.rows, request.error

Shapes: N rows of all requests, T tokens fed, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from triarch.family import Network
from triarch.generation.inference import Ask, Decoder, Prefix, Scores
from triarch.generation.rows import Row, Stops
from triarch.generation.sampling import Search


@dataclass(eq=False)
class Request:
    """One prompt, and all that writing after it takes. What goes wrong with it, or ends it, concerns no other."""

    prompts: list[list[int]]  # one, and with guidance the one that is to be avoided
    sources: list[list[int]] | None  # theirs, of an encoder–decoder
    rows: list[Row]
    stops: Stops
    search: Callable[[Scores], Search]  # from the scores after the prompts on
    shares: bool = True  # others may be in the same batch; not where it feeds several tokens and forgets some
    seconds: float | None = None  # that it may take from when it joins
    cancelled: Callable[[], bool] | None = None  # asked after each token whether to stop
    prefix: Prefix | None = None
    prompt_logprobs: list[float] | None = None
    wants_prompt_logprobs: bool = False
    error: Exception | None = None  # what it failed with
    deadline: float | None = None
    ask: Ask | None = None
    count: int = 0  # rows that the batch has of it
    _running: Search | None = None

    def hand(self, scores: Scores) -> None:
        """Go on with what was asked for, to the next ask or the end."""
        try:
            if self._running is None:
                self._running = self.search(scores)
                self.ask = next(self._running, None)
            else:
                self.ask = self._running.send(scores)
        except StopIteration:
            self.ask = None
            self._end_early()
        except Exception as error:  # of a filter or a stop, or of scores that are no numbers
            self.fail(error)
        else:
            self._end_early()

    def fail(self, error: Exception) -> None:
        self.error, self.ask = error, None

    def _end_early(self) -> None:
        if not any(row.ids for row in self.rows):
            return  # contrastive search has read its candidates, and chosen none
        try:
            late = self.deadline is not None and time.monotonic() > self.deadline
            if late or (self.cancelled is not None and self.cancelled()):
                self.end("time" if late else "cancelled")
        except Exception as error:
            self.fail(error)

    def end(self, reason: str) -> None:
        self.ask = None
        for row in self.rows:
            row.reason = row.reason or reason  # type: ignore[assignment]


class Batch:
    """Requests to one model that share its forward passes, and come and go between them."""

    def __init__(self, model: Network, *, cache: bool = True, room: int | None = None, sliding: bool = True):
        """`sliding`: a cache forgets what no window sees any more; not where a request has a prefix, or forgets."""
        self.model, self.cache, self.room, self.sliding = model, cache, room, sliding
        self.running: list[Request] = []
        self.waiting: list[Request] = []
        self.decoder: Decoder | None = None  # of the rows of those that run, in their order

    @property
    def requests(self) -> list[Request]:
        return [*(one for one in self.running if one.ask is not None), *self.waiting]

    def takes(self, request: Request) -> bool:
        """Whether it may join now."""
        return not self.requests or (request.shares and all(one.shares for one in self.requests))

    def join(self, request: Request) -> None:
        """Its prompt is read in the next step."""
        assert self.takes(request), "a request that forgets tokens has a batch of its own"
        if request.deadline is None and request.seconds is not None:
            request.deadline = time.monotonic() + request.seconds
        self.waiting.append(request)

    def leave(self, request: Request) -> None:
        """It ends as it is."""
        request.ask = None
        self.waiting = [one for one in self.waiting if one is not request]

    @torch.inference_mode()
    def step(self) -> list[Request]:
        """One forward pass for those that run, and one over the prompts of those that have joined since. Returns those
        that went on or came to their end."""
        running = [one for one in self.running if one.ask is not None]
        if running:
            self._feed(running)
        else:
            self.decoder = None
        fresh, self.waiting = self.waiting, []
        # A prompt that goes on from a prefix is read alone
        for group in (
            [one for one in fresh if one.prefix is None],
            *([one] for one in fresh if one.prefix is not None),
        ):
            if group:
                self._read(group)
        self.running = [*running, *fresh]
        return self.running

    def _feed(self, running: list[Request]) -> None:
        assert self.decoder is not None
        decoder, begin, rows, tokens = self.decoder, 0, list[int](), list[list[int]]()
        for one in self.running:
            if one.ask is not None:
                rows += [begin + row for row in one.ask.rows]
                tokens += one.ask.tokens
            begin += one.count
        (forget,) = {one.ask.forget for one in running if one.ask is not None}
        if forget:
            decoder.crop(decoder.length - forget)
        decoder.select(rows)
        logits = decoder.feed(torch.tensor(tokens, device=decoder.tokens.device))
        for one in running:
            assert one.ask is not None
            one.count = len(one.ask.rows)
        self._hand(running, Scores(logits, decoder.last), [0] * len(rows))

    def _read(self, fresh: list[Request]) -> None:
        prompts = [prompt for one in fresh for prompt in one.prompts]
        sources = [source for one in fresh for source in one.sources or []] or None
        if any(one.wants_prompt_logprobs for one in fresh):
            found = iter(Decoder(self.model, prompts, sources=sources, cache=False).prompt_logprobs())
            for one in fresh:
                one.prompt_logprobs, *_ = [next(found) for _ in one.prompts]
        decoder = Decoder(
            self.model,
            prompts,
            sources=sources,
            cache=self.cache,
            room=self.room,
            sliding=self.sliding,
            prefix=fresh[0].prefix,
        )
        logits = decoder.start()[:, None]
        for one in fresh:
            one.count = len(one.prompts)
        before, self.decoder = self.decoder, decoder
        self._hand(fresh, Scores(logits, decoder.last), decoder.padding)
        if before is not None:
            before.join(decoder)
            self.decoder = before

    def _hand(self, requests: Sequence[Request], scores: Scores, padding: Sequence[int]) -> None:
        begin = 0
        for one in requests:
            one.hand(scores.of(begin, begin + one.count, padding[begin]))
            if one.ask is None and one.error is None and one.prefix is not None:
                assert self.decoder is not None
                self.decoder.leave(one.prefix, begin)
            begin += one.count
