"""Diverse, constrained and contrastive search against the last versions of the reference that had them, and what they
promise beyond it. tests/goldens/make_generation.py has the cases."""

import json
from pathlib import Path

import pytest

from tiny import load
from triarch.generation import generate

GOLDENS = json.loads((Path(__file__).parent / "goldens" / "searches" / "generation.json").read_text())


def name_of(golden):
    shared = {"eos_token_id", "sequence_bias", "suppress_tokens", "max_new_tokens"}
    return " ".join(f"{name}={value}" for name, value in golden["options"].items() if name not in shared)


@pytest.mark.parametrize("golden", GOLDENS, ids=name_of)
def test_tokens_and_scores_equal_the_reference(golden):
    found = generate(load("gpt2"), golden["prompt"], **golden["options"])
    found = found if isinstance(found, list) else [found]
    assert [one.ids for one in found] == golden["ids"]
    if golden["scores"] is not None:
        assert [one.score for one in found] == pytest.approx(golden["scores"], abs=1e-5)
