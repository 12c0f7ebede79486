"""Guessing ahead, guidance and prefixes: the tokens are those of doing without, or of the reference."""

import pytest
import torch
import transformers

import triarch
from triarch.errors import InvalidInput, LimitExceeded
from triarch.family import Network
from triarch.generation import Prefix, generate, stream
from triarch.models import family
from writers import writer

PROMPTS = [[5, 17, 42, 8, 61, 5, 17], [9, 3], [77, 12, 30, 31, 32, 33, 90, 15, 30, 31]]


def tiny(folder, seed, **config):
    """The reference's model and ours, with the same weights and no end token."""
    torch.manual_seed(seed)
    raw = family("gpt2").tiny.to_hf() | {"eos_token_id": None, "bos_token_id": None} | config
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**raw)).eval()
    for tensor in theirs.parameters():
        torch.nn.init.normal_(tensor, std=0.5 if tensor.dim() == 1 else 0.2)
    theirs.save_pretrained(folder)
    return theirs, triarch.load(folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("gpt2"), 0)


@pytest.fixture(scope="module")
def model(pair):
    return pair[1]


@pytest.fixture(scope="module")
def draft(model, tmp_path_factory):
    """The model with a little noise: it guesses well, but not always."""
    triarch.save(model, folder := tmp_path_factory.mktemp("draft"))
    noisy = triarch.load(folder)
    torch.manual_seed(1)
    with torch.no_grad():
        for tensor in noisy.parameters():
            tensor += 0.01 * torch.randn_like(tensor)
    return noisy


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return writer(tmp_path_factory.mktemp("text"))


@pytest.fixture
def passes(monkeypatch):
    """How many tokens each pass of any model reads."""
    read: list[tuple[Network, int]] = []
    plain = type(family("gpt2").build(family("gpt2").tiny, "GPT2LMHeadModel")).features

    def features(self, input_ids, *args, **kwargs):
        read.append((self, input_ids.shape[1]))
        return plain(self, input_ids, *args, **kwargs)

    monkeypatch.setattr(type(family("gpt2").build(family("gpt2").tiny, "GPT2LMHeadModel")), "features", features)
    return read


# Guessing ahead

PLAIN = [
    {},
    {"repetition_penalty": 1.5, "no_repeat_ngram_size": 3},
    {"do_sample": True, "seed": 3},
    {"do_sample": True, "seed": [1, 2, 3], "temperature": 0.3, "top_k": 5},
    {"eos_token_id": [4, 49, 53, 60, 61, 62, 63], "min_new_tokens": 5},
    {"guidance_scale": 2.0},
    {"use_cache": False},
    {"cache_room": 40},
    {"logprobs": 3},
]


def guessing(draft):
    return [
        {"prompt_lookup_num_tokens": 4},
        {"assistant_model": draft},
        {"assistant_model": draft, "num_assistant_tokens": 1},
    ]


@pytest.mark.parametrize("options", PLAIN, ids=lambda options: " ".join(options) or "plain")
@pytest.mark.parametrize("way", range(3), ids=["lookup", "draft", "draft of one"])
def test_guessing_ahead_changes_no_token(model, draft, way, options):
    plain = generate(model, PROMPTS, max_new_tokens=30, **options)
    found = generate(model, PROMPTS, max_new_tokens=30, **guessing(draft)[way], **options)
    assert [one.ids for one in found] == [one.ids for one in plain]
    assert [one.finish_reason for one in found] == [one.finish_reason for one in plain]
    for one, two in zip(found, plain, strict=True):
        assert one.logprobs == (None if two.logprobs is None else pytest.approx(two.logprobs, abs=1e-5))


def test_a_draft_that_knows_everything_saves_five_passes_of_six(model):
    found = generate(model, PROMPTS[0], max_new_tokens=31, assistant_model=model)
    assert found.guessed == 25  # of 30, the first one comes with the prompt
    assert generate(model, PROMPTS[0], max_new_tokens=30).guessed is None


def test_what_repeats_is_guessed_from_the_text_itself(model, passes):
    options = {"suppress_tokens": [token for token in range(99) if token not in (5, 17)]}
    found = generate(model, PROMPTS[0], max_new_tokens=40, prompt_lookup_num_tokens=8, **options)
    assert found.guessed is not None
    assert len(passes) == 40 - found.guessed
    assert found.guessed > 25


