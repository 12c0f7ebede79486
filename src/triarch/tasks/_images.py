"""What all tasks on images share: what is taken for one image, and what is asked for by name."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from triarch import limits
from triarch.errors import InvalidInput, show
from triarch.kinds import Image
from triarch.tasks import _options
from triarch.tasks._base import Task


@dataclass(frozen=True, kw_only=True)
class Options(_options.Shared):
    """What every task on images can be asked for."""

    urls: bool = False  # fetch images whose input is an address (http, https); otherwise no address is opened
    animated: Literal["error", "first"] = "error"  # of an image with several frames: refuse it, or read the first

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_counts("top_k")


class ImageTask(Task):
    """A file, bytes, a PIL image or an array of pixels; a list of these, a folder of files, or a table with paths."""

    INPUT = Image
    OPTIONS: ClassVar[type[Any]] = Options

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """One image -> its answer; a list -> a list; a generator, a folder or a table of paths -> an iterator.

        Raises InvalidInput and its kin; for many inputs the error says which.
        """
        folder = isinstance(inputs, str) and not inputs.startswith("data:") and os.path.isdir(inputs)
        return super().__call__(Path(inputs) if folder else inputs, **options)

    def read(self, given: Any, options: Any) -> Any:
        row = given.get(self.field()) if isinstance(given, dict) else None
        given = given if row is None else row
        if options.urls and isinstance(given, str) and re.match(r"https?://", given, re.IGNORECASE):
            from triarch.inputs.fetch import fetch

            given = fetch(given, most=limits.IMAGE_BYTES)
        picture = super().read(given, options)
        if picture.animated and options.animated == "error":
            named = show(os.fspath(given)) if isinstance(given, str | os.PathLike) else "the image"
            raise InvalidInput(f'{named} has several frames; ask for the first with animated="first"')
        return picture
