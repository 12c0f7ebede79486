"""`triarch train` and `triarch evaluate`: what is typed, the exit codes, and what a kill leaves to go on from."""

import json
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import time

import pytest

import runs
import triarch
from forks import TRIARCH
from runs import ROWS
from triarch.cli import main
from triarch.training.settings import Settings

QUICK = ["--steps", "2", "--batch-size", "4", "--dropout", "0"]


@pytest.fixture
def run(capsys, fast_disk):
    """Runs a command line in this process: exit code, stdout, stderr."""

    def call(*args):
        code = main([*map(str, args)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def data(tmp_path):
    return runs.write_jsonl(tmp_path / "reviews.jsonl", ROWS)


# What is typed


def test_a_file_a_model_and_a_folder_are_enough(run, model, tmp_path, data):
    code, out, err = run("train", data, "-m", model("bert"), "-o", tmp_path / "o", *QUICK)
    assert code == 0
    assert {line.split()[0] for line in out.splitlines()} >= {"output", "steps", "seconds"}
    assert all(line.startswith("triarch: ") for line in err.splitlines())
    assert "triarch: labels: 2: bad, good" in err
    code, out, _ = run("evaluate", data, "-m", tmp_path / "o", "--json")
    assert code == 0
    assert json.loads(out) == triarch.evaluate(tmp_path / "o", data, note=str)


def test_json_is_one_document(run, model, tmp_path, data):
    code, out, _ = run("train", data, "-m", model("bert"), "-o", tmp_path / "o", "--validation", data, *QUICK, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["steps"] == 2
    assert {"output", "seconds", "best step", "validation loss", "validation accuracy"} <= found.keys()


def test_what_has_no_number_is_null(run, model, tmp_path):
    rows = runs.write_jsonl(tmp_path / "a.jsonl", [{"text": row["text"], "label": 0.5} for row in ROWS])
    code, out, _ = run("train", rows, "-m", model("bert"), "-o", tmp_path / "o", "--test", rows, *QUICK, "--json")
    assert (code, json.loads(out)["test pearson"]) == (0, None)
    code, out, _ = run("evaluate", rows, "-m", tmp_path / "o", "--json")
    assert (code, json.loads(out)["pearson"]) == (0, None)
    assert re.search("pearson +none", run("evaluate", rows, "-m", tmp_path / "o")[1])


def test_the_command_line_does_what_python_does(run, model, tmp_path, data):
    flags = ["--epochs", "2", "--batch-size", "5", "--lr", "1e-3", "--seed", "3", "--freeze", "embeddings"]
    flags += ["--option", "label_smoothing=0.1", "--optimizer-option", "beta2=0.9", "--no-best", "--save-every", "2"]
    assert run("train", data, "-m", model("bert"), "-o", tmp_path / "shell", *flags)[0] == 0
    triarch.train(
        ROWS,
        model=model("bert"),
        output=tmp_path / "python",
        epochs=2,
        batch_size=5,
        lr=1e-3,
        seed=3,
        freeze="embeddings",
        options={"label_smoothing": 0.1},
        optimizer_options={"beta2": 0.9},
        best=False,
        save_every=2,
        note=str,
    )
    assert runs.left_by(tmp_path / "shell") == runs.left_by(tmp_path / "python")


RECIPE = """
data = "{data}"
model = "{model}"
output = "{output}"
steps = 3
batch_size = 4
lr = 1e-3
[options]
label_smoothing = 0.1
class_weights = "balanced"
"""


@pytest.fixture
def recipe(model, tmp_path, data):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(data=data, model=model("bert"), output=tmp_path / "o"))
    return path


def identity(output):
    """The settings that a run was made with."""
    path = max((output / "training" / "checkpoints").glob("step-*"))
    return json.loads((path / "state.json").read_text())["identity"]


def test_flags_go_before_the_recipe(run, recipe, tmp_path):
    assert run("train", recipe)[0] == 0
    flags = ["-o", tmp_path / "p", "--lr", "0.5", "--steps", "2", "--option", "label_smoothing=0.2"]
    assert run("train", recipe, *flags)[0] == 0
    first, second = identity(tmp_path / "o"), identity(tmp_path / "p")
    changed = {name: second[name] for name in first if first[name] != second[name]}
    assert changed == {"lr": 0.5, "steps": 2, "options": {"label_smoothing": 0.2, "class_weights": "balanced"}}


def test_data_that_are_named_go_before_the_recipe(run, recipe, tmp_path):
    other = runs.write_jsonl(tmp_path / "other.jsonl", ROWS[:6])
    code, _, err = run("train", other, recipe, "--dry-run")
    assert code == 0, err
    assert "6 rows" in run("train", recipe, other, "--dry-run")[1]


def test_the_variable_is_weaker_than_the_recipe(run, recipe, model, tmp_path, data, monkeypatch):
    monkeypatch.setenv("TRIARCH_MODEL", model("distilbert"))
    assert "as BertFor" in run("train", recipe, "--dry-run")[1]
    assert "as DistilBertFor" in run("train", data, "--dry-run")[1]
    assert "as BertFor" in run("train", data, "-m", model("bert"), "--dry-run")[1]
    books = runs.write_books(tmp_path / "books")
    given = ["--family", "bert", "--tokenizer", model("bert"), "--objective", "mlm"]
    assert "bert as BertForMaskedLM" in run("train", books, *given, "--dry-run", "--config", "num_layers=1")[1]


def test_each_setting_has_a_flag_with_help(run):
    code, out, _ = run("train", "--help")
    assert code == 0
    names = {"columns": "column", "options": "option", "config": "config", "data": "[RECIPE|DATA]", "about": "about"}
    names |= {"optimizer_options": "optimizer-option", "schedule_options": "schedule-option"}
    for name in Settings.__dataclass_fields__:
        assert names.get(name, name).replace("_", "-") in out, name


def test_a_trial_writes_nothing(run, recipe, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    code, out, _ = run("train", recipe, "--dry-run", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["steps"] == "3 of 4 examples"
    assert found["first loss"] > 0
    assert sorted(tmp_path.rglob("*")) == before


# Wrong use and bad input: one line, the right code, and the folder is free for the next run


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


CSV = "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in ROWS)
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS)
SPAN = {"question": "Who?", "context": "Ada lived", "answers": [{"text": "Ada", "answer_start": 7}]}

BAD = [
    ("a.csv", CSV.replace("text,label", "tekst,lable"), [], 2, "text"),
    ("a.csv", CSV.replace("text,label", "words,stars"), ["--column", "text=wort"], 2, r"wort"),
    ("a.csv", "text,label\n", [], 2, "holds no rows"),
    ("a.csv", "", [], 2, r"a\.csv"),
    ("a.csv", "text,label\ngood film,\n" + CSV[11:], [], 2, r"a\.csv line 2: label is missing"),
    ("a.csv", "text,label\na,1\nb,1\n", [], 2, "labels are 1 of them, wanted at least 2"),
    ("a.csv", "text,label\na,0.5\nb,nan\n", [], 2, r"a\.csv line 3: label is missing"),
    ("a.csv", "text,label\na,0.5\nb,inf\n", ["--objective", "regression"], 2, r"a\.csv line 3: label is"),
    ("a.csv", 'text,label\na,"0.5\n', [], 5, r"a\.csv"),
    ("a.csv", b"text,label\ngood,\xff\xfe\n", [], 2, r"a\.csv line 2"),
    ("a.jsonl", JSONL + '{"text": 3, "label": "good"}\n', [], 2, r"a\.jsonl line 17: text is 3; wanted a string"),
    ("a.jsonl", JSONL + "{bad\n", [], 2, r"a\.jsonl line 17"),
    ("a.jsonl", JSONL + '{"text": "a", "label": NaN}\n', [], 2, r"a\.jsonl line 17"),
    ("a.jsonl", JSONL.encode() + b'{"text": "\xff", "label": "good"}\n', [], 2, r"a\.jsonl line 17"),
    ("a.jsonl", json.dumps(SPAN) + "\n", [], 2, r"a\.jsonl line 1: the answer 'Ada' runs from 7 to 10, outside"),
    ("a.jsonl", '{"tokens": ["a", "b"], "tags": ["O"]}\n', [], 2, r"a\.jsonl line 1: 2 tokens have 1 tags"),
    ("a.jsonl", "", [], 2, r"a\.jsonl holds no rows|no rows"),
    ("a.py", "print('hello')\n", [], 5, r"a\.py"),
    ("a.pkl", pickle.dumps([1]), [], 5, r"a\.pkl"),
    ("a.bin", pickle.dumps([1]), [], 5, r"a\.bin"),
    ("a.zip", b"PK\x03\x04", [], 2, r"a\.zip"),
    ("a.jsonl", JSONL, ["--lr", "nan"], 2, "lr is nan"),
    ("a.jsonl", JSONL, ["--lr", "-1"], 2, "lr is -1"),
    ("a.jsonl", JSONL, ["--lr", "x"], 2, "'x'"),
    ("a.jsonl", JSONL, ["--steps", "-3"], 2, "steps is -3"),
    ("a.jsonl", JSONL, ["--batch-size", "0"], 2, "batch_size is 0"),
    ("a.jsonl", JSONL, ["--precision", "fp4"], 2, "fp4"),
    ("a.jsonl", JSONL, ["--ephochs", "2"], 2, "--ephochs.*--epochs"),
    ("a.jsonl", JSONL, ["--objective", "clasification"], 4, "did you mean classification"),
    ("a.jsonl", JSONL, ["--objective", "span"], 2, "no column is known as the question"),
    ("a.jsonl", JSONL, ["--objective", "tagging"], 2, "no column is known as the tokens"),
    ("a.jsonl", JSONL, ["--option", "label_smothing=0.1"], 2, "did you mean label_smoothing"),
    ("a.jsonl", JSONL, ["--option", "label_smoothing"], 2, "wanted NAME=VALUE"),
    ("a.jsonl", JSONL, ["--option", "label_smoothing=nan"], 2, "label_smoothing.*nan"),
    ("a.jsonl", JSONL, ["--optimizer-option", "beta3=0.1"], 2, "no option 'beta3'"),
    ("a.jsonl", JSONL, ["--optimizer-option", "beta2=1.0"], 2, "beta2"),
    ("a.jsonl", JSONL, ["--schedule-option", "minimm=0.1"], 2, "did you mean minimum"),
    ("a.jsonl", JSONL, ["--schedule", "cosin"], 2, "did you mean cosine"),
    ("a.jsonl", JSONL, ["--warmup", "1000"], 2, "warmup of 1,000 steps is longer than the run"),
    ("a.jsonl", JSONL, ["--freeze", "encoder.block.0"], 2, "matches no parameter"),
    ("a.jsonl", JSONL, ["--freeze", "all"], 2, "every parameter is frozen"),
    ("a.jsonl", JSONL, ["--stages", "head:x"], 2, "stage 'head:x'"),
    ("a.jsonl", JSONL, ["--metric", "acuracy", "--validation-share", "0.5"], 2, "did you mean accuracy"),
    ("a.jsonl", JSONL, ["--lora", "-1"], 2, "lora is -1"),
    ("a.jsonl", JSONL, ["--lora", "2", "--lora-targets", "("], 2, r"targets"),
    ("a.jsonl", JSONL, ["--validation", "nowhere.jsonl"], 4, r"nowhere\.jsonl"),
    ("a.jsonl", JSONL, ["--test", "nowhere.jsonl"], 4, r"nowhere\.jsonl"),
    ("a.jsonl", JSONL, ["--format", "xml"], 2, "xml"),
    ("a.jsonl", JSONL, ["--device", "cuda:77"], 2, "cuda:77"),
    ("a.jsonl", JSONL, ["-m", "no-such-folder"], 4, "no-such-folder"),
    ("a.jsonl", JSONL, ["--teacher", "no-such-folder"], 4, "no-such-folder"),
    ("a.toml", "lr = ", [], 2, r"a\.toml cannot be read"),
    ("a.toml", "lr = 'fast'", [], 2, "lr is 'fast', wanted float"),
    ("a.toml", "learning_rat = 1", [], 2, "no setting 'learning_rat'"),
    ("a.toml", "columns = 'text'", [], 2, "columns is 'text', wanted dict"),
    ("a.toml", "options = 3", ["--option", "share=0.1"], 2, "options is 3, wanted dict"),
    ("a.toml", "lr = 1", [], 2, "there is no data"),
    ("a.yaml", "a: &a [x]\nb: [*a, *a]", [], 2, "aliases are not taken"),
    ("a.yaml", "lr: [1", [], 2, r"a\.yaml cannot be read"),
]


@pytest.mark.parametrize("name, content, flags, code, match", BAD, ids=[f"{i}" for i in range(len(BAD))])
def test_bad_input_ends_before_the_first_step(run, model, tmp_path, monkeypatch, name, content, flags, code, match):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    output = tmp_path / "o"
    given = ["-m", model("bert"), *flags] if "-m" not in flags else flags
    found, out, err = run("train", write(tmp_path / name, content), "-o", output, *given)
    last = err.splitlines()[-1]
    assert found == code, err
    assert re.search(match, last), last
    assert out == ""
    assert last.startswith("triarch: ")
    assert "internal error" not in last
    assert not (output / "training" / "log.jsonl").exists()
    assert not (output / "config.json").exists()


def test_what_was_refused_leaves_the_folder_free(run, model, tmp_path, data):
    bad = write(tmp_path / "bad.csv", "text,label\na,\n")
    for given in ([bad], [data, "--freeze", "nothing"], [data, "--warmup", "900"], [data, "--lr", "0"]):
        assert run("train", *given, "-m", model("bert"), "-o", tmp_path / "o", *QUICK)[0] == 2
    code, _, err = run("train", data, "-m", model("bert"), "-o", tmp_path / "o", *QUICK)
    assert code == 0, err


@pytest.mark.parametrize(
    "flags, code, match",
    [
        ([], 2, "holds a run; pass resume to go on with it"),
        (["--resume", "--lr", "0.5"], 2, "is of another run: lr was 5e-05, now 0.5"),
        (["--resume"], 0, "going on from step 2 of 2"),
    ],
)
def test_a_folder_that_holds_a_run(run, model, tmp_path, data, flags, code, match):
    given = ["train", data, "-m", model("bert"), "-o", tmp_path / "o", *QUICK]
    assert run(*given)[0] == 0
    found, _, err = run(*given, *flags)
    assert (found, bool(re.search(match, err))) == (code, True), err


@pytest.mark.parametrize(
    "given, code, match",
    [
        ([], 2, "there is no output"),
        (["-o", "o"], 2, "there is no data"),
        (["-o", "o", "a.toml", "b.yaml"], 2, "2 recipes"),
        (["-o", "o", "nowhere.csv"], 4, "nowhere.csv"),
        (["-o", "o", "nowhere.toml"], 4, r"nowhere\.toml cannot be read"),
    ],
)
def test_what_is_missing_is_said(run, tmp_path, monkeypatch, given, code, match):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRIARCH_MODEL", raising=False)
    found, _, err = run("train", *given)
    assert (found, bool(re.search(match, err))) == (code, True), err


def test_without_a_model_it_says_what_to_name(run, tmp_path, data, monkeypatch):
    monkeypatch.delenv("TRIARCH_MODEL", raising=False)
    code, _, err = run("train", data, "-o", tmp_path / "o")
    assert code == 2
    assert "there is no model; name a checkpoint to start from" in err


def test_a_line_of_a_million_characters_is_read_in_windows(run, model, tmp_path):
    rows = [*ROWS, {"text": "what a day " * 90_000, "label": "good"}]
    long = runs.write_jsonl(tmp_path / "long.jsonl", rows)
    given = ["train", long, "-m", model("bert"), "-o", tmp_path / "o", *QUICK]
    code, out, err = run(*given, "--dry-run")
    assert code == 0, err
    assert "17 rows" in out
    code, _, err = run(*given, "--option", "long=error")
    assert code == 2
    assert "long.jsonl line 17: the input has" in err


def test_bad_rows_can_be_left_out(run, model, tmp_path):
    bad = write(tmp_path / "a.jsonl", JSONL + '{"text": "", "label": "good"}\n{bad\n')
    code, _, err = run("train", bad, "-m", model("bert"), "-o", tmp_path / "o", *QUICK, "--on-bad-row", "skip")
    assert code == 0
    assert "2 rows left out: " in err
    assert "line 17" in err


# In a process of its own


def command(model, data, output, *more, steps=60):
    given = ["--batch-size", "4", "--steps", str(steps), "--lr", "1e-3", "--dropout", "0.1", "--save-every", "3"]
    given += ["--validation", str(data), "--evaluate-every", "7", "--average", "0.9"]
    return ["train", str(data), "-m", model("bert"), "-o", str(output), *given, *more]


def wait_for_steps(output, count):
    """Until the log has so many lines."""
    log, end = output / "training" / "log.jsonl", time.monotonic() + 30
    while time.monotonic() < end and not (log.exists() and log.read_bytes().count(b"\n") >= count):
        time.sleep(0.002)


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_the_run_goes_on_to_the_bit(run, forks, model, tmp_path, data, number, code):
    assert run(*command(model, data, tmp_path / "whole"))[0] == 0
    output, said = tmp_path / "o", tmp_path / "stderr"
    process = forks.start(TRIARCH, *command(model, data, output), err=said)
    wait_for_steps(output, 8)
    process.send(number)
    assert process.wait() == code, said.read_text()
    assert "stopping after this step" in said.read_text()
    steps = [line["step"] for line in runs.log_of(output)]
    assert runs.steps_of(output)[-1] == steps[-1] < 60
    code, _, err = run(*command(model, data, output, "--resume"))
    assert code == 0
    assert f"going on from step {steps[-1]} of 60" in err
    assert runs.log_of(output) == runs.log_of(tmp_path / "whole")
    assert (output / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_killed_again_and_again_it_ends_to_the_bit(run, forks, model, tmp_path, data):
    assert run(*command(model, data, tmp_path / "whole"))[0] == 0
    output, said, rng, saved = tmp_path / "o", tmp_path / "stderr", random.Random(0), 0
    for _ in range(8):
        process = forks.start(TRIARCH, *command(model, data, output, "--resume"), err=said, sync=False)
        wait_for_steps(output, min(saved + saved // 7 + rng.randrange(2, 12), 60))
        time.sleep(rng.random() / 50)
        process.send(signal.SIGKILL)
        assert process.wait() in (0, -signal.SIGKILL)
        steps = runs.steps_of(output)
        assert max(steps, default=0) >= saved
        saved = max(steps, default=0)
    notes = said.read_text()
    assert "damaged" not in notes
    assert "set aside" not in notes
    begun = [int(step) for step in re.findall(r"going on from step (\d+) of 60", notes)]
    assert begun == sorted(begun)
    code, _, err = run(*command(model, data, output, "--resume"))
    assert code == 0, err
    assert f"going on from step {saved} of 60" in err
    assert runs.left_by(output) == runs.left_by(tmp_path / "whole")
    assert not list((output / "training" / "checkpoints").glob(".*"))


def test_two_at_once_on_one_folder_are_refused(run, forks, model, tmp_path, data):
    process = forks.start(TRIARCH, *command(model, data, tmp_path / "o", steps=100_000))
    try:
        wait_for_steps(tmp_path / "o", 1)
        for more in ([], ["--resume"]):
            code, _, err = run(*command(model, data, tmp_path / "o", *more))
            assert code == 2
            assert "is in use by another run" in err
    finally:
        process.send(signal.SIGKILL)
        process.wait()


def test_a_stderr_that_breaks_does_not_end_a_run(forks, model, tmp_path, data):
    os.mkfifo(tmp_path / "stderr")
    reader = os.open(tmp_path / "stderr", os.O_RDONLY | os.O_NONBLOCK)  # else it would wait for a writer
    process = forks.start(
        TRIARCH,
        *command(model, data, tmp_path / "o", "--json", steps=20),
        out=tmp_path / "out",
        err=tmp_path / "stderr",
    )
    wait_for_steps(tmp_path / "o", 1)
    os.close(reader)
    assert process.wait() == 0
    assert json.loads((tmp_path / "out").read_text())["steps"] == 20


def test_a_stderr_that_is_closed_does_not_end_a_run(model, tmp_path, data):
    """From its start on, so not in a fork."""
    train = [sys.executable, "-c", TRIARCH, *command(model, data, tmp_path / "o", "--json", steps=4)]
    done = subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *train], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0
    assert json.loads(done.stdout)["steps"] == 4
