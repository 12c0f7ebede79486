"""Optimizers: the formulas of their papers, other implementations of them, and state that goes on to the bit."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from triarch.errors import CheckpointMismatch, InvalidInput
from triarch.models import family
from triarch.training.optimizers import OPTIMIZERS, Adafactor, optimizer, restore, set_rate, state_of
from triarch.training.parameters import Group, groups, trained

IDS = torch.arange(24).reshape(2, 12)


def network(seed=0, architecture="BertForSequenceClassification"):
    torch.manual_seed(seed)
    kind = family("bert")
    return kind.build(kind.tiny, architecture)


def named(model):
    return dict(model.named_parameters())


def step(model, made, number):
    """One update, at a rate and for a target that depend on the step's number alone."""
    set_rate(made, 1e-2 / (1 + number))
    loss = model(IDS).logits.sub(number % 3).square().mean()
    loss.backward()
    made.step()
    made.zero_grad()


def same(model, other):
    return all(torch.equal(one, named(other)[name]) for name, one in named(model).items())


def grouped(parameter, weight_decay=0.0, hidden=False):
    return [Group({"weight": parameter}, 1.0, weight_decay, hidden)]


def gradients(*shape, count=6):
    torch.manual_seed(1)
    return [torch.randn(*shape) * 10 ** -(i % 3) for i in range(count)]


def follow(model, optimizers, number):
    """One update with gradients and a rate that depend on the step's number alone."""
    torch.manual_seed(number)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter) * 10.0 ** -(number % 4)
    for made in optimizers:
        for group in made.param_groups:
            group["lr"] = 1e-2 / (1 + number)
        made.step()


def assert_close(model, other):
    for name, parameter in named(model).items():
        torch.testing.assert_close(parameter, named(other)[name], rtol=0, atol=1e-6)


def decaying(model, names):
    """Groups as torch.optim takes them, with a weight decay on matrices alone."""
    return [{"params": [p], "weight_decay": 0.1 if p.ndim >= 2 else 0.0} for n, p in named(model).items() if n in names]


def test_adamw_is_the_plain_one_of_torch():
    ours, theirs = network(), network()
    plain = torch.optim.AdamW(decaying(theirs, named(theirs)), fused=False)
    made = optimizer("adamw", groups(ours, weight_decay=0.1), 1e-2)
    for number in range(20):
        follow(ours, [made], number)
        follow(theirs, [plain], number)
    assert_close(ours, theirs)


def test_adamw_takes_the_fused_step_on_a_cpu():
    assert optimizer("adamw", groups(network()), 1e-3).defaults["fused"] is True


def test_lion_is_worked_out_by_hand():
    # beta1 0.5, beta2 0.75, rate 0.1, decay 0.5. The shrinking is 1 - 0.1 * 0.5 = 0.95
    # step 1: c = 0.5 * 0 + 0.5 * 4 = 2 > 0, w = 1 * 0.95 - 0.1 = 0.85, m = 0.25 * 4 = 1
    # step 2: c = 0.5 * 1 - 0.5 * 0.8 = 0.1 > 0 against the gradient's own sign, w = 0.85 * 0.95 - 0.1 = 0.7075,
    #         m = 0.75 * 1 - 0.25 * 0.8 = 0.55
    # step 3: c = 0.5 * 0.55 - 0.5 * 2 < 0, w = 0.7075 * 0.95 + 0.1 = 0.772125
    weight = torch.nn.Parameter(torch.ones(1, 1))
    made = optimizer("lion", grouped(weight, weight_decay=0.5), 0.1, beta1=0.5, beta2=0.75)
    found = []
    for gradient in (4.0, -0.8, -2.0):
        weight.grad = torch.full((1, 1), gradient)
        made.step()
        found.append(weight.item())
    assert found == pytest.approx([0.85, 0.7075, 0.772125])


def test_lion_stands_still_without_a_gradient_sign():
    weight = torch.nn.Parameter(torch.ones(2))
    made = optimizer("lion", grouped(weight), 0.1)
    weight.grad = torch.zeros(2)
    made.step()
    assert weight.tolist() == [1, 1]


@pytest.mark.parametrize("shape", [(5,), (4, 6), (6, 4), (2, 3, 4)])
@pytest.mark.parametrize("scaled", [True, False])
def test_adafactor_is_the_references(shape, scaled):
    from transformers.optimization import Adafactor as Reference

    torch.manual_seed(0)
    start = torch.randn(*shape)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    made = optimizer("adafactor", grouped(ours, weight_decay=0.1), 1e-2, scale_parameter=scaled)
    reference = Reference([theirs], lr=1e-2, weight_decay=0.1, scale_parameter=scaled, relative_step=False)
    for gradient in gradients(*shape):
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        made.step()
        reference.step()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_adafactor_learns_from_tiny_gradients():
    weight = torch.nn.Parameter(torch.ones(4, 4))
    made = optimizer("adafactor", grouped(weight), 1e-2)
    weight.grad = gradients(4, 4)[0] * 1e-9
    made.step()
    assert (weight - 1).abs().mean() > 5e-3


