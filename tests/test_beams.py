"""Beam search and beam sampling, against the reference on a tiny random model, and against themselves."""

import pytest
import torch
import transformers

import triarch
from triarch.generation import generate
from triarch.models import family

PROMPTS = [[5, 17, 42, 8, 61], [9, 3], [77, 12, 30, 31, 32, 33, 90, 15]]
ENDS = [4, 12, 22, 31, 45, 49, 53, 60, 71, 80]  # so many that sequences of every length come to an end


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The reference's model and ours, with the same weights and no end token."""
    folder = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(0)
    raw = family("gpt2").tiny.to_hf() | {"eos_token_id": None, "bos_token_id": None}
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**raw)).eval()
    for tensor in theirs.parameters():
        torch.nn.init.normal_(tensor, std=0.5 if tensor.dim() == 1 else 0.2)
    theirs.save_pretrained(folder)
    return theirs, triarch.load(folder)


def reference(theirs, prompt, seed=0, **options):
    """Tokens and score of each sequence, without what pads them."""
    torch.manual_seed(seed)
    ids = torch.tensor([prompt])
    config = transformers.GenerationConfig(
        pad_token_id=0, return_dict_in_generate=True, output_scores=True, **({"do_sample": False} | options)
    )
    found = theirs.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    sequences = [row[len(prompt) :].tolist() for row in found.sequences]
    lengths = (found.beam_indices >= 0).sum(1).tolist()
    return [ids[:length] for ids, length in zip(sequences, lengths, strict=True)], found.sequences_scores.tolist()


def assert_equal(pair, prompt, **options):
    theirs, ours = pair
    ids, scores = reference(theirs, prompt, options.pop("seed", 0), **options)
    seed = {"seed": 0} if options.get("do_sample") else {}
    found = generate(ours, prompt, **options, **seed)
    found = found if isinstance(found, list) else [found]
    assert [one.ids for one in found] == ids
    assert [one.score for one in found] == pytest.approx(scores, rel=1e-5)


@pytest.mark.parametrize("early", [True, False, "never"])
@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0, 2.0, -0.5])
@pytest.mark.parametrize("num_beams", [2, 4, 5])
def test_beams_equal_the_reference(pair, num_beams, penalty, early):
    for prompt in PROMPTS:
        assert_equal(
            pair,
            prompt,
            max_new_tokens=12,
            num_beams=num_beams,
            num_return_sequences=num_beams,
            length_penalty=penalty,
            early_stopping=early,
            eos_token_id=ENDS,
        )