def test_the_draft_reads_no_token_twice_but_those_it_guessed_wrong(model, draft, passes):
    found = generate(model, PROMPTS[0], max_new_tokens=30, assistant_model=draft)
    read = sum(count for one, count in passes if one is draft)
    assert read <= len(PROMPTS[0]) + 30 + 5 * (30 - found.guessed)
    assert 0 < found.guessed < 30


def test_a_draft_with_a_shorter_context_guesses_as_far_as_it_reaches(model, tmp_path):
    _, short = tiny(tmp_path, 0, n_positions=16)
    plain = generate(model, PROMPTS[0], max_new_tokens=40).ids
    assert generate(model, PROMPTS[0], max_new_tokens=40, assistant_model=short).ids == plain


def test_guesses_reach_neither_past_the_length_nor_past_a_stop(text):
    options = {"max_new_tokens": 30, "prompt_lookup_num_tokens": 8, "regex": "(ab){30,}"}
    found = generate(text, "The ababab", **options)
    assert found.text == generate(text, "The ababab", max_new_tokens=30, regex="(ab){30,}").text
    assert len(found.ids) == 30
    assert generate(text, "The ababab", stop="babab", **options).text == "a"


@pytest.mark.parametrize(
    "form", [{"regex": "(ab|ba){2,9}c"}, {"json_schema": {"items": {"enum": [1, 2]}, "type": "array"}}]
)
@pytest.mark.parametrize("way", range(2), ids=["lookup", "draft"])
@pytest.mark.parametrize("options", [{}, {"do_sample": True, "seed": 1}], ids=["likeliest", "drawn"])
def test_guessing_ahead_changes_no_form(text, form, way, options):
    plain = generate(text, "The ababab", max_new_tokens=30, **form, **options)
    found = generate(text, "The ababab", max_new_tokens=30, **guessing(text)[way], **form, **options)
    assert (found.ids, found.finish_reason) == (plain.ids, plain.finish_reason)
    assert found.guessed > 0 or options


def test_streamed_guesses_make_the_same_text(text):
    options = {"max_new_tokens": 40, "prompt_lookup_num_tokens": 4}
    pieces = list(stream(text, ["The fox", "Paris"], **options))
    for number, found in enumerate(generate(text, ["The fox", "Paris"], **options)):
        own = [piece for piece in pieces if piece.prompt == number]
        assert "".join(piece.text for piece in own) == found.text
        assert own[-1].finish_reason == "length"


def test_a_cancelled_call_says_so_of_prompts_that_were_not_begun(text):
    options = {"max_new_tokens": 40, "prompt_lookup_num_tokens": 4, "cancelled": lambda: True}
    assert {piece.prompt: piece.finish_reason for piece in stream(text, ["The fox", "Paris"], **options)} == {
        0: "cancelled",
        1: "cancelled",
    }


def test_a_draft_of_another_vocabulary_is_refused(model, text, tmp_path):
    with pytest.raises(InvalidInput, match="assistant_model has 424 tokens, the model 99"):
        generate(model, [5], assistant_model=text)
    with pytest.raises(InvalidInput, match="assistant_model is str, wanted a loaded model"):
        generate(model, [5], assistant_model="gpt2")
    other = writer(tmp_path)
    other.processor.tokenizer.add_tokens(["new"])
    with pytest.raises(InvalidInput, match="numbers its tokens differently"):
        generate(text, "a", assistant_model=other)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"prompt_lookup_num_tokens": 4, "num_beams": 2}, "different ways to search"),
        ({"prompt_lookup_num_tokens": 0}, "prompt_lookup_num_tokens is 0, wanted 1 to 256"),
        ({"num_assistant_tokens": 9}, "num_assistant_tokens only matters with assistant_model"),
        ({"prompt_lookup_num_tokens": 2, "do_sample": True, "num_return_sequences": 2}, "one sequence a prompt"),
    ],
    ids=str,
)
def test_what_guessing_does_not_go_with_is_refused(model, options, message):
    with pytest.raises(InvalidInput, match=message):
        generate(model, [5], **options)


# Guidance


