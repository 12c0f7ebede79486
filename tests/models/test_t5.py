"""T5 and mT5 beyond what tests/test_families.py asks of every family, against the reference."""

import io
import json

import numpy as np
import pytest
import sentencepiece
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.models.t5.modeling_t5 import T5Attention

import tiny
import triarch
from decoders import close, ids
from probes import PAIRS, PROBES
from triarch import checkpoint
from triarch.cli.inspect import facts
from triarch.errors import CorruptFile, InvalidInput, Unsupported
from triarch.files import Folder
from triarch.inputs.text.processor import load_text
from triarch.layers import low_rank
from triarch.layers.cache import Cache
from triarch.models import family
from triarch.models.t5 import Distances

TINY = {
    "vocab_size": 99,
    "d_model": 32,
    "d_kv": 6,
    "d_ff": 37,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "decoder_start_token_id": 0,
}
V11 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
SOURCES, TARGETS = ids(2, 30), ids(2, 26, seed=2)
MASK = torch.tensor([[1] * 30, [1] * 23 + [0] * 7])


def both(folder, name="t5", **config):
    """One model, ours and the reference's, from the config as version 4 wrote it."""
    torch.manual_seed(0)
    raw = TINY | config
    kind = {"t5": "T5", "mt5": "MT5"}[name]
    theirs = getattr(transformers, f"{kind}ForConditionalGeneration")(getattr(transformers, f"{kind}Config")(**raw))
    theirs.eval()
    if raw.get("tie_word_embeddings") is False:  # version 5 ties them until it reads a file
        theirs.lm_head.weight = torch.nn.Parameter(theirs.lm_head.weight.clone())
    for tensor in theirs.parameters():
        torch.nn.init.normal_(tensor, std=0.5 if tensor.dim() == 1 else 0.2)
    save_file({key: t.detach().clone() for key, t in theirs.named_parameters()}, folder / "model.safetensors")
    raw |= {"model_type": name, "architectures": [f"{kind}ForConditionalGeneration"]}
    (folder / "config.json").write_text(json.dumps(raw))
    return triarch.load(folder), theirs


VARIATIONS = {
    "1.0": {},
    "1.1 and flan": V11,
    "gated silu": {"feed_forward_proj": "gated-silu"},
    "gelu": {"feed_forward_proj": "gelu"},
    "more layers to write than to read": {"num_decoder_layers": 3},
    "old files say nothing of distances": {
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
    },
    "mt5": {"name": "mt5", "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}


@pytest.mark.parametrize("config", VARIATIONS.values(), ids=VARIATIONS)
@torch.no_grad()
def test_every_variation_of_the_config_gives_the_scores_of_the_reference(tmp_path, config):
    ours, theirs = both(tmp_path, **config)
    close(
        ours(SOURCES, MASK, decoder_input_ids=TARGETS).logits,
        theirs(SOURCES, MASK, decoder_input_ids=TARGETS).logits,
    )


@pytest.mark.parametrize("config", [{}, V11], ids=["1.0", "1.1 and flan"])
def test_every_gradient_is_that_of_the_reference(tmp_path, config):
    ours, theirs = both(tmp_path, **config)
    for model in (ours, theirs):
        logits = model(SOURCES, MASK, decoder_input_ids=TARGETS).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids(2, 26, seed=3).flatten()).backward()
    wanted = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        close(parameter.grad, wanted.pop(family("t5").weights.find(name).name))
    assert not wanted


@torch.no_grad()
def test_token_by_token_is_the_same(tmp_path):
    ours, _ = both(tmp_path)
    source, cache = ours.encode(SOURCES, MASK), Cache()
    steps = [ours.scores(ours.decode(TARGETS[:, i : i + 1], source, cache=cache)).logits for i in range(26)]
    close(torch.cat(steps, 1), ours(SOURCES, MASK, decoder_input_ids=TARGETS).logits)


@torch.no_grad()
def test_attention_onto_the_source_is_that_of_the_reference(tmp_path):
    ours, theirs = both(tmp_path)
    theirs.set_attn_implementation("eager")
    wanted = theirs(SOURCES, MASK, decoder_input_ids=TARGETS, output_attentions=True).cross_attentions
    for got, want in zip(ours.alignment(SOURCES, MASK, TARGETS), wanted, strict=True):
        close(got, want)


def test_dropout_reaches_attention_and_its_distances(tmp_path):
    ours, _ = both(tmp_path)
    ours.train()
    ours(SOURCES, MASK, decoder_input_ids=TARGETS).logits.sum().backward()
    assert float(ours.encoder.distances.bias.weight.grad.abs().sum()) > 0


@pytest.mark.parametrize("both_ways", [True, False])
@pytest.mark.parametrize("buckets, largest", [(4, 20), (9, 77), (32, 128), (33, 1000), (64, 33)])
def test_distances_fall_into_the_buckets_of_the_reference(buckets, largest, both_ways):
    sizes = {"relative_attention_num_buckets": buckets, "relative_attention_max_distance": largest}
    distances, ahead = Distances(family("t5").config(TINY | sizes), both_ways=both_ways), torch.arange(-1500, 1500)
    wanted = T5Attention._relative_position_bucket(ahead, both_ways, buckets, largest)
    assert torch.equal(distances._bucket(ahead), wanted)


@pytest.mark.parametrize("training", [True, False])
def test_a_source_that_is_padding_alone_gives_numbers_and_harms_no_other(tmp_path, training):
    ours, _ = both(tmp_path)
    scores = ours.train(training)(SOURCES, MASK * torch.tensor([[1], [0]]), decoder_input_ids=TARGETS).logits
    scores[:1].sum().backward()
    assert scores.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in ours.parameters())


