"""One vector for a text, such that texts of like meaning lie near each other.

    triarch run embedding "A man is eating food." -m sentence-transformers/all-MiniLM-L6-v2 --jsonl

Pooling, normalisation, prompts and length are read from the files of a sentence-transformers folder. A text longer than
that is read in windows, whose vectors are averaged by length.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from triarch.errors import InvalidInput, show
from triarch.suggest import did_you_mean
from triarch.tasks import _options, _sentence
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
    OPTIONS = Options

    def __init__(self, model: Any, **defaults: Any):
        super().__init__(model, **defaults)
        self.recipe = _sentence.recipe(model.sidecars)

    def read(self, given: Any, options: Options) -> str:
        return text_of(given, "text")

    def prepare(self, row: str, options: Options) -> Job:
        text = self._prompt(options) + row
        longest = min(self.recipe.max_tokens or self.processor.max_tokens, self.processor.max_tokens)
        shorter = replace(options, max_length=options.max_length or longest)
        return self.windows(text.lower() if self.recipe.lowercase else text, None, shorter)

    def compute(self, batch: dict[str, Tensor], windows: list[Encoding], options: Options) -> list[np.ndarray]:
        x = self.model.features(**batch).float().cpu().numpy()  # (B, T, D)
        # Pooled here, as the vectors of all tokens of a long text would fill the memory
        hidden = 0 if self.recipe.include_prompt else len(self._prompt(options))
        return [self.recipe.pool(x[i, _behind(hidden, window) : len(window)]) for i, window in enumerate(windows)]

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
        if options.prompt is not None:
            return options.prompt
        name = options.prompt_name or self.recipe.default_prompt
        if name is None:
            return ""
        if name not in self.recipe.prompts:
            hint = did_you_mean(name, self.recipe.prompts)
            raise InvalidInput(f"the model has no prompt {show(name)!r}{hint}; it has {[*self.recipe.prompts]}")
        return self.recipe.prompts[name]


def _behind(characters: int, window: Encoding) -> int:
    """How many tokens at the beginning of a window make up the first characters of the text; [CLS] goes with them."""
    if not characters or any(start for start, _ in window.offsets[:2]):  # no prompt, or a later window
        return 0
    inside = (i for i, special in enumerate(window.special_tokens_mask) if not special)
    return next((i for i in inside if window.offsets[i][0] >= characters), len(window) - 1)


def normalized(vectors: np.ndarray) -> np.ndarray:
    """(…, D) -> (…, D) of length 1, so that a product of two is their cosine."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
