"""The model card, and the scalars for TensorBoard."""

import ast
import sys
from types import SimpleNamespace

import pytest
import yaml
from huggingface_hub import ModelCard

from triarch.errors import Unsupported
from triarch.kinds import ChoiceScores, Image, Text, TokenScores
from triarch.objectives import objective
from triarch.tasks import task_class, tasks
from triarch.training import card
from triarch.training.facts import Data, Facts
from triarch.training.tensorboard import Board, scalars

HELD = Data("held.csv", "validation", 100, license="mit")


def facts(**more):
    known = {
        "name": "tiny",
        "objective": "classification",
        "architecture": "BertForSequenceClassification",
        "task": "text-classification",
        "base_model": "google-bert/bert-base-uncased",
        "languages": ("en",),
        "settings": {"lr": 1e-4},
        "seed": 7,
        "steps": 100,
        "best_step": 80,
        "metric": "accuracy",
        "metrics": {"accuracy": 0.8125},
        "measured_on": HELD,
        "data": (Data("SST-2", "training", 900), HELD),
    }
    return Facts(**(known | more))


def front(**more):
    return yaml.safe_load(card.render(facts(**more)).split("---\n")[1])


def test_the_hub_reads_the_card(tmp_path):
    path = card.write_card(tmp_path, facts())
    read = ModelCard.load(path).data
    assert (read.base_model, read.language) == ("google-bert/bert-base-uncased", ["en"])
    assert (read.pipeline_tag, read.library_name, read.metrics) == ("text-classification", "transformers", ["accuracy"])
    (result,) = read.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_name) == ("accuracy", 0.8125, "held.csv")


def test_an_unknown_licence_is_unknown():
    assert front()["license"] == "unknown"
    text = card.render(facts())
    assert "The licence of this model is unknown." in text
    assert "That of google-bert/bert-base-uncased, on which it builds, is unknown." in text
    assert "| training | SST-2 | 900 | unknown |  |" in text


def test_a_known_licence_is_written():
    assert front(license="Apache-2.0")["license"] == "apache-2.0"


def test_what_is_not_known_is_left_out_of_the_front_matter():
    bare = Facts(name="tiny", objective="mlm", architecture="BertForMaskedLM")
    assert yaml.safe_load(card.render(bare).split("---\n")[1]) == {
        "license": "unknown",
        "library_name": "transformers",
        "tags": ["triarch"],
    }
    assert "Nothing was measured." in card.render(bare)
    assert "Languages: unknown." in card.render(bare)


def test_a_task_that_the_hub_does_not_know_has_no_tag():
    assert "pipeline_tag" not in front(task="next-sentence")
    assert "model-index" not in front(task="next-sentence")


@pytest.mark.parametrize("task", [*(name for name in tasks() if task_class(name).TRY is not None), None])
def test_every_card_says_how_to_use_the_model(task):
    text = card.render(facts(task=task))
    code = text.split("```python\n")[1].split("```")[0]
    ast.parse(code)
    assert code.count("path/to/tiny") == 1
    assert "```sh\ntriarch " in text


@pytest.mark.parametrize(
    "name, task",
    [
        ("mlm", "fill-mask"),
        ("clm", "text-generation"),
        ("bert", "fill-mask"),
        ("nsp", "next-sentence"),
        ("classification", "text-classification"),
        ("multi-label", "text-classification"),
        ("regression", "text-classification"),
        ("tagging", "token-classification"),
        ("span", "question-answering"),
        ("contrastive", "embedding"),
    ],
)
def test_what_was_learned_has_a_task_that_takes_its_head(name, task):
    assert card.task_of(Text, objective(name).SCORES) == task


def test_a_head_that_no_task_takes_has_none():
    assert card.task_of(Text, ChoiceScores) is None


def test_a_model_that_reads_another_medium_has_no_task_of_text():
    assert card.task_of(Image, TokenScores) is None


def test_a_metric_that_is_no_number_is_no_result_for_the_hub():
    results = front(metrics={"accuracy": 0.5, "f1": float("nan")})["model-index"][0]["results"]
    assert [metric["type"] for result in results for metric in result["metrics"]] == ["accuracy"]


def test_what_was_left_out_of_a_measurement_is_said():
    measured = Data("test.csv", "test", 50, note="3 rows left out")
    assert "Measured on test.csv (test, 50 rows; 3 rows left out)." in card.render(facts(measured_on=measured))


def test_measuring_on_what_the_best_was_chosen_by_is_said():
    assert "the numbers flatter the model" in card.render(facts())
    assert "flatter" not in card.render(facts(measured_on=Data("test.csv", "test", 50)))


def test_hostile_text_is_one_line_of_plain_text():
    bad = "x\n---\nlicense: mit\n|`</details>[a](b)"
    text = card.render(facts(name=bad, objective=bad, settings={bad: bad}, data=(Data(bad, bad, 1, note=bad),)))
    assert ModelCard(text).data.license == "unknown"
    assert "\n---\nlicense: mit" not in text
    body = text.split("---\n", 2)[2]
    assert body.count("</details>") == 1
    assert "[a](b)" not in body


# TensorBoard

LINE = {"step": 3, "loss": 1.5, "losses": {"mlm": 1.0}, "lr": 1e-4, "epoch": 0.5, "note": "x"}


def test_a_line_of_the_log_becomes_scalars():
    found = dict(scalars(LINE))
    assert found == {"train/loss": 1.5, "train/lr": 1e-4, "train/epoch": 0.5, "train/losses/mlm": 1.0}
    assert dict(scalars({"step": 3, "evaluation": {"accuracy": 0.5, "f1": None}})) == {"evaluation/accuracy": 0.5}


def test_scalars_stand_at_their_step(monkeypatch, tmp_path):
    written = []

    class Writer:
        def __init__(self, folder, purge_step):
            written.append((folder, purge_step))

        def add_scalar(self, *what):
            written.append(what)

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    Board(tmp_path, 2)({"step": 3, "loss": 1.5})
    assert written == [(tmp_path, 2), ("train/loss", 1.5, 3)]


def test_without_tensorboard_its_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(Unsupported, match=r"tensorboard is not installed.*pip install 'triarch\[tensorboard\]'"):
        Board(tmp_path)
