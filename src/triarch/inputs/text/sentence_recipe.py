"""How a sentence-transformers folder turns a text into one vector: modules.json and what it names.

Reimers & Gurevych 2019, https://arxiv.org/abs/1908.10084; the files' format is that of the sentence-transformers
library. A folder without modules.json gets the mean over tokens, normalised.

Shapes: B texts, T tokens, D hidden size.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers import Encoding
from torch import Tensor

from triarch.errors import CorruptFile, InvalidInput, Unsupported, show
from triarch.files import parse_json
from triarch.layers.pooling import POOLINGS
from triarch.suggest import did_you_mean

Layer = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Layer] = {
    "torch.nn.modules.activation.Tanh": torch.tanh,
    "torch.nn.modules.linear.Identity": lambda x: x,
    "torch.nn.modules.activation.ReLU": torch.relu,
}


@dataclass(frozen=True)
class Recipe:
    """From a text to its vector."""

    poolings: tuple[str, ...] = ("mean_tokens",)  # several are laid end to end
    include_prompt: bool = True
    layers: tuple[Layer, ...] = ()  # functions (B, D) -> (B, D) after pooling
    normalize: bool = True
    max_tokens: int | None = None
    lowercase: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None

    def text(self, prompt: str, text: str) -> str:
        """What the tokenizer is given."""
        return (prompt + text).lower() if self.lowercase else prompt + text

    def hidden(self, prompt: str, window: Encoding) -> int:
        """How many tokens at the beginning of a window are not pooled: those of a prompt, [CLS] with them."""
        return 0 if self.include_prompt else _behind(len(prompt), window)

    def pool(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D), and (B, T) which tokens count -> (B, D), not yet normalised."""
        pooled = torch.cat([POOLINGS[name](x, mask) for name in self.poolings], dim=-1)
        for layer in self.layers:
            pooled = layer(pooled)
        return pooled

    def prompt(self, name: str | None) -> str:
        """The text of a prompt by its name; of none, that of the default. Raises InvalidInput, with the nearest."""
        name = name or self.default_prompt
        if name is None:
            return ""
        if name not in self.prompts:
            hint = did_you_mean(name, self.prompts)
            raise InvalidInput(f"the model has no prompt {show(name)!r}{hint}; it has {[*self.prompts]}")
        return self.prompts[name]

    def named_or_written(self, prompt: str | None) -> str:
        """The text of a prompt that is given by its name, or as it is: a single word is a name."""
        if prompt is None or re.fullmatch(r"[\w-]+", prompt):
            return self.prompt(prompt)
        return self.prompts.get(prompt, prompt)


def recipe(sidecars: dict[str, bytes]) -> Recipe:
    """Read the files beside a model. Raises Unsupported for a module that is none of the usual."""
    if "modules.json" not in sidecars:
        return Recipe()
    known: dict[str, Any] = {"normalize": False, "poolings": ()}
    layers: list[Layer] = []
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


def _dense(sidecars: dict[str, bytes], path: str) -> Layer:
    """A linear layer and its activation, from safetensors."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    name = _object(sidecars, f"{path}/config.json").get("activation_function", "torch.nn.modules.activation.Tanh")
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise Unsupported(f"Dense activation {show(name)} is not one of {', '.join(ACTIVATIONS)}")
    if f"{path}/model.safetensors" not in sidecars:
        raise Unsupported(f"{path} has no model.safetensors; save its weights in that format")
    try:
        weights = load(sidecars[f"{path}/model.safetensors"])
        weight = weights["linear.weight"].float()
        bias = weights["linear.bias"].float() if "linear.bias" in weights else weight.new_zeros(len(weight))
    except (SafetensorError, KeyError, TypeError) as error:
        raise CorruptFile(
            f"{path}/model.safetensors holds no linear layer ({show(error)}); download it again"
        ) from None
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise CorruptFile(f"{path}/model.safetensors has shapes that are no linear layer's; download it again")

    def layer(x: Tensor) -> Tensor:
        if x.shape[1:] != weight.shape[1:]:
            found = x.shape[-1]
            raise InvalidInput(f"{path} takes vectors of {weight.shape[1]} numbers, found {found}; mend modules.json")
        return ACTIVATIONS[name](x @ weight.to(x.device).T + bias.to(x.device))

    return layer


def _behind(characters: int, window: Encoding) -> int:
    """How many tokens at the beginning of a window make up the first characters of the text; [CLS] goes with them."""
    if not characters or any(start for start, _ in window.offsets[:2]):  # no prompt, or a later window
        return 0
    inside = (i for i, special in enumerate(window.special_tokens_mask) if not special)
    return next((i for i in inside if window.offsets[i][0] >= characters), len(window) - 1)
