"""What turns raw input into what a model sees: the protocol of every checkpoint's processor, whatever the medium.

item = processor.read(given)          # one checked input
pieces = processor.pieces(item, fit)  # what the model sees of it: the whole, or windows, tiles, stretches
batch = processor.collate(pieces)     # the tensors that the model takes
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from triarch.files import Folder
    from triarch.inputs.fit import Fit
    from triarch.kinds import Medium


@dataclass(frozen=True)
class Piece:
    """What a model sees at once of one input."""

    content: Any  # what `collate` takes: an Encoding of text, the pixels of an image
    cost: int  # what the budget of a batch counts: tokens, patches, frames
    origin: Any = None  # where it lies in the input: a box, seconds; None: it is the whole, or its content says so
    whole: int | None = None  # units of the whole input; None: as many as `cost`
    dropped: int = 0  # of these, units that no piece holds, because cutting was asked for


class Processor(Protocol):
    """Reads the inputs of one checkpoint. Threads may share it."""

    # The contents of pieces are ids, which training keeps for all examples; else it reads inputs anew for each batch
    keeps_ids: ClassVar[bool]

    def single(self, given: Any) -> bool:
        """Whether this is one input; else it holds several, as a list or a folder does."""

    def read(self, given: Any) -> Any:
        """One input as a user gives it -> the same, checked. Raises InvalidInput and its kin."""

    def pieces(self, item: Any, fit: Fit) -> list[Piece]:
        """What the model sees of an input; how one that is too long or too large is cut, `fit` says."""

    def collate(self, pieces: Sequence[Piece]) -> dict[str, Tensor]:
        """Pieces -> the tensors that the model's `forward` takes, by its names; no mask where nothing is padded."""

    def save(self, folder: Path) -> None:
        """Write the files that `Format.load` reads."""

    def facts(self) -> dict[str, Any]:
        """What `triarch inspect` says of it, as JSON takes it."""

    def fingerprint(self) -> str:
        """The same for processors that read alike, and another for others."""


class Format(Protocol):
    """How a family reads: what its file declares as READS."""

    medium: ClassVar[Medium]
    called: ClassVar[str]  # what its processors are called, such as "tokenizer"
    files: ClassVar[str]  # what has to lie beside the weights, in words

    def load(self, folder: Folder, config: Any) -> Any:
        """The processor of a checkpoint's folder; None if the folder holds no files of it."""

    def settle(self, folder: Folder | None, family: str, raw: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
        """What config.json of a new model has to say because of its processor: sizes and ids, or nothing.

        The processor's files lie in `folder`; None asks for the family's usual one. `raw` is what config.json says
        otherwise, `usual` what it says of a tiny model. Raises InvalidInput where there has to be a folder.
        """

    def new(self, folder: Folder | None, config: Any) -> Any:
        """The processor of such a model. Raises NotFound for a folder that holds none."""
