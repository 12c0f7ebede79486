"""GPT-2 beyond what tests/test_families.py asks of every family, against the reference."""

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import decoders
import triarch
from decoders import close, ids, in_one_row, left_padded, stepwise, their_stepwise
from triarch import checkpoint
from triarch.errors import InvalidInput, LimitExceeded, NotFound, Unsupported
from triarch.layers.attention import attend
from triarch.layers.cache import Cache
from triarch.models import family

TINY = {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 48}


def both(folder, **config):
    return decoders.both(folder, "GPT2LMHeadModel", "gpt2", **TINY | config)


VARIATIONS = {
    "scores divided by the number of the layer": {"scale_attn_by_inverse_layer_idx": True},
    "scores not divided": {"scale_attn_weights": False},
    "scores divided by the number of the layer alone": {
        "scale_attn_weights": False,
        "scale_attn_by_inverse_layer_idx": True,
    },
    "another inner size": {"n_inner": 50},
    "the inner size left out": {"n_inner": None},
    "gelu": {"activation_function": "gelu"},
    "relu": {"activation_function": "relu"},
    "attention in float32": {"reorder_and_upcast_attn": True},
    "another epsilon": {"layer_norm_epsilon": 0.1},
    "a head of its own": {"tie_word_embeddings": False},
    "n_ctx of old files": {"n_ctx": 48},
    "keys of a head that we do not have": {"summary_type": "cls_index", "summary_first_dropout": 0.1},
}


@pytest.mark.parametrize("config", VARIATIONS.values(), ids=VARIATIONS)
def test_every_variation_of_the_config_gives_the_scores_of_the_reference(tmp_path, config):
    ours, theirs = both(tmp_path, **config)
    with torch.no_grad():
        close(ours(ids(2, 9)).logits, theirs(ids(2, 9)).logits)


def test_attention_in_float32_is_that_of_the_reference_in_half_precision(tmp_path):
    _, theirs = both(tmp_path, reorder_and_upcast_attn=True)
    ours = triarch.load(tmp_path, dtype="bfloat16")
    theirs.set_attn_implementation("eager")
    with torch.no_grad():
        got, wanted = ours(ids(2, 9)).logits, theirs.bfloat16()(ids(2, 9)).logits
    torch.testing.assert_close(got, wanted, atol=0.05, rtol=0.05)


def test_attention_in_float32_makes_a_difference_in_half_precision(tmp_path):
    both(tmp_path / "plain")
    both(tmp_path / "wide", reorder_and_upcast_attn=True)
    plain, wide = (triarch.load(tmp_path / name, dtype="bfloat16") for name in ("plain", "wide"))
    with torch.no_grad():
        assert not torch.equal(plain(ids(2, 9)).logits, wide(ids(2, 9)).logits)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_attention_in_float32_stays_so_while_training_in_half_precision(monkeypatch, dropout):
    config = family("gpt2").config(TINY | {"reorder_and_upcast_attn": True, "attn_pdrop": dropout})
    model = family("gpt2").build(config, "GPT2LMHeadModel").train()
    found = []

    def noted(*args, **options):
        found.append((args[0] @ args[1].mT).dtype)
        return attend(*args, **options)

    monkeypatch.setattr("triarch.models.gpt2.attend", noted)
    with torch.autocast("cpu", torch.bfloat16):
        model(ids(2, 9))
    assert found == [torch.float32] * 2


# Files as they lie on the hub


@pytest.fixture
def model(tmp_path):
    """Ours, and the tensors of its file, to be written back in other ways."""
    ours, _ = both(tmp_path)
    return ours, load_file(tmp_path / "model.safetensors"), tmp_path


def reloaded(stored, folder):
    save_file({name: tensor.contiguous() for name, tensor in stored.items()}, folder / "model.safetensors")
    return triarch.load(folder)


def assert_same(again, ours):
    with torch.no_grad():
        assert torch.equal(again(ids(1, 9)).logits, ours(ids(1, 9)).logits)


def test_a_tied_head_is_not_in_the_file(model):
    _, stored, _ = model
    assert "lm_head.weight" not in stored


def test_a_tied_head_may_be_in_the_file_as_well(model):
    ours, stored, folder = model
    stored["lm_head.weight"] = stored["transformer.wte.weight"].clone()
    assert_same(reloaded(stored, folder), ours)


