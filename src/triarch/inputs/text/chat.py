"""Conversations as text: the chat templates of a checkpoint, what they are given, and which part the model writes.

A template is a Jinja program that comes with the checkpoint, so it runs in a process of its own (rendering.py). What it
writes is, byte for byte, what the reference library has it write.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, TypeGuard, Unpack

from triarch import limits
from triarch.errors import CorruptFile, InvalidInput, LimitExceeded, UnsafeFile, Unsupported, show
from triarch.files import PLAIN_NAME, Folder
from triarch.inputs.text.rendering import Rendered, render
from triarch.inputs.text.spelling import Guard
from triarch.suggest import did_you_mean

Messages = Sequence[Mapping[str, Any]]
Spans = list[tuple[int, int]]

DEFAULT, TOOLS = "default", "tool_use"  # names of templates, the second for conversations with tools
ALONE, MORE, OLD = "chat_template.jinja", "additional_chat_templates", "chat_template.json"
GENERATION = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
LITERAL = re.compile(r"\{[{%#]")  # in a template, and in no name of one
GIVEN = ("messages", "tools", "documents", "add_generation_prompt")  # variables that are not anyone's to set
CONTINUED = "\ufdd1continued "  # ends the message that is to be continued, with a space that templates strip with it


class Options(TypedDict, total=False):
    """How a conversation is written."""

    tools: Sequence[Mapping[str, Any]] | None  # JSON schemas of functions
    documents: Sequence[Mapping[str, Any]] | None  # each with a title and a text, as most templates want them
    add_generation_prompt: bool  # end with what begins an answer
    continue_final_message: bool  # end inside the last message, for the model to go on with it
    chat_template: str | None  # a name of one of the checkpoint's, or a template
    variables: Mapping[str, Any] | None  # more for the template to read, such as date_string


@dataclass(frozen=True)
class Format:
    """How a checkpoint writes conversations: its templates, by their names, and the special tokens by their roles."""

    templates: Mapping[str, str]
    specials: Mapping[str, str]

    def write(self, messages: Messages, *, guard: Guard | None = None, **options: Unpack[Options]) -> str:
        """A conversation as text.

        A message is a dict with a role and a content, a text or a list of {"type": "text", "text": …}; what else it
        holds is the template's. A `guard` marks special tokens that are spelled in what the template is given. Raises
        InvalidInput for messages that are none, Unsupported where there is no template, and what `render` raises.
        """
        check_messages(messages)
        if not options.get("continue_final_message"):
            return self._render(messages, options, guard).text
        if options.get("add_generation_prompt"):
            raise InvalidInput(
                "add_generation_prompt begins a message, continue_final_message goes on with one; choose"
            )
        return self._continued(messages, options, guard)

    def spans(self, messages: Messages, tools: Sequence[Mapping[str, Any]] | None = None) -> tuple[str, Spans]:
        """A conversation as text, and the parts of it, in characters, that the model is to write.

        They are the template's `{% generation %}` blocks. In one without, they are what each message of the assistant
        adds to the messages before it with their generation prompt, up to the end token. Raises as `write` does, and
        Unsupported for a template that writes a message otherwise once others follow, and has no such blocks.
        """
        check_messages(messages)
        options: Options = {"tools": tools}
        whole = self._render(messages, options)
        if GENERATION.search(self._template(options)):
            return whole.text, whole.spans
        found = []
        for i, message in enumerate(messages):
            if message["role"] == "assistant":
                before = self._render(messages[:i], {**options, "add_generation_prompt": True}).text
                through = self._render(messages[: i + 1], options).text
                if not (through.startswith(before) and whole.text.startswith(through)):
                    raise Unsupported(
                        f"the chat template writes message {i} otherwise when more messages follow, so what the model "
                        "is to write of it cannot be told; put {% generation %} blocks into the template"
                    )
                found.append((len(before), len(through) - self._after_end(through[len(before) :])))
        return whole.text, found

    def _after_end(self, part: str) -> int:
        """Characters of white space that follow the end token: templates end lines, models stop before."""
        end = self.specials.get("eos_token")
        stripped = part.rstrip()
        return len(part) - len(stripped) if end and stripped.endswith(end) else 0

    def _render(self, messages: Messages, options: Options, guard: Guard | None = None) -> Rendered:
        tools, documents = options.get("tools"), options.get("documents")
        for what, listed in (("tools", tools), ("documents", documents)):
            if listed is not None and not _are_objects(listed):
                raise InvalidInput(f"{what} are {show(repr(listed), 60)}, wanted a list of dicts")
        more = options.get("variables") or {}
        if taken := [name for name in more if name in GIVEN]:
            raise InvalidInput(f"variables name {', '.join(taken)}, which have arguments of their own")
        given = {
            "messages": [{key: value for key, value in m.items() if value is not None} for m in messages],
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": bool(options.get("add_generation_prompt")),
        }
        _check_plain(variables := {**more, **given})
        return render(self._template(options), {**self.specials, **(guard.mark(variables) if guard else variables)})

    def _template(self, options: Options) -> str:
        """As the reference chooses. Raises Unsupported where there is none, InvalidInput for an unknown name."""
        asked = options.get("chat_template")
        if asked is not None and asked not in self.templates:
            if not LITERAL.search(asked):
                hint = did_you_mean(asked, self.templates)
                raise InvalidInput(
                    f"no chat template {show(asked)!r}{hint}; there are {', '.join(self.templates) or 'none'}"
                )
            if len(asked) > limits.TEMPLATE_CHARACTERS:
                raise LimitExceeded(
                    f"the chat template has {len(asked):,} characters, over {limits.TEMPLATE_CHARACTERS:,}"
                )
            return asked
        if asked is None:
            asked = TOOLS if options.get("tools") is not None and TOOLS in self.templates else DEFAULT
        if asked not in self.templates:
            names = ", ".join(self.templates)
            why = f"has the chat templates {names}, none of them {DEFAULT}" if names else "has no chat template"
            raise Unsupported(
                f"the checkpoint {why}; name one as chat_template, or use triarch generate without a chat"
            )
        return self.templates[asked]

    def _continued(self, messages: Messages, options: Options, guard: Guard | None) -> str:
        """The text up to the end of the last message's content, white space at its end as the template leaves it."""
        last = dict(messages[-1])
        content = last.get("content")
        if isinstance(content, str):
            last["content"] = content + CONTINUED
        elif content:
            last["content"] = [*content[:-1], {**content[-1], "text": content[-1]["text"] + CONTINUED}]
        text = self._render([*messages[:-1], last], options, guard).text
        head, mark, rest = text.rpartition(CONTINUED.rstrip())
        if not mark:
            raise InvalidInput("the chat template leaves out the content of the last message; it cannot be continued")
        return head if rest.startswith(" ") else head.rstrip()


