"""The cache of keys and values: what it gives back, how it grows, what it forgets."""

import pytest
import torch

from triarch.errors import LimitExceeded
from triarch.layers.attention import attend
from triarch.layers.cache import STEP, Cache, Slots


def made(tokens, batch=1, seed=0):
    """Keys and values (B, K, T, E)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, batch, 2, tokens, 3, generator=generator).unbind()


def extend(cache, keys, values, sizes, window=None):
    """Add the tokens in pieces of those sizes, and return what the last one gave."""
    found = None
    for k, v in zip(keys.split(sizes, 2), values.split(sizes, 2), strict=True):
        found = cache[0].extend(k, v, window)
    return found


@pytest.mark.parametrize("sizes", [[9], [1] * 9, [4, 1, 3, 1], [STEP + 1, 1, 300, 1, 1]])
@pytest.mark.parametrize("room", [None, 500])
def test_all_that_was_added_comes_back_in_order(sizes, room):
    keys, values = made(sum(sizes), batch=2)
    got = extend(Cache(room=room), keys, values, sizes)
    assert torch.equal(got[0], keys)
    assert torch.equal(got[1], values)


def test_layers_are_apart():
    cache = Cache()
    first, second = made(3), made(3, seed=1)
    cache[0].extend(*first)
    assert torch.equal(cache[1].extend(*second)[0], second[0])
    assert cache[0].held == cache[1].held == 3


def test_adding_a_token_moves_the_others_seldom():
    cache, places = Cache(), set()
    for _ in range(1000):
        cache[0].extend(*made(1))
        places.add(cache[0].stored.data_ptr())
    assert len(places) < 10


def test_a_cache_with_room_takes_it_at_once_and_never_moves():
    cache = Cache(room=40)
    cache[0].extend(*made(1))
    place, size = cache[0].stored.data_ptr(), cache.nbytes
    for _ in range(39):
        cache[0].extend(*made(1))
    assert cache[0].stored.data_ptr() == place
    assert cache.nbytes == size == 2 * 2 * 40 * 3 * 4


def test_more_than_there_is_room_for_is_refused_and_nothing_is_counted():
    cache = Cache(room=4)
    cache[0].extend(*made(3))
    with pytest.raises(LimitExceeded, match="5 tokens, but the cache has room for 4"):
        cache[0].extend(*made(2))
    cache[0].extend(*made(1))
    assert cache.length == 4


@pytest.mark.parametrize("sizes", [[1] * 50, [20, *[1] * 30], [3, 17, *[1] * 30], [49, 1]])
def test_a_sliding_cache_keeps_what_a_window_sees(sizes):
    keys, values = made(50)
    got = extend(Cache(), keys, values, sizes, window=6)
    assert torch.equal(got[0][:, :, -6:], keys[:, :, -6:])
    assert torch.equal(got[1][:, :, -6:], values[:, :, -6:])


def test_several_tokens_at_once_see_the_window_of_the_first_of_them():
    keys, values = made(50)
    got = extend(Cache(), keys, values, [40, 10], window=6)
    assert torch.equal(got[0][:, :, -15:], keys[:, :, -15:])


def test_a_sliding_cache_holds_at_most_two_windows():
    cache = Cache()
    keys, values = made(500)
    extend(cache, keys, values, [100, *[1] * 400], window=6)
    assert cache.length == 500
    assert cache[0].stored.shape[3] == 12


def test_a_cache_that_does_not_slide_keeps_all():
    cache = Cache(sliding=False)
    keys, values = made(50)
    assert torch.equal(extend(cache, keys, values, [40, *[1] * 10], window=6)[0], keys)


@pytest.mark.parametrize("rows", [[2, 0, 1], [1, 1], [0]])
def test_sequences_are_put_in_another_order_and_go_on_apart(rows):
    cache = Cache()
    keys, values = made(5, batch=3)
    cache[0].extend(keys, values)
    cache.select(torch.tensor(rows))
    more = made(1, batch=len(rows), seed=1)
    got = cache[0].extend(*more)
    assert torch.equal(got[0], torch.cat([keys[rows], more[0]], 2))
    assert torch.equal(got[1], torch.cat([values[rows], more[1]], 2))


def test_a_cropped_cache_goes_on_from_there():
    cache = Cache()
    keys, values = made(9)
    extend(cache, keys, values, [9])
    cache.crop(4)
    assert cache.length == 4
    more = made(2, seed=1)
    assert torch.equal(cache[0].extend(*more)[0], torch.cat([keys[:, :, :4], more[0]], 2))


def test_a_cache_that_forgot_cannot_go_back():
    cache = Cache()
    extend(cache, *made(50), [50], window=6)
    with pytest.raises(AssertionError, match="forgotten"):
        cache.crop(10)


@pytest.mark.parametrize(
    "mask, wanted",
    [
        ([1, 1, 1, 1], [0, 1, 2, 3]),
        ([0, 0, 1, 1], [0, 0, 0, 1]),
        ([1, 1, 0, 0], [0, 1, 0, 0]),
        ([1, 0, 1, 1], [0, 0, 2, 3]),
        ([1, 1, 2, 2], [0, 1, 0, 1]),
        ([1, 2, 2, 0], [0, 0, 1, 0]),
        ([0, 1, 2, 3], [0, 0, 0, 0]),
    ],
    ids=str,
)
def test_positions_count_from_the_first_token_of_each_text(mask, wanted):
    attention_mask = torch.tensor([mask])
    assert Slots(attention_mask, attention_mask).positions.tolist() == [wanted]


@pytest.mark.parametrize(
    "mask, wanted",
    [
        ([0, 1, 1, 1], [1, 3, 3, 3]),
        ([1, 1, 1, 2], [3, 3, 3, 1]),
        ([1, 2, 2, 0], [1, 2, 2, 1]),
        ([3, 3, 0, 3], [4, 4, 1, 4]),
    ],
    ids=str,
)
def test_the_length_of_a_text_is_that_of_its_own_tokens(mask, wanted):
    attention_mask = torch.tensor([mask])
    assert Slots(attention_mask, attention_mask).lengths.tolist() == [wanted]


def test_positions_go_on_after_the_cache():
    cache, two = Cache(), torch.zeros(1, 2, dtype=torch.int64)
    cache[0].extend(*made(3))
    assert Slots(two, None, cache).positions.tolist() == [3, 4]
    assert Slots(two, torch.tensor([[0, 0, 1, 1, 1]]), cache).positions.tolist() == [[1, 2]]


def test_rows_that_join_are_padded_on_the_left_and_the_padding_goes_with_the_longest():
    cache, other = Cache(), Cache()
    (keys, values), (more, others) = made(5), made(3, seed=1)
    cache[0].extend(keys, values)
    other[0].extend(more, others)
    cache.join(other, torch.tensor([0, 2]))
    assert (cache.length, cache.padding.tolist()) == (5, [0, 2])
    assert torch.equal(cache[0].stored[0, 1:, :, 2:5], more)
    assert Slots(torch.zeros(2, 1, dtype=torch.int64), None, cache).positions.tolist() == [[5], [3]]
    assert Slots(torch.zeros(2, 1, dtype=torch.int64), None, cache).mask()[1].tolist() == [[[False] * 2 + [True] * 4]]
    assert cache.select(torch.tensor([1])) == 2
    assert (cache.length, cache.padding) == (3, None)
    assert torch.equal(cache[0].stored[0, :, :, :3], more)


def test_sliding_rows_that_join_keep_what_their_windows_see():
    cache, other = Cache(), Cache()
    (keys, values), (more, others) = made(50), made(4, seed=1)
    extend(cache, keys, values, [20, *[1] * 30], window=6)
    other[0].extend(more, others, 6)
    cache.join(other, torch.tensor([0, 46]))
    assert cache.length == 50
    held = cache[0].stored[0, :, :, : cache[0].held]
    assert torch.equal(held[0, :, -5:], keys[0, :, -5:])
    assert torch.equal(held[1, :, -4:], more[0])


@pytest.mark.parametrize("heads", [4, 2, 1])
@pytest.mark.parametrize("masked", [False, True])
def test_one_query_in_bfloat16_looks_where_it_does_in_float32(heads, masked):
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 4, 1, 8, generator=generator)
    k, v = (torch.randn(2, heads, 40, 8, generator=generator) for _ in "kv")
    mask = (torch.arange(40) < torch.tensor([[40], [11]]))[:, None, None] if masked else None
    got = attend(*(x.bfloat16() for x in (q, k, v)), mask)
    assert got.shape == q.shape
    torch.testing.assert_close(got.float(), attend(q, k, v, mask), atol=0.03, rtol=0.03)
