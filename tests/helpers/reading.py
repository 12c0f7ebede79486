"""Rows read as all objectives that there are declare them."""

import pytest

from triarch.data import columns, reading
from triarch.objectives import kinds
from triarch.training import plan
from triarch.training.model import start
from triarch.training.settings import Settings


def read(paths, **options):
    return reading.read(paths, kinds(), **options)


def rows_of(rows, **options):
    return reading.rows_of(rows, kinds(), **options)


def kind_of(rows):
    return (rows.reading if rows.reading is not None else columns.infer(rows, kinds())).kind


def learned_from_text(**settings):
    """The objective that a run with these settings has for running text."""
    made = Settings(**settings)
    return plan.material(made, pytest.fail, [{"text": "Ada"}], None, start(made))[0]
