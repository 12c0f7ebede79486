"""Beam search and beam sampling, against the reference on a tiny random model, and against themselves."""

import itertools
import json

import pytest
import torch
import transformers

import triarch
from triarch.errors import InvalidInput
from triarch.generation import Prefix, generate, stream
from triarch.models import family
from writers import writer

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


CHANGES = [
    {"no_repeat_ngram_size": 2},
    {"forced_eos_token_id": 7},
    {"forced_eos_token_id": 12},
    {"min_length": 12},
    {"min_new_tokens": 9},
    {"repetition_penalty": 1.6},
    {"bad_words_ids": [[49], [23, 4], [53, 17]]},
    {"suppress_tokens": [3, 49, 22], "begin_suppress_tokens": [80]},
    {"exponential_decay_length_penalty": (3, 1.3)},
    {"sequence_bias": [[[49], -10.0], [[53, 17], 30.0]]},
    {"renormalize_logits": True, "repetition_penalty": 1.3},
]


@pytest.mark.parametrize("change", CHANGES, ids=" ".join)
@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_beams_equal_the_reference_whatever_changes_the_scores(pair, prompt, change):
    options = {"max_new_tokens": 12, "num_beams": 3, "num_return_sequences": 2, "eos_token_id": ENDS}
    assert_equal(pair, prompt, length_penalty=0.0, **options, **change)


@pytest.mark.parametrize("seed", [0, 123])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"temperature": 0.6},
        {"top_k": 5},
        {"top_p": 0.7},
        {"min_p": 0.05},
        {"temperature": 1.4, "top_k": 40, "repetition_penalty": 1.2},
        {"no_repeat_ngram_size": 2, "length_penalty": 0.0},
    ],
    ids=lambda change: " ".join(change) or "plain",
)
def test_drawn_beams_equal_the_reference(pair, change, seed):
    options = {"max_new_tokens": 12, "num_beams": 3, "num_return_sequences": 3, "eos_token_id": ENDS[:2]}
    theirs, ours = pair
    ids, scores = reference(theirs, PROMPTS[0], seed, **{"do_sample": True, "top_k": 0} | options | change)
    found = generate(ours, PROMPTS[0], do_sample=True, seed=seed, **options, **change)
    assert [one.ids for one in found] == ids
    assert [one.score for one in found] == pytest.approx(scores, rel=1e-5)


# Against themselves

ENDING = {"eos_token_id": ENDS, "length_penalty": 0.0}  # short sequences are not at a disadvantage


@pytest.mark.parametrize("drawn", [{}, {"do_sample": True, "seed": 5}], ids=["likeliest", "drawn"])
@pytest.mark.parametrize("change", [{}, {"repetition_penalty": 1.5}, {"early_stopping": True}], ids=str)
def test_a_batch_gives_what_each_prompt_gives_alone(pair, drawn, change):
    """Whose beams are done at different times."""
    options = ENDING | {"max_new_tokens": 12, "num_beams": 4, "num_return_sequences": 3, **drawn, **change}
    alone = [generate(pair[1], prompt, **options) for prompt in PROMPTS]
    for found, wanted in zip(generate(pair[1], PROMPTS, **options), alone, strict=True):
        assert [one.ids for one in found] == [one.ids for one in wanted]
        assert [one.score for one in found] == pytest.approx([one.score for one in wanted], abs=1e-5)
        assert [one.finish_reason for one in found] == [one.finish_reason for one in wanted]


def test_each_prompt_draws_its_beams_from_a_seed_of_its_own(pair):
    options = {"max_new_tokens": 12, "num_beams": 3, "do_sample": True}
    alone = [
        generate(pair[1], prompt, seed=seed, **options).ids for prompt, seed in zip(PROMPTS, (7, 3, 7), strict=True)
    ]
    found = generate(pair[1], PROMPTS, seed=[7, 3, 7], **options)
    assert [one.ids for one in found] == alone
    assert [one.seed for one in found] == [7, 3, 7]
    with pytest.raises(InvalidInput, match="2 seeds, wanted 3; give 1 for each prompt"):
        generate(pair[1], PROMPTS, seed=[7, 3], **options)


