"""Which words of a source those of its target look at: what attention onto the source says of where words come from.

Bahdanau et al. 2014, section 5.2, https://arxiv.org/abs/1409.0473, drew it so. Of several layers the last but one is
taken for words, which Garg et al. 2019, section 4.1, https://arxiv.org/abs/1909.02074, found to align best; for
sentences the mean of all.

Shapes: T tokens of the target, S of the source.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from triarch.inputs.text.sentences import sentence_ends

if TYPE_CHECKING:
    from triarch.generation.rows import Generated
    from triarch.tasks._writing import Document, Piece, Writing

WORD = re.compile(r"\w+|[^\w\s]")
SUPPORT = 3  # sentences of the source that are named for one of the target
Span = tuple[int, int]


def words(task: Writing, document: Document, found: Sequence[Generated], options: Any) -> list[dict[str, Any]]:
    """Of each word of the targets in turn the word of the source that it looks at most, with the share that this has.

    Places count characters of the input. With alignment="all" each has the shares of all words of its piece, too.
    """
    made = []
    for piece, one in zip(document.pieces, found, strict=True):
        attention, source, target = _looked(task, piece, one, options, layer=-2)
        theirs = [match.span() for match in WORD.finditer(piece.text)]
        text = task.written(one, options)
        for match in WORD.finditer(text):
            shares = _shares(attention, source, target, match.span(), theirs)
            if not len(shares):
                continue
            looked = [_named(piece, *pair) for pair in zip(theirs, shares, strict=True)]
            entry = {"word": match.group()} | {"source": (best := looked[int(shares.argmax())]).pop("text")} | best
            if options.alignment == "all":
                entry["shares"] = [float(share) for share in shares]
            made.append(entry)
    return made


def supports(task: Writing, document: Document, found: Sequence[Generated], options: Any) -> list[dict[str, Any]]:
    """Of each sentence of the targets in turn the sentences of the source that it looks at most, the most first."""
    made = []
    for piece, one in zip(document.pieces, found, strict=True):
        attention, source, target = _looked(task, piece, one, options, layer=None)
        theirs = _sentences(piece.text)
        text = task.written(one, options)
        for start, end in _sentences(text):
            shares = _shares(attention, source, target, (start, end), theirs)
            most = (-shares).argsort(kind="stable")[:SUPPORT]
            named = [_named(piece, theirs[place], shares[place]) for place in most]
            made.append({"sentence": text[start:end], "sources": named})
    return made


def _named(piece: Piece, span: Span, share: float) -> dict[str, Any]:
    """A span of a piece, as it stands in the input."""
    start, end = span
    return {
        "text": piece.text[start:end],
        "start": piece.start + start,
        "end": piece.start + end,
        "score": float(share),
    }


def _looked(
    task: Writing, piece: Piece, one: Generated, options: Any, *, layer: int | None
) -> tuple[np.ndarray, list[Span], list[Span]]:
    """Attention (T, S) of the mean head, and where the tokens of both sides stand in their texts.

    What predicts a token is the attention of the one before it, so the first one of all has none.
    """
    import torch

    from triarch.family import EncoderDecoder

    assert isinstance(task.model, EncoderDecoder)
    ids = [*task.begin(options), *one.ids]
    device = next(task.model.parameters()).device
    with torch.inference_mode():
        layers = task.model.alignment(
            torch.tensor([piece.ids], device=device), None, torch.tensor([ids[:-1]], device=device)
        )
    picked = layers if layer is None else layers[layer:][:1] or layers[-1:]
    heads = torch.stack([maps[0].float().mean(0) for maps in picked]).mean(0)  # (T, S)
    before = len(options.prefix)
    source = [(start - before, end - before) for start, end in piece.encoding.offsets]
    target = task.processor.target
    spelled = [
        len(target.decode(ids[:size], options.skip_special_tokens, clean_up=False)) for size in range(1, len(ids) + 1)
    ]
    return heads.cpu().numpy(), source, list(pairwise(spelled))


def _shares(
    attention: np.ndarray, source: Sequence[Span], target: Sequence[Span], own: Span, theirs: Sequence[Span]
) -> np.ndarray:
    """How what stands at `own` in the target divides its attention among the spans `theirs` of the source."""
    rows = [i for i, span in enumerate(target) if _overlap(span, own)]
    if not rows:
        return np.zeros(0)
    looked = attention[rows].mean(0)
    sums = np.array([sum(looked[j] for j, span in enumerate(source) if _overlap(span, one)) for one in theirs])
    total = sums.sum()
    return sums / total if total else sums


def _overlap(one: Span, other: Span) -> bool:
    return max(one[0], other[0]) < min(one[1], other[1])


def _sentences(text: str) -> list[Span]:
    """Where its sentences stand, without the white space around them."""
    ends = [0, *sentence_ends(text), len(text)]
    found = []
    for start, end in pairwise(ends):
        if part := text[start:end].strip():
            first = start + text[start:end].index(part)
            found.append((first, first + len(part)))
    return found
