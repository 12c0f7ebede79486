"""What a caller gives as prompts -> ids of each, checked."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from triarch.errors import InvalidInput, show, some
from triarch.family import Network


def read(model: Network, inputs: Any) -> tuple[list[list[int]], bool]:
    """Ids of each prompt, and whether there was one alone. Raises InvalidInput."""
    mask = None
    if isinstance(inputs, dict):
        if others := inputs.keys() - {"input_ids", "attention_mask"}:
            raise InvalidInput(f"inputs hold {some(sorted(map(str, others)))}, wanted input_ids and attention_mask")
        inputs, mask = inputs.get("input_ids"), inputs.get("attention_mask")
        if mask is not None and getattr(mask, "shape", None) != getattr(inputs, "shape", ()):
            raise InvalidInput("input_ids and attention_mask are not two tensors of the same shape (B, T); mend them")
    if isinstance(inputs, Tensor):
        if inputs.ndim not in (1, 2):
            raise InvalidInput(f"ids have the shape {[*inputs.shape]}, wanted (T,) or (B, T)")
        rows = inputs.tolist() if inputs.ndim == 2 else [inputs.tolist()]
        if mask is not None:
            kept = mask.reshape(len(rows), -1).bool().tolist()
            rows = [[token for token, real in zip(*pair, strict=True) if real] for pair in zip(rows, kept, strict=True)]
        return _checked(model, rows), inputs.ndim == 1
    if isinstance(inputs, str):
        return _checked(model, [_encoded(model, inputs)]), True
    if isinstance(inputs, list | tuple) and inputs and all(isinstance(one, str) for one in inputs):
        return _checked(model, [_encoded(model, one) for one in inputs]), False
    if isinstance(inputs, list | tuple) and inputs and all(type(one) is int for one in inputs):
        return _checked(model, [list(inputs)]), True
    if isinstance(inputs, list | tuple) and inputs and all(isinstance(one, list | tuple) for one in inputs):
        return _checked(model, [list(one) for one in inputs]), False
    raise InvalidInput(f"inputs are {show(repr(inputs), 60)}, wanted a text, ids, or a list of either")


def _encoded(model: Network, text: str) -> list[int]:
    if model.processor is None:
        raise InvalidInput("the checkpoint has no tokenizer; give ids, or put a tokenizer beside the weights")
    ids: list[int] = model.processor.encode(text).ids
    return ids


def _checked(model: Network, prompts: list[list[int]]) -> list[list[int]]:
    vocab = model.config.vocab_size
    if not prompts:
        raise InvalidInput("there is no prompt; give at least one")
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise InvalidInput(f"prompt {number} is empty; begin with a word, or with the beginning-of-text token")
        if wrong := [token for token in prompt if type(token) is not int or not 0 <= token < vocab]:
            raise InvalidInput(f"prompt {number} has the id {show(repr(wrong[0]))}, wanted 0 to {vocab - 1}")
    return prompts
