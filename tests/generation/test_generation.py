"""Greedy decoding and drawing, against the reference on tiny random models, and against themselves."""

import pytest
import torch
import transformers

import triarch
from triarch.generation import generate, stream
from triarch.kinds import NextWordScores
from triarch.models import family

PROMPTS = [[5, 17, 42, 8, 61], [9, 3], [77, 12, 30, 31, 32, 33, 90, 15]]


@pytest.fixture(scope="module", params=["gpt2", "llama", "mistral"])
def pair(request, tmp_path_factory):
    """The reference's model and ours, with the same weights and no end token. Mistral's window is of three tokens."""
    folder = tmp_path_factory.mktemp(request.param)
    kind = family(request.param)
    torch.manual_seed(0)
    raw = kind.tiny.to_hf() | {"model_type": request.param, "eos_token_id": None, "bos_token_id": None}
    head = next(name for name, made in kind.heads.items() if made.kind is NextWordScores)
    theirs = getattr(transformers, head)(transformers.AutoConfig.for_model(**raw)).eval()
    for tensor in theirs.parameters():
        torch.nn.init.normal_(tensor, std=0.5 if tensor.dim() == 1 else 0.2)
    theirs.save_pretrained(folder)
    return theirs, triarch.load(folder)


def reference(theirs, prompt, new, seed=0, **options):
    torch.manual_seed(seed)
    ids = torch.tensor([prompt])
    config = transformers.GenerationConfig(max_new_tokens=new, pad_token_id=0, **({"do_sample": False} | options))
    found = theirs.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return [row[len(prompt) :].tolist() for row in found]


GREEDY = [
    {},
    {"repetition_penalty": 1.7},
    {"no_repeat_ngram_size": 2},
    {"bad_words_ids": [[49], [23, 4], [53, 17]]},
    {"suppress_tokens": [3, 49, 22]},
    {"begin_suppress_tokens": [49, 22, 80]},
    {"forced_eos_token_id": 7},
    {"eos_token_id": [4, 49, 53, 60, 61, 62, 63], "min_new_tokens": 5},
    {"eos_token_id": [4, 49, 53, 60, 61, 62, 63], "min_length": 9},
    {"eos_token_id": 7, "exponential_decay_length_penalty": (3, 1.8)},
    {"eos_token_id": [4, 49, 53, 60, 61, 62, 63], "bad_words_ids": [[49], [53], [23]]},
    {"sequence_bias": [[[49], -10.0], [[53, 17], 30.0]]},
]


@pytest.mark.parametrize("options", GREEDY, ids=lambda options: " ".join(options) or "plain")
@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_greedy_tokens_equal_the_reference(pair, prompt, options):
    theirs, ours = pair
    (wanted,) = reference(theirs, prompt, 12, **options)
    assert generate(ours, prompt, max_new_tokens=12, **options).ids == wanted


@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_an_end_that_grows_likelier_still_comes_no_sooner_than_it_may(pair, prompt):
    """The reference adds to minus infinity, which makes it no number."""
    options = {"eos_token_id": [4, 49, 53], "min_new_tokens": 6, "exponential_decay_length_penalty": (2, 5.0)}
    assert len(generate(pair[1], prompt, max_new_tokens=12, **options).ids) == 7


DRAWN = [
    {},
    {"temperature": 0.6},
    {"top_k": 5},
    {"top_p": 0.7},
    {"min_p": 0.2},
    {"typical_p": 0.6},
    {"epsilon_cutoff": 0.01},
    {"eta_cutoff": 0.02},
    {"temperature": 1.4, "top_k": 40, "top_p": 0.9, "repetition_penalty": 1.2},
]


@pytest.mark.parametrize("options", DRAWN, ids=lambda options: " ".join(options) or "plain")
@pytest.mark.parametrize("seed", [0, 123])
def test_drawn_tokens_equal_the_reference(pair, options, seed):
    theirs, ours = pair
    (wanted,) = reference(theirs, PROMPTS[0], 12, seed, **{"do_sample": True, "top_k": 0} | options)
    assert generate(ours, PROMPTS[0], max_new_tokens=12, do_sample=True, seed=seed, **options).ids == wanted


@pytest.mark.parametrize(
    "options", [{}, {"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 2}, {"do_sample": True, "seed": 3}], ids=str
)
def test_a_batch_gives_what_each_prompt_gives_alone(pair, options):
    alone = [generate(pair[1], prompt, max_new_tokens=10, **options).ids for prompt in PROMPTS]
    assert [found.ids for found in generate(pair[1], PROMPTS, max_new_tokens=10, **options)] == alone


@pytest.mark.parametrize("options", [{"use_cache": False}, {"cache_room": 40}], ids=str)
def test_tokens_do_not_depend_on_the_cache(pair, options):
    wanted = [found.ids for found in generate(pair[1], PROMPTS, max_new_tokens=15)]
    assert [found.ids for found in generate(pair[1], PROMPTS, max_new_tokens=15, **options)] == wanted


def test_rows_that_end_early_do_not_change_the_others(pair):
    plain = [found.ids for found in generate(pair[1], PROMPTS, max_new_tokens=12)]
    ends = [plain[0][2], plain[2][5]]
    for found, ids in zip(generate(pair[1], PROMPTS, max_new_tokens=12, eos_token_id=ends), plain, strict=True):
        stop = next((i for i, token in enumerate(ids) if token in ends), None)
        assert found.ids == (ids if stop is None else ids[: stop + 1])
        assert found.finish_reason == ("length" if stop is None else "stop")


def test_streamed_tokens_are_those_of_generate(pair):
    wanted = generate(pair[1], PROMPTS[0], max_new_tokens=12, do_sample=True, seed=5).ids
    pieces = list(stream(pair[1], PROMPTS[0], max_new_tokens=12, do_sample=True, seed=5))
    assert [token for piece in pieces for token in piece.ids] == wanted
    assert [piece.finish_reason for piece in pieces] == [None] * 11 + ["length"]
