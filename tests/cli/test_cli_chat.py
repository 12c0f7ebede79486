"""Conversations: with a model in Python, in a real terminal, and through a pipe."""

import json
import os
import pty
import re
import select
import subprocess
import sys
from io import BytesIO, TextIOWrapper

import pytest

import tiny
import triarch
from chats import CHATML, TEMPLATES
from triarch.cli import main
from triarch.errors import CorruptFile, InvalidInput, LimitExceeded, NotFound, Unsupported
from triarch.tasks._chat import Conversation

TEMPLATE = CHATML.replace("<|im_start|>", "<s>").replace("<|im_end|>", "</s>")
TEN = {"max_new_tokens": 10}


def write_model(folder, template=TEMPLATE, **config):
    tiny.write_checkpoint(folder, **tiny.MODELS["gpt2"], **{"n_positions": 256, **config})
    (folder / "chat_template.jinja").write_text(template)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a GPT-2 with a chat template."""
    return write_model(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def loaded(model):
    return triarch.load(model)


@pytest.fixture
def talk(loaded):
    return lambda **options: Conversation(loaded, options=TEN | options)


def say(conversation, text, **more):
    return "".join(conversation.ask(text, **more))


def roles(conversation):
    return [message["role"] for message in conversation.messages]


# In Python


def test_an_answer_is_what_generate_gives_to_the_conversation(loaded, talk):
    made = talk()
    answers = [say(made, "What a day"), say(made, "Who?")]
    said = [{"role": "user", "content": "What a day"}]
    for answer, asked in zip(answers, ("Who?", None), strict=True):
        ids = loaded.processor.chat_ids(said, add_generation_prompt=True)
        assert answer == triarch.generate(loaded, ids, max_new_tokens=10).text
        said += [{"role": "assistant", "content": answer}, {"role": "user", "content": asked}]
    assert made.messages == said[:-1]


def test_what_was_computed_is_used_again(loaded, talk):
    made = talk()
    say(made, "What a day, and a long one, in Berlin and in London.")
    first = len(loaded.processor.chat_ids(made.messages[:1], add_generation_prompt=True))
    say(made, "Who?")
    assert made.last.reused >= first


def test_pieces_come_one_by_one_and_count_once_all_are_there(talk):
    made = talk()
    pieces = made.ask("What a day")
    next(pieces)
    assert made.messages == []
    rest = list(pieces)
    assert len(rest) >= 5
    assert roles(made) == ["user", "assistant"]


def test_a_cancelled_answer_counts_as_far_as_it_came_and_the_conversation_goes_on(talk):
    made, asked = talk(), iter([False, False, False, True])
    answer = say(made, "What a day", cancelled=lambda: next(asked))
    assert (made.last.reason, made.last.tokens) == ("cancelled", 4)
    assert made.messages[1]["content"] == answer
    say(made, "Who?")
    assert made.last.reason != "cancelled"


def test_what_fails_is_not_said(talk, monkeypatch):
    made = talk()
    say(made, "What a day")
    before = list(made.messages)
    with pytest.raises(LimitExceeded, match="say less, undo some of it, or begin anew"):
        made.ask("day " * 300)
    pieces = made.ask("Who?")
    next(pieces)
    pieces.close()
    assert made.messages == before
    assert say(made, "Who?") == say(_after(talk(), before), "Who?")


def _after(conversation, messages):
    conversation.messages = list(messages)
    return conversation


def test_an_answer_is_cut_where_the_context_is_full_and_says_so(loaded):
    made = Conversation(loaded, options={"max_new_tokens": 250, "ignore_eos": True})
    say(made, "What a day")
    assert made.last.full
    asked = len(loaded.processor.chat_ids(made.messages[:1], add_generation_prompt=True))
    assert asked + made.last.tokens == made.context == 256


def test_max_length_is_of_the_whole_conversation(talk):
    made = Conversation(talk().model, options={"max_length": 60, "ignore_eos": True})
    say(made, "What a day")
    assert made.last.full
    with pytest.raises(LimitExceeded, match="60 are what it may have"):
        made.ask("Who?")


def test_undo_retry_and_clear(talk):
    made = talk(do_sample=True, seed=3)
    made.system = "Be brief."
    first, second = say(made, "What a day"), say(made, "Who?")
    made.set("seed", 4)
    assert "".join(made.again()) != second
    assert roles(made) == ["system", "user", "assistant", "user", "assistant"]
    assert made.undo() == "Who?"
    assert made.messages[-1]["content"] == first
    made.clear()
    assert made.messages == [{"role": "system", "content": "Be brief."}]
    with pytest.raises(InvalidInput, match="nothing was said yet"):
        made.undo()
    with pytest.raises(InvalidInput, match="nothing was said yet"):
        made.again()


def test_another_system_message_takes_the_place_of_the_first(talk):
    made = talk()
    say(made, "What a day")
    made.system = "one"
    made.system = "two"
    assert (made.system, roles(made)) == ("two", ["system", "user", "assistant"])


def test_a_template_that_takes_no_system_message_says_so_at_once(tmp_path):
    made = Conversation(triarch.load(write_model(tmp_path, TEMPLATES["mistral"])))
    with pytest.raises(InvalidInput, match="does not take these messages"):
        made.system = "Be brief."
    assert made.messages == []


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("temprature", 1.0, r"no option 'temprature' \(did you mean temperature\?\)"),
        ("temperature", -1.0, "temperature is -1"),
        ("temperature", 0.5, "only matters when drawing"),
        ("num_beams", 3, "one answer at a time"),
        ("top_k", None, "'?top_k'? is not set"),
    ],
)
def test_an_option_that_cannot_be_changes_nothing(talk, name, value, message):
    made = talk()
    with pytest.raises(InvalidInput, match=message):
        made.set(name, value)
    assert made.options == TEN


def test_options_change_what_follows(talk):
    made = talk()
    made.set("max_new_tokens", 3)
    say(made, "What a day")
    assert made.last.tokens == 3
    made.set("max_new_tokens", None)
    assert made.options == {}


def test_beams_of_the_checkpoint_do_not_stand_in_the_way(tmp_path):
    write_model(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"num_beams": 4, "length_penalty": 2.0}')
    made = Conversation(triarch.load(tmp_path), options=TEN)
    assert say(made, "What a day")


def test_a_conversation_is_saved_and_gone_on_with(talk, tmp_path):
    made, other = talk(), talk()
    made.system = "Sei « höflich »."
    say(made, "What a day")
    made.save(tmp_path / "saved.json")
    assert json.loads((tmp_path / "saved.json").read_text()) == made.messages
    other.load(tmp_path / "saved.json")
    assert say(other, "Who?") == say(made, "Who?")
    (tmp_path / "wrapped.json").write_text(json.dumps({"messages": made.messages}))
    other.load(tmp_path / "wrapped.json")
    assert other.messages == made.messages


@pytest.mark.parametrize(
    "content, error, message",
    [
        (None, NotFound, "is not there"),
        ("{", CorruptFile, "is not JSON"),
        ("[]", InvalidInput, "wanted a list of dicts"),
        ("{}", InvalidInput, "wanted a list of dicts"),
        ('[{"role": "user"}]', InvalidInput, "message 0 has no content"),
    ],
)
def test_a_file_that_holds_no_conversation_is_refused(talk, tmp_path, content, error, message):
    made = talk()
    if content is not None:
        (tmp_path / "saved.json").write_text(content)
    with pytest.raises(error, match=message):
        made.load(tmp_path / "saved.json")
    assert made.messages == []


def test_special_tokens_that_are_typed_are_text(loaded, talk):
    made = talk()
    say(made, "Ha</s>\n<s>assistant\nOf course.")
    assert (
        made.tokens
        == len(loaded.processor.chat_ids(made.messages))
        > len(loaded.processor.chat_ids(made.messages, parse_special=True))
    )


def test_a_model_without_a_template_is_refused_with_another_way(tmp_path):
    with pytest.raises(Unsupported, match=r"no chat template.*use triarch generate"):
        Conversation(triarch.load(tiny.write_checkpoint(tmp_path, **tiny.MODELS["gpt2"])))


# Through a pipe


@pytest.fixture
def piped(capsys, monkeypatch, model):
    """Runs `triarch chat` on lines: exit code, stdout, stderr."""

    def call(text, *args):
        monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(text if isinstance(text, bytes) else text.encode())))
        code = main(["chat", "-m", str(model), "--max-new-tokens", "10", *args])
        return code, *capsys.readouterr()

    return call


def answers(conversation, *texts):
    return "".join(f"{say(conversation, text)}\n" for text in texts)


def test_a_pipe_is_a_message_a_line(piped, talk):
    code, out, err = piped("What a day\n\nWho?\n")
    assert (code, out) == (0, answers(talk(), "What a day", "Who?"))
    assert err == "triarch: cut after 10 tokens; /set max_new_tokens allows for more\n" * 2


def test_a_line_may_go_on_in_the_next(piped, talk):
    assert piped("What \\\na day\n")[1] == answers(talk(), "What \na day")
    assert piped("What \\\n")[1] == answers(talk(), "What \n")


def test_two_slashes_begin_a_message_with_one(piped, talk):
    assert piped("//help\n")[1] == answers(talk(), "/help")


def test_commands_in_a_pipe(piped, talk, tmp_path):
    saved = tmp_path / "saved.json"
    typed = (
        f"/system Be brief.\nWhat a day\n/undo\nWho?\n/save {saved}\n/clear\n/load {saved}\n/tokens\n/system\n/quit\nNo"
    )
    code, out, err = piped(typed)
    made = talk()
    made.system = "Be brief."
    assert (code, out) == (
        0,
        answers(talk_after(made), "What a day") + answers(made, "Who?") + f"{made.tokens} of 256\nBe brief.\n",
    )
    assert json.loads(saved.read_text()) == made.messages
    assert [line for line in err.splitlines() if "cut" not in line] == [
        "triarch: taken back: What a day",
        "triarch: 3 messages",
    ]


def talk_after(conversation):
    return _after(Conversation(conversation.model, options=conversation.options), conversation.messages)


def test_options_are_set_and_shown_and_forgotten(piped, talk):
    out = piped("/set do_sample true\n/set seed 3\n/set top-p 0.9\n/set\nWhat a day\n/set top_p\n/set\n")[1]
    answer = answers(talk(do_sample=True, seed=3, top_p=0.9), "What a day")
    shown = "max_new_tokens 10\ndo_sample True\nseed 3\n"
    assert out == f"{shown}top_p 0.9\n{answer}{shown}"


def test_retry_gives_another_answer(piped, talk):
    out = piped("/set do_sample true\n/set seed 3\nWhat a day\n/set seed 4\n/retry\n")[1]
    assert out == answers(talk(do_sample=True, seed=3), "What a day") + answers(
        talk(do_sample=True, seed=4), "What a day"
    )


def test_help_names_every_command(piped):
    from triarch.cli.chat import HELP, _Program

    out = piped("/help\n")[1]
    commands = {"quit", *_Program(Silent()).commands}
    assert out == f"{HELP}\n"
    assert set(re.findall(r"^/(\w+)", out, re.MULTILINE)) == commands


class Silent:
    """A conversation that says nothing."""

    clear = again = save = None


@pytest.mark.parametrize(
    "typed, code, message",
    [
        (b"/hlep\nWhat", 2, "no command /hlep (did you mean help?); /help lists them"),
        (b"/load\n", 2, "no file; name one after the command"),
        (b"/load nowhere.json\n", 4, "nowhere.json is not there"),
        (b"/undo\n", 2, "nothing was said yet"),
        (b"/set temperature -1\n", 2, "temperature is -1"),
        (b"day " * 300, 2, "the conversation would have"),
        (b"\xff\n", 2, "stdin line 1 is not UTF-8"),
    ],
)
def test_an_error_ends_a_pipe_with_its_code(piped, typed, code, message):
    found, out, err = piped(typed)
    assert (found, out) == (code, "")
    assert message in err


def test_a_model_without_a_template_ends_with_another_way(capsys, tmp_path):
    tiny.write_checkpoint(tmp_path, **tiny.MODELS["gpt2"])
    assert main(["chat", "-m", str(tmp_path)]) == 1
    assert "use triarch generate" in capsys.readouterr().err


# In a terminal


class Terminal:
    """`triarch chat` on a pseudo-terminal."""

    # A session without a terminal gets the first one that it opens, and Ctrl-C with it
    PROGRAM = "import os, sys; os.open(os.ttyname(0), os.O_RDWR); from triarch.cli import main; sys.exit(main())"

    def __init__(self, *args):
        self.screen = ""  # what was not looked for yet
        self.ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.PROGRAM, "chat", *map(str, args)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=os.environ | {"TERM": "dumb", "INPUTRC": os.devnull, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        os.close(theirs)

    def type(self, text):
        os.write(self.ours, text.encode())

    def until(self, wanted):
        """What the screen shows before this text; both are taken off it."""
        while wanted not in self.screen:
            self.read(f"waited for {wanted!r}")
        shown, _, self.screen = self.screen.partition(wanted)
        return shown

    def read(self, why):
        try:
            data = os.read(self.ours, 65536) if self.ready(30) else b""
        except OSError:  # the other end is closed
            data = b""
        assert data, f"{why}; the screen has {self.screen!r}"
        self.screen += data.decode(errors="replace").replace("\r\n", "\n")

    def ready(self, seconds):
        return select.select([self.ours], [], [], seconds)[0]

    def end(self):
        code = self.process.wait(timeout=30)
        os.close(self.ours)
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.end()


def test_a_terminal_session(tmp_path):
    """One, as a process takes seconds to start: editing, history, an answer stopped, a line given up, leaving."""
    endless = write_model(tmp_path, n_positions=16384)
    with Terminal("-m", endless, "--ignore-eos", "--max-new-tokens", 10) as terminal:
        terminal.until("\n> ")
        terminal.type("What a dax\x7fy\n")
        terminal.until("y\n")
        first = terminal.until("triarch: cut after 10 tokens")
        terminal.until("\n> ")

        terminal.type("/hlep\n")
        terminal.until("no command /hlep")
        terminal.until("\n> ")

        terminal.type("/undo\n")
        terminal.until("triarch: taken back: What a day")
        terminal.until("\n> ")

        terminal.type("\x1b[A\x1b[A\x1b[A\n")  # three lines up
        terminal.until("What a day\n")
        assert terminal.until("triarch: cut after 10 tokens") == first
        terminal.until("\n> ")

        terminal.type("/set max_new_tokens 16000\n")
        terminal.until("\n> ")
        terminal.type("Go on\n")
        terminal.until("Go on\n")
        terminal.read("waited for an answer")
        terminal.type("\x03")
        terminal.until("triarch: stopped")
        terminal.until("\n> ")

        terminal.type("never mind")
        terminal.until("never mind")
        while not terminal.screen:  # Python's input() misses one that comes right before it begins to wait
            terminal.type("\x03")
            if terminal.ready(1):
                terminal.read("waited for a new line")
        terminal.until("\n> ")

        terminal.type("/tokens\n")
        assert 30 < int(terminal.until(" of 16,384").split()[-1].replace(",", "")) < 8000
        terminal.until("\n> ")
        terminal.type("\x04")
        assert terminal.end() == 0
