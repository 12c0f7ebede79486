"""Batches by token budget."""

import pytest
import torch

from triarch.engine.batches import run, token_batches

LENGTHS = [3, 50, 7, 7, 120, 1, 49, 8]


def test_every_item_is_in_one_batch():
    batches = token_batches(LENGTHS, 100)
    assert sorted(i for batch in batches for i in batch) == list(range(len(LENGTHS)))


def test_batches_keep_to_the_budget_with_their_padding():
    for batch in token_batches(LENGTHS, 100):
        assert len(batch) * max(LENGTHS[i] for i in batch) <= 100 or len(batch) == 1


def test_batches_keep_to_a_number_of_rows():
    assert max(map(len, token_batches([1] * 10, 1000, most=3))) == 3


def test_neighbours_in_a_batch_are_of_like_length():
    assert [[LENGTHS[i] for i in batch] for batch in token_batches(LENGTHS, 100)] == [[120], [50, 49], [8, 7, 7, 3, 1]]


def test_results_come_in_the_order_of_the_items():
    assert run(LENGTHS, lambda batch: [2 * x for x in batch], lengths=LENGTHS, budget=60) == [2 * x for x in LENGTHS]


def test_a_batch_without_memory_is_halved():
    tried = []

    def compute(batch):
        tried.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError
        return batch

    assert run(list(range(8)), compute, lengths=[1] * 8, budget=8) == list(range(8))
    assert tried == [8, 4, 2, 2, 4, 2, 2]


def test_one_item_without_memory_is_an_error():
    def compute(batch):
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        run([1], compute, lengths=[1], budget=8)