@pytest.mark.parametrize("scale", [0.5, 1.5, 4.0])
@pytest.mark.parametrize("negative", [None, [33, 20, 7], [8] * 12], ids=["last token", "shorter", "longer"])
@pytest.mark.parametrize("options", [{}, {"repetition_penalty": 1.4}, {"do_sample": True, "top_k": 20}], ids=str)
def test_guided_tokens_equal_the_reference(pair, scale, negative, options):
    theirs, ours = pair
    ids = torch.tensor([PROMPTS[0]])
    given = {} if negative is None else {"negative_prompt_ids": torch.tensor([negative])}
    torch.manual_seed(3)
    config = transformers.GenerationConfig(
        max_new_tokens=15, pad_token_id=0, guidance_scale=scale, **({"do_sample": False} | options)
    )
    wanted = theirs.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config, **given)
    seed = {"seed": 3} if options.get("do_sample") else {}
    found = generate(
        ours, PROMPTS[0], max_new_tokens=15, guidance_scale=scale, negative_prompt=negative, **options, **seed
    )
    assert found.ids == wanted[0, len(PROMPTS[0]) :].tolist()


def test_guided_prompts_of_a_batch_give_what_each_gives_alone(model):
    for negative in (None, [1, 2, 3]):
        options = {"guidance_scale": 2.0, "negative_prompt": negative, "max_new_tokens": 12}
        alone = [generate(model, prompt, **options).ids for prompt in PROMPTS]
        assert [found.ids for found in generate(model, PROMPTS, **options)] == alone


def test_a_negative_prompt_may_be_a_text(text):
    ids = text.processor.encode("Paris is").ids
    options = {"guidance_scale": 2.0, "max_new_tokens": 12, "logprobs": 0}
    assert (
        generate(text, "The fox", negative_prompt="Paris is", **options).logprobs
        == generate(text, "The fox", negative_prompt=ids, **options).logprobs
        != generate(text, "The fox", **options).logprobs
    )


def test_log_probabilities_are_those_of_the_guided_distribution(pair):
    theirs, ours = pair
    found = generate(ours, PROMPTS[0], max_new_tokens=1, guidance_scale=2.0, negative_prompt=[7, 8], logprobs=0)
    with torch.no_grad():
        wanted, avoided = (theirs(torch.tensor([ids])).logits[0, -1].log_softmax(-1) for ids in (PROMPTS[0], [7, 8]))
    guided = (avoided + 2 * (wanted - avoided)).log_softmax(-1)
    assert found.logprobs == pytest.approx([float(guided[found.ids[0]])], abs=1e-4)


def test_a_negative_prompt_that_does_not_fit_is_refused(model):
    with pytest.raises(LimitExceeded, match="negative_prompt has 60 tokens and 10 are to follow, there is room for 64"):
        generate(model, [5], max_new_tokens=10, guidance_scale=2.0, negative_prompt=[7] * 60)
    with pytest.raises(InvalidInput, match="negative_prompt does nothing without guidance_scale"):
        generate(model, [5], negative_prompt=[7])
    with pytest.raises(InvalidInput, match="prompt 0 has the id 99"):
        generate(model, [5], guidance_scale=2.0, negative_prompt=[99])


# Prefixes

BEGIN = [5, 17, 42, 8, 61, 5, 17]
CONTINUED = [[*BEGIN, 9], [*BEGIN, 9, 3, 4], BEGIN, BEGIN[:3], [77, 12], [*BEGIN, 50]]


@pytest.mark.parametrize(
    "options",
    [{}, {"do_sample": True, "seed": 2}, {"prompt_lookup_num_tokens": 4}, {"eos_token_id": list(range(40, 70))}],
    ids=str,
)
def test_tokens_do_not_depend_on_what_a_prefix_kept(model, options, passes):
    prefix = Prefix()
    for prompt in CONTINUED:
        plain = generate(model, prompt, max_new_tokens=12, **options).ids
        assert generate(model, prompt, max_new_tokens=12, prefix=prefix, **options).ids == plain


def test_only_what_is_new_is_computed(model, passes):
    prefix = Prefix()
    generate(model, BEGIN, max_new_tokens=1, prefix=prefix)
    passes.clear()
    generate(model, [*BEGIN, 9, 3], max_new_tokens=1, prefix=prefix)
    assert [count for _, count in passes] == [2]
    assert prefix.reused == 7


