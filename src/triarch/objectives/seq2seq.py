"""Sequence to sequence: write a target from its source, as in translating and in summing up.

Sutskever et al. 2014, https://arxiv.org/abs/1409.3215; label smoothing: Szegedy et al. 2016, section 7,
https://arxiv.org/abs/1512.00567. In learning, the tokens before the one that is guessed are always the right ones; how
the model writes with its own before it, a measurement tells from some of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from triarch.data.columns import Candidate, Column, value_in
from triarch.errors import InvalidInput, show, some
from triarch.inputs.fit import Fit
from triarch.inputs.processor import Piece
from triarch.inputs.text.targets import language_settings
from triarch.kinds import Text
from triarch.metrics import texts
from triarch.objectives._base import Example
from triarch.objectives._labels import LABEL_NAMES
from triarch.objectives._target_words import TargetWords
from triarch.objectives._windows import text_in
from triarch.suggest import did_you_mean

if TYPE_CHECKING:
    from triarch.family import Network
    from triarch.inputs.text.processor import TextProcessor

MEASURES: dict[str, Callable[[Sequence[str], Sequence[str]], dict[str, float]]] = {
    "bleu": lambda right, written: {"bleu": texts.bleu(right, written)},
    "chrf": lambda right, written: {"chrf": texts.chrf(right, written)},
    "chrf++": lambda right, written: {"chrf++": texts.chrf(right, written, words=2)},
    "ter": lambda right, written: {"ter": texts.ter(right, written)},
    "rouge": texts.mean_rouge,
    "exact_match": lambda right, written: {"exact_match": texts.exact_match(right, written)},
}

WRITTEN = (  # names that a text and what is to be written from it have together
    ("source", "target"),
    ("src", "tgt"),
    ("input", "output"),
    ("input", "target"),
    ("inputs", "targets"),
    ("input_text", "target_text"),
    ("document", "summary"),
    ("article", "summary"),
    ("article", "highlights"),
    ("text", "summary"),
    ("dialogue", "summary"),
)


@dataclass(kw_only=True)
class Seq2Seq(TargetWords):
    FIELDS: ClassVar[dict[str, Column]] = {
        "source": Column(Text, usual=tuple(dict.fromkeys(source for source, _ in WRITTEN))),
        "target": Column(Text, pairs=WRITTEN),
    }
    KEYS: ClassVar[tuple[tuple[str, ...], ...]] = (("source",),)
    RANK: ClassVar[int] = 5

    prefix: str | None = None  # text before every source; None: what config.json says, if that is one text
    src_lang: str | None = None  # the language of sources, by the checkpoint's own codes
    tgt_lang: str | None = None  # the language of targets
    long: Literal["error", "truncate"] = "error"  # of a source or target that does not fit: refuse the row, or cut it
    generated: int = 64  # rows from which a measurement has the model write; 0: none
    measures: list[str] = field(default_factory=lambda: ["bleu", "chrf", "rouge"])  # of what it wrote
    num_beams: int = 1  # by which it writes
    max_new_tokens: int | None = None  # that it writes at most; None: what the checkpoint says, else 256

    @classmethod
    def is_mine(cls, candidate: Candidate) -> bool:
        """Texts; and what has the name of a label beside that of a text is a label, and the source says where from."""
        columns = candidate.columns
        if columns["target"].lower() in LABEL_NAMES and any(
            name.lower() in (Text.name, *Text.usual) for name in candidate.found if name not in columns.values()
        ):
            return False
        return any(
            all(isinstance(value_in(row, columns[ours]), str) for ours in ("source", "target"))
            for row in candidate.rows
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_beams", "max_new_tokens"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise InvalidInput(f"{name} is {count}, wanted at least 1")
        if self.generated < 0:
            raise InvalidInput(f"generated is {self.generated}, wanted a number of rows from 0 up")
        for name in self.measures:
            if name not in MEASURES:
                hint = did_you_mean(name, MEASURES)
                raise InvalidInput(f"there is no measure {show(name)!r}{hint}; wanted {', '.join(MEASURES)}")
        if "ter" in self.measures:
            texts.check_ter()
        if self.src_lang is not None or self.tgt_lang is not None:
            self._reads = self.processor.between(self.src_lang, self.tgt_lang)
        self._before = self.prefix or ""

    def attach(self, network: Network) -> None:
        """Raises InvalidInput where config.json knows several prefixes, and none was chosen."""
        super().attach(network)
        extra = network.config.extra
        tasks = extra.get("task_specific_params")
        entries = [entry for entry in tasks.values() if isinstance(entry, dict)] if isinstance(tasks, dict) else []
        known = {entry["prefix"] for entry in entries if isinstance(entry.get("prefix"), str)}
        if self.prefix is None and isinstance(own := extra.get("prefix"), str):
            self._before = own
        elif self.prefix is None and known - {""}:
            raise InvalidInput(
                f"config.json knows the prefixes {some([repr(one) for one in sorted(known)])}; choose one as the "
                'option prefix, or "" for none'
            )
        if self._before or known:
            # Tasks put the same text before what they read, whatever the checkpoint was made for before
            others = {} if self._before in known else {"task_specific_params": None}
            self.CONFIG = {"prefix": self._before} | others  # type: ignore[misc]

    def examples(self, row: dict[str, Any]) -> list[Example]:
        """Raises InvalidInput for a row without a source or a target, and for one too long unless it may be cut."""
        source = self._piece(self._reads, self._before + text_in(row, "source"), self._most, "source")
        target = self._piece(self._reads.target, text_in(row, "target"), self._most_written, "target")
        dropped = source.dropped + target.dropped
        return [self.example(source.content.ids, target.content.ids, note=row["target"], dropped=dropped)]

    @property
    def writes(self) -> tuple[int, dict[str, Any]]:
        options: dict[str, Any] = {"num_beams": self.num_beams}
        if self.max_new_tokens is not None:
            options["max_new_tokens"] = self.max_new_tokens
        said = {name: id_ for name, id_ in language_settings(self._reads).items() if id_ is not None}
        return self.generated, options | said

    def compare(self, right: Sequence[str], written: Sequence[str]) -> dict[str, float]:
        if not self.generated:
            return {}
        return {name: value for one in self.measures for name, value in MEASURES[one](right, written).items()}

    def _piece(self, processor: TextProcessor, text: str, most: int, name: str) -> Piece:
        advice = "leave the row out, or ask for long=truncate"
        (piece,) = processor.pieces((text, None), Fit(strategy=self.long, most=most, name=f"the {name}", advice=advice))
        return piece
