"""The command line: what a user types, what comes out on which stream, and the exit code."""

import json
import os
import signal
import subprocess
import sys
from functools import cache
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

import tiny
import triarch
from triarch import cli
from triarch.cli import main
from triarch.tasks import task_class, tasks

TRIARCH = [sys.executable, "-c", "import sys; from triarch.cli import main; sys.exit(main())"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The folder of a tiny model, by its name in `tiny.MODELS`; made once."""
    return cache(lambda name: str(tiny.write_checkpoint(tmp_path_factory.mktemp(name), **tiny.MODELS[name])))


@pytest.fixture
def model(checkpoint):
    """A classifier of texts."""
    return checkpoint("bert-labels")


@pytest.fixture
def pipe(monkeypatch):
    """Puts bytes on stdin."""
    return lambda data: monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(data)))


@pytest.fixture
def run(capsys):
    """Runs a command line in this process: exit code, stdout, stderr."""

    def call(*args):
        code = main([*map(str, args)])
        return code, *capsys.readouterr()

    return call


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


# Answers


SAME = [
    ("text-classification", "bert-labels", "What a lovely day!", {}),
    ("text-classification", "bert-labels", "What a lovely day!", {"top_k": None}),
    ("text-classification", "bert-labels", "What a lovely day!", {"top_k": 2, "function_to_apply": "none"}),
    ("sentiment-analysis", "bert-labels", "What a lovely day!", {"coverage": True}),
    ("ner", "bert-tags", "Ada lived in London.", {"aggregation_strategy": "simple", "ignore_labels": ["O", "LOC"]}),
    ("fill-mask", "bert-words", "Paris is the [MASK] of France.", {"top_k": 3}),
    ("fill-mask", "bert-words", "Paris is the [MASK] of France.", {"targets": ["capital", "film"]}),
    ("question-answering", "bert-qa", "Ada lived in London.", {"question": "Where?", "align_to_words": False}),
    ("zero-shot-classification", "bert-nli", "The striker scored.", {"candidate_labels": "sports,politics"}),
    ("zero-shot-classification", "bert-nli", "The striker scored.", {"candidate_labels": ["sports, games", "law"]}),
    (
        "zero-shot-classification",
        "gpt2",
        "The striker scored.",
        {"candidate_labels": "sports,law", "label_score": "sum"},
    ),
    ("text-generation", "gpt2", "Ada lived in", {"do_sample": False, "max_new_tokens": 5, "suppress_tokens": [7, 9]}),
    ("text-generation", "gpt2", "Ada lived in", {"seed": 3, "max_new_tokens": 5, "stop": ["a", "e"]}),
    ("embedding", "bert", "The café in Zürich", {"normalize": False}),
    ("feature-extraction", "bert", "The café in Zürich", {}),
    ("sentence-similarity", "bert", "What a day", {"sentences": ["a lovely day", "a boring story"]}),
    ("semantic-search", "bert", "What a day", {"corpus": ["a lovely day", "a boring story"]}),
]


def flags(options):
    """Options of a call in Python, as they are typed."""
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            yield flag if value else f"--no-{flag[2:]}"
        else:
            for one in value if isinstance(value, list) else [value]:
                yield from (flag, str(one).lower() if one is None else str(one))


@pytest.mark.parametrize("task, name, text, options", SAME)
def test_json_is_what_python_gives(run, checkpoint, task, name, text, options):
    answer = triarch.pipeline(task, checkpoint(name))(text, **options)
    code, out, err = run("run", task, text, "-m", checkpoint(name), "--json", *flags(options))
    assert (code, err) == (0, "")
    assert json.loads(out) == json.loads(json.dumps(answer, default=lambda array: array.tolist()))


def test_text_pair_is_the_second_text(run, model):
    answer = triarch.pipeline("text-classification", model)("I was hungry.", text_pair="So I ate.")
    _, out, _ = run("run", "text-classification", "I was hungry.", "--text-pair", "So I ate.", "-m", model, "--json")
    assert json.loads(out) == answer


def test_several_inputs_make_a_json_list(run, model):
    answers = [*triarch.pipeline("text-classification", model)(iter(["good", "bad"]))]
    assert json.loads(run("run", "text-classification", "good", "bad", "-m", model, "--json")[1]) == answers


def test_jsonl_has_a_line_for_each_input_in_order(run, model):
    answers = triarch.pipeline("text-classification", model)(iter(["good", "bad day", "a"]))
    _, out, _ = run("run", "text-classification", "good", "bad day", "a", "-m", model, "--jsonl")
    assert lines(out) == [{"id": i, "result": answer} for i, answer in enumerate(answers)]


def test_jsonl_keeps_the_id_that_an_input_brings(run, pipe, model):
    pipe(b'{"id": "first", "text": "good"}\n{"text": "bad"}\n')
    _, out, _ = run("run", "text-classification", "-m", model, "--jsonl", "--input-format", "jsonl")
    assert [line["id"] for line in lines(out)] == ["first", 1]


def test_people_get_aligned_rows(run, model):
    code, out, _ = run("run", "text-classification", "What a lovely day!", "bad", "--top-k", "2", "-m", model)
    header, *body = out.splitlines()
    assert code == 0
    assert header.split() == ["id", "label", "score"]
    assert [row.split()[0] for row in body] == ["0", "0", "1", "1"]
    assert {row.index(row.split()[2], 4) for row in body} == {header.index("score")}


def test_labels_and_their_scores_stand_side_by_side(run, checkpoint):
    command = ["zero-shot-classification", "The striker scored.", "--candidate-labels", "sports,politics"]
    header, first, _ = run("run", *command, "-m", checkpoint("bert-nli"))[1].splitlines()
    assert header.split() == ["labels", "scores", "sequence"]
    assert first.endswith("The striker scored.")


def test_a_text_alone_in_its_row_is_shown_whole_and_line_by_line(run, checkpoint):
    text = "\x1b[1m" + "word " * 50 + "\nend"
    command = ["text-generation", text, "--max-new-tokens", "1", "--no-do-sample", "-m", checkpoint("gpt2-long")]
    first, second = run("run", *command)[1].splitlines()
    assert first == "\\x1b[1m" + "word " * 50
    assert second.startswith("end")


def test_a_text_cannot_paint_the_terminal(run, checkpoint):
    command = ["zero-shot-classification", "\x1b[31mred\r\n", "--candidate-labels", "\x1b[1mx,y"]
    out = run("run", *command, "-m", checkpoint("bert-nli"))[1]
    assert "\x1b" not in out
    assert "\\x1b[31mred" in out


def test_no_entity_is_said_on_stderr(run, checkpoint):
    ignored = [flag for label in ("PER", "LOC", "O") for flag in ("--ignore-labels", label)]
    command = ["ner", "Ada", "--aggregation-strategy", "simple", *ignored]
    assert run("run", *command, "-m", checkpoint("bert-tags")) == (0, "", "triarch: nothing found\n")


# Inputs


def test_a_file_is_read_line_by_line_and_said_so(run, model, tmp_path):
    (tmp_path / "notes.txt").write_text("good\nbad\n")
    code, out, err = run("run", "text-classification", tmp_path / "notes.txt", "-m", model, "--jsonl")
    assert (code, len(lines(out)), err) == (0, 2, f"triarch: reading {tmp_path / 'notes.txt'}\n")


def test_a_table_is_read_by_its_columns(run, checkpoint, tmp_path):
    (tmp_path / "questions.csv").write_text("question,context\nWhere?,Ada lived in London.\nWho?,Ada lived there.\n")
    command = ["question-answering", tmp_path / "questions.csv", "-m", checkpoint("bert-qa"), "--jsonl"]
    assert all("answer" in line["result"] for line in lines(run("run", *command)[1]))


@pytest.mark.parametrize("inputs", [[], ["-"]])
def test_a_pipe_is_read_line_by_line(run, pipe, model, inputs):
    pipe(b"good\nbad\n")
    assert len(lines(run("run", "text-classification", *inputs, "-m", model, "--jsonl")[1])) == 2


def test_a_pipe_may_be_one_text(run, pipe, model):
    pipe(b"good\nbad\n")
    _, out, _ = run("run", "text-classification", "-", "-m", model, "--input-format", "whole", "--json")
    assert json.loads(out) == triarch.pipeline("text-classification", model)("good\nbad\n")


def test_a_file_of_any_name_may_hold_json_lines(run, model, tmp_path):
    (tmp_path / "dump.log").write_text('{"text": "good"}\n{"text": "bad"}\n')
    command = ["text-classification", tmp_path / "dump.log", "-m", model, "--jsonl", "--input-format", "jsonl"]
    assert all("label" in line["result"] for line in lines(run("run", *command)[1]))


def test_texts_files_and_pipe_mix_in_order(run, pipe, model, tmp_path):
    pipe(b"from the pipe\n")
    (tmp_path / "a.jsonl").write_text('{"id": "a", "text": "from a file"}\n')
    _, out, _ = run("run", "text-classification", "a text", tmp_path / "a.jsonl", "-", "-m", model, "--jsonl")
    assert [line["id"] for line in lines(out)] == [0, "a", 2]


def test_a_file_that_is_not_there_is_no_text(run, model):
    code, out, err = run("run", "text-classification", "notes.jsonl", "-m", model)
    assert (code, out) == (4, "")
    assert "notes.jsonl is not there" in err


def test_a_text_may_begin_with_a_dash(run, model):
    assert run("run", "text-classification", "-m", model, "--", "--good")[0] == 0


def test_without_input_a_terminal_is_told_what_to_do(run, model, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    code, _, err = run("run", "text-classification", "-m", model)
    assert code == 2
    assert "give a text or a file, or pipe lines in" in err


def test_an_empty_pipe_is_an_empty_list(run, pipe, model):
    pipe(b"")
    assert run("run", "text-classification", "-m", model, "--json") == (0, "[]\n", "triarch: no input\n")


def test_the_model_may_come_from_the_environment(run, model, monkeypatch):
    monkeypatch.setenv("TRIARCH_MODEL", model)
    assert run("run", "text-classification", "good")[0] == 0


# Errors


def test_inputs_that_fail_do_not_stop_the_others(run, pipe, model):
    pipe(b"good\n\xff\nbad\n")
    code, out, _ = run("run", "text-classification", "-m", model, "--jsonl")
    first, second, third = lines(out)
    assert code == 3
    assert second["id"] == 1
    assert second["error"]["type"] == "InvalidInput"
    assert "result" in first
    assert "result" in third


def test_people_read_of_failed_inputs_on_stderr(run, pipe, model):
    pipe(b"good\n\xff\n")
    code, out, err = run("run", "text-classification", "-m", model)
    assert (code, len(out.splitlines())) == (3, 2)
    assert err == "triarch: input 1: stdin line 2 is not UTF-8 at byte 0; convert it first\n"


def test_failed_inputs_keep_their_place_in_a_json_list(run, pipe, model):
    pipe(b"\xff\ngood\n")
    code, out, _ = run("run", "text-classification", "-m", model, "--json")
    assert code == 3
    assert [[*answer] for answer in json.loads(out)] == [["error"], ["label", "score"]]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_an_only_input_that_fails_gives_its_own_exit_code(run, checkpoint, form):
    code, out, err = run("run", "fill-mask", "no mask here", "-m", checkpoint("bert-words"), *form)
    assert (code, out) == (2, "")
    assert err == "triarch: no mask in 'no mask here'; write [MASK] where a word is missing\n"


def test_an_only_input_that_fails_is_a_line_of_jsonl(run, checkpoint):
    code, out, _ = run("run", "fill-mask", "no mask here", "-m", checkpoint("bert-words"), "--jsonl")
    assert code == 2
    assert lines(out)[0]["error"]["type"] == "InvalidInput"


@pytest.mark.parametrize(
    "args, code, hint",
    [
        (["rnu"], 2, "did you mean run?"),
        (["run", "text-clasification", "x"], 4, "did you mean text-classification?"),
        (["run", "nre", "x"], 4, "did you mean ner?"),
        (["run", "ner", "x", "--aggregation-stratgy", "simple"], 2, "Did you mean '--aggregation-strategy'?"),
        (["run", "ner", "x", "--aggregation-strategy", "smiple"], 2, "did you mean simple?"),
        (["list", "task"], 2, "'tasks', 'families', 'heads'"),
    ],
)
def test_a_mistyped_name_gets_a_suggestion(run, args, code, hint):
    got, out, err = run(*args)
    assert (got, out) == (code, "")
    assert hint in err


@pytest.mark.parametrize(
    "args",
    [
        ["run", "ner", "x"],
        ["run", "ner", "x", "-m", "y", "--dtyp", "z"],
        ["inspect"],
        ["env", "x"],
        ["completion", "tcsh"],
    ],
)
def test_wrong_use_is_one_line_and_the_way_to_help(run, args):
    code, out, err = run(*args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.endswith("--help.\n")


@pytest.mark.parametrize("flags", [["--batch-size", "0"], ["--top-k", "-3"], ["--stride", "x"]])
def test_bad_options_show_before_the_model_is_looked_for(run, flags):
    code, _, err = run("run", "text-classification", "x", "-m", "./nowhere", *flags)
    assert code == 2
    assert "nowhere" not in err


def test_our_own_mistake_is_one_line(run, model, monkeypatch):
    monkeypatch.setattr("triarch.tasks.pipeline", lambda *_, **__: 1 / 0)
    code, _, err = run("run", "text-classification", "x", "-m", model)
    assert code == 1
    wanted = "internal error: ZeroDivisionError: division by zero; set TRIARCH_DEBUG=1 for the traceback"
    assert err == f"triarch: {wanted}\n"


def test_debug_shows_the_traceback(run, monkeypatch):
    monkeypatch.setenv("TRIARCH_DEBUG", "1")
    assert "Traceback" in run("inspect", "./nowhere")[2]


def test_a_number_that_json_lacks_is_refused(run, model, monkeypatch):
    monkeypatch.setattr(task_class("text-classification"), "answer", lambda *_: {"score": float("nan")})
    code, out, err = run("run", "text-classification", "x", "-m", model, "--json")
    assert (code, out) == (1, "")
    assert "not finite" in err


# Files to write


def test_output_goes_to_a_file(run, model, tmp_path):
    code, out, _ = run("run", "text-classification", "good", "-m", model, "--json", "-o", tmp_path / "out.json")
    assert (code, out) == (0, "")
    assert json.loads((tmp_path / "out.json").read_text())[0]["label"]


def test_a_failed_run_leaves_the_old_output(run, checkpoint, tmp_path):
    (tmp_path / "out.json").write_text("old")
    run("run", "fill-mask", "no mask", "-m", checkpoint("bert-words"), "-o", tmp_path / "out.json")
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    assert (tmp_path / "out.json").read_text() == "old"


@pytest.mark.parametrize("output, why", [("", "is a folder"), ("missing/out.json", "No such file")])
def test_an_output_that_cannot_be_written_is_said(run, model, tmp_path, output, why):
    code, _, err = run("run", "text-classification", "good", "-m", model, "-o", tmp_path / output)
    assert code in (1, 2)
    assert why in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full here")
def test_a_device_is_written_to_and_not_replaced(run, model):
    code, _, err = run("run", "text-classification", "good", "-m", model, "-o", "/dev/full")
    assert (code, Path("/dev/full").is_char_device()) == (1, True)
    assert "No space left on device" in err


# The other verbs


def test_every_verb_and_task_explains_itself(run):
    for args in ([], *([verb] for verb in cli.VERBS), *(["run", task] for task in tasks())):
        code, out, err = run(*args, "--help")
        assert (code, err) == (0, ""), args
        assert "--help" in out


def test_help_explains_each_option_of_a_task(run):
    out = " ".join(run("run", "zero-shot-classification", "--help")[1].split())
    assert "--candidate-labels TEXT a list, or one text with commas between [repeatable]" in out
    assert "--multi-label / --no-multi-label each label by itself" in out
    assert "--long window|truncate|error what happens to an input longer than the model [default: window]" in out


def test_version(run):
    assert run("--version") == (0, f"triarch {triarch.__version__}\n", "")


def test_nothing_typed_shows_help(run):
    code, out, err = run()
    assert (code, out) == (2, "")
    assert "Usage: triarch" in err


def test_inspect_tells_what_the_file_can_serve(run, model):
    found = json.loads(run("inspect", model, "--json")[1])
    assert found["family"] == "bert"
    assert found["architecture"] == "BertForSequenceClassification"
    assert "BertModel" in found["heads_served"]
    assert "BertForQuestionAnswering" in found["heads_lacking"]
    assert found["labels"] == ["negative", "neutral", "positive"]
    assert found["tokenizer"]["kind"] == "WordPiece"


def test_inspect_counts_parameters(run, model):
    parameters = triarch.load(model).parameters()
    assert json.loads(run("inspect", model, "--json")[1])["parameters"] == sum(p.numel() for p in parameters)


def test_inspect_reads_no_weights(run, model, monkeypatch):
    def forbidden(*_):
        raise AssertionError("weights were read")

    monkeypatch.setattr("torch.from_numpy", forbidden)  # how bytes of a file come into a tensor
    assert run("inspect", model)[0] == 0


def test_inspect_serves_no_head_with_weights_of_another_meaning(run, model):
    assert "BertForTokenClassification" in json.loads(run("inspect", model, "--json")[1])["heads_lacking"]


def test_inspect_makes_no_fresh_weights(run, tmp_path):
    tiny.write_checkpoint(tmp_path, "distilbert", "DistilBertModel", sinusoidal_pos_embds=True)
    assert run("inspect", tmp_path)[0] == 0


def test_inspect_names_what_the_head_does_not_use(run, checkpoint, tmp_path):
    folder = Path(checkpoint("bert-words"))
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text()) | {"architectures": ["BertModel"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = json.loads(run("inspect", tmp_path, "--json")[1])
    assert "cls.predictions.transform.dense.weight" in found["unused"]


def test_inspect_reads_the_files_of_sentence_transformers(run, checkpoint, tmp_path):
    for path in Path(checkpoint("bert")).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    modules = [{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    assert json.loads(run("inspect", tmp_path, "--json")[1])["sentence"]["pooling"] == ["cls_token"]


def test_inspect_refuses_weights_that_do_not_fit_the_config(run, checkpoint, tmp_path):
    for path in Path(checkpoint("bert")).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text()) | {"num_hidden_layers": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    code, out, err = run("inspect", tmp_path)
    assert (code, out) == (5, "")
    assert "checkpoint does not fit BertModel" in err


def test_list_has_every_task_with_its_aliases(run):
    found = {row["task"]: row["aliases"] for row in json.loads(run("list", "--json")[1])}
    assert found == {name: [*task_class(name).ALIASES] for name in tasks()}


def test_list_says_which_tasks_a_head_serves(run):
    rows = {row["head"]: row["tasks"] for row in json.loads(run("list", "heads", "--json")[1])}
    assert rows["BertForQuestionAnswering"] == ["question-answering"]


def test_list_families_for_people(run):
    assert "bert" in run("list", "families")[1].split()


def test_env_keeps_secrets(run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy")
    code, out, _ = run("env", "--json")
    assert code == 0
    assert json.loads(out)["variables"]["HF_TOKEN"] == "set"
    assert "secret" not in out


def test_tour_hands_on_page_and_model(run, monkeypatch):
    seen = []
    monkeypatch.setattr("triarch.tour.tour", lambda *given: seen.append(given))
    assert run("tour", "-m", "folder", "--output", "page.html") == (0, "", "")
    assert seen == [(Path("page.html"), "folder")]


# Completion


def completions(args, incomplete=""):
    made = ShellComplete(cli.triarch, {}, "triarch", cli.COMPLETE)
    return {item.value for item in made.get_completions(args, incomplete)}


def test_verbs_and_tasks_complete():
    assert completions([], "in") == {"inspect"}
    assert completions(["run"], "text-") == {"text-classification", "text-generation"}


def test_options_of_a_task_complete():
    assert completions(["run", "ner"], "--agg") == {"--aggregation-strategy"}
    assert completions(["run", "ner", "--aggregation-strategy"], "s") == {"simple"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(run, shell):
    code, out, _ = run("completion", shell)
    assert code == 0
    assert f"_TRIARCH_COMPLETE={shell}_complete" in out


def test_a_mistyped_task_does_not_disturb_completion(run, monkeypatch):
    monkeypatch.setenv("_TRIARCH_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "triarch run nre --")
    monkeypatch.setenv("COMP_CWORD", "3")
    assert run()[1:] == ("", "")


# The process


def test_help_imports_nothing_heavy():
    heavy = "torch", "numpy", "tokenizers", "huggingface_hub", "safetensors", "tqdm"
    code = f"import sys; from triarch.cli import main; main(['--help']); print({heavy} & sys.modules.keys())"
    code = code.replace(repr(heavy), repr(set(heavy)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_help_of_a_task_does_not_import_torch():
    code = "import sys; from triarch.cli import main; main(['run', 'ner', '--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_silently(tmp_path, number, code):
    os.mkfifo(tmp_path / "fifo")  # nobody writes, so it waits there
    command = [*TRIARCH, "run", "ner", tmp_path / "fifo", "-m", "./nowhere"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == f"triarch: reading {tmp_path / 'fifo'}\n"
        process.send_signal(number)
        assert process.wait(timeout=10) == code
        assert process.stderr.read() == ""


def test_a_reader_that_leaves_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*TRIARCH, "list"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full here")
def test_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run([*TRIARCH, "list"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "No space left on device" in done.stderr


def test_a_broken_stderr_keeps_the_exit_code():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*TRIARCH, "run", "nre"], stderr=writer, stdout=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stdout) == (4, b"")


def test_streams_may_be_closed():
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *TRIARCH]
    assert subprocess.run([*command, "list"], check=False).returncode == 0
    assert subprocess.run([*command, "rnu"], check=False).returncode == 2


def test_json_is_utf8_in_the_c_locale(checkpoint):
    command = [*TRIARCH, "run", "zero-shot-classification", "--candidate-labels", "a,b", "-m", checkpoint("bert-nli")]
    ascii_only = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    text = "Le café à Zürich"
    done = subprocess.run([*command, "--json"], input=text.encode(), env=ascii_only, capture_output=True, check=True)
    assert json.loads(done.stdout.decode("utf-8"))["sequence"] == text


def test_a_narrow_terminal_still_shows_help():
    narrow = os.environ | {"COLUMNS": "20", "TERM": "dumb"}
    assert subprocess.run([*TRIARCH, "run", "ner", "--help"], env=narrow, capture_output=True, check=True).stdout
