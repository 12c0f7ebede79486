"""BART and mBART beyond what tests/test_families.py asks of every family, against the reference."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import tiny
import triarch
from decoders import close, ids
from probes import PAIRS, PROBES
from triarch import checkpoint
from triarch.errors import InvalidInput, LimitExceeded, Unsupported
from triarch.files import Folder
from triarch.inputs.text.processor import load_text
from triarch.layers.cache import Cache
from triarch.models import family

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
KINDS = {"bart": "Bart", "mbart": "MBart"}
SOURCES, TARGETS = ids(2, 9), ids(2, 6, seed=2)
MASK = torch.tensor([[1] * 9, [1] * 6 + [0] * 3])


def both(folder, name="bart", head="ForConditionalGeneration", **config):
    """One model, ours and the reference's."""
    torch.manual_seed(0)
    raw = TINY | config
    kind = KINDS[name]
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
    "untied": {"tie_word_embeddings": False},
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
    "mbart, untied": {"name": "mbart", "tie_word_embeddings": False},
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


@pytest.mark.parametrize("config", VARIATIONS.values(), ids=VARIATIONS)
@torch.no_grad()
def test_the_reference_opens_every_variation_that_we_save(tmp_path, config):
    ours, _ = both(tmp_path / "theirs", **config)
    triarch.save(ours, tmp_path / "ours")
    kind = getattr(transformers, f"{KINDS[config.get('name', 'bart')]}ForConditionalGeneration")
    again, report = kind.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert report["missing_keys"] <= ({"model.shared.weight"} if not ours.config.tied else set())  # which none uses
    assert not report["unexpected_keys"]
    close(
        ours(SOURCES, MASK, decoder_input_ids=TARGETS).logits,
        again.eval()(SOURCES, MASK, decoder_input_ids=TARGETS).logits,
    )


@pytest.mark.parametrize(
    "config", [{}, {"scale_embedding": True, "tie_word_embeddings": False}], ids=["tied", "untied"]
)
@pytest.mark.parametrize("name", KINDS)
def test_every_gradient_is_that_of_the_reference(tmp_path, name, config):
    ours, theirs = both(tmp_path, name, **config)
    for model in (ours, theirs):
        logits = model(SOURCES, MASK, decoder_input_ids=TARGETS).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids(2, 6, seed=3).flatten()).backward()
    wanted = {name: tensor.grad for name, tensor in theirs.named_parameters() if tensor.grad is not None}
    for name, parameter in ours.named_parameters():
        close(parameter.grad, wanted.pop(family("bart").weights.find(name).name))
    assert not wanted


@torch.no_grad()
def test_padding_of_targets_changes_nothing_before_it(tmp_path):
    ours, theirs = both(tmp_path)
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    batch = {"decoder_input_ids": TARGETS, "decoder_attention_mask": mask}
    close(ours(SOURCES, MASK, **batch).logits[mask.bool()], theirs(SOURCES, MASK, **batch).logits[mask.bool()])
    alone = ours(SOURCES[1:, :6], decoder_input_ids=TARGETS[1:, :4]).logits
    close(ours(SOURCES, MASK, **batch).logits[1:, :4], alone)


@pytest.mark.parametrize("training", [True, False])
def test_a_source_that_is_padding_alone_gives_numbers_and_harms_no_other(tmp_path, training):
    ours, _ = both(tmp_path)
    mask = MASK * torch.tensor([[1], [0]])
    scores = ours.train(training)(SOURCES, mask, decoder_input_ids=TARGETS).logits
    scores[:1].sum().backward()
    assert scores.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in ours.parameters())
    assert all(found.isfinite().all() for found in ours.alignment(SOURCES, mask, TARGETS))


@torch.no_grad()
def test_the_first_two_positions_are_no_tokens(tmp_path):
    ours, _ = both(tmp_path)
    before = ours(SOURCES, MASK, decoder_input_ids=TARGETS).logits
    for side in (ours.source, ours.target):
        assert side.position.weight.shape == (50, 32)
        side.position.weight[:2].fill_(9.0)
    close(ours(SOURCES, MASK, decoder_input_ids=TARGETS).logits, before)


