"""Every family and head, found by file name, against the reference whose checkpoints it loads.

No network: the reference is built from our own tiny config with random weights, and saves a real folder.
"""

import pytest
import torch
import transformers

import triarch
from batches import inputs
from triarch.models import families, family

COMPUTED = ".embed_positions."  # sinusoids: a bare MarianModel calls them missing, and makes them all the same
CASES = [(name, head) for name in families() for head in family(name).heads]
KNOWN = [(name, head) for name, head in CASES if family(name).known]


def reference(name, head, folder, seed=0):
    """A tiny random reference model, saved as the reference saves."""
    torch.manual_seed(seed)
    raw = family(name).tiny.to_hf() | {"model_type": name}
    model = getattr(transformers, head)(transformers.AutoConfig.for_model(**raw)).eval()
    for tensor in model.parameters():  # fresh norms are ones and biases zeros, which would hide a mix-up
        if tensor.requires_grad:  # positions that are computed are no weights
            torch.nn.init.normal_(tensor, std=0.5 if tensor.dim() == 1 else 0.2)
    model.save_pretrained(folder)
    return model


def assert_same(got, want, batch):
    """Every field, but not what stands in the place of padding: nobody reads it."""
    real = batch["attention_mask"].bool() if "attention_mask" in batch else None
    for field in got._fields:
        ours, theirs = getattr(got, field), want.get(field)  # None where a family has no pooler
        if real is not None and theirs is not None and theirs.shape[: real.ndim] == real.shape:
            ours, theirs = ours[real], theirs[real]
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name, head", KNOWN)
def test_agrees_with_reference(name, head, tmp_path):
    theirs = reference(name, head, tmp_path)
    ours = triarch.load(tmp_path)
    assert ours.architecture == head
    batch = inputs(name, head)
    with torch.no_grad():
        assert_same(ours(**batch), theirs(**batch), batch)


@pytest.mark.parametrize("name, head", KNOWN)
def test_reference_opens_what_we_save(name, head, tmp_path):
    reference(name, head, tmp_path / "theirs")
    ours = triarch.load(tmp_path / "theirs")
    triarch.save(ours, tmp_path / "ours")
    again, report = getattr(transformers, head).from_pretrained(tmp_path / "ours", output_loading_info=True)
    missing = [key for key in report["missing_keys"] if COMPUTED not in key]
    assert not missing
    assert not any(report[kind] for kind in ("unexpected_keys", "mismatched_keys"))
    batch = inputs(name, head)
    with torch.no_grad():
        assert_same(ours(**batch), again.eval()(**batch), batch)


@pytest.mark.parametrize("name, head", KNOWN)
def test_saved_and_loaded_again_is_the_same_to_the_bit(name, head, tmp_path):
    reference(name, head, tmp_path / "theirs")
    ours = triarch.load(tmp_path / "theirs")
    triarch.save(ours, tmp_path / "ours")
    again = triarch.load(tmp_path / "ours").state_dict()
    assert again.keys() == ours.state_dict().keys()
    assert all(torch.equal(tensor, again[key]) for key, tensor in ours.state_dict().items())


@pytest.mark.parametrize("name", families())
def test_config_round_trip(name):
    config = family(name).tiny
    raw = config.to_hf() | {"some_key_of_a_fork": [1, {"a": None}]}
    assert type(config).from_hf(raw).to_hf() == raw


@pytest.mark.parametrize("name, head", KNOWN)
def test_a_model_made_from_nothing_is_opened_by_the_reference(name, head, tmp_path):
    torch.manual_seed(0)
    ours = family(name).build(family(name).tiny, head)
    triarch.save(ours, tmp_path)
    theirs = getattr(transformers, head).from_pretrained(tmp_path).eval()
    batch = inputs(name, head)
    with torch.no_grad():
        assert_same(ours(**batch), theirs(**batch), batch)
