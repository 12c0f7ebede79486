"""Renders chat templates, in a process of its own that the system holds to its memory and time (see sandbox.py).

The process starts with the first template, in about a tenth of a second, and serves all that follow in well under a
millisecond each. It has neither the environment of this one nor its terminal, and ends with it.
"""

from __future__ import annotations

import atexit
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from triarch import limits
from triarch.errors import CorruptFile, InvalidInput, LimitExceeded, TriarchError, UnsafeFile, show

PROGRAM = "import sys; sys.path[:] = {path!r}; from triarch.inputs.text.sandbox import serve; serve()"
PASSED_ON = ("TZ", "LD_LIBRARY_PATH")  # of the environment, which may hold secrets


class Rendered(NamedTuple):
    text: str
    spans: list[tuple[int, int]]  # of `{% generation %}` blocks


def render(template: str, variables: Mapping[str, Any]) -> Rendered:
    """A template with values of JSON. Threads may call it.

    Raises UnsafeFile for a template that reaches for more than its variables, CorruptFile for one that is no Jinja,
    LimitExceeded for one that takes too much time, memory or depth, or writes too much, and InvalidInput for
    conversations that it does not take.
    """
    global _worker
    request = _request(template, variables)
    with _lock:
        if _worker is not None and not _worker.alive:
            _worker.close()
            _worker = None
        if _worker is None:
            _worker = _Worker()
        reply = _worker.ask(request)
    if "error" not in reply:
        return Rendered(reply["text"], [(begin, end) for begin, end in reply["spans"]])
    raise _error(reply["error"], show(reply["message"], 200))


def _request(template: str, variables: Mapping[str, Any]) -> bytes:
    try:
        request = json.dumps({"template": template, "variables": variables}).encode()
    except (TypeError, ValueError, RecursionError) as error:  # a number of thousands of digits, a list in itself
        raise InvalidInput(f"the conversation cannot be written as JSON ({show(error)}); pass plain values") from None
    if len(request) > limits.CONVERSATION_BYTES:
        raise LimitExceeded(f"the conversation has over {limits.CONVERSATION_BYTES:,} bytes; leave some messages out")
    return request


def _error(kind: str, message: str) -> TriarchError:
    match kind:
        case "unsafe":
            return UnsafeFile(f"the chat template is refused: {message}; do not use it")
        case "syntax":
            return CorruptFile(f"the chat template is no Jinja ({message}); mend it, or download it again")
        case "refused":
            return InvalidInput(f"the chat template does not take these messages: {message}")
        case "failed":
            return InvalidInput(f"the chat template cannot write these messages ({message}); check their fields")
        case "time":
            return LimitExceeded(f"the chat template took over {limits.TEMPLATE_SECONDS} s; do not use it")
        case "size":
            return LimitExceeded(
                f"the chat template makes too much ({message}); shorten the messages, or do not use it"
            )
        case "depth":
            return LimitExceeded("the chat template is nested too deep; do not use it")
        case "memory":
            return LimitExceeded(
                f"the chat template took over {limits.TEMPLATE_MEMORY:,} bytes of memory; do not use it"
            )
    return UnsafeFile(f"the chat template broke the process that it runs in ({message}); do not use it")


class _Worker:
    """The process. It is asked by one thread at a time."""

    def __init__(self) -> None:
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", PROGRAM.format(path=sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in PASSED_ON if name in os.environ},
                start_new_session=True,  # Ctrl-C in a terminal goes to all processes of a session
            )
        except OSError as error:
            raise TriarchError(f"cannot start the process for chat templates ({error.strerror})") from None

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def ask(self, request: bytes) -> dict[str, Any]:
        """The reply; where the process ended, the error that says why. Whatever interrupts this ends the process."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            try:
                self.process.stdin.write(request + b"\n")
                self.process.stdin.flush()
            except BrokenPipeError:
                line = b""
            else:
                line = self.process.stdout.readline()
            if line.endswith(b"\n"):
                reply: dict[str, Any] = json.loads(line)
                return reply
        except BaseException:
            self.process.kill()
            self.close()
            raise
        self.close()
        ended = self.process.returncode
        kind = {-signal.SIGPROF: "time", errno.ENOMEM: "memory"}.get(ended, "crash")
        return {"error": kind, "message": f"it ended with {ended}"}

    def close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):  # of a request that was not read
                stream.close()
        self.process.wait()


_lock = threading.Lock()
_worker: _Worker | None = None


def _end() -> None:
    if _worker is not None:
        _worker.close()


def _forget() -> None:
    """A process that was forked must not talk to the worker of the one that it came from."""
    global _lock, _worker
    _lock, _worker = threading.Lock(), None


atexit.register(_end)
os.register_at_fork(after_in_child=_forget)
