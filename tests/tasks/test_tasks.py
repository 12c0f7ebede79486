"""What the tasks do beyond the reference: long inputs, every shape of input, options of their own, errors in place."""

import itertools
import json
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import save

import tiny
import triarch
from answers import assert_same
from encoders import DENSE, sentence_encoder
from triarch.errors import InvalidInput, LimitExceeded, NotFound, TriarchError, Unsupported
from triarch.inputs.fit import Fit
from triarch.tasks import tasks
from triarch.tasks.question_answering import QuestionAnswering

WORDS = sorted({word for word in tiny.words() if word.isascii() and word.islower() and len(word) > 1})
TEXTS = ["What a lovely day!", tiny.SENTENCES[1], "No", " ".join(tiny.SENTENCES[:8]), tiny.SENTENCES[4], ""]

TASK_MODELS = {  # a model for each task that needs no sentence encoder
    "feature-extraction": "bert",
    "fill-mask": "bert-words",
    "next-sentence": "bert-next",
    "question-answering": "bert-qa",
    "text-classification": "bert-labels",
    "token-classification": "bert-tags",
    "zero-shot-classification": "bert-nli",
}
DEFAULTS = {"zero-shot-classification": {"candidate_labels": ["sports", "politics"]}}


def make(task, model=None, **options):
    return triarch.pipeline(task, tiny.load(model or TASK_MODELS[task]), **DEFAULTS.get(task, {}), **options)


def row(task, text):
    """A text as an input of the task."""
    if task == "fill-mask":
        return f"the [MASK] of {text}"
    if task == "next-sentence":
        return {"text": text or "a", "text_pair": "the end of the game"}
    if task == "question-answering":
        return {"question": "Where?", "context": text or "a"}
    return text


def long_text(count, seed=0):
    """That many words, most of them known to the vocabulary, some in pieces, with accents and white space."""
    chosen = random.Random(seed)
    odd = ["Zürich", "unbelievably", "😀", "e-mail,", "naïve\n", "42%"]
    return " ".join(chosen.choice(odd) if chosen.random() < 0.2 else chosen.choice(WORDS) for _ in range(count))


# Inputs of every shape


@pytest.mark.parametrize("task", TASK_MODELS)
def test_a_generator_gives_an_iterator_of_the_same_answers_in_order(task):
    rows = [row(task, text) for text in TEXTS]
    answers = make(task)(one for one in rows)
    assert not isinstance(answers, list)
    assert_same(list(answers), make(task)(rows))


@pytest.mark.parametrize("task", TASK_MODELS)
def test_many_inputs_get_the_answers_that_they_get_one_by_one(task):
    rows = [row(task, text) for text in [*TEXTS, long_text(150)]]
    made = make(task, coverage=True)  # without its odd shapes for a single input
    assert_same(made(rows), [made([one, one])[0] for one in rows])


@pytest.mark.parametrize("task", TASK_MODELS)
def test_no_answer_depends_on_the_batch_size(task):
    rows = [row(task, text) for text in [*TEXTS, long_text(150)]]
    assert_same(make(task)(rows, batch_size=2), make(task)(rows))


def test_a_text_file_is_read_line_by_line(tmp_path):
    (tmp_path / "in.txt").write_text("\n".join(TEXTS[:4]) + "\n")
    assert_same(list(make("text-classification")(tmp_path / "in.txt")), make("text-classification")(TEXTS[:4]))


def test_a_jsonl_file_holds_a_row_a_line(tmp_path):
    rows = [row("question-answering", text) for text in TEXTS]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    assert_same(list(make("question-answering")(tmp_path / "in.jsonl")), make("question-answering")(rows))


def test_a_csv_file_holds_a_row_a_line_under_its_header(tmp_path):
    (tmp_path / "in.csv").write_text('id,text,text_pair\n1,"one, two",three\n2,four,"five"\n')
    rows = [{"text": "one, two", "text_pair": "three"}, {"text": "four", "text_pair": "five"}]
    assert_same(list(make("text-classification")(tmp_path / "in.csv")), make("text-classification")(rows))


