"""`triarch bench`."""

import json

import pytest

import tiny
from triarch import cli
from triarch.engine import sweep


@pytest.fixture
def run(capsys):
    def run(*args):
        code = cli.main([*args])
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tiny.write_checkpoint(tmp_path_factory.mktemp("gpt2"), "gpt2", "GPT2LMHeadModel"))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(sweep, "ENOUGH", 0.0)
    monkeypatch.setattr(sweep, "TIMES", (1 / 64, 1 / 32))


def test_budgets_as_json(run, folder):
    code, out, err = run("bench", "--budgets", "-m", folder, "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["budget"] for row in rows] == [128, 256]
    assert rows[0].keys() == {"work", "model", "budget", "tokens_per_second", "peak_mib", "default"}
    assert err.count("writing with gpt2") == 2


def test_budgets_as_a_table(run, folder):
    _, out, _ = run("bench", "--budgets", "-m", folder)
    assert out.split()[:3] == ["work", "model", "budget"]


def test_what_is_measured_must_be_said(run):
    code, out, err = run("bench")
    assert (code, out) == (2, "")
    assert "--budgets" in err
