"""How likely a model finds texts as what follows a prompt: the ground on which a decoder chooses among answers.

    likelihoods = score(model, "Goal in the last minute! This is about", [" sports", " politics"])

Shapes: N prompts, C continuations of a prompt, T tokens of the longest of them, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from triarch.errors import InvalidInput, LimitExceeded, Unsupported
from triarch.family import Network
from triarch.generation import prompts as given
from triarch.generation.inference import Decoder, NotFinite, Scores
from triarch.kinds import NextWordScores

ROW_TOKENS = 4096  # of prompts and continuations that are worked on at once, each with the cache of its prompt


@dataclass(frozen=True)
class Likelihood:
    """Of one continuation."""

    ids: list[int]
    logprobs: list[float]  # natural, of each token after the prompt and the tokens before it

    @property
    def total(self) -> float:
        """Log-probability of the whole."""
        return sum(self.logprobs)

    @property
    def mean(self) -> float:
        """Log-probability by token, which a longer text is not worse off by. Brown et al. 2020, section 2.4,
        https://arxiv.org/abs/2005.14165"""
        return self.total / len(self.logprobs)


def score(model: Network, prompt: Any, continuations: Sequence[Any]) -> list[Likelihood]:
    """How likely each of several continuations of one prompt is; all of them texts, or all of them ids.

    Of texts, the prompt and a continuation are read as the one text that they make, so a space between them may stand
    at the end of the one or at the beginning of the other.

    Raises InvalidInput for what is empty and for ids that there are not, LimitExceeded for what is longer than the
    model, before the model runs; NotFinite for scores that are not numbers.
    """
    if isinstance(prompt, str):
        prompt, continuations = split(model, prompt, continuations)
    return score_ids(model, [prompt], [continuations])[0]


def split(model: Network, prompt: str, continuations: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """Ids of what all the texts `prompt + continuation` begin with, at most of the prompt, and of the rest of each."""
    processor = model.processor
    if processor is None:
        raise InvalidInput("the checkpoint has no tokenizer; give ids, or put a tokenizer beside the weights")
    own: list[int] = processor.encode(prompt).ids
    wholes: list[list[int]] = [processor.encode(prompt + text).ids for text in continuations]
    shared = min((common(own, whole) for whole in wholes), default=len(own))
    return own[:shared], [whole[shared:] for whole in wholes]


@torch.inference_mode()
def score_ids(
    model: Network, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[Sequence[int]]]
) -> list[list[Likelihood]]:
    """Several prompts, each with its own continuations. A prompt is read once, whatever number of them it has.

    Raises as `score` does.
    """
    if model.kind is not NextWordScores:
        raise Unsupported(f"{model.architecture} does not score next words; choose a checkpoint that generates")
    _check(model, prompts, continuations)
    decoder = Decoder(model, prompts)
    first = Scores(decoder.start()[:, None]).after().float().log_softmax(-1)  # (N, V)
    pairs = [(n, c) for n, texts in enumerate(continuations) for c in range(len(texts))]
    pairs.sort(key=lambda pair: -len(continuations[pair[0]][pair[1]]))
    found: dict[tuple[int, int], Likelihood] = {}
    while pairs:
        longest = len(continuations[pairs[0][0]][pairs[0][1]])
        count = max(1, ROW_TOKENS // (decoder.length + longest))
        batch, pairs = pairs[:count], pairs[count:]
        ids = [list(continuations[n][c]) for n, c in batch]
        for pair, tokens, logprobs in zip(
            batch, ids, _logprobs(decoder, first, [n for n, _ in batch], ids), strict=True
        ):
            found[pair] = Likelihood(tokens, logprobs)
    return [[found[n, c] for c in range(len(texts))] for n, texts in enumerate(continuations)]


def _logprobs(decoder: Decoder, first: Tensor, rows: list[int], ids: list[list[int]]) -> list[list[float]]:
    """Of the tokens of continuations, whose prompts are the `rows` (C,) of the decoder."""
    width = max(map(len, ids))
    tokens = torch.tensor([[*one, *[0] * (width - len(one))] for one in ids], device=first.device)  # (C, T)
    logs = first[rows].gather(1, tokens[:, :1])  # (C, 1)
    if width > 1:
        # What stands right of a shorter one is padding, or it would take positions
        real = torch.tensor([[1] * len(one) + [0] * (width - len(one)) for one in ids], device=first.device)
        logits = decoder.branch(rows).feed(tokens[:, :-1], real[:, :-1])  # (C, T - 1, V)
        if not bool(logits.isfinite().all()):
            raise NotFinite
        later = logits.float().log_softmax(-1).gather(2, tokens[:, 1:, None]).squeeze(2)
        logs = torch.cat([logs, later], 1)
    return [row[: len(one)] for row, one in zip(logs.tolist(), ids, strict=True)]


def _check(model: Network, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[Sequence[int]]]) -> None:
    if len(prompts) != len(continuations):
        raise InvalidInput(f"{len(prompts)} prompts came with {len(continuations)} lists of continuations")
    context: int = model.config.max_tokens
    for prompt, texts in zip(prompts, continuations, strict=True):
        for text in texts:
            if not text:
                raise InvalidInput("a continuation is empty; write at least one token")
            given.read(model, [[*prompt], [*text]])
            if len(prompt) + len(text) > context:
                raise LimitExceeded(
                    f"prompt and continuation have {len(prompt) + len(text):,} tokens, the model takes {context:,}"
                )


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids both begin with."""
    same = [a == b for a, b in zip(one, other, strict=False)]
    return same.index(False) if False in same else len(same)