SHARED = ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]


@pytest.mark.parametrize("kept", [*([name] for name in SHARED), SHARED], ids=[*SHARED, "all"])
@torch.no_grad()
def test_tokens_are_found_under_any_of_their_names(tmp_path, kept):
    _, theirs = both(tmp_path)
    rewrite(tmp_path, lambda t: t | {name: t["shared.weight"].clone() for name in kept}, without=SHARED, kept=kept)
    close(
        triarch.load(tmp_path)(SOURCES, decoder_input_ids=TARGETS).logits,
        theirs(SOURCES, decoder_input_ids=TARGETS).logits,
    )


def rewrite(folder, change, without=(), kept=()):
    tensors = change(load_file(folder / "model.safetensors"))
    tensors = {name: tensor for name, tensor in tensors.items() if name in kept or name not in without}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@torch.no_grad()
def test_distances_onto_the_source_that_the_first_files_hold_are_passed_over(tmp_path):
    ours, _ = both(tmp_path)
    name = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    rewrite(tmp_path, lambda tensors: tensors | {name: torch.ones(8, 4)})
    again = triarch.load(tmp_path)
    close(again(SOURCES, decoder_input_ids=TARGETS).logits, ours(SOURCES, decoder_input_ids=TARGETS).logits)


@torch.no_grad()
def test_what_version_5_saves_of_an_untied_model_is_not_scaled(tmp_path):
    """It writes that words are tied, and in another key that they are not scaled."""
    ours, theirs = both(tmp_path, **V11)
    theirs.save_pretrained(tmp_path / "five")
    raw = json.loads((tmp_path / "five" / "config.json").read_text())
    assert (raw["tie_word_embeddings"], raw["scale_decoder_outputs"]) == (True, False)
    again = triarch.load(tmp_path / "five")
    close(again(SOURCES, decoder_input_ids=TARGETS).logits, ours(SOURCES, decoder_input_ids=TARGETS).logits)


@pytest.mark.parametrize("name", SHARED)
@torch.no_grad()
def test_an_untied_head_that_the_file_lacks_is_the_embedding_and_not_scaled(tmp_path, name):
    _, theirs = both(tmp_path, **V11)
    rewrite(tmp_path, lambda t: {**t, name: t["shared.weight"]}, without=[*SHARED, "lm_head.weight"], kept=[name])
    theirs.lm_head.weight = theirs.shared.weight
    close(
        triarch.load(tmp_path)(SOURCES, decoder_input_ids=TARGETS).logits,
        theirs(SOURCES, decoder_input_ids=TARGETS).logits,
    )


WORDS = torch.randn(99, 32, generator=torch.Generator().manual_seed(4)) / 5


@pytest.mark.parametrize("name", SHARED)
@torch.no_grad()
def test_words_of_their_own_are_read_though_the_config_ties_them_and_are_scaled(tmp_path, name):
    """As version 5 reads them; the key says two things, and only the file says the second."""
    both(tmp_path)
    new = {"lm_head.weight": WORDS}
    rewrite(tmp_path, lambda t: t | new | {name: t["shared.weight"].clone()}, without=SHARED, kept=[name])
    ours, theirs = triarch.load(tmp_path), transformers.T5ForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert torch.equal(ours.head.words.weight, WORDS)
    close(ours(SOURCES, decoder_input_ids=TARGETS).logits, theirs(SOURCES, decoder_input_ids=TARGETS).logits)


