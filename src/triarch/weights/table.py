"""Reversible tables between our parameter names and those of a checkpoint.

A row reads `ours: theirs`. In both, `#` is a number and `*` is the last part of the name:

    "encoder.blocks.#.attention.q.*": "bert.encoder.layer.#.attention.self.query.*"

Rows are looked up from our side, by the names the model itself lists, so a digit that is part of a foreign spelling
("block.#.layer.0.SelfAttention.q.*") needs no special care.
"""

import re
from collections import defaultdict
from copy import deepcopy
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache, cached_property

import torch
from torch import Tensor, nn

from triarch.errors import CheckpointMismatch, CorruptFile, show
from triarch.family import Network
from triarch.weights.stored import Entry


@dataclass(frozen=True)
class Stored:
    """Where one of our tensors is stored, when that takes more than another name."""

    name: str
    transposed: bool = False  # GPT-2 keeps (in, out); nn.Linear keeps (out, in)
    part: int = 0  # which of `of` equal slices along our first axis
    of: int = 1
    copy: str = ""  # it is stored under this name too, the one that version 5 of the reference reads in untied models
    others: tuple[str, ...] = ()  # names that shared tensors go by in some files, beside the name or in its place

    def shape(self, theirs: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that `read` gives."""
        whole = theirs[::-1] if self.transposed else theirs
        return whole if self.of == 1 else (whole[0] // self.of, *whole[1:])

    def read(self, theirs: Tensor) -> Tensor:
        whole = theirs.t() if self.transposed else theirs
        return whole.chunk(self.of)[self.part].contiguous()

    def write(self, slices: list[Tensor]) -> Tensor:
        whole = slices[0] if self.of == 1 else torch.cat(slices)
        return (whole.t() if self.transposed else whole).contiguous()


@dataclass(frozen=True)
class Layout:
    """How one family's checkpoints spell its parameters."""

    rows: dict[str, str | Stored]
    trunk: str = ""  # prefix of the trunk in checkpoints with a head; bare ones leave it out
    trunks: dict[str, str] = field(default_factory=dict)  # of the architectures that have another one
    renamed: dict[str, str] = field(default_factory=dict)  # spellings of older files
    ignored: tuple[str, ...] = ()  # buffers and copies that carry no information
    zeros: tuple[str, ...] = ()  # what a file may lack where all of it is zero
    parts: tuple[str, ...] = ()  # beginnings of the names of what models with some heads do without

    def find(self, ours: str) -> Stored:
        """The row of one of our names, with `#` and `*` filled in."""
        for pattern, row in self._stored.items():
            if hit := _pattern(pattern).fullmatch(ours):
                return replace(row, name=_fill(row.name, hit.groups()))
        raise AssertionError(f"no row in the table names the parameter {ours}")

    def stored(self, theirs: str) -> Stored | None:
        """The row of a name in a checkpoint, by the table's spelling; None if the table does not speak of it."""
        rows = (row for row in self._stored.values() if _pattern(row.name).fullmatch(theirs))
        return next((replace(row, name=theirs) for row in rows), None)

    def ignores(self, theirs: str) -> bool:
        return bool(self._passed_over.fullmatch(theirs))

    def unread(self, theirs: str) -> bool:
        """Whether a model of the family may leave it: it is of a head, or carries no information."""
        return bool(self._heads.fullmatch(theirs)) or self.ignores(theirs) or theirs.startswith(self.parts)

    def under(self, architecture: str) -> "Layout":
        """The table as the checkpoints of that architecture are written."""
        trunk = self.trunks.get(architecture, self.trunk)
        rows: dict[str, str | Stored] = {
            ours: replace(row, name=trunk + row.name.removeprefix(self.trunk))
            for ours, row in self._stored.items()
            if row.name.startswith(self.trunk) and (self.trunk or not ours.startswith("head."))
        }
        return replace(self, trunk=trunk, rows=self.rows | rows)

    def spell(self, theirs: str) -> str:
        """The name as the table has it: old spellings renewed, the trunk's own prefix put on."""
        for old, new in self.renamed.items():
            theirs = theirs.replace(old, new)
        for trunk in self.trunks.values():
            theirs = self.trunk + theirs.removeprefix(trunk) if theirs.startswith(trunk) else theirs
        prefixed = self.trunk + theirs
        return prefixed if self._names.fullmatch(prefixed) and not self._names.fullmatch(theirs) else theirs

    # A hostile file may bring a hundred thousand names, so all patterns of a kind are one

    @cached_property
    def _stored(self) -> dict[str, Stored]:
        return {ours: row if isinstance(row, Stored) else Stored(row) for ours, row in self.rows.items()}

    @cached_property
    def _heads(self) -> re.Pattern[str]:
        return _pattern(*(row.name for ours, row in self._stored.items() if ours.startswith("head.")))

    @cached_property
    def _passed_over(self) -> re.Pattern[str]:
        others = (name for row in self._stored.values() for name in row.others)
        return _pattern(*self.ignored, *others, *(row.copy for row in self._stored.values() if row.copy))

    @cached_property
    def _names(self) -> re.Pattern[str]:
        """All that the table speaks of."""
        stored = (name for row in self._stored.values() for name in (row.name, row.copy, *row.others))
        return _pattern(*self.ignored, *filter(None, stored))


@cache
def _pattern(*names: str) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(name).replace(r"\#", r"(\d+)").replace(r"\*", r"(\w+)") for name in names))