def test_a_file_gives_the_column_that_the_task_reads(tmp_path):
    (tmp_path / "in.csv").write_text("context\nAda lived in London\n")
    answers = make("question-answering")(tmp_path / "in.csv", question="Where?")
    assert_same(list(answers), [make("question-answering")(question="Where?", context="Ada lived in London")])


def test_a_file_that_is_not_there_is_an_error():
    with pytest.raises(NotFound, match="check the path"):
        list(make("text-classification")(tiny.VOCABULARY / "absent.txt"))


# Errors in their place


def test_an_error_in_a_list_names_its_input():
    with pytest.raises(InvalidInput, match=r"^input 1: text is int, wanted text"):
        make("text-classification")(["fine", 3, "fine"])


def test_an_error_of_a_single_input_names_none():
    with pytest.raises(InvalidInput, match=r"^no mask in 'no gap here'; write \[MASK\] where a word is missing"):
        make("fill-mask")("no gap here")


def test_an_error_in_a_generator_comes_after_the_answers_before_it():
    answers = make("text-classification")(one for one in ["fine", None])
    assert next(answers)["label"] in ("negative", "neutral", "positive")
    with pytest.raises(InvalidInput, match=r"^input 1: "):
        next(answers)


def test_stream_gives_errors_in_place_and_goes_on():
    made = make("text-classification")
    good, bad, after = made.stream(["fine", 3, "also fine"], made.options({}))
    assert isinstance(bad, TriarchError)
    assert_same([good, after], made(["fine", "also fine"]))


def test_a_bad_line_of_a_file_is_an_error_in_its_place(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "fine"}\nnot json\n')
    answers = make("text-classification")(tmp_path / "in.jsonl")
    next(answers)
    with pytest.raises(TriarchError, match=r"^input 1: .*in.jsonl line 2 is not JSON"):
        next(answers)


@pytest.mark.parametrize(
    "task, option, message",
    [
        ("token-classification", {"agregation_strategy": "max"}, "did you mean aggregation_strategy"),
        ("question-answering", {"topk": 2}, "did you mean top_k"),
        ("fill-mask", {"target": ["a"]}, "did you mean targets"),
        ("text-classification", {"top_k": "all"}, "top_k is 'all', wanted int or 'best' or nothing"),
        ("text-classification", {"top_k": 0}, "top_k is 0, wanted a count"),
        ("text-classification", {"function_to_apply": "tanh"}, "wanted 'sigmoid' or 'softmax' or 'none'"),
        ("feature-extraction", {"tokenize_kwargs": {"padding_side": "left"}}, "tokenize_kwargs has 'padding_side'"),
        ("fill-mask", {"tokenizer_kwargs": {"stride": 1}}, "tokenizer_kwargs has 'stride'"),
        ("zero-shot-classification", {"hypothesis_template": "It is."}, "has no {} for the label"),
    ],
)
def test_a_wrong_option_is_refused_with_what_is_wanted(task, option, message):
    with pytest.raises(InvalidInput) as error:
        make(task)(row(task, "fine"), **option)
    assert message in str(error.value)


def test_a_wrong_option_is_refused_when_the_task_is_made():
    with pytest.raises(InvalidInput, match="did you mean top_k"):
        make("fill-mask", topk=2)


def test_an_unknown_task_is_answered_with_the_nearest():
    with pytest.raises(NotFound, match="did you mean fill-mask"):
        triarch.pipeline("fil-mask", tiny.load("bert-words"))


def test_a_model_whose_head_cannot_do_the_task_is_refused():
    with pytest.raises(Unsupported, match="BertForMaskedLM gives WordScores, this task needs TokenScores"):
        triarch.pipeline("token-classification", tiny.load("bert-words"))


@pytest.mark.parametrize(
    "alias, task", [("sentiment-analysis", "text-classification"), ("ner", "token-classification")]
)
def test_a_task_answers_to_its_other_name(alias, task):
    assert type(triarch.pipeline(alias, tiny.load(TASK_MODELS[task]))) is type(make(task))


