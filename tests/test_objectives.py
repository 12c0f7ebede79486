"""Objectives: losses and whole trajectories against the reference's, rows that cannot be used, and what is measured."""

import copy
import json
import math
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers

import tiny
import triarch
from test_corruption import passages
from test_tasks import sentence_encoder
from triarch import metrics
from triarch.errors import InvalidInput, LimitExceeded, NotFound, Unsupported
from triarch.layers.pooling import POOLINGS
from triarch.objectives import objective, objectives
from triarch.objectives._base import IGNORED, Objective
from triarch.objectives._windows import Part, by_row, parts
from triarch.objectives.classification import Classification
from triarch.objectives.contrastive import Contrastive
from triarch.objectives.distillation import Distillation
from triarch.objectives.mlm import Mlm
from triarch.objectives.multi_label import MultiLabel
from triarch.objectives.regression import Regression
from triarch.objectives.span import Span
from triarch.objectives.tagging import Tagging

LABELS, MANY, TAGS = (
    ["bad", "fair", "good"],
    ["toxic", "rude", "threat", "joke"],
    ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
)
S = tiny.SENTENCES
STILL = {  # no dropout, in each family's words
    "bert": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "distilbert": {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0, "qa_dropout": 0.0},
}
STILL["roberta"] = STILL["bert"] | {"add_prefix_space": True}

CONTEXT = "Ada Lovelace lived in London and wrote the first program."
SENTENCES = [  # words and tags of three lengths
    (["Ada", "Lovelace", "lived", "in", "London", "."], ["B-PER", "I-PER", "O", "O", "B-LOC", "O"]),
    (["Wolfgang", "works"], ["B-PER", "O"]),
    (
        ["My", "smallish", "company", "is", "in", "Berlin", "and", "in", "Zürich"],
        ["O", "O", "O", "O", "O", "B-LOC", "O", "O", "B-LOC"],
    ),
]
ROWS = {
    "classification": [
        {"text": S[0], "label": "good"},
        {"text": S[1], "text_pair": S[2], "label": "bad"},
        {"text": S[6], "label": 1},
        {"text": "", "label": "fair"},
    ],
    "multi-label": [
        {"text": S[0], "labels": ["rude", "joke"]},
        {"text": S[4], "labels": []},
        {"text": S[8], "labels": ["toxic"]},
    ],
    "regression": [
        {"text": S[0], "label": 2.5},
        {"text": S[4], "text_pair": S[1], "label": -1},
        {"text": S[8], "label": "0.25"},
    ],
    "tagging": [{"tokens": tokens, "tags": tags} for tokens, tags in SENTENCES],
    "span": [
        {"question": "Where did she live?", "context": CONTEXT, "answers": [{"text": "London", "start": 22}]},
        {"question": "Who wrote it?", "context": CONTEXT, "answers": [{"text": "Ada Lovelace", "start": 0}]},
        {"question": "Who, and why, scored twice?", "context": S[8] + " " + S[7], "answers": []},
    ],
    "contrastive": [
        {"anchor": S[0], "positive": S[1]},
        {"anchor": S[2], "positive": S[3], "negative": S[4]},
        {"anchor": S[5], "positive": S[6], "negative": [S[7], S[8]]},
    ],
}
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


def examples_of(made, seed=0):
    if made.READS == "rows":
        return [example for row in ROWS[made.NAME] for example in made.examples(row)]
    generator = np.random.default_rng(seed)
    documents = [passages(made.processor, [S[i], S[i + 1][:20]]) for i in range(0, 8, 2)]
    return [made.compose(document, lambda: passages(made.processor, S[8:]), generator) for document in documents]


def loss_of(made, model, examples):
    batch = made.batch(examples)
    losses = made.losses(made.forward(model, batch), batch)
    return sum(loss / batch.counts[name] for name, loss in losses.items())


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


@pytest.fixture(scope="module")
def processor():
    return tiny.load("bert-words").processor


# What there is


def test_objectives_are_found_by_their_files():
    assert objectives() == sorted([*HEADS, "distillation", "clm", "chat"])
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
        whole, some = model(**inputs), model(**inputs, positions=positions)
    torch.testing.assert_close(some[0], whole[0][positions], atol=1e-6, rtol=1e-6)
    if name == "bert-pretraining":
        torch.testing.assert_close(some[1], whole[1])


# Classification


def random_logits(rows=3, labels=3):
    return torch.randn(rows, labels, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("weights", [None, [0.2, 1.0, 3.0]])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_and_label_smoothing_are_torchs(weights, smoothing, processor):
    made = Classification(processor, labels=LABELS, class_weights=weights, label_smoothing=smoothing)
    targets, count = made.targets([2, 0, 1])
    wanted = torch.nn.CrossEntropyLoss(None if weights is None else torch.tensor(weights), label_smoothing=smoothing)
    got = made.loss(random_logits(), targets) / count
    torch.testing.assert_close(got, wanted(random_logits(), targets), atol=1e-6, rtol=1e-6)


def test_balanced_weights_are_scikit_learns(processor):
    made = Classification(processor, labels=LABELS, class_weights="balanced")
    made.prepare({"text": "", "label": label} for label in ["bad"] * 6 + ["fair"] * 3 + ["good"])
    assert made._weights == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    with pytest.raises(InvalidInput, match="no row has label 'fair'"):
        made.prepare([{"text": "", "label": "bad"}])


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0, 1.0], [0.0, 0.0, 0.0]])
def test_class_weights_that_cannot_be(weights, processor):
    with pytest.raises(InvalidInput, match="wanted 3 numbers of at least 0"):
        Classification(processor, labels=LABELS, class_weights=weights)