def read_templates(folder: Folder, config: Mapping[str, Any]) -> dict[str, str]:
    """The templates of a checkpoint by their names; `config` is its tokenizer_config.json.

    Where there are files of templates, those in tokenizer_config.json do not count, and chat_template.json, which older
    processors wrote, comes last. Raises CorruptFile, UnsafeFile for a name that is not plain, LimitExceeded.
    """
    names = {DEFAULT: ALONE} if folder.has(ALONE) else {}
    names |= {name.removesuffix(".jinja"): f"{MORE}/{name}" for name in folder.names(MORE) if name.endswith(".jinja")}
    if len(names) > limits.TEMPLATES:
        raise LimitExceeded(
            f"{folder} has {len(names):,} chat templates, over {limits.TEMPLATES}; no model has as many"
        )
    found: Any = {name: _decoded(folder, file) for name, file in names.items()} or config.get("chat_template")
    if found is None and folder.has(OLD):
        old = folder.json(OLD)
        found = old.get("chat_template") if isinstance(old, dict) else old
    return _checked(_by_name(found), folder)


def saved(templates: Mapping[str, str]) -> str | list[dict[str, str]] | None:
    """What tokenizer_config.json holds of them, as every version of the reference reads it."""
    if templates.keys() == {DEFAULT}:
        return templates[DEFAULT]
    return [{"name": name, "template": template} for name, template in templates.items()] or None


