"""ViT beside the reference: heads, sizes, older and newer files, and what is refused."""

import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import samples_of_images as samples
import triarch
from decoders import close
from triarch.errors import CheckpointMismatch, InvalidInput, Unsupported
from triarch.kinds import Image
from triarch.models import family

HEADS = ["ViTModel", "ViTForImageClassification", "ViTForMaskedImageModeling"]
NAME = "ViTForImageClassification"
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
TINY |= {"image_size": 24, "patch_size": 8, "encoder_stride": 8}
VARIATIONS = {
    "tiny": {},
    "no biases": {"qkv_bias": False},
    "three labels": {"num_labels": 3},
    "grey": {"num_channels": 1},
    "other activations": {"hidden_act": "gelu_new", "pooler_act": "relu"},
    "edges left over": {"image_size": 27},
}


def reference(folder, head=NAME, **config):
    """A random reference model, saved as the reference saves."""
    torch.manual_seed(0)
    model = getattr(transformers, head)(transformers.ViTConfig(**TINY | config)).eval()
    for tensor in model.parameters():
        torch.nn.init.normal_(tensor, std=0.5 if tensor.dim() == 1 else 0.2)
    model.save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": 24, "width": 24}).save_pretrained(folder)
    return model


def pixels(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def assert_agree(ours, theirs, *inputs, **options):
    got, want = ours(*inputs, **options), theirs(*inputs, **options)
    for field in got._fields:
        close(getattr(got, field), want[field])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("variation", VARIATIONS)
def test_agrees_with_the_reference(head, variation, tmp_path):
    config = VARIATIONS[variation]
    theirs = reference(tmp_path, head, **config)
    ours = triarch.load(tmp_path)
    size = config.get("image_size", 24)
    assert ours.architecture == head
    assert_agree(ours, theirs, pixels(2, config.get("num_channels", 3), size, size))


@pytest.mark.parametrize("head", HEADS)
def test_the_reference_opens_what_we_save(head, tmp_path):
    reference(tmp_path / "theirs", head)
    ours = triarch.load(tmp_path / "theirs")
    triarch.save(ours, tmp_path / "ours")
    again, report = getattr(transformers, head).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert_agree(ours, again.eval(), pixels(2, 3, 24, 24))
    stored = load_file(tmp_path / "theirs" / "model.safetensors")
    written = load_file(tmp_path / "ours" / "model.safetensors")
    assert stored.keys() == written.keys()
    assert all(torch.equal(stored[name], written[name]) for name in stored)


@pytest.mark.parametrize("head", HEADS)
def test_a_model_made_from_nothing_is_opened_by_the_reference(head, tmp_path):
    torch.manual_seed(0)
    ours = family("vit").build(family("vit").tiny, head)
    assert all(tensor.isfinite().all() for tensor in ours.state_dict().values())
    triarch.save(ours, tmp_path)
    theirs = getattr(transformers, head).from_pretrained(tmp_path).eval()
    assert_agree(ours, theirs, pixels(2, 3, 24, 24))


def test_files_with_the_names_of_version_5_in_memory(tmp_path):
    theirs = reference(tmp_path)
    save_file(dict(theirs.state_dict()), tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert "vit.layers.0.attention.q_proj.weight" in load_file(tmp_path / "model.safetensors")
    assert_agree(triarch.load(tmp_path), theirs, pixels(1, 3, 24, 24))


def test_older_files_without_the_newer_settings(tmp_path):
    theirs = reference(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    for name in ("qkv_bias", "encoder_stride", "pooler_output_size", "pooler_act", "num_channels"):
        raw.pop(name)
    (tmp_path / "config.json").write_text(json.dumps(raw))
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"feature_extractor_type": "ViTFeatureExtractor", "do_normalize": True, "size": 24})
    )
    ours = triarch.load(tmp_path)
    assert_agree(ours, theirs, pixels(1, 3, 24, 24))
    assert ours.processor.size == {"height": 24, "width": 24}


