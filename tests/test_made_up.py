"""A made-up family of a made-up medium: load, save, a task, training and the shell work with it as with any other, and
nothing in src/ knows of it. Its files stand in tests/helpers/made_up, and are put beside ours for these tests alone.
"""

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import made_up
import runs
import tiny
import triarch
import triarch.models
import triarch.tasks
from made_up.melody import MAGIC, written
from triarch import checkpoint
from triarch.checkpoint import loading
from triarch.cli import main
from triarch.errors import CorruptFile, InvalidInput, LimitExceeded, NotFound, TriarchError, Unsupported
from triarch.inputs.fit import Fit
from triarch.models import families, family
from triarch.tasks import tasks

TASK = "melody-classification"
QUICK = {"epochs": 4, "batch_size": 4, "lr": 0.02}
STEPS = 28  # of 26 examples: some of the 16 melodies have two pieces
HIGH, LOW = [90, 95, 100, 92, 97], [20, 25, 30, 22, 27]


@pytest.fixture(scope="module", autouse=True)
def at_home():
    """The made-up family and task, for as long as the tests of this file run."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        for room in (triarch.models, triarch.tasks):
            folder = str(Path(made_up.__file__).parent / room.__name__.rpartition(".")[2])
            patch.setattr(room, "__path__", [*room.__path__, folder])
        yield
    for name in ("triarch.models.made_up", "triarch.tasks.melody_classification"):
        if name not in before:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    kind = family("made_up")
    config = kind.config(kind.tiny.to_hf() | checkpoint.label_tables(["high", "low"]))
    made = kind.build(config, "MadeUpForClassification")
    made.processor = kind.reads.new(None, config)
    return made


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    triarch.save(network, path)
    return path


@pytest.fixture(scope="module")
def ask(folder):
    return triarch.pipeline(TASK, str(folder))


@pytest.fixture
def tunes(tmp_path):
    """A folder for each class; some of the melodies are longer than the model hears at once."""
    path = tmp_path / "tunes"
    for i in range(8):
        for name, notes in (("high", HIGH), ("low", LOW)):
            (path / name).mkdir(parents=True, exist_ok=True)
            (path / name / f"{i}.melody").write_bytes(written([note + i for note in notes] * (1 + i % 3)))
    return path


@pytest.fixture
def table(tunes):
    """The same melodies, named in a table."""
    rows = [f"{name}/{i}.melody,{name}" for i in range(8) for name in ("high", "low")]
    (tunes / "table.csv").write_text("\n".join(["tune,label", *rows]) + "\n")
    return tunes / "table.csv"


@pytest.fixture
def run(capsys, fast_disk):
    def call(*args):
        code = main([*map(str, args)])
        return code, *capsys.readouterr()

    return call


def learn(data, output, **settings):
    notes = []
    if "model" not in settings:
        settings = {"family": "made_up", "config": {"hidden_size": 16, "most_notes": 8}} | settings
    return triarch.train(data, output=output, note=notes.append, **QUICK | settings), notes


# Load, save, task


def test_it_is_a_family_and_a_task_like_others():
    assert "made_up" in families()
    assert TASK in tasks()


def test_what_is_saved_is_loaded_with_the_same_scores(network, folder, tmp_path):
    again = triarch.load(folder)
    batch = network.processor.collate(network.processor.pieces(network.processor.read(written(HIGH)), Fit()))
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, network(**batch).logits)
    triarch.save(again, tmp_path)
    for name in ("config.json", "melody_config.json", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_one_input_is_a_path_or_bytes(ask, tunes):
    path = tunes / "high" / "0.melody"
    found = ask(path)
    assert found == ask(str(path)) == ask(path.read_bytes())
    assert [label["label"] for label in found] in (["high", "low"], ["low", "high"])


def test_lists_and_folders_hold_many(ask, tunes):
    paths = sorted(tunes.rglob("*.melody"))
    alone = [ask(path) for path in paths]
    for found in (ask(paths), list(ask(tunes))):
        for one, other in zip(found, alone, strict=True):
            assert one[0]["label"] == other[0]["label"]
            assert one[0]["score"] == pytest.approx(other[0]["score"], abs=1e-6)  # batches round otherwise


def test_a_long_input_is_read_whole(ask):
    assert ask(written(HIGH * 4), coverage=True)["coverage"] == {
        "tokens": 20,
        "seen": 20,
        "windows": 3,
        "strategy": "window",
    }


@pytest.mark.parametrize(
    "given, error",
    [
        (b"", InvalidInput),
        (b"other", InvalidInput),
        (MAGIC, CorruptFile),
        (MAGIC + b"\xff", CorruptFile),
        (written([1] * (1 << 16)), LimitExceeded),
        ("nowhere.melody", NotFound),
        (7, InvalidInput),
    ],
)
def test_a_bad_input_is_a_typed_line(ask, given, error):
    with pytest.raises(error) as raised:
        ask(given)
    assert "\n" not in str(raised.value)


def test_a_bad_input_fails_alone(ask):
    good, bad = ask.stream([written(HIGH), b"other"], ask.options({}))
    assert good == ask(written(HIGH))
    assert isinstance(bad, TriarchError)


def test_threads_get_what_they_would_get_alone(ask, tunes):
    paths = sorted(tunes.rglob("*.melody"))
    alone = [ask(path) for path in paths]
    ready = threading.Barrier(8)

    def work(number):
        ready.wait()
        return [ask(path) for path in paths[number:] + paths[:number]]

    with ThreadPoolExecutor(8) as pool:
        for number, found in enumerate(pool.map(work, range(8))):
            assert found == alone[number:] + alone[:number]


def test_a_model_of_another_medium_is_refused(folder, model):
    with pytest.raises(Unsupported, match="reads melody, this task needs one that reads text"):
        triarch.pipeline("text-classification", str(folder))
    with pytest.raises(Unsupported, match="reads text, this task needs one that reads melody"):
        triarch.pipeline(TASK, tiny.load("bert-labels"))


def test_a_folder_without_melodies_is_refused(ask, folder):
    with pytest.raises(InvalidInput, match=r"holds no file that ends in \.melody"):
        list(ask(folder))


def test_a_checkpoint_without_its_processor_says_which_file_is_missing(folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(Unsupported, match=r"has no melody processor; put melody_config\.json beside the weights"):
        triarch.pipeline(TASK, str(tmp_path))
    with pytest.raises(InvalidInput, match="reads melody, no text"):
        checkpoint.load_tokenizer(tmp_path)


# The shell


def test_inspect_names_family_medium_and_the_task_and_no_task_of_text(run, folder):
    found = json.loads(run("inspect", folder, "--json")[1])
    assert (found["family"], found["medium"]) == ("made_up", "melody")
    assert found["tasks"] == [TASK]
    assert found["melody_processor"] == {"most_notes": 8}
    assert run("inspect", folder)[0] == 0


def test_list_names_family_medium_and_the_task(run):
    rows = {row["task"]: row["reads"] for row in json.loads(run("list", "tasks", "--json")[1])}
    assert (rows[TASK], rows["fill-mask"]) == ("melody", "text")
    rows = {row["family"]: row["reads"] for row in json.loads(run("list", "families", "--json")[1])}
    assert (rows["made_up"], rows["bert"], rows["vit"]) == ("melody", "text", "image")
    rows = {row["head"]: row["tasks"] for row in json.loads(run("list", "heads", "--json")[1])}
    assert rows["MadeUpForClassification"] == [TASK]


def test_the_shell_runs_the_task_on_a_file_and_on_a_folder(run, ask, folder, tunes):
    code, out, _ = run("run", TASK, tunes / "high" / "0.melody", "-m", folder, "--json")
    assert (code, json.loads(out)) == (0, ask(tunes / "high" / "0.melody"))
    code, out, _ = run("run", TASK, tunes / "high", "-m", folder, "--jsonl")
    assert (code, len(out.splitlines())) == (0, 8)
    assert run("run", TASK, "--help")[0] == 0


# Training


def test_a_folder_for_each_class_is_learned_from_and_the_model_answers(run, folder, tunes, tmp_path):
    code, _, err = run(
        *("train", tunes, "-m", folder, "-o", tmp_path / "out", "--epochs", 6, "--batch-size", 4, "--lr", 0.02),
        *("--validation-share", 0.25),
    )
    assert code == 0, err
    ask = triarch.pipeline(TASK, str(tmp_path / "out"))
    assert [ask(tunes / name / "3.melody")[0]["label"] for name in ("high", "low")] == ["high", "low"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert f'triarch.pipeline("{TASK}"' in card
    assert "text-classification" not in card
    assert "What was taken for what" in (tmp_path / "out" / "report.html").read_text()
    code, out, err = run("evaluate", tunes, "-m", tmp_path / "out", "--json")
    assert code == 0, err
    assert json.loads(out)["accuracy"] == 1.0


def test_a_table_of_paths_is_learned_from_with_fresh_weights(table, tmp_path, fast_disk):
    outcome, notes = learn(str(table), tmp_path / "out", validation_share=0.25)
    assert any(note.startswith("read as: classification (melody = tune, label)") for note in notes)
    assert outcome["validation accuracy"] >= 0.5
    assert triarch.load(tmp_path / "out").processor.most_notes == 8


def test_rows_in_memory_are_learned_from_and_wrong_ones_are_named(tmp_path, fast_disk):
    rows = [{"melody": written([40 + i]), "label": "high" if i % 2 else "low"} for i in range(8)]
    learn(rows, tmp_path / "out", validation_share=0.5, lr=1e-4, epochs=1)
    assert "row " in (tmp_path / "out" / "report.html").read_text().partition("Most wrong")[2]


def test_wrong_rows_of_files_are_named_by_their_paths(tunes, tmp_path, fast_disk):
    (tunes / "low" / "9.melody").write_bytes(written(HIGH))  # which nothing can tell
    learn(str(tunes), tmp_path / "out", validation=[str(tunes)])
    report = (tmp_path / "out" / "report.html").read_text()
    assert "low/9.melody" in report.partition("Most wrong")[2]
    assert str(tunes) not in report.partition("Most wrong")[2].partition("To do it again")[0]


def test_a_run_goes_on_where_it_was_killed_to_the_bit(tunes, tmp_path, monkeypatch, fast_disk):
    settings = {"validation_share": 0.25, "save_every": 3}
    learn(str(tunes), tmp_path / "whole", **settings)
    with monkeypatch.context() as patch:
        runs.after_step(patch, 5, runs.die)
        with pytest.raises(runs.Killed):
            learn(str(tunes), tmp_path / "killed", **settings)
    learn(str(tunes), tmp_path / "killed", resume=True, **settings)
    assert runs.left_by(tmp_path / "killed") == runs.left_by(tmp_path / "whole")


def test_a_run_goes_on_with_the_same_inputs_alone_wherever_they_lie(tunes, tmp_path, monkeypatch, fast_disk):
    with monkeypatch.context() as patch:
        runs.after_step(patch, 5, runs.die)
        with pytest.raises(runs.Killed):
            learn(str(tunes), tmp_path / "out", save_every=3)
    moved = tunes.rename(tmp_path / "moved")
    changed = moved / "high" / "0.melody"
    before = changed.read_bytes()
    changed.write_bytes(written([1, 2, 3]))
    with pytest.raises(InvalidInput, match="is of another run: data was"):
        learn(str(moved), tmp_path / "out", save_every=3, resume=True)
    changed.write_bytes(before)
    assert learn(str(moved), tmp_path / "out", save_every=3, resume=True)[0]["steps"] == STEPS


def test_bad_inputs_are_named_together_or_left_out(tunes, tmp_path, fast_disk):
    (tunes / "high" / "0.melody").write_bytes(MAGIC)
    (tunes / "low" / "0.melody").write_bytes(b"other")
    with pytest.raises(InvalidInput, match=r"2 of 16 rows cannot be used: .*0\.melody is damaged.*is no melody"):
        learn(str(tunes), tmp_path / "out")
    _, notes = learn(str(tunes), tmp_path / "out2", on_bad_row="skip", epochs=1)
    assert any(note.startswith("2 of 16 rows left out") for note in notes)


def test_long_inputs_are_refused_where_that_is_asked_for(tunes, folder, tmp_path, fast_disk):
    with pytest.raises(InvalidInput, match=r"10 of 16 rows cannot be used: .*the input has 10 notes, at most 8 fit"):
        learn(str(tunes), tmp_path / "out", model=str(folder), options={"long": "error"})
    assert learn(str(tunes), tmp_path / "out", model=str(folder), options={"long": "truncate"})[0]["steps"] == 16


def test_a_table_that_names_a_file_that_is_not_there_says_in_which_line(table, tmp_path, fast_disk):
    table.write_text(table.read_text() + "high/nowhere.melody,high\n")
    with pytest.raises(InvalidInput, match=r"table\.csv line 18: .*nowhere\.melody cannot be read"):
        learn(str(table), tmp_path / "out")


def test_a_teacher_of_the_same_medium_is_learned_from(folder, tunes, tmp_path, fast_disk):
    outcome, _ = learn(str(tunes), tmp_path / "out", teacher=str(folder), labels=["high", "low"])
    assert outcome["steps"] == STEPS
    with pytest.raises(InvalidInput, match="the teacher's melody processor is not the model's"):
        learn(str(tunes), tmp_path / "other", teacher=str(folder), config={"most_notes": 4})


def test_media_are_kept_apart_in_training(folder, tunes, model, tmp_path, fast_disk):
    with pytest.raises(InvalidInput, match=r"the columns \(text, label\) fit no kind of rows; .* --column melody=text"):
        learn(runs.ROWS, tmp_path / "texts", model=str(folder))
    with pytest.raises(InvalidInput, match="holds files that are not known as data"):
        learn(str(tunes), tmp_path / "melodies", model=model("bert"))
    with pytest.raises(Unsupported, match="the teacher reads text, the model melody"):
        learn(str(tunes), tmp_path / "taught", model=str(folder), teacher=model("bert-labels"))
    with pytest.raises(InvalidInput, match="mlm learns from running text, and the model reads melody"):
        learn(str(tunes), tmp_path / "words", model=str(folder), objective="mlm")
    with pytest.raises(InvalidInput, match="max_tokens counts tokens of text, and the model reads melody"):
        learn(str(tunes), tmp_path / "tokens", model=str(folder), options={"max_tokens": 4})


def test_a_folder_for_a_new_model_has_to_hold_its_processor(tunes, folder, tmp_path):
    with pytest.raises(NotFound, match=r"holds no melody_config\.json"):
        learn(str(tunes), tmp_path / "out", tokenizer=str(tunes))


# A checkpoint is opened once


@pytest.fixture
def openings(monkeypatch):
    """How often weights and config.json of each folder are looked at."""
    seen = {"config": [], "weights": []}
    describe, entries = loading.describe, loading.files.entries
    monkeypatch.setattr(loading, "describe", lambda at: seen["config"].append(at.path.name) or describe(at))
    monkeypatch.setattr(loading.files, "entries", lambda at: seen["weights"].append(at.path.name) or entries(at))
    return seen


def test_a_checkpoint_is_opened_once_by_each_call(folder, model, tunes, tmp_path, openings, fast_disk):
    def opened(work):
        for found in openings.values():
            found.clear()
        work()
        assert openings["config"] == openings["weights"]
        return openings["config"]

    name, text = folder.name, Path(model("bert")).name
    assert opened(lambda: triarch.load(folder)) == [name]
    assert opened(lambda: triarch.pipeline(TASK, str(folder))) == [name]
    assert opened(lambda: learn(str(tunes), tmp_path / "a", model=str(folder), epochs=1)) == [name]
    assert opened(lambda: triarch.evaluate(str(folder), str(tunes), note=lambda line: None)) == [name]
    taught = {"model": str(folder), "teacher": str(tmp_path / "a"), "epochs": 1}
    assert opened(lambda: learn(str(tunes), tmp_path / "b", **taught)) == [name, "a"]
    assert opened(lambda: learn(runs.ROWS, tmp_path / "c", model=model("bert"), epochs=1)) == [text]
