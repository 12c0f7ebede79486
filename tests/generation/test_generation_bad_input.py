"""What a call of generate() may not be: refused by type, in one line, before the model runs wherever that can be known.

And what its options promise: stops, streams, log-probabilities, biases, penalties, seeds, time.
"""

import json
import math

import pytest
import torch

import triarch
from triarch import limits
from triarch.errors import CorruptFile, InvalidInput, LimitExceeded, TriarchError, Unsupported
from triarch.generation import generate, stream
from triarch.generation.filters import NotFinite
from writers import writer

PROMPT = [5, 17, 42, 8, 61]
CONTEXT = 256
VOCABULARY = 424


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return writer(tmp_path_factory.mktemp("model"), ends=False)


@pytest.fixture
def unfed(model, monkeypatch):
    """Fails if the model runs."""

    def features(*args, **kwargs):
        raise AssertionError("the model ran")

    monkeypatch.setattr(model, "features", features)
    return model


def refused(model, message, inputs=PROMPT, kind=InvalidInput, **options):
    for call in (generate, stream):  # a stream says what is wrong with the call at once
        if call is stream and options.get("num_beams") in range(2, 257):
            continue
        with pytest.raises(kind, match=message) as caught:
            call(model, inputs, **options)
        assert isinstance(caught.value, TriarchError)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300


# Prompts