def test_drawn_beams_can_be_drawn_again_from_their_seed(pair):
    options = {"max_new_tokens": 12, "num_beams": 3, "do_sample": True, "num_return_sequences": 2}
    found = generate(pair[1], PROMPTS[0], **options)
    assert found[0].seed == found[1].seed
    again = generate(pair[1], PROMPTS[0], seed=found[0].seed, **options)
    assert [one.ids for one in again] == [one.ids for one in found]


@pytest.mark.parametrize("options", [{"use_cache": False}, {"cache_room": 40}], ids=str)
def test_beams_do_not_depend_on_the_cache(pair, options):
    shared = ENDING | {"max_new_tokens": 12, "num_beams": 4}
    wanted = [one.ids for one in generate(pair[1], PROMPTS, **shared)]
    assert [one.ids for one in generate(pair[1], PROMPTS, **shared, **options)] == wanted


def test_beams_go_on_from_a_prefix(pair):
    prefix = Prefix()
    generate(pair[1], PROMPTS[2], max_new_tokens=4, num_beams=3, prefix=prefix)
    wanted = generate(pair[1], PROMPTS[2], max_new_tokens=9, num_beams=3)
    assert generate(pair[1], PROMPTS[2], max_new_tokens=9, num_beams=3, prefix=prefix).ids == wanted.ids
    assert prefix.reused == len(PROMPTS[2]) - 1


def test_returned_sequences_differ_and_the_best_comes_first(pair):
    found = generate(pair[1], PROMPTS[0], max_new_tokens=8, num_beams=6, num_return_sequences=6)
    assert len({tuple(one.ids) for one in found}) == 6
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    first = generate(pair[1], PROMPTS[0], max_new_tokens=8, num_beams=6)
    assert (first.ids, first.score) == (found[0].ids, found[0].score)


def test_as_many_beams_as_sequences_find_the_likeliest_of_all(pair):
    tokens, new = [5, 49, 60], 4
    found = generate(
        pair[1],
        PROMPTS[0],
        max_new_tokens=new,
        num_beams=len(tokens) ** new,
        num_return_sequences=9,
        prefix_allowed_tokens_fn=lambda _, ids: tokens,
        length_penalty=0.0,
    )
    every = [list(ids) for ids in itertools.product(tokens, repeat=new)]
    with torch.no_grad():
        logs = pair[1](torch.tensor([PROMPTS[0] + ids for ids in every])).logits.log_softmax(-1)[:, -new - 1 : -1]
    best = logs.gather(-1, torch.tensor(every)[..., None]).sum((1, 2)).topk(9)
    assert [one.ids for one in found] == [every[i] for i in best.indices]
    assert [one.score for one in found] == pytest.approx(best.values.tolist(), abs=1e-4)


@pytest.mark.parametrize("drawn", [{}, {"do_sample": True, "seed": 5, "temperature": 0.7}], ids=["likeliest", "drawn"])
def test_log_probabilities_are_those_of_the_model(pair, drawn):
    options = ENDING | {"max_new_tokens": 10, "num_beams": 4, "num_return_sequences": 4, **drawn}
    lengths = set()
    for prompt, group in zip(PROMPTS, generate(pair[1], PROMPTS, logprobs=2, **options), strict=True):
        for found in group:
            with torch.no_grad():
                logs = pair[1](torch.tensor([prompt + found.ids])).logits[0].log_softmax(-1)[len(prompt) - 1 : -1]
            wanted = [float(row[token]) for row, token in zip(logs, found.ids, strict=True)]
            assert found.logprobs == pytest.approx(wanted, abs=1e-4)
            assert [[token for token, _ in row] for row in found.alternatives] == logs.topk(2).indices.tolist()
            if not drawn:
                assert found.score == pytest.approx(sum(wanted), abs=1e-4)
            lengths.add(len(wanted))
    assert len(lengths) > 1