def test_adafactor_keeps_a_row_and_a_column_of_each_matrix():
    weight = torch.nn.Parameter(torch.ones(30, 20))
    made = optimizer("adafactor", grouped(weight), 1e-2)
    weight.grad = torch.ones(30, 20)
    made.step()
    assert sum(slot.numel() for slot in made.state[weight].values()) == 30 + 20 + 1


def test_adafactor_leaves_rows_without_a_gradient():
    weight = torch.nn.Parameter(torch.ones(4, 3))
    made = optimizer("adafactor", grouped(weight), 1e-2)
    weight.grad = torch.tensor([[1.0] * 3, *[[0.0] * 3] * 3])
    made.step()
    assert weight[1:].tolist() == [[1.0] * 3] * 3


def test_muon_is_that_of_torch_on_hidden_matrices_and_adamw_on_the_rest():
    ours, theirs = network(), network()
    made = optimizer("muon", groups(ours, weight_decay=0.1), 1e-2)
    hidden = [name for name, p in named(theirs).items() if name.startswith("encoder.") and p.ndim == 2]
    rest = named(theirs).keys() - hidden
    parts = [
        torch.optim.Muon(decaying(theirs, hidden), adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(decaying(theirs, rest)),
    ]
    for number in range(5):
        follow(ours, [made], number)
        follow(theirs, parts, number)
    assert len(hidden) == 12
    assert_close(ours, theirs)


def test_sgd_is_worked_out_by_hand():
    weight = torch.nn.Parameter(torch.zeros(1))
    made = optimizer("sgd", grouped(weight), 0.1, momentum=0.5)
    for _ in range(3):
        weight.grad = torch.ones(1)
        made.step()
    assert weight.item() == pytest.approx(-0.1 * (1 + 1.5 + 1.75))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_loss_falls(name):
    model = network()
    made = optimizer(name, groups(model), 1e-2)
    losses = []
    for _ in range(25):
        loss = model(IDS).logits.sub(torch.tensor([0.5, -0.5])).square().mean()
        losses.append(loss.item())
        loss.backward()
        made.step()
        made.zero_grad()
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_two_runs_are_the_same_to_the_bit(name):
    models = network(), network()
    for model in models:
        made = optimizer(name, groups(model, weight_decay=0.1), 1e-2)
        for number in range(3):
            step(model, made, number)
    assert same(*models)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_went_through_files_goes_on_to_the_bit(name, tmp_path):
    whole = network()
    made = optimizer(name, groups(whole, weight_decay=0.1), 1e-2)
    for number in range(3):
        step(whole, made, number)
    tensors, scalars = state_of(made, named(whole))
    save_file(tensors, tmp_path / "optimizer.safetensors")
    (tmp_path / "optimizer.json").write_text(json.dumps(scalars))
    weights = copy.deepcopy(whole.state_dict())
    for number in range(3, 6):
        step(whole, made, number)

    resumed = network(seed=1)
    resumed.load_state_dict(weights)
    again = optimizer(name, groups(resumed, weight_decay=0.1), 1e-2)
    held = json.loads((tmp_path / "optimizer.json").read_text())
    restore(again, load_file(tmp_path / "optimizer.safetensors"), held, named(resumed))
    for number in range(3, 6):
        step(resumed, again, number)
    assert same(whole, resumed)
    before, after = (state_of(*one)[0] for one in ((made, named(whole)), (again, named(resumed))))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_frozen_has_no_state_and_the_state_still_goes_on(name):
    model = network()
    plan = trained(model, stages=["head,encoder.blocks.1:9", "all"])
    made = optimizer(name, groups(model), 1e-2)
    plan.apply(0)
    step(model, made, 0)
    tensors, scalars = state_of(made, named(model))
    assert {key.split(".")[0] for key in tensors} == {"head", "encoder"}
    again = optimizer(name, groups(model, plan.names), 1e-2)
    restore(again, tensors, scalars, named(model))
    assert state_of(again, named(model))[1] == scalars


def test_restored_state_is_a_copy():
    model = network()
    made = optimizer("adamw", groups(model), 1e-2)
    step(model, made, 0)
    tensors, scalars = state_of(made, named(model))
    again = optimizer("adamw", groups(model), 1e-2)
    restore(again, tensors, scalars, named(model))
    step(model, again, 1)
    assert made.state[next(model.parameters())]["step"] == 1


def test_a_group_has_its_share_of_the_rate():
    model = network()
    made = optimizer("adamw", groups(model, layer_decay=0.5), 1.0)
    set_rate(made, 0.1)
    rates = {id(p): group["lr"] for group in made.param_groups for p in group["params"]}
    assert rates[id(model.head.labels.weight)] == pytest.approx(0.1)
    assert rates[id(model.embeddings.token.weight)] == pytest.approx(0.1 * 0.5**3)


def saved(name="adamw", architecture="BertForSequenceClassification"):
    model = network(architecture=architecture)
    made = optimizer(name, groups(model), 1e-2)
    step(model, made, 0)
    return state_of(made, named(model))


@pytest.mark.parametrize("other", [name for name in OPTIMIZERS if name != "adamw"])
def test_state_of_another_optimizer_is_refused(other):
    model = network()
    with pytest.raises(InvalidInput, match=rf"state is that of optimizer '{other}', wanted adamw"):
        restore(optimizer("adamw", groups(model), 1e-2), *saved(other), named(model))


def test_state_of_another_model_is_refused():
    model = network(architecture="BertForTokenClassification")
    made = optimizer("adamw", groups(model), 1e-2)
    with pytest.raises(CheckpointMismatch, match=r"does not fit the state of optimizer adamw.*unexpected"):
        restore(made, *saved(), named(model))


def test_damaged_state_is_refused_and_nothing_is_changed():
    model = network()
    made = optimizer("adamw", groups(model), 1e-2)
    step(model, made, 0)
    before = {key: tensor.clone() for key, tensor in state_of(made, named(model))[0].items()}
    tensors, scalars = saved()
    for change in (
        {"head.labels.bias.exp_avg": torch.zeros(3)},
        {"head.labels.bias.exp_avg": torch.zeros(2, dtype=torch.float64)},
        {"head.labels.bias.step": torch.zeros(1)},
        {"head.labels.bias.extra": torch.zeros(2)},
    ):
        with pytest.raises(CheckpointMismatch, match=r"head\.labels\.bias"):
            restore(made, tensors | change, scalars, named(model))
    lacking = {key: tensor for key, tensor in tensors.items() if key != "head.labels.bias.exp_avg"}
    with pytest.raises(CheckpointMismatch, match=r"1 missing \(head\.labels\.bias\.exp_avg\)"):
        restore(made, lacking, scalars, named(model))
    after = state_of(made, named(model))[0]
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("adam", {}, r"no optimizer 'adam' \(did you mean adamw\?\); there are adamw, lion, adafactor, muon, sgd"),
        ("adamw", {"beta3": 1}, r"optimizer adamw has no option 'beta3' \(did you mean beta[12]\?\); it takes beta1"),
        ("adamw", {"beta1": 1.0}, r"beta1 of 1 never forgets"),
        ("adamw", {"beta2": float("nan")}, r"beta2 is nan, wanted a number of at least 0 and at most 1"),
        ("adamw", {"eps": -1}, r"eps is -1, wanted a number of at least 0"),
        ("lion", {"eps": 1e-8}, r"optimizer lion has no option 'eps'"),
        ("adafactor", {"eps": 1e-8}, r"eps is 1e-08, wanted two numbers"),
        ("adafactor", {"eps": [0, 1e-3]}, r"eps is 0, wanted a number over 0"),
        ("adafactor", {"scale_parameter": 1}, r"scale_parameter is 1, wanted true or false"),
        ("muon", {"momentum": 2}, r"momentum is 2, wanted a number of at least 0 and at most 1"),
        ("sgd", {"momentum": 0, "nesterov": True}, r"nesterov is True, wanted false, or true with some momentum"),
    ],
)
def test_wrong_options_are_refused(name, options, message):
    with pytest.raises(InvalidInput, match=message):
        optimizer(name, groups(network()), 1e-3, **options)


@pytest.mark.parametrize("lr", [0, -1.0, float("nan"), float("inf"), "1e-3", True])
def test_a_rate_that_is_none_is_refused(lr):
    with pytest.raises(InvalidInput, match=r"learning rate is .*, wanted a number over 0"):
        optimizer("adamw", groups(network()), lr)


def test_muon_without_hidden_matrices_is_refused():
    model = network()
    model.encoder.requires_grad_(False)
    model.head.pooler.requires_grad_(False)
    with pytest.raises(InvalidInput, match=r"muon found no matrix of a hidden layer that learns.*take adamw"):
        optimizer("muon", groups(model), 1e-3)


def test_adafactor_steps_are_bounded_by_its_clip():
    weight = torch.nn.Parameter(torch.zeros(50))
    made = Adafactor(
        [{"params": [weight], "weight_decay": 0.0}], lr=0.1, decay=0.8, clip=0.5, eps=(1e-30, 1e-3), scaled=False
    )
    weight.grad = gradients(50)[0]
    made.step()
    assert weight.detach().square().mean().sqrt().item() == pytest.approx(0.05, rel=1e-5)
