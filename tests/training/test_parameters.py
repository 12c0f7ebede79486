"""Which parameters learn at which step, and at which share of the rate."""

import pytest
import torch

from triarch.errors import InvalidInput
from triarch.models import family
from triarch.training.parameters import depths, groups, matching, trained


def network(architecture="BertForSequenceClassification"):
    kind = family("bert")
    return kind.build(kind.tiny, architecture)


@pytest.fixture(scope="module")
def names():
    return [name for name, _ in network().named_parameters()]


def shares(made):
    return {name: group.share for group in made for name in group.parameters}


@pytest.mark.parametrize(
    "pattern, tops",
    [
        ("embeddings", {"embeddings"}),
        ("encoder.blocks.1", {"encoder.blocks.1"}),
        ("encoder.blocks.0-1", {"encoder.blocks.0", "encoder.blocks.1"}),
        ("head.labels, embeddings", {"head.labels", "embeddings"}),
        ("encoder.blocks.?", {"encoder.blocks.0", "encoder.blocks.1"}),
        ("head.labels.weight", {"head.labels.weight"}),
    ],
)
def test_a_pattern_names_modules_with_all_that_is_in_them(names, pattern, tops):
    wanted = {name for name in names if any(f"{name}.".startswith(f"{top}.") for top in tops)}
    assert matching(names, pattern) == wanted


def test_all_is_everything(names):
    assert matching(names, "all") == set(names)


def test_wildcards_reach_over_dots(names):
    found = matching(names, "*.attention_norm")
    assert found == {name for name in names if "attention_norm" in name}
    assert len(found) == 4


def test_a_block_is_not_one_whose_number_begins_alike():
    assert matching(["blocks.1.weight", "blocks.11.weight"], "blocks.1") == {"blocks.1.weight"}


