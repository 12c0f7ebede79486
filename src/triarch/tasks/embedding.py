"""One vector for a text, such that texts of like meaning lie near each other.

    triarch run embedding "A man is eating food." -m sentence-transformers/all-MiniLM-L6-v2 --jsonl

Pooling, normalisation, prompts and length are read from the files of a sentence-transformers folder. A text longer than
that is read in windows, whose vectors are averaged by length.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from triarch.errors import InvalidInput, show
from triarch.suggest import did_you_mean
from triarch.tasks import _base, _sentence
from triarch.tasks._base import Job, mean_by_length, text_of

if TYPE_CHECKING:
    from tokenizers import Encoding
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Options(_base.Options):
    prompt: str | None = None  # put before each text
    prompt_name: str | None = None  # a prompt of the model, such as query or document
    normalize: bool | None = None  # to length 1; None: as the model was trained
    truncate_dim: int | None = None  # that many first dimensions, of models trained for it


class Embedding(_base.Task):
    """Text -> (D,) array of float32."""

    ALIASES = ("sentence-embedding",)
    OPTIONS = Options

    def __init__(self, model: Any, **defaults: Any):
        super().__init__(model, **defaults)
        self.recipe = _sentence.recipe(model.sidecars)

    def read(self, given: Any, options: Options) -> str:
        return text_of(given, "text")

    def prepare(self, row: str, options: Options) -> Job:
        prompt = self._prompt(options)
        text = prompt + row
        longest = min(self.recipe.max_tokens or self.processor.max_tokens, self.processor.max_tokens)
        shorter = dataclasses.replace(options, max_length=options.max_length or longest)
        job = self.windows(text.lower() if self.recipe.lowercase else text, None, shorter)
        # The first window alone holds the prompt's tokens
        job.notes = len(self.processor.encode(prompt)) - 1 if prompt and not self.recipe.include_prompt else 0
        return job

    def compute(self, batch: dict[str, Tensor], windows: list[Encoding]) -> list[np.ndarray]:
        x = self.model.features(**batch).float().cpu().numpy()  # (B, T, D)
        return [x[i, : len(window)] for i, window in enumerate(windows)]

    def answer(self, job: Job, outputs: list[np.ndarray], options: Options) -> np.ndarray:
        outputs = [outputs[0][job.notes :], *outputs[1:]]
        vector = mean_by_length(job.windows, [self.recipe.pool(x) for x in outputs])
        if options.truncate_dim is not None:
            if not 0 < options.truncate_dim <= len(vector):
                raise InvalidInput(f"truncate_dim is {options.truncate_dim}, wanted 1..{len(vector)}")
            vector = vector[: options.truncate_dim]
        if self.recipe.normalize if options.normalize is None else options.normalize:
            vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
        return vector.astype(np.float32)

    def _prompt(self, options: Options) -> str:
        if options.prompt is not None:
            return options.prompt
        name = options.prompt_name or self.recipe.default_prompt
        if name is None:
            return ""
        if name not in self.recipe.prompts:
            hint = did_you_mean(name, self.recipe.prompts)
            raise InvalidInput(f"the model has no prompt {show(name)!r}{hint}; it has {[*self.recipe.prompts]}")
        return self.recipe.prompts[name]


def normalized(vectors: np.ndarray) -> np.ndarray:
    """(…, D) -> (…, D) of length 1, so that a product of two is their cosine."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
