"""How likely continuations are: against the model's own scores, together and alone, each prompt read once."""

from dataclasses import replace

import pytest
import torch

import tiny
import triarch
from triarch.errors import InvalidInput, LimitExceeded, Unsupported
from triarch.generation import score
from triarch.generation.scoring import score_ids, split
from triarch.models import family

PROMPTS = [[5, 17, 42, 8, 61], [9, 3], [77, 12, 30, 31, 32, 33, 90, 15]]
CONTINUATIONS = [[[4], [6, 7, 8], [9, 10]], [[1, 2]], [[11, 12, 13, 14, 15, 16, 17], [11]]]


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def model(request):
    torch.manual_seed(0)
    kind = family(request.param)
    made = kind.build(kind.tiny, next(name for name in kind.heads if "LM" in name))
    for tensor in made.parameters():
        torch.nn.init.normal_(tensor, std=0.5 if tensor.dim() == 1 else 0.2)
    return made


def directly(model, prompt, text):
    """One whole sequence, without a cache and without others."""
    with torch.no_grad():
        logs = model(torch.tensor([[*prompt, *text]])).logits[0].log_softmax(-1)
    return [logs[len(prompt) - 1 + i, token].item() for i, token in enumerate(text)]


def test_each_token_has_the_log_probability_that_the_model_gives_it(model):
    found = score_ids(model, PROMPTS, CONTINUATIONS)
    for prompt, texts, likelihoods in zip(PROMPTS, CONTINUATIONS, found, strict=True):
        for text, likelihood in zip(texts, likelihoods, strict=True):
            assert likelihood.ids == text
            assert likelihood.logprobs == pytest.approx(directly(model, prompt, text), abs=1e-4)


def test_scores_do_not_depend_on_what_fits_at_once(model, monkeypatch):
    def flat():
        return [one.logprobs for texts in score_ids(model, PROMPTS, CONTINUATIONS) for one in texts]

    whole = flat()
    monkeypatch.setattr("triarch.generation.scoring.ROW_TOKENS", 16)
    assert flat() == [pytest.approx(one, abs=1e-4) for one in whole]


def test_a_long_prompt_with_a_short_continuation_fits_beside_a_short_one_with_a_long_one(model):
    prompts, texts = [[5] * 60, [7] * 3], [[[4, 6]], [[8] * 30]]
    for prompt, found in zip(prompts, score_ids(model, prompts, texts), strict=True):
        assert found[0].logprobs == pytest.approx(directly(model, prompt, found[0].ids), abs=1e-4)


def test_a_longer_continuation_does_not_stretch_the_positions_of_a_shorter_one():
    torch.manual_seed(0)
    config = replace(family("llama").tiny, max_positions=8, rope_scaling={"rope_type": "dynamic", "factor": 4.0})
    model = family("llama").build(config, "LlamaForCausalLM")
    for tensor in model.parameters():
        torch.nn.init.normal_(tensor, std=0.5)
    (alone,) = score(model, [5, 6, 7], [[9, 10, 11]])
    together = score(model, [5, 6, 7], [[9, 10, 11], [12] * 20])
    assert together[0].logprobs == pytest.approx(alone.logprobs, abs=1e-5)


def test_a_prompt_is_read_once_for_all_of_its_continuations(model, monkeypatch):
    widths, features = [], type(model).features
    monkeypatch.setattr(
        type(model),
        "features",
        lambda self, ids, *a, **k: [widths.append(ids.shape[1]), features(self, ids, *a, **k)][1],
    )
    score(model, PROMPTS[0], [[4], [6, 7, 8], [9, 10]])
    assert widths == [5, 2]


def test_total_and_mean_are_of_the_tokens(model):
    (found,) = score(model, PROMPTS[0], [[6, 7, 8]])
    assert found.total == pytest.approx(sum(found.logprobs))
    assert found.mean == pytest.approx(found.total / 3)


@pytest.mark.parametrize("prompt, texts", [("Paris is", [" the", " London"]), ("Paris is ", ["the", "London"])])
def test_a_space_may_stand_at_the_end_of_the_prompt_or_at_the_beginning_of_the_text(prompt, texts):
    model = tiny.load("gpt2")
    ids, rest = split(model, prompt, texts)
    assert ids == model.processor.encode("Paris is").ids
    assert [model.processor.decode(one) for one in rest] == [" the", " London"]
    assert [one.ids for one in score(model, prompt, texts)] == rest


def test_probabilities_of_all_next_tokens_add_up_to_one(model):
    found = score(model, PROMPTS[1], [[token] for token in range(model.config.vocab_size)])
    assert sum(torch.tensor(one.total).exp().item() for one in found) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    "prompt, texts, error, message",
    [
        ([], [[1]], InvalidInput, "prompt 0 is empty"),
        ([1], [[]], InvalidInput, "a continuation is empty"),
        ([1], [[999]], InvalidInput, "has the id 999"),
        ([1] * 60, [[1] * 9_999], LimitExceeded, "prompt and continuation have 10,059 tokens"),
    ],
)
def test_what_cannot_be_scored_is_refused(model, prompt, texts, error, message):
    with pytest.raises(error, match=message):
        score(model, prompt, texts)


def test_a_text_needs_a_tokenizer(model):
    with pytest.raises(InvalidInput, match="the checkpoint has no tokenizer"):
        score(model, "Paris", [" is"])


def test_a_model_of_other_scores_is_refused():
    with pytest.raises(Unsupported, match="BertForMaskedLM does not score next words"):
        score(tiny.load("bert-words"), [1], [[2]])


def test_scores_that_are_not_numbers_are_refused():
    model = family("gpt2").build(family("gpt2").tiny, "GPT2LMHeadModel")
    torch.nn.init.constant_(model.norm.weight, float("nan"))
    with pytest.raises(triarch.TriarchError, match="not finite"):
        score(model, [1], [[2]])
