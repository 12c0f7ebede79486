"""One call of `generate` or `stream`: what was given, checked, and what comes of it."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from triarch import limits
from triarch.errors import InvalidInput, LimitExceeded, Unsupported, show
from triarch.family import Network
from triarch.generation import beams, constrained, diverse, prompts
from triarch.generation import settings as given
from triarch.generation.contrastive import contrast
from triarch.generation.filters import Filter, SoFar, drawing, filters_of
from triarch.generation.guidance import guided
from triarch.generation.inference import Columns, Prefix, Scores
from triarch.generation.rows import Certain, Generated, Piece, Row, Stops
from triarch.generation.sampling import Draw, Search, likeliest, sample
from triarch.generation.settings import NEW_TOKENS, WRITES, Settings
from triarch.generation.speculation import Draft, Guess, Lookup, alike, check_draft, speculate
from triarch.generation.step import Batch, Request
from triarch.generation.structure import form_of
from triarch.inputs.text.targets import configured_start, target_start
from triarch.kinds import TargetWordScores

Cancelled = Callable[[], bool]


def generate(
    model: Network,
    inputs: Any,
    *,
    prefix: Prefix | None = None,
    cancelled: Cancelled | None = None,
    **options: Any,
) -> Any:
    """What the model writes after a prompt: a `Generated`, or a list of them with `num_return_sequences`.

    `inputs` is a text, ids, or a list of either, which gives a list; tensors (B, T) may come in a dict with their
    attention_mask, as `model.processor` makes them. `options` are those of `Settings`. `prefix` carries what was
    computed of one prompt over to the next call. `cancelled` is asked before each token whether to stop.

    Raises InvalidInput for options and ids that cannot be used, LimitExceeded for a prompt longer than the model or
    for more new tokens than fit after it, both before the model runs; NotFinite for scores that are not numbers.
    """
    return answers(model, inputs, given.make(model, options), prefix=prefix, cancelled=cancelled)


def answers(
    model: Network,
    inputs: Any,
    settings: Settings,
    *,
    prefix: Prefix | None = None,
    cancelled: Cancelled | None = None,
) -> Any:
    """As `generate`, by settings that were made before."""
    job = _Job(model, inputs, settings, prefix, cancelled)
    for _ in job.run():
        pass
    results = job.results()
    per_prompt = job.settings.num_return_sequences
    grouped = [results[i : i + per_prompt] for i in range(0, len(results), per_prompt)]
    found = [group[0] if per_prompt == 1 else group for group in grouped]
    return found[0] if job.single else found


def stream(
    model: Network,
    inputs: Any,
    *,
    prefix: Prefix | None = None,
    cancelled: Cancelled | None = None,
    **options: Any,
) -> Iterator[Piece]:
    """As `generate`, piece by piece: texts that later tokens cannot change, whose sum is the text of `generate`.

    Closing the iterator ends the work. Raises what `generate` raises, what is wrong with the call at once; and
    InvalidInput for beams, which are not decided before the end.
    """
    made: Settings = given.make(model, options)
    if made.num_beams > 1:
        raise InvalidInput("beams are decided at the end and cannot be streamed; leave num_beams out")
    job = _Job(model, inputs, made, prefix, cancelled)

    def pieces() -> Iterator[Piece]:
        certain = {id(row): Certain(one.stops) for one in job.requests for row in one.rows}
        for moved in job.run():
            for row in (row for one in moved for row in one.rows):
                if not (known := certain[id(row)]).ended:
                    yield known.piece(row)

    return pieces()


def requests_of(
    model: Network,
    inputs: Any,
    settings: Settings,
    *,
    prefix: Prefix | None = None,
    cancelled: Cancelled | None = None,
) -> list[Request]:
    """What a `Batch` is to write: a request for each prompt, checked as `generate` does."""
    return _Job(model, inputs, settings, prefix, cancelled).requests


class _Job:
    """One call: what was given, checked, and a request for each prompt."""

    def __init__(
        self,
        model: Network,
        inputs: Any,
        settings: Settings,
        prefix: Prefix | None,
        cancelled: Cancelled | None,
    ):
        if model.kind not in WRITES:
            raise Unsupported(f"{model.architecture} does not score next words; choose a checkpoint that generates")
        self.model, self.settings, self.prefix, self.cancelled = model, settings, prefix, cancelled
        self.prompts, self.single = prompts.read(model, inputs)
        self.sources: list[list[int]] | None = None  # of an encoder–decoder; its prompts are what targets begin with
        if model.kind is TargetWordScores:
            self.sources, self.prompts = self.prompts, [beginning(model, settings)] * len(self.prompts)
            self._check_sources()
        self.device = next(model.parameters()).device
        self.vocab: int = model.config.target_vocab_size
        self.ends = [] if settings.ignore_eos else _ends(model, settings)
        self.rows = self._rows()
        self.writer = None if model.processor is None else model.processor.target
        if settings.stop and self.writer is None:
            raise InvalidInput("stop texts need a tokenizer, which the checkpoint does not have; use eos_token_id")
        self.phrases = constrained.phrases_of(settings, self.ends, [rows[0].room for rows in self.rows], self.vocab)
        self.negative = self._negative_prompt()
        self._check_prefix()
        if settings.assistant_model is not None:
            check_draft(model, settings.assistant_model)
        self.requests = [self._request(number) for number in range(len(self.prompts))]

    def run(self) -> Iterator[list[Request]]:
        """The work: yields requests that got tokens. Raises what one of them fails with."""
        s, sliding = self.settings, self.prefix is None and not self.settings.speculative
        begun = time.monotonic()
        for one in self.requests:
            one.deadline = None if s.max_time is None else begun + s.max_time
        batch = Batch(self.model, cache=s.use_cache, room=s.cache_room, sliding=sliding)
        waiting = deque(self.requests)
        while waiting or batch.requests:
            while waiting and batch.takes(waiting[0]):
                batch.join(waiting.popleft())
            moved = batch.step()
            for one in moved:
                if one.error is not None:
                    raise one.error
            ended = next((row.reason for one in moved for row in one.rows if row.reason in ("time", "cancelled")), None)
            if ended is not None:
                for one in waiting:
                    one.end(ended)
                moved, waiting = [*moved, *waiting], deque()
            yield moved

    def results(self) -> list[Generated]:
        asked = self.settings.logprobs
        found = []
        for one, row in ((request, row) for request in self.requests for row in request.rows):
            assert row.reason is not None
            found.append(
                Generated(
                    row.ids,
                    one.stops.text(row),
                    row.reason,
                    prompt=row.prompt,
                    seed=row.seed,
                    score=row.score,
                    logprobs=None if asked is None else row.logprobs,
                    alternatives=row.alternatives if asked else None,
                    prompt_logprobs=one.prompt_logprobs,
                    guessed=row.guessed if self.settings.speculative else None,
                )
            )
        return found

    def _request(self, number: int) -> Request:
        s, prompt, rows = self.settings, self.prompts[number], self.rows[number]
        source = None if self.sources is None else self.sources[number]
        form = form_of(s, self.writer, self.ends, begins=source is not None and len(prompt) == 1)
        stops = Stops(self.ends, s, self.writer, prompt, form)
        limit = len(prompt) + rows[0].room
        read = None if source is None else torch.tensor([source], device=self.device)
        filters = filters_of(s, self.ends, limit, self.vocab, read)
        filters += [*([] if form is None else [form]), *drawing(s, self.ends)]
        so_far = SoFar(Columns(torch.tensor([prompt], device=self.device)), len(prompt), number)
        read_prompts, read_sources = [prompt], None if source is None else [source]
        search = self._search(rows, stops, filters, so_far, source)
        if s.guidance_scale != 1:
            avoided = self.negative or (source or prompt)[-1:]
            read_prompts = [prompt, avoided if source is None else prompt]
            read_sources = None if source is None else [source, avoided]
            search = partial(guided, search=search, scale=s.guidance_scale)
        return Request(
            read_prompts,
            read_sources,
            rows,
            stops,
            search,
            shares=not s.speculative,
            cancelled=self.cancelled,
            prefix=self.prefix,
            wants_prompt_logprobs=s.prompt_logprobs,
        )

    def _search(
        self, rows: list[Row], stops: Stops, filters: list[Filter], so_far: SoFar, source: list[int] | None
    ) -> Callable[[Scores], Search]:
        """The one that settings ask for, of one prompt."""
        s, row = self.settings, rows[0]
        draw = Draw(self.device)
        if s.num_beams > 1:
            found = partial(beams.search, rows=rows, so_far=so_far, settings=s)
            if self.phrases:
                forced = [constrained.ForcedBeams(row, s.num_beams, s, stops, self.phrases)]
                return partial(found, beams=forced, advance=partial(constrained.advance, filters=filters))
            if s.num_beam_groups > 1:
                size = s.num_beams // s.num_beam_groups
                groups = [diverse.Group(row, size, s, stops) for _ in range(s.num_beam_groups)]
                led = partial(diverse.advance, filters=filters, penalty=s.diversity_penalty)
                return partial(found, beams=groups, advance=led)
            pick = partial(beams.drawn, draw=draw) if s.sampled else beams.likeliest
            plain = partial(beams.advance, filters=filters, pick=pick)
            return partial(found, beams=[beams.Beams(row, s.num_beams, s, stops)], advance=plain)
        common: dict[str, Any] = {
            "so_far": so_far,
            "filters": filters,
            "stops": stops,
            "alternatives": s.logprobs,
        }
        if s.penalty_alpha is not None:
            return partial(contrast, row=row, alpha=s.penalty_alpha, top_k=min(s.top_k, self.vocab), **common)
        choose = draw if s.sampled else likeliest
        if not s.speculative:
            return partial(sample, rows=rows, choose=choose, **common)
        guess: Guess = Lookup(source or []) if s.assistant_model is None else Draft(s.assistant_model, filters, source)
        ahead = s.prompt_lookup_num_tokens or s.num_assistant_tokens
        return partial(speculate, row=row, choose=choose, guess=alike(guess, self.model), ahead=ahead, **common)

    def _check_sources(self) -> None:
        """Raises LimitExceeded for what the encoder does not take."""
        assert self.sources is not None
        most = self.model.config.max_tokens
        for number, source in enumerate(self.sources):
            if len(source) > most:
                raise LimitExceeded(
                    f"source {number} has {len(source):,} tokens, the model takes {most:,}; shorten it, or use a task "
                    "that reads long texts piece by piece"
                )

    def _negative_prompt(self) -> list[int] | None:
        """Its ids. Raises LimitExceeded where the model has no room for what is written after it."""
        s = self.settings
        if s.negative_prompt is None:
            return None
        ((negative,), _) = prompts.read(self.model, s.negative_prompt)
        if self.sources is not None and len(negative) > self.model.config.max_tokens:
            raise LimitExceeded(f"negative_prompt has {len(negative):,} tokens, more than the model takes; shorten it")
        if self.sources is not None:
            return negative
        most = max(rows[0].room for rows in self.rows)
        room = self.model.config.max_tokens if s.cache_room is None else s.cache_room + 1
        if len(negative) + most > room:
            raise LimitExceeded(
                f"negative_prompt has {len(negative):,} tokens and {most:,} are to follow, there is room for {room:,}; "
                "shorten it, or lower max_new_tokens"
            )
        return negative

    def _check_prefix(self) -> None:
        if self.prefix is None:
            return
        if self.sources is not None:
            raise InvalidInput("a prefix is of a model without an encoder; leave it out")
        if len(self.prompts) > 1 or not self.settings.use_cache:
            raise InvalidInput("a prefix serves one prompt, with a cache; give them one by one")
        if self.settings.guidance_scale != 1:
            raise InvalidInput("guidance reads two prompts, a prefix holds one; leave out prefix or guidance_scale")
        if self.settings.penalty_alpha is not None:
            raise InvalidInput(
                "penalty_alpha needs hidden states of the whole prompt, a Prefix keeps only keys and values: drop one"
            )

    def _rows(self) -> list[list[Row]]:
        """What each sequence of each prompt may have. Raises LimitExceeded for what does not fit into the model."""
        s, context = self.settings, self.model.config.max_target_tokens
        if s.sampled and s.num_beams > 1 and (drawn := s.num_beams * self.vocab) > limits.DRAWN:
            raise LimitExceeded(f"{s.num_beams} beams draw from {drawn:,} tokens, over {limits.DRAWN:,}; take fewer")
        count = len(self.prompts) * s.rows
        if count > limits.ROWS:
            raise LimitExceeded(f"{count:,} sequences at once, over {limits.ROWS:,}; give fewer prompts at a time")
        seeds = _seeds(s, len(self.prompts))
        rows = []
        for number, prompt in enumerate(self.prompts):
            room = context - len(prompt)
            if room < 1:
                raise LimitExceeded(
                    f"prompt {number} has {len(prompt):,} tokens, the model takes {context:,} with what it generates; "
                    "shorten it"
                )
            wanted = s.max_new_tokens
            if wanted is None and s.max_length is not None:
                wanted = s.max_length - len(prompt)
                if wanted < 1:
                    raise LimitExceeded(
                        f"prompt {number} has {len(prompt):,} tokens and max_length is {s.max_length:,}; raise it, or "
                        "use max_new_tokens"
                    )
            if wanted is not None and wanted > room:
                raise LimitExceeded(
                    f"prompt {number} has {len(prompt):,} tokens and {wanted:,} are to follow, the model takes "
                    f"{context:,} together; ask for at most {room:,}"
                )
            most = min(NEW_TOKENS, room) if wanted is None else wanted
            fed = len(prompt) + most - (s.penalty_alpha is None)  # the last token is, where it is chosen by that
            if s.cache_room is not None and fed > s.cache_room:
                raise LimitExceeded(f"prompt {number} takes {fed:,} tokens of cache, cache_room is {s.cache_room:,}")
            rows.append(
                [
                    Row(number, i, most, seed=seeds[number * s.num_return_sequences + i] if seeds else None)
                    for i in range(s.num_return_sequences)
                ]
            )
        return rows


def _seeds(s: Settings, count: int) -> list[int]:
    """A seed for each sequence, such that a prompt of a batch draws what it would draw alone."""
    if not s.sampled:
        return []
    per_prompt = 1 if s.num_beams > 1 else s.num_return_sequences  # the beams of a prompt are drawn together
    if isinstance(s.seed, list | tuple):
        if len(s.seed) != count * per_prompt:
            raise InvalidInput(f"{len(s.seed)} seeds, wanted {count * per_prompt}; give {per_prompt} for each prompt")
        seeds = list(s.seed)
    else:
        first = [secrets.randbits(62) for _ in range(count)] if s.seed is None else [s.seed] * count
        seeds = [(seed + i) % limits.SEED for seed in first for i in range(per_prompt)]
    return [seed for seed in seeds for _ in range(s.num_return_sequences // per_prompt)]


def _ends(model: Network, s: Settings) -> list[int]:
    """The tokens that end a sequence: as asked, else the config's, else the tokenizer's."""
    ends: Any = s.eos_token_id
    if ends is None:
        ends = model.config.to_hf().get("eos_token_id")
    if ends is None and model.processor is not None:
        ends = model.processor.target.id("eos_token")
    listed = [] if ends is None else list(ends) if isinstance(ends, list | tuple) else [ends]
    for token in listed:
        if type(token) is not int or not 0 <= token < model.config.target_vocab_size:
            raise InvalidInput(f"eos_token_id is {show(repr(token))}, wanted 0 to {model.config.target_vocab_size - 1}")
    return listed


def beginning(model: Network, s: Settings) -> list[int]:
    """The ids that every target of an encoder–decoder begins with. Raises what `target_start` raises."""
    start = s.decoder_start_token_id
    start = configured_start(model.config.to_hf()) if start is None else start
    return target_start(start, model.config.target_vocab_size, s.decoder_input_ids or [])
