"""A tag for every word: which tokens learn it, long sentences in windows, and what is measured."""

import pytest
import torch
import torch.nn.functional as F

import tiny
import triarch
from material import SENTENCES, TAGS, S
from triarch import metrics
from triarch.errors import InvalidInput, LimitExceeded, Unsupported
from triarch.objectives._base import IGNORED
from triarch.objectives.tagging import Tagging


def tagged(name="bert-tags", **options):
    return Tagging(tiny.load(name).processor, labels=TAGS, **options)


@pytest.mark.parametrize("alignment", ["first", "all", "ignore"])
@pytest.mark.parametrize("name", ["bert-tags", "roberta-tags", "xlm-roberta-tags"])
def test_tokens_learn_the_tags_of_their_words(alignment, name):
    made = tagged(name, alignment=alignment)
    words, tags = ["Wolfgang", "Lovelacest", "in", "Zürichness"], ["B-PER", "I-PER", "O", "B-LOC"]
    (example,) = made.examples({"tokens": words, "tags": tags})
    encoding = made.processor.encode(words)
    numbers = encoding.word_ids
    assert [*example.ids] == encoding.ids
    assert len(numbers) > 6
    for i, number in enumerate(numbers):
        if number is None:
            wanted = IGNORED
        elif alignment == "ignore":
            wanted = TAGS.index(tags[number]) if numbers.count(number) == 1 else IGNORED
        elif numbers[i - 1] != number:
            wanted = TAGS.index(tags[number])
        else:
            inside = {"B-PER": "I-PER", "B-LOC": "I-LOC"}.get(tags[number], tags[number])
            wanted = TAGS.index(inside) if alignment == "all" else IGNORED
        assert example.target[i] == wanted
    assert example.note.places == [numbers.index(number) for number in range(4)]


@pytest.mark.parametrize("alignment", ["first", "all", "ignore"])
@pytest.mark.parametrize("stride", [None, 0, 1, 5, 13])
def test_each_token_of_a_long_sentence_is_learned_once_where_it_has_most_context(alignment, stride):
    made = tagged(alignment=alignment, stride=stride, max_tokens=20)
    words = (" ".join(S)).split()
    tags = ["B-PER"] * len(words)
    examples = made.examples({"tokens": words, "tags": tags})
    assert len(examples) > 3
    learned = [(example, i) for example in examples for i, tag in enumerate(example.target) if tag != IGNORED]
    (whole,) = (tagged(alignment=alignment, max_tokens=64)._labels,)
    assert whole.names == TAGS
    numbers = made.processor.encode(words, special_tokens=False).word_ids
    wanted = {"first": len(words), "all": len(numbers)}.get(alignment)
    assert len(learned) == (wanted or sum(numbers.count(number) == 1 for number in range(len(words))))
    assert sorted(n for example in examples for n in example.note.numbers) == list(range(len(words)))
    shared = 5 if stride is None else stride
    for number, example in enumerate(examples):
        places = [i for i, tag in enumerate(example.target) if tag != IGNORED]
        if number:
            assert places[0] - 1 >= shared // 2
        if number < len(examples) - 1:
            assert 18 - places[-1] >= shared - shared // 2


def test_a_long_sentence_is_measured_like_a_short_one():
    made = tagged(max_tokens=20)
    rows = [{"tokens": tokens, "tags": tags} for tokens, tags in SENTENCES]
    words = [word for row in rows for word in row["tokens"]] * 3
    tags = [tag for row in rows for tag in row["tags"]] * 3
    examples = made.examples({"tokens": words, "tags": tags})
    batch = made.batch(examples)
    said = torch.randint(0, 5, batch.targets["tags"].shape, generator=torch.Generator().manual_seed(0))
    scores = triarch.kinds.TokenScores(F.one_hot(said, 5).float())
    by_word = {
        number: TAGS[said[row, place]]
        for row, example in enumerate(examples)
        for number, place in zip(example.note.numbers, example.note.places, strict=True)
    }
    wanted = metrics.entity_f1([tags], [[by_word[number] for number in range(len(words))]])
    assert made.measure(made.outcomes(scores, batch)[::-1])["f1"] == pytest.approx(wanted.f1)


def test_a_word_of_a_thousand_characters_is_learned_by_its_first_token():
    for alignment, count in (("first", 3), ("all", 1002), ("ignore", 2)):
        made = tagged(alignment=alignment)
        examples = made.examples({"tokens": ["in", "q" * 1000, "Berlin"], "tags": ["O", "B-PER", "B-LOC"]})
        unknown = len(made.processor.encode(["q" * 1000], special_tokens=False)) == 1
        count = 3 if unknown else count
        assert sum(tag != IGNORED for example in examples for tag in example.target) == count
        assert [n for example in examples for n in example.note.numbers] == [0, 1, 2]
    made = tagged("roberta-tags")
    examples = made.examples({"tokens": ["in", "q" * 1000, "Berlin"], "tags": ["O", "B-PER", "B-LOC"]})
    assert len(examples) == 2  # the windows in the midst of the word have nothing to learn
    assert [n for example in examples for n in example.note.numbers] == [0, 1, 2]
    assert sum(made.batch(examples).counts.values()) == 3


def test_a_word_without_tokens_is_measured_as_o():
    made = tagged()
    examples = made.examples({"tokens": ["Ada", "\u0085", "lived"], "tags": ["B-PER", "B-LOC", "O"]})
    assert examples[0].note.numbers == [0, 2]
    logits = F.one_hot(torch.tensor([[0, 1, 0, 0]]), 5).float()
    found = made.measure(made.outcomes(triarch.kinds.TokenScores(logits), made.batch(examples)))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["recall"] == 0.5
    with pytest.raises(InvalidInput, match="the tokenizer leaves nothing"):
        made.examples({"tokens": ["\u0085"], "tags": ["O"]})


@pytest.mark.parametrize(
    "row, message",
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "2 tokens came with 1 tags"),
        ({"tokens": [], "tags": []}, "0 tokens came with 0 tags"),
        ({"tokens": ["a"], "tags": ["B-LOV"]}, r"tag is 'B-LOV' \(did you mean B-LOC\?\)"),
        ({"tokens": "a b", "tags": ["O", "O"]}, "tokens is 'a b', wanted a list"),
        ({"tokens": [1], "tags": ["O"]}, "wanted a string, or a list of its words"),
        ({"tags": ["O"]}, "tokens is None"),
    ],
)
def test_rows_that_cannot_be_tagged(row, message):
    with pytest.raises(InvalidInput, match=message):
        tagged().examples(row)


def test_vocabularies_that_run_words_together_are_refused():
    with pytest.raises(Unsupported, match="add_prefix_space"):
        tagged("roberta").examples({"tokens": ["a"], "tags": ["O"]})


def test_tags_that_are_no_entities_are_measured_one_by_one(processor):
    made = Tagging(processor, labels=["NOUN", "VERB"])
    examples = made.examples({"tokens": ["Ada", "lived"], "tags": ["NOUN", "VERB"]})
    logits = F.one_hot(torch.tensor([[0, 0, 0, 0]]), 2).float()
    found = made.measure(made.outcomes(triarch.kinds.TokenScores(logits), made.batch(examples)))
    assert found == pytest.approx({"f1": (2 / 3 + 0) / 2, "accuracy": 0.5})


def test_a_sentence_too_long_is_refused_when_asked_to():
    with pytest.raises(LimitExceeded, match="at most 64 fit"):
        tagged(long="error").examples({"tokens": ["a"] * 63, "tags": ["O"] * 63})
