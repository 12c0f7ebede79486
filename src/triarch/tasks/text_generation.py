"""Go on with a text, or answer in a chat.

    triarch run text-generation "Once upon a time" --max-new-tokens 40 --seed 1 -m openai-community/gpt2

A template makes other tasks of it, as Radford et al. 2019, sections 3.5 to 3.7, found GPT-2 to do unprepared:

    triarch run text-generation story.txt --input-format whole --template $'{}\\nTL;DR:' -m MODEL
    triarch run text-generation asked.csv --template $'{context}\\nQ: {question}\\nA:' --stop $'\\n' -m MODEL

A prompt that leaves no room for an answer is refused, unless long="window" asks for its end alone to be read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from triarch.errors import InvalidInput, LimitExceeded, show
from triarch.generation.settings import NEW_TOKENS
from triarch.inputs.fit import Fit, Strategy
from triarch.inputs.text.given import text_of
from triarch.kinds import NextWordScores
from triarch.tasks import _generating
from triarch.tasks._base import Job
from triarch.tasks._generating import Generating

if TYPE_CHECKING:
    from triarch.generation.rows import Generated

ENCODING = ("add_special_tokens", "truncation", "max_length", "padding")  # of tokenizer_encode_kwargs, for any prompt
Chat = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Options(_generating.Options):
    return_full_text: bool | None = None  # the prompt stands before the answer; None: unless a template made it
    prefix: str = ""  # text before every prompt, which the answer does not repeat
    template: str | None = None  # the prompt, with {} in the place of the input, or {name} for a column of a row
    long: Strategy = "error"  # of a prompt that leaves no room: read its end, or beginning
    handle_long_generation: Literal["hole"] | None = None  # the reference's long="window"
    truncation: bool = False  # the reference's long="truncate"
    add_special_tokens: bool = True  # the tokenizer's own around the prompt; a chat brings its own
    tokenizer_encode_kwargs: dict[str, Any] | None = None  # more of the same; for a chat, variables of its template
    tools: list[Any] | None = None  # that the template of a chat may name
    documents: list[Any] | None = None  # the same
    continue_final_message: bool | None = None  # go on with a chat's last message; None: if it is the assistant's
    do_sample: bool = True  # draw the next token; else take the likeliest
    temperature: float = 0.7  # 0: the likeliest
    top_k: int = 50  # draw among the k likeliest; 0: among all

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.return_full_text is not None and (self.return_text or self.return_tensors):
            raise InvalidInput("return_full_text and return_text or return_tensors exclude each other; give one")
        if self.truncates and self.windows:
            raise InvalidInput("a prompt is cut at its beginning or at its end; name one of both")
        most = self.encoding.get("max_length")
        if most is not None and (type(most) is not int or most < 1):
            raise InvalidInput(f"max_length in tokenizer_encode_kwargs is {show(repr(most))}, wanted 1 or more tokens")
        if most is not None and not self.truncates:
            raise InvalidInput("max_length in tokenizer_encode_kwargs does nothing without truncation; give both")
        if self.template is not None and not re.search(r"\{\w*\}", self.template):
            raise InvalidInput(f"template {show(self.template)!r} has no {{}} for the input")

    @property
    def encoding(self) -> dict[str, Any]:
        return self.tokenizer_encode_kwargs or {}

    @property
    def truncates(self) -> bool:
        return self.truncation or bool(self.encoding.get("truncation")) or self.long == "truncate"

    @property
    def windows(self) -> bool:
        return self.handle_long_generation is not None or self.long == "window"

    @property
    def strategy(self) -> Strategy:
        return "truncate" if self.truncates else "window" if self.windows else "error"


class TextGeneration(Generating):
    """Text or chat -> [{"generated_text"}], one for each sequence. A chat is a list of {"role", "content"}."""

    NEEDS = (NextWordScores,)
    TRY = "Once upon a time"
    STARTERS = {"text-generation": "text-books"}
    OPTIONS = Options

    def single(self, inputs: Any, options: Options) -> bool:
        return isinstance(inputs, str | dict) or _is_chat(inputs)

    def read(self, given: Any, options: Options) -> str | Chat:
        if isinstance(given, dict) and given.get("messages") is not None:
            given = given["messages"]
            if not isinstance(given, list | tuple):
                raise InvalidInput(f"messages are {show(repr(given), 60)}, wanted a list of role and content")
        if isinstance(given, list | tuple):
            idle = [name for name in ("prefix", "template") if getattr(options, name)]
            if idle:
                raise InvalidInput(f"{idle[0]} does nothing to a chat; write it into a message")
            return _checked(given)
        idle = [name for name in ("tools", "documents", "continue_final_message") if getattr(options, name) is not None]
        if idle:
            raise InvalidInput(f"{idle[0]} does nothing to a text; give a chat, a list of role and content")
        return text_of(given, "text", "prompt") if options.template is None else _filled(options.template, given)

    def prepare(self, item: str | Chat, options: Options) -> Job:
        more = {name: value for name, value in options.encoding.items() if name not in ENCODING}
        specials = bool(options.encoding.get("add_special_tokens", options.add_special_tokens))
        if isinstance(item, list):
            ids, specials = self._written(item, more, options), False
        elif more:
            raise InvalidInput(f"tokenizer_encode_kwargs has {show(next(iter(more)))!r}, which only a chat takes")
        else:
            ids = self.processor.encode(options.prefix + item, special_tokens=False).ids
        ids, dropped = self._fitted(ids, specials, options)
        if not ids and (begin := self.processor.id("bos_token")) is not None:
            ids = [begin]  # an empty prompt asks for a text from its beginning
        return Job([self.prompt(ids, options)], len(ids) + dropped, dropped, notes=item)

    def answer(self, job: Job, outputs: list[list[Generated]], options: Options) -> list[dict[str, Any]]:
        (ids,) = job.contents
        return [
            self.record("generated", ids, self._shown(job.notes, found, options), found, options)
            for found in outputs[0]
        ]

    def _written(self, chat: Chat, variables: dict[str, Any], options: Options) -> list[int]:
        """The ids of a chat, as the checkpoint's template writes it."""
        goes_on = _goes_on(chat, options)
        template = variables.pop("chat_template", None)
        return self.processor.chat_ids(
            chat,
            tools=options.tools,
            documents=options.documents,
            add_generation_prompt=not goes_on,
            continue_final_message=goes_on,
            chat_template=template,
            variables=variables,
        )

    def _shown(self, given: str | Chat, found: Generated, options: Options) -> str | Chat:
        text = self.text(found, options)
        full = options.template is None if options.return_full_text is None else options.return_full_text
        if not full:
            return text
        if isinstance(given, str):
            return given + text
        if _goes_on(given, options):
            *before, last = given
            return [*before, {**last, "content": last["content"] + text}]
        return [*given, {"role": "assistant", "content": text}]

    def _fitted(self, ids: list[int], specials: bool, options: Options) -> tuple[list[int], int]:
        """The ids that the model reads, and how many of the prompt's were dropped. Raises LimitExceeded."""
        whole = self.processor.frame(ids)[0] if specials else ids
        context: int = self.model.config.max_tokens
        if options.strategy == "error":
            new = options.max_new_tokens or 1
            advice = f'{new:,} are to follow, so ask for fewer, or use long="window"'
            Fit(name="the prompt", advice=advice).refuse(len(whole), context - new)
            return whole, 0
        total = min(context, options.max_length or context)
        new = options.max_new_tokens or (1 if options.max_length else min(NEW_TOKENS, total // 2))
        most = total - new
        if options.strategy == "truncate":
            most = min(most, options.encoding.get("max_length") or most)
        around = len(whole) - len(ids)  # special tokens, which stay
        if most <= around:
            raise LimitExceeded(
                f"{new:,} tokens are to follow, the model takes {total:,} with the prompt; ask for at most "
                f"{total - around - 1:,}"
            )
        dropped = max(len(whole) - most, 0)
        if dropped:
            ids = ids[dropped:] if options.strategy == "window" else ids[:-dropped]
        return self.processor.frame(ids)[0] if specials else ids, dropped


def _is_chat(given: Any) -> bool:
    return isinstance(given, list | tuple) and bool(given) and isinstance(given[0], dict) and "role" in given[0]


def _checked(given: Any) -> Chat:
    if not given:
        raise InvalidInput("a chat has no message; give at least one")
    for message in given:
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise InvalidInput(f"a message is {show(repr(message), 60)}, wanted a dict with role and content")
    return list(given)


def _goes_on(chat: Chat, options: Options) -> bool:
    asked = options.continue_final_message
    goes_on = chat[-1]["role"] == "assistant" if asked is None else asked
    if goes_on and not isinstance(chat[-1]["content"], str):
        raise InvalidInput("the last message is no text to go on with; pass continue_final_message=False")
    return goes_on


def _filled(template: str, given: Any) -> str:
    """The template with what a row has under each name, and its text for {}."""

    def value(match: re.Match[str]) -> str:
        if not match[1]:
            return text_of(given, "text", "prompt")
        return text_of(given if isinstance(given, dict) else {"text": given}, match[1])

    return re.sub(r"\{(\w*)\}", value, template)
