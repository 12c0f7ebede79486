"""What changes the scores of the next token before one is chosen: small functions `filter(logits, so_far) -> logits`.

Each depends on the tokens so far and on nothing else, so that sampling, beams and guessing ahead share them. They are
those of one request, whose rows all go on from one prompt. Scores that are ruled out are -inf.

Shapes: N rows, S tokens so far, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from triarch.errors import InvalidInput, show
from triarch.generation.inference import Columns
from triarch.generation.inference import NotFinite as NotFinite
from triarch.generation.settings import Settings

NONE = -1  # no token
NEVER = -math.inf


class SoFar:
    """The tokens of each row up to now: those of the prompt, and the new ones."""

    def __init__(self, columns: Columns, start: int, prompt: int = 0):
        """`start`: tokens of the prompt; `prompt`: its number among those of a call."""
        self.tokens, self.start, self.prompt = columns.ids, start, prompt  # (N, S) int64
        self._columns = columns

    @property
    def new(self) -> Tensor:
        return self.tokens[:, self.start :]

    @property
    def length(self) -> int:
        """Tokens of each row, those of the prompt included."""
        return self.tokens.shape[1]

    @property
    def steps(self) -> int:
        """New tokens of each row."""
        return self.length - self.start

    def plus(self, tokens: Sequence[int]) -> SoFar:
        """With one more token a row."""
        # Whoever goes on from an earlier point than the columns have come to gets columns of their own
        columns = self._columns if self._columns.ids.shape[1] == self.length else Columns(self.tokens)
        columns.add(self.tokens.new_tensor(tokens)[:, None])
        return SoFar(columns, self.start, self.prompt)

    def select(self, rows: Sequence[int]) -> SoFar:
        if [*rows] == [*range(len(self.tokens))]:
            return self
        return SoFar(Columns(self.tokens[[*rows]]), self.start, self.prompt)


Filter = Callable[[Tensor, SoFar], Tensor]


def apply(filters: Sequence[Filter], logits: Tensor, so_far: SoFar) -> Tensor:
    """All filters in turn, on a copy in float32. Raises InvalidInput where they leave a row no token at all."""
    scores = filtered(filters, logits.float(), so_far)
    if filters and bool((scores.amax(-1) == NEVER).any()):
        raise InvalidInput("the options rule out every next token; allow some")
    return scores


def filtered(filters: Sequence[Filter], scores: Tensor, so_far: SoFar) -> Tensor:
    """All filters in turn; a row may be left with no token."""
    for filter in filters:
        scores = filter(scores, so_far)
    return scores


def filters_of(
    settings: Settings, ends: list[int], limit: int, vocab: int, source: Tensor | None = None
) -> list[Filter]:
    """The filters that settings ask for, in the order of the reference.

    `ends`: tokens that end a sequence; `limit`: the length, prompt included, at which it is cut off; `source` (1, S):
    what an encoder read. Raises InvalidInput for ids outside of the vocabulary.
    """
    s, made = settings, list[Filter]()
    for what, ids in _named_ids(s):
        check_ids(what, ids, vocab)
    if len({*s.suppress_tokens}) == vocab or len({*s.suppress_tokens, *s.begin_suppress_tokens}) == vocab:
        raise InvalidInput("suppress_tokens leaves no token to choose; allow some")
    bias = [([token], value) for token, value in s.logit_bias.items()] + [_bias(entry) for entry in s.sequence_bias]
    if bias:
        made.append(partial(sequence_bias, bias=bias))
    if source is not None and s.encoder_repetition_penalty != 1:
        made.append(partial(source_repetition, source=source, factor=s.encoder_repetition_penalty))
    if s.repetition_penalty != 1:
        made.append(partial(repetition, penalty=s.repetition_penalty))
    if s.presence_penalty or s.frequency_penalty:
        made.append(partial(occurrence, presence=s.presence_penalty, frequency=s.frequency_penalty))
    if s.no_repeat_ngram_size:
        made.append(partial(no_repeat, size=s.no_repeat_ngram_size))
    if source is not None and s.encoder_no_repeat_ngram_size:
        made.append(partial(no_repeat_of_source, source=source, size=s.encoder_no_repeat_ngram_size))
    if s.bad_words_ids:
        alone = [[token] for token in ends]  # no bad words, as in the reference; suppress_tokens rules them out
        made.append(partial(sequence_bias, bias=[(word, NEVER) for word in s.bad_words_ids if word not in alone]))
    if ends and (s.min_length or s.min_new_tokens):
        made.append(partial(not_before, ends=ends, length=s.min_length, new=s.min_new_tokens))
    if s.prefix_allowed_tokens_fn is not None:
        made.append(partial(only_allowed, allowed=s.prefix_allowed_tokens_fn))
    if s.forced_bos_token_id is not None:
        made.append(partial(forced_first, token=s.forced_bos_token_id))
    if s.forced_eos_token_id is not None:
        forced = s.forced_eos_token_id
        made.append(partial(forced_last, tokens=[forced] if isinstance(forced, int) else list(forced), limit=limit))
    if s.exponential_decay_length_penalty is not None and ends:
        start, factor = s.exponential_decay_length_penalty
        made.append(partial(hurry, ends=ends, start=int(start), factor=factor))
    if s.suppress_tokens:
        made.append(partial(suppress, tokens=list(s.suppress_tokens)))
    if s.begin_suppress_tokens:
        first = int(source is not None and s.forced_bos_token_id is not None)
        made.append(partial(suppress_first, tokens=list(s.begin_suppress_tokens), first=first))
    return made


def drawing(settings: Settings, ends: list[int]) -> list[Filter]:
    """What narrows down the tokens to draw from, in the order of the reference."""
    s, made = settings, list[Filter]()
    if not s.sampled:
        return [normalize] if s.renormalize_logits else []
    least = 1 if s.num_beams == 1 else len(ends) + 1  # beams need one more than may end
    if s.temperature != 1:
        made.append(partial(temperature, t=s.temperature))
    if s.top_k:
        made.append(partial(top_k, k=max(s.top_k, least)))
    if s.top_p < 1:
        made.append(partial(top_p, p=s.top_p, least=least))
    if s.min_p is not None:
        made.append(partial(min_p, p=s.min_p, least=least))
    if s.typical_p < 1:
        made.append(partial(typical, p=s.typical_p, least=least))
    if s.epsilon_cutoff:
        made.append(partial(epsilon, cutoff=s.epsilon_cutoff, least=least))
    if s.eta_cutoff:
        made.append(partial(eta, cutoff=s.eta_cutoff, least=least))
    return [*made, normalize] if s.renormalize_logits else made


# Penalties and bans


def repetition(logits: Tensor, so_far: SoFar, *, penalty: float) -> Tensor:
    """Keskar et al. 2019, section 4.1, https://arxiv.org/abs/1909.05858: positive scores of tokens that occurred are
    divided, negative ones multiplied."""
    return _lowered(logits, so_far.tokens, penalty)


def source_repetition(logits: Tensor, _: SoFar, *, source: Tensor, factor: float) -> Tensor:
    """The other way round for tokens of the source: above 1 it keeps to them."""
    return _lowered(logits, source.expand(len(logits), -1), 1 / factor)


def occurrence(logits: Tensor, so_far: SoFar, *, presence: float, frequency: float) -> Tensor:
    """As the OpenAI API has it: of the score of each generated token, once and for each time that it occurred."""
    counts = _counts(so_far.new, logits.shape[1])
    return logits - presence * (counts > 0) - frequency * counts


def no_repeat(logits: Tensor, so_far: SoFar, *, size: int) -> Tensor:
    """No token that would complete a sequence of `size` tokens that occurred. Paulus et al. 2017, section 2.5,
    https://arxiv.org/abs/1705.04304"""
    return _without(logits, so_far.tokens, so_far.tokens, size)


