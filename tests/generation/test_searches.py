"""Diverse, constrained and contrastive search, against the last versions of the reference that had them and against
what they promise beyond it. tests/goldens/make_generation.py has the cases."""

import itertools
import json
from pathlib import Path

import pytest
import torch

import triarch
from tiny import MODELS, load, write_checkpoint
from triarch.errors import InvalidInput, LimitExceeded
from triarch.generation import Prefix, generate, stream
from triarch.generation.constrained import ForcedBeams, Phrase, Progress
from writers import writer

GOLDENS = [
    (path.stem, golden)
    for path in sorted((Path(__file__).parents[1] / "goldens" / "searches").glob("*.json"))
    for golden in json.loads(path.read_text())
]
FORCED = [(name, golden) for name, golden in GOLDENS if "force_words_ids" in golden["options"]]
PROMPTS = [[85, 17, 142, 68, 261], [9, 303], [77, 312, 30, 231, 32, 333, 90, 15, 15]]
END = 105
DIVERSE = {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0, "num_return_sequences": 4}
CONSTRAINED = {"num_beams": 4, "force_words_ids": [[200, 201], [[150], [160, 161]]]}
CONTRASTIVE = {"penalty_alpha": 0.6, "top_k": 4}
SEARCHES = [DIVERSE, CONSTRAINED, CONTRASTIVE]
each_search = pytest.mark.parametrize("search", SEARCHES, ids=["diverse", "constrained", "contrastive"])


