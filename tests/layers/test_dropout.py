"""Dropout that is fast on a CPU is still dropout."""

import pytest
import torch
import torch.nn.functional as F

from triarch.layers.dropout import Dropout, dropped_attention, kept


def ours_and_plain(p, mask=None, dtype=torch.float32):
    """dropped_attention, and the formula with the same draws, with the gradients of both; of a mask of numbers too."""
    torch.manual_seed(1)
    results = []
    q, k, v = (torch.randn(2, 3, 5, 4, dtype=dtype) for _ in range(3))
    for plain in (False, True):
        inputs = [x.clone().requires_grad_() for x in (q, k, v)]
        added = None if mask is None or mask.dtype == torch.bool else mask.clone().requires_grad_()
        torch.manual_seed(2)
        if plain:
            scores = inputs[0] @ inputs[1].transpose(-1, -2) / 2
            if added is not None:
                scores = scores + added
            elif mask is not None:
                scores = scores.masked_fill(~mask, float("-inf"))
            weights = scores.softmax(-1)
            y = (weights * kept(weights.shape, p) / (1 - p)) @ inputs[2]
        else:
            y = dropped_attention(*inputs, mask if added is None else added, p)
        (y * torch.arange(4)).sum().backward()
        results.append([y, *(x.grad for x in (*inputs, *([] if added is None else [added])))])
    return zip(*results, strict=True)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.015])
def test_the_share_dropped_is_p(p):
    torch.manual_seed(0)
    count = 1_000_000
    dropped = 1 - kept(torch.Size([1000, 1000]), p).double().mean().item()
    assert abs(dropped - p) < 5 * (p * (1 - p) / count) ** 0.5 + 1 / 65_536


def test_neighbours_are_dropped_independently():
    torch.manual_seed(0)
    mask = (~kept(torch.Size([1 << 20]), 0.5)).double()
    for distance in (1, 2, 3, 4, 8):
        both = (mask[:-distance] * mask[distance:]).mean().item()
        assert abs(both - 0.25) < 0.003


def test_what_is_kept_is_scaled_so_that_the_mean_stays():
    torch.manual_seed(0)
    layer = Dropout(0.25).train()
    y = layer(torch.ones(200, 200))
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert y.mean().item() == pytest.approx(1, abs=0.02)


def test_the_gradient_passes_where_the_value_did():
    torch.manual_seed(0)
    x = torch.randn(50, 50, requires_grad=True)
    y = Dropout(0.3).train()(x)
    y.sum().backward()
    assert torch.equal(x.grad != 0, y != 0)
    assert torch.equal(x.grad * x, y)


def test_nothing_is_dropped_in_eval_mode():
    x = torch.randn(5, 5)
    assert Dropout(0.9).eval()(x) is x


def test_the_seed_decides():
    layer, x = Dropout(0.5).train(), torch.ones(9)
    torch.manual_seed(3)
    first = layer(x)
    torch.manual_seed(3)
    assert torch.equal(first, layer(x))
    assert not torch.equal(first, layer(x))


def test_everything_may_be_dropped():
    assert torch.equal(Dropout(1.0).train()(torch.ones(7)), torch.zeros(7))


@pytest.mark.parametrize("masked", [False, True])
def test_attention_and_its_gradients_are_those_of_the_formula(masked):
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()[:, None, None] if masked else None
    for ours, plain in ours_and_plain(0.3, mask):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 3, 5, 5), (1, 3, 5, 5), (2, 1, 1, 5), (5, 5)], ids=str)
def test_what_is_added_to_scores_has_the_gradient_of_the_formula(shape):
    added = torch.randn(shape, generator=torch.Generator().manual_seed(4))
    for ours, plain in ours_and_plain(0.3, added):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


def test_the_scale_of_attention_can_be_another():
    torch.manual_seed(1)
    q, k, v = (torch.randn(2, 3, 5, 4) for _ in range(3))
    torch.testing.assert_close(
        dropped_attention(q, k, v, None, 0.0, scale=1.0), F.scaled_dot_product_attention(q, k, v, scale=1.0)
    )


def test_attention_without_chance_is_torchs():
    q, k, v = (torch.randn(2, 3, 5, 4) for _ in range(3))
    torch.testing.assert_close(dropped_attention(q, k, v, None, 0.0), F.scaled_dot_product_attention(q, k, v))


def test_attention_stays_in_the_dtype_it_is_given():
    for ours, plain in ours_and_plain(0.3, dtype=torch.bfloat16):
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours.float(), plain.float(), rtol=0.05, atol=0.1)


def test_autocast_does_not_change_the_dtype_within():
    with torch.autocast("cpu", torch.bfloat16):
        q = torch.randn(1, 2, 4, 8, dtype=torch.bfloat16)
        assert dropped_attention(q, q, q, None, 0.2).dtype == torch.bfloat16
