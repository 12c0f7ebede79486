"""BART and mBART beyond what tests/test_families.py asks of every family, against the reference."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import triarch
from decoders import close, ids
from triarch import checkpoint
from triarch.errors import InvalidInput, LimitExceeded, Unsupported
from triarch.layers.cache import Cache

TINY = {
    "vocab_size": 99,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 37,
    "decoder_ffn_dim": 41,
    "max_position_embeddings": 48,
}
SOURCES, TARGETS = ids(2, 9), ids(2, 6, seed=2)
MASK = torch.tensor([[1] * 9, [1] * 6 + [0] * 3])


def both(folder, name="bart", head="ForConditionalGeneration", **config):
    """One model, ours and the reference's."""
    torch.manual_seed(0)
    raw = TINY | config
    kind = {"bart": "Bart", "mbart": "MBart"}[name]
    theirs = getattr(transformers, kind + head)(getattr(transformers, f"{kind}Config")(**raw)).eval()
    for tensor in (*theirs.parameters(), getattr(theirs, "final_logits_bias", torch.zeros(1))):
        torch.nn.init.normal_(tensor, std=0.5 if tensor.dim() == 1 else 0.2)
    theirs.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(raw | {"model_type": name, "architectures": [kind + head]}))
    return triarch.load(folder), theirs


VARIATIONS = {
    "bart": {},
    "distilled": {"encoder_layers": 3, "decoder_layers": 1},
    "tokens scaled": {"scale_embedding": True},
    "relu": {"activation_function": "relu"},
    "keys of older files": {
        "normalize_before": False,
        "normalize_embedding": True,
        "add_final_layer_norm": False,
        "add_bias_logits": False,
        "static_position_embeddings": False,
        "extra_pos_embeddings": 2,
        "classif_dropout": 0.0,
    },
    "mbart": {"name": "mbart", "scale_embedding": True},
    "mbart with keys of older files": {"name": "mbart", "normalize_before": True, "add_final_layer_norm": True},
}


@pytest.mark.parametrize("config", VARIATIONS.values(), ids=VARIATIONS)
@torch.no_grad()
def test_every_variation_of_the_config_gives_the_scores_of_the_reference(tmp_path, config):
    ours, theirs = both(tmp_path, **config)
    close(
        ours(SOURCES, MASK, decoder_input_ids=TARGETS).logits,
        theirs(SOURCES, MASK, decoder_input_ids=TARGETS).logits,
    )


@pytest.mark.parametrize("name", ["bart", "mbart"])
def test_gradients_are_those_of_the_reference(tmp_path, name):
    ours, theirs = both(tmp_path, name)
    for model in (ours, theirs):
        logits = model(SOURCES, MASK, decoder_input_ids=TARGETS).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids(2, 6, seed=3).flatten()).backward()
    close(ours.token.weight.grad, theirs.model.shared.weight.grad)
    close(ours.source.position.weight.grad, theirs.model.encoder.embed_positions.weight.grad)
    close(
        ours.decoder.blocks[1].cross_attention.k.weight.grad,
        theirs.model.decoder.layers[1].encoder_attn.k_proj.weight.grad,
    )


@torch.no_grad()
def test_token_by_token_is_the_same(tmp_path):
    ours, _ = both(tmp_path)
    source, cache = ours.encode(SOURCES, MASK), Cache()
    steps = [ours.head(ours.decode(TARGETS[:, i : i + 1], source, cache=cache)).logits for i in range(6)]
    close(torch.cat(steps, 1), ours(SOURCES, MASK, decoder_input_ids=TARGETS).logits)


@torch.no_grad()
def test_attention_onto_the_source_is_that_of_the_reference(tmp_path):
    _, theirs = both(tmp_path)
    theirs.set_attn_implementation("eager")
    wanted = theirs(SOURCES, MASK, decoder_input_ids=TARGETS, output_attentions=True).cross_attentions
    for ours, want in zip(triarch.load(tmp_path).alignment(SOURCES, MASK, TARGETS), wanted, strict=True):
        close(ours, want)


@pytest.mark.parametrize("name", ["bart", "mbart"])
@torch.no_grad()
def test_what_the_decoder_reads_where_there_is_no_target_is_the_references(tmp_path, name):
    ours, theirs = both(tmp_path, name, "ForQuestionAnswering")
    padded = SOURCES.where(MASK.bool(), 1)
    close(ours(padded, MASK).start_logits, theirs(padded, MASK).start_logits)


