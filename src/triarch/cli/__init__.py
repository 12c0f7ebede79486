"""The command line; one file per verb, and the file's name is the verb's.

    triarch run ner "Ada Lovelace lived in London" -m dslim/bert-base-NER

Here every error ends in one line on stderr and its own exit code (see `errors.py`); stdout carries results only. Verbs
import what they need when they run, so that help comes at once.
"""

import importlib
import io
import os
import pkgutil
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click
from click.shell_completion import shell_complete

from triarch import __version__
from triarch.cli._output import say, settle
from triarch.errors import TriarchError
from triarch.suggest import did_you_mean

VERBS = sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name[0] != "_")
COMPLETE = "_TRIARCH_COMPLETE"  # the variable in which a shell's completion script asks
INTERRUPTED, BROKEN_PIPE, TERMINATED = 130, 141, 143  # 128 + the number of the signal


class Verbs(click.Group):
    """Finds each verb in the file of its name."""

    def list_commands(self, context: click.Context) -> list[str]:
        return VERBS

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in VERBS and not context.resilient_parsing:  # a shell that asks for completions gets no error
            context.fail(f"No verb {name!r}{did_you_mean(name, VERBS)}; there are {', '.join(VERBS)}.")
        return importlib.import_module(f"{__name__}.{name}").command if name in VERBS else None


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="TRIARCH_MODEL stands in for -m; TRIARCH_DEBUG=1 shows the traceback of an error.",
)
@click.version_option(__version__, prog_name="triarch", message="%(prog)s %(version)s")
def triarch() -> None:
    """Every task of the transformers course on the original checkpoints.

    \b
    triarch list                                   what there is
    triarch run TASK "some text" -m MODEL          one input
    triarch run TASK notes.txt -m MODEL --jsonl    a file, line by line
    cat notes.txt | triarch run TASK -m MODEL      a pipe
    """


def main(args: list[str] | None = None) -> int:
    """Run one command line, by default the process's own, and return its exit code.

    SIGTERM ends it with SystemExit, so that half-written files are cleaned up on the way out.
    """
    _open_streams()
    with _sigterm_raises():
        try:
            return _run(sys.argv[1:] if args is None else args)
        except KeyboardInterrupt:
            return INTERRUPTED
        except BrokenPipeError:
            return BROKEN_PIPE
        except Exception as error:
            if os.environ.get("TRIARCH_DEBUG"):
                traceback.print_exc()
            message, code = _explained(error)
            say(message)
            return code
        finally:
            settle(sys.stdout)


def _run(args: list[str]) -> int:
    if instruction := os.environ.get(COMPLETE):
        with suppress(TriarchError, click.ClickException):  # half a command line is no error
            return shell_complete(triarch, {}, "triarch", COMPLETE, instruction)
        return 1
    try:
        with triarch.make_context("triarch", [*args]) as context:
            triarch.invoke(context)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.exceptions.Exit as done:
        return done.exit_code
    return 0


def _explained(error: Exception) -> tuple[str, int]:
    """The line that the user gets to see, and the exit code."""
    if isinstance(error, TriarchError):
        return str(error), error.exit_code
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        hint = f" See {context.command_path} --help." if context else ""
        return error.format_message() + hint, error.exit_code
    if isinstance(error, OSError):
        return f"reading or writing failed ({error}); check the disk", 1
    return f"internal error: {type(error).__name__}: {error}; set TRIARCH_DEBUG=1 for the traceback", 1


def _open_streams() -> None:
    """Streams that were closed lead nowhere, and results are UTF-8 whatever the locale, as JSON must be."""
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise SystemExit(TERMINATED)

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread, where alone a signal can be handled
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