@torch.no_grad()
def test_token_by_token_is_the_same(tmp_path):
    ours, _ = both(tmp_path)
    source, cache = ours.encode(SOURCES, MASK), Cache()
    steps = [ours.scores(ours.decode(TARGETS[:, i : i + 1], source, cache=cache)).logits for i in range(6)]
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
    uneven = torch.tensor([[0, 9, 2, 1], [0, 2, 7, 2]])
    alone = torch.cat([theirs(uneven[:1, :3]).logits, theirs(uneven[1:]).logits])  # which it makes no batch of
    close(ours(uneven, (uneven != 1).long()).logits, alone)
    with pytest.raises(InvalidInput, match=r"row 1 has no end token \(id 2\), which is read off"):
        ours(torch.tensor([[0, 9, 2], [0, 9, 9]]))


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


def test_the_bias_of_words_is_saved_and_not_learned(tmp_path):
    ours, theirs = both(tmp_path / "theirs")
    triarch.save(ours, tmp_path / "ours")
    assert torch.equal(
        load_file(tmp_path / "ours" / "model.safetensors")["final_logits_bias"], theirs.final_logits_bias
    )
    assert theirs.final_logits_bias.abs().sum() > 0
    assert "head.bias" not in dict(ours.named_parameters())


@torch.no_grad()
def test_sums_of_mbart_that_float16_does_not_hold_are_those_of_the_reference(tmp_path):
    """They end short of infinity, where 4.57 and 5 clamp those of the encoder."""
    both(tmp_path, name="mbart")
    tensors = load_file(tmp_path / "model.safetensors")
    for name in tensors:
        if name.startswith("model.encoder.layers") and name.endswith("fc2.bias"):
            tensors[name] += 6e4
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    theirs = transformers.MBartForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float16).eval()
    wanted = theirs(SOURCES, MASK, decoder_input_ids=TARGETS).logits
    ours = triarch.load(tmp_path, dtype="float16")
    assert wanted.isfinite().all()
    torch.testing.assert_close(ours(SOURCES, MASK, decoder_input_ids=TARGETS).logits, wanted, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_token_vectors_that_differ_are_read_as_version_5_reads_them(tmp_path, tied):
    """Each its own, whatever config.json says of them."""
    both(tmp_path, tie_word_embeddings=False)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | {"tie_word_embeddings": tied}))
    theirs = transformers.BartForConditionalGeneration.from_pretrained(tmp_path).eval()
    ours = triarch.load(tmp_path)
    wanted = theirs(SOURCES, MASK, decoder_input_ids=TARGETS).logits
    close(ours(SOURCES, MASK, decoder_input_ids=TARGETS).logits, wanted)
    triarch.save(ours, tmp_path / "again")
    close(triarch.load(tmp_path / "again")(SOURCES, MASK, decoder_input_ids=TARGETS).logits, wanted)


@torch.no_grad()
def test_one_table_of_an_untied_file_is_of_sources_and_targets(tmp_path):
    """As 4.57 saves an untied model, in which both share it."""
    both(tmp_path, tie_word_embeddings=False)
    tensors = load_file(tmp_path / "model.safetensors")
    for name in ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"):
        del tensors[name]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    ours = triarch.load(tmp_path)
    for found in (ours.source_token, ours.target_token):
        assert torch.equal(found.weight, tensors["model.shared.weight"])
    assert torch.equal(ours.head.words.weight, tensors["lm_head.weight"])


def test_marks_of_fairseqs_own_files_are_passed_over(tmp_path):
    both(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    marks = {f"model.{side}.version": torch.tensor([3.0]) for side in ("encoder", "decoder")}
    save_file(tensors | marks, tmp_path / "model.safetensors", {"format": "pt"})
    assert triarch.load(tmp_path).architecture == "BartForConditionalGeneration"


def test_what_the_file_says_of_tasks_and_of_generating_is_kept(tmp_path):
    said = {
        "task_specific_params": {"summarization": {"length_penalty": 2.0, "max_length": 142, "num_beams": 4}},
        "forced_bos_token_id": 0,
        "forced_eos_token_id": 2,
        "no_repeat_ngram_size": 3,
        "prefix": " ",
    }
    both(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | said))
    triarch.save(triarch.load(tmp_path), tmp_path / "again")
    found = json.loads((tmp_path / "again" / "config.json").read_text())
    assert {key: found[key] for key in said} == said


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


NEWS = {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True, "no_repeat_ngram_size": 3, "min_length": 5}


