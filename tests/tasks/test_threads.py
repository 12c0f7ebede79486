"""One model, called from many threads at once: each call gets the answer that it would get alone."""

import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tiny
import triarch
from encoders import sentence_encoder

THREADS, CALLS = 8, 6
LONG = " ".join(tiny.SENTENCES * 2)
TEXTS = ["What a lovely day!", tiny.SENTENCES[1], LONG, "No"]
CORPORA = [tiny.SENTENCES[:4], tiny.SENTENCES[4:9]]
GREEDY = {"do_sample": False, "max_new_tokens": 6}
CHAT = [{"role": "user", "content": "What a lovely day!"}]
LABELS = {"candidate_labels": ["sports", "politics"]}

# By task: the model, and inputs with their options
KINDS = {
    "embedding": ("encoder", [(text, {}) for text in TEXTS]),
    "sentence-similarity": ("encoder", [(text, {"sentences": TEXTS[:2]}) for text in TEXTS]),
    "semantic-search": ("encoder", [(text, {"corpus": corpus}) for text in TEXTS[:2] for corpus in CORPORA]),
    "feature-extraction": ("bert", [(text, {"pool": "mean"}) for text in TEXTS]),
    "fill-mask": ("bert-words", [(f"the [MASK] of {text}", {"top_k": k}) for k, text in enumerate(TEXTS, 1)]),
    "next-sentence": ("bert-next", [({"text": text, "text_pair": "and why?"}, {}) for text in TEXTS]),
    "question-answering": ("bert-qa", [({"question": "Where?", "context": text}, {"top_k": 2}) for text in TEXTS]),
    "text-classification": ("bert-labels", [(text, {"top_k": None}) for text in TEXTS]),
    "token-classification": ("roberta-tags", [(text, {"aggregation_strategy": "simple"}) for text in TEXTS]),
    "zero-shot-classification": ("bert-nli", [(text, LABELS) for text in TEXTS]),
    "text-generation": ("gpt2-chat", [(TEXTS[0], GREEDY), (CHAT, GREEDY), (CHAT, {"seed": 3, "max_new_tokens": 6})]),
    "text2text-generation": ("t5", [(text, GREEDY) for text in TEXTS]),
    "summarization": ("bart", [(text, GREEDY | {"min_length": 0}) for text in TEXTS[:2]]),
    "translation": ("marian", [(text, GREEDY) for text in TEXTS[:2]]),
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    sentence_encoder(folder)
    return triarch.load(folder)


def fresh(model, encoder):
    """A model whose processor has made nothing yet that it keeps."""
    loaded = encoder if model == "encoder" else tiny.load(model)
    for name in ("tokenizer", "target", "languages", "ordinary_ids", "_frames", "_literal", "_marked"):
        if model != "marian" or name != "target":  # which was read from a file
            loaded.processor.__dict__.pop(name, None)
    return loaded


def at_once(work, count=THREADS):
    """What each of some threads returns that begin together."""
    ready = threading.Barrier(count)

    def run(number):
        ready.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def alike(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list | np.ndarray):
        return len(one) == len(other) and all(map(alike, one, other))
    return one == pytest.approx(other, abs=1e-5) if isinstance(one, float | np.floating) else one == other


@pytest.mark.parametrize("task", KINDS)
def test_each_thread_gets_the_answers_that_it_gets_alone(task, encoder):
    name, calls = KINDS[task]
    made = triarch.pipeline(task, fresh(name, encoder))

    def work(number):
        order = random.Random(number)
        chosen = [order.randrange(len(calls)) for _ in range(CALLS)]
        return [(i, made(calls[i][0], **calls[i][1])) for i in chosen]

    found = at_once(work)
    alone = [made(given, **options) for given, options in calls]
    assert all(alike(answer, alone[i]) for one in found for i, answer in one)


def test_several_tasks_share_a_model(encoder):
    names = ["embedding", "sentence-similarity", "semantic-search"]
    model = fresh("encoder", encoder)
    made = {name: triarch.pipeline(name, model) for name in names}
    found = at_once(lambda number: made[(name := names[number % 3])](TEXTS[0], **KINDS[name][1][0][1]))
    alone = [made[name](TEXTS[0], **KINDS[name][1][0][1]) for name in names]
    assert all(alike(answer, alone[number % 3]) for number, answer in enumerate(found))


def test_another_tokenizer_is_that_of_one_pipeline_alone(tmp_path):
    model = tiny.load("bert-labels")
    own = model.processor
    folder = tiny.write_checkpoint(tmp_path, **tiny.MODELS["bert-labels"] | {"lowercase": False})
    other = triarch.pipeline("text-classification", model, tokenizer=folder)
    assert model.processor is own is not other.processor
    assert other.model.processor is other.processor
    assert [*map(id, other.model.parameters())] == [*map(id, model.parameters())]


def test_an_assistant_is_loaded_once(tmp_path, monkeypatch):
    folder = str(tiny.write_checkpoint(tmp_path, **tiny.MODELS["gpt2"]))
    made, loaded = triarch.pipeline("text-generation", tiny.load("gpt2")), []
    load = type(made).load
    monkeypatch.setattr(made, "load", lambda *a, **b: [loaded.append(a), load(*a, **b)][1])
    found = at_once(lambda _: made("Ada", assistant_model=folder, **GREEDY))
    assert len(loaded) == 1
    assert all(one == found[0] for one in found)


def test_calls_leave_no_threads_and_no_open_files(encoder):
    made = triarch.pipeline("text-classification", fresh("bert-labels", encoder))

    def count():
        at_once(lambda _: made(TEXTS))
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    first = count()
    assert [count() for _ in range(5)] == [first] * 5


# Ending a stream


def test_a_stream_ends_when_it_is_cancelled():
    made, seen = triarch.pipeline("text-classification", tiny.load("bert-labels")), []
    answers = made.stream((text for text in TEXTS * 100), made.options({}), cancelled=lambda: len(seen) >= 3)
    seen.extend(next(answers) for _ in range(3))
    assert list(answers) == []


def test_no_batch_is_begun_after_a_stream_is_cancelled(monkeypatch):
    made, batches = triarch.pipeline("text-classification", tiny.load("bert-labels")), []
    compute = made.compute
    monkeypatch.setattr(made, "compute", lambda *given: [batches.append(1), compute(*given)][1])
    assert list(made.stream(TEXTS, made.options({"batch_size": 1}), cancelled=lambda: bool(batches))) == []
    assert len(batches) == 1


def test_a_text_that_is_being_written_ends_when_its_stream_is_cancelled():
    made, asked = triarch.pipeline("text-generation", tiny.load("gpt2-long")), []

    def cancelled():
        asked.append(1)
        return len(asked) > 6

    assert list(made.stream(["Ada"], made.options({"max_new_tokens": 400, "ignore_eos": True}), cancelled)) == []
    assert len(asked) < 20


def test_a_stream_tells_how_much_is_done():
    made, shares = triarch.pipeline("text-classification", tiny.load("bert-labels")), []
    list(made.stream([*TEXTS, 3], made.options({}), done=shares.append))
    assert sum(shares) == pytest.approx(len(TEXTS) + 1)


def test_a_stream_has_no_bar_of_its_own(monkeypatch):
    from triarch.tasks import _base

    monkeypatch.setattr(_base, "progress", None)
    made = triarch.pipeline("text-classification", tiny.load("bert-labels"))
    assert len(list(made.stream(TEXTS, made.options({})))) == len(TEXTS)
