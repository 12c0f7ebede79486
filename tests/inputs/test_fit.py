"""The one rule for long inputs: sizes, windows, whose units are whose, and that training and tasks cut alike."""

import itertools

import numpy as np
import pytest

import tiny
import triarch
from triarch import limits
from triarch.errors import InvalidInput, LimitExceeded
from triarch.inputs.fit import QUESTION, TOKENS, Fit, bounded, count_windows, coverage, cut, mean, owned, stitch
from triarch.objectives import objective

LONG = " ".join(tiny.SENTENCES * 2)


def windows_of(size, room, stride):
    return [range(size)[piece] for piece in cut(size, room, stride, "window")[0]]


@pytest.mark.parametrize(
    "fit, takes, sizes",
    [
        (Fit(), 512, (512, 0)),
        (Fit(most=100, stride=7), 512, (100, 7)),
        (Fit(usual=256), 512, (256, 0)),
        (Fit(usual=256), 64, (64, 0)),
        (Fit(usual=256, most=300), 512, (300, 0)),
        (TOKENS, 510, (510, 127)),
        (QUESTION, 512, (384, 128)),
        (QUESTION, 64, (64, 32)),
    ],
)
def test_sizes_that_nobody_asked_for_are_the_usual_ones(fit, takes, sizes):
    assert fit.sizes(takes) == sizes


@pytest.mark.parametrize("wanted", [0, -1, 65])
def test_pieces_are_no_larger_than_the_model_takes(wanted):
    with pytest.raises(InvalidInput, match=f"max_tokens is {wanted}, the model takes 64 tokens; ask for 1 to 64"):
        bounded("max_tokens", wanted, 64)


def test_what_is_too_long_is_refused_by_its_name():
    with pytest.raises(LimitExceeded, match=r"^the clip has 1,200 frames, at most 300 fit; split it$"):
        Fit(name="the clip", advice="split it").refuse(1200, 300, "frames")


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 16, 17, 40])
@pytest.mark.parametrize("stride", [0, 1, 3, 9])
def test_windows_lose_nothing_and_overlap_by_the_stride(size, stride):
    found = windows_of(size, 10, stride)
    assert len(found) == count_windows(size, 10, stride)
    assert sorted({unit for window in found for unit in window}) == [*range(size)]
    assert all(one.stop - other.start == stride for one, other in itertools.pairwise(found))
    assert all(len(window) == 10 for window in found[:-1])


def test_windows_are_those_that_the_tokenizer_cuts():
    processor = tiny.load("bert").processor
    size = len(processor.encode(LONG, special_tokens=False))
    for stride in (0, 3, 7):
        lengths = [len(window) - 2 for window in processor.windows(LONG, max_tokens=20, stride=stride)]
        assert lengths == [*map(len, windows_of(size, 18, stride))]


def test_truncation_keeps_the_beginning_and_counts_the_rest():
    assert cut(25, 10, 3, "truncate") == ([slice(10)], 15)
    assert cut(9, 10, 3, "truncate") == ([slice(10)], 0)


def test_too_many_windows_are_refused(monkeypatch):
    monkeypatch.setattr(limits, "WINDOWS", 5)
    with pytest.raises(LimitExceeded, match="the input makes 6 windows, over 5"):
        cut(60, 10, 0, "window")


@pytest.mark.parametrize("stride", [0, 1, 4, 5])
def test_each_unit_belongs_to_the_window_that_shows_most_around_it(stride):
    found = windows_of(33, 10, stride)
    own = owned([[0] * len(window) for window in found], stride)
    assert [window[i] for window, places in zip(found, own, strict=True) for i in places] == [*range(33)]
    last = len(found) - 1
    for number, (window, places) in enumerate(zip(found, own, strict=True)):
        assert not number or abs(places[0] - stride / 2) <= 1
        assert number == last or abs(len(window) - 1 - places[-1] - stride / 2) <= 1


def test_a_stitched_input_keeps_special_units_at_its_ends_alone():
    masks = [[1, 0, 0, 0, 1], [1, 0, 0, 0, 1]]  # units 0 1 2 and 1 2 3 of an input of four
    rows = [np.array([[9], [0], [1], [2], [9]]), np.array([[8], [1], [2], [3], [8]])]
    places, found = stitch(masks, rows, 2)
    assert found[:, 0].tolist() == [9, 0, 1, 2, 3, 8]
    assert places == [(0, 0), (0, 1), (0, 2), (1, 2), (1, 3), (1, 4)]


def test_scores_of_pieces_count_by_their_sizes():
    assert mean([np.array([1.0, 0.0]), np.array([0.0, 4.0])], [3, 1]).tolist() == [0.75, 1.0]


def test_coverage_says_what_was_dropped():
    assert coverage(9, 0, 1, "window") == {"tokens": 9, "seen": 9, "windows": 1, "strategy": "whole"}
    assert coverage(9, 4, 1, "truncate") == {"tokens": 9, "seen": 5, "windows": 1, "strategy": "truncate"}


@pytest.mark.parametrize("strategy", ["window", "truncate"])
def test_a_piece_knows_its_whole(strategy):
    processor = tiny.load("bert").processor
    pieces = processor.pieces((LONG, None), Fit(strategy=strategy, most=20))
    size = len(processor.encode(LONG, special_tokens=False))
    shown = sum(piece.cost - 2 for piece in pieces)
    assert {(piece.whole, piece.dropped) for piece in pieces} == {(size, size - shown)}


# By objective: its options, a row for it, and the task with its input
ALIKE = {
    "classification": ("bert-labels", {"labels": ["a", "b"]}, {"label": "a"}, "text-classification"),
    "tagging": ("bert-tags", {"labels": ["O"]}, None, "token-classification"),
    "span": ("bert-qa", {}, {"question": "where is it?", "answers": []}, "question-answering"),
}


@pytest.mark.parametrize("options", [{}, {"stride": 5}, {"most": 40}, {"most": 40, "stride": 5}])
@pytest.mark.parametrize("name", ALIKE)
def test_training_and_tasks_cut_alike(name, options):
    model, given, row, task = ALIKE[name]
    words = LONG.split()
    loaded = tiny.load(model)
    trained = options | ({"max_tokens": options["most"]} if "most" in options else {})
    trained.pop("most", None)
    learner = objective(name)(processor=loaded.processor, **given, **trained)
    examples = learner.examples(
        {"tokens": words, "tags": ["O"] * len(words)} if row is None else row | {"text": LONG, "context": LONG}
    )
    asked = options | ({"max_length": options["most"]} if "most" in options else {})
    asked.pop("most", None)
    made = triarch.pipeline(task, loaded, is_split_into_words=True) if row is None else triarch.pipeline(task, loaded)
    chosen = made.options(asked)
    seen = words if row is None else {"question": "where is it?", "context": LONG} if name == "span" else LONG
    job = made.prepare(made.read(seen, chosen), chosen)
    assert [list(example.ids) for example in examples] == [window.ids for window in job.contents]
    assert len(examples) > 1
