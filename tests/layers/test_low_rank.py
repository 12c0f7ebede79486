"""Low-rank adapters: the layer, the files of the peft library in both directions, and new heads beside them."""

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import tiny
import triarch
from batches import inputs
from triarch import checkpoint
from triarch.checkpoint import choose
from triarch.errors import (
    CheckpointMismatch,
    CorruptFile,
    InvalidInput,
    LimitExceeded,
    NotFound,
    UnsafeFile,
    Unsupported,
)
from triarch.family import EncoderDecoder
from triarch.files import Folder
from triarch.kinds import Text
from triarch.layers import low_rank
from triarch.layers.low_rank import LowRank
from triarch.models import families, family
from triarch.weights import Layout, Stored, adapters, table

GOLDENS = {
    path.stem: json.loads(path.read_text("utf-8")) for path in Path(__file__).parents[1].glob("goldens/peft/*.json")
}
CASES = [(name, head) for name in families() for head in family(name).heads]
IDS = {"input_ids": torch.tensor([[2, 40, 51, 62, 73, 3]])}


def randomized(model, seed=0):
    """The model with every trainable parameter moved from where it was: fresh adapters change nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def same(got, want):
    for ours, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5 * max(1.0, float(theirs.abs().max())), rtol=1e-5)


def answer(model, **inputs):
    with torch.no_grad():
        return model(**inputs or IDS)


@pytest.fixture
def base(tmp_path):
    """The folder of a classifier."""
    return tiny.write_checkpoint(tmp_path / "base", **tiny.MODELS["bert-labels"])


@pytest.fixture
def model(base):
    """The same, loaded and wrapped."""
    model = triarch.load(base)
    low_rank.wrap(model, rank=4, alpha=6.0)
    return randomized(model)


@pytest.fixture
def adapter(model, base, tmp_path):
    """A folder with its adapter."""
    checkpoint.save_adapter(model, tmp_path / "adapter", base=base)
    return tmp_path / "adapter"


def reconfigure(folder, name="adapter_config.json", **changes):
    raw = json.loads((folder / name).read_text()) | changes
    (folder / name).write_text(json.dumps({key: value for key, value in raw.items() if value is not ...}))


def rewrite(folder, change):
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(change(dict(tensors)), folder / "adapter_model.safetensors")


# The layer


def test_a_fresh_layer_gives_what_the_linear_one_gives():
    linear, x = nn.Linear(6, 4), torch.randn(3, 6)
    assert torch.equal(LowRank(linear, 2, 8.0)(x), linear(x))


@pytest.mark.parametrize("rslora, scale", [(False, 8 / 4), (True, 8 / 2)])
def test_the_layer_adds_the_scaled_product(rslora, scale):
    linear, x = nn.Linear(6, 5), torch.randn(3, 6)
    layer = randomized(LowRank(linear, 4, 8.0, rslora=rslora))
    torch.testing.assert_close(layer(x), linear(x) + scale * (x @ layer.a.T @ layer.b.T))


def test_the_first_matrix_is_drawn_as_in_the_papers_code_and_from_the_generator_given():
    linear = nn.Linear(64, 64)
    first, again = (LowRank(linear, 32, 8.0, generator=torch.Generator().manual_seed(1)).a for _ in range(2))
    assert torch.equal(first, again)
    bound = 1 / math.sqrt(64)  # kaiming_uniform_ with a = sqrt(5)
    assert 0.95 * bound < first.abs().max() <= bound


def test_dropout_is_before_the_product_and_only_in_training():
    layer = randomized(LowRank(nn.Linear(64, 8), 4, 8.0, dropout=0.5))
    x = torch.randn(16, 64)
    assert not torch.equal(layer.train()(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))
    layer.train()
    with torch.no_grad():
        layer.b.zero_()
    assert torch.equal(layer(x), layer.linear(x))  # the frozen way has none


def test_merging_adds_up_in_float32():
    linear = nn.Linear(6, 5).bfloat16()
    layer = randomized(LowRank(linear, 2, 3.0))
    want = (linear.weight.float() + 1.5 * (layer.b.float() @ layer.a.float())).bfloat16()
    assert torch.equal(layer.merged().weight, want)


# The model


def test_only_adapters_and_the_head_learn(model):
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {
        name for name in dict(model.named_parameters()) if name.endswith((".a", ".b")) or "head." in name
    }
    model(**IDS).logits.sum().backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in model.parameters())


def test_what_the_head_shares_with_the_embedding_stays_frozen():
    model = copy.deepcopy(tiny.load("bert-words"))
    low_rank.wrap(model)
    assert not model.head.words.out.weight.requires_grad
    assert model.head.words.out.bias.requires_grad


@pytest.mark.parametrize("name", families())
def test_by_default_every_linear_layer_of_the_blocks_is_wrapped(name):
    model = family(name).build(family(name).tiny, next(iter(family(name).heads)))
    wanted = [
        name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and "blocks." in name
    ]
    assert len(wanted) >= 2 * 4
    assert low_rank.wrap(model) == wanted == [*low_rank.wrapped(model)]


@pytest.mark.parametrize("targets", [r".*\.(q|v)", ["q", "v"], ["attention.q", "attention.v"]])
def test_targets_are_an_expression_or_ends_of_names(targets):
    model = copy.deepcopy(tiny.load("bert-labels"))
    assert low_rank.wrap(model, targets) == [
        f"encoder.blocks.{i}.attention.{layer}" for i in range(2) for layer in "qv"
    ]


def test_names_of_a_wrapped_model_are_stable(model):
    own = {name for name in model.state_dict() if "blocks.0.attention.q." in name}
    assert own == {f"encoder.blocks.0.attention.q.{part}" for part in ("linear.weight", "linear.bias", "a", "b")}


def test_a_wrapped_model_keeps_its_mode():
    model = copy.deepcopy(tiny.load("bert-labels"))
    low_rank.wrap(model, dropout=0.5)
    randomized(model)
    same(answer(model), answer(model))
    assert not any(module.training for module in model.modules())


def test_merged_is_the_same_to_rounding_and_plain_again(model):
    want, plain = answer(model), tiny.load("bert-labels")
    assert low_rank.merge(model)
    assert not low_rank.wrapped(model)
    same(answer(model), want)
    assert table.parameters(model).keys() == table.parameters(plain).keys()
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_merged_model_is_saved_and_a_wrapped_one_refused(model, tmp_path):
    with pytest.raises(InvalidInput, match="merge them first, or use save_adapter"):
        triarch.save(model, tmp_path / "whole")
    want = answer(model)
    low_rank.merge(model)
    triarch.save(model, tmp_path / "whole")
    same(answer(triarch.load(tmp_path / "whole")), want)


BAD = [
    ({"targets": "nothing"}, "'nothing' fits no linear layer outside the head"),
    ({"targets": "head.labels"}, "'head.labels' fits no linear layer outside the head"),
    ({"targets": "("}, "is no regular expression"),
    ({"targets": ["kk"]}, "no linear layer 'kk' outside the head"),
    ({"targets": ["ups"]}, r"did you mean up\?"),
    ({"targets": []}, "wanted a regular expression or a list of names"),
    ({"rank": 0}, "rank is 0"),
    ({"rank": True}, "rank is True"),
    ({"alpha": math.nan}, "alpha is nan"),
    ({"alpha": -1.0}, "alpha is -1.0"),
    ({"dropout": 1.0}, "dropout is 1.0"),
]


@pytest.mark.parametrize("options, message", BAD)
def test_wrapping_refuses_by_name_and_leaves_the_model_alone(options, message):
    model = copy.deepcopy(tiny.load("bert-labels"))
    with pytest.raises(InvalidInput, match=message):
        low_rank.wrap(model, **options)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_wrapped_model_is_not_wrapped_again(model):
    with pytest.raises(InvalidInput, match="wrapped already"):
        low_rank.wrap(model)


# Files of peft


@pytest.mark.parametrize("name", GOLDENS)
def test_what_peft_wrote_gives_what_peft_gives(name, tmp_path):
    golden = GOLDENS[name]
    base = tiny.write_checkpoint(tmp_path / "base", **tiny.MODELS[name])
    (tmp_path / "adapter_config.json").write_text(json.dumps(golden["config"]))
    tensors = {key: torch.from_numpy(tiny.values(key, tuple(shape))) for key, shape in golden["shapes"].items()}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    model = triarch.load(tmp_path, base=base)
    want = torch.tensor(golden["scores"])
    inputs = {key: torch.tensor(rows) for key, rows in golden["inputs"].items()}
    scores = answer(model, **inputs).logits[..., : want.shape[-1]]
    if scores.ndim == 3:  # what padding gives nobody reads
        scores, want = (part[inputs["attention_mask"] == 1] for part in (scores, want))
    torch.testing.assert_close(scores, want, atol=1e-5, rtol=1e-5)
    assert model.processor is not None


def test_we_write_what_peft_writes(adapter):
    golden = GOLDENS["bert-labels"]
    shapes = {key: [*tensor.shape] for key, tensor in load_file(adapter / "adapter_model.safetensors").items()}
    assert shapes == golden["shapes"]
    ours, theirs = json.loads((adapter / "adapter_config.json").read_text()), golden["config"]
    for key in ("peft_type", "task_type", "r", "lora_alpha", "bias", "use_rslora", "fan_in_fan_out", "inference_mode"):
        assert ours[key] == theirs[key], key
    assert set(ours["modules_to_save"]) == set(theirs["modules_to_save"]) - {"score"}  # of other families
    adapted = {key[len("base_model.model.") : -len(".lora_A.weight")] for key in shapes if "lora_A" in key}
    assert set(ours["target_modules"]) == adapted


@pytest.mark.parametrize("name, head", CASES)
def test_saved_and_loaded_every_head_gives_the_same(name, head, tmp_path):
    kind = family(name)
    torch.manual_seed(0)
    triarch.save(kind.build(kind.tiny, head), tmp_path / "base")
    model = triarch.load(tmp_path / "base")
    low_rank.wrap(model, rank=2, rslora=True)
    ids = torch.tensor([[5, 6, 7], [8, 9, 1]])
    ids = ids[None] if head.endswith("MultipleChoice") else ids
    given = {"input_ids": ids} if kind.reads.medium is Text else inputs(name, head)
    if issubclass(kind.network, EncoderDecoder):
        ids[:, -1] = model.config.to_hf()["eos_token_id"]
        given["decoder_input_ids"] = ids
    want = answer(randomized(model), **given)
    checkpoint.save_adapter(model, tmp_path / "adapter", base=tmp_path / "base")
    again = triarch.load(tmp_path / "adapter")
    assert again.architecture == head
    assert not low_rank.wrapped(again)
    got = answer(again, **given)
    same([part for part in got if part is not None], [part for part in want if part is not None])


def test_an_adapter_folder_has_labels_and_tokenizer_of_its_own(base, tmp_path):
    model = triarch.load(base, new_head=True, labels=["no", "yes"])
    low_rank.wrap(model)
    checkpoint.save_adapter(randomized(model), tmp_path / "adapter", base=base)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (base / name).unlink(missing_ok=True)
    (base / "vocab.txt").unlink()
    again = triarch.load(tmp_path / "adapter")
    assert [*again.config.id2label.values()] == ["no", "yes"]
    assert again.processor.encode("Paris").ids == model.processor.encode("Paris").ids
    same(answer(again), answer(model))


def test_a_file_that_trains_a_tied_embedding_apart_is_refused(tmp_path):
    base = tiny.write_checkpoint(tmp_path / "base", **tiny.MODELS["bert-words"])
    model = triarch.load(base)
    low_rank.wrap(model)
    checkpoint.save_adapter(model, tmp_path / "adapter", base=base)
    name = "base_model.model.cls.predictions.decoder.weight"
    triarch.load(tmp_path / "adapter")  # a copy that is the same will do
    rewrite(tmp_path / "adapter", lambda tensors: tensors | {name: tensors[name] + 1})
    with pytest.raises(Unsupported, match=r"decoder.weight apart from bert.embeddings.word_embeddings.weight"):
        triarch.load(tmp_path / "adapter")


def test_a_bias_that_the_base_keeps_twice_is_the_adapters(tmp_path):
    base = tiny.write_checkpoint(tmp_path / "base", **tiny.MODELS["bert-words"])
    model = triarch.load(base)
    low_rank.wrap(model)
    checkpoint.save_adapter(randomized(model), tmp_path / "adapter", base=base)
    copied = "base_model.model.cls.predictions.decoder.bias"
    rewrite(tmp_path / "adapter", lambda tensors: {key: value for key, value in tensors.items() if key != copied})
    same(answer(triarch.load(tmp_path / "adapter")), answer(model))


def test_a_legacy_file_is_read(adapter, model):
    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    same(answer(triarch.load(adapter)), answer(model))


@pytest.mark.parametrize("task", ["SEQ_CLS", None])
def test_without_a_config_the_head_is_the_one_that_the_adapter_names(task, tmp_path):
    tiny.write_checkpoint(tmp_path / "base", "bert", "BertForPreTraining")
    model = triarch.load(tmp_path / "base", scores=["LabelScores"], new_head=True)
    low_rank.wrap(model)
    checkpoint.save_adapter(randomized(model), tmp_path / "adapter", base=tmp_path / "base")
    (tmp_path / "adapter" / "config.json").unlink()
    reconfigure(tmp_path / "adapter", task_type=task, **({"auto_mapping": None} if task else {}))
    again = triarch.load(tmp_path / "adapter")
    assert again.architecture == "BertForSequenceClassification"
    same(answer(again), answer(model))


# Where the base is


def test_a_base_inside_the_folder_goes_by_its_name(adapter, base, model):
    base.rename(adapter / "start")
    reconfigure(adapter, base_model_name_or_path="start")
    same(answer(triarch.load(adapter)), answer(model))


def test_an_adapter_on_an_adapter_adds_up(adapter, tmp_path):
    model = triarch.load(adapter)
    low_rank.wrap(model, rank=2)
    checkpoint.save_adapter(randomized(model), tmp_path / "second", base=adapter)
    same(answer(triarch.load(tmp_path / "second")), answer(model))


def test_an_adapter_on_itself_is_refused(adapter):
    reconfigure(adapter, base_model_name_or_path=str(adapter))
    with pytest.raises(LimitExceeded, match="on over 3 others, or on itself"):
        triarch.load(adapter)


HOSTILE = [
    "../base",
    "a/../../base",
    "https://evil.example/model",
    "~/model",
    "file:///etc",
    "a\\b",
    "a\nb",
    ".",
    "./base",
    "a/b/c",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_base_that_leads_elsewhere_is_unsafe(adapter, name):
    reconfigure(adapter, base_model_name_or_path=name)
    with pytest.raises(UnsafeFile, match="if you trust it, give it as base="):
        triarch.load(adapter)


def test_a_revision_that_is_none_is_unsafe(adapter):
    reconfigure(adapter, base_model_name_or_path="team/model", revision="../../refs")
    with pytest.raises(UnsafeFile, match="names the revision"):
        triarch.load(adapter)


@pytest.mark.parametrize("name", ["", None])
def test_a_base_that_is_not_named_has_to_be_given(adapter, base, name):
    reconfigure(adapter, base_model_name_or_path=name)
    with pytest.raises(InvalidInput, match="names no base model"):
        triarch.load(adapter)
    assert triarch.load(adapter, base=base)


def test_a_link_out_of_the_folder_is_no_base_inside(adapter, base, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (adapter / "inside").symlink_to(base)
    assert adapters.base_of(Folder(adapter), adapters.read(Folder(adapter))) == str(base)
    reconfigure(adapter, base_model_name_or_path="inside")
    assert adapters.base_of(Folder(adapter), adapters.read(Folder(adapter))) == "inside"


def test_a_base_that_is_gone_is_not_found(adapter):
    reconfigure(adapter, base_model_name_or_path="/nowhere/at/all")
    with pytest.raises(NotFound, match="/nowhere/at/all"):
        triarch.load(adapter)


def test_a_folder_with_a_model_and_an_adapter_is_refused(adapter, base):
    (adapter / "model.safetensors").write_bytes((base / "model.safetensors").read_bytes())
    with pytest.raises(InvalidInput, match="beside an adapter"):
        triarch.load(adapter)


def test_a_base_for_what_is_no_adapter_is_refused(base):
    with pytest.raises(InvalidInput, match=r"holds no adapter_config\.json"):
        triarch.load(base, base=base)


# What does not fit


def test_all_that_does_not_fit_is_in_one_error(adapter):
    prefix = "base_model.model.bert.encoder.layer"

    def spoil(tensors):
        del tensors[f"{prefix}.0.attention.self.query.lora_B.weight"]
        tensors[f"{prefix}.0.attention.self.key.lora_A.weight"] = torch.zeros(4, 31)
        tensors[f"{prefix}.1.attention.self.key.lora_A.weight"] = torch.zeros(4, 32, dtype=torch.int8)
        tensors[f"{prefix}.7.attention.self.key.lora_A.weight"] = torch.zeros(4, 32)
        tensors["base_model.model.nonsense"] = torch.zeros(2)
        return tensors

    rewrite(adapter, spoil)
    with pytest.raises(CheckpointMismatch) as refused:
        triarch.load(adapter)
    assert refused.value.missing == [
        "bert.encoder.layer.0.attention.self.query.weight: lora_B",
        "bert.encoder.layer.7.attention.self.key.weight: lora_B",
    ]
    assert refused.value.unexpected == ["bert.encoder.layer.7.attention.self.key.weight", "nonsense"]
    assert len(refused.value.misshaped) == 2
    assert "lora_A is [4, 31] of torch.float32, base and rank ask [4, 32]" in refused.value.misshaped[0]


@pytest.mark.parametrize("old", ["base_model.model.", "base_model.model.bert."])
def test_a_tensor_under_two_spellings_is_corrupt(adapter, old):
    name = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight"
    rewrite(adapter, lambda tensors: tensors | {name.removeprefix(old): tensors[name].clone()})
    with pytest.raises(CorruptFile, match="under two spellings"):
        triarch.load(adapter)


def test_a_rank_that_is_not_the_tensors_is_a_mismatch(adapter):
    reconfigure(adapter, r=5)
    with pytest.raises(CheckpointMismatch, match=r"base and rank ask \[5, 32\]"):
        triarch.load(adapter)


def test_another_base_is_a_mismatch(adapter, tmp_path):
    other = tiny.write_checkpoint(tmp_path / "other", **tiny.MODELS["distilbert-labels"])
    with pytest.raises(CheckpointMismatch, match="name its own with base="):
        triarch.load(adapter, base=other)


@pytest.mark.parametrize(
    "change",
    [
        {"peft_type": "IA3"},
        {"peft_type": None},
        {"use_dora": True},
        {"bias": "all"},
        {"lora_bias": True},
        {"rank_pattern": {".*": 3}},
        {"alpha_pattern": {".*": 3}},
        {"init_lora_weights": "pissa"},
        {"layer_replication": [[0, 2]]},
        {"mathematics_of_the_future": "on"},
    ],
)
def test_mathematics_that_we_do_not_have_is_refused(adapter, change):
    reconfigure(adapter, **change)
    with pytest.raises(Unsupported, match=next(iter(change))):
        triarch.load(adapter)


@pytest.mark.parametrize(
    "change", [{"r": 0}, {"r": "8"}, {"r": True}, {"lora_alpha": None}, {"lora_alpha": 1e300}, {"task_type": 5}]
)
def test_a_config_that_breaks_its_format_is_corrupt(adapter, change):
    reconfigure(adapter, **change)
    with pytest.raises(CorruptFile, match=next(iter(change))):
        triarch.load(adapter)


def test_a_config_that_is_no_object_is_corrupt(adapter):
    (adapter / "adapter_config.json").write_text("[]")
    with pytest.raises(CorruptFile, match="wanted an object"):
        triarch.load(adapter)


def test_adapters_of_fused_layers_are_not_implemented(model, tmp_path):
    rows = model.family.weights.rows | {"encoder.blocks.#.attention.q.*": Stored("bert.#.q.*", of=3)}
    factors = {name: (layer.a, layer.b) for name, layer in low_rank.wrapped(model).items()}
    settings = adapters.Settings(4, 6.0, 0.0, False, "base", "LabelScores", model.architecture)
    with pytest.raises(Unsupported, match="fused"):
        adapters.write(model, factors, settings, Layout(rows=rows), tmp_path)


def test_a_model_without_adapters_has_none_to_save(base, tmp_path):
    with pytest.raises(InvalidInput, match=r"no kinds of low-rank adapters.*wrap\(\) it first"):
        checkpoint.save_adapter(triarch.load(base), tmp_path / "adapter", base=base)


# New heads


def test_the_first_head_of_the_family_that_gives_the_scores():
    assert choose.giving(family("roberta"), "SpanScores") == "RobertaForQuestionAnswering"
    with pytest.raises(Unsupported, match="distilbert has no head that gives FollowsScores; its heads give Features,"):
        choose.giving(family("distilbert"), "FollowsScores")


def test_a_new_head_is_found_by_its_scores(tmp_path):
    tiny.write_checkpoint(tmp_path, **tiny.MODELS["roberta-words"])
    model = triarch.load(tmp_path, scores=("LabelScores",), new_head=True, labels=["a", "b", "c"])
    assert model.architecture == "RobertaForSequenceClassification"
    assert sorted(model.fresh) == ["head.dense.bias", "head.dense.weight", "head.labels.bias", "head.labels.weight"]
    with pytest.raises(Unsupported, match="no head that gives LabelScores"):
        triarch.load(tmp_path, scores=("LabelScores",))


def test_a_head_for_another_number_of_labels_is_started_afresh_and_the_rest_is_kept(base):
    model = triarch.load(base, new_head=True, labels=["no", "yes"])
    assert sorted(model.fresh) == ["head.labels.bias", "head.labels.weight"]
    assert torch.equal(model.head.pooler.dense.weight, tiny.load("bert-labels").head.pooler.dense.weight)
    assert model.head.labels.weight.std().item() == pytest.approx(0.02, rel=0.5)
    with pytest.raises(CheckpointMismatch, match=r"classifier.weight: found \[3, 32\], config asks \[2, 32\]"):
        triarch.load(base, labels=["no", "yes"])


def test_a_head_for_the_same_labels_is_kept_and_one_for_others_starts_afresh(base):
    own = list(triarch.load(base).config.id2label.values())
    assert [*triarch.load(base, new_head=True, labels=own).fresh] == []
    others = triarch.load(base, new_head=True, labels=[f"new {name}" for name in own])
    assert sorted(others.fresh) == ["head.labels.bias", "head.labels.weight"]


def test_a_new_head_does_not_take_the_weights_of_another_kind(base):
    model = triarch.load(base, scores=("TokenScores",), new_head=True)
    assert sorted(model.fresh) == ["head.tags.bias", "head.tags.weight"]


def test_a_head_that_we_do_not_know_is_none(base):
    reconfigure(base, "config.json", architectures=["BertForSomethingElse"])
    model = triarch.load(base, scores=("SpanScores",), new_head=True)
    assert model.architecture == "BertForQuestionAnswering"


def test_nothing_is_fresh_in_a_whole_checkpoint(base):
    assert [*triarch.load(base).fresh] == []