def remove_template_files(folder: Path) -> None:
    """Those of an earlier save by another library, which would go before tokenizer_config.json."""
    for path in (folder / ALONE, folder / OLD, *(folder / MORE).glob("*.jinja")):
        path.unlink(missing_ok=True)


def check_messages(messages: object) -> None:
    """Raise InvalidInput unless these are messages, each with a role and a content, or calls of tools."""
    if not _are_objects(messages) or not messages:
        raise InvalidInput(f"messages are {show(repr(messages), 60)}, wanted a list of dicts with role and content")
    for i, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or not role:
            raise InvalidInput(f"message {i} has the role {show(repr(role))}, wanted system, user, assistant or tool")
        if content is None and not message.get("tool_calls"):
            raise InvalidInput(f"message {i} has no content; give it a text")
        if not isinstance(content, str | None):
            _check_parts(i, content)


def _check_parts(i: int, content: object) -> None:
    if not _are_objects(content) or not content:
        raise InvalidInput(f"message {i} has the content {show(repr(content), 60)}, wanted a text, or a list of parts")
    for part in content:
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise InvalidInput(
                f"message {i} has a part of the type {show(repr(part.get('type')))}; wanted "
                '{"type": "text", "text": …}, as the model takes text alone'
            )


def _are_objects(value: object) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list | tuple) and all(isinstance(one, Mapping) for one in value)


def _check_plain(value: object, depth: int = 0) -> None:
    """Raise InvalidInput for what JSON does not know, or would make something else of."""
    if depth > limits.CONVERSATION_DEPTH:
        raise LimitExceeded(f"the conversation is nested over {limits.CONVERSATION_DEPTH} deep; write it flatter")
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise InvalidInput(f"the conversation has the key {show(repr(odd[0]))}, wanted texts as keys")
        for one in value.values():
            _check_plain(one, depth + 1)
    elif isinstance(value, list | tuple):
        for one in value:
            _check_plain(one, depth + 1)
    elif value is not None and not isinstance(value, str | int | float):
        raise InvalidInput(f"the conversation holds a {type(value).__name__}, wanted values as JSON has them")


def _by_name(found: Any) -> Any:
    """Templates as a file lists them, or one alone -> by their names; what is none of these stays what it is."""
    if isinstance(found, str):
        return {DEFAULT: found}
    if isinstance(found, list) and all(isinstance(one, dict) for one in found):
        return {one.get("name"): one.get("template") for one in found}
    return {} if found is None else found


def _checked(templates: Any, folder: Folder) -> dict[str, str]:
    if not isinstance(templates, dict) or not all(isinstance(t, str) for pair in templates.items() for t in pair):
        raise CorruptFile(f"{folder} has a chat_template that is neither a text nor a list of named ones; mend it")
    if len(templates) > limits.TEMPLATES:
        raise LimitExceeded(f"{folder} has {len(templates):,} chat templates, over {limits.TEMPLATES}")
    for name, text in templates.items():
        if not PLAIN_NAME.fullmatch(name) or not name.strip("."):  # other libraries make file names of them
            raise UnsafeFile(f"{folder} has a chat template {show(name)!r}, which is not a plain name; do not use it")
        if len(text) > limits.TEMPLATE_CHARACTERS:
            raise LimitExceeded(
                f"{folder} has a chat template of {len(text):,} characters, over {limits.TEMPLATE_CHARACTERS:,}"
            )
    return templates


def _decoded(folder: Folder, name: str) -> str:
    try:
        text = folder.read(name, 4 * limits.TEMPLATE_CHARACTERS).decode("utf-8")
    except UnicodeDecodeError:
        raise CorruptFile(f"{folder.path / name} is not UTF-8 text; save it as UTF-8") from None
    return io.StringIO(text, newline=None).read()  # whatever ends its lines