@pytest.mark.parametrize(
    "label, message",
    [
        ("goof", r"label is 'goof' \(did you mean good\?\); there are bad, fair, good"),
        (3, "label is 3; there are"),
        (-1, "label is -1; there are"),
        (None, "label is None, wanted the name of a label"),
        ("", "wanted the name of a label"),
        (float("nan"), "label is nan, wanted the name"),
        ("x\nnasty", r"\\n"),
    ],
)
def test_a_label_outside_of_the_labels(label, message, processor):
    with pytest.raises(InvalidInput, match=message):
        Classification(processor, labels=LABELS).examples({"text": "a", "label": label})


def test_numbers_are_labels_by_name_where_labels_are_numbers(processor):
    made = Classification(processor, labels=["1", "2", "3"])
    assert made.target({"label": 1}) == 0
    with pytest.raises(InvalidInput, match="label is 0; there are 1, 2, 3"):
        made.target({"label": 0})


@pytest.mark.parametrize("labels", [[], ["one"], ["a", "a"]])
def test_labels_that_leave_no_choice(labels, processor):
    with pytest.raises(InvalidInput, match="wanted at least 2, each once"):
        Classification(processor, labels=labels)


def test_labels_are_found_in_rows():
    assert Classification.labels_of({"label": label} for label in ("b", "a", "b")) == ["a", "b"]
    assert Classification.labels_of({"label": label} for label in (10, 9, "2")) == ["2", "9", "10"]
    assert MultiLabel.labels_of([{"labels": ["x", "c"]}, {"labels": []}]) == ["c", "x"]
    assert Tagging.labels_of([{"tags": ["B-X", "O"]}, {"tags": ["A"]}]) == ["O", "A", "B-X"]
    assert [name for name in objectives() if objective(name).LABELS] == ["classification", "multi-label", "tagging"]


@pytest.mark.parametrize("row", [{"label": "good"}, {"text": 3, "label": "good"}, {"text": None, "label": "good"}])
def test_a_row_without_text(row, processor):
    with pytest.raises(InvalidInput, match=r"text is .*, wanted text"):
        Classification(processor, labels=LABELS).examples(row)


def test_long_texts_are_windows_or_cut_or_refused(processor):
    row = {"text": " ".join(S), "label": "good"}

    def examples(**options):
        return Classification(processor, labels=LABELS, **options).examples(row)

    found = examples(stride=4)
    whole = processor.encode(row["text"], special_tokens=False).ids
    read = [found[0].ids[1:-1], *(example.ids[5:-1] for example in found[1:])]
    assert [id_ for ids in read for id_ in ids] == whole
    assert {example.target for example in found} == {2}
    assert [len(example.ids) for example in examples(long="truncate")] == [64]
    assert max(len(example.ids) for example in examples(max_tokens=20)) == 20
    with pytest.raises(LimitExceeded, match='at most 64 fit; use long="window"'):
        examples(long="error")


def test_windows_of_a_row_have_one_answer_by_length(processor):
    made = Classification(processor, labels=LABELS)
    examples = [e for _ in range(2) for e in made.examples({"text": " ".join(S), "label": "good"})]  # a row twice
    examples += made.examples({"text": "a", "label": "bad"})
    batch = made.batch(examples)
    logits = torch.randn(len(examples), 3, generator=torch.Generator().manual_seed(3))
    count = (len(examples) - 1) // 2
    logits[count:-1] = logits[:count]
    outcomes = made.outcomes(triarch.family.LabelScores(logits), batch)
    found = by_row(outcomes[::-1])
    assert sorted(map(len, found)) == [1, count, count]
    weights = [example.length for example in examples[:count]]
    answer = int(np.average(logits[:count].numpy(), axis=0, weights=weights).argmax())
    assert [made._said(windows) for windows in found[1:]] == [answer] * 2
    right = [answer == 2] * 2 + [int(logits[-1].argmax()) == 0]
    assert made.measure(outcomes)["accuracy"] == pytest.approx(np.mean(right))


def test_windows_of_different_rows_are_kept_apart():
    class Seen:
        def __init__(self, part):
            self.part = part

    one, other = (parts({"text": text}, 2) for text in "ab")
    seen = [Seen(part) for part in (one[1], other[0], one[0], Part(), other[1], Part())]
    assert by_row(seen) == [[seen[2], seen[0]], [seen[1], seen[4]], [seen[3]], [seen[5]]]


@pytest.mark.parametrize("label", [float("nan"), float("inf"), "many", None, True, [1.0], ""])
def test_a_label_that_is_no_number(label, processor):
    with pytest.raises(InvalidInput, match="wanted a finite number"):
        Regression(processor).examples({"text": "a", "label": label})


