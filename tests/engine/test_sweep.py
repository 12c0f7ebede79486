"""The sweep over budgets: every default is among what is tried, and time is bounded."""

import pytest
import torch

from triarch.engine import budgets, sweep
from triarch.engine.linear import FastLinear
from triarch.models import family


def model(name, head):
    return family(name).build(family(name).tiny, head)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(sweep, "ENOUGH", 0.0)
    monkeypatch.setattr(sweep, "TIMES", (1 / 8, 1))


@pytest.mark.parametrize(
    "name, head, works",
    [
        ("bert", "BertModel", {"learning": budgets.LEARNING, "reading": budgets.READING}),
        ("gpt2", "GPT2LMHeadModel", {"writing": budgets.WRITING}),
        ("bart", "BartForConditionalGeneration", {"writing": budgets.WRITING}),
    ],
)
def test_rows_hold_the_default_of_each_work(quick, name, head, works):
    rows = [*sweep.sweep(model(name, head))]
    assert {row["work"]: row["budget"] for row in rows if row["default"]} == {k: v.cpu for k, v in works.items()}
    assert all(row["tokens_per_second"] > 0 for row in rows)


def test_budgets_there_is_no_time_for_are_left_out(quick, monkeypatch):
    monkeypatch.setattr(sweep, "SECONDS", 0.0)
    assert [row["budget"] for row in sweep.sweep(model("gpt2", "GPT2LMHeadModel"))] == [budgets.WRITING.cpu // 8]


@pytest.mark.parametrize("name", sweep.SIZES)
def test_default_models_have_layers_of_the_usual_size(name):
    with torch.device("meta"):
        made = sweep.made(name, torch.device("meta"))
    assert {1024 if name == "bart" else 768} <= {
        layer.out_features for layer in made.modules() if isinstance(layer, torch.nn.Linear)
    }
    assert not [layer for layer in made.modules() if isinstance(layer, FastLinear)]


def test_a_budget_is_that_of_the_kind_of_device():
    assert budgets.READING.on("cuda:0".partition(":")[0]) == budgets.READING.cuda
    assert budgets.READING.on("mps") == budgets.READING.cpu
    assert budgets.READING.of(model("bert", "BertModel")) == budgets.READING.cpu
