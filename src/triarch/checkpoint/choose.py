"""Which head of its family a checkpoint is opened with, and which of its weights are that head's."""

import re
from collections.abc import Sequence

from triarch.config import Config
from triarch.errors import InvalidInput, Unsupported, show
from triarch.models import Family
from triarch.weights.stored import Entry

LABELLED = re.compile(r"\.(labels|tags)\.\w+$")  # layers of a head with an output for each label, in all families


def own(kind: Family, config: Config) -> str:
    """The head that config.json names, of whatever library; the trunk alone where it names none."""
    own = config.extra.get("architectures") or []
    if not isinstance(own, list) or not all(isinstance(name, str) for name in own):
        raise InvalidInput("config architectures is not a list of names; mend config.json")
    if not own:
        return next(iter(kind.heads))
    first: str = own[0]
    return next((name for name, head in kind.heads.items() if first in head.former), first)


def giving(kind: Family, scores: str) -> str:
    """The first head of a family that gives these scores, by the names of `kinds`. Raises Unsupported for none."""
    given = {architecture: head.kind.__name__ for architecture, head in kind.heads.items()}
    for architecture, gives in given.items():
        if gives == scores:
            return architecture
    known = ", ".join(dict.fromkeys(given.values()))
    raise Unsupported(f"{kind.model_type} has no head that gives {show(scores)}; its heads give {known}")


def choose(
    kind: Family, config: Config, entries: dict[str, Entry], wanted: Sequence[str] = (), *, new_head: bool = False
) -> str:
    """The checkpoint's own head, or another of the family that gives the `wanted` scores and has its weights there.

    With `new_head`, else the first of the family that gives the first of them. Raises Unsupported when there is none.
    """
    first = own(kind, config)
    if new_head and wanted and first not in kind.heads:
        return giving(kind, wanted[0])
    known = first in kind.heads
    if not wanted or (known and kind.head(first).kind.__name__ in wanted):
        return first
    for name, head in kind.heads.items():
        if head.kind.__name__ in wanted and serves(kind, config, entries, name):
            return name
    if new_head:
        return giving(kind, wanted[0])
    raise Unsupported(
        f"{first} has no head that gives {' or '.join(wanted)}; choose another checkpoint, or train a head"
    )


def serves(kind: Family, config: Config, entries: dict[str, Entry], name: str) -> bool:
    """Whether a checkpoint holds the weights of a head, and they are not those of another head under the same names."""
    needed = set(weights_of(kind, config, name).values()) - set(kind.weights.zeros)
    first = own(kind, config)
    return entries.keys() >= needed and not (first in kind.heads and borrowed(kind, config, name, first))


def borrowed(kind: Family, config: Config, name: str, own: str) -> set[str]:
    """The stored weights that belong to the checkpoint's own head, and to this one only by their names.

    A classifier of sequences and one of tokens have weights of the same names and shapes.
    """
    needed, used = (weights_of(kind, config, architecture) for architecture in (name, own))
    return {theirs for ours, theirs in needed.items() if used.get(ours) != theirs and theirs in used.values()}


def foreign(kind: Family, config: Config, name: str, *, renamed: bool) -> set[str]:
    """The stored weights that a head cannot go on with: those of another meaning, and, where labels are others than
    they were (`renamed`), those with an output for each label."""
    first = own(kind, config)
    strange = borrowed(kind, config, name, first) if first in kind.heads else set()
    labelled = {theirs for ours, theirs in weights_of(kind, config, name).items() if LABELLED.search(ours)}
    return strange | (labelled if renamed else set())


def weights_of(kind: Family, config: Config, architecture: str) -> dict[str, str]:
    """Our names of a head's own weights, with the checkpoint's."""
    return {name: kind.weights.find(name).name for name in kind.head_names(config, architecture)}
