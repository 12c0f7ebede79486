"""Where the documents of a token store were read, small enough for its header.

It is {"files": [[name, unit], …], "runs": [[document, file, number], …]}: from that document on, counted through the
store, documents are of that file, which numbers them from that number on. A run of no file ends what is known.
"""

from bisect import bisect_right
from pathlib import Path
from typing import Any

from triarch import limits
from triarch.data import rows
from triarch.data.documents import Document
from triarch.data.rows import Origin


class Origins:
    """What `place` reads, gathered document by document. Only so many runs are kept."""

    def __init__(self) -> None:
        self.kept: dict[str, list[list[Any]]] = {"files": [], "runs": []}
        self._files: dict[int, int] = {}
        self._next: tuple[int, int] | None = None  # file and number of the document that needs no run of its own

    def add(self, index: int, document: Document) -> None:
        runs = self.kept["runs"]
        if len(runs) > limits.ORIGINS:
            return
        if (document.file, document.number) != self._next:
            if len(runs) == limits.ORIGINS:
                runs.append([index, None, 0])
                return
            if document.file not in self._files:
                self._files[document.file] = len(self._files)
                # Without its folder, which is nobody's business where the store goes
                self.kept["files"].append([Path(document.origin.name).name, document.origin.unit])
            runs.append([index, self._files[document.file], document.number])
        self._next = document.file, document.number + 1


def place(kept: Any, document: int) -> str | None:
    """Where a document was read, if that is known, such as "books.jsonl line 3"."""
    runs = kept["runs"] if kept else []
    run = bisect_right(runs, document, key=lambda run: run[0]) - 1
    if run < 0 or runs[run][1] is None:
        return None
    first, file, number = runs[run]
    return rows.place(Origin(*kept["files"][file]), number + document - first)


def sound(kept: Any) -> bool:
    """Whether a header's entry is one, or none, as stores once had."""
    if kept is None:
        return True
    if not isinstance(kept, dict) or not all(isinstance(kept.get(name), list) for name in ("files", "runs")):
        return False
    files = kept["files"]
    return all(_are(file, (str,), (str,)) for file in files) and all(
        _are(run, (int,), (int, type(None)), (int,)) and (run[1] is None or 0 <= run[1] < len(files))
        for run in kept["runs"]
    )


def _are(values: Any, *kinds: tuple[type, ...]) -> bool:
    return (
        isinstance(values, list)
        and len(values) == len(kinds)
        and all(type(value) in kind for value, kind in zip(values, kinds, strict=True))
    )
