"""Loading: every way in which the reference has ever written a checkpoint, and what does not fit."""

import copy
import json
import pickle
import subprocess
import sys

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import triarch
from triarch.errors import CheckpointMismatch, InvalidInput, NotFound, Unsupported
from triarch.models import family

TINY = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 12,
}
IDS = torch.tensor([[2, 7, 11, 13, 3]])


@pytest.fixture
def masked(tmp_path):
    """A masked language model of the reference, saved, and its scores."""
    torch.manual_seed(0)
    model = transformers.BertForMaskedLM(transformers.BertConfig(**TINY)).eval()
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        return tmp_path, model, model(IDS).logits


def rewrite(folder, change):
    """Read the tensors, change them, write them back."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    path.unlink()
    save_file(change(tensors) or tensors, path, metadata={"format": "pt"})


def reconfigure(folder, **changes):
    path = folder / "config.json"
    raw = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in raw.items() if value is not ...}))


def scores(folder, **options):
    with torch.no_grad():
        return triarch.load(folder, **options)(IDS).logits


def same(got, want):
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_one_safetensors_file(masked):
    folder, _, want = masked
    same(scores(folder), want)


def test_shards(masked):
    folder, model, want = masked
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="10KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    same(scores(folder), want)


def test_legacy_bin(masked):
    folder, model, want = masked
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    same(scores(folder), want)


def test_legacy_shards(masked):
    folder, model, want = masked
    (folder / "model.safetensors").unlink()
    names = sorted(model.state_dict())
    halves = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, part in halves.items():
        torch.save({name: model.state_dict()[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in halves.items() for name in part}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    same(scores(folder), want)


def test_old_spelling_of_norms(masked):
    folder, _, want = masked

    def old(tensors):
        return {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in tensors.items()
        }

    rewrite(folder, old)
    same(scores(folder), want)


def test_tied_weights_may_be_there_twice(masked):
    folder, _, want = masked
    rewrite(
        folder,
        lambda tensors: (
            tensors
            | {
                "cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"].clone(),
                "cls.predictions.decoder.bias": tensors["cls.predictions.bias"].clone(),
            }
        ),
    )
    same(scores(folder), want)


def test_untied_head_is_read_from_the_file(tmp_path):
    torch.manual_seed(0)
    model = transformers.BertForMaskedLM(transformers.BertConfig(**TINY, tie_word_embeddings=False)).eval()
    model.cls.predictions.decoder.weight = torch.nn.Parameter(torch.randn(60, 16))
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        same(scores(tmp_path), model(IDS).logits)


def untied(folder):
    """A model of the reference with words apart from the embedding: version 5 keeps their bias twice, and adds one."""
    torch.manual_seed(0)
    model = transformers.BertForMaskedLM(transformers.BertConfig(**TINY, tie_word_embeddings=False)).eval()
    torch.nn.init.normal_(model.cls.predictions.decoder.bias)
    model.save_pretrained(folder)
    with torch.no_grad():
        return model(IDS).logits


def test_bias_of_an_untied_head_is_the_one_that_the_reference_adds(tmp_path):
    want = untied(tmp_path)
    same(scores(tmp_path), want)


def test_untied_head_is_saved_as_both_versions_of_the_reference_read_it(tmp_path):
    want = untied(tmp_path / "theirs")
    triarch.save(triarch.load(tmp_path / "theirs"), tmp_path / "ours")
    tensors = load_file(tmp_path / "ours" / "model.safetensors")
    assert torch.equal(tensors["cls.predictions.bias"], tensors["cls.predictions.decoder.bias"])  # version 4, version 5
    with torch.no_grad():
        same(transformers.BertForMaskedLM.from_pretrained(tmp_path / "ours").eval()(IDS).logits, want)


def test_position_ids_of_old_files_are_passed_over(masked):
    folder, _, want = masked
    rewrite(folder, lambda tensors: tensors | {"bert.embeddings.position_ids": torch.arange(12)[None]})
    same(scores(folder), want)


def test_trunk_without_its_prefix(tmp_path):
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig(**TINY)).eval()
    model.save_pretrained(tmp_path)
    assert "embeddings.LayerNorm.bias" in load_file(tmp_path / "model.safetensors")
    with torch.no_grad():
        same(triarch.load(tmp_path)(IDS).last_hidden_state, model(IDS).last_hidden_state)


def test_trunk_of_a_checkpoint_with_a_head(masked):
    folder, model, _ = masked
    with torch.no_grad():
        got = triarch.load(folder, head="BertModel")(IDS)
        same(got.last_hidden_state, model.bert(IDS).last_hidden_state)
    assert got.pooler_output is None  # this checkpoint has none


def test_new_head_only_when_asked(masked):
    folder, _, _ = masked
    with pytest.raises(CheckpointMismatch, match="new_head=True") as refused:
        triarch.load(folder, head="BertForTokenClassification")
    assert refused.value.missing == ["classifier.weight", "classifier.bias"]


def test_new_head_has_a_class_for_each_label(masked):
    folder, _, _ = masked
    model = triarch.load(folder, head="BertForTokenClassification", new_head=True, labels=["O", "B-X", "I-X"])
    assert model(IDS).logits.shape == (1, 5, 3)
    assert model.config.id2label == {0: "O", 1: "B-X", 2: "I-X"}


def test_new_head_leaves_the_trunk_alone(tmp_path):
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig(**TINY)).eval()
    model.save_pretrained(tmp_path)
    ours = triarch.load(tmp_path, head="BertForMaskedLM", new_head=True)
    assert torch.equal(ours.embeddings.token.weight, model.embeddings.word_embeddings.weight)
    assert ours.head.words.out.weight is ours.embeddings.token.weight


def test_all_differences_are_in_one_error(masked):
    folder, _, _ = masked

    def spoil(tensors):
        del tensors["cls.predictions.bias"]
        tensors["bert.embeddings.word_embeddings.weight"] = torch.zeros(61, 16)
        tensors["bert.encoder.layer.7.attention.self.query.wait"] = torch.zeros(2)
        tensors["nonsense"] = torch.zeros(2)

    rewrite(folder, spoil)
    with pytest.raises(CheckpointMismatch) as refused:
        triarch.load(folder)
    assert refused.value.missing == ["cls.predictions.bias"]
    assert "nonsense" in refused.value.unexpected
    assert refused.value.misshaped == ["bert.embeddings.word_embeddings.weight: found [61, 16], config asks [60, 16]"]
    assert "\n" not in str(refused.value)


def test_weights_of_another_layer_are_unexpected(masked):
    folder, _, _ = masked
    rewrite(folder, lambda t: t | {"bert.encoder.layer.9.output.dense.bias": torch.zeros(16)})
    with pytest.raises(CheckpointMismatch) as refused:
        triarch.load(folder)
    assert refused.value.unexpected == ["bert.encoder.layer.9.output.dense.bias"]


def test_integers_for_floats_are_refused(masked):
    folder, _, _ = masked
    rewrite(folder, lambda t: t | {"cls.predictions.bias": torch.zeros(60, dtype=torch.int8)})
    with pytest.raises(CheckpointMismatch, match=r"found torch.int8, wanted floating point"):
        triarch.load(folder)


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_dtype_of_the_config_is_taken(masked, key):
    folder, _, _ = masked
    reconfigure(folder, **{"dtype": ..., "torch_dtype": ...} | {key: "bfloat16"})
    assert triarch.load(folder).embeddings.token.weight.dtype == torch.bfloat16


def test_dtype_of_the_file_is_taken_where_the_config_has_none(masked):
    folder, _, _ = masked
    reconfigure(folder, dtype=..., torch_dtype=...)
    rewrite(folder, lambda tensors: {name: tensor.half() for name, tensor in tensors.items()})
    assert triarch.load(folder).embeddings.token.weight.dtype == torch.float16


def test_dtype_asked_for_goes_first(masked):
    folder, _, _ = masked
    assert triarch.load(folder, dtype="float64").embeddings.token.weight.dtype == torch.float64


@pytest.mark.parametrize("device", ["cuda:99", "toaster", 3.5])
def test_a_device_that_is_not_there(masked, device):
    with pytest.raises(InvalidInput, match="is not one of this machine"):
        triarch.load(masked[0], device=device)


@pytest.mark.parametrize("dtype", ["fp4", "os.system", "int8"])
def test_unknown_dtype(masked, dtype):
    with pytest.raises(InvalidInput, match="is not one of float32"):
        triarch.load(masked[0], dtype=dtype)


def test_unknown_head_is_answered_with_the_nearest(masked):
    with pytest.raises(NotFound, match="did you mean BertForMaskedLM"):
        triarch.load(masked[0], head="BertForMaskedLN")


def test_a_head_the_file_has_beside_its_own_is_found(tmp_path):
    torch.manual_seed(0)
    transformers.BertForPreTraining(transformers.BertConfig(**TINY)).save_pretrained(tmp_path)
    reconfigure(tmp_path, architectures=["BertForMaskedLM"])  # as in bert-base-uncased
    assert triarch.load(tmp_path, scores=["FollowsScores"]).architecture == "BertForNextSentencePrediction"


def test_scores_that_no_head_in_the_file_gives(masked):
    with pytest.raises(Unsupported, match="no head that gives SpanScores"):
        triarch.load(masked[0], scores=["SpanScores"])


def test_architectures_may_be_absent(tmp_path):
    transformers.BertModel(transformers.BertConfig(**TINY)).save_pretrained(tmp_path)
    reconfigure(tmp_path, architectures=...)
    assert triarch.load(tmp_path).architecture == "BertModel"


def test_labels_of_the_config(tmp_path):
    config = transformers.BertConfig(**TINY, id2label={0: "no", 1: "perhaps", 2: "yes"})
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    assert triarch.load(tmp_path).config.label2id == {"no": 0, "perhaps": 1, "yes": 2}


def test_saving_in_shards_is_opened_by_the_reference(masked, tmp_path):
    folder, _model, want = masked
    triarch.save(triarch.load(folder), tmp_path / "again", shard_bytes=10_000)
    assert (tmp_path / "again" / "model.safetensors.index.json").exists()
    with torch.no_grad():
        same(transformers.BertForMaskedLM.from_pretrained(tmp_path / "again").eval()(IDS).logits, want)


def test_saving_into_the_folder_it_came_from(masked):
    folder, _, want = masked
    triarch.save(triarch.load(folder), folder)
    same(scores(folder), want)


def test_saving_leaves_no_shards_of_an_earlier_save(masked):
    folder, _, want = masked
    model = triarch.load(folder)
    triarch.save(model, folder, shard_bytes=10_000)
    triarch.save(model, folder)
    assert [path.name for path in folder.glob("model*")] == ["model.safetensors"]
    same(scores(folder), want)


def test_a_model_can_be_copied_and_pickled(masked):
    folder, _, want = masked
    model = triarch.load(folder)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert again.family == model.family
        with torch.no_grad():
            same(again(IDS).logits, want)


@pytest.mark.parametrize("labels", [5, [], ["a", "a"], [1, 2]])
def test_labels_that_are_no_names(masked, labels):
    with pytest.raises(InvalidInput, match="labels"):
        triarch.load(masked[0], head="BertForTokenClassification", new_head=True, labels=labels)


def test_a_table_without_labels_is_none(tmp_path):
    transformers.BertForSequenceClassification(transformers.BertConfig(**TINY)).save_pretrained(tmp_path)
    reconfigure(tmp_path, id2label={}, label2id={})
    assert triarch.load(tmp_path).config.num_labels == 2


def test_saving_into_a_file_is_refused(masked, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(triarch.TriarchError, match="cannot make the folder"):
        triarch.save(triarch.load(masked[0]), tmp_path / "file")


def test_a_model_outlives_its_folder(masked):
    folder, _, want = masked
    model = triarch.load(folder)
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(100)
    with torch.no_grad():
        same(model(IDS).logits, want)


def test_config_keys_of_a_fork_come_back(masked, tmp_path):
    folder, _, _ = masked
    reconfigure(folder, my_note={"a": [1, None]})
    triarch.save(triarch.load(folder), tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["my_note"] == {"a": [1, None]}


@pytest.mark.parametrize("key, value", [("position_embedding_type", "relative_key"), ("is_decoder", True)])
def test_mathematics_that_we_do_not_have_is_refused(masked, key, value):
    reconfigure(masked[0], **{key: value})
    with pytest.raises(Unsupported, match=key):
        triarch.load(masked[0])


MEASURE = """
import sys, torch, triarch, triarch.checkpoint, triarch.models
triarch.models.families()
def status(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))
before = status("VmRSS")
model = triarch.load(sys.argv[1])
weights = sum(tensor.nbytes for tensor in model.parameters()) / 1024
print((status("VmHWM") - before) / weights)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_loading_takes_little_more_memory_than_the_weights(tmp_path):
    bert = family("bert")
    config = bert.module.Config(vocab_size=200_000, hidden_size=256, num_heads=4, num_layers=2)
    triarch.save(bert.build(config, "BertForMaskedLM"), tmp_path)
    run = subprocess.run([sys.executable, "-c", MEASURE, tmp_path], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 1.2
