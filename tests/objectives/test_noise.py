"""Texts damaged to be written whole: the shares, lengths and forms of the papers, and nothing of a text lost."""

import math
from collections import Counter
from itertools import groupby

import numpy as np
import pytest

import exercises
import tiny
import triarch
from material import passages
from triarch.errors import InvalidInput, LimitExceeded, Unsupported
from triarch.objectives._base import Passage
from triarch.objectives._noise import delete, infill, parted, rotate, span_counts, spans
from triarch.objectives.infilling import Infilling
from triarch.objectives.span_corruption import SpanCorruption, sentinels

MASK, S = 4, tiny.SENTENCES


def rng(seed=0):
    return np.random.default_rng(seed)


def within(count, total, share, deviations=4.5):
    """Whether a count of independent draws is one that `share` makes: further off are 7 of a million."""
    return abs(count - total * share) <= deviations * math.sqrt(total * share * (1 - share))


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    return triarch.load(exercises.write(tmp_path_factory.mktemp("t5"), "t5")).processor


@pytest.fixture(scope="module")
def bart(tmp_path_factory):
    return triarch.load(exercises.write(tmp_path_factory.mktemp("bart"), "bart")).processor


def plain(*sizes, first=100):
    """Passages of which each token says where it stands."""
    ends = first + np.cumsum(sizes)
    return [
        Passage(np.arange(end - size, end), np.ones(size, bool)) for size, end in zip(sizes, ends.tolist(), strict=True)
    ]


# T5's spans


def test_a_source_of_512_tokens_is_made_of_568_and_has_a_target_of_114():
    hidden, count = span_counts(568, 0.15, 3.0)  # and each has one token for its end
    assert (568 - hidden + count + 1, hidden + count + 1) == (512, 114)
    hidden, count = span_counts(569, 0.15, 3.0)
    assert 569 - hidden + count + 1 > 512


@pytest.mark.parametrize("size, share, mean", [(568, 0.15, 3.0), (100, 0.5, 3.0), (200, 0.15, 10.0), (20, 0.9, 1.0)])
def test_spans_have_the_share_and_the_mean_length(size, share, mean):
    hidden, count = span_counts(size, share, mean)
    lengths = Counter()
    for i in range(300):
        found = spans(size, share, mean, rng(i))
        runs = [(hides, len(list(run))) for hides, run in groupby(found.tolist())]
        assert found.sum() == hidden == round(size * share)
        assert [hides for hides, _ in runs] == [False, True] * count
        lengths.update(length for hides, length in runs if hides)
    assert sum(length * times for length, times in lengths.items()) / lengths.total() == hidden / count
    if count < size * (1 - share):
        assert hidden / count == pytest.approx(mean, rel=0.15)


def test_lengths_are_random_in_every_way_alike():
    """7 tokens, 3 of them hidden in 2 spans: 3 ways for those seen, 2 for those hidden."""
    found = Counter(tuple(spans(7, 0.43, 1.5, rng(i)).tolist()) for i in range(6000))
    assert len(found) == 6
    assert all(within(times, 6000, 1 / 6) for times in found.values())


def test_the_only_span_of_a_short_text_lies_anywhere():
    firsts = Counter(int(spans(10, 0.15, 3.0, rng(i)).argmax()) for i in range(4500))
    assert all(within(firsts[first], 4500, 1 / 9) for first in range(9))


def test_the_target_has_each_sentinel_with_what_it_hides():
    hidden = np.array([False, True, True, False, True])
    assert parted(np.arange(10, 15), hidden, [99, 98, 97]) == ([10, 99, 13, 98], [99, 11, 12, 98, 14])


def restored(source, target, sentinels):
    """The text that a source and its target make."""
    parts = {}
    for id_ in target:
        if id_ in sentinels:
            parts[id_] = last = []
        else:
            last.append(id_)
    return [id_ for seen in source for id_ in parts.get(seen, [seen])]


def test_source_and_target_make_the_text(t5):
    made = SpanCorruption(t5)
    whole = t5.encode(" ".join(S[:2]), special_tokens=False).ids
    end, sentinels = t5.id("eos_token"), [t5.tokenizer.token_to_id(f"<extra_id_{i}>") for i in range(20)]
    hidden, count = span_counts(len(whole), 0.15, 3.0)
    for i in range(100):
        example = made.compose(passages(t5, S[:2]), list, rng(i))
        source, target = list(example.ids), list(example.target)
        assert (source.pop(), target.pop()) == (end, end)
        assert restored(source, target, sentinels) == whole
        assert [id_ for id_ in source if id_ in sentinels] == sentinels[:count]
        assert [id_ for id_ in target if id_ in sentinels] == sentinels[:count]
        assert target[0] == sentinels[0]
        assert len(target) == hidden + count
        assert example.length == len(source) + len(target) + 2


def test_a_target_reads_as_in_the_paper(t5):
    made = SpanCorruption(t5, share=0.3)
    example = made.compose(passages(t5, S[:1]), list, rng(1))
    source, target = (t5.decode(ids) for ids in (example.ids, example.target))
    assert source == "The quick brown<extra_id_0> the lazy dog.</s>"
    assert target == "<extra_id_0> fox jumps over</s>"


