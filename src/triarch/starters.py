"""Small trained models that come with the library, so that `triarch run TASK -m starter` needs no network.

They lie in `starters/` of the repository, and in a wheel inside the package. Most are low-rank adapters on
all-MiniLM-L6-v2, which comes as a package of its own (see hub.py) and is itself the starter of tasks on vectors.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from triarch import hub
from triarch.errors import CorruptFile, NotFound, show
from triarch.files import Folder

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

    from triarch.family import Network

NAME = "starter"  # what stands in place of a folder or a repo id
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"

CARD, CARD_BYTES = "README.md", 1_000_000


@dataclass(frozen=True)
class Card:
    """What the front matter of a starter's card says; what it does not say is None, or not there."""

    licence: str | None = None
    data: str | None = None  # the set that it was measured on
    part: str | None = None  # of that set
    scores: Mapping[str, float] = field(default_factory=dict)


def resolve(task: str, starters: Mapping[str, str], model: str | os.PathLike[str] | Network) -> Any:
    """`model`, or the starter of a task where that is "starter" and no folder is called so.

    `starters` are those that the task declares, by the names that it is called by. Raises NotFound for a name without
    one, and when it is not here.
    """
    if not (isinstance(model, str) and model == NAME and not os.path.isdir(model)):
        return model
    if task not in starters:
        raise NotFound(f"no starter serves {show(task)}; give a folder or a repo id (triarch list says what is served)")
    return find(starters[task], task)


def find(name: str, task: str) -> Path:
    """Where the starter of a task lies: a folder of `starters/`, or the packaged encoder. Raises NotFound."""
    if name != ENCODER:
        return folder(name)
    if (inside := hub.packaged(ENCODER)) is None:
        raise NotFound(f"the starter for {task} is {ENCODER}, which is not installed; {hub.installing(ENCODER)}")
    return inside


def folder(name: str) -> Path:
    """Where a folder of `starters/` lies. Raises NotFound when it is not here."""
    path = home() / name
    if not path.is_dir():
        raise NotFound(
            f"the starter {name} is not at {path}; install triarch from a wheel or a checkout that has its starters, "
            "or give a folder or a repo id"
        )
    return path


def home() -> Path:
    """The folder of all starters: inside the package, or in the repository whose `src` the package is run from."""
    here = Path(__file__)
    inside = here.with_name("starters")
    return inside if inside.is_dir() or here.parents[1].name != "src" else here.parents[2] / "starters"


def card(path: Path) -> Card:
    """What the card of a starter's folder says. Raises NotFound, and CorruptFile for front matter that is no YAML."""
    from huggingface_hub import ModelCard  # here: it takes longer to import than all of ours
    from yaml import YAMLError

    try:
        text = Folder(path).read(CARD, CARD_BYTES).decode("utf-8")
        said = cast("ModelCardData", ModelCard(text, ignore_metadata_errors=False).data)
    except (ValueError, YAMLError) as error:
        raise CorruptFile(f"{path / CARD} has front matter that cannot be read ({show(error)}); mend it") from None
    results = said.eval_results or []
    first = results[0] if results else None
    return Card(
        licence=said.license,
        data=first.dataset_name if first else None,
        part=first.dataset_split if first else None,
        scores={result.metric_type: float(result.metric_value) for result in results},
    )
