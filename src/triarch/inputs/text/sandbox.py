"""The process in which chat templates run: Jinja programs from outside, which may loop, grow and recurse as they like.

`rendering.py` starts it. Jinja's sandbox keeps a template away from Python; what it does not bound, the system does:
memory by RLIMIT_AS, time by a timer of the processor's time that ends the process. Nothing inside of Python can bound
the time of `'a' * 10**9`, which is one instruction.

One request a line on stdin, `{"template": …, "variables": {…}}`, and one reply a line on stdout: `{"text": …, "spans":
[[begin, end], …]}`, the spans being those of `{% generation %}` blocks, or `{"error": …, "message": …}`. Without memory
it ends, with ENOMEM as its status.
"""

from __future__ import annotations

import errno
import json
import resource
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import pass_eval_context

from triarch import limits

KEPT = 16  # compiled templates


def serve() -> None:
    """Answer requests until there are no more."""
    resource.setrlimit(resource.RLIMIT_AS, (limits.TEMPLATE_MEMORY, limits.TEMPLATE_MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    try:
        for line in sys.stdin.buffer:
            sys.stdout.buffer.write(json.dumps(_answer(**json.loads(line))).encode() + b"\n")
            sys.stdout.buffer.flush()
    except MemoryError:
        sys.exit(errno.ENOMEM)


def _answer(template: str, variables: dict[str, Any]) -> dict[str, Any]:
    signal.setitimer(signal.ITIMER_PROF, limits.TEMPLATE_SECONDS)
    try:
        text, spans = render(compiled(template), variables)
        return {"text": text, "spans": spans}
    except RecursionError:
        return {"error": "depth", "message": ""}
    except OverflowError as error:  # a range that is too long, or a string that no address could hold
        return {"error": "size", "message": str(error)[:500]}
    except SecurityError as error:
        return {"error": "unsafe", "message": str(error)[:500]}
    except TemplateSyntaxError as error:
        return {"error": "syntax", "message": f"line {error.lineno}: {error.message}"[:500]}
    except Refused as error:
        return {"error": "refused", "message": str(error)[:500]}
    except MemoryError:
        raise
    except Exception as error:  # whatever Python raises for what the template does with the messages
        return {"error": "failed", "message": f"{type(error).__name__}: {error}"[:500]}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


@lru_cache(KEPT)
def compiled(text: str) -> Template:
    """Raises SecurityError for a template that reads other templates, which a checkpoint's cannot."""
    environment = Environment()
    if any(environment.parse(text).find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends))):
        raise SecurityError("it reads other files")
    return environment.from_string(text)


def render(template: Template, variables: dict[str, Any]) -> tuple[str, list[tuple[int, int]]]:
    """The text, and where the blocks of `{% generation %}` lie in it."""
    tracked = template.environment
    assert isinstance(tracked, Environment)
    parts, tracked.written, tracked.spans = [], 0, []
    for part in template.generate(**variables):
        parts.append(part)
        tracked.written += len(part)
        if tracked.written > limits.RENDERED_CHARACTERS:
            raise OverflowError(f"it writes over {limits.RENDERED_CHARACTERS:,} characters")
    return "".join(parts), tracked.spans


class Refused(TemplateError):
    """Raised by a template itself, for messages that it does not take."""


class Generation(Extension):
    """`{% generation %} … {% endgeneration %}`: what the model writes, as opposed to what it is given."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_noted"), [], [], body).set_lineno(line)

    @pass_eval_context
    def _noted(self, _: nodes.EvalContext, caller: Callable[[], str]) -> str:
        text = caller()
        assert isinstance(self.environment, Environment)
        begin = self.environment.written
        self.environment.spans.append((begin, begin + len(text)))
        return text


class Environment(ImmutableSandboxedEnvironment):
    """What templates are written for: blocks leave no lines, and there are a few functions beside Jinja's own."""

    written: int  # characters so far
    spans: list[tuple[int, int]]

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
        self.filters["tojson"] = to_json
        self.globals |= {"raise_exception": refuse, "strftime_now": strftime_now, "dict": Dict()}

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
        """Where Jinja gives a value that raises once it is used, what begins with an underscore raises at once."""
        if attribute.startswith("_"):
            raise SecurityError(f"it asks for {attribute!r} of a {type(obj).__name__}")
        return super().unsafe_undefined(obj, attribute)


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own escapes what would be HTML, which no prompt is."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def refuse(message: str) -> NoReturn:
    raise Refused(message)


def strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


class Dict:
    """Makes dicts, and has nothing of the class itself, whose methods would change the messages."""

    fromkeys = staticmethod(dict.fromkeys)

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)
