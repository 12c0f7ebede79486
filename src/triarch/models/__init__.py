"""One file per family; the file is named after `model_type` in config.json, and that is the registry."""

import importlib
import pkgutil
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from triarch.config import Config
from triarch.errors import NotFound, show
from triarch.family import Alias, Head, Network
from triarch.inputs.processor import Format
from triarch.kinds import Medium
from triarch.suggest import did_you_mean
from triarch.weights import Layout
from triarch.weights.table import parameters


@dataclass(frozen=True)
class Family:
    """What a family file declares, under one of the model_types it answers to."""

    model_type: str
    heads: dict[str, Head]
    reads: Format
    tiny: Config
    module: ModuleType
    known: bool = True  # the reference library has it too

    def __reduce__(self) -> tuple[Any, ...]:
        return family, (self.model_type,)  # copies of a model are of the same family; a module cannot be copied

    @property
    def medium(self) -> Medium:
        """What its models read."""
        return self.reads.medium

    @property
    def weights(self) -> Layout:
        return self.module.WEIGHTS

    @property
    def network(self) -> type[Network]:
        return self.module.Model

    def config(self, raw: dict[str, Any]) -> Any:
        """The family's own Config."""
        return type(self.tiny).from_hf(raw)

    def head(self, architecture: str) -> Head:
        """Raises NotFound, with the names there are."""
        if architecture not in self.heads:
            hint = did_you_mean(architecture, self.heads)
            raise NotFound(
                f"{self.model_type} has no head {show(architecture)!r}{hint}; it has {', '.join(self.heads)}"
            )
        return self.heads[architecture]

    def head_names(self, config: Config, architecture: str) -> list[str]:
        """Our names of the parameters that a head needs of its own: without those that it shares with the trunk, and
        without parts that a checkpoint may leave out."""
        with torch.device("meta"), _NoInitialization():
            shared = nn.Embedding(1, 1)  # only names are asked for
            declared = self.head(architecture)
            found = parameters(declared.make(config, shared))
        optional = tuple(f"{part}." for part in declared.optional)
        return [
            f"head.{name}"
            for name, tensor in found.items()
            if tensor is not shared.weight and not name.startswith(optional)
        ]

    def build(self, config: Config, architecture: str, device: torch.device | str = "cpu") -> Network:
        """A model with fresh weights."""
        with torch.device(device):
            model = self._make(config, architecture)
        return model.apply(model.initialize)

    def outline(self, config: Config, architecture: str) -> Network:
        """A model on the meta device: all shapes, no memory, to be filled from a checkpoint."""
        with torch.device("meta"), _NoInitialization():
            return self._make(config, architecture)

    def _make(self, config: Config, architecture: str) -> Network:
        model: Network = self.module.Model(config, self.head(architecture))
        model.family, model.architecture, model.sidecars = self, architecture, {}
        return model.eval()


class _NoInitialization(TorchFunctionMode):
    """Leaves out torch.nn.init, which on the meta device only costs time: two seconds of imports at its first call."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def families() -> list[str]:
    """Every model_type there is a family for."""
    return sorted(_all())


def family(model_type: str) -> Family:
    """Raises NotFound for a model_type that no family answers to."""
    found = _all().get(model_type)
    if found is None:
        hint = did_you_mean(model_type, families())
        raise NotFound(f"no family {show(model_type)!r}{hint}; there are {', '.join(families())}")
    return found


def _all() -> dict[str, Family]:
    return {f.model_type: f for info in pkgutil.iter_modules(__path__) for f in _declared(info.name)}


def _declared(name: str) -> list[Family]:
    module = importlib.import_module(f"{__name__}.{name}")
    declared = [Family(name, module.HEADS, module.READS, module.TINY, module)]
    own = next(iter(module.HEADS)).removesuffix("Model")  # the trunk comes first
    aliases: dict[str, Alias] = vars(module).get("ALIASES", {})
    for model_type, alias in aliases.items():
        heads = {head.removeprefix(own): made for head, made in module.HEADS.items()}
        heads = {alias.prefix + name: heads[name] for name in alias.heads or heads}
        declared.append(Family(model_type, heads, alias.reads, alias.tiny or module.TINY, module, alias.known))
    return declared