def no_repeat_of_source(logits: Tensor, so_far: SoFar, *, source: Tensor, size: int) -> Tensor:
    """No token that would complete a sequence of `size` tokens of the source."""
    return _without(logits, so_far.tokens, source.expand(len(logits), -1), size)


def sequence_bias(logits: Tensor, so_far: SoFar, *, bias: Sequence[tuple[Sequence[int], float]]) -> Tensor:
    """Added to the score of a sequence's last token in rows that end with all of its others."""
    added = torch.zeros_like(logits)
    for ids, value in bias:
        *first, last = ids
        if len(first) > so_far.tokens.shape[1]:
            continue
        tail = so_far.tokens[:, so_far.tokens.shape[1] - len(first) :]
        ends_so = (tail == torch.tensor(first, dtype=torch.int64, device=tail.device)).all(1)
        added[:, last] += torch.where(ends_so, value, 0.0)
    return logits + added


def not_before(logits: Tensor, so_far: SoFar, *, ends: list[int], length: int, new: int) -> Tensor:
    """No end before a row has so many tokens, and so many new ones."""
    return _masked(logits, ends) if so_far.length < length or so_far.steps < new else logits


def only_allowed(logits: Tensor, so_far: SoFar, *, allowed: Callable[[int, Tensor], Any]) -> Tensor:
    kept = torch.zeros_like(logits, dtype=torch.bool)
    for row, tokens in enumerate(so_far.tokens):
        ids = allowed(so_far.prompt, tokens.clone())
        if not isinstance(ids, Iterable):
            raise InvalidInput(f"prefix_allowed_tokens_fn gives {show(repr(ids))}, wanted a list of ids")
        ids = list(ids)
        if not ids:
            raise InvalidInput(f"prefix_allowed_tokens_fn allows no token after {tokens.tolist()[-5:]}; allow some")
        check_ids("prefix_allowed_tokens_fn", ids, logits.shape[1])
        kept[row, ids] = True
    return logits.masked_fill(~kept, NEVER)


