"""`triarch tokenizer`: what a user types, what comes out on which stream, and the exit code."""

import json
from io import BytesIO, TextIOWrapper

import pytest

import tiny
from triarch.checkpoint import load_tokenizer
from triarch.cli import main

TEXTS = "\n".join(tiny.SENTENCES) + "\n"


@pytest.fixture
def run(capsys):
    """Runs a command line in this process: exit code, stdout, stderr."""

    def call(*args):
        code = main(["tokenizer", *map(str, args)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def pipe(monkeypatch):
    """Puts bytes on stdin."""
    return lambda data: monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(data)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tokenizer of bytes, trained by the command itself."""
    path = tmp_path_factory.mktemp("trained")
    (path / "corpus.txt").write_text(TEXTS, encoding="utf-8")
    args = ["--kind", "bpe", "--family", "roberta", "--vocab-size", "300", "-o", str(path / "made")]
    assert main(["tokenizer", "train", str(path / "corpus.txt"), *args]) == 0
    return path / "made"


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


# train


def test_train_says_how_many_entries_there_are(run, tmp_path):
    (tmp_path / "corpus.txt").write_text(TEXTS, encoding="utf-8")
    code, out, err = run("train", tmp_path / "corpus.txt", "--vocab-size", 120, "-o", tmp_path / "made")
    assert (code, out, err) == (0, f"{tmp_path / 'made'}: 120 entries from 12 texts\n", "")
    assert load_tokenizer(tmp_path / "made").vocab_size == 120
    assert (tmp_path / "made" / "vocab.txt").exists()


def test_train_says_on_stderr_when_there_are_fewer_than_asked_for(run, tmp_path):
    (tmp_path / "corpus.txt").write_text(TEXTS, encoding="utf-8")
    args = ("--vocab-size", 5000, "-o", tmp_path / "made", "--json")
    code, out, err = run("train", tmp_path / "corpus.txt", *args)
    facts = json.loads(out)
    assert code == 0
    assert facts["entries"] == load_tokenizer(tmp_path / "made").vocab_size
    assert f"gave {facts['entries']} entries, fewer than the 5,000 asked for" in err


def test_train_reads_files_of_every_kind_and_a_pipe(run, pipe, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body": "first text"}\n"second text"\n')
    (tmp_path / "b.csv").write_text("body,label\nthird text,1\n")
    pipe(b"fourth text\n")
    args = ("--kind", "unigram", "--family", "xlm-roberta", "--vocab-size", 30, "--column", "body")
    code, out, _ = run("train", tmp_path / "a.jsonl", tmp_path / "b.csv", "-", *args, "-o", tmp_path / "made", "--json")
    assert (code, json.loads(out)["texts"]) == (0, 4)


FAULTS = [
    (b"good\n\xff\n", "corpus.txt", "line 2 is not UTF-8", 2),
    (b'{"text": "a"}\n{"other": "b"}\n', "corpus.jsonl", "row has other, wanted text under 'text'", 2),
    (b"5\n", "corpus.jsonl", "5, wanted text", 2),
    (b"\n\n", "corpus.txt", "no text to learn from", 2),
]


@pytest.mark.parametrize("data, name, message, code", FAULTS)
def test_train_on_a_row_that_is_no_text_writes_nothing(run, tmp_path, data, name, message, code):
    (tmp_path / name).write_bytes(data)
    got, out, err = run("train", tmp_path / name, "--vocab-size", 150, "-o", tmp_path / "made")
    assert (got, out) == (code, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "args, message, code",
    [
        (["--kind", "wordpice"], "did you mean wordpiece", 2),
        (["--family", "berd"], "did you mean bert", 4),
        (["--vocab-size", "9"], "ask for at least", 2),
        (["--kind", "unigram", "--min-frequency", "2"], "leave it out", 2),
    ],
)
def test_train_refuses_wrong_options_in_one_line(run, tmp_path, args, message, code):
    (tmp_path / "corpus.txt").write_text(TEXTS, encoding="utf-8")
    got, out, err = run("train", tmp_path / "corpus.txt", "--vocab-size", "150", "-o", tmp_path / "made", *args)
    assert (got, out, err.count("\n")) == (code, "", 1)
    assert message in err


def test_train_on_a_file_that_is_not_there(run, tmp_path):
    code, _, err = run("train", tmp_path / "none.txt", "--vocab-size", 150, "-o", tmp_path / "made")
    assert code == 4
    assert "is not there" in err


# encode


def test_encode_gives_what_python_gives(run, folder):
    processor = load_tokenizer(folder)
    text = "The café is 👍🏽"
    code, out, err = run("encode", text, "-m", folder, "--json")
    found = processor.encode(text)
    want = {"ids": found.ids, "tokens": found.tokens, "offsets": [list(pair) for pair in found.offsets]}
    assert (code, json.loads(out), err) == (0, want, "")


def test_encode_shows_people_a_row_for_each_token(run, folder):
    _, out, _ = run("encode", "The", "-m", folder, "--no-special-tokens")
    header, *rows = [line.split() for line in out.splitlines()]
    ids = load_tokenizer(folder).encode("The", special_tokens=False).ids
    assert header == ["token", "token_id", "start", "end"]
    assert [int(row[1]) for row in rows] == ids


def test_encode_takes_special_tokens_literally_on_request(run, folder):
    plain, literal = (json.loads(run("encode", "<mask>", "-m", folder, "--json", *o)[1]) for o in ([], ["--literal"]))
    assert len(plain["ids"]) == 3 < len(literal["ids"])


def test_encode_answers_a_pipe_line_by_line_with_errors_in_their_place(run, pipe, folder):
    pipe(b"The dog\n\xff\n\n")
    code, out, _ = run("encode", "-", "-m", folder, "--jsonl")
    first, second, third = lines(out)
    assert code == 3
    assert first["result"]["ids"] == load_tokenizer(folder).encode("The dog").ids
    assert (second["id"], second["error"]["type"]) == (1, "InvalidInput")
    assert third["result"]["ids"] == [0, 2]


def test_encode_holds_no_more_than_a_few_lines_of_a_pipe(run, folder, monkeypatch, capsys):
    """A line is answered before the one after the next is asked for."""
    written = []

    class Source(BytesIO):
        asked = 0

        def readline(self, limit=-1):
            written.append(len(capsys.readouterr().out.splitlines()))
            self.asked += 1
            return b"dog\n" if self.asked <= 50 else b""

    monkeypatch.setattr("sys.stdin", TextIOWrapper(Source()))
    run("encode", "-m", folder, "--jsonl")
    assert sum(written) >= 49
    assert max(written[2:]) <= 2


def test_encode_reads_a_file_and_writes_one(run, folder, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "The dog"}\n{"text": 5}\n')
    code, out, _ = run("encode", tmp_path / "in.jsonl", "-m", folder, "--jsonl", "-o", tmp_path / "out.jsonl")
    assert (code, out) == (3, "")
    assert [("result" in line) for line in lines((tmp_path / "out.jsonl").read_text())] == [True, False]


def test_encode_with_the_tokenizer_of_a_checkpoint(run, tmp_path):
    tiny.write_files(tmp_path, "bert", "BertModel")
    _, out, _ = run("encode", "Paris", "-m", tmp_path, "--json")
    assert json.loads(out)["tokens"][0] == "[CLS]"


def test_encode_without_a_tokenizer(run, tmp_path):
    code, out, err = run("encode", "Paris", "-m", tmp_path)
    assert (code, out) == (4, "")
    assert "no tokenizer.json" in err


# decode


TRIP = ["The café is 👍🏽", " <mask> ", "tab\there \x1b[31m", "日本"]


def test_what_was_encoded_is_decoded_to_the_letter(run, pipe, folder):
    pipe("".join(f"{text}\n" for text in TRIP).encode())
    _, out, _ = run("encode", "-m", folder, "--jsonl", "--no-special-tokens", "--literal")
    pipe(out.encode())
    code, back, _ = run("decode", "-m", folder)
    assert (code, back.split("\n")) == (0, [*TRIP, ""])


def test_decode_ids_of_the_command_line(run, folder):
    ids = load_tokenizer(folder).encode("The dog").ids
    assert run("decode", *ids, "-m", folder)[1] == "<s>The dog</s>\n"
    assert run("decode", *ids, "-m", folder, "--skip-special-tokens", "--json")[1] == '"The dog"\n'


@pytest.mark.parametrize("ids", [["9999"], ["x"], ["1.5"], ["[1.5]"], ["{}"], ["[1"], ["0", "9999"]])
def test_ids_that_are_none_are_refused_in_one_line(run, folder, ids):
    code, out, err = run("decode", *ids, "-m", folder)
    assert (out, err.count("\n")) == ("", 1)
    assert code != 0


def test_a_bad_line_of_ids_does_not_stop_the_others(run, pipe, folder):
    pipe(b"0 2\nx\n[0, 2]\n")
    code, out, err = run("decode", "-", "-m", folder)
    assert (code, out) == (3, "<s></s>\n<s></s>\n")
    assert "input 1: 'x' is not a row of ids" in err
