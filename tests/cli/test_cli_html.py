"""`triarch run --html`: a page of inputs and answers beside what goes to stdout."""

import json
from functools import cache

import pytest

import tiny
from pages import Page, asks_by_style
from triarch.cli import main

TEXT = "Ada lived in London."


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The folder of a tiny model, by its name in `tiny.MODELS`; made once."""
    return cache(lambda name: str(tiny.write_checkpoint(tmp_path_factory.mktemp(name), **tiny.MODELS[name])))


@pytest.fixture
def run(capsys, checkpoint, tmp_path):
    """Runs a task with --html: exit code, stdout, stderr, and the page or None."""

    def call(task, name, *args):
        code = main(["run", task, "-m", checkpoint(name), "--html", str(tmp_path / "out.html"), *map(str, args)])
        path = tmp_path / "out.html"
        return code, *capsys.readouterr(), path.read_text(encoding="utf-8") if path.exists() else None

    return call


def test_page_has_the_input_and_the_answer(run):
    code, out, _, html = run("text-classification", "bert-labels", TEXT, "--json")
    page = Page(html)
    assert code == 0
    assert TEXT in page.text
    assert json.loads(out)[0]["label"] in page.text
    assert (page.asking(), page.undescribed(), page.skipped(), asks_by_style(html)) == (set(), [], [], False)


def test_stdout_is_as_without_a_page(run, checkpoint, capsys):
    assert main(["run", "text-classification", TEXT, "--json", "-m", checkpoint("bert-labels")]) == 0
    plain = capsys.readouterr().out
    assert run("text-classification", "bert-labels", TEXT, "--json")[1] == plain


def test_each_of_several_inputs_has_its_answer(run):
    _, out, _, html = run("text-classification", "bert-labels", "good day", "bad night", "--jsonl")
    assert len(Page(html).all("article")) == len(out.splitlines()) == 2
    assert html.index("good day") < html.index("bad night")


def test_options_of_the_call_serve_the_page(run):
    html = run("question-answering", "bert-qa", TEXT, "--question", "Where?")[3]
    assert "Where?" in Page(html).text
    assert "<mark" in html
    html = run("sentence-similarity", "bert", TEXT, "--sentences", "a lovely day", "--sentences", "no")[3]
    assert "a lovely day" in Page(html).text


def test_columns_of_a_file_are_its_inputs(run, tmp_path):
    (tmp_path / "rows.csv").write_text("question,context\nWhere?,Ada lived in London.\nWho?,Grace lived in York.\n")
    html = run("question-answering", "bert-qa", tmp_path / "rows.csv", "--jsonl")[3]
    assert len(Page(html).all("article")) == 2
    assert all(one in Page(html).text for one in ("Where?", "Who?"))


def test_an_input_that_failed_is_on_the_page_with_its_error(run):
    code, _, _, html = run("fill-mask", "bert-words", "Paris is the [MASK].", "no mask here", "--jsonl")
    assert code == 3
    assert "InvalidInput no mask in" in Page(html).text


def test_a_failed_run_leaves_the_old_page(run, tmp_path):
    (tmp_path / "out.html").write_text("old")
    code, _, _, html = run("fill-mask", "bert-words", "no mask here")
    assert (code, html) == (2, "old")
    assert [path.name for path in tmp_path.iterdir()] == ["out.html"]


def test_a_page_that_cannot_be_written_is_said_before_the_model_is_loaded(run, tmp_path):
    (tmp_path / "out.html").mkdir()
    code = main(["run", "ner", TEXT, "-m", "no-such-model", "--html", str(tmp_path / "out.html")])
    assert code == 1


def test_hostile_text_stays_text(run):
    html = run("text-classification", "bert-labels", "</style><script>alert(1)</script>")[3]
    assert not Page(html).all("script")
    assert "<script>alert(1)</script>" in Page(html).text