def test_regression_measures_what_metrics_do(processor):
    made = Regression(processor)
    examples = [e for row in ROWS["regression"] for e in made.examples(row)]
    scores = triarch.family.LabelScores(torch.tensor([[2.0], [-2.0], [1.25]]))
    found = made.measure(made.outcomes(scores, made.batch(examples)))
    right, said = [2.5, -1.0, 0.25], [2.0, -2.0, 1.25]
    assert found["pearson"] == pytest.approx(metrics.pearson(right, said))
    assert found["mse"] == pytest.approx(2.25 / 3)


def test_multi_label_counts_each_decision(processor):
    made = MultiLabel(processor, labels=MANY)
    examples = [e for row in ROWS["multi-label"] for e in made.examples(row)]
    batch = made.batch(examples)
    logits = torch.tensor([[-1.0, 2.0, -3.0, 1.0], [-1.0, -1.0, -1.0, 1.0], [1.0, 1.0, -1.0, -1.0]])
    found = made.measure(made.outcomes(triarch.family.LabelScores(logits), batch))
    assert batch.counts == {"multi-label": 12}
    assert batch.targets["label"].tolist() == [[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert found == pytest.approx({"f1_micro": 6 / 8, "f1_macro": (1 + 2 / 3 + 0 + 2 / 3) / 4, "accuracy": 1 / 3})


@pytest.mark.parametrize("labels", ["rude", None, ["ruder"], [["rude"]]])
def test_labels_that_are_no_list_of_names(labels, processor):
    with pytest.raises(InvalidInput, match="label"):
        MultiLabel(processor, labels=MANY).examples({"text": "a", "labels": labels})


# Tagging


def tagged(name="bert-tags", **options):
    return Tagging(tiny.load(name).processor, labels=TAGS, **options)


@pytest.mark.parametrize("alignment", ["first", "all", "ignore"])
@pytest.mark.parametrize("name", ["bert-tags", "roberta-tags", "xlm-roberta-tags"])
def test_tokens_learn_the_tags_of_their_words(alignment, name):
    made = tagged(name, alignment=alignment)
    words, tags = ["Wolfgang", "Lovelacest", "in", "Zürichness"], ["B-PER", "I-PER", "O", "B-LOC"]
    (example,) = made.examples({"tokens": words, "tags": tags})
    encoding = made.processor.encode(words)
    numbers = encoding.word_ids
    assert [*example.ids] == encoding.ids
    assert len(numbers) > 6
    for i, number in enumerate(numbers):
        if number is None:
            wanted = IGNORED
        elif alignment == "ignore":
            wanted = TAGS.index(tags[number]) if numbers.count(number) == 1 else IGNORED
        elif numbers[i - 1] != number:
            wanted = TAGS.index(tags[number])
        else:
            inside = {"B-PER": "I-PER", "B-LOC": "I-LOC"}.get(tags[number], tags[number])
            wanted = TAGS.index(inside) if alignment == "all" else IGNORED
        assert example.target[i] == wanted
    assert example.note.places == [numbers.index(number) for number in range(4)]


@pytest.mark.parametrize("alignment", ["first", "all", "ignore"])
@pytest.mark.parametrize("stride", [None, 0, 1, 5, 13])
def test_each_token_of_a_long_sentence_is_learned_once_where_it_has_most_context(alignment, stride):
    made = tagged(alignment=alignment, stride=stride, max_tokens=20)
    words = (" ".join(S)).split()
    tags = ["B-PER"] * len(words)
    examples = made.examples({"tokens": words, "tags": tags})
    assert len(examples) > 3
    learned = [(example, i) for example in examples for i, tag in enumerate(example.target) if tag != IGNORED]
    (whole,) = (tagged(alignment=alignment, max_tokens=64)._labels,)
    assert whole.names == TAGS
    numbers = made.processor.encode(words, special_tokens=False).word_ids
    wanted = {"first": len(words), "all": len(numbers)}.get(alignment)
    assert len(learned) == (wanted or sum(numbers.count(number) == 1 for number in range(len(words))))
    assert sorted(n for example in examples for n in example.note.numbers) == list(range(len(words)))
    shared = 5 if stride is None else stride
    for number, example in enumerate(examples):
        places = [i for i, tag in enumerate(example.target) if tag != IGNORED]
        if number:
            assert places[0] - 1 >= shared // 2
        if number < len(examples) - 1:
            assert 18 - places[-1] >= shared - shared // 2


def test_a_long_sentence_is_measured_like_a_short_one():
    made = tagged(max_tokens=20)
    rows = [{"tokens": tokens, "tags": tags} for tokens, tags in SENTENCES]
    words = [word for row in rows for word in row["tokens"]] * 3
    tags = [tag for row in rows for tag in row["tags"]] * 3
    examples = made.examples({"tokens": words, "tags": tags})
    batch = made.batch(examples)
    said = torch.randint(0, 5, batch.targets["tags"].shape, generator=torch.Generator().manual_seed(0))
    scores = triarch.family.TokenScores(F.one_hot(said, 5).float())
    by_word = {
        number: TAGS[said[row, place]]
        for row, example in enumerate(examples)
        for number, place in zip(example.note.numbers, example.note.places, strict=True)
    }
    wanted = metrics.entity_f1([tags], [[by_word[number] for number in range(len(words))]])
    assert made.measure(made.outcomes(scores, batch)[::-1])["f1"] == pytest.approx(wanted.f1)


def test_a_word_of_a_thousand_characters_is_learned_by_its_first_token():
    for alignment, count in (("first", 3), ("all", 1002), ("ignore", 2)):
        made = tagged(alignment=alignment)
        examples = made.examples({"tokens": ["in", "q" * 1000, "Berlin"], "tags": ["O", "B-PER", "B-LOC"]})
        unknown = len(made.processor.encode(["q" * 1000], special_tokens=False)) == 1
        count = 3 if unknown else count
        assert sum(tag != IGNORED for example in examples for tag in example.target) == count
        assert [n for example in examples for n in example.note.numbers] == [0, 1, 2]
    made = tagged("roberta-tags")
    examples = made.examples({"tokens": ["in", "q" * 1000, "Berlin"], "tags": ["O", "B-PER", "B-LOC"]})
    assert len(examples) == 2  # the windows in the midst of the word have nothing to learn
    assert [n for example in examples for n in example.note.numbers] == [0, 1, 2]
    assert sum(made.batch(examples).counts.values()) == 3


def test_a_word_without_tokens_is_measured_as_o():
    made = tagged()
    examples = made.examples({"tokens": ["Ada", "\u0085", "lived"], "tags": ["B-PER", "B-LOC", "O"]})
    assert examples[0].note.numbers == [0, 2]
    logits = F.one_hot(torch.tensor([[0, 1, 0, 0]]), 5).float()
    found = made.measure(made.outcomes(triarch.family.TokenScores(logits), made.batch(examples)))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["recall"] == 0.5
    with pytest.raises(InvalidInput, match="the tokenizer leaves nothing"):
        made.examples({"tokens": ["\u0085"], "tags": ["O"]})


@pytest.mark.parametrize(
    "row, message",
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "2 tokens came with 1 tags"),
        ({"tokens": [], "tags": []}, "0 tokens came with 0 tags"),
        ({"tokens": ["a"], "tags": ["B-LOV"]}, r"tag is 'B-LOV' \(did you mean B-LOC\?\)"),
        ({"tokens": "a b", "tags": ["O", "O"]}, "tokens is 'a b', wanted a list"),
        ({"tokens": [1], "tags": ["O"]}, "wanted a string, or a list of its words"),
        ({"tags": ["O"]}, "tokens is None"),
    ],
)
def test_rows_that_cannot_be_tagged(row, message):
    with pytest.raises(InvalidInput, match=message):
        tagged().examples(row)


