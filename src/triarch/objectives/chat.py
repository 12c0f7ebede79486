"""Instruction tuning: guess each next token of what the assistant says, having read the conversation up to there.

Ouyang et al. 2022, section 3.4, https://arxiv.org/abs/2203.02155; that questions are read and not learned is as in
Touvron et al. 2023, section 3.1, https://arxiv.org/abs/2307.09288.

A conversation becomes text by the chat template of the checkpoint, which also says which parts are the assistant's.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from triarch.data.columns import Candidate, Column
from triarch.errors import InvalidInput
from triarch.objectives._base import IGNORED, Example
from triarch.objectives._next_words import NextWords


@dataclass(kw_only=True)
class Chat(NextWords):
    FIELDS: ClassVar[dict[str, Column]] = {
        "messages": Column("messages", usual=("conversation",)),
        "tools": Column("objects", optional=True, gaps=True),
    }
    KEYS: ClassVar[tuple[tuple[str, ...], ...]] = (("messages",),)
    RANK: ClassVar[int] = 1

    max_tokens: int | None = None  # of one conversation; none: what the model takes

    def __post_init__(self) -> None:
        super().__post_init__()
        self._most = self.most_tokens(self.max_tokens)

    @classmethod
    def is_mine(cls, candidate: Candidate) -> bool:
        return candidate.lists("messages")

    def examples(self, row: dict[str, Any]) -> list[Example]:
        """A token is learned if any of its characters is the assistant's: a space before a word may be the template's.

        Raises InvalidInput for a conversation that is too long, for nothing of it is cut, or in which the assistant
        says nothing, and what the template raises.
        """
        text, spans = self.processor.chat_spans(row["messages"], tools=row.get("tools"))
        encoding = self.processor.encode(text, special_tokens=False)  # those that the template wants it writes itself
        ids, offsets = np.array(encoding.ids, np.int64), np.array(encoding.offsets).reshape(-1, 2)
        if (tokens := len(ids) - 1) > self._most:  # the last one is guessed, not read
            raise InvalidInput(
                f"the conversation has {tokens:,} tokens, at most {self._most:,} fit, and none is cut; "
                "ask for a larger max_tokens, or leave the row out"
            )
        learned = np.zeros(len(ids), bool)
        for start, end in spans:
            learned |= (offsets[:, 0] < end) & (offsets[:, 1] > start)
        if not learned[1:].any():
            raise InvalidInput("the assistant says nothing in this conversation; leave the row out")
        words = np.where(learned, ids, IGNORED)[1:]
        return [Example(array("I", ids[:-1].tolist()), [0] * tokens, words, [tokens])]
