"""One vector for a text, such that texts of like meaning lie near each other.

    triarch run embedding "A man is eating food." -m sentence-transformers/all-MiniLM-L6-v2 --jsonl

Pooling, normalisation, prompts and length are read from the files of a sentence-transformers folder. A text longer than
that is read in windows, whose vectors are averaged by length.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from triarch.errors import InvalidInput
from triarch.starters import ENCODER
from triarch.tasks import _options
from triarch.tasks._base import Job, Task, text_of
from triarch.tasks._scores import mean_by_length

if TYPE_CHECKING:
    from tokenizers import Encoding
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Options(_options.Options):
    prompt: str | None = None  # put before each text
    prompt_name: str | None = None  # a prompt of the model, such as query or document
    normalize: bool | None = None  # to length 1; None: as the model was trained
    truncate_dim: int | None = None  # that many first dimensions, of models trained for it


class Embedding(Task):
    """Text -> (D,) array of float32."""

    ALIASES = ("sentence-embedding",)
    TAG = "feature-extraction"
    TRY = ["A man is eating.", "Someone eats."]
    STARTERS = {"embedding": ENCODER}
    OPTIONS = Options

    def __init__(self, model: Any, **defaults: Any):
        from triarch.inputs.text.sentence_recipe import recipe

        super().__init__(model, **defaults)
        self.recipe = recipe(model.sidecars)

    def read(self, given: Any, options: Options) -> str:
        return text_of(given, "text")

    def prepare(self, row: str, options: Options) -> Job:
        longest = min(self.recipe.max_tokens or self.processor.max_tokens, self.processor.max_tokens)
        shorter = replace(options, max_length=options.max_length or longest)
        return self.windows(self.recipe.text(self._prompt(options), row), None, shorter)

    def compute(self, batch: dict[str, Tensor], windows: list[Encoding], options: Options) -> list[np.ndarray]:
        import torch

        x = self.model.features(**batch).float()  # (B, T, D)
        hidden, ends = (
            torch.tensor(counts, device=x.device)[:, None]
            for counts in ([self.recipe.hidden(self._prompt(options), w) for w in windows], [*map(len, windows)])
        )
        places = torch.arange(x.shape[1], device=x.device)
        # Pooled here, as the vectors of all tokens of a long text would fill the memory
        return list(self.recipe.pool(x, (places >= hidden) & (places < ends)).cpu().numpy())

    def answer(self, job: Job, outputs: list[np.ndarray], options: Options) -> np.ndarray:
        vector = mean_by_length(job.windows, outputs)
        if options.truncate_dim is not None:
            if not 0 < options.truncate_dim <= len(vector):
                raise InvalidInput(f"truncate_dim is {options.truncate_dim}, wanted 1..{len(vector)}")
            vector = vector[: options.truncate_dim]
        if self.recipe.normalize if options.normalize is None else options.normalize:
            vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
        return vector.astype(np.float32)

    def _prompt(self, options: Options) -> str:
        return self.recipe.prompt(options.prompt_name) if options.prompt is None else options.prompt


def normalized(vectors: np.ndarray) -> np.ndarray:
    """(…, D) -> (…, D) of length 1, so that a product of two is their cosine."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