def test_vocabularies_that_run_words_together_are_refused():
    with pytest.raises(Unsupported, match="add_prefix_space"):
        tagged("roberta").examples({"tokens": ["a"], "tags": ["O"]})


def test_tags_that_are_no_entities_are_measured_one_by_one(processor):
    made = Tagging(processor, labels=["NOUN", "VERB"])
    examples = made.examples({"tokens": ["Ada", "lived"], "tags": ["NOUN", "VERB"]})
    logits = F.one_hot(torch.tensor([[0, 0, 0, 0]]), 2).float()
    found = made.measure(made.outcomes(triarch.family.TokenScores(logits), made.batch(examples)))
    assert found == pytest.approx({"f1": (2 / 3 + 0) / 2, "accuracy": 0.5})


def test_a_sentence_too_long_is_refused_when_asked_to():
    with pytest.raises(LimitExceeded, match="at most 64 fit"):
        tagged(long="error").examples({"tokens": ["a"] * 63, "tags": ["O"] * 63})


# Spans


@pytest.fixture(scope="module", params=["bert-qa", "distilbert-qa", "roberta-qa"])
def spans(request):
    return tiny.load(request.param).processor


def question(text, start, context=CONTEXT):
    return {"question": "Where?", "context": context, "answers": [{"text": text, "start": start}]}


@pytest.mark.parametrize("text", ["Ada", "London", "the first", "program.", "café 😀", "  in London "])
def test_targets_are_the_tokens_of_the_answer(text, spans):
    context = CONTEXT.replace("program", "café 😀 program").replace(" in London ", "   in London  ")
    row = question(text, context.index(text), context)
    (example,) = Span(spans).examples(row)
    begin, end = example.target
    window = spans.encode(row["question"], context)
    assert context[window.offsets[begin][0] : window.offsets[end][1]].strip() == text.strip()


def test_windows_hold_the_answer_whole_or_point_at_their_first_token(spans):
    context = " ".join(S)
    answer = "Berlin"
    made = Span(spans, max_tokens=40, stride=12)
    examples = made.examples(question(answer, context.index(answer), context))
    assert len(examples) > 4
    found = []
    for example in examples:
        begin, end = example.target
        found.append(spans.decode(example.ids[begin : end + 1]).strip().lower().replace(" ", ""))
        assert example.length <= 40
        whole = spans.decode(example.ids).lower()
        assert (example.target == (0, 0)) == ("berlin" not in whole.replace(" ", ""))
    assert answer.lower() in found


