"""Text generation as a task: prompts, chats and templates, long prompts, many of them, bad ones among them."""

import dataclasses
import json

import pytest
import torch

import tiny
import triarch
from triarch.errors import InvalidInput, LimitExceeded, TriarchError, Unsupported
from triarch.generation import generate, stream
from triarch.generation.settings import Settings
from triarch.models import family
from triarch.tasks.text_generation import Options

PROMPTS = ["Paris is the capital", "Ada", "What a lovely day! I love this film", "Who wrote the book?", " "]
GREEDY = {"do_sample": False, "max_new_tokens": 8}
LONG = " ".join(tiny.SENTENCES)
CHAT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who are you?"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """One of our own, as some tests change it."""
    return triarch.load(tiny.write_checkpoint(tmp_path_factory.mktemp("gpt2"), **tiny.MODELS["gpt2"]))


@pytest.fixture
def make(model):
    return lambda **options: triarch.pipeline("text-generation", model, **options)


@pytest.fixture
def chats(model, monkeypatch):
    """Chats are written out by a template of our own; gives what it was called with."""
    seen = []

    def chat_ids(messages, **options):
        seen.append((messages, options))
        text = "".join(f"{message['role']}: {message['content']}\n" for message in messages)
        return ids_of(model, text[:-1] if options["continue_final_message"] else text + "assistant: ")

    monkeypatch.setattr(model.processor, "chat_ids", chat_ids, raising=False)
    return seen


def ids_of(model, text):
    return model.processor.encode(text).ids


# Options and their defaults


def test_draws_as_the_reference_does_unless_told_otherwise(make):
    chosen = make().options({})
    assert (chosen.do_sample, chosen.temperature, chosen.top_k, chosen.max_new_tokens) == (True, 0.7, 50, None)


def test_what_the_checkpoint_says_goes_before_the_defaults_and_a_call_before_both(make, model, monkeypatch):
    said = {"do_sample": True, "temperature": 0.3, "top_p": 0.5, "max_new_tokens": 9}
    monkeypatch.setitem(model.sidecars, "generation_config.json", json.dumps(said).encode())
    chosen = make(top_p=0.6).options({"temperature": 0.4})
    assert (chosen.temperature, chosen.top_p, chosen.top_k, chosen.max_new_tokens) == (0.4, 0.6, 50, 9)
    monkeypatch.setitem(model.sidecars, "generation_config.json", json.dumps({"do_sample": False}).encode())
    assert not make().options({}).do_sample


def test_every_setting_of_generating_is_an_option():
    assert {f.name for f in dataclasses.fields(Settings)} < {f.name for f in dataclasses.fields(Options)}


def test_generate_kwargs_are_options_too(make):
    assert make()("Ada", generate_kwargs=GREEDY) == make()("Ada", **GREEDY)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"return_text": True, "return_tensors": True}, "return_text and return_tensors exclude each other"),
        ({"return_full_text": True, "return_tensors": True}, "return_full_text and return_text or return_tensors"),
        ({"truncation": True, "handle_long_generation": "hole"}, "cut at its beginning or at its end"),
        ({"tokenizer_encode_kwargs": {"max_length": 5}}, "does nothing without truncation"),
        (
            {"tokenizer_encode_kwargs": {"max_length": "5", "truncation": True}},
            "tokenizer_encode_kwargs is '5', wanted 1 or",
        ),
        (
            {"tokenizer_encode_kwargs": {"max_length": 0, "truncation": True}},
            "tokenizer_encode_kwargs is 0, wanted 1 or more",
        ),
        ({"tokenizer_encode_kwargs": {"enable_thinking": True}}, "'enable_thinking', which only a chat takes"),
        ({"template": "In short:"}, "has no {} for the input"),
        ({"tools": [{"name": "f"}]}, "tools does nothing to a text"),
        ({"continue_final_message": False}, "continue_final_message does nothing to a text"),
        ({"do_sample": False, "seed": 3}, "seed only matters when drawing"),
        ({"max_new_token": 3}, "did you mean max_new_tokens"),
        ({"generate_kwargs": 3}, "generate_kwargs is int, wanted a dict"),
        ({"batch_size": 0}, "batch_size is 0, wanted a count"),
    ],
)
def test_options_that_cannot_be_are_refused_before_the_model_runs(make, model, monkeypatch, options, message):
    monkeypatch.setattr(type(model), "features", None)
    with pytest.raises(InvalidInput) as error:
        make()("Ada", **options)
    assert message in str(error.value)


def test_a_model_that_does_not_score_next_words_is_refused():
    with pytest.raises(Unsupported, match="BertForMaskedLM gives WordScores, this task needs NextWordScores"):
        triarch.pipeline("text-generation", tiny.load("bert-words"))


# Many prompts


@pytest.mark.parametrize("options", [GREEDY, {"seed": 5, "max_new_tokens": 8}], ids=["greedy", "drawn"])
def test_many_prompts_get_what_each_gets_alone(make, options):
    assert make()(PROMPTS, **options) == [make()(prompt, **options) for prompt in PROMPTS]


def test_prompts_run_together(make, monkeypatch):
    from triarch.generation import call

    sizes, answers = [], call.answers

    def counted(model, ids, *more, **named):
        sizes.append(len(ids))
        return answers(model, ids, *more, **named)

    monkeypatch.setattr(call, "answers", counted)
    make()(PROMPTS, **GREEDY)
    make()(PROMPTS, batch_size=2, **GREEDY)
    assert sizes == [5, 2, 2, 1]


def test_several_sequences_of_a_prompt_are_as_many_answers(make):
    found = make()(PROMPTS[:2], max_new_tokens=8, num_return_sequences=3, seed=[4, 5, 6], details=True)
    assert [[one["seed"] for one in answers] for answers in found] == [[4, 5, 6]] * 2
    alone = make()(PROMPTS[1], max_new_tokens=8, seed=5)
    assert found[1][1]["generated_text"] == alone[0]["generated_text"]


def test_a_generator_gives_answers_as_they_come(make):
    asked = []

    def prompts():
        for prompt in PROMPTS:
            asked.append(prompt)
            yield prompt

    answers = make()(prompts(), **GREEDY)
    first = next(answers)
    assert len(asked) == 1
    assert [first, *answers] == make()(PROMPTS, **GREEDY)


def test_a_bad_prompt_fails_alone(make):
    made = make(**GREEDY)
    good, number, long, after = made.stream(["Ada", 3, LONG, "Paris"], made.options({}))
    assert "text is int, wanted text" in str(number)
    assert "prompt has" in str(long)
    assert [good, after] == made(["Ada", "Paris"])


def test_a_prompt_that_fails_while_it_is_generated_fails_alone(make, model):
    fatal = ids_of(model, "Paris")[-1]

    def allowed(_, tokens):
        return [] if fatal in tokens.tolist() else [6, 7]

    made = make(**GREEDY, prefix_allowed_tokens_fn=allowed)
    good, bad, after = made.stream(["Ada", "Paris", "A fox"], made.options({}))
    assert isinstance(bad, TriarchError)
    assert "allows no token" in str(bad)
    assert [good, after] == made(["Ada", "A fox"])


def test_one_of_a_batch_that_fails_is_found(make, model, monkeypatch):
    from triarch.generation import call

    fatal, answers = ids_of(model, "Who wrote the book?"), call.answers

    def failing(model, prompts, options, **named):
        if fatal in prompts:
            raise InvalidInput("not this one")
        return answers(model, prompts, options, **named)

    made = make(**GREEDY)
    wanted = made(PROMPTS)
    monkeypatch.setattr(call, "answers", failing)
    found = list(made.stream(PROMPTS, made.options({})))
    assert str(found[3]) == "not this one"
    assert found[:3] + found[4:] == wanted[:3] + wanted[4:]


# Long prompts


def test_a_prompt_that_leaves_no_room_is_refused(make, model):
    size = len(ids_of(model, LONG))
    refusal = rf'^the prompt has {size} tokens, at most 56 fit; 8 are to follow, .*"window"'
    with pytest.raises(LimitExceeded, match=refusal):
        make()(LONG, **GREEDY)


def test_without_a_length_the_room_that_is_left_is_used(make, model):
    (found,) = make()("Ada", do_sample=False, return_tensors=True, ignore_eos=True)
    assert len(found["generated_token_ids"]) == 64


@pytest.mark.parametrize("options", [{"long": "window"}, {"handle_long_generation": "hole"}], ids=str)
def test_a_window_is_the_end_of_the_prompt_and_the_rest_is_reported(make, model, options):
    ids = ids_of(model, LONG)
    found = make()(LONG, **options, return_tensors=True, coverage=True, **GREEDY)
    assert found["result"][0]["generated_token_ids"][:56] == ids[-56:]
    assert found["coverage"] == {"tokens": len(ids), "seen": 56, "windows": 1, "strategy": "window"}


def test_a_window_leaves_room_where_no_length_is_asked_for(make, model):
    (found,) = make()(LONG, long="window", do_sample=False, ignore_eos=True, return_tensors=True)
    assert found["generated_token_ids"][:32] == ids_of(model, LONG)[-32:]
    assert len(found["generated_token_ids"]) == 64


def test_a_prompt_can_be_cut_at_its_end(make, model):
    found = make()(LONG, truncation=True, return_tensors=True, coverage=True, **GREEDY)
    assert found["result"][0]["generated_token_ids"][:56] == ids_of(model, LONG)[:56]
    assert found["coverage"]["strategy"] == "truncate"


@pytest.mark.parametrize("long", ["window", "truncate", "error"])
def test_a_prompt_that_fits_is_read_whole(make, long):
    found = make()("Ada", long=long, coverage=True, **GREEDY)
    assert found["result"] == make()("Ada", **GREEDY)
    assert found["coverage"]["strategy"] == "whole"


def test_more_new_tokens_than_the_model_takes_are_refused(make):
    with pytest.raises(LimitExceeded, match=r"64 tokens are to follow, .* 64 with the prompt; .* 63"):
        make()(LONG, long="window", max_new_tokens=64)


def test_special_tokens_around_the_prompt_are_not_cut(make, model, monkeypatch):
    frame = lambda ids: ([0, *ids], [])  # noqa: E731
    monkeypatch.setattr(model.processor, "frame", frame)
    (found,) = make()(LONG, long="window", return_tensors=True, **GREEDY)
    assert found["generated_token_ids"][:56] == [0, *ids_of(model, LONG)[-55:]]


# Chats


def test_a_chat_gets_one_more_message(make, chats):
    (found,) = make()(CHAT, **GREEDY)
    *before, last = found["generated_text"]
    assert before == CHAT
    assert last["role"] == "assistant"
    (text,) = make()("system: Be kind.\nuser: Who are you?\nassistant: ", return_full_text=False, **GREEDY)
    assert last["content"] == text["generated_text"]


def test_a_chat_that_ends_with_the_assistant_goes_on_with_its_message(make, chats):
    chat = [*CHAT, {"role": "assistant", "content": "I am"}]
    (found,) = make()(chat, **GREEDY)
    assert found["generated_text"][:2] == CHAT
    assert found["generated_text"][2]["content"].startswith("I am")
    assert chats[0][1]["continue_final_message"] is True
    (found,) = make()(chat, continue_final_message=False, **GREEDY)
    assert len(found["generated_text"]) == 4


def test_messages_that_are_no_list_are_refused(make):
    with pytest.raises(InvalidInput, match="messages are 'a', wanted a list of role and content"):
        make()([{"messages": "a"}], **GREEDY)


def test_several_chats_give_a_list_and_a_row_may_hold_one(make, chats):
    (one,) = make()([{"messages": CHAT}], **GREEDY)
    assert make()([CHAT, CHAT], **GREEDY) == [one, one]


def test_tools_documents_and_variables_reach_the_template(make, chats):
    tools, documents = [{"name": "f"}], [{"title": "t", "text": "x"}]
    more = {"enable_thinking": True, "chat_template": "rag"}
    make()(CHAT, tools=tools, documents=documents, tokenizer_encode_kwargs=more, **GREEDY)
    assert chats == [
        (
            CHAT,
            {
                "tools": tools,
                "documents": documents,
                "add_generation_prompt": True,
                "continue_final_message": False,
                "chat_template": "rag",
                "variables": {"enable_thinking": True},
            },
        )
    ]


@pytest.mark.parametrize(
    "chat, options, message",
    [
        ([{"role": "user"}], {}, "a message is .*, wanted a dict with role and content"),
        ([*CHAT, "x"], {}, "a message is 'x', wanted a dict with role and content"),
        (CHAT, {"prefix": "x"}, "prefix does nothing to a chat"),
        (CHAT, {"template": "{}"}, "template does nothing to a chat"),
        ([{"role": "assistant", "content": [{"type": "text"}]}], {}, "is no text to go on with"),
    ],
)
def test_chats_that_cannot_be_are_refused(make, chats, chat, options, message):
    with pytest.raises(InvalidInput, match=message):
        make()(chat, **options)


# Templates


def test_a_template_takes_the_columns_of_a_row(make):
    row = {"context": "Ada lived in {London}.", "question": "Where?"}
    (found,) = make()(row, template="{context}\nQ: {question}\nA:", **GREEDY)
    prompt = "Ada lived in {London}.\nQ: Where?\nA:"
    assert found["generated_text"] == make()(prompt, return_full_text=False, **GREEDY)[0]["generated_text"]


def test_a_template_takes_a_text(make):
    (found,) = make()("A story.", template="{}\nTL;DR:", return_tensors=True, **GREEDY)
    assert found == make()("A story.\nTL;DR:", return_tensors=True, **GREEDY)[0]


def test_a_column_that_a_row_lacks_is_named(make):
    with pytest.raises(InvalidInput, match="row has context, wanted question"):
        make()({"context": "Ada"}, template="{context} {question}")


# What comes beside the text


def test_a_stop_text_is_the_end_and_stays_unless_asked_for(make):
    (whole,) = make()("Ada", return_full_text=False, **GREEDY)
    stop = whole["generated_text"][2:4]
    for include, size in ((True, 4), (False, 2)):
        (found,) = make()("Ada", stop_strings=[stop], include_stop=include, return_full_text=False, **GREEDY)
        assert found["generated_text"] == whole["generated_text"][:size]


@pytest.fixture
def words():
    """A model whose tokenizer writes the space before a word at its beginning, and none before a text's first word."""
    processor = tiny.load("xlm-roberta-words").processor
    kind = family("gpt2")
    made = kind.build(dataclasses.replace(kind.tiny, vocab_size=processor.vocab_size), "GPT2LMHeadModel")
    made.processor = processor
    return made


