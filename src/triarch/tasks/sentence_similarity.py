"""How near the meaning of one text is to that of others: the cosine of their vectors, from -1 to 1.

triarch run sentence-similarity "A man is eating." --sentences "Someone eats" --sentences "It rains" -m MODEL
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from triarch.errors import InvalidInput
from triarch.inputs.text.given import text_of
from triarch.starters import ENCODER
from triarch.tasks import embedding
from triarch.tasks._base import Job, dealt, together
from triarch.tasks.embedding import Embedding, normalized


@dataclass(frozen=True, kw_only=True)
class Options(embedding.Options):
    sentences: list[str] | None = None  # compared with each input that brings none of its own


class SentenceSimilarity(Embedding):
    """{"source_sentence": …, "sentences": […]} -> [cosine of each]."""

    ALIASES = ()
    TRY = None
    FIELD = "source_sentence"
    STARTERS = {"sentence-similarity": ENCODER}
    OPTIONS = Options

    def read(self, given: Any, options: Any) -> list[str]:
        others = given.get("sentences") if isinstance(given, dict) else options.sentences
        if not isinstance(others, list | tuple) or not others:
            raise InvalidInput('no sentences to compare with; write {"source_sentence": …, "sentences": […]}')
        return [text_of(given, "source_sentence", "text"), *(text_of(other, "sentences") for other in others)]

    def prepare(self, item: list[str], options: Any) -> Job:
        embed = super().prepare
        jobs = [embed(text, options) for text in item]
        units, dropped = sum(job.units for job in jobs), sum(job.dropped for job in jobs)
        return together(jobs, units=units, dropped=dropped, notes=jobs)

    def answer(self, job: Job, outputs: list[np.ndarray], options: Any) -> list[float]:
        embed = super().answer
        pairs = zip(job.notes, dealt(job.notes, outputs), strict=True)
        source, *others = normalized(np.stack([embed(one, own, options) for one, own in pairs]))
        return [float(source @ other) for other in others]
