"""Save: a model, or the low-rank adapters on one, as a folder that the reference library opens."""

import json
import os
from pathlib import Path

from triarch.errors import InvalidInput, TriarchError, show
from triarch.family import Network
from triarch.files import replacing, write_text
from triarch.layers import low_rank
from triarch.weights import adapters, files, table


def save(model: Network, folder: str | os.PathLike[str], *, shard_bytes: int = 5_000_000_000) -> None:
    """Write a folder that the reference library opens unchanged: config, weights, tokenizer and what lay beside.

    Each file appears whole or not at all, the config last. Raises TriarchError when the folder cannot be written,
    InvalidInput for a model whose low-rank adapters are not merged.
    """
    _check_model(model)
    if low_rank.wrapped(model):
        raise InvalidInput("the model has low-rank adapters; merge them first, or use save_adapter")
    path = _made(folder, model)
    tensors = table.export(model, model.family.weights.under(model.architecture))
    files.write(tensors, path, shard_bytes)
    _write_beside(model, path)


def save_adapter(model: Network, folder: str | os.PathLike[str], *, base: str | os.PathLike[str]) -> None:
    """Write the low-rank adapters and the head of a model that `low_rank.wrap` has wrapped, in the format of peft.

    `base` is the model that they were trained on, a repo id or a folder; of a folder the absolute path is kept. With
    config.json and the tokenizer beside, `load` needs nothing else. Raises InvalidInput for a model without adapters.
    """
    _check_model(model)
    layers = low_rank.wrapped(model)
    kinds = {(layer.rank, layer.alpha, layer.dropout.p, layer.rslora) for layer in layers.values()}
    if len(kinds) != 1:
        raise InvalidInput(
            f"the model has {len(kinds) or 'no'} kinds of low-rank adapters, wanted one; wrap() it first"
        )
    rank, alpha, dropout, rslora = kinds.pop()
    name = os.fsdecode(base)
    settings = adapters.Settings(
        rank=rank,
        alpha=alpha,
        dropout=dropout,
        rslora=rslora,
        base=os.path.abspath(name) if os.path.isdir(name) else name,
        scores=model.kind,
        architecture=model.architecture,
    )
    factors = {name: (layer.a.detach(), layer.b.detach()) for name, layer in layers.items()}
    path = _made(folder, model)
    adapters.write(model, factors, settings, model.family.weights.under(model.architecture), path)
    _write_beside(model, path)


def _check_model(model: object) -> None:
    if not isinstance(model, Network):
        raise InvalidInput(f"model is {type(model).__name__}, wanted one that load() or build() gave")


def _made(folder: str | os.PathLike[str], model: Network) -> Path:
    """The folder, which is made where it is not there, and those of the sidecars."""
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        for name in model.sidecars:
            (path / name).parent.mkdir(exist_ok=True)
    except OSError as error:
        raise TriarchError(f"cannot make the folder {show(path)} ({error.strerror}); choose another") from None
    return path


def _write_beside(model: Network, path: Path) -> None:
    """Everything but the weights, the config last."""
    for name, data in model.sidecars.items():
        with replacing(path / name) as temporary:
            temporary.write_bytes(data)
    if model.processor is not None:
        model.processor.save(path)
    dtype = next(t.dtype for t in model.parameters() if t.is_floating_point())
    raw = {key: value for key, value in model.config.to_hf().items() if key != "dtype"}
    raw |= {
        "architectures": [model.architecture],
        "model_type": model.family.model_type,
        "torch_dtype": str(dtype).removeprefix("torch."),  # the spelling that both major versions read
    }
    write_text(path / "config.json", json.dumps(raw, indent=2, sort_keys=True) + "\n")
