"""What several tasks do with a model's scores."""

from __future__ import annotations

from typing import Any

import numpy as np


def softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis, in the precision of `x`."""
    shifted = np.exp(x - x.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def labelled(logits: np.ndarray, config: Any, function: str | None) -> list[dict[str, Any]]:
    """Scores (L,) -> {"label", "score"} of each label in the model's order, by the function that was asked for or, for
    None, by the one that the kind of problem calls for."""
    if function is None:
        problem = config.extra.get("problem_type")
        if problem == "regression":
            function = "none"
        elif problem == "multi_label_classification" or config.num_labels == 1:
            function = "sigmoid"
        else:
            function = "softmax"
    scores = {"sigmoid": sigmoid, "softmax": softmax, "none": lambda x: x}[function](logits)
    return [{"label": config.id2label[i], "score": float(score)} for i, score in enumerate(scores)]
