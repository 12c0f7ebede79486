"""The cache of keys and values: what it gives back, how it grows, what it forgets."""

import pytest
import torch

from triarch.errors import LimitExceeded
from triarch.layers.attention import attend
from triarch.layers.cache import STEP, Cache, lengths_of, positions_of


def made(tokens, batch=1, seed=0):
    """Keys and values (B, K, T, E)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, batch, 2, tokens, 3, generator=generator).unbind()


def extend(cache, keys, values, sizes, window=None):
    """Add the tokens in pieces of those sizes, and return what the last one gave."""
    found = None
    for k, v in zip(keys.split(sizes, 2), values.split(sizes, 2), strict=True):
        cache.advance(k.shape[2])
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
    cache.advance(3)
    with pytest.raises(LimitExceeded, match="5 tokens, but the cache has room for 4"):
        cache.advance(2)
    cache.advance(1)
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
    cache.advance(2)
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
    assert positions_of(4, None, torch.tensor([mask]), torch.device("cpu")).tolist() == [wanted]


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
    assert lengths_of(positions_of(4, None, attention_mask, attention_mask.device), attention_mask).tolist() == [wanted]


def test_positions_go_on_after_the_cache():
    cache = Cache()
    cache.advance(3)
    device = torch.device("cpu")
    assert positions_of(2, cache, None, device).tolist() == [3, 4]
    assert positions_of(2, cache, torch.tensor([[0, 0, 1, 1, 1]]), device).tolist() == [[1, 2]]


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