def test_a_trunk_without_pooler(tmp_path):
    theirs = reference(tmp_path, "ViTModel")
    stored = load_file(tmp_path / "model.safetensors")
    bare = {name: tensor for name, tensor in stored.items() if not name.startswith("pooler.")}
    save_file(bare, tmp_path / "model.safetensors", metadata={"format": "pt"})
    ours = triarch.load(tmp_path)
    with torch.no_grad():
        got = ours(pixels(1, 3, 24, 24))
        close(got.last_hidden_state, theirs(pixels(1, 3, 24, 24)).last_hidden_state)
    assert got.pooler_output is None
    triarch.save(ours, tmp_path / "ours")
    assert load_file(tmp_path / "ours" / "model.safetensors").keys() == bare.keys()


def test_a_trunk_gets_a_new_head(tmp_path):
    reference(tmp_path, "ViTModel")
    model = triarch.load(tmp_path, scores=["LabelScores"], new_head=True, labels=["cat", "dog", "bird"])
    assert sorted(model.fresh) == ["head.labels.bias", "head.labels.weight"]
    assert model(pixels(1, 3, 24, 24)).logits.shape == (1, 3)


def test_what_fills_images_in_serves_as_a_trunk(tmp_path):
    theirs = reference(tmp_path, "ViTForMaskedImageModeling")
    model = triarch.load(tmp_path, head="ViTForImageClassification", new_head=True)
    with torch.no_grad():
        close(model.features(pixels(1, 3, 24, 24)), theirs.vit(pixels(1, 3, 24, 24)).last_hidden_state)


@pytest.mark.parametrize("sides", [(48, 48), (16, 16), (32, 56), (24, 40)], ids=str)
def test_positions_between_the_learned_ones(sides, tmp_path):
    theirs = reference(tmp_path)
    assert_agree(triarch.load(tmp_path), theirs, pixels(2, 3, *sides), interpolate_pos_encoding=True)


def test_its_own_size_needs_no_positions_between(tmp_path):
    reference(tmp_path)
    ours, x = triarch.load(tmp_path), pixels(1, 3, 24, 24)
    with torch.no_grad():
        assert torch.equal(ours(x, interpolate_pos_encoding=True).logits, ours(x).logits)


@pytest.mark.parametrize("head", ["ViTModel", "ViTForImageClassification"])
def test_images_that_are_no_squares(head, tmp_path):
    theirs = reference(tmp_path, head, image_size=[16, 32])
    assert_agree(triarch.load(tmp_path), theirs, pixels(2, 3, 16, 32))


def test_hidden_patches_are_filled_in_as_by_the_reference(tmp_path):
    theirs = reference(tmp_path, "ViTForMaskedImageModeling")
    hidden = torch.rand(2, 9, generator=torch.Generator().manual_seed(3)) < 0.5
    ours, x = triarch.load(tmp_path), pixels(2, 3, 24, 24)
    assert_agree(ours, theirs, x, hidden)
    assert_agree(ours, theirs, x, bool_masked_pos=hidden.long())
    with torch.no_grad():
        assert not torch.equal(ours(x, hidden).reconstruction, ours(x).reconstruction)


def test_attention_maps_are_those_of_the_reference(tmp_path):
    theirs = reference(tmp_path)
    theirs.set_attn_implementation("eager")
    x = pixels(2, 3, 24, 24)
    with torch.no_grad():
        maps = triarch.load(tmp_path).attention_maps(x)
        want = theirs(x, output_attentions=True).attentions
    assert len(maps) == len(want) == 2
    for ours, other in zip(maps, want, strict=True):
        close(ours, other)


def test_an_image_goes_all_the_way(tmp_path):
    theirs = reference(tmp_path)
    ours = triarch.load(tmp_path)
    image = samples.image(60, 45)
    batch = ours.processor.collate(ours.processor.pieces(ours.processor.read(image)))
    want = transformers.AutoImageProcessor.from_pretrained(tmp_path)(image, return_tensors="pt")
    np.testing.assert_array_equal(batch["pixel_values"], want["pixel_values"])
    assert_agree(ours, theirs, batch["pixel_values"])


def test_it_reads_images():
    assert family("vit").reads.medium is Image


