"""The running mean of the weights."""

import pytest
import torch

from triarch.errors import CheckpointMismatch, InvalidInput
from triarch.training.average import Average


def weights(*values, dtype=torch.float32):
    return {f"w{i}": torch.nn.Parameter(torch.tensor([value], dtype=dtype)) for i, value in enumerate(values)}


def test_the_mean_is_exponential():
    held = weights(1.0)
    average = Average(held, 0.9, warmup=False)
    for step, value in enumerate([2.0, 3.0]):
        held["w0"].data.fill_(value)
        average.update(step)
    assert average.state()["w0"].item() == pytest.approx(0.9 * (0.9 * 1 + 0.1 * 2) + 0.1 * 3)


def test_the_decay_warms_up():
    held = weights(0.0)
    average = Average(held, 0.999)
    held["w0"].data.fill_(1.0)
    average.update(0)
    assert average.state()["w0"].item() == pytest.approx(0.9)  # decay (1 + 0) / (10 + 0)
    held["w0"].data.fill_(0.0)
    average.update(100_000)
    assert average.state()["w0"].item() == pytest.approx(0.999 * 0.9)


def test_weights_come_back_to_the_bit():
    held = weights(0.1, 0.2)
    average = Average(held, 0.5)
    held["w0"].data.fill_(0.3)
    with pytest.raises(KeyboardInterrupt), average.swap():
        assert held["w0"].item() == pytest.approx(0.1)
        raise KeyboardInterrupt
    assert held["w0"].item() == torch.tensor(0.3).item()


def test_the_mean_can_take_the_weights_place():
    held = weights(1.0)
    average = Average(held, 0.5, warmup=False)
    held["w0"].data.fill_(3.0)
    average.update(0)
    average.apply()
    assert held["w0"].item() == 2.0


def test_small_changes_count_in_short_number_formats():
    held = weights(1.0, dtype=torch.bfloat16)
    average = Average(held, 0.999, warmup=False)
    held["w0"].data.fill_(2.0)
    for step in range(100):
        average.update(step)
    assert average.state()["w0"].item() == pytest.approx(2 - 0.999**100, abs=1e-4)


def test_a_restored_mean_goes_on_to_the_bit():
    held = weights(0.1, 0.7)
    first, second = Average(held, 0.9), Average(held, 0.9)
    held["w0"].data.fill_(0.3)
    first.update(0)
    second.restore({name: mean.clone() for name, mean in first.state().items()})
    for average in (first, second):
        average.update(1)
    assert all(torch.equal(first.state()[name], second.state()[name]) for name in held)


@pytest.mark.parametrize(
    "tensors, message",
    [
        ({"w0": torch.zeros(1)}, r"1 missing \(w1\)"),
        ({"w0": torch.zeros(1), "w1": torch.zeros(1), "w2": torch.zeros(1)}, r"1 unexpected \(w2\)"),
        ({"w0": torch.zeros(1), "w1": torch.zeros(2)}, r"1 misshaped \(w1\)"),
        ({"w0": torch.zeros(1), "w1": torch.zeros(1, dtype=torch.float64)}, r"1 misshaped \(w1\)"),
    ],
)
def test_means_of_another_model_are_refused(tensors, message):
    with pytest.raises(CheckpointMismatch, match=message):
        Average(weights(0.0, 0.0), 0.9).restore(tensors)


@pytest.mark.parametrize("decay", [1, 1.5, -0.1, float("nan")])
def test_a_decay_that_is_none_is_refused(decay):
    with pytest.raises(InvalidInput, match="average is "):
        Average(weights(0.0), decay)