def _fill(pattern: str, values: tuple[str, ...]) -> str:
    rest = iter(values)
    return re.sub(r"[#*]", lambda _: next(rest), pattern)


def parameters(model: nn.Module) -> dict[str, Tensor]:
    """Everything worth saving: parameters and persistent buffers, tied ones once."""
    stored = model.state_dict()
    return {name: tensor for name, tensor in (*model.named_parameters(), *model.named_buffers()) if name in stored}


def spell(layout: Layout, entries: dict[str, Entry]) -> dict[str, Entry]:
    """Entries by the table's spelling. Raises CorruptFile where two spellings of one name are both there."""
    spelled: dict[str, Entry] = {}
    for theirs, entry in entries.items():
        name = layout.spell(theirs)
        if name in spelled:
            raise CorruptFile(f"checkpoint holds {show(name)} under two spellings; remove one")
        spelled[name] = entry
    return spelled


def load(
    model: Network,
    layout: Layout,
    entries: dict[str, Entry],
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    new_head: bool = False,
) -> None:
    """Fill `model`, which was built on the meta device, with the tensors of a checkpoint, by the table's spelling.

    Every tensor is read straight into the memory it will live in. What belongs to other heads of the family is left
    unread; with `new_head`, what a head needs and the checkpoint lacks, or has in another shape, is initialized, and
    `model.fresh` says what. Raises CheckpointMismatch with all differences at once, before anything is read.
    """
    _leave_out_optional(model, layout, entries)
    ours = parameters(model)
    rows = {name: _renamed(layout.find(name), entries) for name in ours}

    def held(name: str) -> bool:
        entry = entries.get(rows[name].name)
        return entry is not None and rows[name].shape(entry.shape) == tuple(ours[name].shape)

    fresh = [name for name in rows if new_head and name.startswith("head.") and not held(name)]
    zeros = [name for name, row in rows.items() if row.name in layout.zeros and row.name not in entries]
    missing = [row.name for name, row in rows.items() if row.name not in entries and name not in (*fresh, *zeros)]
    left = entries.keys() - {row.name for row in rows.values()}
    unexpected = sorted(name for name in left if not layout.unread(name))
    misshaped = []
    for name, row in rows.items():
        if row.name in entries and name not in fresh:
            entry, wanted = entries[row.name], tuple(ours[name].shape)
            if row.shape(entry.shape) != wanted:
                misshaped.append(f"{row.name}: found {[*row.shape(entry.shape)]}, config asks {[*wanted]}")
            elif ours[name].is_floating_point() and not entry.dtype.is_floating_point:
                misshaped.append(f"{row.name}: found {entry.dtype}, wanted floating point")
    if missing or unexpected or misshaped:
        headless = missing and all(rows[name].name not in missing for name in rows if not name.startswith("head."))
        advice = "pass new_head=True to start its head afresh" if headless else "check that config and weights belong"
        raise CheckpointMismatch(model.architecture, missing, unexpected, misshaped, advice)

    model.fresh = fresh
    owners = _owners(model)
    for name in fresh:
        _put(owners[id(ours[name])], torch.empty_like(ours[name], dtype=dtype, device=device))
    # Before the stored ones: a module may hold both, and on the meta device those are safe from being initialized
    for module in {id(m): m for name in fresh for m, _ in owners[id(ours[name])]}.values():
        model.initialize(module)
    for name in zeros:
        _put(owners[id(ours[name])], torch.zeros_like(ours[name], dtype=dtype, device=device))
    readers = defaultdict(list)  # one stored tensor may hold several of ours
    for name, row in rows.items():
        if name not in (*fresh, *zeros):
            readers[row.name].append(name)
    for theirs in sorted(readers, key=lambda name: entries[name].place):
        stored = entries[theirs].read()
        for name in readers[theirs]:
            kept = dtype if ours[name].is_floating_point() else stored.dtype
            if kept == torch.float16 and any(fnmatchcase(name, pattern) for pattern in model.WIDE):
                kept = torch.float32
            value = rows[name].read(stored)
            if name != readers[theirs][0] and rows[name].of == 1:  # one for both in the file, each its own in the model
                value = value.clone()
            _put(owners[id(ours[name])], value.to(device, kept))


