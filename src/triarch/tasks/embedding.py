"""One vector for a text, such that texts of like meaning lie near each other.

    triarch run embedding "A man is eating food." -m sentence-transformers/all-MiniLM-L6-v2 --jsonl

Pooling, normalisation, prompts and length are read from the files of a sentence-transformers folder. A text longer than
that is read in windows, whose vectors are averaged by length.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from triarch.errors import InvalidInput
from triarch.inputs.fit import Fit, mean
from triarch.inputs.text.given import text_of
from triarch.starters import ENCODER
from triarch.tasks import _options
from triarch.tasks._base import Job, Task

if TYPE_CHECKING:
    from torch import Tensor

    from triarch.inputs.processor import Piece


@dataclass(frozen=True, kw_only=True)
class Options(_options.Options):
    prompt: str | None = None  # put before each text
    prompt_name: str | None = None  # a prompt of the model, such as query or document
    normalize: bool | None = None  # to length 1; None: as the model was trained
    truncate_dim: int | None = None  # that many first dimensions, of models trained for it


class Embedding(Task):
    """Text -> (D,) array of float32."""

    ALIASES: ClassVar[tuple[str, ...]] = ("sentence-embedding",)
    TAG = "feature-extraction"
    TRY: ClassVar[Any] = ["A man is eating.", "Someone eats."]
    STARTERS = {"embedding": ENCODER}
    OPTIONS = Options

    def __init__(self, model: Any, **defaults: Any):
        from triarch.inputs.text.sentence_recipe import recipe

        super().__init__(model, **defaults)
        self.recipe = recipe(model.sidecars)

    def read(self, given: Any, options: Any) -> Any:
        return text_of(given, "text")

    def prepare(self, item: Any, options: Any) -> Job:
        return super().prepare((self.recipe.text(self.prompt(options), item), None), options)

    def fit(self, options: Any) -> Fit:
        return replace(super().fit(options), usual=self.recipe.max_tokens)

    def compute(self, batch: dict[str, Tensor], pieces: list[Piece], options: Any) -> list[np.ndarray]:
        import torch

        x = self.model.features(**batch).float()  # (B, T, D)
        hidden, ends = (
            torch.tensor(counts, device=x.device)[:, None]
            for counts in (
                [self.recipe.hidden(self.prompt(options), piece.content) for piece in pieces],
                [piece.cost for piece in pieces],
            )
        )
        places = torch.arange(x.shape[1], device=x.device)
        # Pooled here, as the vectors of all tokens of a long text would fill the memory
        return list(self.recipe.pool(x, (places >= hidden) & (places < ends)).cpu().numpy())

    def answer(self, job: Job, outputs: list[np.ndarray], options: Any) -> Any:
        vector = mean(outputs, job.costs)
        if options.truncate_dim is not None:
            if not 0 < options.truncate_dim <= len(vector):
                raise InvalidInput(f"truncate_dim is {options.truncate_dim}, wanted 1..{len(vector)}")
            vector = vector[: options.truncate_dim]
        if self.recipe.normalize if options.normalize is None else options.normalize:
            vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
        return vector.astype(np.float32)

    def prompt(self, options: Any) -> str:
        """What stands before each text."""
        return self.recipe.prompt(options.prompt_name) if options.prompt is None else options.prompt


def normalized(vectors: np.ndarray) -> np.ndarray:
    """(…, D) -> (…, D) of length 1, so that a product of two is their cosine."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
