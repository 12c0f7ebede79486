"""Every task against what the reference's pipelines answer: tests/goldens/make.py has the models and the cases."""

import json
from pathlib import Path

import pytest

import tiny
import triarch
from answers import assert_same

CASES = [
    pytest.param(path.stem, case, id=f"{path.stem}-{number}-{case['model']}")
    for path in sorted((Path(__file__).parents[1] / "goldens").glob("*.json"))
    for number, case in enumerate(json.loads(path.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("task, case", CASES)
def test_answers_as_the_reference_does(task, case):
    made = triarch.pipeline(task, tiny.load(case["model"]), **case["init"])
    assert_same(made(*case["args"], **case["call"]), case["output"])
