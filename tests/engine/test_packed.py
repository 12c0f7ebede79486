"""Packed linear layers: the same answers, the same saved bits, and a fall-back."""

import pytest
import torch

import triarch
from triarch.engine import packed
from triarch.generation import generate
from triarch.models import family

PROMPTS = [[5, 17, 42, 8, 61], [9, 3]]


def model(dtype=torch.float32):
    torch.manual_seed(0)
    return family("gpt2").build(family("gpt2").tiny, "GPT2LMHeadModel").to(dtype)


@pytest.fixture
def supported():
    if not packed.can_pack(torch.float32, "cpu"):
        pytest.fail("this torch has no packed linears; the pinned one does")


def test_logits_are_the_same_to_rounding(supported):
    plain, made = model(), model()
    assert packed.pack(made) == 2 * 4 + 1
    ids = torch.randint(5, 99, (3, 9))
    with torch.inference_mode():
        torch.testing.assert_close(made(ids).logits, plain(ids).logits, atol=1e-4, rtol=1e-4)


def test_generated_tokens_are_the_same(supported):
    plain, made = model(), model()
    packed.pack(made)
    for options in ({}, {"do_sample": True, "seed": 1}):
        wanted = [found.ids for found in generate(plain, PROMPTS, max_new_tokens=20, **options)]
        assert [found.ids for found in generate(made, PROMPTS, max_new_tokens=20, **options)] == wanted


def test_what_is_saved_is_the_same_to_the_bit(supported, tmp_path):
    plain, made = model(), model()
    packed.pack(made)
    triarch.save(plain, tmp_path / "plain")
    triarch.save(made, tmp_path / "packed")
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "packed")]
    assert files[0] == files[1]


def test_a_head_that_shares_the_embedding_leaves_it_plain(supported):
    made = model()
    packed.pack(made)
    assert not made.token.weight.is_mkldnn
    assert "head.out.weight" not in dict(made.named_parameters())


def test_layers_stay_as_they_are_where_the_operators_are_missing(monkeypatch):
    packed.can_pack.cache_clear()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    made = model()
    assert packed.pack(made) == 0
    assert type(made.head.out) is torch.nn.Linear
    packed.can_pack.cache_clear()


def test_types_without_operators_stay_as_they_are():
    assert packed.pack(model(torch.float16)) == 0