def test_an_answer_that_no_window_holds_is_refused(spans):
    context = " ".join(S)
    with pytest.raises(InvalidInput, match="fits whole into no window of 40 tokens"):
        Span(spans, max_tokens=40, stride=2).examples(question(context[:400], 0, context))


@pytest.mark.parametrize(
    "row, message",
    [
        (question("London", 23), "'London' starts at 23, where the context has 'ondon '; mend the start, which counts"),
        (question("London", -36), "runs from -36 to -30, outside of the context"),
        (question("London", None), "an answer is 'London' at missing"),
        (question("London", True), "an answer is 'London' at True"),
        (question(" ", 3), "an answer is ' ' at 3; wanted a text"),
        (question(None, 3), "an answer is missing at 3"),
        (question("London", 22) | {"question": " "}, "question or context is empty"),
        (question("London", 22) | {"answers": None}, "answers are missing"),
        (question("London", 22) | {"answers": ["London"]}, r"answers are \['London'\]; wanted a list of"),
    ],
)
def test_questions_that_cannot_be_used(row, message, spans):
    with pytest.raises(InvalidInput, match=message):
        Span(spans).examples(row)


def span_scores(batch, wanted, null):
    """Logits that make spans of the row's windows score as wanted, and the first token `null`."""
    start, end = torch.full((2, *batch.inputs["input_ids"].shape), -50.0)
    for row, (begin, stop, score) in enumerate(wanted):
        start[row, begin] = end[row, stop] = score / 2
    start[:, 0] = end[:, 0] = torch.tensor(null) / 2
    return triarch.family.SpanScores(start, end)


def test_the_best_span_of_all_windows_answers(processor):
    context = " ".join(S)
    made = Span(processor, max_tokens=40, stride=12)
    examples = made.examples(question("Berlin", context.index("Berlin"), context))
    batch = made.batch(examples)
    holds = next(i for i, example in enumerate(examples) if example.target != (0, 0))
    spans = [(example.note.first, example.note.first, 1.0) for example in examples]
    spans[holds] = (*examples[holds].target, 2.0)
    outcomes = made.outcomes(span_scores(batch, spans, [9.0] * len(spans)), batch)
    assert outcomes[holds].text == "Berlin"
    assert made.measure(outcomes) == {"exact_match": 1.0, "f1": 1.0}
    spans[0] = (*spans[0][:2], 3.0)
    assert made.measure(made.outcomes(span_scores(batch, spans, [9.0] * len(spans)), batch))["exact_match"] == 0.0


def test_no_answer_wins_only_where_it_may(processor):
    rows = [question("London", 22), question("London", 22) | {"answers": []}]

    def measured(rows, null, **options):
        made = Span(processor, **options)
        examples = [e for row in rows for e in made.examples(row)]
        batch = made.batch(examples)
        at = Span(processor).examples(rows[0])[0].target
        outcomes = made.outcomes(span_scores(batch, [(*at, 2.0)] * len(rows), null), batch)
        return made.measure(outcomes)

    assert measured(rows[:1], [9.0]) == {"exact_match": 1.0, "f1": 1.0}
    assert measured(rows[:1], [9.0], no_answer=True) == {"exact_match": 0.0, "f1": 0.0}
    assert measured(rows[:1], [9.0], no_answer=True, threshold=8.0) == {"exact_match": 1.0, "f1": 1.0}
    found = measured(rows, [1.0, 9.0])
    assert found["exact_match"] == found["f1_answerable"] == found["f1_unanswerable"] == 1.0
    found = measured(rows, [9.0, 9.0])
    assert (found["f1"], found["f1_answerable"], found["f1_unanswerable"]) == (0.5, 0.0, 1.0)


def test_spans_stay_in_the_context_and_within_their_length(processor):
    made = Span(processor, max_answer_tokens=2)
    examples = made.examples(question("London", 22))
    batch = made.batch(examples)
    place = examples[0].note
    last = place.first + len(place.offsets) - 1
    start, end = torch.zeros(2, 1, examples[0].length)
    start[0, 1], end[0, 2], start[0, place.first], end[0, last], end[0, -1] = 9, 9, 5, 5, 9
    (outcome,) = made.outcomes(triarch.family.SpanScores(start, end), batch)
    assert outcome.score == 5
    assert outcome.text in ("Ada", "Ada Lovelace", ".", "program.")


def test_a_window_is_kept_in_little_memory(processor):
    made, context = Span(processor, max_tokens=64, stride=16), " ".join(S)
    made.examples(question("Berlin", context.index("Berlin"), context))
    tracemalloc.start()
    try:
        examples = [e for i in range(20) for e in made.examples(question("Berlin", context.index("Berlin"), context))]
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken < 40 * sum(example.length for example in examples)


def test_answers_of_both_forms_are_taken_as_they_are(processor):
    lists = question("London", 22) | {"answers": {"text": ["London"], "answer_start": [22]}}
    one, other = (Span(processor).examples(row)[0].target for row in (question("London", 22), lists))
    assert one == other != (0, 0)


# Contrastive


def vectors(*rows):
    return F.normalize(torch.tensor(rows, dtype=torch.float32), dim=-1)


