"""Llama, Mistral and Qwen2 beyond what tests/test_families.py asks of every family, against the reference."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import decoders
import triarch
from decoders import close, ids, in_one_row, left_padded, stepwise, their_stepwise
from triarch.errors import InvalidInput, LimitExceeded, TriarchError, Unsupported
from triarch.generation import Prefix, generate
from triarch.layers.attention import attend
from triarch.layers.cache import Cache
from triarch.models import family

CLASSES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM"}
TINY = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 48,
}


def both(folder, name="llama", **config):
    return decoders.both(folder, CLASSES[name], name, **TINY | config)


VARIATIONS = {
    "keys and values of its own for each head": {"num_key_value_heads": 4},
    "as many keys as heads where the file does not say": {"num_key_value_heads": None},
    "one head of keys and values for all": {"num_key_value_heads": 1},
    "a size of heads of its own": {"head_dim": 14},
    "biases in attention": {"attention_bias": True},
    "biases in feed-forward": {"mlp_bias": True},
    "words read off with the embedding": {"tie_word_embeddings": True},
    "another activation": {"hidden_act": "gelu_new"},
    "another theta": {"rope_theta": 500.0},
    "another theta, as version 5 has it": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    "another epsilon": {"rms_norm_eps": 0.1},
    "layers that were once split": {"pretraining_tp": 2},
}


@pytest.mark.parametrize("config", VARIATIONS.values(), ids=VARIATIONS)
def test_every_variation_of_the_config_gives_the_scores_of_the_reference(tmp_path, config):
    ours, theirs = both(tmp_path, **config)
    with torch.no_grad():
        close(ours(ids(2, 9)).logits, theirs(ids(2, 9)).logits)


@pytest.mark.parametrize("config", VARIATIONS.values(), ids=VARIATIONS)
def test_the_reference_opens_every_variation_that_we_save(tmp_path, config):
    ours, _ = both(tmp_path / "theirs", **config)
    triarch.save(ours, tmp_path / "ours")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    with torch.no_grad():
        close(ours(ids(2, 9)).logits, again(ids(2, 9)).logits)


# Positions that are stretched


LONGROPE = {"short_factor": [1.0, 1.1, 1.2, 1.5], "long_factor": [1.5, 2.0, 4.0, 8.0]}
TRAINED = {"original_max_position_embeddings": 16}
STRETCHED = {
    "linear": ("linear", {"factor": 3.0}),
    "dynamic": ("dynamic", {"factor": 3.0}),
    "llama3": ("llama3", TRAINED | {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}),
    "yarn": ("yarn", TRAINED | {"factor": 4.0}),
    "yarn, on a longer ramp": ("yarn", TRAINED | {"factor": 4.0, "beta_fast": 1.0, "beta_slow": 0.25}),
    "yarn, where the config says nothing of the trained length": ("yarn", {"factor": 4.0}),
    "yarn, every number": (
        "yarn",
        TRAINED | {"factor": 4.0, "attention_factor": 1.3, "beta_fast": 8.0, "beta_slow": 0.5, "truncate": False},
    ),
    "yarn, sharpened as DeepSeek does": ("yarn", TRAINED | {"factor": 4.0, "mscale": 0.7, "mscale_all_dim": 1.2}),
    "longrope": ("longrope", TRAINED | LONGROPE),
    "longrope, every number": ("longrope", TRAINED | LONGROPE | {"factor": 5.0}),
    "longrope, sharpness given": ("longrope", TRAINED | LONGROPE | {"attention_factor": 1.2}),
}
SPELLINGS = {
    "version 5": lambda kind, rest: {"rope_parameters": {"rope_type": kind, "rope_theta": 100.0} | rest},
    "version 4": lambda kind, rest: {"rope_scaling": {"rope_type": kind} | rest, "rope_theta": 100.0},
    "old": lambda kind, rest: {"rope_scaling": {"type": kind} | rest, "rope_theta": 100.0},
}


@pytest.fixture(params=STRETCHED)
def stretched(request):
    kind, rest = STRETCHED[request.param]
    shorter = {"max_position_embeddings": 16} if "trained" in request.param or kind in ("linear", "dynamic") else {}
    return kind, rest, shorter


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("length", [16, 40])
def test_stretched_positions_give_the_scores_of_the_reference(tmp_path, stretched, spelling, length):
    kind, rest, shorter = stretched
    ours, theirs = both(tmp_path, **spelling(kind, rest), **shorter)
    with torch.no_grad():
        close(ours(ids(2, length)).logits, theirs(ids(2, length)).logits)


def test_stretched_positions_with_a_cache_give_the_scores_of_the_reference_with_its_own(tmp_path, stretched):
    kind, rest, shorter = stretched
    ours, theirs = both(tmp_path, **SPELLINGS["version 4"](kind, rest), **shorter)
    close(stepwise(ours, ids(2, 24), 10), their_stepwise(theirs, ids(2, 24), 10))


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_stretched_positions_are_saved_as_both_versions_read_them(tmp_path, stretched, spelling):
    kind, rest, shorter = stretched
    ours, theirs = both(tmp_path / "theirs", **spelling(kind, rest), **shorter)
    triarch.save(ours, tmp_path / "ours")
    saved = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert saved["rope_theta"] == 100.0
    assert "rope_parameters" not in saved
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    with torch.no_grad():
        close(again(ids(1, 40)).logits, theirs(ids(1, 40)).logits)
        assert torch.equal(triarch.load(tmp_path / "ours")(ids(1, 40)).logits, ours(ids(1, 40)).logits)


def test_longrope_is_saved_with_what_version_4_looks_for_beside_the_table(tmp_path):
    kind, rest = STRETCHED["longrope, every number"]
    ours, _ = both(tmp_path / "theirs", **SPELLINGS["version 5"](kind, rest))
    triarch.save(ours, tmp_path / "ours")
    saved = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert saved["original_max_position_embeddings"] == 16
    assert saved["rope_scaling"]["attention_factor"] == ours.config.rotary.sharpness


def test_the_trained_length_beside_the_table_goes_before_the_one_in_it(tmp_path):
    kind, rest = STRETCHED["yarn"]
    ours, theirs = both(tmp_path, rope_scaling={"rope_type": kind} | rest, original_max_position_embeddings=8)
    with torch.no_grad():
        close(ours(ids(2, 30)).logits, theirs(ids(2, 30)).logits)


@pytest.mark.parametrize("kind", ["yarn", "llama3"])
@pytest.mark.parametrize(
    "beside, most", [({}, 48), ({"original_max_position_embeddings": 8}, 8)], ids=["absent", "beside"]
)
def test_the_trained_length_is_saved_in_the_table_where_version_4_looks_for_it(kind, beside, most):
    rest = {key: number for key, number in STRETCHED[kind][1].items() if key not in TRAINED}
    config = family("llama").config(TINY | beside | {"rope_scaling": {"rope_type": kind} | rest})
    assert config.to_hf()["rope_scaling"]["original_max_position_embeddings"] == most


def test_texts_of_a_batch_are_stretched_by_their_own_length(tmp_path):
    ours, _ = both(tmp_path, max_position_embeddings=16, rope_scaling={"rope_type": "dynamic", "factor": 3.0})
    long, short = ids(1, 40), ids(1, 20, seed=2)
    with torch.no_grad():
        got = ours(*left_padded(long, short)).logits
        close(got[:1], ours(long).logits)
        close(got[1:, 20:], ours(short).logits)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_a_prefix_of_another_stretch_is_computed_again(tmp_path, kind):
    name, rest = STRETCHED[kind]
    positions = 16 if kind == "dynamic" else 48
    ours, _ = both(tmp_path, max_position_embeddings=positions, rope_scaling={"rope_type": name} | rest | TRAINED)
    (long,) = ids(1, 40).tolist()
    prefix = Prefix()
    for prompt, reused in ((long, 0), (long[:10], 0), (long[:12], 10)):
        found = generate(ours, prompt, max_new_tokens=3, ignore_eos=True, prefix=prefix)
        assert found.ids == generate(ours, prompt, max_new_tokens=3, ignore_eos=True).ids
        assert prefix.reused == reused


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_guesses_are_read_with_the_stretch_that_they_have_one_by_one(tmp_path, kind):
    name, rest = STRETCHED[kind]
    positions = 16 if kind == "dynamic" else 48
    scaling = {"rope_type": name} | rest | TRAINED
    ours, _ = both(tmp_path, max_position_embeddings=positions, rope_theta=10.0, rope_scaling=scaling)
    for seed in range(8):
        prompt = ids(1, 4, seed=seed)[0].tolist() * 3
        wanted = generate(ours, prompt, max_new_tokens=30, ignore_eos=True).ids
        assert generate(ours, prompt, max_new_tokens=30, ignore_eos=True, prompt_lookup_num_tokens=4).ids == wanted


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_texts_that_share_a_row_are_stretched_by_their_own_length(tmp_path, kind):
    name, rest = STRETCHED[kind]
    ours, _ = both(tmp_path, max_position_embeddings=48, rope_scaling={"rope_type": name} | rest | TRAINED)
    texts = [ids(1, 12), ids(1, 60 if kind == "dynamic" else 40, seed=2), ids(1, 9, seed=3)]
    with torch.no_grad():
        close(ours(*in_one_row(*texts)).logits, torch.cat([ours(text).logits for text in texts], 1))


@pytest.mark.parametrize("name", CLASSES)
def test_padding_within_a_text_takes_a_place_as_in_the_reference(tmp_path, name):
    ours, theirs = both(tmp_path, name)
    mask = torch.tensor([[1, 1, 1, 0, 0, 1, 1, 1, 1]])
    with torch.no_grad():
        got, wanted = ours(ids(1, 9), mask).logits, theirs(ids(1, 9), attention_mask=mask).logits
    close(got[mask == 1], wanted[mask == 1])


MOST = {
    "as it stands": ({}, 48),
    "linear": ({"rope_scaling": {"type": "linear", "factor": 2.5}}, 120),
    "dynamic": ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, 96),
    "yarn": ({"rope_scaling": {"type": "yarn", "factor": 4.0, **TRAINED}}, 64),
    "yarn, where max_position_embeddings is the whole": (
        {"rope_scaling": {"type": "yarn", "factor": 2.0, **TRAINED}},
        48,
    ),
    "longrope": ({"rope_scaling": {"type": "longrope"} | LONGROPE | TRAINED}, 48),
}


@pytest.mark.parametrize("config, most", MOST.values(), ids=MOST)
def test_more_tokens_than_the_model_reads_are_refused(tmp_path, config, most):
    ours, _ = both(tmp_path, **config)
    assert ours.config.max_tokens == most
    with torch.no_grad():
        ours(ids(1, most))
        with pytest.raises(LimitExceeded, match=f"{most + 1} tokens, but the model has {most} positions"):
            ours(ids(1, most + 1))


def test_a_cache_counts_towards_the_tokens_that_the_model_reads(tmp_path):
    ours, _ = both(tmp_path)
    with torch.no_grad():
        ours(ids(1, 40), cache=(cache := Cache()))
        with pytest.raises(LimitExceeded, match="49 tokens"):
            ours(ids(1, 9), cache=cache)


# Cache, windows, padding, several texts in a row


WINDOWED = {
    "llama": {},
    "mistral": {"sliding_window": 5},
    "mistral without a window": {"sliding_window": None},
    "qwen2": {},
    "qwen2 with a window": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    "qwen2 with kinds of layers": {
        "use_sliding_window": True,
        "sliding_window": 5,
        "layer_types": ["sliding_attention", "full_attention"],
    },
}


@pytest.fixture(params=WINDOWED)
def pair(request, tmp_path):
    return both(tmp_path, request.param.partition(" ")[0], **WINDOWED[request.param])


@pytest.mark.parametrize("first", [1, 5, 12])
def test_a_cache_changes_nothing(pair, first):
    ours, theirs = pair
    with torch.no_grad():
        whole = ours(ids(2, 20)).logits
        close(whole, theirs(ids(2, 20)).logits)
    for options in ({}, {"sliding": False}, {"room": 20}):
        close(stepwise(ours, ids(2, 20), first, **options), whole)


def test_a_cache_of_a_window_forgets_what_lies_before_it(tmp_path):
    ours, _ = both(tmp_path, "mistral", sliding_window=5)
    with torch.no_grad():
        ours(ids(1, 40), cache=(cache := Cache()))
    assert cache[0].held < 5
    assert cache.length == 40


@pytest.mark.parametrize("first", [9, 20])
def test_texts_padded_at_the_beginning_give_what_each_gives_alone(pair, first):
    ours, _ = pair
    long, short = ids(1, 20), ids(1, 13, seed=2)
    batch, mask = left_padded(long, short)
    got = stepwise(ours, batch, first, mask)
    with torch.no_grad():
        close(got[:1], ours(long).logits)
        close(got[1:, 7:], ours(short).logits)


def test_texts_that_share_a_row_give_what_each_gives_alone(pair):
    ours, _ = pair
    texts = [ids(1, 9), ids(1, 1, seed=2), ids(1, 12, seed=3)]
    with torch.no_grad():
        got = ours(*in_one_row(*texts)).logits
        close(got, torch.cat([ours(text).logits for text in texts], 1))


def test_a_classifier_reads_the_last_token_of_a_padded_text(tmp_path):
    model = family("llama").build(family("llama").tiny, "LlamaForSequenceClassification")
    text = ids(1, 9)
    padded = torch.nn.functional.pad(text, (0, 4))
    mask = (torch.arange(13) < 9).long()[None]
    with torch.no_grad():
        close(model(padded, mask).logits, model(text).logits)


def test_a_text_of_one_token_drops_attention_too():
    q, k, v = (torch.ones(1, heads, 1, 2) for heads in (4, 2, 2))
    assert attend(q, k, v, None, dropout=1.0).count_nonzero() == 0


# Files


def test_buffers_of_old_files_are_passed_over(tmp_path):
    ours, _ = both(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    stored |= {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4) for i in range(2)}
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(triarch.load(tmp_path)(ids(1, 5)).logits, ours(ids(1, 5)).logits)


def test_a_tied_head_that_is_in_the_file_as_well_does_no_harm(tmp_path):
    ours, _ = both(tmp_path, tie_word_embeddings=True)
    stored = load_file(tmp_path / "model.safetensors")
    stored["lm_head.weight"] = stored["model.embed_tokens.weight"].clone()
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(triarch.load(tmp_path)(ids(1, 5)).logits, ours(ids(1, 5)).logits)


@pytest.mark.parametrize("name, trunk", [("llama", "transformer."), ("mistral", "model."), ("qwen2", "transformer.")])
def test_a_model_that_answers_questions_is_stored_under_the_name_that_the_reference_has(tmp_path, name, trunk):
    kind = family(name)
    model = kind.build(kind.tiny, list(kind.heads)[-1])
    triarch.save(model, tmp_path)
    names = load_file(tmp_path / "model.safetensors").keys()
    assert {theirs.partition(".")[0] + "." for theirs in names} == {trunk, "qa_outputs."}


def test_the_trunk_under_either_name_is_read(tmp_path):
    kind = family("llama")
    model = kind.build(kind.tiny, "LlamaForQuestionAnswering")
    triarch.save(model, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    renamed = {theirs.replace("transformer.", "model."): tensor for theirs, tensor in stored.items()}
    save_file(renamed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    again = triarch.load(tmp_path).state_dict()
    assert all(torch.equal(tensor, again[key]) for key, tensor in model.state_dict().items())


# Configs that cannot be


LLAMA3 = STRETCHED["llama3"][1]
REFUSED = {
    "no factor": ({"rope_scaling": {"type": "linear"}}, InvalidInput, "factor=None, wanted a number"),
    "a factor of nan": ({"rope_scaling": {"type": "linear", "factor": float("nan")}}, InvalidInput, "factor=nan"),
    "a negative factor": ({"rope_scaling": {"type": "yarn", "factor": -2.0}}, InvalidInput, "factor=-2.0"),
    "an infinite factor": ({"rope_scaling": {"type": "yarn", "factor": float("inf")}}, InvalidInput, "factor=inf"),
    "a factor that is text": ({"rope_scaling": {"type": "linear", "factor": "2"}}, InvalidInput, "factor=2, wanted"),
    "a factor that is true": ({"rope_scaling": {"type": "linear", "factor": True}}, InvalidInput, "factor=True"),
    "dynamic that shortens": ({"rope_scaling": {"type": "dynamic", "factor": 0.5}}, InvalidInput, "factor=0.5"),
    "an unknown type": ({"rope_scaling": {"type": "spiral"}}, Unsupported, "type spiral is not implemented"),
    "a type that is no text": ({"rope_scaling": {"type": 7}}, Unsupported, "type 7 is not implemented"),
    "two types": ({"rope_scaling": {"type": "yarn", "rope_type": "linear", "factor": 2.0}}, InvalidInput, "leave one"),
    "scaling that is no table": ({"rope_scaling": [2.0]}, InvalidInput, "wanted one table"),
    "a table for each kind of layer": ({"rope_parameters": {"full_attention": {}}}, InvalidInput, "wanted one table"),
    "theta of nothing": ({"rope_theta": 0}, InvalidInput, "rope_theta=0.*more than 1"),
    "theta of nan": ({"rope_theta": float("nan")}, InvalidInput, "rope_theta"),
    "theta that is text": ({"rope_parameters": {"rope_theta": "10000"}}, InvalidInput, "rope_theta"),
    "a part of each head": ({"partial_rotary_factor": 0.5}, Unsupported, "partial_rotary_factor"),
    "a part of each head, in the table": (
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
        Unsupported,
        "partial_rotary_factor",
    ),
    "attention that looks ahead": ({"is_causal": False}, Unsupported, "is_causal=False is not implemented"),
    "a factor without a type": ({"rope_scaling": {"factor": 2.0}}, InvalidInput, "names no type"),
    "llama3 without its bounds": ({"rope_scaling": {"type": "llama3", "factor": 8.0}}, InvalidInput, "low_freq_factor"),
    "llama3 with bounds that cross": (
        {"rope_scaling": {"type": "llama3"} | LLAMA3 | {"high_freq_factor": 1.0}},
        InvalidInput,
        "low_freq_factor=1.0, wanted less than 1.0",
    ),
    "longrope of another size": (
        {"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0] * 4}},
        InvalidInput,
        "wanted 4 numbers",
    ),
    "longrope that divides by nothing": (
        {"rope_scaling": {"type": "longrope", "short_factor": [0.0] * 4, "long_factor": [1.0] * 4}},
        InvalidInput,
        "short_factor=0.0",
    ),
    "heads that cannot share": ({"num_key_value_heads": 3}, InvalidInput, "cannot share num_key_value_heads=3"),
    "heads that do not split": ({"num_attention_heads": 5}, InvalidInput, "does not split into 5"),
    "heads of an odd size": ({"head_dim": 7}, InvalidInput, "wanted an even head_dim"),
}


@pytest.mark.parametrize("config, error, message", REFUSED.values(), ids=REFUSED)
def test_a_config_that_cannot_be_is_refused(config, error, message):
    with pytest.raises(error, match=message):
        family("llama").config(TINY | config)


KINDS = {
    "of another number": ({"layer_types": ["full_attention"]}, "layer_types"),
    "that are not known": ({"layer_types": ["full_attention", "spiral"]}, "layer_types"),
    "that are no names": ({"layer_types": [1, {}]}, "layer_types"),
    "with no window": ({"layer_types": ["full_attention", "sliding_attention"]}, "use_sliding_window gives none"),
    "with a window of nothing": ({"use_sliding_window": True, "sliding_window": 0}, "sliding_window=0"),
}


@pytest.mark.parametrize("config, message", KINDS.values(), ids=KINDS)
def test_kinds_of_layers_that_cannot_be_are_refused(config, message):
    with pytest.raises(InvalidInput, match=message):
        family("qwen2").config(TINY | config)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("key", ["num_key_value_heads", "head_dim", "rope_scaling", "rope_theta", "hidden_size"])
def test_nonsense_in_a_config_is_refused_with_one_line(name, key):
    for value in (-1, 0, 1 << 60, "x", [7], True):
        with pytest.raises(TriarchError) as raised:
            family(name).config(TINY | {key: value})
        assert "\n" not in str(raised.value)