def test_every_task_is_listed_once():
    assert set(TASK_MODELS) < set(tasks())
    assert len(tasks()) == len(set(tasks()))


# Long inputs: nothing is lost without saying so


@pytest.mark.parametrize("task", [task for task in TASK_MODELS if task != "fill-mask"])
def test_a_long_input_is_seen_whole(task):
    coverage = make(task)(row(task, long_text(400)), coverage=True)["coverage"]
    assert coverage["seen"] == coverage["tokens"] > 400
    assert coverage["windows"] > 1
    assert coverage["strategy"] == "window"


def test_of_a_long_text_with_a_mask_its_surroundings_are_seen_and_the_rest_is_reported():
    coverage = make("fill-mask")(long_text(300) + " [MASK]", coverage=True)["coverage"]
    assert coverage["seen"] < coverage["tokens"]
    assert (coverage["windows"], coverage["strategy"]) == (1, "window")


@pytest.mark.parametrize("task", TASK_MODELS)
def test_a_short_input_is_read_whole(task):
    coverage = make(task)(row(task, "a few words"), coverage=True)["coverage"]
    assert coverage["strategy"] == "whole"
    assert coverage["windows"] == 1


@pytest.mark.parametrize("task", TASK_MODELS)
def test_truncation_is_counted(task):
    coverage = make(task)(row(task, long_text(400)), coverage=True, long="truncate")["coverage"]
    assert 0 < coverage["seen"] <= tiny.MAX_TOKENS < coverage["tokens"]
    assert coverage["strategy"] == "truncate"


@pytest.mark.parametrize("task", TASK_MODELS)
def test_a_long_input_can_be_refused(task):
    with pytest.raises(LimitExceeded, match=r'tokens, at most 64 fit; use long="window"'):
        make(task)(row(task, long_text(400)), long="error")


@pytest.mark.parametrize("task", [task for task in TASK_MODELS if task != "fill-mask"])
def test_windows_may_be_smaller_than_the_model_takes(task):
    whole = make(task)(row(task, long_text(100)), coverage=True)["coverage"]
    small = make(task)(row(task, long_text(100)), coverage=True, max_length=30)["coverage"]
    assert small["windows"] > whole["windows"]
    assert small["seen"] == whole["seen"]


@pytest.mark.parametrize("task", TASK_MODELS)
def test_windows_are_no_larger_than_the_model_takes(task):
    with pytest.raises(InvalidInput, match="max_length is 65, the model takes 64 tokens"):
        make(task)(row(task, "a few words"), max_length=65)


def test_20_000_words_are_classified_whole():
    found = make("text-classification")(long_text(20_000), coverage=True)
    assert found["coverage"]["seen"] == found["coverage"]["tokens"] > 20_000


def test_a_long_text_gets_the_mean_of_its_windows_by_length():
    text, model = long_text(100), tiny.load("bert-labels")
    pieces = model.processor.pieces((text, None), Fit())
    with torch.no_grad():
        logits = np.concatenate([model(**model.processor.collate([piece])).logits.numpy() for piece in pieces])
    sizes = [[piece.cost] for piece in pieces]
    mean = (logits * sizes).sum(0) / np.sum(sizes)
    found = make("text-classification")(text, top_k=None, function_to_apply="none")
    assert [one["score"] for one in found] == pytest.approx(sorted(mean.tolist(), reverse=True), abs=1e-5)


@pytest.mark.parametrize("model", ["bert-tags", "roberta-tags", "xlm-roberta-tags"])
def test_the_tokens_of_20_000_words_are_those_of_the_whole_text(model):
    text = long_text(20_000)
    found = make("token-classification", model)(text, ignore_labels=[])
    whole = tiny.load(model).processor.encode(text, special_tokens=False)
    assert [(one["start"], one["end"]) for one in found] == whole.offsets


def test_spans_in_20_000_words_are_exact():
    text = long_text(20_000)
    plain = str.maketrans("üï", "ui")
    for one in make("token-classification")(text, ignore_labels=[]):
        assert text[one["start"] : one["end"]].lower().translate(plain) == one["word"].removeprefix("##")


