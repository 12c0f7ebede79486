"""Marian beyond what tests/test_families.py asks of every family, against the reference."""

import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import tiny
import triarch
from decoders import close, ids, left_padded
from triarch.errors import CheckpointMismatch, InvalidInput, LimitExceeded, Unsupported
from triarch.layers.cache import Cache
from triarch.models import family

PAD, END = 4, 0
TINY = {
    "vocab_size": 99,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 37,
    "decoder_ffn_dim": 41,
    "max_position_embeddings": 48,
    "activation_function": "swish",
    "scale_embedding": True,
    "pad_token_id": PAD,
    "eos_token_id": END,
    "forced_eos_token_id": END,
    "decoder_start_token_id": PAD,
}
SEPARATE = {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 70}
SOURCES, TARGETS = ids(2, 9), ids(2, 6, seed=2).clamp(max=69)
MASK = torch.tensor([[1] * 9, [1] * 6 + [0] * 3])


def both(folder, **config):
    """One model, ours and the reference's."""
    torch.manual_seed(0)
    raw = TINY | config
    theirs = transformers.MarianMTModel(transformers.MarianConfig(**raw)).eval()
    for tensor in (*theirs.parameters(), theirs.final_logits_bias):
        if tensor.requires_grad or tensor is theirs.final_logits_bias:
            torch.nn.init.normal_(tensor, std=0.5 if tensor.dim() == 1 else 0.2)
    theirs.save_pretrained(folder)
    raw |= {"model_type": "marian", "architectures": ["MarianMTModel"]}
    (folder / "config.json").write_text(json.dumps(raw))
    return triarch.load(folder), theirs


VARIATIONS = {
    "one table for both languages": {},
    "a table for each language": SEPARATE,
    "a table for each language, and a head of its own": SEPARATE | {"tie_word_embeddings": False},
    "a table for each language, of one size": {"share_encoder_decoder_embeddings": False},
    "the size of the other table is passed over where there is one": {"decoder_vocab_size": 70},
    "tokens not scaled": {"scale_embedding": False},
    "relu": {"activation_function": "relu"},
    "keys of older files": {
        "normalize_before": False,
        "normalize_embedding": False,
        "static_position_embeddings": True,
        "add_bias_logits": False,
        "extra_pos_embeddings": 99,
    },
}


@pytest.mark.parametrize("config", VARIATIONS.values(), ids=VARIATIONS)
@torch.no_grad()
def test_every_variation_of_the_config_gives_the_scores_of_the_reference(tmp_path, config):
    ours, theirs = both(tmp_path, **config)
    wanted = theirs(SOURCES, MASK, decoder_input_ids=TARGETS).logits
    assert wanted.shape[-1] == ours.config.target_vocab_size
    close(ours(SOURCES, MASK, decoder_input_ids=TARGETS).logits, wanted)


@pytest.mark.parametrize("config", VARIATIONS.values(), ids=VARIATIONS)
@torch.no_grad()
def test_the_reference_opens_every_variation_that_we_save(tmp_path, config):
    ours, _ = both(tmp_path / "theirs", **config)
    triarch.save(ours, tmp_path / "ours")
    again, report = transformers.MarianMTModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    mine = triarch.load(tmp_path / "ours")(SOURCES, MASK, decoder_input_ids=TARGETS).logits
    assert torch.equal(mine, ours(SOURCES, MASK, decoder_input_ids=TARGETS).logits)
    close(again.eval()(SOURCES, MASK, decoder_input_ids=TARGETS).logits, mine)


def test_positions_and_copies_of_the_table_that_older_files_hold_are_left(tmp_path):
    ours, _ = both(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    table = stored["model.shared.weight"]
    for side in ("encoder", "decoder"):
        stored[f"model.{side}.embed_tokens.weight"] = table.clone()
        stored[f"model.{side}.embed_positions.weight"] = torch.zeros(48, 32)
    stored["lm_head.weight"] = table.clone()
    save_file(stored, tmp_path / "model.safetensors", {"format": "pt"})
    again = triarch.load(tmp_path)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in ours.state_dict().items())
    triarch.save(again, tmp_path / "ours")
    assert not [name for name in load_file(tmp_path / "ours/model.safetensors") if "embed" in name]