def test_contrastive_loss_is_that_of_its_formula(processor):
    rows = [{"anchor": "a", "positive": "b", "negative": "c"}, {"anchor": "d", "positive": "e"}]
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    scores = F.normalize(x, dim=-1)
    anchors, candidates = scores[[0, 3]], scores[[1, 4, 2]]
    logits = anchors @ candidates.T / 0.1
    forth = F.cross_entropy(logits, torch.arange(2))
    back = F.cross_entropy(logits[:, :2].T, torch.arange(2))
    for symmetric, wanted in ((False, forth), (True, (forth + back) / 2)):
        made = Contrastive(processor, temperature=0.1, symmetric=symmetric)
        batch = made.batch([e for row in rows for e in made.examples(row)])
        torch.testing.assert_close(made.losses(scores, batch)["contrastive"] / batch.counts["contrastive"], wanted)


def test_vectors_are_the_embedding_tasks():
    model = tiny.load("bert")
    made = Contrastive(model.processor)
    texts = [S[0], " ".join(S), S[2], S[3]]  # the second in windows
    rows = [{"anchor": texts[0], "positive": texts[1]}, {"anchor": texts[2], "positive": texts[3]}]
    with torch.no_grad():
        found = made.forward(model, made.batch([e for row in rows for e in made.examples(row)]))
    wanted = triarch.pipeline("embedding", model)(texts, normalize=True)
    np.testing.assert_allclose(found.numpy(), np.stack(wanted), atol=1e-5)


def recipe_files(pooling=("cls_token",), **files):
    """Files beside an encoder as those of bge have it: the first token, and prompts."""
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("3_Normalize", "Normalize")]
    include = files.pop("include_prompt", True)
    flags = {f"pooling_mode_{name}": True for name in pooling} | {"include_prompt": include}
    return {
        "modules.json": [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in modules],
        "1_Pooling/config.json": flags,
        "config_sentence_transformers.json": {"prompts": {"query": "Who wrote it? ", "document": "This is: "}},
    } | files


RECIPES = {name: recipe_files((name,)) for name in POOLINGS}
RECIPES["two end to end"] = recipe_files(("mean_tokens", "max_tokens"))
RECIPES["short and in lower case"] = recipe_files(
    **{"sentence_bert_config.json": {"max_seq_length": 12, "do_lower_case": True}}
)
DEFAULT = {"config_sentence_transformers.json": {"prompts": {"q": "Who, and why? "}, "default_prompt_name": "q"}}
RECIPES["a default prompt"] = recipe_files(**DEFAULT)
RECIPES["a prompt that is not pooled"] = recipe_files(("mean_tokens",), include_prompt=False, **DEFAULT)


def learned_vectors(model, texts, **options):
    """Of pairs of texts, by the objective."""
    made = Contrastive(model.processor, **options)
    made.attach(model)
    rows = [{"anchor": texts[i], "positive": texts[i + 1]} for i in range(0, len(texts), 2)]
    with torch.no_grad():
        return made.forward(model, made.batch([e for row in rows for e in made.examples(row)])).numpy()


@pytest.mark.parametrize("files", RECIPES.values(), ids=RECIPES)
def test_what_is_learned_is_what_the_embedding_task_gives(tmp_path, files):
    model = triarch.load(sentence_encoder(tmp_path, **files))
    texts = [S[0], " ".join(S), S[2], "A b"]  # the second in windows
    wanted = triarch.pipeline("embedding", model)(texts, normalize=True)
    np.testing.assert_allclose(learned_vectors(model, texts), np.stack(wanted), atol=1e-5)


@pytest.mark.parametrize("anchor, positive", [("query", "document"), ("query: ", "passage: "), ("", "Who? ")])
@pytest.mark.parametrize("include_prompt", [True, False])
def test_prompts_go_before_anchors_and_positives(tmp_path, anchor, positive, include_prompt):
    model = triarch.load(sentence_encoder(tmp_path, **recipe_files(("mean_tokens",), include_prompt=include_prompt)))
    found = learned_vectors(model, S[:4], anchor_prompt=anchor, positive_prompt=positive)
    embed = triarch.pipeline("embedding", model)
    prompts = [embed.recipe.prompts.get(prompt, prompt) for prompt in (anchor, positive)]
    wanted = [embed(text, prompt=prompts[i % 2], normalize=True) for i, text in enumerate(S[:4])]
    np.testing.assert_allclose(found, np.stack(wanted), atol=1e-5)
    plain = learned_vectors(model, S[:4])
    assert np.abs(found - plain)[1::2].max() > 1e-3


def test_a_prompt_that_the_model_does_not_have_comes_with_the_nearest(tmp_path):
    model = triarch.load(sentence_encoder(tmp_path, **recipe_files()))
    with pytest.raises(InvalidInput, match=r"no prompt 'qury' \(did you mean query\?\)"):
        learned_vectors(model, S[:2], anchor_prompt="qury")


def test_dense_layers_after_pooling_are_not_trained(tmp_path):
    model = triarch.load(sentence_encoder(tmp_path))
    with pytest.raises(Unsupported, match=r"Dense layers after pooling \(1\), which are not trained here"):
        Contrastive(model.processor).attach(model)


