"""Requests that share forward passes: who joins when changes no token, and what goes wrong with one ends that one."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from triarch.errors import InvalidInput
from triarch.generation import generate
from triarch.generation.call import requests_of
from triarch.generation.filters import NotFinite
from triarch.generation.settings import make
from triarch.generation.step import Batch
from triarch.models import family

PROMPTS = [[5, 17, 42, 8, 61], [9, 3], [77, 12, 30, 31, 32, 33, 90, 15], [21], [6, 6, 7]]
WRITERS = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "bart": "BartForConditionalGeneration",
    "t5": "T5ForConditionalGeneration",
    "marian": "MarianMTModel",
}
SEARCHES = [
    {},
    {"do_sample": True, "seed": 3},
    {"do_sample": True, "seed": 5, "num_return_sequences": 2, "top_k": 9},
    {"repetition_penalty": 1.6, "no_repeat_ngram_size": 2},
    {"num_beams": 3},
    {"penalty_alpha": 0.6, "top_k": 3},
    {"guidance_scale": 1.7},
]


@pytest.fixture(scope="module", params=WRITERS)
def model(request):
    torch.manual_seed(0)
    kind = family(request.param)
    made = kind.build(kind.tiny, WRITERS[request.param]).eval()
    for tensor in made.parameters():
        torch.nn.init.normal_(tensor, std=0.5 if tensor.dim() == 1 else 0.2)
    return made


def request(model, prompt, **options):
    (one,) = requests_of(model, prompt, make(model, {"max_new_tokens": 7, "ignore_eos": True} | options))
    return one


def alone(model, prompt, **options):
    found = generate(model, prompt, **({"max_new_tokens": 7, "ignore_eos": True} | options))
    return [one.ids for one in (found if isinstance(found, list) else [found])]


@pytest.mark.parametrize("options", SEARCHES[:3], ids=str)
def test_whenever_a_request_joins_it_gets_the_tokens_that_it_gets_alone(model, options):
    wanted = [alone(model, prompt, **options) for prompt in PROMPTS]
    for order in range(8):
        rng = random.Random(order)
        batch, asked = Batch(model), [request(model, prompt, **options) for prompt in PROMPTS]
        waiting = rng.sample(asked, len(asked))
        while waiting or batch.requests:
            for _ in range(rng.randint(0, 2)):
                if waiting:
                    batch.join(waiting.pop())
            batch.step()
        assert [[row.ids for row in one.rows] for one in asked] == wanted


def test_requests_with_searches_of_their_own_share_a_batch(model):
    pairs = [(prompt, options) for prompt in PROMPTS[:3] for options in SEARCHES]
    batch, asked = Batch(model), [request(model, prompt, **options) for prompt, options in pairs]
    for one in asked:
        batch.join(one)
        batch.step()
    while batch.requests:
        batch.step()
    for (prompt, options), one in zip(pairs, asked, strict=True):
        assert [row.ids for row in one.rows] == alone(model, prompt, **options)


@pytest.fixture(scope="module")
def gpt2():
    torch.manual_seed(0)
    return family("gpt2").build(family("gpt2").tiny, "GPT2LMHeadModel").eval()


def run(model, asked):
    batch = Batch(model)
    for one in asked:
        batch.join(one)
    while batch.requests:
        batch.step()


def test_a_filter_that_raises_ends_its_request_alone(gpt2):
    def allowed(_, ids):
        if len(ids) > 6:
            raise InvalidInput("not this one")
        return range(99)

    good, bad = request(gpt2, [5, 6]), request(gpt2, [5, 6, 7, 8], prefix_allowed_tokens_fn=allowed)
    run(gpt2, [bad, good])
    assert isinstance(bad.error, InvalidInput)
    assert good.error is None
    assert [row.ids for row in good.rows] == alone(gpt2, [5, 6])


def test_scores_that_are_no_numbers_end_their_request_alone(gpt2):
    good, bad = request(gpt2, [5, 6]), request(gpt2, [5, 6, 7])
    hook = gpt2.norm.register_forward_hook(
        lambda module, _, x: torch.cat([x[:1] * float("nan"), x[1:]]) if len(x) > 1 else x
    )
    run(gpt2, [bad, good])
    hook.remove()
    assert isinstance(bad.error, NotFinite)
    assert [row.ids for row in good.rows] == alone(gpt2, [5, 6])


def test_a_request_is_cancelled_or_late_alone(gpt2):
    asked = iter([False, False, True])
    good, late = request(gpt2, [5, 6]), request(gpt2, [5, 6, 7])
    (cancelled,) = requests_of(
        gpt2, [8], make(gpt2, {"max_new_tokens": 7, "ignore_eos": True}), cancelled=lambda: next(asked)
    )
    late.seconds = 0.0
    run(gpt2, [late, cancelled, good])
    assert [(len(one.rows[0].ids), one.rows[0].reason) for one in (late, cancelled)] == [(1, "time"), (3, "cancelled")]
    assert [row.ids for row in good.rows] == alone(gpt2, [5, 6])


def test_a_request_that_leaves_changes_nothing_for_the_others(gpt2):
    batch, gone, good = Batch(gpt2), request(gpt2, PROMPTS[2]), request(gpt2, [5, 6])
    batch.join(gone)
    batch.join(good)
    batch.step()
    batch.step()
    batch.leave(gone)
    while batch.requests:
        batch.step()
    assert len(gone.rows[0].ids) == 2
    assert [row.ids for row in good.rows] == alone(gpt2, [5, 6])


def test_columns_that_are_padding_for_all_rows_are_cut(gpt2):
    batch, long, short = Batch(gpt2), request(gpt2, [7] * 30, max_new_tokens=2), request(gpt2, [5, 6])
    batch.join(long)
    batch.join(short)
    while batch.requests:
        batch.step()
    assert batch.decoder.cache.padding is None
    assert batch.decoder.length == 2 + 7 - 1


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "seed": 3}, {"num_beams": 3}], ids=str)
def test_threads_that_share_a_model_get_what_each_gets_alone(gpt2, options):
    wanted = [alone(gpt2, prompt, **options) for prompt in PROMPTS]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda prompt: alone(gpt2, prompt, **options), PROMPTS * 8))
    assert found == wanted * 8
