"""Talk to a model in the terminal."""

import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

from triarch.cli._generating import SETTINGS, given, load
from triarch.cli._inputs import MODEL
from triarch.cli._options import value_of
from triarch.cli._output import harmless, say
from triarch.errors import InvalidInput, TriarchError, show
from triarch.suggest import did_you_mean

if TYPE_CHECKING:
    from triarch.tasks._chat import Conversation

PROMPT = "> "
HELP = """\
/help                 this list
/system TEXT          what the system says first
/clear                begin anew; what the system says stays
/undo                 take back the last turn
/retry                another answer to it
/save FILE            write the conversation as JSON
/load FILE            go on with one
/set [OPTION [VALUE]] change an option of generating, such as temperature; without VALUE it is the model's own again
/tokens               how much of the model's context is used
/quit                 leave; so does Ctrl-D

A line that ends in \\ goes on in the next. Ctrl-C stops an answer. Two slashes begin a message that begins with one."""


@click.command(params=[*MODEL, click.Option(["--system"], help="What the system says first."), *SETTINGS])
@click.pass_context
def command(context: click.Context, system: str | None, **flags: Any) -> None:
    """Talk to a model in the terminal, or through a pipe, a message a line.

    \b
    triarch chat -m HuggingFaceTB/SmolLM2-135M-Instruct
    triarch chat -m MODEL --system "Answer in rhymes." --do-sample --temperature 0.7
    printf 'Who was Ada?\\nWhere did she live?\\n' | triarch chat -m MODEL

    The model needs a chat template; `triarch generate` goes on with any text. /help lists what can be typed.
    """
    from triarch.tasks._chat import Conversation

    settings = given(context, flags)
    conversation = Conversation(load(flags, settings, from_source=False), system=system, options=settings)
    terminal = sys.stdin.isatty()
    if terminal:
        say("/help lists the commands, Ctrl-D leaves")
    program = _Program(conversation)
    for text in _messages(_typed() if terminal else _piped()):
        try:
            if program.take(text):
                break
        except TriarchError as error:
            if not terminal:  # what follows in a pipe was written for an answer that is not there
                raise
            say(str(error))


def _typed() -> Iterator[str]:
    """Lines from a keyboard. Where stdout is none, the prompt goes to stderr, as stdout has answers alone."""
    with suppress(ImportError):
        import readline

        readline.set_auto_history(True)  # input() asks this module for lines, once it is imported
    while True:
        try:
            if sys.stdout.isatty():
                yield input(PROMPT)
            else:
                print(PROMPT, end="", file=sys.stderr, flush=True)
                if not (line := sys.stdin.readline()):
                    return
                yield line.rstrip("\n")
        except KeyboardInterrupt:  # the line is given up, not the program
            print(file=sys.stderr)
        except EOFError:
            print(file=sys.stderr)
            return
        except UnicodeDecodeError:
            say("what was typed is not UTF-8; try again")


def _piped() -> Iterator[str]:
    from triarch.data.inputs import numbered_lines

    for _, line in numbered_lines(sys.stdin.buffer, "stdin"):
        if isinstance(line, TriarchError):
            raise line
        yield line


def _messages(lines: Iterable[str]) -> Iterator[str]:
    """What is said, without blank lines."""
    begun = ""
    for line in lines:
        if line.endswith("\\"):
            begun += line[:-1] + "\n"
            continue
        if (begun + line).strip():
            yield begun + line
        begun = ""
    if begun.strip():
        yield begun


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C is noted, for whoever asks the function that this gives; a second one interrupts."""
    pressed = False

    def note(*_: Any) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


class _Program:
    """Does what is typed."""

    def __init__(self, conversation: "Conversation"):
        self.conversation = conversation
        self.shown = harmless if sys.stdout.isatty() else str
        self.commands: dict[str, Callable[[str], None]] = {
            "help": lambda _: print(HELP),
            "system": self.system,
            "clear": lambda _: conversation.clear(),
            "undo": self.undo,
            "retry": lambda _: self.answer(conversation.again),
            "save": lambda file: conversation.save(_named(file)),
            "load": self.load,
            "set": self.set,
            "tokens": self.tokens,
        }

    def take(self, text: str) -> bool:
        """A command or a message; whether it was the last. Raises TriarchError."""
        if not text.startswith("/") or text.startswith("//"):
            said = text.removeprefix("/") if text.startswith("//") else text
            self.answer(lambda cancelled: self.conversation.ask(said, cancelled))
            return False
        name, _, rest = text[1:].partition(" ")
        if name == "quit":
            return True
        if name not in self.commands:
            raise InvalidInput(f"no command /{show(name)}{did_you_mean(name, self.commands)}; /help lists them")
        self.commands[name](rest.strip())
        return False

    def answer(self, asked: Callable[[Callable[[], bool]], Iterator[str]]) -> None:
        """Write an answer as it comes, and say how it ended if not by itself."""
        with _interruptible() as pressed:
            try:
                for piece in asked(pressed):
                    print(self.shown(piece), end="", flush=True)
            except KeyboardInterrupt:
                print()
                say("stopped, and not counted as said")
                return
        print(flush=True)
        last = self.conversation.last
        assert last is not None
        if last.full:
            say(f"cut: the {self.conversation.context:,} tokens of the model are full; /undo or /clear makes room")
        elif last.reason != "stop":
            why = {"cancelled": "stopped", "time": "out of time"}.get(last.reason, "cut")
            say(f"{why} after {last.tokens:,} tokens; /set max_new_tokens allows for more" if why == "cut" else why)

    def system(self, text: str) -> None:
        if text:
            self.conversation.system = text
        else:
            print(self.shown(self.conversation.system or "(nothing)"))

    def undo(self, _: str) -> None:
        say(f"taken back: {self.conversation.undo()}")

    def load(self, file: str) -> None:
        self.conversation.load(_named(file))
        say(f"{len(self.conversation.messages):,} messages")

    def set(self, rest: str) -> None:
        name, _, value = rest.partition(" ")
        if name:
            self.conversation.set(name.replace("-", "_"), value_of(value.strip()) if value else None)
        else:
            for option, chosen in self.conversation.options.items():
                print(f"{option} {self.shown(str(chosen))}")

    def tokens(self, _: str) -> None:
        print(f"{self.conversation.tokens:,} of {self.conversation.context:,}")


def _named(file: str) -> str:
    if not file:
        raise InvalidInput("no file; name one after the command")
    return file
