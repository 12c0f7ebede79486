"""One call of `generate` or `stream`: what was given, checked, and what comes of it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from triarch import limits
from triarch.errors import InvalidInput, LimitExceeded, Unsupported, show
from triarch.family import Network
from triarch.generation import beams, constrained, diverse, prompts
from triarch.generation import settings as given
from triarch.generation.contrastive import contrast
from triarch.generation.filters import NONE, Filter, SoFar, drawing, filters_of
from triarch.generation.guidance import Guided
from triarch.generation.inference import Decoder, Observed, Prefix, Steps
from triarch.generation.rows import Certain, Generated, Piece, Row, Stops
from triarch.generation.sampling import Choose, Draw, likeliest, sample
from triarch.generation.settings import NEW_TOKENS, WRITES, Settings
from triarch.generation.speculation import Draft, Guess, Lookup, alike, check_draft, speculate
from triarch.generation.structure import form_of
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
    job = _Job(model, inputs, settings, prefix)
    for _ in job.run(cancelled):
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
    job = _Job(model, inputs, made, prefix)

    def pieces() -> Iterator[Piece]:
        certain = [Certain(job.stops) for _ in job.rows]
        numbers = {id(row): i for i, row in enumerate(job.rows)}
        for rows in job.run(cancelled):
            for row in rows:
                yield certain[numbers[id(row)]].piece(row)

    return pieces()


class _Job:
    """One call: what was given, checked, and what has come of it."""

    def __init__(self, model: Network, inputs: Any, settings: Settings, prefix: Prefix | None):
        if model.kind not in WRITES:
            raise Unsupported(f"{model.architecture} does not score next words; choose a checkpoint that generates")
        self.model, self.settings, self.prefix = model, settings, prefix
        self.prompts, self.single = prompts.read(model, inputs)
        self.sources: list[list[int]] | None = None  # of an encoder–decoder; its prompts are what targets begin with
        if model.kind is TargetWordScores:
            self.sources, self.prompts = self.prompts, [beginning(model, settings)] * len(self.prompts)
            self._check_sources()
        self.vocab: int = model.config.target_vocab_size
        self.ends = [] if settings.ignore_eos else _ends(model, settings)
        self.rows = self._rows()
        writer = None if model.processor is None else model.processor.target
        if settings.stop and writer is None:
            raise InvalidInput("stop texts need a tokenizer, which the checkpoint does not have; use eos_token_id")
        self.form = form_of(settings, writer, self.ends, begins=self.sources is not None and len(self.prompts[0]) == 1)
        self.stops = Stops(self.ends, settings, writer, self.prompts, self.form)
        self.prompt_logprobs: list[list[float]] | None = None
        self.filters = self._filters()
        rooms = {row.prompt: row.room for row in self.rows}
        self.phrases = constrained.phrases_of(settings, self.ends, list(rooms.values()), self.vocab)
        self.negative = self._negative_prompt()
        self._check_prefix()
        if settings.assistant_model is not None:
            check_draft(model, settings.assistant_model)
        self.steps = self._steps([0] if settings.speculative else range(len(self.prompts)))

    def run(self, cancelled: Cancelled | None) -> Iterator[list[Row]]:
        """The work: yields rows that got tokens."""
        begin = time.monotonic()
        with torch.inference_mode():
            if self.settings.prompt_logprobs:
                read = Decoder(self.model, self.prompts, sources=self.sources, cache=False)
                self.prompt_logprobs = read.prompt_logprobs()
            search = self._search()
        while True:
            with torch.inference_mode():  # not around the yield: it would hold for the caller too
                rows = next(search, None)
            if rows is None:
                break
            late = self.settings.max_time is not None and time.monotonic() - begin > self.settings.max_time
            if late or (cancelled is not None and cancelled()):
                last = [row for row in self.rows if row.reason is None or any(row is one for one in rows)]
                for row in last:
                    row.reason = row.reason or ("time" if late else "cancelled")
                yield last
                break
            yield rows
        if self.prefix is not None and isinstance(self.steps, Decoder):
            self.steps.leave(self.prefix)

    def results(self) -> list[Generated]:
        asked = self.settings.logprobs
        found = []
        for row in self.rows:
            assert row.reason is not None
            found.append(
                Generated(
                    row.ids,
                    self.stops.text(row),
                    row.reason,
                    prompt=row.prompt,
                    seed=row.seed,
                    score=row.score,
                    logprobs=None if asked is None else row.logprobs,
                    alternatives=row.alternatives if asked else None,
                    prompt_logprobs=None if self.prompt_logprobs is None else self.prompt_logprobs[row.prompt],
                    guessed=row.guessed if self.settings.speculative else None,
                )
            )
        return found

    def _search(self) -> Iterator[list[Row]]:
        s = self.settings
        if s.num_beams > 1:
            return self._beams()
        if s.penalty_alpha is not None:
            return self._contrast()
        choose = Draw(next(self.model.parameters()).device) if s.sampled else likeliest
        if s.speculative:
            return self._guessing(choose)
        return sample(
            self.steps,
            list(self.rows),
            self._so_far(range(len(self.prompts)), s.num_return_sequences),
            filters=self.filters,
            choose=choose,
            stops=self.stops,
            copies=s.num_return_sequences,
            alternatives=s.logprobs,
        )

    def _beams(self) -> Iterator[list[Row]]:
        s = self.settings
        firsts = self.rows[:: s.num_return_sequences]
        so_far = self._so_far(range(len(self.prompts)), s.num_beams)
        found = partial(beams.search, self.steps, self.rows, so_far, settings=s)
        if self.phrases:
            forced = [constrained.ForcedBeams(row, s.num_beams, s, self.stops, self.phrases) for row in firsts]
            return found(forced, advance=partial(constrained.advance, filters=self.filters))
        if s.num_beam_groups > 1:
            size, numbers = s.num_beams // s.num_beam_groups, range(s.num_beam_groups)
            groups = [diverse.Group(row, size, s, self.stops, number) for row in firsts for number in numbers]
            return found(groups, advance=partial(diverse.advance, filters=self.filters, penalty=s.diversity_penalty))
        sets = [beams.Beams(row, s.num_beams, s, self.stops) for row in firsts]
        device = next(self.model.parameters()).device
        pick = partial(beams.drawn, draw=Draw(device)) if s.sampled else beams.likeliest
        return found(sets, advance=partial(beams.advance, filters=self.filters, pick=pick))

    def _contrast(self) -> Iterator[list[Row]]:
        s = self.settings
        assert isinstance(self.steps, Observed)
        assert s.penalty_alpha is not None
        return contrast(
            self.steps,
            list(self.rows),
            self._so_far(range(len(self.prompts)), 1),
            filters=self.filters,
            stops=self.stops,
            alpha=s.penalty_alpha,
            top_k=min(s.top_k, self.vocab),
            alternatives=s.logprobs,
        )

    def _guessing(self, choose: Choose) -> Iterator[list[Row]]:
        """One prompt after the other."""
        s = self.settings
        for row in self.rows:
            if row.prompt:
                self.steps = self._steps([row.prompt])
            yield from speculate(
                self.steps,
                row,
                self._so_far([row.prompt], 1),
                guess=self._guess(row.prompt),
                ahead=s.prompt_lookup_num_tokens or s.num_assistant_tokens,
                filters=self.filters,
                choose=choose,
                stops=self.stops,
                alternatives=s.logprobs,
            )

    def _guess(self, number: int) -> Guess:
        source = None if self.sources is None else self.sources[number]
        if self.settings.assistant_model is None:
            return alike(Lookup(source or []), self.model)
        return alike(Draft(self.settings.assistant_model, self.filters, source), self.model)

    def _steps(self, numbers: Sequence[int]) -> Steps:
        """The model on the prompts of these numbers."""
        s = self.settings
        asked = [self.prompts[number] for number in numbers]
        sources = None if self.sources is None else [self.sources[number] for number in numbers]
        sliding = self.prefix is None and not s.speculative  # else it goes back to what it may have forgotten
        decoder = partial(Decoder, self.model, cache=s.use_cache, room=s.cache_room, sliding=sliding)
        steps = decoder(asked, sources=sources, prefix=self.prefix)
        if s.guidance_scale == 1:
            return steps
        avoided = [self.negative or text[-1:] for text in sources or asked]
        others = decoder(avoided) if sources is None else decoder(asked, sources=avoided)
        return Guided(steps, others, s.guidance_scale)

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
        most = max(row.room for row in self.rows)
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
                "penalty_alpha compares with all of the prompt, of which a prefix holds a part; choose one"
            )

    def _filters(self) -> list[Filter]:
        device = next(self.model.parameters()).device
        rooms = {row.prompt: row.room for row in self.rows}
        lengths = torch.tensor([len(prompt) + rooms[i] for i, prompt in enumerate(self.prompts)], device=device)
        sources = None if self.sources is None else _table(self.sources, device)
        made = filters_of(self.settings, self.ends, lengths, self.vocab, sources)
        if self.form is not None:
            made.append(self.form)
        return made + drawing(self.settings, self.ends)

    def _so_far(self, numbers: Sequence[int], copies: int) -> SoFar:
        """The prompts of these numbers."""
        device = next(self.model.parameters()).device
        tokens = _table([self.prompts[number] for number in numbers], device).repeat_interleave(copies, 0)
        return SoFar(tokens, tokens.shape[1], torch.tensor(numbers, device=device).repeat_interleave(copies))

    def _rows(self) -> list[Row]:
        """What each sequence may have. Raises LimitExceeded for what does not fit into the model."""
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
            rows += [
                Row(number, i, most, seed=seeds[number * s.num_return_sequences + i] if seeds else None)
                for i in range(s.num_return_sequences)
            ]
        return rows


def _table(texts: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """(N, S) of their ids, NONE left of those that are shorter."""
    width = max(map(len, texts))
    filled = [[NONE] * (width - len(text)) + list(text) for text in texts]
    return torch.tensor(filled, dtype=torch.int64, device=device)


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
    """The ids that every target of an encoder–decoder begins with."""
    start: Any = s.decoder_start_token_id
    if start is None:
        raw = model.config.to_hf()
        start = raw.get("decoder_start_token_id", raw.get("bos_token_id"))
    begin = list(s.decoder_input_ids or [])
    if start is None and not begin:
        raise InvalidInput("the checkpoint does not say what a target begins with; give decoder_start_token_id")
    if start is not None and begin[:1] != [start]:
        begin = [start, *begin]
    for token in begin:
        if type(token) is not int or not 0 <= token < model.config.target_vocab_size:
            raise InvalidInput(
                f"a target begins with {show(repr(token))}, wanted 0 to {model.config.target_vocab_size - 1}; give "
                "decoder_start_token_id"
            )
    return begin
