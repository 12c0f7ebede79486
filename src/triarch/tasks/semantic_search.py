"""Find the texts of a corpus that come nearest in meaning to a query.

triarch run semantic-search "how do I cook rice" --corpus notes.txt -m sentence-transformers/all-MiniLM-L6-v2
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from triarch.data.inputs import read_rows
from triarch.errors import InvalidInput, TriarchError
from triarch.inputs.text.given import text_of
from triarch.starters import ENCODER
from triarch.tasks import embedding
from triarch.tasks._base import Job
from triarch.tasks.embedding import Embedding, normalized


@dataclass(frozen=True, kw_only=True)
class Options(embedding.Options):
    corpus: list[str] | str = ""  # the texts, or the path of a file that holds one a line
    top_k: int = 10  # that many best hits


class Index(NamedTuple):
    """The vectors of a corpus."""

    corpus: list[str] | str  # as it was given
    dimensions: int | None  # what vectors were cut to
    texts: list[str]
    vectors: np.ndarray  # (N, D), of length 1


class SemanticSearch(Embedding):
    """Query -> [{"corpus_id", "score", "text"}], nearest first; the score is the cosine.

    A corpus given to `pipeline()` is embedded once, at the first query.
    """

    ALIASES = ()
    TRY = None
    FIELD = "query"
    STARTERS = {"semantic-search": ENCODER}
    OPTIONS = Options

    def __init__(self, model: Any, **defaults: Any):
        super().__init__(model, **defaults)
        self.indexed: Index | None = None

    def read(self, given: Any, options: Any) -> str:
        return text_of(given, "query", "text")

    def prompt(self, options: Any) -> str:
        own = options.prompt is None and options.prompt_name is None
        return super().prompt(replace(options, prompt_name=self._prompt("query")) if own else options)

    def answer(self, job: Job, outputs: list[np.ndarray], options: Any) -> list[dict[str, Any]]:
        query = normalized(super().answer(job, outputs, options))
        index = self._index(options.corpus, options.truncate_dim)
        scores = index.vectors @ query
        best = np.argsort(-scores, kind="stable")[: options.top_k]
        return [{"corpus_id": int(i), "score": float(scores[i]), "text": index.texts[i]} for i in best]

    def _index(self, corpus: list[str] | str, dimensions: int | None) -> Index:
        found = self.indexed  # once, as another thread may put that of another corpus in its place
        if found is None or found.corpus is not corpus or found.dimensions != dimensions:
            texts = [text_of(row, "text") for row in _texts(corpus)]
            if not texts:
                raise InvalidInput("corpus is empty; give a list of texts, or the path of a file of them")
            embed = Embedding(self.model, prompt_name=self._prompt("document"), truncate_dim=dimensions)
            self.indexed = found = Index(corpus, dimensions, texts, normalized(np.stack(embed(texts))))
        return found

    def _prompt(self, name: str) -> str | None:
        """A prompt that the model was trained with, where it was."""
        return name if name in self.recipe.prompts else None


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