@pytest.mark.parametrize("before, text", [("Ada", " lived in"), ("", "lived in")])
def test_the_space_before_the_first_new_word_stays(words, before, text):
    prompt = [0, *words.processor.encode(before, special_tokens=False).ids]
    lived, within = words.processor.encode("lived in", special_tokens=False).ids
    turns = {"prefix_allowed_tokens_fn": lambda _, ids: [within] if ids[-1] == lived else [lived]}
    assert generate(words, prompt, max_new_tokens=2, **turns).text == text
    assert "".join(piece.text for piece in stream(words, prompt, max_new_tokens=2, **turns)) == text
    assert generate(words, prompt, max_new_tokens=2, stop=[" in"], **turns).text == text.removesuffix(" in")


def test_a_character_that_begins_in_the_prompt_is_made_whole(model):
    first, second = ids_of(model, "Ж")
    found = generate(model, [6, first], max_new_tokens=1, prefix_allowed_tokens_fn=lambda *_: [second])
    assert found.text == "Ж"


def test_tokens_come_with_their_log_probabilities(make, model):
    (found,) = make()("Ada", logprobs=2, return_tensors=True, **GREEDY)
    ids = found["generated_token_ids"]
    with torch.no_grad():
        logs = model(torch.tensor([ids])).logits.log_softmax(-1)[0]
    start = len(ids) - 8
    for i, token in enumerate(found["tokens"]):
        assert token["id"] == ids[start + i]
        assert token["logprob"] == pytest.approx(logs[start + i - 1, token["id"]].item(), abs=1e-5)
        assert [other["id"] for other in token["alternatives"]] == logs[start + i - 1].topk(2).indices.tolist()


def test_details_say_why_a_text_ended(make):
    (found,) = make()("Ada", details=True, **GREEDY)
    assert (found["finish_reason"], found["seed"], found["score"]) == ("length", None, None)


def test_spaces_before_punctuation_go_but_not_from_a_fixed_form(make, model):
    space, dot = ids_of(model, " "), ids_of(model, ".")
    in_turns = {"prefix_allowed_tokens_fn": lambda _, ids: space if ids[-1] != space[0] else dot}
    for clean, text in ((False, "What . . . ."), (None, "What....")):
        (found,) = make()("What", clean_up_tokenization_spaces=clean, **in_turns, **GREEDY)
        assert found["generated_text"] == text
    assert make().options({"regex": "x*"}).cleans is False
