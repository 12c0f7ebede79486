"""Find the texts of a corpus that come nearest in meaning to a query.

triarch run semantic-search "how do I cook rice" --corpus notes.txt -m sentence-transformers/all-MiniLM-L6-v2
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from triarch.data.inputs import read_rows
from triarch.errors import InvalidInput, TriarchError
from triarch.starters import ENCODER
from triarch.tasks import embedding
from triarch.tasks._base import Job, Task, text_of
from triarch.tasks.embedding import Embedding, normalized

if TYPE_CHECKING:
    from tokenizers import Encoding
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Options(embedding.Options):
    corpus: list[str] | str = ""  # the texts, or the path of a file that holds one a line
    top_k: int = 10  # that many best hits


class SemanticSearch(Task):
    """Query -> [{"corpus_id", "score", "text"}], nearest first; the score is the cosine.

    A corpus given to `pipeline()` is embedded once, at the first query.
    """

    FIELD = "query"
    STARTERS = {"semantic-search": ENCODER}
    OPTIONS = Options

    def __init__(self, model: Any, **defaults: Any):
        super().__init__(model, **defaults)
        self.embedding = Embedding(model)
        self.indexed: tuple[Any, int | None, list[str], np.ndarray] | None = None  # corpus, cut to, its texts, (N, D)

    def read(self, given: Any, options: Options) -> str:
        return text_of(given, "query", "text")

    def prepare(self, row: str, options: Options) -> Job:
        return self.embedding.prepare(row, self._as_query(options))

    def compute(self, batch: dict[str, Tensor], windows: list[Encoding], options: Options) -> list[np.ndarray]:
        return self.embedding.compute(batch, windows, self._as_query(options))

    def answer(self, job: Job, outputs: list[np.ndarray], options: Options) -> list[dict[str, Any]]:
        query = normalized(self.embedding.answer(job, outputs, options))
        texts, vectors = self._index(options.corpus, options.truncate_dim)
        scores = vectors @ query
        best = np.argsort(-scores, kind="stable")[: options.top_k]
        return [{"corpus_id": int(i), "score": float(scores[i]), "text": texts[i]} for i in best]

    def _index(self, corpus: list[str] | str, dimensions: int | None) -> tuple[list[str], np.ndarray]:
        if self.indexed is None or self.indexed[0] is not corpus or self.indexed[1] != dimensions:
            texts = [text_of(row, "text") for row in _texts(corpus)]
            if not texts:
                raise InvalidInput("corpus is empty; give a list of texts, or the path of a file of them")
            vectors = self.embedding(texts, prompt_name=self._prompt("document"), truncate_dim=dimensions)
            self.indexed = corpus, dimensions, texts, normalized(np.stack(vectors))
        return self.indexed[2], self.indexed[3]

    def _as_query(self, options: Options) -> Options:
        own = options.prompt is None and options.prompt_name is None
        return replace(options, prompt_name=self._prompt("query")) if own else options

    def _prompt(self, name: str) -> str | None:
        """A prompt that the model was trained with, where it was."""
        return name if name in self.embedding.recipe.prompts else None


def _texts(corpus: list[str] | str) -> list[Any]:
    if not isinstance(corpus, str):
        return list(corpus)
    if not corpus:
        return []
    rows = list(read_rows(Path(corpus), "text"))
    for row in rows:
        if isinstance(row, TriarchError):
            raise row
    return rows