def forced_first(logits: Tensor, so_far: SoFar, *, token: int) -> Tensor:
    return _only(logits, [token]) if so_far.length == 1 else logits


def forced_last(logits: Tensor, so_far: SoFar, *, tokens: list[int], limit: int) -> Tensor:
    return _only(logits, tokens) if so_far.length == limit - 1 else logits


def hurry(logits: Tensor, so_far: SoFar, *, ends: list[int], start: int, factor: float) -> Tensor:
    """After `start` new tokens the end becomes likelier with each one, exponentially."""
    over = so_far.steps - start
    if over <= 0:
        return logits
    grown = logits.clone()
    at_end = logits[:, ends]
    grown[:, ends] = torch.where(at_end == NEVER, at_end, at_end + at_end.abs() * (factor**over - 1))
    return grown


def suppress(logits: Tensor, so_far: SoFar, *, tokens: list[int]) -> Tensor:
    return _masked(logits, tokens)


def suppress_first(logits: Tensor, so_far: SoFar, *, tokens: list[int], first: int) -> Tensor:
    """`first`: new tokens before the one that is the first to be chosen."""
    return _masked(logits, tokens) if so_far.steps == first else logits


# What is drawn from


def temperature(logits: Tensor, _: SoFar, *, t: float) -> Tensor:
    return logits / t


def top_k(logits: Tensor, _: SoFar, *, k: int) -> Tensor:
    """Fan et al. 2018, section 5.4, https://arxiv.org/abs/1805.04833"""
    return logits.masked_fill(logits < logits.topk(min(k, logits.shape[1])).values[:, -1:], NEVER)


def top_p(logits: Tensor, _: SoFar, *, p: float, least: int) -> Tensor:
    """Holtzman et al. 2019, section 3.1, https://arxiv.org/abs/1904.09751"""
    ascending, order = logits.sort()
    dropped = ascending.softmax(-1).cumsum(-1) <= 1 - p
    dropped[:, -least:] = False
    return logits.masked_fill(torch.zeros_like(dropped).scatter(1, order, dropped), NEVER)


def min_p(logits: Tensor, _: SoFar, *, p: float, least: int) -> Tensor:
    """Nguyen et al. 2024, section 3, https://arxiv.org/abs/2407.01082"""
    probabilities = logits.softmax(-1)
    return _drop(logits, probabilities < p * probabilities.amax(-1, keepdim=True), least)


def typical(logits: Tensor, _: SoFar, *, p: float, least: int) -> Tensor:
    """Meister et al. 2022, section 3, https://arxiv.org/abs/2202.00666"""
    logs = logits.log_softmax(-1)
    entropy = -(logs * logs.exp()).nansum(-1, keepdim=True)
    oddness, order = (-logs - entropy).abs().sort()
    mass = logits.gather(1, order).softmax(-1).cumsum(-1)
    last = (mass < p).sum(1, keepdim=True).clamp(max=logits.shape[1] - 1)
    dropped = oddness > oddness.gather(1, last)
    dropped[:, :least] = False
    return logits.masked_fill(torch.zeros_like(dropped).scatter(1, order, dropped), NEVER)