@torch.no_grad()
def test_words_of_their_own_are_kept_where_the_model_is_saved(tmp_path):
    both(tmp_path)
    rewrite(tmp_path, lambda tensors: tensors | {"lm_head.weight": WORDS})
    ours = triarch.load(tmp_path)
    triarch.save(ours, tmp_path / "again")
    assert torch.equal(load_file(tmp_path / "again" / "model.safetensors")["lm_head.weight"], WORDS)
    wanted = ours(SOURCES, decoder_input_ids=TARGETS).logits
    theirs = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "again").eval()
    assert torch.equal(triarch.load(tmp_path / "again")(SOURCES, decoder_input_ids=TARGETS).logits, wanted)
    close(theirs(SOURCES, decoder_input_ids=TARGETS).logits, wanted)


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize("config", [{}, V11], ids=["1.0", "1.1 and flan"])
def test_inspect_counts_words_and_tokens_under_whatever_name(tmp_path, config, name):
    ours, _ = both(tmp_path, **config)
    rewrite(tmp_path, lambda t: {**t, name: t["shared.weight"]}, without=SHARED, kept=[name])
    found = facts(str(tmp_path))
    assert found["parameters"] == sum(parameter.numel() for parameter in ours.parameters())
    assert not found["unused"]


def test_a_copy_of_the_embedding_is_no_head_of_its_own(tmp_path):
    both(tmp_path)
    rewrite(tmp_path, lambda tensors: tensors | {"lm_head.weight": tensors["shared.weight"].clone()})
    ours = triarch.load(tmp_path)
    assert ours.head.words.weight is ours.token.weight


def test_an_adapter_may_train_the_words_apart(tmp_path):
    (tmp_path / "base").mkdir()
    ours, _ = both(tmp_path / "base")
    low_rank.wrap(ours)
    checkpoint.save_adapter(ours, tmp_path / "adapter", base=tmp_path / "base")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file(load_file(file) | {"base_model.model.lm_head.weight": WORDS}, file)
    again = triarch.load(tmp_path / "adapter")
    assert torch.equal(again.head.words.weight, WORDS)
    assert torch.equal(again.token.weight, ours.token.weight)


@torch.no_grad()
def test_in_float16_what_has_no_range_stays_wide(tmp_path):
    """Raffel's larger models overflow float16 in the second layer of feed-forward."""
    both(tmp_path)
    ours = triarch.load(tmp_path, dtype="float16")
    kinds = {name: tensor.dtype for name, tensor in ours.named_parameters()}
    assert {kind for name, kind in kinds.items() if "feed_forward.down" in name} == {torch.float32}
    assert {kind for name, kind in kinds.items() if "feed_forward.down" not in name} == {torch.float16}
    whole = triarch.load(tmp_path)(SOURCES, decoder_input_ids=TARGETS).logits
    torch.testing.assert_close(ours(SOURCES, decoder_input_ids=TARGETS).logits.float(), whole, atol=0.03, rtol=0.03)
    with torch.no_grad():
        for block in ours.encoder.blocks:
            block.feed_forward.down.weight *= 1e5  # what comes of it is beyond the range of float16
    assert ours(SOURCES, decoder_input_ids=TARGETS).logits.isfinite().all()


def test_the_former_name_of_its_head_is_known(tmp_path):
    both(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | {"architectures": ["T5WithLMHeadModel"]}))
    assert triarch.load(tmp_path).architecture == "T5ForConditionalGeneration"


def test_the_encoder_of_a_whole_checkpoint_can_be_had_alone(tmp_path):
    ours, _ = both(tmp_path)
    alone = triarch.load(tmp_path, head="T5EncoderModel")
    assert not [name for name, _ in alone.named_parameters() if name.startswith("decoder")]
    close(alone(SOURCES, MASK).last_hidden_state, ours.encode(SOURCES, MASK).states)


@torch.no_grad()
def test_the_gated_gelu_is_the_tanh_form_whatever_the_file_says(tmp_path):
    ours, _ = both(tmp_path, **V11)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | {"dense_act_fn": "gelu"}))
    again = triarch.load(tmp_path)
    close(again(SOURCES, decoder_input_ids=TARGETS).logits, ours(SOURCES, decoder_input_ids=TARGETS).logits)
    with pytest.raises(Unsupported, match="config dense_act_fn=relu with feed_forward_proj=gated-gelu"):
        family("t5").config(TINY | V11 | {"dense_act_fn": "relu"})


def test_old_files_say_nothing_of_the_largest_distance():
    raw = {name: value for name, value in TINY.items() if "distance" not in name}
    assert family("t5").config(raw).max_distance == 128


def test_distances_that_leave_no_range_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match="relative_attention_max_distance 4 is not over half of the 8"):
        family("t5").config(TINY | {"relative_attention_max_distance": 4})


