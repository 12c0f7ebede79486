"""A conversation with a model: what was said, answers word by word, and the way back.

It stands among the tasks, as it joins what `inputs` knows of chat templates with `generation`, which knows no formats.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triarch.errors import InvalidInput, LimitExceeded, Unsupported, show
from triarch.files import parse_json, write_text
from triarch.generation.settings import RENAMED, Settings, make

if TYPE_CHECKING:
    from triarch.family import Network
    from triarch.generation.rows import Reason

ANSWER = 1024  # tokens of an answer, where nothing says how many and there is room for them


@dataclass(frozen=True)
class Answered:
    """How an answer ended."""

    reason: Reason
    tokens: int  # of the answer
    reused: int  # of the conversation before it, that had not to be read again
    full: bool  # it was cut as there is no room left


class Conversation:
    """One with one model. What was computed of it is kept between its turns.

    Raises Unsupported for a model without a tokenizer or a chat template, InvalidInput for options that cannot be used.
    """

    def __init__(self, model: Network, *, system: str | None = None, options: Mapping[str, Any] | None = None):
        from triarch.generation import Prefix

        if model.processor is None or not model.processor.chat_format.templates:
            raise Unsupported(
                "the checkpoint has no chat template, so it was hardly made for conversations; use triarch generate"
            )
        self.model, self.prefix = model, Prefix()
        self.messages: list[dict[str, Any]] = []
        self.options: dict[str, Any] = {}
        self.last: Answered | None = None
        self._set(dict(options or {}))
        if system is not None:
            self.system = system

    @property
    def context(self) -> int:
        """Tokens that the model takes, with those of its answer."""
        most: int = self.model.config.max_tokens
        return most

    @property
    def tokens(self) -> int:
        """Tokens of what was said."""
        return len(self.model.processor.chat_ids(self.messages)) if self.messages else 0

    @property
    def system(self) -> str | None:
        """What the system says first. Setting it raises what `chat_ids` raises for a template that takes none."""
        first = self.messages[0] if self.messages else {}
        return first["content"] if first.get("role") == "system" else None

    @system.setter
    def system(self, text: str) -> None:
        said = self.messages[1:] if self.system is not None else self.messages
        changed = [{"role": "system", "content": text}, *said]
        self.model.processor.chat_ids([*changed[:1], {"role": "user", "content": "?"}])
        self.messages = changed

    def set(self, name: str, value: Any) -> None:
        """An option of every answer to come; None is the checkpoint's own again. Raises InvalidInput."""
        name = RENAMED.get(name, name)
        changed = {**self.options, name: value}
        if value is None:
            if name not in self.options:
                raise InvalidInput(f"{show(name)} is not set")
            del changed[name]
        self._set(changed)

    def ask(self, text: str, cancelled: Callable[[], bool] | None = None) -> Iterator[str]:
        """Say something; the answer comes in pieces, and counts as said once it is whole.

        An answer that `cancelled` ends counts as far as it came. Raises LimitExceeded for a conversation that leaves no
        room for an answer, and what `stream` raises; nothing was said then.
        """
        return self._answer([*self.messages, {"role": "user", "content": text}], cancelled)

    def again(self, cancelled: Callable[[], bool] | None = None) -> Iterator[str]:
        """Another answer in the place of the last one, which stays if this raises. Raises as `ask` does."""
        return self._answer(self.messages[: self._last_turn() + 1], cancelled)

    def undo(self) -> str:
        """Take back the last turn, and return what was asked in it. Raises InvalidInput where there is none."""
        turn = self._last_turn()
        asked = self.messages[turn]["content"]
        self.messages = self.messages[:turn]
        return asked if isinstance(asked, str) else "".join(part["text"] for part in asked)

    def clear(self) -> None:
        """Begin anew; what the system says stays."""
        self.messages = [] if self.system is None else self.messages[:1]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the messages as JSON. Raises TriarchError where that cannot be."""
        write_text(Path(path), json.dumps(self.messages, ensure_ascii=False, indent=2) + "\n")

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on with a conversation from a file that `save` wrote, or a JSON object with its "messages".

        Raises NotFound, CorruptFile, and InvalidInput for what is no conversation, or not one for this model.
        """
        from triarch.data.inputs import read_rows

        found = parse_json(next(read_rows(Path(path), kind="whole")).encode(), str(path))
        messages: Any = found.get("messages") if isinstance(found, dict) else found
        self.model.processor.chat_ids(messages)
        self.messages = [dict(message) for message in messages]

    def _answer(self, said: list[dict[str, Any]], cancelled: Callable[[], bool] | None) -> Iterator[str]:
        from triarch.generation import stream

        ids = self.model.processor.chat_ids(said, add_generation_prompt=True)
        settings = self._made(self.options)
        whole = min(self.context, settings.max_length or self.context)
        room = whole - len(ids)
        if room < 1:
            raise LimitExceeded(
                f"the conversation would have {len(ids):,} tokens, {whole:,} are what it may have with the answer; say "
                "less, undo some of it, or begin anew"
            )
        chosen = {"num_beams": 1} | {name: value for name, value in self.options.items() if name != "max_length"}
        chosen["max_new_tokens"] = min(settings.max_new_tokens or ANSWER, room)
        pieces = stream(self.model, ids, prefix=self.prefix, cancelled=cancelled, **chosen)

        def told() -> Iterator[str]:
            texts, tokens = [], 0
            for piece in pieces:
                texts.append(piece.text)
                tokens += len(piece.ids)
                yield piece.text
            reason = piece.finish_reason
            assert reason is not None
            self.last = Answered(reason, tokens, self.prefix.reused, reason == "length" and tokens == room)
            self.messages = [*said, {"role": "assistant", "content": "".join(texts)}]

        return told()

    def _last_turn(self) -> int:
        """Where the last message of the user is."""
        for i in reversed(range(len(self.messages))):
            if self.messages[i]["role"] == "user":
                return i
        raise InvalidInput("nothing was said yet")

    def _set(self, options: dict[str, Any]) -> None:
        if self._made(options).rows > 1:
            raise InvalidInput("a conversation has one answer at a time; leave num_beams and num_return_sequences out")
        self.options = options

    def _made(self, options: Mapping[str, Any]) -> Settings:
        """Without the beams of a checkpoint, which are not decided before the end."""
        return make(self.model, {"num_beams": 1, **options})