def test_two_tables_are_not_taken_for_copies_of_one(tmp_path):
    both(tmp_path, **SEPARATE)
    stored = load_file(tmp_path / "model.safetensors")
    save_file({name: tensor for name, tensor in stored.items() if "encoder.embed_tokens" not in name},
              tmp_path / "model.safetensors", {"format": "pt"})  # fmt: skip
    with pytest.raises(CheckpointMismatch, match=r"missing.*model\.encoder\.embed_tokens\.weight"):
        triarch.load(tmp_path)


@pytest.mark.parametrize(
    "name", ["model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"]
)
@pytest.mark.parametrize("config", [{}, SEPARATE], ids=["one table", "two tables"])
@torch.no_grad()
def test_a_table_that_differs_from_what_it_shares_is_read_as_version_5_reads_it(tmp_path, config, name):
    """Each its own, whatever config.json says of them."""
    both(tmp_path, **config)
    stored = load_file(tmp_path / "model.safetensors")
    rows = config.get("decoder_vocab_size", 99) if "encoder" not in name else 99
    stored[name] = torch.randn(rows, 32, generator=torch.Generator().manual_seed(1)) / 5
    save_file(stored, tmp_path / "model.safetensors", {"format": "pt"})
    theirs, ours = transformers.MarianMTModel.from_pretrained(tmp_path).eval(), triarch.load(tmp_path)
    wanted = theirs(SOURCES, MASK, decoder_input_ids=TARGETS).logits
    close(ours(SOURCES, MASK, decoder_input_ids=TARGETS).logits, wanted)
    triarch.save(ours, tmp_path / "again")
    close(triarch.load(tmp_path / "again")(SOURCES, MASK, decoder_input_ids=TARGETS).logits, wanted)


REFUSED = {
    "heads that do not divide": ({"decoder_attention_heads": 5}, InvalidInput, "does not split into 5"),
    "an odd size": ({"d_model": 33, "encoder_attention_heads": 3, "decoder_attention_heads": 3}, InvalidInput, "odd"),
    "one table, and a head of its own": ({"tie_word_embeddings": False}, Unsupported, "two different models"),
    "norms before": ({"normalize_before": True}, Unsupported, "normalize_before"),
    "a norm of the embeddings": ({"normalize_embedding": True}, Unsupported, "normalize_embedding"),
    "positions that are learned": ({"static_position_embeddings": False}, Unsupported, "static_position_embeddings"),
}


@pytest.mark.parametrize("config, error, message", REFUSED.values(), ids=REFUSED)
def test_other_mathematics_are_refused(config, error, message):
    with pytest.raises(error, match=message):
        family("marian").config(TINY | config)


@torch.no_grad()
def test_a_target_written_token_by_token_gives_the_same_scores(tmp_path):
    ours, _ = both(tmp_path)
    whole = ours(SOURCES, MASK, decoder_input_ids=TARGETS).logits
    source, cache = ours.encode(SOURCES, MASK), Cache()
    steps = [ours.scores(ours.decode(TARGETS[:, i : i + 1], source, cache=cache)).logits for i in range(6)]
    close(torch.cat(steps, 1), whole)


@torch.no_grad()
def test_targets_padded_at_the_left_give_what_each_gives_alone(tmp_path):
    ours, _ = both(tmp_path)
    long, short = TARGETS[:1], TARGETS[1:, :4]
    batch, mask = left_padded(long, short)
    got = ours(SOURCES, MASK, decoder_input_ids=batch, decoder_attention_mask=mask).logits
    close(got[:1], ours(SOURCES[:1], decoder_input_ids=long).logits)
    close(got[1:, 2:], ours(SOURCES[1:, :6], decoder_input_ids=short).logits)


