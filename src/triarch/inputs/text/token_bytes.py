"""How much text each token of a vocabulary stands for."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from triarch.inputs.text.processor import TextProcessor

BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # how vocabularies from SentencePiece write a byte of an unknown character


def token_bytes(processor: TextProcessor) -> np.ndarray:
    """(V,) int64: the bytes in UTF-8 of the text that each token stands for after others; 0 for special ones.

    Of byte-level vocabularies, and of those that fall back on bytes, the sum over the tokens of a text is its size. So
    it is of others whose tokens come back as the text that they were made of, as normalised.
    """
    tokenizer = processor.tokenizer
    added = tokenizer.get_added_tokens_decoder()
    kinds = _kinds(json.loads(tokenizer.to_str())["decoder"])
    sizes = np.zeros(processor.vocab_size, np.int64)
    ordinary = processor.ordinary_ids
    before = len(tokenizer.decode(ordinary[:1]).encode()) if ordinary else 0
    for id_ in ordinary:
        token = tokenizer.id_to_token(id_) or ""
        if id_ in added:
            sizes[id_] = len(token.encode())
        elif "ByteLevel" in kinds:  # a letter for each byte
            sizes[id_] = len(token)
        elif "ByteFallback" in kinds and BYTE.fullmatch(token):
            sizes[id_] = 1
        else:
            sizes[id_] = len(tokenizer.decode([ordinary[0], id_]).encode()) - before
    return sizes


def _kinds(decoder: dict[str, Any] | None) -> set[str]:
    """The steps of a decoder."""
    if decoder is None:
        return set()
    return {decoder["type"]}.union(*map(_kinds, decoder.get("decoders", [])))