@pytest.mark.parametrize(
    "pattern, message",
    [
        (
            "encoder.block.1",
            r"'encoder.block.1' matches no parameter that can learn \(did you mean encoder.blocks.1\?\)",
        ),
        ("xyz", r"'xyz' matches no parameter that can learn; there are embeddings, encoder, head"),
        ("encoder.blocks.0-5", r"'encoder.blocks.2' matches no parameter"),
        ("encoder.blocks.5-1", r"no blocks from 5 to 1; write the lower one first"),
        ("", r"'' matches no parameter"),
        ([3], r"pattern 3 is not a text"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused(names, pattern, message):
    with pytest.raises(InvalidInput, match=message):
        matching(names, pattern)


def test_what_is_frozen_never_learns():
    model = network()
    plan = trained(model, ["embeddings", "encoder.blocks.0"])
    plan.apply(0)
    model(torch.arange(8)[None]).logits.sum().backward()
    moved = {".".join(name.split(".")[:3]) for name, p in model.named_parameters() if p.grad is not None}
    assert {name for name in moved if name.startswith(("embeddings", "encoder.blocks.0"))} == set()
    assert "encoder.blocks.1" in moved


def test_frozen_parts_keep_their_mode():
    model = network().train()
    trained(model, "embeddings").apply(0)
    assert model.embeddings.dropout.training


def test_stages_are_a_function_of_the_step():
    plan = trained(network(), stages=["head:100", "head,encoder.blocks.1:200", "all"])
    tops = [{name.split(".")[0] for name in plan.at(step)} for step in (0, 99, 100, 199, 200, 10_000)]
    assert tops == [
        {"head"},
        {"head"},
        {"head", "encoder"},
        {"head", "encoder"},
        *[{"embeddings", "encoder", "head"}] * 2,
    ]


def test_stages_are_said_as_pairs_too():
    model = network()
    assert trained(model, stages=[("head", 100), (["all"], None)]) == trained(model, stages=["head:100", "all"])


def test_a_frozen_part_is_frozen_in_every_stage():
    plan = trained(network(), "embeddings", ["head:10", "all"])
    assert not [name for name in plan.names if name.startswith("embeddings")]


def test_going_back_to_an_earlier_stage_is_possible():
    model = network()
    plan = trained(model, stages=["head:10", "all"])
    plan.apply(10)
    plan.apply(9)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == plan.at(9)


def test_gradients_of_what_stops_learning_are_dropped():
    model = network()
    plan = trained(model, stages=["encoder:10", "head"])
    model(torch.arange(8)[None]).logits.sum().backward()
    plan.apply(10)
    assert all(p.grad is None for name, p in model.named_parameters() if name.startswith("encoder"))


def test_what_took_no_gradients_before_stays_so():
    model = network()
    model.embeddings.requires_grad_(False)
    plan = trained(model)
    plan.apply(0)
    assert not model.embeddings.token.weight.requires_grad
    with pytest.raises(InvalidInput, match=r"'embeddings' matches no parameter that can learn"):
        trained(model, "embeddings")


@pytest.mark.parametrize(
    "freeze, stages, message",
    [
        ("all", [], r"every parameter is frozen, wanted some that learn"),
        ("head", ["head:10", "all"], r"stage 1 \(head\) has only frozen parameters"),
        ((), ["head:10"], r"stage 1 \(head\) ends at step 10; every stage but the last one ends at a step"),
        ((), ["head", "all"], r"stage 1 \(head\) ends at step None; every stage but the last"),
        ((), ["head:10", "encoder:10", "all"], r"stage 2 \(encoder\) ends at step 10, before it begins"),
        ((), ["head:0", "all"], r"stage 1 \(head\) ends at step 0, before it begins"),
        ((), ["head:ten", "all"], r"stage 'head:ten' is not a pattern with a step"),
        ((), [("head", 1.5), "all"], r"stage \('head', 1.5\) is not a pattern with a step"),
    ],
)
def test_stages_that_make_no_plan_are_refused(freeze, stages, message):
    with pytest.raises(InvalidInput, match=message):
        trained(network(), freeze, stages)


def test_a_decoder_lies_above_its_encoder():
    names = ["token", "encoder.blocks.0.a", "encoder.blocks.1.a", "norm.b", "target.position", "decoder.blocks.0.a"]
    found = depths([*names, "decoder.blocks.1.a", "last_norm.b", "head.words"])
    assert found == dict(zip(found, [0, 1, 2, 2, 2, 3, 4, 5, 5], strict=True))


def test_only_matrices_decay():
    decays = {
        name: (group.weight_decay, parameter.ndim)
        for group in groups(network(), weight_decay=0.1)
        for name, parameter in group.parameters.items()
    }
    assert {name for name, (decay, ndim) in decays.items() if (decay > 0) != (ndim == 2)} == set()
    assert decays["embeddings.norm.weight"][0] == decays["head.labels.bias"][0] == 0
    assert decays["embeddings.token.weight"][0] == 0.1


def test_every_parameter_is_in_one_group_and_a_tied_one_once():
    model = network("BertForMaskedLM")
    found = [name for group in groups(model, layer_decay=0.9) for name in group.parameters]
    assert sorted(found) == sorted(name for name, _ in model.named_parameters())
    assert "head.words.out.weight" not in found


def test_hidden_are_the_matrices_between_embeddings_and_head():
    hidden = {name for group in groups(network()) if group.hidden for name in group.parameters}
    assert {name.split(".")[0] for name in hidden} == {"encoder"}
    assert all(name.endswith("weight") and "norm" not in name for name in hidden)


def test_a_layer_is_slower_than_the_one_above_it():
    found = shares(groups(network(), layer_decay=0.5))
    assert found["head.labels.weight"] == 1
    assert found["encoder.blocks.1.attention_norm.weight"] == 0.5
    assert found["encoder.blocks.0.attention_norm.weight"] == 0.25
    assert found["embeddings.norm.weight"] == found["embeddings.token.weight"] == 0.125


def test_depths_are_those_of_the_whole_model_when_parts_are_frozen():
    model = network()
    plan = trained(model, "head")
    assert shares(groups(model, plan.names, layer_decay=0.5))["encoder.blocks.1.attention_norm.weight"] == 0.5


def test_depth_of_what_has_no_number_is_where_it_stands():
    found = depths(["token.weight", "blocks.0.norm.weight", "blocks.1.norm.weight", "norm.weight", "head.2.weight"])
    assert list(found.values()) == [0, 1, 2, 3, 3]


def test_the_head_has_a_rate_of_its_own():
    found = shares(groups(network(), head_rate=10))
    assert {share for name, share in found.items() if name.startswith("head.")} == {10}
    assert {share for name, share in found.items() if not name.startswith("head.")} == {1}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"weight_decay": -0.1}, r"weight_decay is -0.1, wanted a number of at least 0"),
        ({"weight_decay": float("nan")}, r"weight_decay is nan"),
        ({"layer_decay": 0}, r"layer_decay is 0, wanted a number over 0 and at most 1"),
        ({"layer_decay": 1.5}, r"layer_decay is 1.5"),
        ({"head_rate": 0}, r"head_rate is 0, wanted a number over 0"),
    ],
)
def test_values_out_of_range_are_refused(options, message):
    with pytest.raises(InvalidInput, match=message):
        groups(network(), **options)


def test_a_model_without_gradients_has_no_groups():
    with pytest.raises(InvalidInput, match=r"no parameter takes gradients"):
        groups(network().requires_grad_(False))