@torch.no_grad()
def test_words_are_scored_at_the_positions_that_are_asked_for(tmp_path):
    ours, _ = both(tmp_path)
    asked = torch.tensor([[True, False, False, True, False, False], [False] * 5 + [True]])
    whole = ours(SOURCES, MASK, decoder_input_ids=TARGETS).logits
    close(ours(SOURCES, MASK, decoder_input_ids=TARGETS, score_at=asked).logits, whole[asked])


@pytest.mark.parametrize("config", [{}, SEPARATE], ids=["one table", "two tables"])
@torch.no_grad()
def test_where_targets_look_is_what_the_reference_shows(tmp_path, config):
    ours, theirs = both(tmp_path, **config)
    theirs.set_attn_implementation("eager")
    wanted = theirs(SOURCES, MASK, decoder_input_ids=TARGETS, output_attentions=True).cross_attentions
    got = ours.alignment(SOURCES, MASK, TARGETS)
    assert len(got) == len(wanted) == 3
    for mine, other in zip(got, wanted, strict=True):
        close(mine, other)


@torch.no_grad()
def test_more_tokens_than_positions_are_refused_on_either_side(tmp_path):
    ours, _ = both(tmp_path)
    assert ours.config.max_tokens == ours.config.max_target_tokens == 48
    ours(ids(1, 48), decoder_input_ids=ids(1, 48))
    with pytest.raises(LimitExceeded, match="49 tokens"):
        ours(ids(1, 49), decoder_input_ids=ids(1, 1))
    with pytest.raises(LimitExceeded, match="49 tokens"):
        ours(ids(1, 1), decoder_input_ids=ids(1, 49))


def test_a_source_without_a_target_is_refused(tmp_path):
    ours, _ = both(tmp_path)
    with pytest.raises(InvalidInput, match="there is no target; give decoder_input_ids"):
        ours(SOURCES)


@torch.no_grad()
def test_an_id_of_the_other_table_is_refused(tmp_path):
    ours, _ = both(tmp_path, **SEPARATE)
    with pytest.raises(InvalidInput, match=r"token id 70 is outside 0\.\.69"):
        ours(SOURCES, decoder_input_ids=torch.tensor([[70], [70]]))


# Writing

WAYS = {
    "greedy": {},
    "four beams": {"num_beams": 4, "num_return_sequences": 2},
    "four beams, short ones": {"num_beams": 4, "length_penalty": 0.5, "early_stopping": True},
    "no word twice": {"num_beams": 4, "no_repeat_ngram_size": 1},
}


@pytest.mark.parametrize("config", [{}, SEPARATE], ids=["one table", "two tables"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_what_is_written_is_what_the_reference_writes(tmp_path, way, config):
    ours, theirs = both(tmp_path, **config)
    asked = {"max_new_tokens": 12, "bad_words_ids": [[PAD]]} | way
    wanted = theirs.generate(SOURCES, attention_mask=MASK, **asked)
    sources = [row[mask.bool()].tolist() for row, mask in zip(SOURCES, MASK, strict=True)]
    found = triarch.generate(ours, sources, **asked)
    got = [[PAD, *row.ids] for each in found for row in (each if isinstance(each, list) else [each])]
    assert [row + [PAD] * (wanted.shape[1] - len(row)) for row in got] == wanted.tolist()


def test_padding_is_never_written_where_the_checkpoint_forbids_it(tmp_path):
    both(tmp_path)
    (tmp_path / "generation_config.json").unlink()  # which the first checkpoints do not have
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | {"bad_words_ids": [[PAD]]}))
    ours = triarch.load(tmp_path)
    with torch.no_grad():
        ours.head.bias[0, PAD] = 1e3
    assert PAD not in triarch.generate(ours, [5, 6, END], max_new_tokens=6).ids


def test_vectors_of_a_text_are_those_of_the_encoder():
    model = tiny.load("marian")
    read = torch.tensor([model.processor.encode("Ada lived in London.").ids])
    found = triarch.pipeline("embedding", model)("Ada lived in London.")
    wanted = model.encode(read).states[0].mean(0).detach()
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted), atol=1e-6)
