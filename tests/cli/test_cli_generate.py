"""`triarch generate`: what comes out is what `triarch.generate` gives, and the options are those of Settings."""

import json
import subprocess
import sys
from io import BytesIO, TextIOWrapper

import pytest

import tiny
import triarch
from chats import CHATML
from triarch.cli import main
from triarch.tasks.text_generation import TextGeneration

PROMPT = "What a day"
TEMPLATE = CHATML.replace("<|im_start|>", "<s>").replace("<|im_end|>", "</s>")
TEN = ["--max-new-tokens", 10]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a GPT-2 with a chat template."""
    folder = tiny.write_checkpoint(tmp_path_factory.mktemp("gpt2"), **tiny.MODELS["gpt2"], n_positions=256)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def loaded(model):
    """As the verb loads it, so that numbers are the same to the last digit."""
    return TextGeneration.load(model)


@pytest.fixture
def run(capsys, model):
    """Runs a command line in this process: exit code, stdout, stderr."""

    def call(*args):
        code = main(["generate", *map(str, args), "-m", str(model)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def pipe(monkeypatch):
    """Puts bytes on stdin."""
    return lambda data: monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(data)))


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_precision_is_that_of_load(run, model):
    loaded = TextGeneration.load(model, precision="bfloat16")
    wanted = triarch.generate(loaded, PROMPT, max_new_tokens=10).text
    assert run(PROMPT, *TEN, "--precision", "bfloat16") == (0, f"{wanted}\n", "")
    assert run(PROMPT, "--precision", "int8")[0] == 2


def test_the_text_is_what_python_gives(run, loaded):
    wanted = triarch.generate(loaded, PROMPT, max_new_tokens=10).text
    assert run(PROMPT, *TEN) == (0, f"{wanted}\n", "")


@pytest.mark.parametrize("more", [[], ["--stop", "p", "--stop", "ll"], ["--do-sample", "--seed", 3]], ids=len)
def test_a_stream_is_the_same_text(run, more):
    assert run(PROMPT, *TEN, *more, "--stream") == run(PROMPT, *TEN, *more, "--no-stream")


def test_json_holds_what_is_known_of_the_sequence(run, loaded):
    wanted = triarch.generate(loaded, PROMPT, max_new_tokens=10, do_sample=True, seed=3, logprobs=1)
    code, out, err = run(PROMPT, *TEN, "--do-sample", "--seed", 3, "--logprobs", 1, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "ids": wanted.ids,
        "text": wanted.text,
        "finish_reason": wanted.finish_reason,
        "seed": 3,
        "logprobs": wanted.logprobs,
        "alternatives": [[list(one) for one in place] for place in wanted.alternatives],
    }


def test_n_sequences_are_a_list(run, loaded):
    options = {"max_new_tokens": 10, "do_sample": True, "seed": 3, "num_return_sequences": 2}
    wanted = [found.text for found in triarch.generate(loaded, PROMPT, **options)]
    flags = [PROMPT, *TEN, "--do-sample", "--seed", 3, "-n", 2]
    assert [found["text"] for found in json.loads(run(*flags, "--json")[1])] == wanted
    _, out, err = run(*flags)
    assert out == "".join(f"{text}\n" for text in wanted)
    assert err.splitlines() == [f"triarch: input 0, sequence {i}:" for i in range(2)]


def test_a_file_and_a_pipe_hold_a_prompt_a_line(run, pipe, tmp_path):
    (tmp_path / "prompts.txt").write_text("one\ntwo\n")
    pipe(b'three\n{"four\n')
    code, out, _ = run("zero", tmp_path / "prompts.txt", "-", "--jsonl", *TEN)
    assert (code, [line["id"] for line in lines(out)]) == (0, [0, 1, 2, 3, 4])
    assert lines(out)[1]["result"]["text"] == run("one", *TEN)[1][:-1]


def test_an_input_that_fails_is_said_and_the_others_go_on(run, pipe):
    pipe(b'{"id": "a", "text": "one"}\n{"id": "b", "label": "two"}\n[\n{"text": "three"}\n')
    code, out, _ = run("-", "--input-format", "jsonl", "--jsonl", *TEN)
    assert code == 3
    assert [(line["id"], "error" in line) for line in lines(out)] == [("a", False), ("b", True), (2, True), (3, False)]


def test_a_chat_goes_through_the_template(run, loaded):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}]
    ids = loaded.processor.encode(loaded.processor.chat(messages, add_generation_prompt=True)).ids
    wanted = triarch.generate(loaded, ids, max_new_tokens=10).text
    assert run(PROMPT, "--chat", "--system", "Be brief.", *TEN)[1] == f"{wanted}\n"


def test_a_row_may_hold_a_conversation(run, pipe):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}]
    pipe(json.dumps({"messages": messages}).encode())
    found = run("--chat", "--input-format", "jsonl", *TEN)
    assert found == run(PROMPT, "--chat", "--system", "Be brief.", *TEN)


def test_a_schema_is_a_text_or_a_file(monkeypatch, tmp_path):
    from triarch.cli._generating import SETTINGS

    (option,) = [option for option in SETTINGS if option.name == "json_schema"]
    (tmp_path / "cat.json").write_text('{"type": "object"}')
    assert option.callback(None, option, '{"type": "integer"}') == '{"type": "integer"}'
    assert option.callback(None, option, str(tmp_path / "cat.json")) == '{"type": "object"}'
    assert option.callback(None, option, "true") is True


def test_a_bias_is_given_by_ids(run, loaded):
    wanted = triarch.generate(loaded, PROMPT, max_new_tokens=10, logit_bias={40: 50.0}).text
    assert run(PROMPT, *TEN, "--logit-bias", "40=50")[1] == f"{wanted}\n"


def test_the_output_is_a_file_if_asked_for(run, tmp_path):
    wanted = run(PROMPT, *TEN)[1]
    assert run(PROMPT, *TEN, "-o", tmp_path / "out.txt") == (0, "", "")
    assert (tmp_path / "out.txt").read_text() == wanted


@pytest.mark.parametrize(
    "args, code, message",
    [
        ([PROMPT, "--temperature", "nan"], 2, "temperature is nan"),
        ([PROMPT, "--top-p", 0], 2, "top_p is 0"),
        ([PROMPT, "--temperature", 0.5], 2, "only matters when drawing"),
        ([PROMPT, "--num-beams", "two"], 2, "wanted INTEGER"),
        ([PROMPT, "--stop", ""], 2, "is empty"),
        ([PROMPT, "--max-new-tokens", 256], 2, "the model takes 256 together"),
        ([PROMPT, "--logit-bias", "a=1"], 2, "wanted ID=BIAS"),
        ([PROMPT, "--json-schema", "nowhere.json"], 2, "no JSON and no file to read: nowhere.json"),
        ([PROMPT, "--system", "a"], 2, "only matters with --chat"),
        ([PROMPT, "--stream", "--json"], 2, "--stream is for one text"),
        ([PROMPT, "two", "--stream"], 2, "--stream is for one text"),
        (["nowhere.txt"], 4, "nowhere.txt is not there"),
        ([""], 2, "prompt 0 is empty"),
    ],
    ids=str,
)
def test_errors_are_one_line_and_have_their_code(run, args, code, message):
    found, out, err = run(*args)
    assert (found, out) == (code, "")
    *notes, error = err.splitlines()
    assert message in error
    assert notes in ([], ["triarch: reading nowhere.txt"])


@pytest.mark.parametrize(
    "name, code, message",
    [("bert-labels", 1, "no head that gives NextWordScores or TargetWordScores"), ("nowhere", 4, "no folder")],
)
def test_a_model_that_generates_is_needed(capsys, tmp_path, name, code, message):
    if name in tiny.MODELS:
        tiny.write_checkpoint(tmp_path / name, **tiny.MODELS[name])
    assert main(["generate", PROMPT, "-m", str(tmp_path / name)]) == code
    assert message in capsys.readouterr().err


def test_an_encoder_decoder_writes_from_its_source(capsys, tmp_path):
    folder = tiny.write_checkpoint(tmp_path, **tiny.MODELS["bart"])
    options = {"max_new_tokens": 5, "num_beams": 2}
    assert main(["generate", PROMPT, "-m", str(folder), "--max-new-tokens", "5", "--num-beams", "2", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["ids"] == triarch.generate(triarch.load(folder), PROMPT, **options).ids


def test_a_model_without_a_template_cannot_chat(capsys, tmp_path):
    folder = tiny.write_checkpoint(tmp_path, **tiny.MODELS["gpt2"])
    assert main(["generate", PROMPT, "--chat", "-m", str(folder)]) == 1
    assert "has no chat template" in capsys.readouterr().err


def test_every_setting_is_an_option():
    from dataclasses import fields

    from triarch.cli._generating import SETTINGS
    from triarch.generation import Settings

    untyped = {"bad_words_ids", "force_words_ids", "sequence_bias", "prefix_allowed_tokens_fn"}
    assert {field.name for field in fields(Settings)} - untyped == {option.name for option in SETTINGS}


@pytest.mark.parametrize("verb", ["generate", "chat"])
def test_help_imports_nothing_heavy(verb):
    heavy = {"torch", "numpy", "tokenizers", "huggingface_hub", "safetensors", "tqdm", "jinja2", "llguidance"}
    code = f"import sys; from triarch.cli import main; main([{verb!r}, '--help']); print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--temperature FLOAT" in done.stdout
    assert done.stdout.splitlines()[-1] == "set()"


def test_messages_that_are_no_list_are_refused_with_a_system_message_too(run, pipe):
    pipe(b'{"messages": 5}')
    code, _, err = run("--chat", "--system", "Be brief.", "--input-format", "jsonl", *TEN)
    assert code == 2
    assert "messages are 5, wanted a list of dicts" in err
