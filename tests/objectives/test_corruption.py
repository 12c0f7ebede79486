"""Words hidden and segments put together: what the papers say about how often, and what may never happen."""

import math

import numpy as np
import pytest

import tiny
from material import passages
from triarch.errors import InvalidInput, LimitExceeded
from triarch.objectives._base import IGNORED, Passage
from triarch.objectives._corruption import choose, hide, pair
from triarch.objectives.bert import Bert
from triarch.objectives.mlm import Mlm
from triarch.objectives.nsp import Nsp

VOCABULARY, MASK = 1000, 4
WORDS = np.arange(10, VOCABULARY)
ORDINARY = np.isin(np.arange(VOCABULARY), WORDS)


def rng(seed=0):
    return np.random.default_rng(seed)


def within(count, total, share, deviations=4.5):
    """Whether a count of independent draws is one that `share` makes: further off are 7 of a million."""
    return abs(count - total * share) <= deviations * math.sqrt(total * share * (1 - share))


def text(size, seed=0):
    """Ids and word starts, words of up to four tokens."""
    generator = rng(seed)
    starts = generator.random(size) < 0.6
    starts[:1] = True
    return generator.choice(WORDS, size), starts


def plain(*sizes, first=100):
    """Passages of which each token says where it stands."""
    ends = np.cumsum(sizes)
    return [
        Passage(np.arange(first + end - size, first + end), np.ones(size, bool))
        for size, end in zip(sizes, ends, strict=True)
    ]


@pytest.fixture(scope="module")
def processor():
    return tiny.load("bert-pretraining").processor


# Which tokens


@pytest.mark.parametrize("size", [7, 40, 128])
def test_the_share_is_right_on_average(size):
    ids, starts = text(size)
    counts = [choose(ids, starts, ORDINARY, 0.15, False, rng(i)).sum() for i in range(2000)]
    spread = np.sqrt(0.25 / 2000)  # of the mean of counts that lie next to each other
    assert abs(np.mean(counts) - max(0.15 * size, 1.05)) < 4.5 * spread
    assert max(counts) - min(counts) <= 1


def test_every_token_is_chosen_as_often_as_any_other():
    ids, starts = text(50)
    chosen = sum(choose(ids, starts, ORDINARY, 0.15, False, rng(i)).astype(int) for i in range(4000))
    assert all(within(count, 4000, 0.15) for count in chosen)


def test_whole_words_are_whole_and_keep_the_share():
    ids, starts = text(200)
    word = starts.cumsum()
    counts = []
    for i in range(500):
        chosen = choose(ids, starts, ORDINARY, 0.15, True, rng(i))
        assert all(len(set(chosen[word == number])) == 1 for number in set(word))
        counts.append(chosen.sum())
    assert abs(np.mean(counts) - 30) < 0.1


def test_without_whole_words_some_are_parted():
    ids, starts = text(200)
    chosen, word = choose(ids, starts, ORDINARY, 0.15, False, rng()), starts.cumsum()
    assert any(len(set(chosen[word == number])) == 2 for number in set(word))


@pytest.mark.parametrize("whole_words", [False, True])
def test_at_least_one_is_chosen(whole_words):
    starts = np.array([True, False, False, False])
    for i in range(50):
        assert choose(WORDS[:4], starts, ORDINARY, 0.01, whole_words, rng(i)).any()
        assert choose(WORDS[:1], starts[:1], ORDINARY, 0.01, whole_words, rng(i)).all()


@pytest.mark.parametrize("whole_words", [False, True])
def test_special_tokens_are_never_chosen(whole_words):
    ids, starts = text(40)
    ids[::4] = rng().integers(0, 10, 10)
    assert not choose(ids, starts, ORDINARY, 1.0, whole_words, rng())[::4].any()
    assert not choose(np.zeros(5, int), np.ones(5, bool), ORDINARY, 0.5, whole_words, rng()).any()


# What becomes of them


def test_80_10_10():
    ids = rng().choice(WORDS, 200_000)
    chosen = rng(1).random(len(ids)) < 0.15
    seen = hide(ids, chosen, MASK, WORDS, 0.8, 0.1, rng(2))
    total = chosen.sum()
    masked, same = (seen[chosen] == MASK).sum(), (seen[chosen] == ids[chosen]).sum()
    assert (seen[~chosen] == ids[~chosen]).all()
    assert within(masked, total, 0.8)
    by_chance = 0.1 / len(WORDS)  # a random word may be the right one
    assert within(same, total, 0.1 + by_chance)
    assert within(total - masked - same, total, 0.1 - by_chance)