@pytest.fixture(scope="module")
def model():
    return load("gpt2")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A model with a byte-level vocabulary whose texts rarely end."""
    return writer(tmp_path_factory.mktemp("model"))


def name_of(golden):
    if isinstance(golden, str):
        return golden
    shared = {"eos_token_id", "sequence_bias", "suppress_tokens", "max_new_tokens"}
    return " ".join(f"{name}={value}" for name, value in golden["options"].items() if name not in shared)


def listed(found):
    return found if isinstance(found, list) else [found]


def occurs(phrase, ids):
    return any(ids[i : i + len(phrase)] == phrase for i in range(len(ids)))


# Against the reference


@pytest.mark.parametrize("name, golden", GOLDENS, ids=name_of)
def test_tokens_and_scores_equal_the_reference(name, golden, monkeypatch):
    """Which does not keep beams that have all phrases: its constrained search often loses them again."""
    monkeypatch.setattr(ForcedBeams, "kept", lambda self, totals: [])
    found = listed(generate(load(name), golden["prompt"], **golden["options"]))
    assert [one.ids for one in found] == golden["ids"]
    if golden["scores"] is not None:
        assert [one.score for one in found] == pytest.approx(golden["scores"], abs=1e-5)


@pytest.mark.parametrize("name, golden", FORCED, ids=name_of)
def test_sequences_with_phrases_are_at_least_as_likely_as_the_references(name, golden):
    found = listed(generate(load(name), golden["prompt"], **golden["options"]))
    for one, score in zip(found, golden["scores"], strict=True):
        assert one.score >= score - 1e-5


# What they promise


@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
@pytest.mark.parametrize("returned", [1, 3])
@pytest.mark.parametrize("num_beams", [3, 8])
@pytest.mark.parametrize(
    "forced",
    [[[200]], [[200, 201, 202]], [[150, 151], [160, 161, 162]], [[[200, 201, 202], [210, 211]], [150]]],
    ids=str,
)
def test_every_phrase_occurs_in_every_sequence(model, prompt, returned, num_beams, forced):
    """In the prompt it would not count."""
    found = generate(
        model,
        [*prompt, 150, 200],
        max_new_tokens=9,
        num_beams=num_beams,
        num_return_sequences=returned,
        force_words_ids=forced,
        eos_token_id=END,
        logit_bias={END: 3.0},
    )
    assert len({tuple(one.ids) for one in listed(found)}) == returned
    for one in listed(found):
        for phrase in forced:
            choices = phrase if isinstance(phrase[0], list) else [phrase]
            assert any(occurs(choice, one.ids) for choice in choices)


def test_phrases_may_take_all_the_room_there_is(model):
    found = generate(model, PROMPTS[0], max_new_tokens=5, num_beams=2, force_words_ids=[[150, 151], [160, 161, 162]])
    assert found.ids in ([150, 151, 160, 161, 162], [160, 161, 162, 150, 151])


def test_as_many_beams_as_sequences_find_the_likeliest_with_a_phrase(model):
    tokens, new, phrase = [113, 379, 342], 4, [342, 113]
    found = generate(
        model,
        PROMPTS[0],
        max_new_tokens=new,
        num_beams=len(tokens) ** new,
        num_return_sequences=5,
        force_words_ids=[phrase],
        prefix_allowed_tokens_fn=lambda _, ids: tokens,
        length_penalty=0.0,
    )
    every = [list(ids) for ids in itertools.product(tokens, repeat=new) if occurs(phrase, list(ids))]
    with torch.no_grad():
        logs = model(torch.tensor([PROMPTS[0] + ids for ids in every])).logits.log_softmax(-1)[:, -new - 1 : -1]
    totals = logs.gather(-1, torch.tensor(every)[..., None]).sum((1, 2))
    best = totals.topk(5)
    assert [one.ids for one in found] == [every[i] for i in best.indices]
    assert [one.score for one in found] == pytest.approx(best.values.tolist(), abs=1e-4)


def after(progress, *tokens):
    for token in tokens:
        progress = progress.after(token)
    return progress


def test_a_phrase_that_breaks_off_can_be_begun_by_the_token_that_broke_it():
    begin = Progress((Phrase(((5, 7),)),))
    assert after(begin, 5, 5, 7).fulfilled
    assert not after(begin, 5, 9, 7).fulfilled
    assert after(begin, 5, 9, 7).next() == [5]
    assert after(begin, 5, 9, 5).next() == [7]


def test_one_of_several_alternatives_is_enough():
    begin = Progress((Phrase(((5, 7), (5, 8, 9), (6,))), Phrase(((1,),))))
    assert begin.next() == [1, 5, 6]
    assert after(begin, 5).next() == [7, 8]
    assert after(begin, 5, 8, 9, 1).fulfilled
    assert after(begin, 6, 1).fulfilled
    assert not after(begin, 5, 8, 1).fulfilled
    assert after(begin, 6, 6, 6).next() == [1]


def test_groups_differ_where_without_a_penalty_they_would_not(model):
    options = {"max_new_tokens": 6, "num_beams": 4, "num_beam_groups": 4, "num_return_sequences": 4}
    found = generate(model, PROMPTS[0], diversity_penalty=50.0, **options)
    assert [len({one.ids[place] for one in found}) for place in range(6)] == [4] * 6
    weak = generate(model, PROMPTS[0], diversity_penalty=1e-6, **options)
    assert len({tuple(one.ids) for one in weak}) == 1


def test_contrastive_search_repeats_itself_less_than_greedy_decoding_does(model):
    options = {"max_new_tokens": 40, "ignore_eos": True}
    plain = generate(model, PROMPTS[1], **options).ids
    found = generate(model, PROMPTS[1], **CONTRASTIVE, **options).ids
    assert len(set(found)) > len(set(plain))


@each_search
@pytest.mark.parametrize("options", [{}, {"logit_bias": {END: 3.0}, "repetition_penalty": 1.3}], ids=str)
def test_a_batch_gives_what_each_prompt_gives_alone(model, search, options):
    options = {"max_new_tokens": 10, "eos_token_id": END} | search | options
    alone = [listed(generate(model, prompt, **options)) for prompt in PROMPTS]
    together = generate(model, PROMPTS, **options)
    for found, wanted in zip(map(listed, together), alone, strict=True):
        assert [one.ids for one in found] == [one.ids for one in wanted]
        if wanted[0].score is not None:
            assert [one.score for one in found] == pytest.approx([one.score for one in wanted], abs=1e-5)


@each_search
@pytest.mark.parametrize("options", [{"use_cache": False}, {"cache_room": 30}], ids=str)
def test_tokens_do_not_depend_on_the_cache(model, search, options):
    wanted = [one.ids for one in listed(generate(model, PROMPTS[0], max_new_tokens=10, **search))]
    found = listed(generate(model, PROMPTS[0], max_new_tokens=10, **search, **options))
    assert [one.ids for one in found] == wanted


def test_the_cache_has_room_for_candidates_of_the_last_token(model):
    with pytest.raises(LimitExceeded, match="prompt 0 takes 11 tokens of cache, cache_room is 10"):
        generate(model, PROMPTS[0], max_new_tokens=6, cache_room=10, **CONTRASTIVE)
    assert len(generate(model, PROMPTS[0], max_new_tokens=6, cache_room=11, **CONTRASTIVE).ids) == 6
    assert len(generate(model, PROMPTS[0], max_new_tokens=59, ignore_eos=True, **CONTRASTIVE).ids) == 59


# Beside other options


@each_search
def test_log_probabilities_are_those_of_the_model(model, search):
    for found in listed(generate(model, PROMPTS[0], max_new_tokens=8, logprobs=2, **search)):
        with torch.no_grad():
            logs = model(torch.tensor([PROMPTS[0] + found.ids])).logits[0].log_softmax(-1)[len(PROMPTS[0]) - 1 : -1]
        wanted = [float(row[token]) for row, token in zip(logs, found.ids, strict=True)]
        assert found.logprobs == pytest.approx(wanted, abs=1e-4)
        for row, alternatives in zip(logs, found.alternatives, strict=True):
            assert [token for token, _ in alternatives] == row.topk(2).indices.tolist()


@pytest.mark.parametrize("search", [DIVERSE, CONTRASTIVE], ids=["diverse", "contrastive"])
@pytest.mark.parametrize("form", [{"choice": ["yes", "no", "never"]}, {"regex": "[a-c]{3,5}"}], ids=str)
def test_a_form_holds(own, search, form):
    """With much weight on sameness a token that the form rules out must not come in for being unlike the others."""
    search = search | ({"penalty_alpha": 0.95} if "penalty_alpha" in search else {"num_return_sequences": 1})
    for found in listed(generate(own, "The fox", max_new_tokens=20, **search, **form)):
        assert found.finish_reason == "stop"
        assert found.text in form["choice"] if "choice" in form else set(found.text) <= set("abc")


def test_phrases_may_be_forced_within_a_form(own):
    phrase = own.processor.encode("cab").ids
    options = {"num_beams": 4, "regex": "[a-c]{8}", "max_new_tokens": 20}
    assert "cab" not in generate(own, "The fox", **options).text
    found = generate(own, "The fox", force_words_ids=[phrase], **options)
    assert "cab" in found.text
    assert len(found.text) == 8
    with pytest.raises(InvalidInput, match="the options leave 0 sequences to prompt 0, wanted 1; allow more"):
        generate(own, "The fox", force_words_ids=[own.processor.encode("x").ids], **options)


@each_search
def test_a_stop_text_ends_a_sequence(own, search):
    if "force_words_ids" in search:
        search = search | {"force_words_ids": [own.processor.encode(" stop").ids]}
    plain = listed(generate(own, "The fox", max_new_tokens=12, **search))
    stop = "stop" if "force_words_ids" in search else plain[0].text[3:6]
    found = listed(generate(own, "The fox", max_new_tokens=12, stop=stop, **search))
    assert any(one.finish_reason == "stop" for one in found)
    for one in found:
        assert stop not in one.text
        if one.finish_reason == "stop":
            assert stop in own.processor.decode(one.ids)


@pytest.mark.parametrize("search", [DIVERSE, CONSTRAINED], ids=["diverse", "constrained"])
def test_guidance_leads_sets_of_beams_too(model, search):
    plain, led = (generate(model, PROMPTS[0], max_new_tokens=8, guidance_scale=g, **search) for g in (1.0, 3.0))
    assert [one.ids for one in listed(plain)] != [one.ids for one in listed(led)]


@pytest.mark.parametrize("search", [DIVERSE, CONSTRAINED], ids=["diverse", "constrained"])
def test_a_prefix_serves_sets_of_beams_too(model, search):
    prefix = Prefix()
    generate(model, PROMPTS[2], max_new_tokens=4, prefix=prefix)
    wanted = listed(generate(model, PROMPTS[2], max_new_tokens=8, **search))
    found = listed(generate(model, PROMPTS[2], max_new_tokens=8, prefix=prefix, **search))
    assert prefix.reused == len(PROMPTS[2]) - 1
    assert [one.ids for one in found] == [one.ids for one in wanted]
    assert (
        generate(model, PROMPTS[2], max_new_tokens=8, prefix=prefix).ids
        == generate(model, PROMPTS[2], max_new_tokens=8).ids
    )


def test_contrastive_search_can_be_streamed(model):
    wanted = generate(model, PROMPTS[0], max_new_tokens=8, **CONTRASTIVE)
    pieces = list(stream(model, PROMPTS[0], max_new_tokens=8, **CONTRASTIVE))
    assert [token for piece in pieces for token in piece.ids] == wanted.ids


@each_search
def test_a_search_can_be_cancelled(model, search):
    asked = iter([False, False, True])
    found = listed(generate(model, PROMPTS[0], max_new_tokens=9, cancelled=lambda: next(asked), **search))
    assert {one.finish_reason for one in found} == {"cancelled"}
    assert {len(one.ids) for one in found} == {3}


# What is refused, before the model runs


REFUSED = [
    ({"num_beams": 4, "num_beam_groups": 3, "diversity_penalty": 1.0}, "num_beams 4 do not split into"),
    ({"num_beams": 4, "num_beam_groups": 2}, "num_beam_groups and diversity_penalty do nothing alone"),
    ({"num_beams": 4, "diversity_penalty": 1.0}, "num_beam_groups and diversity_penalty do nothing alone"),
    ({"num_beam_groups": 2, "diversity_penalty": 1.0}, "num_beams 1 do not split into num_beam_groups 2"),
    (DIVERSE | {"do_sample": True}, "num_beam_groups goes with neither do_sample nor force_words_ids"),
    (DIVERSE | {"force_words_ids": [[5]]}, "num_beam_groups goes with neither do_sample nor force_words_ids"),
    ({"force_words_ids": [[5]]}, "force_words_ids needs num_beams above 1"),
    (CONSTRAINED | {"do_sample": True}, "force_words_ids needs num_beams above 1, and no do_sample"),
    (CONTRASTIVE | {"do_sample": True}, "penalty_alpha needs top_k of at least 2, and no do_sample"),
    (CONTRASTIVE | {"num_beams": 2}, "num_beams and penalty_alpha are different ways to search"),
    (CONTRASTIVE | {"force_words_ids": [[5]]}, "force_words_ids needs num_beams above 1"),
    (CONTRASTIVE | {"prompt_lookup_num_tokens": 2}, "are different ways to search"),
    (CONTRASTIVE | {"guidance_scale": 2.0}, "penalty_alpha compares what one prompt is seen as, guidance reads two"),
    (CONTRASTIVE | {"num_return_sequences": 2}, "gives one text several times"),
    (CONTRASTIVE | {"temperature": 0.5}, "temperature only matters when drawing"),
    (CONTRASTIVE | {"top_p": 0.5}, "top_p only matters when drawing"),
    (CONTRASTIVE | {"length_penalty": 2.0}, "length_penalty only matters with num_beams above 1"),
    ({"penalty_alpha": 0.6}, "penalty_alpha needs top_k of at least 2"),
    ({"penalty_alpha": 0.0, "top_k": 4}, "penalty_alpha is 0, wanted more than 0"),
    *[
        ({"num_beams": 2, "force_words_ids": forced}, "force_words_ids holds .*, wanted ids, or lists of ids to choose")
        for forced in ([5], [[]], [[[]]], [["a"]], [[True]], [[5, [6]]], [[[5], 6]], [None], ["ab"], [[1.5]])
    ],
    ({"num_beams": 2, "force_words_ids": [[424]]}, r"force_words_ids has the id 424, wanted 0 to 423"),
    ({"num_beams": 2, "force_words_ids": [[[5], [-1]]]}, r"force_words_ids has the id -1, wanted 0 to 423"),
    (
        {"num_beams": 2, "force_words_ids": [[[5, 6], [7], [5, 6, 8]]]},
        r"has the alternatives \[5, 6\] and \[5, 6, 8\], of which one begins with the other",
    ),
    ({"num_beams": 2, "force_words_ids": [[5, END]], "eos_token_id": END}, "holds a token that ends the sequence"),
    (CONSTRAINED | {"suppress_tokens": [201]}, "force_words_ids holds what suppress_tokens or bad_words_ids rule out"),
    (CONSTRAINED | {"bad_words_ids": [[150], [161]]}, "force_words_ids holds what suppress_tokens or bad_words_ids"),
]


@pytest.mark.parametrize("options, message", REFUSED, ids=lambda value: str(value)[:70])
def test_what_cannot_be_searched_for_is_refused_before_the_model_runs(own, monkeypatch, options, message):
    monkeypatch.setattr(own, "features", lambda *args, **kwargs: pytest.fail("the model ran"))
    with pytest.raises(InvalidInput, match=message) as caught:
        generate(own, PROMPTS[0], **options)
    assert "\n" not in str(caught.value)


def test_phrases_without_end_are_refused(own, monkeypatch):
    monkeypatch.setattr(own, "features", lambda *args, **kwargs: pytest.fail("the model ran"))
    with pytest.raises(LimitExceeded, match="force_words_ids takes 5 tokens, 4 are to follow prompt 0; raise"):
        generate(own, PROMPTS[0], max_new_tokens=4, num_beams=2, force_words_ids=[[5, 6], [[7, 8, 9], [7, 7, 7, 7]]])
    with pytest.raises(LimitExceeded, match="force_words_ids holds 2,000 ids, over 1,024; force fewer"):
        generate(own, PROMPTS[0], num_beams=2, force_words_ids=[[[token % 400 for token in range(2000)]]])
    with pytest.raises(LimitExceeded, match="4,000 sequences at once, over 1,024"):
        generate(own, PROMPTS[:1] * 10, penalty_alpha=0.5, top_k=400)


def test_contrastive_search_and_a_prefix_exclude_each_other(own):
    with pytest.raises(InvalidInput, match="penalty_alpha needs hidden states of the whole prompt"):
        generate(own, PROMPTS[0], prefix=Prefix(), **CONTRASTIVE)


@pytest.mark.parametrize("search", [DIVERSE, CONSTRAINED], ids=["diverse", "constrained"])
def test_beams_are_not_streamed(own, search):
    with pytest.raises(InvalidInput, match="beams are decided at the end and cannot be streamed"):
        stream(own, PROMPTS[0], **search)


@each_search
def test_a_checkpoint_may_ask_for_a_search(tmp_path, search):
    folder = write_checkpoint(tmp_path / "gpt2", **MODELS["gpt2"])
    (folder / "generation_config.json").write_text(json.dumps(search | {"max_new_tokens": 8}))
    asking = triarch.load(folder)
    wanted = [one.ids for one in listed(generate(load("gpt2"), PROMPTS[0], max_new_tokens=8, **search))]
    assert [one.ids for one in listed(generate(asking, PROMPTS[0]))] == wanted
    drawing = {"do_sample": True, "seed": 3, "top_k": 9}  # a call that draws does not search
    drawn = generate(load("gpt2"), PROMPTS[0], max_new_tokens=8, **drawing)
    assert generate(asking, PROMPTS[0], **drawing).ids == drawn.ids