def test_spans_of_words_that_come_split_count_in_their_join():
    words = long_text(500).split()
    found = make("token-classification")(words, is_split_into_words=True, delimiter="__", ignore_labels=[])[0]
    text, plain = "__".join(words), str.maketrans("üï", "ui")
    for one in found:
        assert text[one["start"] : one["end"]].lower().translate(plain) == one["word"].removeprefix("##")


def context_of(windows, stride):
    """For each token of the text, (context, window, position) in every window that holds it."""
    places, begin = {}, 0
    for number, window in enumerate(windows):
        inner = len(window) - 2
        for i in range(inner):
            left = i if number else len(window) + i  # nothing stands before the text, so nothing is missed there
            right = inner - 1 - i if number < len(windows) - 1 else len(window) + inner
            places.setdefault(begin + i, []).append((min(left, right), number, i + 1))
        begin += inner - stride
    return [places[token] for token in sorted(places)]


@pytest.mark.parametrize("stride", [0, 1, 7, 16, 40])
def test_a_token_gets_its_vector_from_the_window_with_most_context(stride):
    text, model = long_text(120), tiny.load("bert")
    pieces = model.processor.pieces((text, None), Fit(stride=stride))
    vectors = [model.features(**model.processor.collate([piece]))[0].detach().numpy() for piece in pieces]
    found = np.array(make("feature-extraction")(text, stride=stride)[0])[1:-1]
    for vector, places in zip(found, context_of([piece.content for piece in pieces], stride), strict=True):
        most = max(places)[0]
        best = [vectors[number][i] for context, number, i in places if context >= most - 1]  # ties go either way
        assert min(abs(vector - one).max() for one in best) < 1e-5


class Finder(QuestionAnswering):
    """Finds one word, whatever the question: a model that nothing but the windows could fail."""

    def compute(self, batch, pieces, options):
        wanted = self.processor.id("mask_token")
        return [np.tile(np.where(np.array(piece.content.ids) == wanted, 9.0, 0.0), (2, 1)) for piece in pieces]


@pytest.mark.parametrize("place", [0, 1, 9_999, 19_998, 19_999])
def test_an_answer_anywhere_in_20_000_words_is_found(place):
    words = long_text(20_000).split()
    words[place] = "[MASK]"
    context = " ".join(words)
    found = Finder(tiny.load("bert-qa"))(question="Where is it?", context=context)
    assert found["start"] == context.index("[MASK]")
    assert found["answer"] == "[MASK]"


def test_every_word_of_a_long_context_is_read():
    text = long_text(2_000)
    found = make("question-answering")(question="Where is it?", context=text, coverage=True)
    assert found["coverage"]["seen"] == found["coverage"]["tokens"]
    assert found["result"]["answer"] == text[found["result"]["start"] : found["result"]["end"]]


def test_a_mask_at_the_end_of_a_long_text_is_guessed_in_its_last_window():
    text, model = long_text(300) + " [MASK]", tiny.load("bert-words")
    last = model.processor.pieces((text, None), Fit(stride=32))[-1]
    place = last.content.ids.index(model.processor.id("mask_token"))
    logits = model(**model.processor.collate([last])).logits[0, place]
    best = logits.softmax(-1).max().item()
    assert make("fill-mask")(text, batch_size=1)[0]["score"] == pytest.approx(best, abs=1e-5)


def test_masks_of_a_long_text_are_guessed_once_each():
    text = " [MASK] ".join(long_text(60, seed) for seed in range(5))
    assert len(make("fill-mask")(text)) == 4


def test_a_long_pair_keeps_the_hypothesis_whole_in_each_window():
    made = make("zero-shot-classification")
    job = made.prepare(long_text(200), made.options({}))
    hypotheses = [tuple(itertools.compress(w.ids, [s == 1 for s in w.sequence_ids])) for w in job.contents]
    assert len(set(hypotheses)) == 2  # that of each label


# Constrained tags


