"""Guessing ahead: several tokens are checked in one pass of the model, and it writes what it would write without.

Each token is chosen as ever, from the model's own scores; a guess that turns out to be that token saves a pass. So
drawn tokens are those of plain drawing too, and nothing needs to be accepted or rejected by chance.

Shapes: V vocabulary, G guesses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from triarch.errors import InvalidInput, show
from triarch.family import Network
from triarch.generation.filters import Filter, SoFar, apply
from triarch.generation.inference import Decoder, Steps
from triarch.generation.rows import Row, Stops
from triarch.generation.sampling import Choose, choose_next

LONGEST = 3  # tokens that are looked up together

Guess = Callable[[SoFar, int], list[int]]  # one row, and how many tokens at most -> tokens that may follow


class Lookup:
    """Guesses that what followed the last few tokens before, in the prompt or since, follows again.

    Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding
    """

    def __init__(self, source: Sequence[int] = ()) -> None:
        """`source`: what an encoder read, where a target may have its words from."""
        self.source = list(source)
        self.after: dict[tuple[int, ...], int] = {}  # few tokens -> where the token after them stood last
        self.read = 0  # tokens whose place is known

    def __call__(self, so_far: SoFar, most: int) -> list[int]:
        tokens: list[int] = self.source + so_far.tokens[0].tolist()
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

    def __call__(self, so_far: SoFar, most: int) -> list[int]:
        tokens: list[int] = so_far.tokens[0].tolist()
        most = min(most, self.model.config.max_target_tokens - len(tokens))
        guesses: list[int] = []
        if most < 1:
            return guesses
        logits = self._read(tokens)
        device = so_far.tokens.device
        try:
            while True:
                token = apply(self.filters, logits.to(device), so_far).argmax(-1)
                guesses.append(int(token))
                if len(guesses) == most:
                    return guesses
                so_far = so_far.plus(token)
                logits = self._feed([int(token)])
        except InvalidInput:  # it ran into a dead end, which the model may not
            return guesses

    def _read(self, tokens: list[int]) -> torch.Tensor:
        """Scores (1, V) after these tokens, of which the first ones may have been read before."""
        if self.steps is None:
            self.steps = Decoder(self.model, [tokens], sources=self.sources, sliding=False)
            return self.steps.start(1)
        pairs = zip(tokens[:-1], self.steps.tokens[0].tolist(), strict=False)
        known = next((i for i, (ours, theirs) in enumerate(pairs) if ours != theirs), None)
        self.steps.crop(min(len(tokens) - 1, self.steps.length) if known is None else known)
        return self._feed(tokens[self.steps.length :])

    def _feed(self, tokens: list[int]) -> torch.Tensor:
        assert self.steps is not None
        return self.steps.feed(torch.tensor([tokens], device=self.steps.tokens.device))[:, -1]


def alike(guess: Guess, model: Network) -> Guess:
    """No more guesses than the model reads together as it would one by one."""

    def fewer(so_far: SoFar, most: int) -> list[int]:
        length = so_far.tokens.shape[1]
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
    steps: Steps,
    row: Row,
    so_far: SoFar,
    *,
    guess: Guess,
    ahead: int,
    filters: Sequence[Filter],
    choose: Choose,
    stops: Stops,
    alternatives: int | None,
) -> Iterator[list[Row]]:
    """Give one row its tokens, as `sample` does, but with up to `ahead` guesses a pass; yield it after each pass."""
    logits, guesses = steps.start(1)[:, None], list[int]()  # (1, 1 + G, V)
    while True:
        for place in range(1 + len(guesses)):
            token = choose_next([row], logits[:, place], so_far, filters, choose, stops, alternatives)
            so_far = so_far.plus(token)
            if row.reason is not None or row.ids[-1:] != guesses[place : place + 1]:
                break
            row.guessed += 1
        yield [row]
        if row.reason is not None:
            return
        steps.crop(so_far.tokens.shape[1] - 1)  # what was guessed wrong; the last token is yet to be fed
        guesses = guess(so_far, min(ahead, row.room - len(row.ids) - 1))
        logits = steps.feed(torch.tensor([[row.ids[-1], *guesses]], device=so_far.tokens.device))
