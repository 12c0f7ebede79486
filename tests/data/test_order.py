"""Which examples come at which step."""

import numpy as np
import pytest

from triarch.data.examples import Examples
from triarch.data.order import Order
from triarch.errors import InvalidInput

LENGTHS = np.random.default_rng(0).integers(1, 60, size=500)
ORDERS = [
    {"batch_size": 8},
    {"batch_size": 7, "bucket": 100},
    {"batch_tokens": 256},
    {"batch_tokens": 64, "bucket": 50},
    {"batch_size": 1000},
]


@pytest.mark.parametrize("how", ORDERS)
def test_every_index_comes_once_an_epoch(how):
    order = Order(LENGTHS, seed=3, **how)
    step = 0
    for epoch in range(3):
        assert order.first_step(epoch) == step
        seen = []
        for _ in range(order.steps_per_epoch(epoch)):
            at, indices = order.at(step)
            assert at == epoch
            assert len(indices)
            seen += indices.tolist()
            step += 1
        assert sorted(seen) == list(range(500))


@pytest.mark.parametrize("how", ORDERS)
def test_any_step_can_be_asked_for_at_once(how):
    steps = range(0, 300, 7)
    straight = [Order(LENGTHS, seed=3, **how)] * len(steps)
    resumed = [Order(LENGTHS, seed=3, **how) for _ in steps]
    for one, other, step in zip(straight, resumed, steps, strict=True):
        assert one.at(step)[0] == other.at(step)[0]
        assert one.at(step)[1].tolist() == other.at(step)[1].tolist()


def test_epochs_and_seeds_have_orders_of_their_own():
    order, other = Order(LENGTHS, batch_size=500, seed=3), Order(LENGTHS, batch_size=500, seed=4)
    orders = [order.at(0)[1], order.at(1)[1], other.at(0)[1]]
    assert len({indices.tobytes() for indices in orders}) == 3


def test_batches_by_tokens_stay_within_them_and_hardly_pad():
    order = Order(LENGTHS, batch_tokens=256, seed=0)
    batches = [LENGTHS[order.at(step)[1]] for step in range(order.steps_per_epoch())]
    padded = [len(lengths) * max(lengths) for lengths in batches]
    assert max(padded) <= 256
    assert sum(padded) < 1.1 * LENGTHS.sum()


def test_buckets_pad_less_and_are_shuffled():
    def padded(order):
        return sum(len(b) * LENGTHS[b].max() for b in (order.at(i)[1] for i in range(order.steps_per_epoch())))

    plain, sorted_ = Order(LENGTHS, batch_size=8), Order(LENGTHS, batch_size=8, bucket=128)
    assert padded(sorted_) < 1.15 * LENGTHS.sum() < padded(plain)
    longest = [LENGTHS[sorted_.at(i)[1]].max() for i in range(16)]
    assert longest != sorted(longest)


def test_the_last_smaller_batch_is_kept():
    order = Order(range(1, 11), batch_size=4)
    assert sorted(len(order.at(step)[1]) for step in range(3)) == [2, 4, 4]


@pytest.mark.parametrize("least", [2, 3])
@pytest.mark.parametrize("count", [3, 4, 5, 9, 10, 33])
@pytest.mark.parametrize("how", [{"batch_size": 3}, {"batch_size": 4, "bucket": 6}, {"batch_tokens": 300}])
def test_no_batch_has_fewer_rows_than_are_told_apart(how, count, least):
    order = Order(LENGTHS[:count], seed=1, least=least, **how)
    for epoch in range(8):
        first = order.first_step(epoch)
        batches = [order.at(first + step)[1] for step in range(order.steps_per_epoch(epoch))]
        assert order.at(first + len(batches))[0] == epoch + 1
        assert sorted(np.concatenate(batches)) == list(range(count))
        assert min(map(len, batches)) >= least
        assert max(map(len, batches)) < how.get("batch_size", count) + least
        if "batch_tokens" in how:
            assert max(len(batch) * LENGTHS[batch].max() for batch in batches) <= 300


def test_a_last_single_row_joins_the_batch_before_it():
    order = Order([5] * 33, batch_size=32, least=2)
    assert (order.steps_per_epoch(), len(order.at(0)[1])) == (1, 33)
    assert Order([5] * 33, batch_size=32).steps_per_epoch() == 2


@pytest.mark.parametrize(
    "how, message",
    [
        (
            {"batch_size": 1, "least": 2},
            "batch_size is 1, and what is learned here is to tell the rows of a batch apart",
        ),
        ({"batch_tokens": 100, "least": 2}, r"has 59 tokens, times 3, over batch_tokens=100; raise it"),
        ({"batch_size": 999, "least": 501}, "there is 500 example, and what is learned here is to tell 501 or more"),
        ({}, "give batch_size or batch_tokens"),
        ({"batch_size": 1, "batch_tokens": 1}, "give batch_size or batch_tokens"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": True}, "batch_size is True"),
        ({"batch_size": 2.0}, "batch_size is 2.0"),
        ({"batch_tokens": 10}, "has 59 tokens, over batch_tokens=10; raise it"),
        ({"batch_size": 4, "bucket": 0}, "bucket is 0"),
        ({"batch_size": 4, "seed": -1}, "the seed is -1"),
    ],
)
def test_sizes_that_no_batch_can_have(how, message):
    with pytest.raises(InvalidInput, match=message):
        Order(LENGTHS, **how)


def test_no_examples_have_no_order():
    with pytest.raises(InvalidInput, match="no examples"):
        Order([], batch_size=1)
    with pytest.raises(InvalidInput, match="no step -1"):
        Order([1], batch_size=1).at(-1)
    with pytest.raises(InvalidInput, match="no examples"):
        Examples([])