@pytest.mark.parametrize("most, written", [(64, None), (20, None), (64, 9)])
def test_sources_and_targets_fill_what_they_may_have_and_no_more(t5, most, written):
    made = SpanCorruption(t5, max_tokens=most, max_target_tokens=written)
    example = made.compose(plain(made.room), list, rng())
    longer = span_counts(made.room + 1, 0.15, 3.0)
    sizes = made.room + 1 - longer[0] + longer[1] + 1, sum(longer) + 1
    assert len(example.ids) <= most
    assert len(example.target) <= (written or 64)
    assert sizes[0] > most or sizes[1] > (written or 64)
    with pytest.raises(LimitExceeded, match=f"passages of {made.room + 1} tokens where {made.room} fit"):
        made.compose(plain(made.room + 1), list, rng())


def test_sentinels_bound_the_text(t5):
    assert span_counts(SpanCorruption(t5, share=0.4, span=1.0).room, 0.4, 1.0)[1] == exercises.SENTINELS
    with pytest.raises(InvalidInput, match="texts of over 20 hidden spans"):
        SpanCorruption(t5, share=0.4, span=1.0, max_tokens=64)


def test_the_only_token_of_a_text_is_hidden(t5):
    example = SpanCorruption(t5).compose(plain(1), list, rng())
    assert (len(example.ids), len(example.target)) == (2, 3)
    assert list(example.target)[1] == 100


def test_sentinels_are_found_by_either_name_as_far_as_they_go():
    assert sentinels({"<extra_id_0>": 9, "<extra_id_1>": 8, "<extra_id_3>": 6}) == [9, 8]
    assert sentinels({"▁<extra_id_0>": 7, "<extra_id_1>": 8}) == [7]
    assert sentinels({"a": 0}) == []


def test_without_sentinels_there_is_no_span_corruption(bart):
    with pytest.raises(Unsupported, match=r"no sentinels \(<extra_id_0>, …\)"):
        SpanCorruption(bart)


# BART's noises


def test_spans_are_one_mask_each_and_hide_the_share():
    ids = np.arange(100, 1100)
    total = 0
    for i in range(200):
        found, lengths = infill(ids, 0.3, 3.0, MASK, 2000, rng(i))
        kept = found[found != MASK]
        assert (found == MASK).sum() == len(lengths)
        assert len(kept) == len(ids) - sum(lengths)
        assert (np.diff(kept) > 0).all()  # the others in their order
        assert abs(sum(lengths) - 300) <= 1
        total += sum(lengths)
    assert total / 200 == pytest.approx(300, abs=0.2)


def test_lengths_of_spans_are_those_of_poisson_with_empty_ones():
    lengths = [length for i in range(300) for length in infill(np.arange(5000), 0.3, 3.0, -1, 10_000, rng(i))[1]]
    counts = Counter(lengths)
    assert np.mean(lengths) == pytest.approx(3.0, abs=0.02)
    for k in range(8):  # the last one of each text may be cut: one in five hundred
        share = math.exp(-3) * 3**k / math.factorial(k)
        assert abs(counts[k] / len(lengths) - share) < 0.003, k
    assert counts[0] / len(lengths) == pytest.approx(0.0498, abs=0.003)


def test_spans_stand_anywhere():
    ids, hidden = np.arange(100, 160), np.zeros(60)
    for i in range(3000):
        hidden += np.isin(ids, infill(ids, 0.3, 3.0, MASK, 200, rng(i))[0], invert=True)
    assert hidden.mean() / 3000 == pytest.approx(0.3, abs=1e-2)
    assert all(within(count, 3000, hidden[5:-5].mean() / 3000) for count in hidden[5:-5])
    assert min(hidden) > 200  # at its ends a token can be hidden from one side alone


def test_a_share_of_few_tokens_is_right_on_average():
    hidden = [sum(infill(np.arange(4), 0.3, 3.0, -1, 8, rng(i))[1]) for i in range(4000)]
    assert set(hidden) == {1, 2}
    assert np.mean(hidden) == pytest.approx(1.2, abs=0.03)


def test_masks_between_tokens_do_not_make_a_text_longer_than_there_is_room_for():
    for i in range(2000):
        assert len(infill(np.arange(100, 104), 0.3, 1.0, MASK, 5, rng(i))[0]) <= 5


def test_deletion_leaves_the_rest_in_order_and_masks_alone():
    ids = np.array([*range(100, 140), MASK, MASK])
    sizes = []
    for i in range(500):
        found = delete(ids, 0.25, MASK, rng(i))
        assert (found == MASK).sum() == 2
        assert (np.diff(found[found != MASK]) > 0).all()
        sizes.append(len(ids) - len(found))
    assert set(sizes) == {10}
    assert len(delete(np.array([7]), 0.9, MASK, rng())) == 1