def legal(tags):
    """Every I- stands behind a B- or an I- of its own kind."""
    pairs = itertools.pairwise(["O", *tags])
    return all(not right.startswith("I-") or left[2:] == right[2:] for left, right in pairs)


@pytest.mark.parametrize("seed", range(20))
def test_constrained_tags_are_always_legal(seed):
    made = make("token-classification", constrained=True, ignore_labels=[])
    assert legal([one["entity"] for one in made(long_text(40, seed))])


def test_constrained_tags_mend_what_is_illegal():
    text = long_text(40)
    assert not legal([one["entity"] for one in make("token-classification")(text, ignore_labels=[])])


def random_rows(seed, count, labels):
    return np.random.RandomState(seed).dirichlet([0.3] * labels, count)


@pytest.mark.parametrize("seed", range(20))
def test_constrained_tags_are_the_likeliest_legal_sequence(seed):
    made = make("token-classification")
    rows = random_rows(seed, 4, len(tiny.TAGS))
    sequences = [s for s in itertools.product(range(len(tiny.TAGS)), repeat=4) if legal([tiny.TAGS[i] for i in s])]
    best = max(sequences, key=lambda s: np.prod([row[i] for row, i in zip(rows, s, strict=True)]))
    assert tuple(made._constrained(rows)) == best


def test_constrained_tags_are_the_plain_ones_where_those_are_legal():
    made, seen = make("token-classification"), 0
    for seed in range(300):
        rows = random_rows(seed, 4, len(tiny.TAGS))
        if legal([tiny.TAGS[i] for i in rows.argmax(-1)]):
            seen += 1
            assert made._constrained(rows) == rows.argmax(-1).tolist()
    assert seen > 10


# Masks together, and targets of several tokens


def probabilities(model, ids, place):
    logits = model(input_ids=torch.tensor([ids])).logits[0, place]
    return logits.softmax(-1).detach().numpy()


def test_one_mask_guessed_jointly_is_guessed_as_ever():
    text = "paris is the [MASK] of france"
    plain, joint = make("fill-mask")(text, top_k=5), make("fill-mask")(text, top_k=5, joint=True)
    assert_same(joint, [one | {"token": [one["token"]], "token_str": [one["token_str"]]} for one in plain])


def test_the_joint_score_is_the_product_of_the_conditionals():
    text, model = "the [MASK] brown fox jumps over the [MASK] dog", tiny.load("bert-words")
    ids = model.processor.encode(text).ids
    first, second = (i for i, id_ in enumerate(ids) if id_ == model.processor.id("mask_token"))
    for found in make("fill-mask")(text, top_k=3, joint=True):
        filled = [found["token"][0] if i == first else id_ for i, id_ in enumerate(ids)]
        alone, after = probabilities(model, ids, first), probabilities(model, filled, second)
        assert found["score"] == pytest.approx(alone[found["token"][0]] * after[found["token"][1]], abs=1e-6)


def test_joint_guesses_are_the_best_pairs_when_the_beam_holds_them_all():
    text, model = "the [MASK] [MASK] dog", tiny.load("bert-words")
    ids = model.processor.encode(text).ids
    first = ids.index(model.processor.id("mask_token"))
    alone = probabilities(model, ids, first)
    rows = torch.tensor([[*ids[:first], token, *ids[first + 1 :]] for token in range(len(alone))])
    after = model(input_ids=rows).logits[:, first + 1].softmax(-1).detach().numpy()
    best = np.unravel_index((alone[:, None] * after).argmax(), after.shape)
    assert make("fill-mask")(text, top_k=len(alone), joint=True)[0]["token"] == [int(i) for i in best]


def test_joint_guesses_keep_to_the_targets():
    found = make("fill-mask")("the [MASK] [MASK] dog", joint=True, targets=["quick", "lazy"])
    assert {token for one in found for token in one["token_str"]} == {"quick", "lazy"}