@pytest.mark.parametrize("name", KINDS)
def test_how_the_file_wants_targets_written_is_how_the_reference_writes_them(tmp_path, name):
    """From config.json alone, as older files have it."""
    said = NEWS | {"max_length": 12, "forced_bos_token_id": 11, "forced_eos_token_id": 2, "decoder_start_token_id": 2}
    both(tmp_path, name, **said)
    (tmp_path / "generation_config.json").unlink(missing_ok=True)
    theirs = getattr(transformers, f"{KINDS[name]}ForConditionalGeneration").from_pretrained(tmp_path).eval()
    wanted = [theirs.generate(source[None])[0, 1:].tolist() for source in SOURCES]
    ours = triarch.load(tmp_path)
    assert [found.ids for found in triarch.generate(ours, SOURCES.tolist())] == wanted
    assert [row[0] for row in wanted] == [11, 11]


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
    "no last norm in mbart": ({"name": "mbart", "add_final_layer_norm": False}, Unsupported, "only True"),
    "norms in mbart": ({"name": "mbart", "normalize_before": False}, Unsupported, "normalize_before=False"),
    "a last norm": ({"add_final_layer_norm": True}, Unsupported, "config add_final_layer_norm=True"),
    "positions": ({"extra_pos_embeddings": 0}, Unsupported, "config extra_pos_embeddings=0 is not implemented, only 2"),
    "sinusoids": ({"static_position_embeddings": True}, Unsupported, "config static_position_embeddings=True"),
}


@pytest.mark.parametrize("config, error, message", REFUSED.values(), ids=REFUSED)
def test_other_mathematics_is_refused_by_name(tmp_path, config, error, message):
    name = config.get("name", "bart")
    both(tmp_path, name)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | config))
    with pytest.raises(error, match=message):
        triarch.load(tmp_path)


def test_more_tokens_than_positions_are_refused(tmp_path):
    ours, _ = both(tmp_path)
    with pytest.raises(LimitExceeded, match="49 tokens, but the model has 48 positions"):
        ours(ids(1, 49), decoder_input_ids=TARGETS[:1])


def test_texts_and_pairs_have_the_ids_and_offsets_of_the_reference(tmp_path):
    tiny.write_files(tmp_path, **tiny.MODELS["bart"])
    mask = {"content": "<mask>", "lstrip": True, "rstrip": False, "single_word": False, "normalized": False}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"mask_token": mask}))  # version 5 forgets it
    ours = load_text(Folder(tmp_path), family("bart").reads, vocab_size=1000, max_tokens=64)
    theirs = transformers.BartTokenizer.from_pretrained(tmp_path)
    for texts in [*((text,) for text in PROBES.values()), *PAIRS]:
        found, wanted = ours.encode(*texts), theirs(*texts, return_offsets_mapping=True)
        assert (found.ids, found.offsets) == (wanted["input_ids"], wanted["offset_mapping"]), texts
        assert ours.decode(found.ids) == theirs.decode(found.ids), texts


@pytest.mark.parametrize("whole", [False, True])
def test_a_mask_without_a_row_is_no_token(tmp_path, whole):
    """As in bart-large-cnn and its like: 50,264 rows, and a vocabulary with <mask> as its token 50,264."""
    tiny.write_files(tmp_path / "bart", **tiny.MODELS["bart"])
    path = tmp_path / "bart" / "vocab.json"
    tokens = [token for token in json.loads(path.read_text("utf-8")) if token != "<mask>"]
    path.write_text(json.dumps({token: id_ for id_, token in enumerate([*tokens, "<mask>"])}), "utf-8")
    theirs, folder = transformers.BartTokenizer.from_pretrained(tmp_path / "bart"), tmp_path / "bart"
    if whole:
        folder = tmp_path / "whole"
        theirs.save_pretrained(folder)

    def loaded(folder):
        return load_text(Folder(folder), family("bart").reads, vocab_size=len(tokens), max_tokens=64)

    ours = loaded(folder)
    ours.save(tmp_path / "saved")
    for found in (ours, loaded(tmp_path / "saved")):
        for text in PROBES.values():
            if "<mask>" not in text:
                assert found.encode(text).ids == theirs(text)["input_ids"], text
        encoding = found.encode("a <mask> b")
        assert max(encoding.ids) < len(tokens)
        assert found.decode(encoding.ids, skip_special_tokens=True) == "a <mask> b"
        assert found.token("mask_token") is None
    again = transformers.BartTokenizer.from_pretrained(tmp_path / "saved")
    assert again("Ada lived in London.").input_ids == theirs("Ada lived in London.").input_ids


def test_any_other_token_without_a_row_is_refused(tmp_path):
    tiny.write_files(tmp_path, **tiny.MODELS["bart"])
    with pytest.raises(InvalidInput, match="has the id 419, but the embedding has 419 rows"):
        load_text(Folder(tmp_path), family("bart").reads, vocab_size=419, max_tokens=64)