def test_rotation_begins_with_any_token():
    found = Counter(int(rotate(np.arange(5), rng(i))[0]) for i in range(5000))
    assert all(within(found[i], 5000, 0.2) for i in range(5))
    assert rotate(np.arange(5), rng(3)).tolist() in [[*range(i, 5), *range(i)] for i in range(5)]


def middle(example):
    return list(example.ids)[1:-1]


def test_by_default_sentences_are_permuted_and_30_percent_is_hidden(bart):
    made, given = Infilling(bart), plain(6, 5, 7, 6)
    firsts, hidden = Counter(), 0
    for i in range(600):
        example = made.compose(given, list, rng(i))
        assert list(example.target) == bart.frame(list(range(100, 124)))[0]
        seen = [id_ for id_ in middle(example) if id_ != bart.id("mask_token")]
        numbers = [int(np.searchsorted([106, 111, 118], id_, side="right")) for id_ in seen]
        order = [number for number, _ in groupby(numbers)]
        assert len(order) == len(set(order))  # each sentence in one piece
        assert all(seen[k] < seen[k + 1] for k in range(len(seen) - 1) if numbers[k] == numbers[k + 1])
        firsts[order[0]] += 1
        hidden += 24 - len(seen)
    assert hidden / 600 == pytest.approx(0.3 * 24, abs=0.15)
    assert set(firsts) == {0, 1, 2, 3}
    assert all(times > 90 for times in firsts.values())


@pytest.mark.parametrize(
    "options, check",
    [
        ({"infill": 0.0}, lambda ids: sorted(ids) == list(range(100, 124)) and ids != sorted(ids)),
        ({"infill": 0.0, "permute": False, "rotate": True}, lambda ids: sorted(ids) == list(range(100, 124))),
        ({"infill": 0.0, "permute": False, "mask": 0.25}, lambda ids: len(ids) == 24 and len(set(ids)) == 19),
        ({"infill": 0.0, "permute": False, "delete": 0.25}, lambda ids: len(ids) == 18 and ids == sorted(ids)),
        ({"permute": False}, lambda ids: len(ids) < 24 and [i for i in ids if i >= 100] == sorted(set(ids))[1:]),
    ],
)
def test_each_noise_alone(bart, options, check):
    made = Infilling(bart, **options)
    mask = bart.id("mask_token")
    example = made.compose(plain(8, 8, 8), list, rng(2))
    assert check([id_ if id_ != mask else 3 for id_ in middle(example)])


def test_all_noises_together_are_of_the_text(bart):
    made = Infilling(bart, rotate=True, mask=0.2, delete=0.2)
    for i in range(100):
        seen = [id_ for id_ in middle(made.compose(plain(9, 9, 9), list, rng(i))) if id_ != bart.id("mask_token")]
        assert len(seen) == len(set(seen))
        assert set(seen) < set(range(100, 127))
        assert len(seen) < 15


def test_a_text_of_one_token_can_be_damaged(bart):
    made = Infilling(bart, rotate=True, mask=0.2, delete=0.9)
    for i in range(50):
        assert len(made.compose(plain(1), list, rng(i)).ids) >= 3


@pytest.mark.parametrize(
    "options, message",
    [
        ({"infill": 1.0}, "infill is 1.0, wanted a share from 0 to below 1"),
        ({"span": 0.5}, "span is 0.5"),
        ({"infill": 0.0, "permute": False}, "nothing is damaged"),
        ({"max_tokens": 65}, "max_tokens is 65, the model takes 64"),
        ({"max_target_tokens": 65}, "max_target_tokens is 65, the model takes 64"),
        ({"max_tokens": 2}, "special tokens leave 0"),
        ({"label_smoothing": 1.5}, "label_smoothing is 1.5"),
    ],
)
def test_options_of_infilling_that_cannot_be(options, message, bart):
    with pytest.raises(InvalidInput, match=message):
        Infilling(bart, **options)


@pytest.mark.parametrize(
    "options, message",
    [({"share": 1.0}, "share is 1.0"), ({"span": 0.0}, "span is 0.0"), ({"max_tokens": 1}, "leave none")],
)
def test_options_of_span_corruption_that_cannot_be(options, message, t5):
    with pytest.raises(InvalidInput, match=message):
        SpanCorruption(t5, **options)


def test_a_mask_is_needed_for_infilling(t5):
    with pytest.raises(Unsupported, match="no mask token"):
        Infilling(t5)


@pytest.mark.parametrize("made, name", [(SpanCorruption, "t5"), (Infilling, "bart")])
def test_damage_is_a_function_of_the_generator_and_as_long_as_was_said(made, name, request):
    processor = request.getfixturevalue(name)
    objective, given = made(processor), passages(processor, S[:2])

    def compose(i):
        return repr(objective.compose(given, list, rng(i)))

    assert compose(1) == compose(1)
    assert len({compose(i) for i in range(20)}) > 10
    size = sum(len(passage.ids) for passage in given)
    longest = objective.sizes(np.array([size]))[0]
    assert all(objective.compose(given, list, rng(i)).length <= longest for i in range(200))
    with pytest.raises(InvalidInput, match="no tokens"):
        objective.compose([], list, rng())