def test_the_score_of_a_long_target_is_the_product_of_the_conditionals():
    model = tiny.load("bert-words")
    mask = model.processor.id("mask_token")
    target = model.processor.encode("foxes", special_tokens=False).ids
    before, after = model.processor.encode("the").ids[:-1], model.processor.encode("of london").ids[1:]
    score, place = 1.0, len(before)
    for done, token in enumerate(target):
        ids = [*before, *target[:done], *[mask] * (len(target) - done), *after]
        score *= probabilities(model, ids, place + done)[token]
    (found,) = make("fill-mask")("the [MASK] of london", targets="foxes", multi_token=True)
    assert len(target) > 1
    assert found["token"] == target
    assert found["score"] == pytest.approx(score, rel=1e-4)


def test_a_long_target_stands_in_the_sequence():
    (found,) = make("fill-mask")("the [MASK] of london", targets="foxes", multi_token=True)
    assert found["sequence"] == "the foxes of london"


def test_targets_of_one_token_score_the_same_among_longer_ones():
    text = "paris is the [MASK] of france"
    plain = {one["token_str"]: one["score"] for one in make("fill-mask")(text, targets=["dog", "fox"])}
    found = make("fill-mask")(text, targets=["dog", "foxes", "fox"], multi_token=True)
    scores = {"".join(one["token_str"]): one["score"] for one in found if len(one["token"]) == 1}
    assert scores == pytest.approx(plain, abs=1e-6)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"targets": ["foxes"]}, r"target 'foxes' is \d tokens .*; pass multi_token=True"),
        ({"targets": ["中国"]}, "target '中国' is not in the model's vocabulary"),
        ({"targets": []}, "targets is empty"),
        ({"targets": ["中国"], "multi_token": True}, "target '中国' is not in the model's vocabulary"),
    ],
)
def test_targets_that_cannot_be_scored_are_refused(options, message):
    with pytest.raises(InvalidInput, match=message):
        make("fill-mask")("the [MASK] of london", **options)


def test_masks_too_far_apart_are_not_guessed_jointly():
    with pytest.raises(LimitExceeded, match="masks lie too far apart"):
        make("fill-mask")(f"[MASK] {long_text(300)} [MASK]", joint=True)


# Next sentence, and what else the reference has no pipeline for


@pytest.mark.parametrize("model", ["bert-next", "bert-pretraining"])
def test_next_sentence_gives_the_likelier_of_both(model):
    network = tiny.load(model)
    scores = network(**network.processor("I was hungry.", "So I ate."))
    logits = getattr(scores, "seq_relationship_logits", scores[0])
    follows, not_follows = logits[0].softmax(-1).tolist()
    found = make("next-sentence", model)({"text": "I was hungry.", "text_pair": "So I ate."})
    want = ("IsNext", follows) if follows > not_follows else ("NotNext", not_follows)
    assert (found["label"], found["score"]) == (want[0], pytest.approx(want[1], abs=1e-5))


def test_next_sentence_wants_two_texts():
    with pytest.raises(InvalidInput, match="input is one text, wanted two"):
        make("next-sentence")("I was hungry.")


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_features_can_be_pooled(pool):
    made = make("feature-extraction", return_tensors=True)
    vectors = made("a lovely day")[0].numpy()
    assert made("a lovely day", pool=pool).numpy() == pytest.approx(getattr(vectors, pool)(0), abs=1e-6)


def test_features_can_be_those_of_the_first_token():
    made = make("feature-extraction", return_tensors=True)
    assert_same(made("a lovely day", pool="first"), made("a lovely day")[0][0].tolist())


def test_features_do_not_need_a_bare_trunk():
    assert len(make("feature-extraction", "bert-tags")("a lovely day")[0]) == 5


# What callers of the reference's pipelines write


@pytest.mark.parametrize("device", [-1, "cpu", "auto"])
def test_devices_are_counted_as_the_reference_counts_them(tmp_path, device):
    tiny.write_checkpoint(tmp_path, "bert", "BertForSequenceClassification")
    made = triarch.pipeline("text-classification", tmp_path, device=device)
    assert next(made.model.parameters()).device.type == "cpu"