@pytest.mark.parametrize("name", POOLINGS)
def test_poolings_do_not_depend_on_padding(name):
    x = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[0, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]]).bool()
    alone = [POOLINGS[name](x[i : i + 1, row], row[row][None]) for i, row in enumerate(mask)]
    torch.testing.assert_close(POOLINGS[name](x, mask), torch.cat(alone))


def test_cosines_keep_their_precision_under_autocast(processor):
    made = Contrastive(processor)
    batch = made.batch([e for i in range(8) for e in made.examples({"anchor": f"a {i}", "positive": f"b {i}"})])
    scores = F.normalize(torch.randn(16, 32, generator=torch.Generator().manual_seed(0)), dim=-1)
    with torch.autocast("cpu", torch.bfloat16):
        found = made.losses(scores, batch)["contrastive"]
    torch.testing.assert_close(found, made.losses(scores, batch)["contrastive"], atol=1e-6, rtol=1e-6)


def test_rows_with_their_own_negatives_can_stand_alone(processor):
    made = Contrastive(processor)
    assert (made.least, Mlm(processor).least) == (2, 1)
    row = {"anchor": "a", "positive": "b"}
    made.prepare([row | {"negative": "c"}, row | {"negative": ["d"]}])
    assert made.least == 1
    made.prepare([row | {"negative": "c"}, row | {"negative": []}])
    assert made.least == 2


def test_a_large_batch_is_compared_in_no_time(processor):
    made = Contrastive(processor)
    examples = [e for i in range(2000) for e in made.examples({"anchor": f"a {i // 2}", "positive": f"b {i}"})]
    started = time.perf_counter()
    allowed = made.batch(examples).targets["allowed"]
    assert time.perf_counter() - started < 2
    assert allowed.sum() == 2000 * 2000 - 2000  # each anchor has another positive


def test_the_same_text_is_no_negative(processor):
    made = Contrastive(processor)
    rows = [
        {"anchor": "a", "positive": "b", "negative": "d"},
        {"anchor": "c", "positive": "b", "negative": "e"},
        {"anchor": "a", "positive": "e", "negative": "a"},
    ]
    allowed = made.batch([e for row in rows for e in made.examples(row)]).targets["allowed"]
    # b, b, e, then d, e, a
    assert allowed.int().tolist() == [[1, 0, 0, 1, 0, 0], [0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0]]


def test_retrieval_is_measured_over_all_batches(processor):
    made = Contrastive(processor)
    rows = [{"anchor": f"a{i}", "positive": f"p{i}"} for i in range(4)] + [{"anchor": "a0", "positive": "p4"}]
    batches = [made.batch(made.examples(row)) for row in rows]
    anchors = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 0]]
    positives = [[1, 0, 0.1], [0.1, 1, 0], [0, 0, 1], [0, -1, 1], [1, 0.3, 0]]
    outcomes = []
    for batch, anchor, positive in zip(batches, anchors, positives, strict=True):
        outcomes += made.outcomes(vectors(anchor, positive), batch)
    # The fourth finds its own last; the others first, as p0 and p4 do not stand in each other's way
    assert made.measure(outcomes) == pytest.approx({"mrr": (4 + 1 / 5) / 5, "recall@1": 0.8, "recall@10": 1.0})


@pytest.mark.parametrize(
    "row",
    [
        {"anchor": "a"},
        {"anchor": "a", "positive": ""},
        {"anchor": "a", "positive": "b", "negative": [3]},
        {"positive": "b"},
    ],
)
def test_rows_without_a_pair_of_texts(row, processor):
    with pytest.raises(InvalidInput, match=r"anchor|positive|negative"):
        Contrastive(processor).examples(row)


def test_gradients_reach_the_model_from_all_texts():
    model = copy.deepcopy(tiny.load("bert"))
    made = Contrastive(model.processor)
    loss_of(made, model, examples_of(made)).backward()
    grad = model.embeddings.token.weight.grad
    ids = {id_ for example in examples_of(made) for id_ in example.ids}
    assert set(grad.abs().sum(-1).nonzero().flatten().tolist()) == ids


# Distillation


def distilled(name, **options):
    model = tiny.load({"classification": "bert-labels", "tagging": "bert-tags", "mlm": "bert-words"}[name])
    labels = {"labels": list(model.config.id2label.values())} if objective(name).LABELS else {}
    inner = objective(name)(model.processor, **labels)
    return Distillation(model.processor, inner=inner, teacher=model, **options), model


def distilled_examples(made):
    if made.READS == "documents":
        return examples_of(made)
    rows = {
        "classification": [{"text": S[0], "label": "positive"}, {"text": S[1], "label": "neutral"}],
        "tagging": [{"tokens": ["Ada", "lived", "smallish"], "tags": ["B-PER", "O", "O"]}],
    }[made.inner.NAME]
    return [example for row in rows for example in made.examples(row)]


