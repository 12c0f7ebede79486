"""All objectives: losses and whole trajectories against the reference's, batches in pieces, and what is measured."""

import copy
import json
import math
import subprocess
import sys

import pytest
import torch
import transformers

import tiny
import triarch
from material import LABELS, MANY, TAGS, S, examples_of, loss_of
from triarch import metrics
from triarch.errors import NotFound
from triarch.objectives import objective, objectives
from triarch.objectives._base import Objective
from triarch.objectives.classification import Classification
from triarch.objectives.distillation import Distillation
from triarch.objectives.multi_label import MultiLabel
from triarch.objectives.regression import Regression
from triarch.objectives.tagging import Tagging

STILL = {  # no dropout, in each family's words
    "bert": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "distilbert": {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0, "qa_dropout": 0.0},
}
STILL["roberta"] = STILL["bert"] | {"add_prefix_space": True}
OPTIONS = {"classification": {"labels": LABELS}, "multi-label": {"labels": MANY}, "tagging": {"labels": TAGS}}
HEADS = {
    "mlm": "MaskedLM",
    "nsp": "NextSentencePrediction",
    "bert": "PreTraining",
    "classification": "SequenceClassification",
    "multi-label": "SequenceClassification",
    "regression": "SequenceClassification",
    "tagging": "TokenClassification",
    "span": "QuestionAnswering",
    "contrastive": "Model",
}
NAMES = {"bert": "Bert", "distilbert": "DistilBert", "roberta": "Roberta"}
CASES = [(name, "bert") for name in HEADS if name != "contrastive"]
CASES += [(name, f) for f in ("distilbert", "roberta") for name in ("mlm", "classification", "tagging", "span")]


def checkpoint(folder, name, family="bert"):
    """A tiny model for an objective, without dropout, as a folder."""
    head = HEADS[name] if HEADS[name] == "Model" else f"For{HEADS[name]}"
    config = {key: objective(name).CONFIG[key] for key in objective(name).CONFIG if key == "problem_type"}
    labels = OPTIONS.get(name, {}).get("labels") or (["LABEL_0"] if name == "regression" else None)
    return tiny.write_checkpoint(folder, family, NAMES[family] + head, labels=labels, **STILL[family], **config)


def same_length(made, examples):
    """All of them as long as the longest: the reference takes padding for a candidate of an answer."""
    width = max(example.length for example in examples)
    return [example for example in examples if example.length == width] if made.NAME == "span" else examples


def reference_loss(name, model, batch):
    targets = batch.targets
    named = {
        "bert": {"labels": targets.get("words"), "next_sentence_label": targets.get("follows")},
        "span": {"start_positions": targets.get("start"), "end_positions": targets.get("end")},
    }.get(name) or {"labels": next(iter(targets.values()))}
    return model(**batch.inputs, **named).loss


def pair_of_models(folder, name, family="bert"):
    checkpoint(folder, name, family)
    theirs = getattr(transformers, triarch.load(folder).architecture).from_pretrained(folder)
    return triarch.load(folder), theirs


@pytest.fixture(scope="module", params=HEADS)
def made(request, tmp_path_factory):
    """Each objective with rows of its own, and a model for it."""
    model = triarch.load(checkpoint(tmp_path_factory.mktemp("model"), request.param))
    return objective(request.param)(model.processor, **OPTIONS.get(request.param, {})), model


# What there is


def test_objectives_are_found_by_their_files():
    assert objectives() == sorted([*HEADS, "distillation", "clm", "chat", "seq2seq", "infilling", "span-corruption"])
    for made in map(objective, objectives()):
        assert objective(made.NAME) is made
        assert issubclass(made, Objective)


def test_objectives_and_their_options_are_known_without_torch():
    code = "import sys, triarch.objectives as o; [o.objective(n).options() for n in o.objectives()]"
    code += "; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"False\n"


def test_an_unknown_objective_is_named_with_the_nearest():
    with pytest.raises(NotFound, match=r"no objective 'taging' \(did you mean tagging\?\); there are bert, "):
        objective("taging")


def test_options_are_known_without_an_object():
    assert set(objective("mlm").options()) == {"share", "masked", "random", "whole_words", "dynamic", "max_tokens"}
    assert set(objective("distillation").options()) == {"alpha", "temperature"}


def test_metrics_that_fall_are_known_by_their_names(processor):
    assert not metrics.falls("accuracy")
    assert not metrics.falls("f1_macro")
    assert all(map(metrics.falls, ["loss", "mlm_loss", "perplexity", "mse", "mae"]))
    best = {"loss"} | {name for name in Regression(processor).measure([]) if metrics.falls(name)}
    assert best == {"loss", "mse", "mae"}


def test_labels_are_found_in_rows():
    assert Classification.labels_of({"label": label} for label in ("b", "a", "b")) == ["a", "b"]
    assert Classification.labels_of({"label": label} for label in (10, 9, "2")) == ["2", "9", "10"]
    assert MultiLabel.labels_of([{"labels": ["x", "c"]}, {"labels": []}]) == ["c", "x"]
    assert Tagging.labels_of([{"tags": ["B-X", "O"]}, {"tags": ["A"]}]) == ["O", "A", "B-X"]
    assert [name for name in objectives() if objective(name).LABELS] == ["classification", "multi-label", "tagging"]


