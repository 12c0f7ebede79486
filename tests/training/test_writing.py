"""Writing from a source: tokens and scores are those of the reference; batches, caches and guesses change nothing."""

import pytest
import torch
import transformers

import triarch
from triarch.errors import InvalidInput, LimitExceeded
from triarch.generation import Prefix, generate, stream
from triarch.generation.inference import Decoder
from triarch.layers.source import Source
from triarch.models import family

HEADS = {
    "bart": "BartForConditionalGeneration",
    "mbart": "MBartForConditionalGeneration",
    "marian": "MarianMTModel",
    "t5": "T5ForConditionalGeneration",
    "mt5": "MT5ForConditionalGeneration",
}
SOURCES = [[5, 17, 42, 8, 61, 2], [9, 3, 2], [77, 12, 30, 31, 32, 33, 90, 15, 5, 2]]
START = {"bart": 2, "mbart": 7, "marian": 98, "t5": 0, "mt5": 0}
ENDS = [4, 12, 22, 31, 45, 49, 53, 60, 71, 80]


@pytest.fixture(scope="module", params=HEADS)
def pair(request, tmp_path_factory):
    """The reference's model and ours, with the same weights."""
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    raw = family(request.param).tiny.to_hf() | {"model_type": request.param, "forced_eos_token_id": None}
    raw |= {"num_decoder_layers": 2}  # of T5; with more than in the encoder the reference's cache runs out of layers
    raw |= {"max_position_embeddings": 64, "decoder_start_token_id": START[request.param]}
    theirs = getattr(transformers, HEADS[request.param])(transformers.AutoConfig.for_model(**raw)).eval()
    for tensor in theirs.parameters():
        if tensor.requires_grad:
            torch.nn.init.normal_(tensor, std=0.5 if tensor.dim() == 1 else 0.2)
    theirs.save_pretrained(folder)
    return theirs, triarch.load(folder)


def reference(theirs, source, **options):
    """Tokens and score of each sequence, without what pads them."""
    ids = torch.tensor([source])
    beams = options.get("num_beams", 1) > 1
    config = transformers.GenerationConfig(
        **({"pad_token_id": 0, "do_sample": False} | options),
        decoder_start_token_id=theirs.config.decoder_start_token_id,
        return_dict_in_generate=True,
        output_scores=True,
    )
    found = theirs.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    if not beams:
        return [found.sequences[0, 1:].tolist()], [None]
    lengths = (found.beam_indices >= 0).sum(1).tolist()
    rows = [row[1 : 1 + length].tolist() for row, length in zip(found.sequences, lengths, strict=True)]
    return rows, found.sequences_scores.tolist()


OPTIONS = {
    "greedy": {},
    "greedy, no sequence of three twice": {"no_repeat_ngram_size": 3},
    "greedy, first and last tokens forced": {"forced_bos_token_id": 11, "forced_eos_token_id": 12},
    "greedy, the first token forced, most others kept from the next": {
        "forced_bos_token_id": 11,
        "begin_suppress_tokens": [*range(13, 97)],
    },
    "greedy, not before the ninth": {"min_new_tokens": 9},
    "greedy, not the source's pairs": {"encoder_no_repeat_ngram_size": 2},
    "greedy, not the source's tokens": {"encoder_no_repeat_ngram_size": 1},
    "greedy, close to the source": {"encoder_repetition_penalty": 1.8},
    "beams": {"num_beams": 4, "num_return_sequences": 4},
    "beams as for news": {
        "num_beams": 4,
        "length_penalty": 2.0,
        "early_stopping": True,
        "no_repeat_ngram_size": 3,
        "min_length": 5,
        "forced_bos_token_id": 11,
        "forced_eos_token_id": 12,
    },
    "beams until nothing better can come": {"num_beams": 3, "early_stopping": "never", "length_penalty": 0.6},
    "beams, not the source's pairs": {"num_beams": 3, "encoder_no_repeat_ngram_size": 2},
    "beams, with a word ruled out": {"num_beams": 4, "bad_words_ids": [[49], [23, 4]]},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_tokens_and_scores_are_those_of_the_reference(pair, options):
    theirs, ours = pair
    options = {"max_new_tokens": 12, "eos_token_id": ENDS} | options
    for source in SOURCES:
        ids, scores = reference(theirs, source, **options)
        found = generate(ours, source, **options)
        found = found if isinstance(found, list) else [found]
        assert [one.ids for one in found] == ids
        if scores != [None]:
            assert [one.score for one in found] == pytest.approx(scores, rel=1e-5)


WAYS = {
    "greedy": {},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "drawn": {"do_sample": True, "seed": 3, "num_return_sequences": 3},
    "drawn beams": {"do_sample": True, "seed": 3, "num_beams": 3},
    "diverse": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.7},
    "contrastive": {"penalty_alpha": 0.5, "top_k": 3},
    "forced": {"num_beams": 3, "force_words_ids": [[33, 40]]},
}