def epsilon(logits: Tensor, _: SoFar, *, cutoff: float, least: int) -> Tensor:
    """Hewitt et al. 2022, section 4.1, https://arxiv.org/abs/2210.15191"""
    return _drop(logits, logits.softmax(-1) < cutoff, least)


def eta(logits: Tensor, _: SoFar, *, cutoff: float, least: int) -> Tensor:
    """Hewitt et al. 2022, section 4.2: the bound sinks where the entropy is large."""
    logs = logits.log_softmax(-1)
    entropy = -(logs * logs.exp()).nansum(-1, keepdim=True)
    bound = (math.sqrt(cutoff) * torch.exp(-entropy)).clamp(max=cutoff)
    return _drop(logits, logits.softmax(-1) < bound, least)


def normalize(logits: Tensor, _: SoFar) -> Tensor:
    return logits.log_softmax(-1)


# Helpers


def _lowered(logits: Tensor, tokens: Tensor, penalty: float) -> Tensor:
    """The scores of the tokens (N, S): positive ones divided, negative ones multiplied."""
    theirs = logits.gather(1, tokens)
    return logits.scatter(1, tokens, torch.where(theirs < 0, theirs * penalty, theirs / penalty))


def _without(logits: Tensor, tokens: Tensor, others: Tensor, size: int) -> Tensor:
    """No token with which the tokens (N, S) would end in `size` tokens that stand in the others (N, ...)."""
    if others.shape[1] < size or tokens.shape[1] < size - 1:
        return logits
    windows = others.unfold(1, size, 1)  # (N, S - size + 1, size)
    tail = tokens[:, tokens.shape[1] - size + 1 :]  # (N, size - 1)
    again = (windows[..., :-1] == tail[:, None]).all(-1)
    last = windows[..., -1].where(again, NONE)
    return logits.masked_fill(_counts(last, logits.shape[1]) > 0, NEVER)


def _counts(tokens: Tensor, vocab: int) -> Tensor:
    """(N, S) tokens -> (N, V) how often each occurs; NONE does not count."""
    counts = torch.zeros(len(tokens), vocab + 1, device=tokens.device)
    counts.scatter_add_(1, tokens % (vocab + 1), torch.ones_like(tokens, dtype=counts.dtype))  # NONE is the last column
    return counts[:, :vocab]


def _drop(logits: Tensor, dropped: Tensor, least: int) -> Tensor:
    kept = logits.topk(min(least, logits.shape[1])).indices
    return logits.masked_fill(dropped.scatter(1, kept, False), NEVER)


def _masked(logits: Tensor, tokens: list[int]) -> Tensor:
    masked = logits.clone()
    masked[:, tokens] = NEVER
    return masked


def _only(logits: Tensor, tokens: list[int]) -> Tensor:
    """One of the tokens, each as likely."""
    only = torch.full_like(logits, NEVER)
    only[:, tokens] = 0.0
    return only


def _named_ids(s: Settings) -> list[tuple[str, list[int]]]:
    forced = s.forced_eos_token_id
    ends = s.eos_token_id
    return [
        ("logit_bias", list(s.logit_bias)),
        ("sequence_bias", [token for entry in s.sequence_bias for token in _bias(entry)[0]]),
        ("bad_words_ids", [token for word in s.bad_words_ids for token in word]),
        ("suppress_tokens", list(s.suppress_tokens)),
        ("begin_suppress_tokens", list(s.begin_suppress_tokens)),
        ("forced_bos_token_id", [] if s.forced_bos_token_id is None else [s.forced_bos_token_id]),
        ("forced_eos_token_id", [] if forced is None else [forced] if isinstance(forced, int) else list(forced)),
        ("eos_token_id", [] if ends is None else [ends] if isinstance(ends, int) else list(ends)),
    ]


def _bias(entry: Any) -> tuple[list[int], float]:
    good = isinstance(entry, list | tuple) and len(entry) == 2 and isinstance(entry[0], list | tuple) and entry[0]
    if not good or type(entry[1]) not in (int, float) or not math.isfinite(entry[1]):
        raise InvalidInput(f"sequence_bias holds {show(repr(entry))}, wanted [[ids], number]")
    return list(entry[0]), float(entry[1])


def check_ids(what: str, ids: Sequence[Any], vocab: int) -> None:
    for token in ids:
        if type(token) is not int or not 0 <= token < vocab:
            raise InvalidInput(f"{what} has the id {show(repr(token))}, wanted 0 to {vocab - 1}")