def test_configs_say_what_was_learned():
    kinds = {
        name: objective(name).CONFIG.get("problem_type") for name in ("classification", "multi-label", "regression")
    }
    assert kinds == {
        "classification": "single_label_classification",
        "multi-label": "multi_label_classification",
        "regression": "regression",
    }
    assert json.dumps(objective("regression").CONFIG["id2label"]) == '{"0": "LABEL_0"}'


# Losses


@pytest.mark.parametrize("name, family", CASES)
def test_loss_is_the_references(name, family, tmp_path):
    ours, theirs = pair_of_models(tmp_path, name, family)
    made = objective(name)(ours.processor, **OPTIONS.get(name, {}))
    examples = same_length(made, examples_of(made))
    loss = loss_of(made, ours, examples)
    torch.testing.assert_close(loss, reference_loss(name, theirs, made.batch(examples)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("optimizer, options", [(torch.optim.SGD, {"lr": 0.003}), (torch.optim.AdamW, {"lr": 1e-3})])
@pytest.mark.parametrize("name, family", CASES)
def test_twenty_steps_are_the_references(name, family, optimizer, options, tmp_path):
    ours, theirs = pair_of_models(tmp_path, name, family)
    made = objective(name)(ours.processor, **OPTIONS.get(name, {}))
    ways = [optimizer(model.train().parameters(), **options) for model in (ours, theirs)]
    for step in range(20):
        examples = same_length(made, examples_of(made, seed=step))[step % 2 :]
        examples = examples or examples_of(made)[:1]
        losses = [loss_of(made, ours, examples), reference_loss(name, theirs, made.batch(examples))]
        torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-5, msg=lambda text, step=step: f"step {step}: {text}")
        for way, loss in zip(ways, losses, strict=True):
            way.zero_grad()
            loss.backward()
            way.step()


def assert_adds_up(made, model, examples):
    """The losses and counts of a batch are those of its rows together."""
    assert len({example.length for example in examples}) > 1
    batches = [made.batch(examples), *(made.batch([example]) for example in examples)]
    with torch.no_grad():
        whole, *pieces = ((made.losses(made.forward(model, batch), batch), batch.counts) for batch in batches)
    for name, loss in whole[0].items():
        torch.testing.assert_close(sum(losses[name] for losses, _ in pieces), loss, atol=1e-6, rtol=1e-6)
        assert sum(counts[name] for _, counts in pieces) == pytest.approx(whole[1][name], abs=1e-9)


def test_a_batch_in_pieces_sums_to_the_whole(made):
    made, model = made
    assert (made.NAME == "contrastive") == made.WHOLE
    if not made.WHOLE:
        assert_adds_up(made, model, examples_of(made))


def test_weights_smoothing_and_teachers_sum_to_the_whole_too():
    model = tiny.load("bert-labels")
    labels = list(model.config.id2label.values())
    rows = [{"text": S[0], "label": labels[0]}, {"text": S[1], "label": labels[1]}, {"text": S[9], "label": labels[1]}]
    made = Classification(model.processor, labels=labels, class_weights=[0.3, 2.0, 1.0], label_smoothing=0.2)
    examples = [example for row in rows for example in made.examples(row)]
    assert_adds_up(made, model, examples)
    student = copy.deepcopy(model)
    torch.nn.init.ones_(student.head.labels.bias)
    assert_adds_up(Distillation(model.processor, inner=made, teacher=model), student, examples)


def test_outcomes_do_not_depend_on_the_batch(made):
    made, model = made
    examples = examples_of(made)
    found = []
    with torch.no_grad():
        for groups in ([examples], [[example] for example in examples]):
            batches = [made.batch(group) for group in groups]
            outcomes = [o for batch in batches for o in made.outcomes(made.forward(model, batch), batch)]
            assert len(outcomes) == len(examples)
            found.append(made.measure(outcomes))
    assert found[0] == pytest.approx(found[1], rel=1e-5, abs=1e-5, nan_ok=True)
    choices = made.choices(outcomes)
    assert (choices is not None) == (made.NAME in ("classification", "tagging"))
    assert choices is None or made.measure(outcomes)["accuracy"] == metrics.accuracy(*choices)
    assert made.METRIC in found[0] | {"loss": 0}
    assert all(type(value) is float for value in found[0].values())


def test_nothing_measured_is_no_error(made):
    assert all(math.isnan(value) or value == 0 for value in made[0].measure([]).values())


def test_targets_move_with_their_batch(made):
    made, _ = made
    moved = made.batch(examples_of(made)).to("meta")
    assert {tensor.device.type for tensor in (moved.inputs | moved.targets).values()} == {"meta"}


@pytest.mark.parametrize(
    "name", ["bert-words", "distilbert-words", "roberta-words", "xlm-roberta-words", "bert-pretraining"]
)
def test_words_scored_at_some_positions_are_those_of_all(name):
    model = tiny.load(name)
    inputs = model.processor(S[:3])
    positions = torch.rand(inputs["input_ids"].shape, generator=torch.Generator().manual_seed(0)) < 0.3
    with torch.no_grad():
        whole, some = model(**inputs), model(**inputs, score_at=positions)
    torch.testing.assert_close(some[0], whole[0][positions], atol=1e-6, rtol=1e-6)
    if name == "bert-pretraining":
        torch.testing.assert_close(some[1], whole[1])
