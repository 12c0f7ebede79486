"""Learning rates step by step: as the reference's schedulers, as the papers say, and what is refused."""

import math

import pytest
import torch
from transformers import get_scheduler

from triarch.errors import InvalidInput
from triarch.training.schedules import SCHEDULES, schedule

TOTAL = 50


def reference(name, warmup, total=TOTAL, **options):
    """The reference's rates for a peak of 1, at every step of the run."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(name, optimizer, warmup, total, scheduler_specific_kwargs=options)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def ours(name, warmup, total=TOTAL, **options):
    rate = schedule(name, total, warmup, **options)
    return [rate(step) for step in range(total)]


@pytest.mark.parametrize("warmup", [0, 1, 7, 50])
@pytest.mark.parametrize(
    "name, theirs",
    [
        ("constant", "constant_with_warmup"),
        ("linear", "linear"),
        ("cosine", "cosine"),
        ("inverse-sqrt", "inverse_sqrt"),
    ],
)
def test_rates_are_the_references(name, theirs, warmup):
    assert ours(name, warmup) == pytest.approx(reference(theirs, warmup), abs=1e-15)


def test_cosine_with_a_minimum_is_the_references():
    theirs = reference("cosine_with_min_lr", 5, min_lr_rate=0.1)
    assert ours("cosine", 5, minimum=0.1) == pytest.approx(theirs, abs=1e-15)


def test_inverse_sqrt_with_a_timescale_is_the_references():
    assert ours("inverse-sqrt", 5, timescale=20) == pytest.approx(reference("inverse_sqrt", 5, timescale=20))


@pytest.mark.parametrize("shape", ["linear", "cosine", "1-sqrt"])
def test_warmup_stable_decay_is_the_references(shape):
    theirs = reference("warmup_stable_decay", 5, num_decay_steps=20, decay_type=shape)
    assert ours("warmup-stable-decay", 5, decay=20, shape=shape) == pytest.approx(theirs, abs=1e-15)


def test_warmup_stable_decay_falls_to_its_minimum_as_the_references():
    theirs = reference("warmup_stable_decay", 0, num_decay_steps=20, min_lr_ratio=0.2)
    assert ours("warmup-stable-decay", 0, decay=20, minimum=0.2) == pytest.approx(theirs, abs=1e-15)


def test_inverse_sqrt_is_the_formula_of_attention_is_all_you_need():
    warmup, size = 10, 512
    formula = [size**-0.5 * min(step**-0.5, step * warmup**-1.5) for step in range(1, TOTAL)]
    peak = size**-0.5 * warmup**-0.5
    assert [peak * rate for rate in ours("inverse-sqrt", warmup)[1:]] == pytest.approx(formula)


def test_tri_stage_is_fairseqs():
    # fairseq/optim/lr_scheduler/tri_stage_lr_scheduler.py, with phase_ratio [0.1, 0.4, 0.5] of 50 steps
    theirs = [0.01 + (1 - 0.01) / 5 * step for step in range(5)]
    theirs += [1.0] * 20
    theirs += [math.exp(-(-math.log(0.05) / 25) * step) for step in range(25)]
    assert ours("tri-stage", 0.1) == pytest.approx(theirs)


def test_tri_stage_ends_at_its_final_share():
    assert schedule("tri-stage", TOTAL, 5, final=0.05)(TOTAL) == pytest.approx(0.05)


@pytest.mark.parametrize("name", ["linear", "cosine", "warmup-stable-decay"])
def test_beyond_the_end_the_rate_stays_at_its_minimum(name):
    rate = schedule(name, TOTAL, 5, minimum=0.25)
    assert [rate(TOTAL), rate(TOTAL + 1), rate(3 * TOTAL)] == [0.25] * 3


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_share_of_warmup_is_that_many_steps(name):
    assert ours(name, 0.1) == ours(name, 5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_peak_is_reached_at_the_end_of_the_warmup_and_nowhere_exceeded(name):
    rates = ours(name, 5)
    assert rates[5] == max(rates) == 1


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_run_of_one_step_has_a_schedule(name):
    assert 0 <= schedule(name, 1, 0)(0) <= 1


@pytest.mark.parametrize(
    "name, warmup, options, message",
    [
        ("linaer", 0, {}, r"no schedule 'linaer' \(did you mean linear\?\); there are constant, linear"),
        ("linear", 51, {}, r"warmup of 51 steps is longer than the run of 50"),
        ("linear", -1, {}, r"warmup is -1, wanted a number of at least 0"),
        ("linear", float("nan"), {}, r"warmup is nan"),
        ("linear", -0.1, {}, r"warmup is -0.1"),
        ("linear", 1.5, {}, r"warmup is 1.5, wanted a whole number of steps, or a share of all steps below 1"),
        ("linear", "5", {}, r"warmup is 5, wanted a number"),
        ("linear", True, {}, r"warmup is True, wanted a number"),
        ("linear", 0, {"minimun": 0}, r"schedule linear has no option 'minimun' \(did you mean minimum\?\)"),
        ("constant", 0, {"minimum": 0}, r"schedule constant has no option 'minimum'; it takes none"),
        ("cosine", 0, {"minimum": 1.5}, r"minimum is 1.5, wanted a number of at least 0 and at most 1"),
        ("cosine", 0, {"minimum": float("nan")}, r"minimum is nan"),
        ("inverse-sqrt", 0, {"timescale": 0}, r"timescale is 0, wanted a number of at least 1"),
        ("warmup-stable-decay", 40, {"decay": 11}, r"warmup and decay take 51 steps, the run 50"),
        ("warmup-stable-decay", 0, {"shape": "square"}, r"no shape 'square'; there are linear, cosine, 1-sqrt"),
        ("tri-stage", 30, {"hold": 0.5}, r"warmup and hold take 55 steps, the run 50"),
        ("tri-stage", 0, {"final": 0.0}, r"final is 0.0, wanted a number over 0 and at most 1"),
    ],
)
def test_what_makes_no_schedule_is_refused(name, warmup, options, message):
    with pytest.raises(InvalidInput, match=message):
        schedule(name, TOTAL, warmup, **options)


@pytest.mark.parametrize("total", [0, -3, 2.5, True])
def test_a_run_without_steps_has_no_schedule(total):
    with pytest.raises(InvalidInput, match=r"total_steps is .*, wanted a whole number of at least 1"):
        schedule("linear", total)