@pytest.mark.parametrize("name", ["classification", "tagging", "mlm"])
def test_distillation_is_its_formula(name):
    made, teacher = distilled(name, alpha=0.3, temperature=3.0)
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        for parameter in student.head.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    batch = made.batch(distilled_examples(made))
    scores = made.forward(student, batch)
    losses = made.losses(scores, batch)
    with torch.no_grad():
        full = [model(**batch.inputs).logits for model in (student, teacher)]
    targets = next(iter(batch.targets.values()))
    ours, theirs = (logits[targets != IGNORED].double() for logits in full)
    apart = (theirs / 3).softmax(-1) * ((theirs / 3).log_softmax(-1) - (ours / 3).log_softmax(-1))
    hard = F.cross_entropy(ours, targets[targets != IGNORED])
    wanted = 0.3 * 9 * apart.sum() / len(ours) + 0.7 * hard
    got = sum(loss / batch.counts[key] for key, loss in losses.items())
    torch.testing.assert_close(got.double(), wanted, atol=1e-4, rtol=1e-4)
    assert (made.SCORES, made.READS, made.METRIC) == (made.inner.SCORES, made.inner.READS, made.inner.METRIC)


def test_a_student_like_its_teacher_has_nothing_to_learn_from_it():
    made, teacher = distilled("classification", alpha=1.0)
    batch = made.batch(distilled_examples(made))
    losses = made.losses(made.forward(teacher, batch), batch)
    assert sum(float(loss) for loss in losses.values()) == pytest.approx(0, abs=1e-6)


def test_teachers_that_do_not_fit():
    made, model = distilled("classification")
    processor = model.processor
    with pytest.raises(InvalidInput, match=r"the teacher's labels are \['negative', 'neutral', 'positive'\]"):
        Distillation(processor, inner=Classification(processor, labels=LABELS), teacher=model)
    with pytest.raises(Unsupported, match="the teacher gives LabelScores, mlm needs WordScores"):
        Distillation(processor, inner=Mlm(processor), teacher=model)
    with pytest.raises(Unsupported, match="regression is no choice among classes"):
        Distillation(processor, inner=Regression(processor), teacher=model)
    other = tiny.load("roberta-words")
    with pytest.raises(InvalidInput, match="the teacher's vocabulary of 420 tokens is not the model's of 298"):
        Distillation(processor, inner=Mlm(processor), teacher=other)
    with pytest.raises(InvalidInput, match=r"alpha is 1\.5"):
        Distillation(processor, inner=made.inner, teacher=model, alpha=1.5)


@pytest.mark.parametrize("padded", ["teacher", "student"])
def test_rows_that_pad_a_vocabulary_are_not_compared(tmp_path, padded):
    size = len(tiny.wordpieces())
    plain = tiny.load("bert-words")
    wide = triarch.load(tiny.write_checkpoint(tmp_path, "bert", "BertForMaskedLM", vocab_size=size + 8))
    teacher, student = (wide, plain) if padded == "teacher" else (plain, wide)
    made = Distillation(student.processor, inner=Mlm(student.processor), teacher=teacher, alpha=1.0, temperature=1.0)
    batch = made.batch(examples_of(made))
    scores = made.forward(student, batch)
    chosen = batch.targets["words"] != IGNORED
    with torch.no_grad():
        ours, theirs = (
            model(**batch.inputs).logits[chosen][:, :size].log_softmax(-1).double() for model in (student, teacher)
        )
    wanted = (theirs.exp() * (theirs - ours)).sum()
    torch.testing.assert_close(made.losses(scores, batch)["distillation"].double(), wanted, atol=1e-4, rtol=1e-4)


def test_a_teacher_without_a_tokenizer_has_as_many_tokens(tmp_path):
    student = tiny.load("bert-words")
    for extra in (8, 0):
        folder = tiny.write_checkpoint(tmp_path / str(extra), "bert", "BertForMaskedLM", vocab_size=298 + extra)
        for name in ("vocab.txt", "tokenizer_config.json"):
            (folder / name).unlink()
        teacher = triarch.load(folder)
        if extra:
            with pytest.raises(InvalidInput, match="no tokenizer, and 306 tokens where the model has 298"):
                Distillation(student.processor, inner=Mlm(student.processor), teacher=teacher)
        else:
            Distillation(student.processor, inner=Mlm(student.processor), teacher=teacher)


def test_a_teacher_that_takes_fewer_tokens_sees_no_more(tmp_path):
    student = tiny.load("bert-words")
    teacher = triarch.load(tiny.write_checkpoint(tmp_path, "bert", "BertForMaskedLM", max_position_embeddings=32))
    with pytest.raises(InvalidInput, match="the teacher takes 32 tokens, mlm shows it up to 64; set the option max"):
        Distillation(student.processor, inner=Mlm(student.processor), teacher=teacher)
    made = Distillation(student.processor, inner=Mlm(student.processor, max_tokens=32), teacher=teacher)
    assert math.isfinite(float(loss_of(made, student, examples_of(made)).detach()))


def test_a_teacher_of_another_family_teaches(tmp_path):
    teacher = tiny.load("bert-words")
    student = tiny.load("distilbert-words")
    for one, other in ((teacher, student), (student, teacher)):
        made = Distillation(other.processor, inner=Mlm(other.processor), teacher=one)
        assert math.isfinite(float(loss_of(made, other, examples_of(made)).detach()))


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