def flat(found):
    return [row for rows in found for row in (rows if isinstance(rows, list) else [rows])]


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_a_batch_gives_what_each_source_gives_alone(pair, options):
    _, ours = pair
    options = {"max_new_tokens": 9, "eos_token_id": ENDS} | options

    alone = flat(generate(ours, source, **options) for source in SOURCES)
    assert [row.ids for row in flat(generate(ours, SOURCES, **options))] == [row.ids for row in alone]


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_without_a_cache_it_is_the_same(pair, options):
    _, ours = pair
    options = {"max_new_tokens": 8, "eos_token_id": ENDS, "num_return_sequences": 1} | options
    found, plain = (flat(generate(ours, SOURCES, use_cache=use, **options)) for use in (True, False))
    assert [row.ids for row in found] == [row.ids for row in plain]
    if found[0].score is not None:
        assert [row.score for row in found] == pytest.approx([row.score for row in plain], rel=1e-5)


@pytest.mark.parametrize("guessing", ["lookup", "draft"])
def test_guessing_ahead_changes_nothing(pair, guessing):
    _, ours = pair
    ahead = {"prompt_lookup_num_tokens": 3} if guessing == "lookup" else {"assistant_model": ours}
    plain, guessed = (generate(ours, SOURCES, max_new_tokens=12, **more) for more in ({}, ahead))
    assert [one.ids for one in guessed] == [one.ids for one in plain]
    if guessing == "draft":
        assert sum(one.guessed for one in guessed) > 12


def test_a_stream_gives_the_tokens_of_the_whole(pair):
    _, ours = pair
    pieces = list(stream(ours, SOURCES[0], max_new_tokens=7))
    assert [token for piece in pieces for token in piece.ids] == generate(ours, SOURCES[0], max_new_tokens=7).ids


def test_it_goes_on_from_what_a_target_is_given(pair):
    _, ours = pair
    whole = generate(ours, SOURCES[0], max_new_tokens=8, ignore_eos=True).ids
    rest = generate(ours, SOURCES[0], max_new_tokens=5, ignore_eos=True, decoder_input_ids=whole[:3]).ids
    assert rest == whole[3:]


def test_guidance_leads_away_from_another_source(pair):
    _, ours = pair
    options = {"max_new_tokens": 6, "ignore_eos": True, "logprobs": 0}
    plain = generate(ours, SOURCES[0], **options).logprobs
    led = generate(ours, SOURCES[0], guidance_scale=9.0, negative_prompt=SOURCES[2], **options).logprobs
    assert led != pytest.approx(plain, rel=1e-3)
    same = generate(ours, SOURCES[0], guidance_scale=9.0, negative_prompt=SOURCES[0], **options).logprobs
    assert same == pytest.approx(plain, rel=1e-4)


def test_beams_share_what_was_read():
    """Cross-attention keys and values stay one row a source, whatever number of beams looks at them."""
    ours = family("bart").build(family("bart").tiny, "BartForConditionalGeneration")
    steps = Decoder(ours, [[2], [2]], sources=SOURCES[:2])
    with torch.inference_mode():
        steps.start()
        steps.select([0] * 4 + [1] * 4)
        size = steps.source.nbytes
        steps.feed(torch.zeros(8, 1, dtype=torch.int64))
        steps.select([3, 3, 1, 0, 7, 4, 4, 5])
        steps.feed(torch.zeros(8, 1, dtype=torch.int64))
    assert (steps.source.copies, steps.source.nbytes) == (4, size)
    steps.select([4, 5, 6, 7])
    assert (steps.source.copies, len(steps.source.states)) == (4, 1)


@pytest.mark.parametrize(
    "rows, copies, states",
    [
        ([0, 1, 2, 3, 4, 5], 3, [0, 1]),
        ([5, 3, 4, 0, 1, 2], 3, [1, 0]),
        ([0, 1, 3], 1, [0, 0, 1]),
        ([0, 4, 2], 1, [0, 1, 0]),
        ([2], 1, [0]),
    ],
)
def test_rows_of_a_source_stay_with_it(rows, copies, states):
    source = Source(torch.tensor([[[0.0]], [[1.0]]]), torch.tensor([[1], [1]]))
    source.select(torch.tensor([0, 0, 0, 1, 1, 1]))
    source.select(torch.tensor(rows))
    assert (source.copies, source.states.flatten().tolist()) == (copies, states)


def test_what_does_nothing_to_a_decoder_alone_is_refused():
    ours = family("gpt2").build(family("gpt2").tiny, "GPT2LMHeadModel")
    with pytest.raises(InvalidInput, match="decoder_input_ids do nothing to GPT2LMHeadModel, which has no encoder"):
        generate(ours, [5], decoder_input_ids=[3])


def test_what_the_encoder_does_not_take_is_refused_before_it_runs(pair):
    _, ours = pair
    most = ours.config.max_tokens
    with pytest.raises(LimitExceeded, match=f"source 1 has {most + 1:,} tokens, the model takes {most:,}"):
        generate(ours, [[5], [5] * (most + 1)])


def test_a_prefix_is_of_a_decoder_alone(pair):
    with pytest.raises(InvalidInput, match="a prefix is of a model without an encoder"):
        generate(pair[1], SOURCES[0], prefix=Prefix())


def test_a_start_token_out_of_range_is_refused(pair):
    with pytest.raises(InvalidInput, match="a target begins with 990, wanted 0 to 98"):
        generate(pair[1], SOURCES[0], decoder_start_token_id=990)
