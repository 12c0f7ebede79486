"""One update and one measurement: the same whatever pieces they are taken in."""

import copy
import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

import runs
import tiny
from triarch.data import seeds
from triarch.engine import budgets
from triarch.errors import TriarchError
from triarch.objectives._base import Batch
from triarch.training import plan
from triarch.training.learner import Learner, NotFinite, clip, first_not_finite, recompute_blocks
from triarch.training.settings import Settings

PAIRS = [
    {"anchor": f"I love {w}", "positive": f"what a lovely {w}", "negative": f"never {w}"} for w in tiny.words()[:8]
]
QUESTIONS = [
    {"question": "Where?", "context": "Ada lived in " + "London " * n, "answers": [{"text": "London", "start": 13}]}
    for n in (1, 2, 3, 5)
]
TAGGED = [
    {"tokens": ["Ada", "lived", "in", *["London"] * n], "tags": ["B-PER", "O", "O", *["B-LOC"] * n]} for n in (1, 2, 5)
]
NUMBERS = [{"text": row["text"], "label": i / 3 + 0.1} for i, row in enumerate(runs.reviews(6))]


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A plan, by the name of a model, the rows, and more settings; without dropout unless it is asked for."""
    folder = tmp_path_factory.mktemp("plans")
    model = runs.model_in(folder)
    books = runs.write_books(folder / "books")

    @cache
    def made(name, objective, dropout, options):
        given = {"dropout": dropout, "objective": objective, "model": model(name), "options": dict(options)}
        rows = ROWS.get(objective)
        given |= {} if rows else {"data": [str(books)]}
        return plan.prepare(Settings(**given), pytest.fail, folder / f"{name}-{objective}", train=rows)

    return lambda name, objective, dropout=0.0, **options: copy.deepcopy(
        made(name, objective, dropout, tuple(options.items()))
    )


ROWS = {
    "classification": runs.reviews(12),
    "regression": NUMBERS,
    "tagging": TAGGED,
    "span": QUESTIONS,
    "contrastive": PAIRS,
}


def examples_of(made, count=8):
    return [made.train.examples.draw(i, np.random.default_rng(i)) for i in range(min(count, len(made.train.examples)))]


def gradients(made, examples, **options):
    """Gradients by name, and the step that they are of."""
    found = Learner(made.model.train(), made.objective, **options).gradients(examples, (1, 2))
    grads = {name: p.grad.clone() for name, p in made.model.named_parameters() if p.grad is not None}
    made.model.zero_grad()
    return grads, found


def together(made, examples):
    """The gradients of all in one padded batch, written out."""
    batch = made.objective.batch(examples)
    losses = made.objective.losses(made.objective.forward(made.model.train(), batch), batch)
    sum(loss / batch.counts[name] for name, loss in losses.items()).backward()
    grads = {name: p.grad.clone() for name, p in made.model.named_parameters() if p.grad is not None}
    made.model.zero_grad()
    return grads, {name: loss.item() / batch.counts[name] for name, loss in losses.items()}


def assert_near(found, wanted, most=1e-6):
    assert found.keys() == wanted.keys()
    for name in wanted:
        scale = max(1.0, wanted[name].abs().max().item())
        assert (found[name] - wanted[name]).abs().max().item() <= most * scale, name


def equal(found, wanted):
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


LEARNED = [
    ("bert-words", "mlm", {"share": 0.4}),
    ("bert-pretraining", "bert", {"share": 0.4}),
    ("bert-next", "nsp", {}),
    ("bert", "classification", {}),
    ("bert", "classification", {"class_weights": (1.0, 7.0)}),
    ("distilbert", "classification", {"label_smoothing": 0.1}),
    ("bert", "regression", {}),
    ("roberta-tags", "tagging", {}),
    ("bert", "span", {}),
    ("bert", "contrastive", {}),
]


@pytest.mark.parametrize("micro_tokens", [1, 40, 100_000])
@pytest.mark.parametrize("name, objective, options", LEARNED)
def test_pieces_have_the_gradient_of_the_whole_batch(planned, name, objective, options, micro_tokens):
    made = planned(name, objective, **options)
    if "class_weights" not in options:  # which are float32; the rounding of others need not hide a difference
        made.model.double()
    examples = examples_of(made)
    wanted, losses = together(made, examples)
    found, step = gradients(made, examples, micro_tokens=micro_tokens)
    assert_near(found, wanted, 1e-6 if "class_weights" in options else 1e-12)
    assert step.losses == pytest.approx(losses, rel=1e-6)
    assert step.loss == pytest.approx(sum(losses.values()), rel=1e-6)
    assert step.tokens == sum(len(example.ids) for example in examples)


def test_a_loss_of_which_a_piece_has_none_is_left_out(planned):
    """Words to guess in one example alone; the others, in pieces of their own, have a count of zero."""
    made = planned("bert-words", "mlm", share=0.4)
    examples = examples_of(made, 3)
    blank = [e._replace(target=np.full(e.length, -100)) for e in examples[1:]]
    wanted, _ = gradients(made, examples[:1], micro_tokens=1)
    found, _ = gradients(made, [examples[0], *blank], micro_tokens=1)
    assert_near(found, wanted)


def test_dropout_is_a_function_of_the_seed(planned):
    made = planned("bert", "classification", 0.3)
    examples = examples_of(made)
    trained = Learner(made.model.train(), made.objective)
    losses = []
    for seed in ((1, 2), (1, 3), (1, 2), (2, 2)):
        losses.append(trained.gradients(examples, seed).loss)
        made.model.zero_grad()
    assert losses[0] == losses[2]
    assert len(set(losses)) == 3


# Memory


class Small:
    """A forward pass on a device that holds at most `most` tokens, padding included."""

    def __init__(self, objective, most, error=torch.OutOfMemoryError):
        self.forward, self.most, self.error, self.tried = objective.forward, most, error, []

    def __call__(self, model, batch: Batch):
        self.tried.append(batch.inputs["input_ids"].numel())
        if self.tried[-1] > self.most:
            raise self.error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return self.forward(model, batch)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_without_memory_pieces_are_halved_and_the_batch_is_the_same(planned, monkeypatch, error):
    made = planned("bert", "classification")
    examples = examples_of(made)
    whole = len(examples) * max(e.length for e in examples)
    wanted, _ = gradients(made, examples)
    small = Small(made.objective, whole // 2, error)
    monkeypatch.setattr(made.objective, "forward", small, raising=False)
    notes = []
    trained = Learner(made.model.train(), made.objective, micro_tokens=100_000, note=notes.append)
    trained.gradients(examples, (1, 2))
    assert_near({name: p.grad for name, p in made.model.named_parameters() if p.grad is not None}, wanted)
    assert len(notes) == 1
    assert notes[0].startswith("out of memory: going on with")
    made.model.zero_grad()
    trained.gradients(examples, (1, 3))  # and from then on at once
    assert len(notes) == 1
    assert sum(tokens > whole // 2 for tokens in small.tried) == 1


def test_memory_that_ends_in_the_second_piece_leaves_nothing_of_the_first(planned, monkeypatch):
    made = planned("bert", "classification")
    examples = examples_of(made)
    wanted, _ = gradients(made, examples)
    forward, seen = made.objective.forward, []

    def fail_once(model, batch):
        seen.append(1)
        if len(seen) == 2:
            raise torch.OutOfMemoryError("out of memory")
        return forward(model, batch)

    monkeypatch.setattr(made.objective, "forward", fail_once, raising=False)
    found, _ = gradients(made, examples, micro_tokens=80, note=lambda line: None)
    assert_near(found, wanted)


@pytest.mark.parametrize("name, objective", [("bert", "classification"), ("bert", "contrastive")])
def test_an_example_that_does_not_fit_is_an_error(planned, monkeypatch, name, objective):
    made = planned(name, objective)
    examples = examples_of(made)
    monkeypatch.setattr(made.objective, "forward", Small(made.objective, 3), raising=False)
    trained = Learner(made.model.train(), made.objective)
    with pytest.raises(TriarchError, match="out of memory: not even one piece of the batch fits; ask for recompute"):
        trained.gradients(examples, (1, 2))
    with pytest.raises(TriarchError, match="out of memory"):
        trained.measure(made.train.examples, 0)


def test_other_errors_are_not_taken_for_it(planned, monkeypatch):
    made = planned("bert", "classification")

    def fail(model, batch):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(made.objective, "forward", fail, raising=False)
    with pytest.raises(RuntimeError, match="shapes differ"):
        Learner(made.model, made.objective).gradients(examples_of(made), (1, 2))


def test_a_measurement_halves_its_pieces_too(planned, monkeypatch):
    made = planned("bert", "classification")
    wanted = Learner(made.model, made.objective).measure(made.train.examples, 0)
    monkeypatch.setattr(made.objective, "forward", Small(made.objective, 30), raising=False)
    notes = []
    metrics, outcomes = Learner(made.model, made.objective, note=notes.append).measure(made.train.examples, 0)
    assert metrics == pytest.approx(wanted[0], rel=1e-6)
    assert outcomes == wanted[1]
    assert notes


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert"])
def test_recomputed_blocks_have_the_same_gradients(planned, name, dropout):
    made = planned(name, "classification", dropout)
    examples = examples_of(made)
    wanted, _ = gradients(made, examples)
    before = Learner(made.model, made.objective).measure(made.train.examples, 0)
    recompute_blocks(made.model)
    found, _ = gradients(made, examples)
    assert equal(found, wanted)
    assert Learner(made.model, made.objective).measure(made.train.examples, 0) == before


def test_recomputing_keeps_less(planned):
    made = planned("bert", "classification")
    examples = examples_of(made)

    def kept():
        sizes = []

        def pack(tensor):
            sizes.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            batch = made.objective.batch(examples)
            made.objective.forward(made.model.train(), batch)
        return sum(sizes)

    before = kept()
    recompute_blocks(made.model)
    assert kept() < before / 2


def test_bfloat16_is_near(planned):
    made = planned("bert", "classification")
    examples = examples_of(made)
    wanted, step = gradients(made, examples)
    found, near = gradients(made, examples, bfloat16=True)
    assert all(grad.dtype == torch.float32 for grad in found.values())
    assert near.loss == pytest.approx(step.loss, rel=0.02)
    assert near.loss != step.loss
    assert_near(found, wanted, 0.05)


# Measuring


@pytest.mark.parametrize("name, objective, options", LEARNED)
def test_a_measurement_is_the_same_in_any_pieces(planned, name, objective, options):
    made = planned(name, objective, 0.3, **options)
    found = [
        Learner(made.model, made.objective, micro_tokens=size).measure(made.train.examples, 5)[0]
        for size in (1, 64, 100_000)
    ]
    assert found[1] == pytest.approx(found[0], rel=1e-5, nan_ok=True)
    assert found[2] == pytest.approx(found[0], rel=1e-5, nan_ok=True)


def test_its_loss_is_that_of_all_rows_together(planned):
    made = planned("bert-pretraining", "bert", share=0.4)
    examples = [made.train.examples.draw(i, seeds.generator("measure", 5, i)) for i in range(len(made.train.examples))]
    _, losses = together(made, examples)
    made.model.eval()
    found, outcomes = Learner(made.model, made.objective, micro_tokens=64).measure(made.train.examples, 5)
    assert found["loss"] == pytest.approx(found["mlm_loss"] + found["nsp_loss"])
    assert {name: found[f"{name}_loss"] for name in losses} == pytest.approx(losses, rel=1e-5)
    assert len(outcomes) == len(made.train.examples)


def test_outcomes_are_in_the_order_of_the_rows(planned, monkeypatch):
    made = planned("bert", "classification")
    monkeypatch.setattr(budgets, "EXAMPLES_AHEAD", 5)
    _, outcomes = Learner(made.model, made.objective, micro_tokens=40).measure(made.train.examples, 0)
    assert [outcome.right for outcome in outcomes] == [example.target for example in made.train.examples.examples]
    assert [outcome.length for outcome in outcomes] == made.train.examples.lengths.tolist()


def test_rows_that_depend_on_each_other_are_measured_in_batches(planned, monkeypatch):
    made = planned("bert", "contrastive")
    seen = []
    batch = made.objective.batch

    def count(examples):
        seen.append(len(examples))
        return batch(examples)

    monkeypatch.setattr(made.objective, "batch", count, raising=False)
    Learner(made.model, made.objective, whole=3).measure(made.train.examples, 0)
    assert seen == [3, 3, 2]


def test_measuring_draws_the_same_words_each_time_and_leaves_the_mode(planned):
    made = planned("bert-words", "mlm", 0.5)
    trained = Learner(made.model.train(), made.objective)
    first = trained.measure(made.train.examples, 1)
    torch.manual_seed(99)
    assert trained.measure(made.train.examples, 1) == first
    assert trained.measure(made.train.examples, 2) != first
    assert made.model.training
    assert all(p.grad is None for p in made.model.parameters())


def test_of_an_error_in_measuring_the_mode_is_left_too(planned):
    made = planned("bert", "classification")
    made.model.train()

    def stop(rows):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Learner(made.model, made.objective).measure(made.train.examples, 1, stop)
    assert made.model.training


# What is no number


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_refused(planned, value):
    made = planned("bert", "regression")
    examples = examples_of(made)
    examples[3] = examples[3]._replace(target=value)
    trained = Learner(made.model.train(), made.objective, micro_tokens=1)
    with pytest.raises(NotFinite, match=r"the loss is \{'regression': (nan|inf)\}"):
        trained.gradients(examples, (1, 2))
    assert trained.not_finite(examples) == [3]


def test_clipping_scales_to_the_norm_and_tells_the_one_before():
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(5))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    assert clip(parameters, None) == 5
    assert clip(parameters, 10.0) == 5
    assert parameters[1].grad.item() == 4
    assert clip(parameters, 1.0) == 5
    assert parameters[0].grad[0].item() == pytest.approx(0.6, abs=1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_no_number_is_refused_and_found(value):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model(torch.ones(1, 2)).sum().backward()
    model[1].weight.grad[1, 1] = value
    before = model[0].weight.grad.clone()
    with pytest.raises(NotFinite, match="the norm of the gradient is"):
        clip([*model.parameters()], 1.0)
    assert torch.equal(model[0].weight.grad, before)
    assert first_not_finite(model) == "1.weight"


def test_without_any_gradient_the_norm_is_zero():
    assert clip([nn.Parameter(torch.zeros(2))], 1.0) == 0
