"""Special tokens by how they are spelled: text from outside that spells one is to stay text.

Switching special tokens off is not enough: a vocabulary that lists them among its pieces still finds them there. So a
pipeline is made in which they are spelled otherwise, with something before them that no text has there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers import Tokenizer

from triarch.errors import InvalidInput


def special_tokens(tokenizer: Tokenizer) -> set[str]:
    """All but the unknown one that a model looks up by its name."""
    added = tokenizer.get_added_tokens_decoder().values()
    return {token.content for token in added if token.special} - {getattr(tokenizer.model, "unk_token", None)}


def respelled(tokenizer: Tokenizer, prefix: str) -> Tokenizer:
    """The same pipeline with `prefix` before the spelling of special tokens; their ids stay as they are."""
    state, special = json.loads(tokenizer.to_str()), special_tokens(tokenizer)
    model = state["model"]

    def spelled(token: str) -> str:
        return prefix + token if token in special else token

    if isinstance(model["vocab"], dict):
        model["vocab"] = {spelled(token): id_ for token, id_ in model["vocab"].items()}
    else:
        model["vocab"] = [[spelled(token), score] for token, score in model["vocab"]]
    if "merges" in model:
        model["merges"] = [m for m in model["merges"] if special.isdisjoint([*m, "".join(m)])]
    for token in state["added_tokens"]:
        token["content"] = spelled(token["content"])
    return Tokenizer.from_str(json.dumps(state))


class Guard:
    """Keeps special tokens that are spelled in a conversation apart from those that its template writes.

    `mark` puts a character that no text holds before the former, and `turn` moves it, in what the template made of
    them, to the latter. A tokenizer that knows special tokens with that character before them then finds the template's
    alone, and the text is as if nobody had touched it.
    """

    MARK = "\ufdd0"  # a noncharacter: Unicode keeps it for uses such as this

    def __init__(self, tokens: Iterable[str]):
        longest_first = sorted(map(re.escape, tokens), key=len, reverse=True)
        spelled = "|".join(longest_first) or "(?!)"
        self._token = re.compile(spelled)
        self._marked = re.compile(f"({self.MARK}?)({spelled})|{self.MARK}")  # a mark alone: its token was cut away
        self.found = False  # whether anything was marked

    def mark(self, value: Any) -> Any:
        """Texts, and lists and dicts of them to any depth. Raises InvalidInput where the mark is in a text already."""
        if isinstance(value, str):
            if self.MARK in value:
                raise InvalidInput("the conversation holds U+FDD0, which is no character; take it out")
            marked, count = self._token.subn(lambda hit: self.MARK + hit[0], value)
            self.found |= count > 0
            return marked
        if isinstance(value, Mapping):
            return {key: self.mark(one) for key, one in value.items()}
        return [self.mark(one) for one in value] if isinstance(value, list | tuple) else value

    def turn(self, text: str) -> str:
        return self._marked.sub(lambda hit: (hit[2] if hit[1] else self.MARK + hit[2]) if hit[2] else "", text)
