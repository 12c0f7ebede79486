"""Guessing ahead: several tokens are checked in one pass of the model, and it writes what it would write without.

Each token is chosen as ever, from the model's own scores; a guess that turns out to be that token saves a pass. So
drawn tokens are those of plain drawing too, and nothing needs to be accepted or rejected by chance.

Shapes: V vocabulary, G guesses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from triarch.errors import InvalidInput, show
from triarch.family import Network
from triarch.generation.filters import Filter, SoFar, apply
from triarch.generation.inference import Ask, Decoder, Scores
from triarch.generation.rows import Row, Stops
from triarch.generation.sampling import Choose, Search, choose_next

LONGEST = 3  # tokens that are looked up together

Guess = Callable[[SoFar, int], list[int]]  # one row, and how many tokens at most -> tokens that may follow


class Lookup:
    """Guesses that what followed the last few tokens before, in the prompt or since, follows again.

    Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding
    """

    def __init__(self, source: Sequence[int] = ()) -> None:
        """`source`: what an encoder read, where a target may have its words from."""
        self.tokens, self.source = list(source), len(source)  # and all that was chosen since
        self.after: dict[tuple[int, ...], int] = {}  # few tokens -> where the token after them stood last
        self.read = 0  # tokens whose place is known

    def __call__(self, so_far: SoFar, most: int) -> list[int]:
        self.tokens += so_far.tokens[0, len(self.tokens) - self.source :].tolist()
        tokens = self.tokens
        for place in range(self.read, len(tokens)):
            for size in range(1, min(LONGEST, place) + 1):
                self.after[tuple(tokens[place - size : place])] = place
        self.read = len(tokens)
        for size in range(min(LONGEST, len(tokens)), 0, -1):
            if (found := self.after.get(tuple(tokens[-size:]))) is not None:
                period = len(tokens) - found
                return [tokens[found + i % period] for i in range(most)]
        return []


class Draft:
    """Guesses what a smaller model finds likeliest. Leviathan et al. 2023, https://arxiv.org/abs/2211.17192"""

    def __init__(self, model: Network, filters: Sequence[Filter], source: list[int] | None = None):
        self.model, self.filters, self.sources = model, filters, None if source is None else [source]
        self.steps: Decoder | None = None
        self.known = 0  # tokens that it has read of those that were chosen

    def __call__(self, so_far: SoFar, most: int) -> list[int]:
        most = min(most, self.model.config.max_target_tokens - so_far.length)
        guesses: list[int] = []
        if most < 1:
            return guesses
        logits = self._read(so_far.tokens)
        device = so_far.tokens.device
        try:
            while True:
                token = int(apply(self.filters, logits.to(device), so_far).argmax(-1))
                guesses.append(token)
                if len(guesses) == most:
                    return guesses
                so_far = so_far.plus([token])
                logits = self._feed([token])
        except InvalidInput:  # it ran into a dead end, which the model may not
            return guesses

    def _read(self, tokens: torch.Tensor) -> torch.Tensor:
        """Scores (1, V) after these tokens (1, S), of which those that were chosen before have been read."""
        if self.steps is None:
            self.steps = Decoder(self.model, tokens.tolist(), sources=self.sources, sliding=False)
            logits = self.steps.start()
        else:
            mine: list[int] = self.steps.tokens[0, self.known :].tolist()
            chosen: list[int] = tokens[0, self.known :].tolist()
            same = next((i for i, (a, b) in enumerate(zip(chosen[:-1], mine, strict=False)) if a != b), None)
            same = min(len(chosen) - 1, len(mine)) if same is None else same
            self.steps.crop(self.known + same)
            logits = self._feed(chosen[same:])
        self.known = tokens.shape[1]
        return logits

    def _feed(self, tokens: list[int]) -> torch.Tensor:
        assert self.steps is not None
        return self.steps.feed(torch.tensor([tokens], device=self.steps.tokens.device))[:, -1]


def alike(guess: Guess, model: Network) -> Guess:
    """No more guesses than the model reads together as it would one by one."""

    def fewer(so_far: SoFar, most: int) -> list[int]:
        length = so_far.length
        while most > 0 and model.reads_as(length + most) != model.reads_as(length):
            most -= 1
        return guess(so_far, most) if most > 0 else []

    return fewer


def check_draft(model: Network, draft: object) -> None:
    """Raises InvalidInput for a model whose tokens are not those of the model that it guesses for."""
    if not isinstance(draft, Network) or draft.kind is not model.kind:
        wanted = f"a loaded model of {model.kind.__name__}"
        raise InvalidInput(f"assistant_model is {show(type(draft).__name__)}, wanted {wanted}")
    ours, theirs = model.config.target_vocab_size, draft.config.target_vocab_size
    if ours != theirs:
        raise InvalidInput(f"assistant_model has {theirs:,} tokens, the model {ours:,}; give one with the same tokens")
    tables = [one.processor.target.tokenizer.get_vocab() for one in (model, draft) if one.processor is not None]
    if len(tables) == 2 and tables[0] != tables[1]:
        raise InvalidInput("assistant_model numbers its tokens differently; give one with the same tokens")


def speculate(
    scores: Scores,
    row: Row,
    so_far: SoFar,
    *,
    guess: Guess,
    ahead: int,
    filters: Sequence[Filter],
    choose: Choose,
    stops: Stops,
    alternatives: int | None,
) -> Search:
    """Give one row its tokens, as `sample` does, but with up to `ahead` guesses a pass."""
    guesses = list[int]()
    while True:
        for place in range(1 + len(guesses)):
            (token,) = choose_next([row], scores, [0], so_far, filters, choose, stops, alternatives, place)
            so_far = so_far.plus([token])
            if row.reason is not None or [token] != guesses[place : place + 1]:
                break
            row.guessed += 1
        if row.reason is not None:
            return
        wrong = len(guesses) - place  # the last token is yet to be fed
        guesses = guess(so_far, min(ahead, row.room - len(row.ids) - 1))
        scores = yield Ask([0], [[token, *guesses]], forget=wrong)
