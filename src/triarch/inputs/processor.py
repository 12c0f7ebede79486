"""What turns raw input into what a model sees, whatever the medium: the protocol that every checkpoint's processor keeps.

item = processor.read(given)          # one checked input
pieces = processor.pieces(item, fit)  # what the model sees of it: the whole, or windows, tiles, stretches
batch = processor.collate(pieces)     # the tensors that the model takes
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from triarch.config import Config
    from triarch.files import Folder
    from triarch.inputs.fit import Fit
    from triarch.kinds import Medium


@dataclass(frozen=True)
class Piece:
    """What a model sees at once of one input."""

    content: Any  # what `collate` takes: an Encoding of text, the pixels of an image
    cost: int  # what the budget of a batch counts: tokens, patches, frames
    origin: Any = None  # where it lies in the input: characters, a box, seconds; None: it is the whole


class Processor(Protocol):
    """Reads the inputs of one checkpoint. Threads may share it."""

    def read(self, given: Any) -> Any:
        """What a user gives -> one checked input. Raises InvalidInput and its kin."""

    def pieces(self, item: Any, fit: Fit) -> list[Piece]:
        """What the model sees of an input, by the rule for those that are too long or too large."""

    def collate(self, pieces: Sequence[Piece]) -> dict[str, Tensor]:
        """Pieces -> the tensors that the model's `forward` takes, by its names."""

    def save(self, folder: Path) -> None:
        """Write the files that `Format.load` reads."""


class Format(Protocol):
    """How a family reads: what its file declares as READS."""

    medium: Medium

    def load(self, folder: Folder, config: Config) -> Processor | None:
        """The processor of a checkpoint's folder; None if the folder holds no files of it."""