def test_random_words_come_from_all_words_and_no_special_ones():
    ids = np.full(100_000, WORDS[0])
    seen = hide(ids, np.ones(len(ids), bool), MASK, WORDS, 0.0, 1.0, rng())
    assert set(seen) == set(WORDS)
    assert np.bincount(seen)[WORDS].max() < 2 * len(ids) / len(WORDS)


# In a sequence


def test_mlm_hides_words_and_keeps_them_as_targets(processor):
    objective = Mlm(processor)
    whole = processor.encode(" ".join(tiny.SENTENCES[:2]))
    for i in range(100):
        example = objective.compose(passages(processor, tiny.SENTENCES[:2]), list, rng(i))
        ids, target = np.array(example.ids), example.target
        chosen = target != IGNORED
        assert example.type_ids == whole.type_ids
        assert (np.where(chosen, target, ids) == whole.ids).all()
        assert not chosen[[0, -1]].any()
        assert chosen.sum() in (3, 4)  # 15 % of 25


@pytest.mark.parametrize("name", ["bert-words", "roberta-words", "xlm-roberta-words"])
def test_mlm_never_touches_special_tokens_in_any_vocabulary(name):
    processor = tiny.load(name).processor
    objective = Mlm(processor, share=1.0)
    given = passages(processor, [f"Paris {processor.token('mask_token')} is {processor.token('sep_token')} here"])
    special = {processor.id(role) for role in ("cls_token", "sep_token", "mask_token", "pad_token", "unk_token")}
    example = objective.compose(given, list, rng())
    original, _ = processor.frame(given[0].ids.tolist())
    for seen, target, id_ in zip(example.ids, example.target, original, strict=True):
        assert (target == IGNORED and seen == id_) if id_ in special else target == id_
    words = set(objective._words.tolist())
    assert not words & special
    assert words < set(range(processor.vocab_size))


@pytest.mark.parametrize("name", ["bert-words", "roberta-words", "xlm-roberta-words"])
def test_mlm_hides_whole_words_in_any_vocabulary(name):
    processor = tiny.load(name).processor
    objective = Mlm(processor, share=0.4, whole_words=True)
    sentence = "smallish wildness underneath Wolfgang"
    given = passages(processor, [sentence])
    word = np.array(processor.encode(sentence, special_tokens=False).word_ids)
    assert np.bincount(word).max() > 1
    for i in range(50):
        chosen = objective.compose(given, list, rng(i)).target[1:-1] != IGNORED
        assert chosen.any()
        assert all(len(set(chosen[word == number])) == 1 for number in set(word))


@pytest.mark.parametrize("made", [Mlm, Nsp, Bert])
def test_corruption_is_a_function_of_the_generator(made, processor):
    objective = made(processor)
    given, others = (passages(processor, part) for part in (tiny.SENTENCES[:4], tiny.SENTENCES[5:]))

    def compose(i):
        return repr(objective.compose(given[:3], lambda: others, rng(i)))

    assert compose(1) == compose(1)
    assert len({compose(i) for i in range(20)}) > 2


def test_static_masks_depend_on_the_text_alone(processor):
    objective = Mlm(processor, dynamic=False)
    one, other = passages(processor, tiny.SENTENCES[:2])
    assert len({repr(objective.compose([one], list, rng(i))) for i in range(9)}) == 1
    hidden = [np.flatnonzero(objective.compose([p], list, rng()).target != IGNORED).tolist() for p in (one, other)]
    assert hidden[0] != hidden[1]


def test_mlm_cuts_nothing(processor):
    objective = Mlm(processor, max_tokens=12)
    assert objective.room == 10
    assert objective.compose(plain(4, 6), list, rng()).length == 12
    with pytest.raises(LimitExceeded, match="passages of 11 tokens where 10 fit"):
        objective.compose(plain(5, 6), list, rng())


@pytest.mark.parametrize("made", [Mlm, Nsp, Bert])
def test_a_document_without_tokens_is_refused(made, processor):
    for empty in ([], plain(0)):
        with pytest.raises(InvalidInput, match="no tokens"):
            made(processor).compose(empty, lambda: plain(3), rng())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"share": 0.0}, "share is 0.0"),
        ({"share": float("nan")}, "share is"),
        ({"masked": 0.9, "random": 0.2}, "at most 1 together"),
        ({"max_tokens": 65}, "the model takes 64"),
        ({"max_tokens": 2}, "special tokens leave 0"),
        ({"whole_words": "yes"}, "whole_words is 'yes'"),
    ],
)
def test_options_that_cannot_be(options, message, processor):
    with pytest.raises(InvalidInput, match=message):
        Mlm(processor, **options)


# Two segments


def test_half_of_the_pairs_follow(processor):
    given, others = plain(5, 5, 5), plain(5, 5, 5, first=200)
    follows = [pair(given, lambda: others, 60, rng(i))[2] for i in range(4000)]
    assert within(sum(follows), 4000, 0.5)


