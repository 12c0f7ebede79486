"""Objectives whose input is the model's own medium, on a made-up one."""

import numpy as np
import pytest
import torch

from triarch.errors import InvalidInput
from triarch.inputs.processor import Piece
from triarch.kinds import LabelScores, Medium
from triarch.objectives import objective

SMELL = Medium("smell", suffixes=(".sml",))


class Nose:
    """A processor: an input is a list of numbers, and costs as much as it has."""

    keeps_ids = False

    def read(self, given):
        if not given:
            raise InvalidInput("the smell is empty; sniff again")
        return np.array(given, np.float32)

    def pieces(self, item, fit):
        return [Piece(item, cost=len(item))]

    def collate(self, pieces):
        return {"smell_values": torch.from_numpy(np.stack([piece.content for piece in pieces]))}


ROWS = [{"smell": [1.0, 2.0], "label": "rose"}, {"smell": [3.0, 4.0], "label": "fish"}]


@pytest.mark.parametrize(
    "name, rows, options",
    [
        ("classification", ROWS, {"labels": ["fish", "rose"]}),
        (
            "multi-label",
            [{"smell": row["smell"], "labels": [row["label"]]} for row in ROWS],
            {"labels": ["fish", "rose"]},
        ),
        ("regression", [{"smell": row["smell"], "label": 0.5} for row in ROWS], {}),
    ],
)
def test_an_input_of_any_medium_is_learned_from(name, rows, options):
    made = objective(name)(processor=Nose(), medium=SMELL, **options)
    examples = [example for row in rows for example in made.examples(row)]
    assert [example.length for example in examples] == [2, 2]
    batch = made.batch(examples)
    assert batch.inputs["smell_values"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    scores = LabelScores(torch.zeros(2, len(options.get("labels", "x"))))
    assert made.measure(made.outcomes(scores, batch))


def test_an_input_that_cannot_be_read_is_a_bad_row():
    made = objective("classification")(processor=Nose(), medium=SMELL, labels=["fish", "rose"])
    with pytest.raises(InvalidInput, match="sniff again"):
        made.examples({"smell": [], "label": "rose"})


def test_tokens_are_of_text_alone():
    with pytest.raises(InvalidInput, match="max_tokens counts tokens of text, and the model reads smell"):
        objective("classification")(processor=Nose(), medium=SMELL, labels=["fish", "rose"], max_tokens=3)