def test_fresh_weights_are_spread_as_in_the_reference():
    torch.manual_seed(0)
    raw = TINY | {"d_model": 256, "d_ff": 300, "d_kv": 32, "num_layers": 1, "vocab_size": 500} | V11
    ours = family("t5").build(family("t5").config(raw), "T5ForConditionalGeneration")
    theirs = transformers.T5ForConditionalGeneration(transformers.T5Config(**raw))
    pairs = {
        ours.token.weight: theirs.shared.weight,
        ours.encoder.blocks[0].attention.q.weight: theirs.encoder.block[0].layer[0].SelfAttention.q.weight,
        ours.encoder.blocks[0].attention.out.weight: theirs.encoder.block[0].layer[0].SelfAttention.o.weight,
        ours.decoder.blocks[0].cross_attention.k.weight: theirs.decoder.block[0].layer[1].EncDecAttention.k.weight,
        ours.decoder.blocks[0].gated_feed_forward.gate.weight: theirs.decoder.block[0]
        .layer[2]
        .DenseReluDense.wi_0.weight,
        ours.decoder.blocks[0].gated_feed_forward.down.weight: theirs.decoder.block[0]
        .layer[2]
        .DenseReluDense.wo.weight,
    }
    for got, want in pairs.items():
        assert float(got.detach().std()) == pytest.approx(float(want.detach().std()), rel=0.05)


# Text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path, model = tmp_path_factory.mktemp("t5"), io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(tiny.SENTENCES * 3),
        model_writer=model,
        model_type="unigram",
        vocab_size=150,
        hard_vocab_limit=False,
        minloglevel=2,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        normalization_rule_name="nmt_nfkc",
    )
    (path / "spiece.model").write_bytes(model.getvalue())
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer"}))
    return path


def processor(folder, rows=1000):
    return load_text(Folder(folder), family("t5").reads, vocab_size=rows, max_tokens=512)


TEXTS = PROBES | {
    "sentinels": "The <extra_id_0> fox <extra_id_1> over",
    "sentinels without spaces": "a<extra_id_0>b<extra_id_99>.",
    "a sentinel before a wide space with a mark": "a<extra_id_0>\u3000\u0301",
    "no sentinel": "<extra_id_100> <extra_id_-1>",
}


@pytest.mark.parametrize("name", TEXTS)
def test_ids_are_those_of_the_reference(folder, name):
    theirs = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=10**6)
    assert processor(folder).encode(TEXTS[name]).ids == theirs(TEXTS[name]).input_ids


def test_sentinels_are_counted_down_behind_the_pieces(folder):
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model")).get_piece_size()
    ours = processor(folder)
    assert ours.tokenizer.token_to_id("<extra_id_99>") == pieces
    assert ours.tokenizer.token_to_id("<extra_id_0>") == pieces + 99


def test_a_sentinel_stands_where_it_is_written(folder):
    """Without the spaces beside it."""
    encoding = processor(folder).encode("The <extra_id_0> fox")
    assert encoding.offsets[encoding.tokens.index("<extra_id_0>")] == (4, 16)


def test_pairs_are_those_of_the_reference(folder):
    theirs = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=10**6)
    for pair in PAIRS:
        assert processor(folder).encode(*pair).ids == theirs(*pair).input_ids


def test_rows_behind_the_sentinels_are_read_as_nothing(folder):
    assert processor(folder).decode([5, 999]) == processor(folder).decode([5])


def test_mt5_has_no_sentinels_behind_its_pieces(folder):
    ours = load_text(Folder(folder), family("mt5").reads, vocab_size=1000, max_tokens=512)
    assert ours.tokenizer.token_to_id("<extra_id_0>") is None


def test_a_count_of_sentinels_that_is_none_is_refused(folder, tmp_path):
    (tmp_path / "spiece.model").write_bytes((folder / "spiece.model").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"extra_ids": -1}))
    with pytest.raises(CorruptFile, match="extra_ids is -1, wanted a count"):
        processor(tmp_path)


@pytest.mark.parametrize("head", ["T5Model", "T5ForConditionalGeneration"])
def test_a_target_that_is_missing_is_asked_for(head):
    """As by the reference; the heads that classify take the source for it."""
    kind = family("t5")
    with pytest.raises(InvalidInput, match="there is no target"):
        kind.build(kind.tiny, head)(SOURCES)


def test_a_text_alone_is_what_the_encoder_makes_of_it():
    """As sentence-T5 has its vectors: Ni et al. 2021, section 3, https://arxiv.org/abs/2108.08877"""
    model = tiny.load("t5")
    read = torch.tensor([model.processor.encode("Ada lived in London.").ids])
    (found,) = triarch.pipeline("feature-extraction", model)("Ada lived in London.")
    np.testing.assert_allclose(found, model.encode(read).states[0].detach(), atol=1e-5)
