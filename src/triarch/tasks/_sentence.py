"""How a sentence-transformers folder turns token vectors into one vector: modules.json and what it names.

Reimers & Gurevych 2019, https://arxiv.org/abs/1908.10084; the files' format is that of the sentence-transformers
library. A folder without modules.json gets the mean over tokens, normalised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from triarch.errors import CorruptFile, InvalidInput, Unsupported, show
from triarch.files import parse_json

Vector = Callable[[np.ndarray], np.ndarray]

# pooling_mode_… of the file -> what it does with the vectors (T, D) of the tokens
POOLINGS: dict[str, Vector] = {
    "cls_token": lambda x: x[0],
    "mean_tokens": lambda x: x.mean(0),
    "max_tokens": lambda x: x.max(0),
    "mean_sqrt_len_tokens": lambda x: x.sum(0) / np.sqrt(len(x)),
    "weightedmean_tokens": lambda x: np.average(x, axis=0, weights=np.arange(1, len(x) + 1)),
    "lasttoken": lambda x: x[-1],
}

ACTIVATIONS: dict[str, Vector] = {
    "torch.nn.modules.activation.Tanh": np.tanh,
    "torch.nn.modules.linear.Identity": lambda x: x,
    "torch.nn.modules.activation.ReLU": lambda x: np.maximum(x, 0),
}


@dataclass(frozen=True)
class Recipe:
    """From token vectors to the sentence's."""

    poolings: tuple[str, ...] = ("mean_tokens",)  # several are laid end to end
    include_prompt: bool = True
    layers: tuple[Vector, ...] = ()  # functions (D,) -> (D,) after pooling
    normalize: bool = True
    max_tokens: int | None = None
    lowercase: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None

    def pool(self, x: np.ndarray) -> np.ndarray:
        """(T, D) -> (D,), not yet normalised."""
        pooled = np.concatenate([POOLINGS[name](x) for name in self.poolings])
        for layer in self.layers:
            pooled = layer(pooled)
        return pooled


def recipe(sidecars: dict[str, bytes]) -> Recipe:
    """Read the files beside a model. Raises Unsupported for a module that is none of the usual."""
    if "modules.json" not in sidecars:
        return Recipe()
    known: dict[str, Any] = {"normalize": False, "poolings": ()}
    layers: list[Vector] = []
    for module in parse_json(sidecars["modules.json"], "modules.json"):
        kind, path = str(module.get("type")).rsplit(".", 1)[-1], module.get("path", "")
        if kind == "Pooling":
            known |= _pooling(_object(sidecars, f"{path}/config.json"))
        elif kind == "Normalize":
            known["normalize"] = True
        elif kind == "Dense":
            layers.append(_dense(sidecars, path))
        elif kind != "Transformer":
            raise Unsupported(f"modules.json names {show(kind)}, wanted Transformer, Pooling, Dense or Normalize")
    if not known["poolings"]:
        raise Unsupported(
            "modules.json has no Pooling, so the folder gives no sentence vectors; use feature-extraction"
        )
    bert = _object(sidecars, "sentence_bert_config.json")
    whole = _object(sidecars, "config_sentence_transformers.json")
    prompts = whole.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise CorruptFile("config_sentence_transformers.json has prompts that are no table of texts; mend it")
    default = whole.get("default_prompt_name")
    if default is not None and default not in [*prompts]:
        raise CorruptFile(f"default_prompt_name is {show(default)}, which is none of the prompts; mend it")
    return Recipe(
        **known,
        layers=tuple(layers),
        max_tokens=_count(bert.get("max_seq_length")),
        lowercase=bool(bert.get("do_lower_case", False)),
        prompts=prompts,
        default_prompt=default,
    )


def _object(sidecars: dict[str, bytes], name: str) -> dict[str, Any]:
    raw = parse_json(sidecars.get(name, b"{}"), name)
    if not isinstance(raw, dict):
        raise CorruptFile(f"{name} is a {type(raw).__name__}, wanted an object; download it again")
    return raw


def _count(value: Any) -> int | None:
    if value is not None and (type(value) is not int or value < 1):
        raise InvalidInput(f"sentence_bert_config.json max_seq_length is {show(value)}, wanted a count; mend it")
    return value


def _pooling(config: dict[str, Any]) -> dict[str, Any]:
    """Both spellings: a flag for each mode, or the modes' names."""
    named = config.get("pooling_mode")
    if named is not None:
        modes = named if isinstance(named, list) else [named]
        if not all(isinstance(mode, str) for mode in modes):
            raise CorruptFile(f"pooling_mode is {show(named)}, wanted a name or a list of names; mend it")
        short = {name.removesuffix("_token").removesuffix("_tokens"): name for name in POOLINGS}
        chosen = [short.get(mode, mode) for mode in modes]
    else:
        chosen = [
            key.removeprefix("pooling_mode_") for key, on in config.items() if key.startswith("pooling_mode_") and on
        ]
    if odd := [mode for mode in chosen if mode not in POOLINGS]:
        raise Unsupported(f"pooling {show(odd[0])} is not one of {', '.join(POOLINGS)}")
    ordered = tuple(name for name in POOLINGS if name in chosen)
    return {"poolings": ordered, "include_prompt": bool(config.get("include_prompt", True))}


def _dense(sidecars: dict[str, bytes], path: str) -> Vector:
    """A linear layer and its activation, from safetensors."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    name = _object(sidecars, f"{path}/config.json").get("activation_function", "torch.nn.modules.activation.Tanh")
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise Unsupported(f"Dense activation {show(name)} is not one of {', '.join(ACTIVATIONS)}")
    if f"{path}/model.safetensors" not in sidecars:
        raise Unsupported(f"{path} has no model.safetensors; save its weights in that format")
    try:
        weights = load(sidecars[f"{path}/model.safetensors"])
        weight = weights["linear.weight"]
        bias = weights.get("linear.bias", np.zeros(len(weight), weight.dtype))
    except (SafetensorError, KeyError, TypeError) as error:
        raise CorruptFile(
            f"{path}/model.safetensors holds no linear layer ({show(error)}); download it again"
        ) from None
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise CorruptFile(f"{path}/model.safetensors has shapes that are no linear layer's; download it again")

    def layer(x: np.ndarray) -> np.ndarray:
        if x.shape != weight.shape[1:]:
            raise InvalidInput(f"{path} takes vectors of {weight.shape[1]} numbers, found {len(x)}; mend modules.json")
        return ACTIVATIONS[name](weight @ x + bias)

    return layer
