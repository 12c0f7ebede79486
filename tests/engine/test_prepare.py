"""What preparing changes in a model, and what it leaves: answers, saved bits, gradients, ties, copies, threads."""

import copy
import pickle
import threading

import pytest
import torch
from torch import nn

import triarch
from triarch import checkpoint
from triarch.engine import linear, prepare
from triarch.engine.linear import FastLinear
from triarch.errors import InvalidInput
from triarch.generation import generate
from triarch.generation.settings import WRITES
from triarch.layers import brick, low_rank
from triarch.models import family
from triarch.tasks.text_generation import TextGeneration

PROMPTS = [[5, 17, 42, 8, 61], [9, 3]]
IDS = torch.randint(5, 99, (3, 9), generator=torch.Generator().manual_seed(0))


def model(dtype=torch.float32, name="gpt2", head="GPT2LMHeadModel"):
    torch.manual_seed(0)
    return family(name).build(family(name).tiny, head).to(dtype)


def scored(made):
    with torch.inference_mode():
        return made(IDS).logits


def fast(made):
    return [module for module in made.modules() if isinstance(module, FastLinear)]


def packed(made):
    return sum(module.weight.is_mkldnn for module in fast(made))


@pytest.fixture
def small(monkeypatch):
    """Layers of any size are packed, whatever this processor packs by itself."""
    if not linear.can_pack(torch.float32, "cpu"):
        pytest.fail("this torch has no packed linears; the pinned one does")
    monkeypatch.setattr(prepare, "LEAST", 1)
    monkeypatch.setattr(prepare, "PACKED", WRITES)


@pytest.fixture
def made(small):
    """A prepared model that has run."""
    made = prepare.prepare(model())
    scored(made)
    assert packed(made) == 2 * 4
    return made


@pytest.fixture
def folder(tmp_path):
    triarch.save(model(), tmp_path / "gpt2")
    return tmp_path / "gpt2"


# Packed layers


def test_logits_are_the_same_to_rounding(made):
    torch.testing.assert_close(scored(made), scored(model()), atol=1e-4, rtol=1e-4)


def test_generated_tokens_are_the_same(made):
    for options in ({}, {"do_sample": True, "seed": 1}):
        wanted = [found.ids for found in generate(model(), PROMPTS, max_new_tokens=20, **options)]
        assert [found.ids for found in generate(made, PROMPTS, max_new_tokens=20, **options)] == wanted


def test_loading_packs_nothing_and_the_first_call_does(small, folder):
    made = triarch.load(folder)
    assert len(fast(made)) == 2 * 4 + 1
    assert packed(made) == 0
    scored(made)
    assert packed(made) == 2 * 4


def test_what_is_saved_is_the_same_to_the_bit(made, tmp_path):
    triarch.save(model(), tmp_path / "plain")
    triarch.save(made, tmp_path / "packed")
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "packed")]
    assert files[0] == files[1]


def test_the_state_is_that_of_an_ordinary_model(made):
    found, wanted = made.state_dict(), model().state_dict()
    assert [*found] == [*wanted]
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_state_can_be_loaded(made):
    wanted = {name: tensor + 1 for name, tensor in model().state_dict().items()}
    made.load_state_dict(wanted)
    found = made.state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_head_that_shares_the_embedding_leaves_it_ordinary(made):
    assert not made.token.weight.is_mkldnn
    assert made.head.words.weight is made.token.weight
    assert made.head.words.fast.is_mkldnn


def test_a_shared_weight_that_was_changed_is_packed_again(made):
    plain = model()
    for one in (made, plain):
        with torch.no_grad():
            one.token.weight.mul_(2)
    torch.testing.assert_close(scored(made), scored(plain), atol=1e-4, rtol=1e-4)


def test_layers_stay_as_they_are_where_the_operators_are_missing(small, monkeypatch):
    linear.can_pack.cache_clear()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert fast(prepare.prepare(model())) == []
    linear.can_pack.cache_clear()


def test_types_without_operators_stay_as_they_are(small):
    assert fast(prepare.prepare(model(torch.float16))) == []


def test_small_layers_stay_as_they_are():
    assert fast(prepare.prepare(model())) == []


def test_models_that_do_not_write_stay_as_they_are(small):
    assert fast(prepare.prepare(model(name="bert", head="BertModel"))) == []


def test_preparing_twice_changes_nothing(made):
    layers = fast(made)
    assert fast(prepare.prepare(made)) == layers


# The way back


def gradients(made):
    made(IDS).logits.square().mean().backward()
    return {name: tensor.grad for name, tensor in made.named_parameters()}


def test_gradients_in_eval_mode_are_those_of_an_ordinary_model(made):
    found, wanted = gradients(made), gradients(model())
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, msg=name)
    assert packed(made) == 0


def test_training_takes_ordinary_layers(made):
    made.train()
    assert fast(made) == []
    assert type(made.head.words) is nn.Linear
    assert made.head.words.weight is made.token.weight
    found, wanted = gradients(made.eval()), gradients(model())
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_an_optimizer_made_before_the_first_call_still_learns(small):
    made = prepare.prepare(model())
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1)
    scored(made)
    made.train()
    before = {name: tensor.detach().clone() for name, tensor in made.named_parameters()}
    gradients(made)
    optimizer.step()
    assert all(not torch.equal(tensor, before[name]) for name, tensor in made.named_parameters())


def test_a_layer_whose_graph_is_kept_stays_ordinary(small):
    made, plain = prepare.prepare(model()), model()
    loss = made(IDS).logits.square().mean()
    scored(made)
    loss.backward()
    wanted = gradients(plain)
    for name, tensor in made.named_parameters():
        torch.testing.assert_close(tensor.grad, wanted[name], msg=name)


