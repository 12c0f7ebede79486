"""Texts in pieces that end where sentences do."""

import random

import pytest

from triarch.inputs.text import sentences


def random_text(seed):
    draw = random.Random(seed)
    letters = "ab C.!?\n \t…。é😀\"'"
    return "".join(draw.choices(letters, k=draw.randrange(200)))


@pytest.mark.parametrize("seed", range(60))
def test_pieces_joined_are_the_text_and_each_fits(seed):
    text, room = random_text(seed), random.Random(seed).randrange(1, 30)
    found = sentences.pieces(text, lambda part: len(part.strip()), room)
    assert "".join(found) == text
    assert all(len(part.strip()) <= room for part in found)


@pytest.mark.parametrize("text", ["x" * 5000, " " * 5000, " " * 3000 + "x" * 3000, "x" + " " * 5000 + "x", "。" * 999])
def test_a_text_without_sentences_is_split_all_the_same(text):
    found = sentences.pieces(text, lambda part: len(part.strip()), 7)
    assert "".join(found) == text
    assert all(len(part.strip()) <= 7 for part in found)
    assert all(part.strip() for part in found) or not text.strip()


@pytest.mark.parametrize("text", ["", "x", " x\n", "xy", "  xyz  "])
def test_characters_that_do_not_fit_stand_alone(text):
    found = sentences.pieces(text, lambda part: 9 * len(part.strip()), 5)
    assert "".join(found) == text
    assert all(len(part.strip()) <= 1 for part in found)


def test_pieces_are_of_like_length():
    found = sentences.pieces(" ".join(["One two three."] * 64), len, 250)
    assert max(map(len, found)) - min(map(len, found)) <= 15
