"""How near the meaning of one text is to that of others: the cosine of their vectors, from -1 to 1.

    triarch run sentence-similarity "A man is eating." --sentences "Someone eats" --sentences "It rains" -m MODEL
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from triarch.errors import InvalidInput
from triarch.tasks import embedding
from triarch.tasks._base import Job, text_of
from triarch.tasks.embedding import normalized


@dataclass(frozen=True, kw_only=True)
class Options(embedding.Options):
    sentences: list[str] | None = None  # compared with each input that brings none of its own


class SentenceSimilarity(embedding.Embedding):
    """{"source_sentence": …, "sentences": […]} -> [cosine of each]."""

    ALIASES = ()
    INPUT = "source_sentence"
    Options = Options

    def read(self, given: Any, options: Options) -> list[str]:  # type: ignore[override]
        others = given.get("sentences") if isinstance(given, dict) else options.sentences
        if not isinstance(others, list | tuple) or not others:
            raise InvalidInput('no sentences to compare with; write {"source_sentence": …, "sentences": […]}')
        return [text_of(given, "source_sentence", "text"), *(text_of(other, "sentences") for other in others)]

    def prepare(self, row: list[str], options: Options) -> Job:  # type: ignore[override]
        jobs = [super(SentenceSimilarity, self).prepare(text, options) for text in row]
        windows = [window for job in jobs for window in job.windows]
        return Job(row, windows, sum(job.dropped for job in jobs), sum(job.tokens for job in jobs), jobs)

    def answer(self, job: Job, outputs: list[np.ndarray], options: Options) -> list[float]:  # type: ignore[override]
        vectors, done = [], 0
        for one in job.notes:
            vectors.append(super().answer(one, outputs[done : done + len(one.windows)], options))
            done += len(one.windows)
        source, *others = normalized(np.stack(vectors))
        return [float(source @ other) for other in others]