def test_adapters_go_around_ordinary_layers(made):
    names = low_rank.wrap(made)
    assert all(type(layer.linear) is nn.Linear for layer in low_rank.wrapped(made).values())
    assert low_rank.merge(made) == names
    torch.testing.assert_close(scored(made), scored(model()))


def test_a_model_with_adapters_is_not_prepared(small):
    wrapped = model()
    low_rank.wrap(wrapped)
    with pytest.raises(InvalidInput, match="merge them first"):
        prepare.prepare(wrapped)


def test_copies_are_whole_and_leave_the_original_packed(made):
    for other in (copy.deepcopy(made.blocks), pickle.loads(pickle.dumps(made.blocks))):
        assert packed(made) == 2 * 4
        assert packed(other) == 0
        for found, wanted in zip(other.parameters(), model().blocks.parameters(), strict=True):
            assert torch.equal(found, wanted)


def test_a_copy_keeps_what_is_tied(made):
    other = copy.deepcopy(made)
    assert other.head.words.weight is other.token.weight
    assert other.token.weight is not made.token.weight
    torch.testing.assert_close(scored(other), scored(made), atol=1e-5, rtol=1e-5)


def test_a_prepared_model_takes_another_type(made):
    torch.testing.assert_close(scored(made.double()), scored(model().double()))


def test_weights_unpacked_in_inference_mode_can_learn_later(made):
    with torch.autocast("cpu", torch.bfloat16):
        scored(made)
    assert packed(made) == 0
    gradients(made.train())


def test_autocast_multiplies_as_it_does_ordinary_layers(made):
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(scored(made), scored(model()))


def test_threads_that_call_first_at_once_pack_once(small):
    made, wanted = prepare.prepare(model()), scored(prepare.prepare(model()))
    begin, found = threading.Barrier(8), []

    def call():
        begin.wait()
        found.extend(scored(made) for _ in range(20))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 * 20
    assert all(torch.equal(one, wanted) for one in found)


def test_one_thread_may_ask_for_gradients_while_others_do_not(made):
    wanted, found = scored(model()), []

    def call():
        found.extend(scored(made) for _ in range(50))

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    gradients(made)
    for thread in threads:
        thread.join()
    assert len(found) == 150
    for one in found:
        torch.testing.assert_close(one, wanted, atol=1e-4, rtol=1e-4)


# Precision


def test_a_model_of_float32_can_multiply_in_bfloat16():
    made, plain = prepare.prepare(model(), "bfloat16"), model()
    assert made.blocks[0].attention.qkv.weight.dtype == torch.bfloat16
    assert made.token.weight.dtype == torch.float32
    assert scored(made).dtype == torch.float32
    assert not torch.equal(scored(made), scored(plain))
    torch.testing.assert_close(scored(made), scored(plain), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_narrow_model_can_multiply_in_float32_and_is_saved_as_it_was(dtype, tmp_path):
    made, plain = prepare.prepare(model(dtype), "float32"), model(dtype)
    assert made.blocks[0].attention.qkv.weight.dtype == torch.float32
    assert scored(made).dtype == dtype
    torch.testing.assert_close(scored(made).float(), scored(model(dtype).float()), atol=0.05, rtol=0.05)
    triarch.save(made, tmp_path / "made")
    triarch.save(plain, tmp_path / "plain")
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "made")]
    assert files[0] == files[1]
    made.train()
    assert {tensor.dtype for tensor in made.parameters()} == {dtype}


@pytest.mark.parametrize("name, head", [("bert", "BertForMaskedLM"), ("llama", "LlamaForCausalLM")])
def test_any_head_can_multiply_in_another_type(name, head):
    made = prepare.prepare(model(name=name, head=head), "bfloat16")
    torch.testing.assert_close(scored(made), scored(model(name=name, head=head)), atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    "call",
    [
        lambda made, folder: triarch.save(made, folder),
        lambda made, folder: made.train(),
        lambda made, folder: low_rank.wrap(made),
        lambda made, folder: brick.plain(made),
    ],
)
def test_rounded_weights_are_neither_saved_nor_trained(call, tmp_path):
    made = prepare.prepare(model(), "bfloat16")
    with pytest.raises(InvalidInput, match="rounded"):
        call(made, tmp_path / "made")
    assert not made.training
    assert not (tmp_path / "made").exists()


def test_rounded_layers_have_the_gradient_of_what_they_compute():
    made = prepare.prepare(model(), "bfloat16")
    found, wanted = gradients(made), gradients(model())
    torch.testing.assert_close(found["token.weight"], wanted["token.weight"], atol=1e-3, rtol=0.2)


def test_the_precision_that_a_model_has_changes_nothing():
    assert fast(prepare.prepare(model(), "float32")) == []


@pytest.mark.parametrize(
    "dtype, precision, message",
    [
        (torch.float32, "fp8", "'fp8', wanted float32 or bfloat16"),
        (torch.float64, "float32", 'dtype="float32"'),
        (torch.float64, "bfloat16", 'dtype="bfloat16"'),
        (torch.float16, "bfloat16", "no use to a model of float16"),
    ],
)
def test_a_precision_that_makes_no_sense_is_refused(dtype, precision, message):
    with pytest.raises(InvalidInput, match=message):
        prepare.prepare(model(dtype), precision)


def test_an_unknown_precision_is_refused_before_anything_is_read():
    with pytest.raises(InvalidInput, match="precision"):
        triarch.load("/nowhere", precision="int8")


# Who gets them


def test_pipelines_and_load_give_the_same_layers_and_training_none(small, folder):
    layers = [FastLinear] * (2 * 4 + 1)
    for load in (triarch.load, TextGeneration.load):
        assert [type(module) for module in fast(load(folder))] == layers
    assert fast(checkpoint.load(folder)) == []