def test_segments_are_split_between_sentences_and_the_second_is_real_or_of_the_other():
    given, others = plain(3, 4, 5, 2), plain(4, 4, 4, 4, first=200)
    borders = set()
    for i in range(300):
        first, second, follows = pair(given, lambda: others, 16, rng(i))
        borders.add(len(first.ids))
        assert first.ids.tolist() == list(range(100, 100 + len(first.ids)))
        if follows:
            assert second.ids.tolist() == list(range(100 + len(first.ids), 114))
        else:  # as many whole sentences as fit beside the first
            assert second.ids.tolist() == list(range(200, 200 + len(second.ids)))
            assert len(second.ids) == 4 * ((16 - len(first.ids)) // 4)
    assert borders == {3, 7, 12}


def test_neither_the_length_nor_the_end_of_a_segment_gives_the_class_away():
    """Documents of sentences of any lengths, packed as training packs them: lengths alone guess hardly better than
    chance. Segments that were cut to the room gave 72 %."""
    random, room = np.random.default_rng(0), 125
    documents = [np.clip(random.lognormal(2.9, 0.6, 200).astype(int), 2, 60) for _ in range(20)]
    chunks = []
    for lengths in documents:
        chunk: list[int] = []
        for length in lengths.tolist():
            if sum(chunk) + length > room:
                chunks.append(chunk)
                chunk = []
            chunk.append(length)
        chunks.append(chunk)
    totals, seconds, classes = [], [], []
    for i in range(8000):
        given = plain(*chunks[int(random.integers(len(chunks)))])
        first, second, follows = pair(given, lambda: plain(*chunks[int(random.integers(len(chunks)))]), room, random)
        assert len(first.ids) + len(second.ids) <= room, i
        totals.append(len(first.ids) + len(second.ids))
        seconds.append(len(second.ids))
        classes.append(follows)
    right = np.array(classes)
    for sizes in (np.array(totals), np.array(seconds)):
        guessed = max(max(((sizes <= t) == right).mean(), ((sizes > t) == right).mean()) for t in range(room + 1))
        assert guessed < 0.53


def test_one_sentence_is_split_within_and_then_others_begin_within_too():
    sizes, begins = set(), set()
    for i in range(300):
        first, second, follows = pair(plain(6), lambda: plain(9, first=200), 60, rng(i))
        sizes.add(len(first.ids))
        if follows:
            assert [*first.ids, *second.ids] == list(range(100, 106))
        else:
            begins.add(second.ids[0])
        assert len(second.ids) > 0
        assert first.starts[0]
        assert second.starts[0]
    assert sizes == {1, 2, 3, 4, 5}
    assert len(begins) > 6


def test_one_token_is_never_followed_by_nothing():
    for i in range(50):
        _, second, follows = pair(plain(1), lambda: plain(3, first=200), 60, rng(i))
        assert not follows
        assert len(second.ids) > 0


def test_a_foreign_sentence_that_does_not_fit_is_passed_over_and_cut_only_if_none_fits():
    for i in range(200):
        first, second, follows = pair(plain(14, 4), lambda: plain(50, 3, first=200), 20, rng(i))
        assert follows or second.ids.tolist() == [250, 251, 252]
        first, second, follows = pair(plain(14, 4), lambda: plain(50, first=200), 20, rng(i))
        assert follows or len(first.ids) + len(second.ids) == 20


def test_bert_frames_two_segments_and_hides_words_of_both(processor):
    objective = Bert(processor, share=0.5)
    one, other = passages(processor, tiny.SENTENCES[:2])
    for i in range(40):
        example = objective.compose([one, other], lambda: [other], rng(i))
        words, second = example.target
        whole = np.where(words == IGNORED, example.ids, words)
        assert second in (0, 1)
        assert whole.tolist() == processor.encode(*tiny.SENTENCES[:2]).ids
        segments = np.array(example.type_ids)
        assert (words[segments == 0] != IGNORED).any()
        assert (words[segments == 1] != IGNORED).any()


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "xlm-roberta-words"])
@pytest.mark.parametrize("second", [None, tiny.SENTENCES[1]])
def test_frame_is_what_encode_puts_around(name, second):
    processor = tiny.load(name).processor
    bare = [
        None if text is None else processor.encode(text, special_tokens=False).ids
        for text in (tiny.SENTENCES[0], second)
    ]
    whole = processor.encode(tiny.SENTENCES[0], second)
    assert processor.frame(*bare) == (whole.ids, whole.type_ids)
    assert len(processor.frame([], None if second is None else [])[0]) == len(whole) - sum(
        len(part or []) for part in bare
    )