def untie(model: Network, layout: Layout, entries: dict[str, Entry]) -> None:
    """Take apart what is declared as `untied` where the checkpoint holds other values for it than for what it shares.

    For `model` on the meta device. All other tied tensors are what config.json says.
    """
    first = {id(tensor): name for name, tensor in model.named_parameters()}
    for part in (*model.UNTIED, *(f"head.{part}" for part in model.declared.untied)):
        layer = model.get_submodule(part)
        own, shared = (
            _renamed(layout.find(name), entries).name for name in (f"{part}.weight", first[id(layer.weight)])
        )
        if own == shared or own not in entries or shared not in entries:
            continue
        if not torch.equal(entries[own].read(), entries[shared].read()):
            model.set_submodule(part, deepcopy(layer))


def _renamed(row: Stored, entries: dict[str, Entry]) -> Stored:
    """The row, by that of its names which the checkpoint holds."""
    names = filter(None, (row.copy, row.name, *row.others))
    return replace(row, name=next((name for name in names if name in entries), row.name))


def _leave_out_optional(model: Network, layout: Layout, entries: dict[str, Entry]) -> None:
    """Drop the parts of a head that its checkpoint may leave out, and does."""
    for part in model.declared.optional:
        named = model.head.get_submodule(part).named_parameters()
        if not any(layout.find(f"head.{part}.{name}").name in entries for name, _ in named):
            setattr(model.head, part, None)


def _owners(model: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """Every place at which a tensor hangs in the model; tied ones hang at several."""
    owners = defaultdict(list)
    for module in model.modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            owners[id(tensor)].append((module, name))
    return owners


def _put(places: list[tuple[nn.Module, str]], tensor: Tensor) -> None:
    module, name = places[0]
    value = nn.Parameter(tensor) if name in module._parameters else tensor
    for module, name in places:
        setattr(module, name, value)


def export(model: nn.Module, layout: Layout) -> dict[str, Tensor]:
    """The inverse: what a checkpoint file should hold. Loading it gives back `model`."""
    ours = parameters(model)
    slices: dict[Stored, list[Tensor]] = defaultdict(list)
    for name in sorted(ours, key=lambda name: layout.find(name).part):
        row = layout.find(name)
        held = ours[name].detach()
        slices[replace(row, part=0)].append(held.to_dense() if held.is_mkldnn else held)
    tensors = {row.name: row.write(parts) for row, parts in slices.items()}
    tensors |= {row.copy: tensors[row.name].clone() for row in slices if row.copy}
    if all(name.startswith(layout.trunk) for name in tensors):  # the trunk alone is saved without its prefix
        tensors = {name.removeprefix(layout.trunk): tensor for name, tensor in tensors.items()}
    return tensors
