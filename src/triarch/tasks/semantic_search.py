"""Find the texts of a corpus that come nearest in meaning to a query.

    triarch run semantic-search "how do I cook rice" --corpus notes.txt -m sentence-transformers/all-MiniLM-L6-v2
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from triarch.errors import InvalidInput, TriarchError
from triarch.inputs.rows import read_rows
from triarch.tasks import embedding
from triarch.tasks._base import Job, text_of
from triarch.tasks.embedding import Embedding, normalized


@dataclass(frozen=True, kw_only=True)
class Options(embedding.Options):
    corpus: list[str] | str = ""  # the texts, or the path of a file that holds one a line
    top_k: int = 10  # that many best hits


class SemanticSearch(embedding.Embedding):
    """Query -> [{"corpus_id", "score", "text"}], nearest first; the score is the cosine.

    A corpus given to `pipeline()` is embedded once, at the first query.
    """

    ALIASES = ()
    INPUT = "query"
    Options = Options

    def __init__(self, model: Any, **defaults: Any):
        super().__init__(model, **defaults)
        prompts = self.recipe.prompts
        self.documents = Embedding(model, **({"prompt_name": "document"} if "document" in prompts else {}))
        self.query_prompt = {"prompt_name": "query"} if "query" in prompts else {}
        self.indexed: tuple[Any, list[str], np.ndarray] | None = None  # corpus, its texts, their vectors (N, D)

    def options(self, given: dict[str, Any]) -> Options:
        chosen: Options = super().options(self.query_prompt | given if hasattr(self, "query_prompt") else given)
        return chosen

    def read(self, given: Any, options: Options) -> str:
        return text_of(given, "query", "text")

    def answer(self, job: Job, outputs: list[np.ndarray], options: Options) -> list[dict[str, Any]]:  # type: ignore[override]
        query = normalized(super().answer(job, outputs, options))
        texts, vectors = self._index(options)
        scores = vectors @ query
        best = np.argsort(-scores, kind="stable")[: options.top_k]
        return [{"corpus_id": int(i), "score": float(scores[i]), "text": texts[i]} for i in best]

    def _index(self, options: Options) -> tuple[list[str], np.ndarray]:
        corpus = options.corpus
        if self.indexed is None or self.indexed[0] is not corpus:
            texts = [text_of(row, "text") for row in _texts(corpus)]
            if not texts:
                raise InvalidInput("corpus is empty; give a list of texts, or the path of a file of them")
            self.indexed = corpus, texts, normalized(np.stack(self.documents(texts)))
        return self.indexed[1], self.indexed[2]


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
