"""What a target begins with: the one rule that training, generating and translating go by.

A decoder is given a start token first, and is guessed or made to write the rest. Where texts say their language, this
is said by the first token that is written, as in mBART-50, or by the start token itself, as in mBART, whose texts have
their language behind them. Liu et al. 2020, section 2.2, https://arxiv.org/abs/2001.08210
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from triarch.errors import InvalidInput, show

if TYPE_CHECKING:
    from triarch.inputs.text.processor import TextProcessor

START, FIRST = "decoder_start_token_id", "forced_bos_token_id"


def language_settings(reader: TextProcessor) -> dict[str, int | None]:
    """The settings by which the language of what is written from the reader's texts is said; none if it is not said."""
    around, _ = reader.target.frame([])
    languages = set(reader.languages.values())
    if around and around[0] in languages:
        return {FIRST: around[0]}
    if around and around[-1] in languages:
        return {START: around[-1], FIRST: None}
    return {}


def configured_start(config: Mapping[str, Any]) -> Any:
    """The start token by config.json: None if it says none."""
    return config.get(START, config.get("bos_token_id"))


def target_start(start: Any, vocab: int, more: Sequence[int] = ()) -> list[int]:
    """The ids that a target begins with: the start token, and what else is given. Raises InvalidInput for none at all,
    and for ids that are none of the vocabulary's."""
    if start is None and not more:
        raise InvalidInput(
            f"the checkpoint does not say what a target begins with; add {START} to config.json, or give it"
        )
    begin = [*more] if start is None or [*more[:1]] == [start] else [start, *more]
    for token in begin:
        if type(token) is not int or not 0 <= token < vocab:
            raise InvalidInput(f"a target begins with {show(repr(token))}, wanted 0 to {vocab - 1}; give {START}")
    return begin


def ids_of_roles(usual: Mapping[str, Any], roles: Mapping[str, str], processor: TextProcessor) -> dict[str, int]:
    """What targets of a new model begin and end with, by the names of config.json: the tokens of this tokenizer that
    have the same roles as in the family's `usual` config. `roles`: under which name config.json has the id of each."""
    found: dict[str, int] = {}
    for key in (START, "forced_eos_token_id"):
        for role, name in roles.items():
            if usual.get(key) is not None and usual[key] == usual.get(name) and (id_ := processor.id(role)) is not None:
                found.setdefault(key, id_)
    return found