PROMPTS = {
    "empty text": ("", "prompt 0 is empty"),
    "empty ids": ([], r"inputs are \[\], wanted a text, ids"),
    "empty among several": ([[5], []], "prompt 1 is empty"),
    "empty text among several": (["a", ""], "prompt 1 is empty"),
    "no prompts": ([[]], "prompt 0 is empty"),
    "nothing": (None, "inputs are None, wanted a text, ids"),
    "empty tensor": (torch.zeros(0, dtype=torch.int64), "prompt 0 is empty"),
    "tensor of no rows": (torch.zeros(0, 4, dtype=torch.int64), "there is no prompt"),
    "scalar tensor": (torch.tensor(5), r"ids have the shape \[\]"),
    "3-D tensor": (torch.zeros(1, 2, 3, dtype=torch.int64), r"ids have the shape \[1, 2, 3\]"),
    "float tensor": (torch.ones(3), r"prompt 0 has the id 1.0, wanted 0 to 423"),
    "bool tensor": (torch.ones(3, dtype=torch.bool), "prompt 0 has the id True"),
    "all masked": (
        {"input_ids": torch.tensor([[5, 6]]), "attention_mask": torch.tensor([[0, 0]])},
        "prompt 0 is empty",
    ),
    "mask of another shape": (
        {"input_ids": torch.tensor([[5, 6]]), "attention_mask": torch.tensor([[1]])},
        "input_ids and attention_mask are not two tensors of the same shape",
    ),
    "mask without ids": ({"attention_mask": torch.tensor([[1]])}, "are not two tensors"),
    "mask of a list": ({"input_ids": [[5, 6]], "attention_mask": [[1, 0]]}, "are not two tensors"),
    "unknown key": (
        {"input_ids": torch.tensor([[5]]), "token_type_ids": torch.tensor([[0]])},
        "inputs hold token_type_ids, wanted input_ids and attention_mask",
    ),
    "id -1": ([5, -1], "prompt 0 has the id -1, wanted 0 to 423"),
    "id of the vocabulary's size": ([5, VOCABULARY], "prompt 0 has the id 424"),
    "id 2^31": ([[5], [2**31]], "prompt 1 has the id 2147483648"),
    "id 2^63": ([2**63], "prompt 0 has the id"),
    "float": ([[5, 1.5]], "prompt 0 has the id 1.5"),
    "bool": ([[5, True]], "prompt 0 has the id True"),
    "number": (5, "inputs are 5, wanted a text"),
    "bytes": (b"abc", "inputs are b'abc', wanted a text"),
    "mixed": (["a", [5]], "wanted a text, ids, or a list of either"),
    "half a surrogate": ("a\ud800", "lone surrogate"),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_a_prompt_that_cannot_be_read_is_refused(unfed, name):
    inputs, message = PROMPTS[name]
    refused(unfed, message, inputs)


def test_a_prompt_as_long_as_the_context_is_refused_and_one_shorter_gets_one_token(model, unfed_calls):
    with pytest.raises(LimitExceeded, match="prompt 0 has 256 tokens, the model takes 256 with what it generates"):
        generate(model, [5] * CONTEXT)
    with pytest.raises(LimitExceeded, match="prompt 1 has 300 tokens"):
        generate(model, [[5], [5] * 300])
    assert not unfed_calls
    found = generate(model, [5] * (CONTEXT - 1))
    assert (len(found.ids), found.finish_reason) == (1, "length")


def test_what_is_asked_for_beside_the_prompt_must_fit(model, unfed_calls):
    with pytest.raises(
        LimitExceeded, match="prompt 0 has 5 tokens and 252 are to follow, the model takes 256 together"
    ):
        generate(model, PROMPT, max_new_tokens=252)
    with pytest.raises(LimitExceeded, match="prompt 0 has 5 tokens and max_length is 5"):
        generate(model, PROMPT, max_length=5)
    with pytest.raises(LimitExceeded, match="takes 14 tokens of cache, cache_room is 13"):
        generate(model, PROMPT, max_new_tokens=10, cache_room=13)
    assert not unfed_calls
    assert len(generate(model, PROMPT, max_new_tokens=251).ids) == 251
    assert len(generate(model, PROMPT, max_length=6).ids) == 1
    assert len(generate(model, PROMPT, max_new_tokens=10, cache_room=14).ids) == 10


@pytest.fixture
def unfed_calls(model, monkeypatch):
    """A list that grows with each pass of the model."""
    calls: list[int] = []
    plain = model.features

    def features(input_ids, *args, **kwargs):
        calls.append(input_ids.shape[1])
        return plain(input_ids, *args, **kwargs)

    monkeypatch.setattr(model, "features", features)
    return calls


# Options

NAN, INF = math.nan, math.inf
OPTIONS = [
    *[({"max_new_tokens": value}, "max_new_tokens is") for value in (0, -1, 10**12, 1.5, "5", True, 2**63, [])],
    *[({"max_length": value}, "max_length is") for value in (0, -1, 10**12, 1.5)],
    *[({"min_new_tokens": value}, "min_new_tokens is") for value in (-1, 1e308)],
    *[
        ({"temperature": value, "do_sample": True}, "temperature is")
        for value in (NAN, INF, -INF, -1, -0.5, 1e30, "1", True, [])
    ],
    *[({"top_p": value, "do_sample": True}, "top_p is") for value in (0, 0.0, -0.1, 1.1, NAN, INF, "1", True)],
    *[({"top_k": value, "do_sample": True}, "top_k is") for value in (-1, 10**9, 1.0, True)],
    *[({"min_p": value, "do_sample": True}, "min_p is") for value in (-1, 1.1, NAN)],
    *[({"typical_p": value, "do_sample": True}, "typical_p is") for value in (0, 2, NAN)],
    *[({"epsilon_cutoff": value, "do_sample": True}, "epsilon_cutoff is") for value in (-1, 2, NAN)],
    *[({"repetition_penalty": value}, "repetition_penalty is") for value in (0, -1, NAN, INF, 1e30)],
    *[({"presence_penalty": value}, "presence_penalty is") for value in (NAN, INF, 1e30)],
    *[({"frequency_penalty": value}, "frequency_penalty is") for value in (NAN, -INF, "x")],
    *[
        ({"num_return_sequences": value, "do_sample": True}, "num_return_sequences is")
        for value in (0, -1, 10**9, 2**63)
    ],
    *[({"num_beams": value}, "num_beams is") for value in (0, -1, 10**9, 1e308, "5", True)],
    *[({"seed": value, "do_sample": True}, "seed") for value in (-1, 2**63, 1.0, "1", True, [1, -1], [True])],
    *[({"stop": value}, "stop") for value in ("", ["a", ""], [1], 5, ["a"] * 65, "a" * 1025, {"a": 1})],
    *[({"max_time": value}, "max_time is") for value in (0, -1, NAN, INF)],
    *[({"logprobs": value}, "logprobs is") for value in (-1, 10**6, True, 1.5)],
    *[({"prompt_logprobs": value}, "prompt_logprobs is") for value in (-1, 1, "yes")],
    *[({"no_repeat_ngram_size": value}, "no_repeat_ngram_size is") for value in (-1, 1.5)],
    *[({"guidance_scale": value}, "guidance_scale is") for value in (-1, NAN, INF)],
    *[({"eos_token_id": value}, "eos_token_id") for value in (-1, VOCABULARY, [5, -1], True, "5", 1.0)],
    *[({"logit_bias": value}, "logit_bias") for value in ({-1: 1.0}, {VOCABULARY: 1.0}, {"5": 1.0}, {True: 1.0}, [5])],
    *[({"logit_bias": {5: value}}, "logit_bias") for value in (NAN, INF, -INF, "1", None, True)],
    ({"logit_bias": dict.fromkeys(range(10**5), 0.5)}, "logit_bias has the id 424"),
    *[({"sequence_bias": [value]}, "sequence_bias holds") for value in (5, [[], 1.0], [[5], NAN], [[5]])],
    *[({"sequence_bias": [[value, 1.0]]}, "sequence_bias has the id") for value in ([-1], [5, 424], [True])],
    *[({"bad_words_ids": value}, "bad_words_ids") for value in ([[]], [[-1]], [5], [["a"]], [[424]])],
    *[({"suppress_tokens": value}, "suppress_tokens") for value in ([-1], [424], 5, [True])],
    *[({"begin_suppress_tokens": value}, "begin_suppress_tokens") for value in ([-1], [424])],
    *[({"forced_bos_token_id": value}, "forced_bos_token_id") for value in (-1, 424, True)],
    *[({"forced_eos_token_id": value}, "forced_eos_token_id") for value in (-1, [424], True)],
    *[
        ({"exponential_decay_length_penalty": value}, "exponential_decay_length_penalty is")
        for value in ((1,), (-1, 1.5), (1, 0), (1, NAN), 5)
    ],
    ({"prefix_allowed_tokens_fn": 5}, "prefix_allowed_tokens_fn is 5"),
    # that contradict each other, or do nothing
    ({"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens 9 is over max_new_tokens 8"),
    ({"min_length": 9, "max_length": 8}, "min_length 9 is over max_length 8"),
    ({"top_p": 0.5}, "top_p only matters when drawing; pass do_sample=True"),
    ({"top_p": 0.5, "min_p": 0.1}, "top_p and min_p only matter when drawing"),
    ({"eos_token_id": []}, "eos_token_id is an empty list; pass ignore_eos"),
    ({"negative_prompt": [], "guidance_scale": 2.0}, "negative_prompt is empty; leave it out"),
    ({"negative_prompt": "", "guidance_scale": 2.0}, "negative_prompt is empty; leave it out"),
    ({"temperature": 0.5}, "temperature only matters when drawing"),
    ({"seed": 5}, "seed only matters when drawing"),
    ({"do_sample": True, "temperature": 0, "top_p": 0.5}, "temperature 0 takes the likeliest token"),
    ({"do_sample": True, "temperature": 0, "seed": 5}, "temperature 0 takes the likeliest token"),
    ({"length_penalty": 2.0}, "length_penalty only matters with num_beams above 1"),
    ({"include_stop": True}, "include_stop only matters with stop"),
    ({"ignore_eos": True, "eos_token_id": 5}, "ignore_eos and eos_token_id exclude each other"),
    ({"use_cache": False, "cache_room": 300}, "cache_room only matters with use_cache"),
    ({"max_new_tokens": 5, "max_length": 50}, "max_new_tokens and max_length exclude each other"),
    ({"regex": ""}, "regex is empty"),
    ({"num_return_sequences": 2}, "gives one text several times"),
    ({"num_return_sequences": 3, "num_beams": 2}, "num_return_sequences 3 is over num_beams 2"),
    ({"seed": [1, 2], "do_sample": True}, "2 seeds, wanted 1; give 1 for each prompt"),
    ({"num_beams": 2, "penalty_alpha": 0.5, "top_k": 4}, "different ways to search"),
    ({"penalty_alpha": 0.5, "top_k": 1}, "penalty_alpha needs top_k of at least 2"),
    ({"suppress_tokens": list(range(VOCABULARY))}, "suppress_tokens leaves no token"),
    # that are unknown
    ({"temprature": 0.5}, "no option 'temprature' .did you mean temperature"),
    ({"\x1b[31m": 0.5}, r"no option '\\\\x1b"),
]


@pytest.mark.parametrize("options, message", OPTIONS, ids=lambda value: str(value)[:50])
def test_an_option_that_cannot_be_followed_is_refused(unfed, options, message):
    refused(unfed, message, **options)


def test_too_many_sequences_at_once_are_refused(unfed):
    refused(unfed, "1,100 sequences at once, over 1,024", [PROMPT] * 1100, LimitExceeded)
    refused(unfed, "2,000 sequences at once", [PROMPT] * 10, LimitExceeded, do_sample=True, num_return_sequences=200)
    refused(unfed, "2,000 sequences at once", [PROMPT] * 10, LimitExceeded, num_beams=200)


def test_stops_need_a_tokenizer(unfed, monkeypatch):
    monkeypatch.setattr(unfed, "processor", None)
    refused(unfed, "stop texts need a tokenizer", stop="a")
    refused(unfed, "the checkpoint has no tokenizer", "text")


def test_a_model_that_scores_no_next_words_is_refused(tmp_path):
    from tiny import load

    with pytest.raises(Unsupported, match="BertForMaskedLM does not score next words"):
        generate(load("bert-words"), [5])


HOSTILE = {
    "no JSON": ("{", "generation_config.json is not JSON"),
    "a list": ("[]", "is not an object"),
    "nested": ("[" * 100_000, "generation_config.json is not"),
    "NaN": ('{"temperature": NaN, "do_sample": true}', "not finite"),
    "infinite": ('{"top_p": 1e999, "do_sample": true}', "not finite"),
    "deep NaN": ('{"exponential_decay_length_penalty": [1, NaN]}', "exponential_decay_length_penalty"),
    "huge length": ('{"max_length": 1000000000000}', "max_length"),
    "end out of range": ('{"eos_token_id": 424}', "eos_token_id"),
    "ends out of range": ('{"eos_token_id": [5, -1]}', "eos_token_id"),
    "text for a number": ('{"temperature": "0.5"}', "temperature"),
    "truth for a number": ('{"num_beams": true}', "num_beams"),
    "negative": ('{"num_beams": -4}', "num_beams"),
    "too many": ('{"num_return_sequences": 1000000, "do_sample": true}', "num_return_sequences"),
    "suppressed out of range": ('{"suppress_tokens": [99999]}', "suppress_tokens"),
    "forced out of range": ('{"forced_bos_token_id": -5}', "forced_bos_token_id"),
    "forced decoder ids": ('{"forced_decoder_ids": [[1, 99999999]]}', "forced_decoder_ids"),
    "contradiction": ('{"min_length": 30, "max_length": 25}', "min_length 30 is over max_length 25"),
    "not implemented": ('{"watermarking_config": {"bias": 2}}', "watermarking_config"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_generation_config_is_refused(unfed, name, monkeypatch):
    data, message = HOSTILE[name]
    monkeypatch.setitem(unfed.sidecars, "generation_config.json", data.encode())
    with pytest.raises((CorruptFile, InvalidInput, Unsupported), match=message) as caught:
        generate(unfed, PROMPT)
    assert "generation_config.json" in str(caught.value)
    assert len(str(caught.value)) < 300


def test_scores_that_are_not_finite_are_never_chosen_from(tmp_path):
    broken = writer(tmp_path)
    with torch.no_grad():
        broken.blocks[0].feed_forward.up.weight[0, 0] = NAN
    for options in ({}, {"do_sample": True}, {"prompt_lookup_num_tokens": 3}, {"guidance_scale": 2.0}):
        with pytest.raises(NotFinite, match="scores that are not finite; load it with dtype='float32'"):
            generate(broken, PROMPT, **options)


def test_options_that_rule_out_every_token_on_the_way_are_refused(model):
    with pytest.raises(InvalidInput, match="the options rule out every next token; allow some"):
        generate(model, PROMPT, prefix_allowed_tokens_fn=lambda _, ids: [7], suppress_tokens=[7])
    with pytest.raises(InvalidInput, match=r"prefix_allowed_tokens_fn allows no token after \[5, 17, 42, 8, 61\]"):
        generate(model, PROMPT, prefix_allowed_tokens_fn=lambda _, ids: [])
    with pytest.raises(InvalidInput, match="prefix_allowed_tokens_fn has the id 424"):
        generate(model, PROMPT, prefix_allowed_tokens_fn=lambda _, ids: [424])
    with pytest.raises(InvalidInput, match="prefix_allowed_tokens_fn gives None, wanted a list of ids"):
        generate(model, PROMPT, prefix_allowed_tokens_fn=lambda _, ids: None)


# Stops and streams


def text_of(model, **options):
    return generate(model, PROMPT, max_new_tokens=40, do_sample=True, seed=1, **options)


def test_a_stop_that_spans_tokens_ends_the_text_before_it(model):
    whole = text_of(model)
    for begin in (3, 10, 25):
        stop = whole.text[begin : begin + 6]
        found = text_of(model, stop=stop)
        assert found.text == whole.text[: whole.text.find(stop)]
        assert found.finish_reason == "stop"
        assert found.ids == whole.ids[: len(found.ids)]
        assert stop in model.processor.decode(found.ids)
        assert stop not in model.processor.decode(found.ids[:-1])
        assert text_of(model, stop=stop, include_stop=True).text == found.text + stop


def test_the_first_of_several_stops_counts(model):
    whole = text_of(model)
    stops = [whole.text[20:24], whole.text[5:9], "nowhere in it"]
    assert text_of(model, stop=stops).text == whole.text[: min(whole.text.find(stop) for stop in stops[:2])]
    assert text_of(model, stop_strings=stops).text == text_of(model, stop=stops).text


def test_a_stop_that_is_a_special_token_ends_the_text_though_it_is_not_shown(model):
    found = generate(model, PROMPT, forced_eos_token_id=model.processor.id("bos_token"), max_new_tokens=4, stop="<s>")
    assert found.finish_reason == "stop"
    assert found.ids[-1] == model.processor.id("bos_token")
    assert "<s>" not in found.text


def test_a_stop_in_the_prompt_does_not_count(model):
    assert generate(model, "The fox", max_new_tokens=4, stop="The fox").finish_reason == "length"


@pytest.mark.parametrize("stop", [[], [6, 12], [0, 3], [9, 20]], ids=str)
@pytest.mark.parametrize("include", [False, True])
def test_streamed_texts_are_those_of_generate(model, stop, include):
    options = {"max_new_tokens": 60, "do_sample": True, "seed": 4}
    if stop:
        whole = generate(model, PROMPT, **options).text
        options |= {"stop": [whole[slice(*stop)], "never"], "include_stop": include}
    pieces = list(stream(model, PROMPT, **options))
    assert "".join(piece.text for piece in pieces) == generate(model, PROMPT, **options).text
    assert pieces[-1].finish_reason == ("stop" if stop else "length")


def test_a_character_of_several_tokens_is_streamed_whole(model):
    """Tokens of this vocabulary are single bytes of characters that it was not trained on."""
    pieces = list(stream(model, PROMPT, choice=["日本語😀é"], max_new_tokens=60))
    assert len(pieces) > 10
    assert not any("\ufffd" in piece.text for piece in pieces)
    assert "".join(piece.text for piece in pieces) == "日本語😀é"


def test_streamed_samples_are_told_apart(model):
    options = {"max_new_tokens": 12, "do_sample": True, "seed": 4, "num_return_sequences": 2}
    pieces = list(stream(model, [PROMPT, [9, 3]], **options))
    for prompt, group in enumerate(generate(model, [PROMPT, [9, 3]], **options)):
        for sample, found in enumerate(group):
            own = [piece for piece in pieces if (piece.prompt, piece.sample) == (prompt, sample)]
            assert "".join(piece.text for piece in own) == found.text
            assert [token for piece in own for token in piece.ids] == found.ids


# Seeds, time, cancelling


def test_each_sequence_can_be_drawn_again_from_its_seed(model):
    found = generate(model, PROMPT, max_new_tokens=10, do_sample=True, num_return_sequences=4)
    assert len({tuple(one.ids) for one in found}) == 4
    for one in found:
        assert generate(model, PROMPT, max_new_tokens=10, do_sample=True, seed=one.seed).ids == one.ids


def test_seeds_may_be_given_for_each_sequence(model):
    options = {"max_new_tokens": 10, "do_sample": True}
    alone = [generate(model, PROMPT, seed=seed, **options).ids for seed in (7, 3, 2**63 - 1, 7)]
    (first, second) = generate(model, [PROMPT] * 2, seed=[7, 3, 2**63 - 1, 7], num_return_sequences=2, **options)
    assert [one.ids for one in first + second] == alone


def test_a_call_without_a_seed_is_drawn_anew(model):
    texts = {generate(model, PROMPT, max_new_tokens=10, do_sample=True).text for _ in range(3)}
    assert len(texts) == 3


def test_drawing_leaves_the_global_generator_alone(model):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    generate(model, PROMPT, max_new_tokens=5, do_sample=True)
    assert torch.equal(state, torch.get_rng_state())


def test_time_ends_a_sequence_with_what_there_is(model):
    found = generate(model, [PROMPT, [9, 3]], max_time=1e-9)
    assert [(len(one.ids), one.finish_reason) for one in found] == [(1, "time")] * 2


def test_a_call_can_be_cancelled_between_tokens(model):
    asked = iter([False, False, True])
    found = generate(model, PROMPT, cancelled=lambda: next(asked))
    assert (len(found.ids), found.finish_reason) == (3, "cancelled")
    assert found.ids == generate(model, PROMPT, max_new_tokens=3).ids


def test_what_ended_before_a_call_was_cancelled_says_why(model):
    first, *others = generate(model, [PROMPT, *([token] for token in range(5, 40))], max_new_tokens=2)
    other = next(one for one in others if first.ids[0] not in one.ids)
    asked = iter([False, True])
    prompts = [PROMPT, [other.prompt + 4]]
    found = generate(model, prompts, eos_token_id=first.ids[0], cancelled=lambda: next(asked))
    assert [one.finish_reason for one in found] == ["stop", "cancelled"]


def test_closing_a_stream_ends_the_work(model, unfed_calls):
    pieces = stream(model, PROMPT, max_new_tokens=50)
    next(pieces)
    pieces.close()
    assert len(unfed_calls) == 1


# What is said beside the tokens


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "seed": 1, "temperature": 0.7, "top_k": 5}], ids=str)
def test_log_probabilities_are_those_of_the_model_before_any_filter(model, options):
    found = generate(model, PROMPT, max_new_tokens=8, logprobs=3, **options)
    logs = logits_of(model, PROMPT + found.ids).log_softmax(-1)[len(PROMPT) - 1 : -1]
    assert found.logprobs == pytest.approx(
        [float(row[token]) for row, token in zip(logs, found.ids, strict=True)], abs=1e-4
    )
    for row, alternatives in zip(logs, found.alternatives, strict=True):
        best = row.topk(3)
        assert [token for token, _ in alternatives] == best.indices.tolist()
        assert [value for _, value in alternatives] == pytest.approx(best.values.tolist(), abs=1e-4)
    plain = generate(model, PROMPT, max_new_tokens=8, **options)
    assert (plain.ids, plain.logprobs, plain.alternatives) == (found.ids, None, None)


def test_log_probabilities_without_alternatives(model):
    found = generate(model, PROMPT, max_new_tokens=8, logprobs=0)
    assert len(found.logprobs) == 8
    assert found.alternatives is None


def test_log_probabilities_of_prompts(model):
    prompts = [PROMPT, [9], [77, 12, 30, 31, 32, 33, 90, 15]]
    for found, prompt in zip(generate(model, prompts, max_new_tokens=2, prompt_logprobs=True), prompts, strict=True):
        logs = logits_of(model, prompt).log_softmax(-1)
        wanted = [float(logs[i, token]) for i, token in enumerate(prompt[1:])]
        assert found.prompt_logprobs == pytest.approx(wanted, abs=1e-4)
    assert generate(model, PROMPT, max_new_tokens=2).prompt_logprobs is None


def test_a_long_prompt_is_scored_in_pieces(model, monkeypatch):
    monkeypatch.setattr("triarch.generation.inference.CHUNK", 7)
    prompt = [token % 400 for token in range(3, 60)]
    found = generate(model, prompt, max_new_tokens=1, prompt_logprobs=True)
    logs = logits_of(model, prompt).log_softmax(-1)
    assert found.prompt_logprobs == pytest.approx([float(logs[i, t]) for i, t in enumerate(prompt[1:])], abs=1e-4)


# Biases and penalties


def chosen(model, prompt, new, change):
    """Greedy tokens of scores that `change(logits, new ids)` changed."""
    ids: list[int] = []
    for _ in range(new):
        ids.append(int(change(logits_of(model, prompt + ids)[-1], ids).argmax()))
    return ids


def test_a_bias_is_added_to_the_scores_of_tokens(model):
    plain = generate(model, PROMPT, max_new_tokens=8).ids
    bias = {plain[0]: -1.5, plain[3]: -0.75, 7: 2.5}

    def biased(logits, _):
        for token, value in bias.items():
            logits[token] += value
        return logits

    found = generate(model, PROMPT, max_new_tokens=8, logit_bias=bias).ids
    assert found == chosen(model, PROMPT, 8, biased)
    assert found != plain
    assert generate(model, PROMPT, max_new_tokens=3, logit_bias={7: 100}).ids == [7] * 3
    every = dict.fromkeys(range(VOCABULARY), -100)
    assert generate(model, PROMPT, max_new_tokens=8, logit_bias=every).ids == plain


def test_presence_and_frequency_are_taken_from_the_scores_of_generated_tokens(model):
    """mu[j] - c[j] * frequency - (c[j] > 0) * presence, as the OpenAI API documents; prompts do not count."""
    plain = generate(model, PROMPT, max_new_tokens=12).ids
    for presence, frequency in ((1.0, 0.0), (0.0, 0.8), (1.5, 0.5), (-1.0, 0.3)):

        def punished(logits, ids, presence=presence, frequency=frequency):
            for token in set(ids):
                logits[token] -= ids.count(token) * frequency + presence
            return logits

        options = {"presence_penalty": presence, "frequency_penalty": frequency}
        prompt = [*PROMPT, plain[0]]
        assert generate(model, prompt, max_new_tokens=12, **options).ids == chosen(model, prompt, 12, punished)


# What checkpoints ask for


def test_a_checkpoints_own_settings_hold_unless_a_call_says_otherwise(model, monkeypatch):
    asked = {"do_sample": True, "temperature": 0.1, "top_k": 4, "max_new_tokens": 6, "transformers_version": "4.57.0"}
    monkeypatch.setitem(model.sidecars, "generation_config.json", json.dumps(asked).encode())
    found = generate(model, PROMPT, seed=3)
    monkeypatch.delitem(model.sidecars, "generation_config.json")
    said = {"do_sample": True, "temperature": 0.1, "top_k": 4, "max_new_tokens": 6}
    assert found.ids == generate(model, PROMPT, seed=3, **said).ids
    monkeypatch.setitem(model.sidecars, "generation_config.json", json.dumps(asked).encode())
    assert generate(model, PROMPT, do_sample=False, max_new_tokens=4).seed is None
    assert isinstance(triarch.generate(model, PROMPT, max_new_tokens=2).ids, list)


def test_beams_that_would_draw_from_more_tokens_than_torch_takes_are_refused(unfed, monkeypatch):
    monkeypatch.setattr(limits, "DRAWN", 4 * unfed.config.vocab_size - 1)
    options = {"num_beams": 4, "do_sample": True, "max_new_tokens": 2}
    refused(unfed, r"4 beams draw from [\d,]+ tokens, over", kind=LimitExceeded, **options)