def test_torch_dtype_is_the_old_name_of_dtype(tmp_path):
    tiny.write_checkpoint(tmp_path, "bert", "BertForSequenceClassification")
    made = triarch.pipeline("text-classification", tmp_path, torch_dtype=torch.bfloat16)
    assert next(made.model.parameters()).dtype == torch.bfloat16


def test_precision_is_that_of_the_loaded_model(tmp_path):
    tiny.write_checkpoint(tmp_path, "bert", "BertForSequenceClassification")
    made = triarch.pipeline("text-classification", tmp_path, precision="bfloat16")
    assert made.model.get_parameter("encoder.blocks.0.attention.q.weight").dtype == torch.bfloat16
    assert made.model.get_parameter("encoder.blocks.0.attention_norm.weight").dtype == torch.float32
    with pytest.raises(InvalidInput, match=r"triarch\.load"):
        triarch.pipeline("text-classification", made.model, precision="bfloat16")


def test_a_tokenizer_may_come_from_another_folder(tmp_path):
    for name in ("model", "tokenizer"):
        (tmp_path / name).mkdir()
        tiny.write_checkpoint(tmp_path / name, "bert", "BertForSequenceClassification")
    (tmp_path / "model" / "vocab.txt").unlink()
    (tmp_path / "model" / "tokenizer_config.json").unlink()
    made = triarch.pipeline("text-classification", tmp_path / "model", tokenizer=tmp_path / "tokenizer")
    assert made("What a lovely day!")[0]["score"] > 0


# The files beside a sentence encoder


def test_pooling_dense_and_normalisation_are_those_of_the_folder(tmp_path):
    made = triarch.pipeline("embedding", sentence_encoder(tmp_path))
    tokens = np.array(triarch.pipeline("feature-extraction", made.model)("a lovely day")[0])
    wanted = np.tanh(DENSE @ tokens.mean(0) + DENSE[:, 0])
    assert made("a lovely day") == pytest.approx(wanted / np.linalg.norm(wanted), abs=1e-5)


def test_a_saved_sentence_encoder_gives_the_same_vectors(tmp_path):
    made = triarch.pipeline("embedding", sentence_encoder(tmp_path / "theirs"))
    triarch.save(made.model, tmp_path / "ours")
    again = triarch.pipeline("embedding", tmp_path / "ours")
    assert again("a lovely day") == pytest.approx(made("a lovely day"), abs=1e-6)


DAMAGED = {
    "dense cut short": {"2_Dense/model.safetensors": b"12345"},
    "dense without its weight": {"2_Dense/model.safetensors": save({"x": DENSE})},
    "dense with an activation of another kind": {"2_Dense/config.json": {"activation_function": ["x"]}},
    "pooling by number": {"1_Pooling/config.json": {"pooling_mode": 3}},
    "pooling unknown": {"1_Pooling/config.json": {"pooling_mode": "best"}},
    "no pooling": {"1_Pooling/config.json": {}},
    "a default prompt that is none": {"config_sentence_transformers.json": {"default_prompt_name": 5}},
    "prompts that are no texts": {"config_sentence_transformers.json": {"prompts": {"query": 1}}},
    "a length that is no count": {"sentence_bert_config.json": {"max_seq_length": "long"}},
}


@pytest.mark.parametrize("files", DAMAGED.values(), ids=DAMAGED)
def test_damaged_files_beside_a_sentence_encoder_are_refused(tmp_path, files):
    with pytest.raises(triarch.TriarchError):
        triarch.pipeline("embedding", sentence_encoder(tmp_path, **files))


def test_a_dense_layer_of_another_width_is_refused(tmp_path):
    wide = {"2_Dense/model.safetensors": save({"linear.weight": DENSE[:, :7].copy()})}
    with pytest.raises(InvalidInput, match="takes vectors of 7 numbers, found 32"):
        triarch.pipeline("embedding", sentence_encoder(tmp_path, **wide))("a lovely day")


def test_summaries_of_tasks_are_known_without_importing_them():
    code = "import sys; from triarch.tasks import summary, tasks; assert all(map(summary, tasks()))"
    code += "; print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"False\n"