def test_an_answer_is_part_of_the_next_prompt(model, passes):
    """As in a chat."""
    prefix = Prefix()
    answer = generate(model, BEGIN, max_new_tokens=5, prefix=prefix).ids
    passes.clear()
    generate(model, [*BEGIN, *answer, 9], max_new_tokens=1, prefix=prefix)
    assert [count for _, count in passes] == [2]  # the last token of the answer was chosen, but never read


def test_several_samples_leave_a_prefix_that_holds(model):
    prefix = Prefix()
    options = {"do_sample": True, "seed": 1, "num_return_sequences": 3, "max_new_tokens": 6}
    plain = [found.ids for found in generate(model, BEGIN, **options)]
    assert [found.ids for found in generate(model, BEGIN, prefix=prefix, **options)] == plain
    for prompt in CONTINUED[:4]:
        plain = [found.ids for found in generate(model, prompt, **options)]
        assert [found.ids for found in generate(model, prompt, prefix=prefix, **options)] == plain
        assert prefix.reused >= 2


def test_a_call_that_is_cancelled_leaves_what_it_computed(model):
    prefix = Prefix()
    found = generate(model, BEGIN, max_new_tokens=12, prefix=prefix, cancelled=lambda: True)
    assert found.finish_reason == "cancelled"
    plain = generate(model, [*BEGIN, 9], max_new_tokens=12).ids
    assert generate(model, [*BEGIN, 9], max_new_tokens=12, prefix=prefix).ids == plain
    assert prefix.reused == len(BEGIN)


@pytest.mark.parametrize("way", ["fails", "is left"])
def test_a_call_that_does_not_end_leaves_nothing_half_done(model, way, monkeypatch):
    prefix = Prefix()
    generate(model, BEGIN, max_new_tokens=3, prefix=prefix)
    if way == "fails":
        with monkeypatch.context() as patched:
            patched.setattr(model, "features", lambda *args, **kwargs: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                generate(model, BEGIN, max_new_tokens=3, prefix=prefix)
    else:
        next(stream(model, BEGIN, max_new_tokens=3, prefix=prefix))
    plain = generate(model, [*BEGIN, 9], max_new_tokens=12).ids
    assert generate(model, [*BEGIN, 9], max_new_tokens=12, prefix=prefix).ids == plain


def test_a_call_that_is_refused_leaves_the_prefix_as_it_was(model):
    prefix = Prefix()
    generate(model, BEGIN, max_new_tokens=3, prefix=prefix)
    for wrong in ({"top_p": 0.0}, {"cache_room": 40}, {"guidance_scale": 2.0}, {"use_cache": False}):
        with pytest.raises(InvalidInput):
            generate(model, BEGIN, max_new_tokens=3, prefix=prefix, **wrong)
    generate(model, BEGIN, max_new_tokens=3, prefix=prefix)
    assert prefix.reused == len(BEGIN) - 1


def test_what_a_prefix_cannot_serve_is_refused(model, draft):
    prefix = Prefix()
    generate(model, BEGIN, max_new_tokens=3, prefix=prefix)
    with pytest.raises(InvalidInput, match="a prefix serves one prompt"):
        generate(model, PROMPTS, max_new_tokens=3, prefix=prefix)
    with pytest.raises(InvalidInput, match="a prefix serves one prompt"):
        generate(model, PROMPTS, max_new_tokens=3, prefix=prefix, prompt_lookup_num_tokens=3)
    with pytest.raises(InvalidInput, match="a prefix serves one prompt, with a cache"):
        generate(model, BEGIN, max_new_tokens=3, prefix=prefix, use_cache=False)
    with pytest.raises(InvalidInput, match="guidance reads two prompts, a prefix holds one"):
        generate(model, BEGIN, max_new_tokens=3, prefix=prefix, guidance_scale=2.0)
    with pytest.raises(InvalidInput, match="the prefix was computed by another model"):
        generate(draft, BEGIN, max_new_tokens=3, prefix=prefix)
    with pytest.raises(InvalidInput, match="cache_room is 40, that of the prefix None"):
        generate(model, BEGIN, max_new_tokens=3, prefix=prefix, cache_room=40)