def test_names_without_the_prefix_of_the_trunk_are_read(model):
    ours, stored, folder = model
    bare = {name.removeprefix("transformer."): tensor for name, tensor in stored.items()}
    assert_same(reloaded(bare, folder), ours)


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_masks_that_lie_among_the_weights_are_passed_over(model, prefix):
    ours, stored, folder = model
    stored = {prefix + name.removeprefix("transformer."): tensor for name, tensor in stored.items()}
    for layer in range(2):
        stored[f"{prefix}h.{layer}.attn.bias"] = torch.ones(1, 1, 48, 48).tril()
        stored[f"{prefix}h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    assert_same(reloaded(stored, folder), ours)


# Cache, padding, several texts in a row


@pytest.mark.parametrize("config", [{}, {"scale_attn_by_inverse_layer_idx": True}], ids=["plain", "scaled by layer"])
@pytest.mark.parametrize("first", [1, 7, 20])
def test_a_cache_changes_nothing(tmp_path, config, first):
    ours, theirs = both(tmp_path, **config)
    with torch.no_grad():
        whole = ours(ids(2, 20)).logits
    close(stepwise(ours, ids(2, 20), first), whole)
    close(stepwise(ours, ids(2, 20), first, room=20), whole)
    close(their_stepwise(theirs, ids(2, 20), first), whole)


@pytest.mark.parametrize("first", [9, 20])
def test_texts_padded_at_the_beginning_give_what_each_gives_alone(model, first):
    ours, _, _ = model
    long, short = ids(1, 20), ids(1, 13, seed=2)
    batch, mask = left_padded(long, short)
    got = stepwise(ours, batch, first, mask)
    with torch.no_grad():
        close(got[:1], ours(long).logits)
        close(got[1:, 7:], ours(short).logits)


def test_texts_that_share_a_row_give_what_each_gives_alone(model):
    ours, _, _ = model
    texts = [ids(1, 9), ids(1, 1, seed=2), ids(1, 12, seed=3)]
    with torch.no_grad():
        got = ours(*in_one_row(*texts)).logits
        close(got, torch.cat([ours(text).logits for text in texts], 1))


def test_texts_that_share_a_row_may_together_be_longer_than_the_model_reads(model):
    ours, _, _ = model
    with torch.no_grad():
        assert ours(*in_one_row(ids(1, 48), ids(1, 40))).logits.shape[1] == 88


def test_padding_takes_no_positions(model):
    ours, _, _ = model
    padded, mask = torch.nn.functional.pad(ids(1, 40), (0, 20)), (torch.arange(60) < 40).long()[None]
    with torch.no_grad():
        close(ours(padded, mask).logits[:, :40], ours(ids(1, 40)).logits)


def test_padding_within_a_text_takes_a_place_as_in_the_reference(tmp_path):
    ours, theirs = both(tmp_path)
    mask = torch.tensor([[1, 1, 1, 0, 0, 1, 1, 1, 1]])
    with torch.no_grad():
        got, wanted = ours(ids(1, 9), mask).logits, theirs(ids(1, 9), attention_mask=mask).logits
    close(got[mask == 1], wanted[mask == 1])


def test_more_tokens_than_there_are_positions_are_refused(model):
    ours, _, _ = model
    with torch.no_grad(), pytest.raises(LimitExceeded, match="49 tokens, but the model has 48 positions"):
        ours(ids(1, 49))


def test_a_cache_counts_towards_the_positions(model):
    ours, _, _ = model
    with torch.no_grad():
        ours(ids(1, 40), cache=(cache := Cache()))
        with pytest.raises(LimitExceeded, match="49 tokens"):
            ours(ids(1, 9), cache=cache)


def test_a_classifier_reads_the_last_token_of_a_padded_text():
    model = family("gpt2").build(family("gpt2").tiny, "GPT2ForSequenceClassification")
    padded, mask = torch.nn.functional.pad(ids(1, 9), (0, 4)), (torch.arange(13) < 9).long()[None]
    with torch.no_grad():
        close(model(padded, mask).logits, model(ids(1, 9)).logits)


ALSO = {"n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads"}
ALSO |= {"n_positions": "max_position_embeddings"}


def test_the_names_that_the_reference_reads_too_are_read():
    raw = {ALSO.get(key, key): value for key, value in TINY.items()}
    config = family("gpt2").config(raw)
    assert config == family("gpt2").config(TINY)
    assert "num_attention_heads" not in config.to_hf()


def test_two_names_of_one_number_that_differ_are_refused():
    with pytest.raises(InvalidInput, match="n_head=4 and num_attention_heads=8; leave one"):
        family("gpt2").config(TINY | {"num_attention_heads": 8})


def test_a_decoder_that_looks_ahead_is_refused():
    with pytest.raises(Unsupported, match="is_causal=False is not implemented"):
        family("gpt2").config(TINY | {"is_causal": False})


def test_heads_that_do_not_split_are_refused():
    with pytest.raises(InvalidInput, match="n_embd 32 does not split into 5 attention heads"):
        family("gpt2").config(TINY | {"n_head": 5})


def test_of_two_heads_the_one_of_next_words_can_be_had(tmp_path):
    torch.manual_seed(0)
    raw = {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}
    theirs = transformers.GPT2DoubleHeadsModel(transformers.GPT2Config(**raw)).eval()
    theirs.save_pretrained(tmp_path)
    found = ids(1, 5)
    with torch.no_grad():
        for asked in ({"head": "GPT2LMHeadModel"}, {"scores": ("NextWordScores",)}):
            close(checkpoint.load(tmp_path, **asked)(found).logits, theirs(found).logits)
    with pytest.raises(NotFound, match="gpt2 has no head 'GPT2DoubleHeadsModel'"):
        triarch.load(tmp_path)