def test_bfloat16_takes_pixels_of_float32(tmp_path):
    reference(tmp_path)
    model = triarch.load(tmp_path, dtype="bfloat16")
    assert model(pixels(1, 3, 24, 24)).logits.dtype == torch.bfloat16


def test_gradients_reach_every_parameter(tmp_path):
    reference(tmp_path, "ViTForMaskedImageModeling")
    model = triarch.load(tmp_path).train()
    model(pixels(1, 3, 24, 24), torch.tensor([[1, 0, 0, 0, 1, 0, 0, 1, 0]])).reconstruction.sum().backward()
    assert all(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in model.parameters())


BATCHES = [
    ((1, 3, 32, 32), {}, "images have 32 × 32 pixels, the model sees 24 × 24; resize them, or let it interpolate"),
    ((1, 3, 33, 24), {"interpolate_pos_encoding": True}, "images have 33 × 24 pixels; wanted multiples of 8"),
    ((1, 3, 0, 24), {"interpolate_pos_encoding": True}, "wanted multiples of 8"),
    ((1, 1, 24, 24), {}, r"have the shape \[1, 1, 24, 24\], wanted \(B, 3, H, W\)"),
    ((3, 24, 24), {}, r"have the shape \[3, 24, 24\], wanted"),
    ((1, 3, 24, 24), {"bool_masked_pos": torch.ones(1, 9)}, "ViTForImageClassification hides no patches"),
]


@pytest.mark.parametrize("shape, options, message", BATCHES)
def test_batches_that_it_cannot_see_are_refused(shape, options, message):
    model = family("vit").build(family("vit").tiny, NAME)
    with pytest.raises(InvalidInput, match=message):
        model(torch.zeros(shape), **options)


def test_what_cannot_be_filled_in_is_refused():
    kind, x = family("vit"), torch.zeros(1, 3, 24, 24)
    model = kind.build(kind.tiny, "ViTForMaskedImageModeling")
    with pytest.raises(InvalidInput, match=r"bool_masked_pos has the shape \[1, 8\], wanted \[1, 9\]"):
        model(x, torch.ones(1, 8))
    with pytest.raises(InvalidInput, match="6 patches, which make no square"):
        model(torch.zeros(1, 3, 16, 24), interpolate_pos_encoding=True)
    model = kind.build(kind.config(kind.tiny.to_hf() | {"encoder_stride": 4}), "ViTForMaskedImageModeling")
    with pytest.raises(InvalidInput, match="patches of 8 pixels, what is filled in has 4; set encoder_stride"):
        model(x, torch.ones(1, 9))


CONFIGS = [
    ({"num_attention_heads": 5}, InvalidInput, "hidden_size 32 does not split into 5 attention heads"),
    ({"image_size": [24]}, InvalidInput, "wanted a number, or .height, width."),
    ({"image_size": [24, -1]}, InvalidInput, "wanted a number, or .height, width."),
    ({"image_size": 10**9}, InvalidInput, "config image_size=1000000000, wanted"),
    ({"image_size": 4}, InvalidInput, "image_size 4 does not split into patches of 8 pixels"),
    ({"patch_size": 0}, InvalidInput, "config patch_size=0, wanted"),
    ({"patch_size": [8, 8]}, InvalidInput, "config patch_size=.*, wanted int"),
    ({"hidden_act": "__class__"}, InvalidInput, "config hidden_act=.*, wanted one of"),
    ({"pooler_output_size": 7}, Unsupported, "pooler_output_size=7 is not implemented"),
    ({"head_dim": 4}, Unsupported, "head_dim=4 is not implemented"),
]


@pytest.mark.parametrize("changed, error, message", CONFIGS, ids=[str(case[0]) for case in CONFIGS])
def test_configs_that_are_not_understood_are_refused(changed, error, message):
    kind = family("vit")
    with pytest.raises(error, match=message):
        kind.config(kind.tiny.to_hf() | changed)


def test_a_file_that_does_not_fit_is_refused(tmp_path):
    reference(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text()) | {"image_size": 32}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(CheckpointMismatch, match=r"1 misshaped \(.*position_embeddings"):
        triarch.load(tmp_path)