@torch.no_grad()
def test_labels_are_read_off_the_last_end_token(tmp_path):
    ours, theirs = both(tmp_path, head="ForSequenceClassification", num_labels=3)
    texts = torch.tensor([[0, 9, 8, 2, 2, 7, 2], [0, 5, 2, 2, 6, 2, 1]])
    mask = (texts != 1).long()
    close(ours(texts, mask).logits, theirs(texts, mask).logits)
    with pytest.raises(InvalidInput, match=r"rows have \[1, 2\] end tokens \(id 2\), wanted one and the same number"):
        ours(torch.tensor([[0, 9, 2], [0, 2, 2]]))


def test_three_labels_are_meant_where_the_file_names_none(tmp_path):
    ours, _ = both(tmp_path, head="ForSequenceClassification")
    assert ours.config.num_labels == 3


SHARED = [
    "model.shared.weight",
    "model.encoder.embed_tokens.weight",
    "model.decoder.embed_tokens.weight",
    "lm_head.weight",
]


@pytest.mark.parametrize("kept", [*([name] for name in SHARED), SHARED], ids=[*SHARED, "all"])
@torch.no_grad()
def test_tokens_are_found_under_any_of_their_names(tmp_path, kept):
    _, theirs = both(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    token = tensors.pop("model.shared.weight")
    save_file(tensors | {name: token.clone() for name in kept}, tmp_path / "model.safetensors", {"format": "pt"})
    close(
        triarch.load(tmp_path)(SOURCES, MASK, decoder_input_ids=TARGETS).logits,
        theirs(SOURCES, MASK, decoder_input_ids=TARGETS).logits,
    )


@torch.no_grad()
def test_without_a_bias_of_words_it_is_zero(tmp_path):
    _, theirs = both(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["final_logits_bias"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    theirs.final_logits_bias.zero_()
    close(
        triarch.load(tmp_path)(SOURCES, decoder_input_ids=TARGETS).logits,
        theirs(SOURCES, decoder_input_ids=TARGETS).logits,
    )


@torch.no_grad()
def test_a_trunk_alone_writes_as_its_words_are_tied(tmp_path):
    """As bart-base is stored."""
    ours, _ = both(tmp_path)
    whole = ours(SOURCES, decoder_input_ids=TARGETS).logits - ours.head.bias
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | {"architectures": ["BartModel"]}))
    tensors = load_file(tmp_path / "model.safetensors")
    trunk = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    save_file(trunk, tmp_path / "model.safetensors", {"format": "pt"})
    found = checkpoint.load(tmp_path, scores=("TargetWordScores",))
    close(found(SOURCES, decoder_input_ids=TARGETS).logits, whole)


def test_an_old_way_to_ask_for_a_first_token_is_understood(tmp_path):
    both(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | {"force_bos_token_to_be_generated": True}))
    for path in tmp_path.glob("generation_config.json"):
        path.unlink()
    assert triarch.generate(triarch.load(tmp_path), [5, 6, 2], max_new_tokens=3).ids[0] == 0


REFUSED = {
    "heads": ({"encoder_attention_heads": 5}, InvalidInput, "d_model 32 does not split into 5 attention heads"),
    "norms": ({"normalize_before": True}, Unsupported, "config normalize_before=True is not implemented, only False"),
    "no norm": ({"normalize_embedding": False}, Unsupported, "config normalize_embedding=False is not implemented"),
    "sinusoids": ({"static_position_embeddings": True}, Unsupported, "config static_position_embeddings=True"),
}


@pytest.mark.parametrize("config, error, message", REFUSED.values(), ids=REFUSED)
def test_other_mathematics_is_refused_by_name(tmp_path, config, error, message):
    both(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | config))
    with pytest.raises(error, match=message):
        triarch.load(tmp_path)


def test_more_tokens_than_positions_are_refused(tmp_path):
    ours, _ = both(tmp_path)
    with pytest.raises(LimitExceeded, match="49 tokens, but the model has 48 positions"):
        ours(ids(1, 49), decoder_input_ids=TARGETS[:1])
