"""How near the meaning of one text is to that of others: the cosine of their vectors, from -1 to 1.

triarch run sentence-similarity "A man is eating." --sentences "Someone eats" --sentences "It rains" -m MODEL
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from triarch.errors import InvalidInput
from triarch.starters import ENCODER
from triarch.tasks import embedding
from triarch.tasks._base import Job, Task, text_of
from triarch.tasks.embedding import Embedding, normalized

if TYPE_CHECKING:
    from tokenizers import Encoding
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Options(embedding.Options):
    sentences: list[str] | None = None  # compared with each input that brings none of its own


class SentenceSimilarity(Task):
    """{"source_sentence": …, "sentences": […]} -> [cosine of each]."""

    FIELD = "source_sentence"
    STARTERS = {"sentence-similarity": ENCODER}
    OPTIONS = Options

    def __init__(self, model: Any, **defaults: Any):
        super().__init__(model, **defaults)
        self.embedding = Embedding(model)

    def read(self, given: Any, options: Options) -> list[str]:
        others = given.get("sentences") if isinstance(given, dict) else options.sentences
        if not isinstance(others, list | tuple) or not others:
            raise InvalidInput('no sentences to compare with; write {"source_sentence": …, "sentences": […]}')
        return [text_of(given, "source_sentence", "text"), *(text_of(other, "sentences") for other in others)]

    def prepare(self, row: list[str], options: Options) -> Job:
        jobs = [self.embedding.prepare(text, options) for text in row]
        windows = [window for job in jobs for window in job.windows]
        tokens, dropped = sum(job.tokens for job in jobs), sum(job.dropped for job in jobs)
        return Job(windows, tokens=tokens, dropped=dropped, parts=max(job.parts for job in jobs), notes=jobs)

    def compute(self, batch: dict[str, Tensor], windows: list[Encoding], options: Options) -> list[np.ndarray]:
        return self.embedding.compute(batch, windows, options)

    def answer(self, job: Job, outputs: list[np.ndarray], options: Options) -> list[float]:
        rest = iter(outputs)
        vectors = [self.embedding.answer(one, list(islice(rest, len(one.windows))), options) for one in job.notes]
        source, *others = normalized(np.stack(vectors))
        return [float(source @ other) for other in others]
