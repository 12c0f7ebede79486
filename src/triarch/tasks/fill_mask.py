"""Guess the words behind masks, as masked language models were pretrained to.

    triarch run fill-mask "Paris is the [MASK] of France." -m bert-base-cased

Several masks are guessed each by itself, as the reference does, or with `joint` one after the other, each in sight of
the ones before. A text longer than the model is read in windows; each mask is guessed where it has the most context.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from triarch.errors import InvalidInput, LimitExceeded, Unsupported, show
from triarch.inputs.fit import Fit
from triarch.inputs.text.given import text_of
from triarch.kinds import PretrainingScores, WordScores
from triarch.tasks import _options
from triarch.tasks._base import Job, Task
from triarch.tasks._scores import softmax

if TYPE_CHECKING:
    from tokenizers import Encoding
    from torch import Tensor

    from triarch.inputs.processor import Piece


@dataclass(frozen=True, kw_only=True)
class Options(_options.Options):
    top_k: int = 5  # that many best guesses for each mask
    targets: list[str] | str | None = None  # choose among these alone
    multi_token: bool = False  # targets may be longer than one token
    joint: bool = False  # guess several masks together: `top_k` beams, left to right
    tokenizer_kwargs: dict[str, Any] | None = None  # the reference's: truncation and max_length in a dict

    def __post_init__(self) -> None:
        super().__post_init__()
        self.take_over("tokenizer_kwargs")

    @property
    def wanted(self) -> list[str]:
        return [self.targets] if isinstance(self.targets, str) else list(self.targets or [])


@dataclass(frozen=True)
class Found:
    """A mask of the input, in the window in which it has the most context."""

    text: str | None  # the input, where the window is but a part of it
    window: Encoding
    place: int
    span: tuple[int, int]  # in the text


@dataclass(frozen=True)
class Masked:
    """A sequence of ids with masks in it, ready for the model."""

    ids: list[int]
    types: list[int]
    at: list[int]  # where its masks are

    def filled(self, tokens: list[int]) -> Masked:
        """The first masks replaced by `tokens`."""
        ids = list(self.ids)
        for place, token in zip(self.at, tokens, strict=False):
            ids[place] = token
        return Masked(ids, self.types, self.at[len(tokens) :])


class FillMask(Task):
    """Text with the tokenizer's mask -> [{"score", "token", "token_str", "sequence"}]; several masks: one list each."""

    NEEDS = (WordScores, PretrainingScores)
    TRY = "Paris is the [MASK] of France."
    STARTERS = {"fill-mask": "bert-books"}
    OPTIONS = Options
    FIT = Fit(share=1 / 2)

    def __init__(self, model: Any, **defaults: Any):
        super().__init__(model, **defaults)
        mask = self.processor.id("mask_token")
        if mask is None:
            raise Unsupported("the tokenizer has no mask token; choose a checkpoint of a masked language model")
        self.mask = mask

    def shaped(self, answer: Any, inputs: Any, given: dict[str, Any]) -> Any:
        return answer[0] if isinstance(inputs, list) and len(inputs) == 1 else answer

    def read(self, given: Any, options: Options) -> tuple[str, None]:
        return text_of(given, "text"), None

    def prepare(self, item: tuple[str, None], options: Options) -> Job:
        job = super().prepare(item, options)
        row, windows = item[0], job.contents
        places: dict[tuple[int, int], tuple[int, int, int]] = {}  # where in the text -> context, window, position
        for number, window in enumerate(windows):
            for i in self._masks(window):
                here = (min(i, len(window) - 1 - i), -number, i)
                places[window.offsets[i]] = max(places.get(window.offsets[i], here), here)
        if not places:
            mask = self.processor.token("mask_token")
            raise InvalidInput(f"no mask in {show(row)!r}; write {mask} where a word is missing")
        text = row if len(windows) > 1 else None
        found = [Found(text, windows[-number], i, span) for span, (_, number, i) in sorted(places.items())]
        used = {id(each.window): each.window for each in found}
        if options.joint or options.multi_token:
            if len(used) > 1:
                raise LimitExceeded("masks lie too far apart to be guessed together; guess them one by one")
            if not options.joint and len(found) > 1:
                raise InvalidInput(f"multi_token targets want one mask, found {len(found)}; leave one")
        if options.coverage and text is not None:  # windows without a mask are not looked at, nor count as seen
            seen = {offsets for w in used.values() for offsets in w.offsets}
            job.dropped = max(0, job.units - len(seen))
        together = options.joint or options.multi_token  # which takes the model step by step, in `answer`
        pieces = [] if together else [piece for piece in job.pieces if id(piece.content) in used]
        return replace(job, pieces=pieces, parts=len(used), notes=found)

    def compute(self, batch: dict[str, Tensor], pieces: list[Piece], options: Options) -> list[np.ndarray]:
        return self._probabilities(batch, [self._masks(piece.content) for piece in pieces])

    def answer(self, job: Job, outputs: list[np.ndarray], options: Options) -> Any:
        if options.joint or options.multi_token:
            window = job.notes[0].window
            masked = Masked(window.ids, window.type_ids, self._masks(window))
            return self._joint(masked, options) if options.joint else self._targets(masked, options)
        allowed = self._allowed(options)
        rows = []
        for found in job.notes:
            number = next(n for n, window in enumerate(job.contents) if window is found.window)
            probabilities = outputs[number][self._masks(found.window).index(found.place)]  # (V,)
            scores = probabilities if allowed is None else probabilities[allowed]
            order = np.argsort(-scores, kind="stable")[: options.top_k]
            tokens = order if allowed is None else allowed[order]
            guesses = zip(tokens.tolist(), scores[order].tolist(), strict=True)
            rows.append([self._guess(found, token, score, job) for token, score in guesses])
        return rows[0] if len(rows) == 1 else rows

    def _guess(self, found: Found, token: int, score: float, job: Job) -> dict[str, Any]:
        token_str = self.processor.decode([token])
        if found.text is not None:
            sequence = found.text[: found.span[0]] + token_str + found.text[found.span[1] :]
        else:
            guessed = [token if i == found.place else id for i, id in enumerate(found.window.ids)]
            filled = [id for id in guessed if id != self.processor.id("pad_token")]
            # Skipping special tokens would drop the other masks, so with several they all stay
            sequence = self.processor.decode(filled, skip_special_tokens=len(job.notes) == 1)
        return {"score": score, "token": token, "token_str": token_str, "sequence": sequence}

    def _allowed(self, options: Options) -> np.ndarray | None:
        """The ids of `targets`. One that is not a word of its own is refused rather than cut to its first piece."""
        if options.targets is None:
            return None
        ids = [self._pieces(target) for target in options.wanted]
        if long := [t for t, pieces in zip(options.wanted, ids, strict=True) if len(pieces) != 1]:
            found = self.processor.tokens(self._pieces(long[0]))
            raise InvalidInput(f"target {show(long[0])!r} is {len(found)} tokens {found[:8]}; pass multi_token=True")
        if not ids:
            raise InvalidInput("targets is empty; name at least one")
        return np.array(sorted({pieces[0] for pieces in ids}))

    def _pieces(self, target: str) -> list[int]:
        known = self.processor.tokenizer.token_to_id(target)
        ids = [known] if known is not None else self.processor.encode(target, special_tokens=False).ids
        if known is None and self.processor.id("unk_token") in ids:
            raise InvalidInput(f"target {show(target)!r} is not in the model's vocabulary; leave it out")
        return ids

    def _joint(self, masked: Masked, options: Options) -> list[dict[str, Any]]:
        """Beam search over the masks, left to right; the score is the product of the conditional probabilities."""
        allowed = self._allowed(options)
        beams: list[tuple[float, list[int]]] = [(1.0, [])]
        for _ in masked.at:
            rows = self._run([masked.filled(tokens) for _, tokens in beams], options)
            grown = []
            for (score, tokens), probabilities in zip(beams, rows, strict=True):
                first = probabilities[0] if allowed is None else probabilities[0][allowed]
                for j in np.argsort(-first, kind="stable")[: options.top_k]:
                    grown.append((score * float(first[j]), [*tokens, int(j if allowed is None else allowed[j])]))
            beams = sorted(grown, key=lambda beam: -beam[0])[: options.top_k]
        return [self._proposal(masked, score, tokens) for score, tokens in beams]

    def _targets(self, masked: Masked, options: Options) -> list[dict[str, Any]]:
        """Targets of any length: the mask is repeated, the score is the product of the conditional probabilities."""
        chains = [self._pieces(target) for target in options.wanted]
        if not chains or not all(chains):
            raise InvalidInput("targets is empty, or one of them has no tokens; name at least one")
        (place,) = masked.at
        steps, opened = [], []
        for pieces in chains:
            count = len(pieces)
            if len(masked.ids) - 1 + count > self.processor.max_tokens:
                raise LimitExceeded(f"a target of {count} tokens does not fit beside the text; shorten one")
            ids = [*masked.ids[:place], *[self.mask] * count, *masked.ids[place + 1 :]]
            types = [*masked.types[:place], *[masked.types[place]] * count, *masked.types[place + 1 :]]
            opened.append(Masked(ids, types, list(range(place, place + count))))
            steps += [opened[-1].filled(pieces[:done]) for done in range(count)]
        first = iter(probabilities[0] for probabilities in self._run(steps, options))
        found = []
        for whole, pieces in zip(opened, chains, strict=True):
            score = float(np.prod([next(first)[token] for token in pieces]))
            found.append(self._proposal(whole, score, pieces))
        return sorted(found, key=lambda guess: -guess["score"])[: options.top_k]

    def _proposal(self, masked: Masked, score: float, tokens: list[int]) -> dict[str, Any]:
        sequence = self.processor.decode(masked.filled(tokens).ids, skip_special_tokens=True)
        strings = [self.processor.decode([token]) for token in tokens]
        return {"score": score, "token": tokens, "token_str": strings, "sequence": sequence}

    def _run(self, rows: list[Masked], options: Options) -> list[np.ndarray]:
        """Probabilities at the masks of each row: (masks, V)."""
        import torch

        from triarch.engine import batches

        device = next(self.model.parameters()).device

        @torch.inference_mode()
        def compute(picked: list[Masked]) -> list[np.ndarray]:
            batch = self.processor.pad([row.ids for row in picked], [row.types for row in picked])
            on_device = {name: tensor.to(device) for name, tensor in batch.items()}
            return self._probabilities(on_device, [row.at for row in picked])

        lengths = [len(row.ids) for row in rows]
        return batches.run(rows, compute, lengths=lengths, budget=self.budget(), most=options.batch_size)

    def _probabilities(self, batch: dict[str, Tensor], places: list[list[int]]) -> list[np.ndarray]:
        """The head is run on the masks alone: the scores of all words at all positions are never formed."""
        import torch

        score_at = torch.zeros_like(batch["input_ids"], dtype=torch.bool)  # (B, T)
        for row, at in enumerate(places):
            score_at[row, at] = True
        words, *_ = self.model(**batch, score_at=score_at)  # (masks, V), which come first in both kinds of scores
        flat = softmax(words.float().cpu().numpy())
        return np.split(flat, np.cumsum([len(at) for at in places])[:-1])

    def _masks(self, window: Encoding) -> list[int]:
        return [i for i, token in enumerate(window.ids) if token == self.mask]
