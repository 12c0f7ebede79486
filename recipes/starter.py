"""Make a starter, a small model that comes with triarch, of what `triarch train` left in its folder.

    python recipes/starter.py work/intents starters/intents
    python recipes/starter.py work/translation starters/french-english --pair fr en
    python recipes/starter.py work/rewriting starters/rewriting --task text2text-generation '{"num_beams": 1}'

Copies the weights, rounded to float16; config.json, which still has them loaded as float32; the card; and the
tokenizer, unless the model is an adapter whose base has the same one. Checkpoints and report of the run stay behind.
Refuses weights that float16 cannot hold, and checks at the end that the starter is the run's model but for rounding.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

import triarch
from triarch import checkpoint, hub, starters
from triarch.errors import InvalidInput, TriarchError
from triarch.files import Folder, write_text
from triarch.inputs.text.processor import TextProcessor
from triarch.weights import adapters, files

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
ROUNDING = 2.0**-11  # of float16, relative; below its smallest normal number, absolute and smaller yet


def make(
    source: Path, target: Path, pair: tuple[str, str] | None = None, tasks: dict[str, dict[str, Any]] | None = None
) -> None:
    """Write the starter `target` of the run's folder `source`.

    `pair` are the languages between which it translates, `tasks` the options of tasks by their names, a prefix among
    them. Raises InvalidInput, and what reading and writing do.
    """
    folder = Folder(source)
    adapter = adapters.read(folder) if adapters.present(folder) else None
    entries = files.safetensors(folder, adapters.WEIGHTS) if adapter else files.entries(folder)
    rounded = {name: halved(name, entry.read()) for name, entry in entries.items()}
    if target.exists() and any(target.iterdir()):
        raise InvalidInput(f"{target} is not empty; remove it first")
    target.mkdir(parents=True, exist_ok=True)
    files.write(rounded, target)
    copied = [starters.CARD]
    if adapter:
        (target / files.SINGLE).replace(target / adapters.WEIGHTS)
        base = name_of(adapters.base_of(folder, adapter))
        said = folder.json(adapters.CONFIG) | {"base_model_name_or_path": str(base)}
        write_text(target / adapters.CONFIG, json.dumps(said, indent=2, sort_keys=True) + "\n")
    if adapter is None or not same_tokenizer(source, base):
        copied += [name for name in TOKENIZER if folder.has(name)]
    for name in copied:
        shutil.copyfile(folder.find(name), target / name)
    if pair is not None:
        said = Folder(target).json("tokenizer_config.json") | dict(
            zip(("source_lang", "target_lang"), pair, strict=True)
        )
        write_text(target / "tokenizer_config.json", json.dumps(said, indent=2, sort_keys=True) + "\n")
    config = folder.json("config.json") | {"torch_dtype": "float32"}
    if tasks:
        config["task_specific_params"] = tasks
    write_text(target / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
    check(source, target)


def halved(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """In float16 if it has a floating point. Raises InvalidInput for what is not finite there, or was not before."""
    if not tensor.is_floating_point():
        return tensor
    if not tensor.isfinite().all():
        raise InvalidInput(f"{name} holds numbers that are not finite; train the model again")
    half = tensor.to(torch.float16)
    if not half.isfinite().all():
        raise InvalidInput(f"{name} reaches {tensor.abs().max():.3g}, float16 ends at 65504; it cannot be a starter")
    return half


def name_of(base: Path | str) -> Path | str:
    """The repo id of a base that was named by the folder of its installed package, which no other machine has there."""
    return next((repo for repo in hub.PACKAGED if hub.packaged(repo) == Path(base)), base)


def same_tokenizer(folder: Path, base: Path | str) -> bool:
    """Whether the base of an adapter reads text as the adapter's own folder does."""
    return spoken(checkpoint.load_tokenizer(folder)) == spoken(checkpoint.load_tokenizer(base))


def spoken(processor: TextProcessor) -> tuple[str, int, bool]:
    return processor.tokenizer.to_str(), processor.max_tokens, processor.segments


@torch.inference_mode()
def check(source: Path, target: Path) -> None:
    """Raise InvalidInput unless both load as one model, but for rounding."""
    ours, theirs = triarch.load(target, device="cpu"), triarch.load(source, device="cpu")
    assert ours.processor is not None
    assert theirs.processor is not None
    if ours.architecture != theirs.architecture or spoken(ours.processor) != spoken(theirs.processor):
        raise InvalidInput(f"{target} is another model than {source}, or reads text in another way")
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        # An adapter's two factors are both rounded, and so is what their product adds to the base
        if not torch.allclose(mine, other, rtol=4 * ROUNDING, atol=1e-3 * float(other.abs().max())):
            raise InvalidInput(f"{name} in {target} differs from {source} by more than rounding")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="RUN", help="a folder that `triarch train` wrote")
    parser.add_argument("target", type=Path, metavar="STARTER", help="starters/NAME")
    parser.add_argument("--pair", nargs=2, metavar=("FROM", "TO"), help="of a translator: its two languages")
    parser.add_argument(
        "--task", nargs=2, action="append", metavar=("TASK", "JSON"), help="options of a task, its prefix among them"
    )
    given = parser.parse_args()
    try:
        make(given.source, given.target, given.pair, {task: json.loads(said) for task, said in given.task or ()})
    except TriarchError as error:
        sys.exit(f"starter.py: {error}")
    sizes = {path.name: path.stat().st_size for path in sorted(given.target.iterdir())}
    for name, size in (sizes | {"in all": sum(sizes.values())}).items():
        print(f"{name:<26}{size:>12,} bytes")
