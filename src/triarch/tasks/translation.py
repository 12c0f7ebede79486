"""Say in another language what a text says.

    triarch run translation "Il pleut." -m Helsinki-NLP/opus-mt-fr-en
    triarch run translation letter.txt --input-format whole --alignment --json -m Helsinki-NLP/opus-mt-fr-en
    triarch run translation "It rains." --src-lang en --tgt-lang fr -m google-t5/t5-small

A text of several lines is translated line by line, so that its paragraphs stay; a line longer than the model sentence
by sentence. The task goes by the name of a pair too: translation_en_to_fr.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from triarch.errors import InvalidInput, show
from triarch.inputs import sentences
from triarch.suggest import did_you_mean
from triarch.tasks import _alignment, _writing
from triarch.tasks._writing import Document, Writing

if TYPE_CHECKING:
    from triarch.generation.rows import Generated


@dataclass(frozen=True, kw_only=True)
class Options(_writing.Options):
    src_lang: str | None = None  # the language of the text, by the checkpoint's own codes
    tgt_lang: str | None = None  # the language to write
    split: Literal["auto", "lines", "sentences"] = "auto"  # sentence by sentence: long lines alone, no line, or all
    alignment: bool = False  # answers say which words of the text each of their own words looks at most


class Translation(Writing):
    """Text -> [{"translation_text"}], one for each sequence."""

    OPTIONS = Options
    NAME = "translation"
    PARAMS = "translation"

    def params(self, asked: dict[str, Any]) -> str:
        """The reference's own name of a pair. Raises InvalidInput for a pair that the checkpoint does not speak of."""
        source, target = asked.get("src_lang"), asked.get("tgt_lang")
        if source is None and target is None:
            return self.PARAMS
        name = f"translation_{source}_to_{target}"
        pairs = self._pairs()
        if pairs and name not in pairs and asked.get("prefix") is None:
            raise InvalidInput(
                f"no pair {show(name)!r}{did_you_mean(name, pairs)}; the checkpoint has {', '.join(pairs)}; choose one "
                "of them, or say what its prefix is"
            )
        return name

    def _pairs(self) -> list[str]:
        """Those that the checkpoint says it was made for; none where it says nothing."""
        own = [self.processor.config.get(key) for key in ("source_lang", "target_lang")]  # of Marian's tokenizers
        if all(isinstance(one, str) and one for one in own):
            return [f"translation_{own[0]}_to_{own[1]}"]
        params = self.model.config.extra.get("task_specific_params")
        return [key for key in params if key.startswith("translation_")] if isinstance(params, dict) else []

    def split(self, text: str, size: Any, room: int, options: Options) -> list[str]:
        lines = text.splitlines(keepends=True)
        if options.split == "sentences":
            parts = [part for line in lines for part in _sentences(line)]
        elif options.split == "lines":
            parts = lines
        else:
            parts = [part for line in lines for part in ([line] if size(line) <= room else _sentences(line))]
        return [piece for part in parts for piece in sentences.pieces(part, size, room)]

    def joined(self, document: Document, found: list[Generated], options: Options) -> str:
        """The translations with the white space of the text between them."""
        if len(found) == 1:
            return self.text(found[0], options)
        pairs = zip(document.pieces, found, strict=True)
        return "".join(piece.before + self.text(one, options).strip() for piece, one in pairs) + document.after

    def _record(self, document: Document, found: list[Generated], options: Options) -> dict[str, Any]:
        record = super()._record(document, found, options)
        if options.alignment:
            record["alignment"] = _alignment.words(self, document, found, options)
        return record


def _sentences(line: str) -> list[str]:
    ends = [0, *sentences.sentence_ends(line), len(line)]
    return [line[start:end] for start, end in pairwise(ends) if end > start]