def test_time_ends_beams_with_the_best_there_are(pair):
    found = generate(pair[1], PROMPTS, num_beams=3, num_return_sequences=2, max_time=1e-9)
    for group, prompt in zip(found, PROMPTS, strict=True):
        assert [(len(one.ids), one.finish_reason) for one in group] == [(1, "time")] * 2
        with torch.no_grad():
            logs = pair[1](torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
        assert [one.ids[0] for one in group] == logs.topk(2).indices.tolist()


def test_beams_can_be_cancelled_between_tokens(pair):
    asked = iter([False, False, True])
    found = generate(pair[1], PROMPTS[0], num_beams=3, num_return_sequences=3, cancelled=lambda: next(asked))
    assert [(len(one.ids), one.finish_reason) for one in found] == [(3, "cancelled")] * 3
    wanted = generate(pair[1], PROMPTS[0], num_beams=3, num_return_sequences=3, max_new_tokens=3)
    assert [one.ids for one in found] == [one.ids for one in wanted]


def test_what_ended_before_a_call_was_cancelled_says_why(pair):
    asked = iter([False, False, True])
    options = ENDING | {"num_beams": 4, "num_return_sequences": 4, "max_new_tokens": 12}
    found = generate(pair[1], PROMPTS[0], cancelled=lambda: next(asked), **options)
    assert {one.finish_reason for one in found} == {"stop", "cancelled"}
    for one in found:
        assert (one.finish_reason == "stop") == (one.ids[-1] in ENDS)


def test_beams_are_not_streamed(pair):
    with pytest.raises(InvalidInput, match="beams are decided at the end and cannot be streamed; leave num_beams out"):
        stream(pair[1], PROMPTS[0], num_beams=2)


def test_options_that_leave_fewer_sequences_than_asked_are_refused(pair):
    with pytest.raises(InvalidInput, match="the options leave 1 sequences to prompt 0, wanted 2; allow more"):
        generate(
            pair[1],
            PROMPTS[0],
            num_beams=2,
            num_return_sequences=2,
            max_new_tokens=3,
            prefix_allowed_tokens_fn=lambda _, ids: [7],
        )


# Texts


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """With a byte-level vocabulary."""
    return writer(tmp_path_factory.mktemp("writer"))


@pytest.mark.parametrize("drawn", [{}, {"do_sample": True, "seed": 5}], ids=["likeliest", "drawn"])
@pytest.mark.parametrize("include", [False, True])
def test_a_beam_ends_with_a_stop_text(model, drawn, include):
    options = {"max_new_tokens": 14, "num_beams": 3, "num_return_sequences": 3, **drawn}
    stop = generate(model, "The fox", **options)[0].text[4:7]
    stopped = [
        one
        for one in generate(model, "The fox", stop=stop, include_stop=include, **options)
        if one.finish_reason == "stop"
    ]
    assert stopped
    for one in stopped:
        assert stop in model.processor.decode(one.ids)
        assert stop not in model.processor.decode(one.ids[:-1])
        assert one.text.endswith(stop) if include else stop not in one.text


@pytest.mark.parametrize("drawn", [{}, {"do_sample": True, "seed": 5}], ids=["likeliest", "drawn"])
@pytest.mark.parametrize("ends", [True, False])
def test_beams_keep_to_a_form(tmp_path, drawn, ends):
    """Whether or not a token says where a text ends."""
    model = writer(tmp_path, ends=ends)
    options = {"num_beams": 3, "num_return_sequences": 3, "max_new_tokens": 60, **drawn}
    texts = ["yes", "no", "never", "nobody"]
    found = generate(model, "The fox", choice=texts, **options)
    assert {one.text for one in found} <= set(texts)
    assert len({tuple(one.ids) for one in found}) == 3
    schema = {
        "type": "object",
        "properties": {"a": {"enum": [1, 2, 30]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    for one in generate(model, "The fox", json_schema=schema, **options):
        assert one.finish_reason == "stop"
        assert json.loads(one.text)["a"] in (1, 2, 30)


@pytest.mark.parametrize("drawn", [{}, {"do_sample": True, "seed": 5}], ids=["likeliest", "drawn"])
def test_beams_that_are_left_no_token_do_not_stand_in_the_way_of_others(model, drawn):
    def allowed(_, ids):
        return [7, 8, 9] if len(ids) == 3 else [10] if ids[-1] in (7, 10) else [11, 12]

    options = {"max_new_tokens": 4, "num_beams": 3, "renormalize_logits": True, "suppress_tokens": [11, 12], **drawn}
    found = generate(model, [5, 6, 7], prefix_allowed_tokens_fn=allowed, logit_bias={7: -9.0, 10: 5.0}, **options)
    assert found.ids == [7, 10, 10, 10]
