"""One call of `generate` or `stream`: what was given, checked, and what comes of it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from triarch import limits
from triarch.errors import InvalidInput, LimitExceeded, Unsupported, show
from triarch.family import Network
from triarch.generation import prompts
from triarch.generation import settings as given
from triarch.generation.filters import NONE, Filter, SoFar, drawing, filters_of
from triarch.generation.inference import Decoder, Prefix, Steps
from triarch.generation.rows import Certain, Generated, Piece, Row, Stops
from triarch.generation.sampling import Draw, likeliest, sample
from triarch.generation.settings import NEW_TOKENS, Settings
from triarch.models import scores as scores_of

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
        if scores_of(type(model.head)).__name__ != "NextWordScores":
            raise Unsupported(f"{model.architecture} does not score next words; choose a checkpoint that generates")
        self.model, self.settings, self.prefix = model, settings, prefix
        self.prompts, self.single = prompts.read(model, inputs)
        self.vocab: int = model.config.vocab_size
        self.ends = [] if settings.ignore_eos else _ends(model, settings)
        self.rows = self._rows()
        if settings.stop and model.processor is None:
            raise InvalidInput("stop texts need a tokenizer, which the checkpoint does not have; use eos_token_id")
        self.stops = Stops(self.ends, settings, model.processor, self.prompts)
        self.prompt_logprobs: list[list[float]] | None = None
        self.filters = self._filters()
        self.steps = self._steps()

    def run(self, cancelled: Cancelled | None) -> Iterator[list[Row]]:
        """The work: yields rows that got tokens."""
        begin = time.monotonic()
        with torch.inference_mode():
            if self.settings.prompt_logprobs:
                self.prompt_logprobs = Decoder(self.model, self.prompts, cache=False).prompt_logprobs()
            search = self._search()
        while True:
            with torch.inference_mode():  # not around the yield: it would hold for the caller too
                rows = next(search, None)
            if rows is None:
                break
            late = self.settings.max_time is not None and time.monotonic() - begin > self.settings.max_time
            if late or (cancelled is not None and cancelled()):
                for row in self.rows:
                    row.reason = row.reason or ("time" if late else "cancelled")
                yield rows
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
                )
            )
        return found

    def _search(self) -> Iterator[list[Row]]:
        s = self.settings
        choose = Draw(next(self.model.parameters()).device) if s.sampled else likeliest
        return sample(
            self.steps,
            list(self.rows),
            self._so_far(s.num_return_sequences),
            filters=self.filters,
            choose=choose,
            stops=self.stops,
            copies=s.num_return_sequences,
            alternatives=s.logprobs,
        )

    def _steps(self) -> Steps:
        s = self.settings
        return Decoder(self.model, self.prompts, cache=s.use_cache, room=s.cache_room, sliding=True, prefix=self.prefix)

    def _filters(self) -> list[Filter]:
        device = next(self.model.parameters()).device
        rooms = {row.prompt: row.room for row in self.rows}
        lengths = torch.tensor([len(prompt) + rooms[i] for i, prompt in enumerate(self.prompts)], device=device)
        return filters_of(self.settings, self.ends, lengths, self.vocab) + drawing(self.settings, self.ends)

    def _so_far(self, copies: int) -> SoFar:
        width = max(map(len, self.prompts))
        padded = [[NONE] * (width - len(prompt)) + list(prompt) for prompt in self.prompts]
        device = next(self.model.parameters()).device
        tokens = torch.tensor(padded, dtype=torch.int64, device=device)
        return SoFar(
            tokens.repeat_interleave(copies, 0),
            width,
            torch.arange(len(padded), device=device).repeat_interleave(copies),
        )

    def _rows(self) -> list[Row]:
        """What each sequence may have. Raises LimitExceeded for what does not fit into the model."""
        s, context = self.settings, self.model.config.max_tokens
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
            if s.cache_room is not None and len(prompt) + most > s.cache_room + 1:  # the last token is never fed
                raise LimitExceeded(
                    f"prompt {number} takes {len(prompt) + most - 1:,} tokens of cache, cache_room is {s.cache_room:,}"
                )
            rows += [
                Row(number, i, most, seed=seeds[number * s.num_return_sequences + i] if seeds else None)
                for i in range(s.num_return_sequences)
            ]
        return rows


def _seeds(s: Settings, count: int) -> list[int]:
    """A seed for each sequence, such that a prompt of a batch draws what it would draw alone."""
    if not s.sampled:
        return []
    per_prompt = s.num_return_sequences
    if isinstance(s.seed, list | tuple):
        if len(s.seed) != count * per_prompt:
            raise InvalidInput(f"{len(s.seed)} seeds for {count * per_prompt} sequences; give one for each")
        return list(s.seed)
    first = [secrets.randbits(62) for _ in range(count)] if s.seed is None else [s.seed] * count
    return [(seed + i) % limits.SEED for seed in first for i in range(per_prompt)]


def _ends(model: Network, s: Settings) -> list[int]:
    """The tokens that end a sequence: as asked, else the config's, else the tokenizer's."""
    ends: Any = s.eos_token_id
    if ends is None:
        ends = model.config.extra.get("eos_token_id")
    if ends is None and model.processor is not None:
        ends = model.processor.id("eos_token")
    listed = [] if ends is None else list(ends) if isinstance(ends, list | tuple) else [ends]
    for token in listed:
        if type(token) is not int or not 0 <= token < model.config.vocab_size:
            raise InvalidInput(f"eos_token_id is {show(repr(token))}, wanted 0 to {model.config.vocab_size - 1}")
    return listed
