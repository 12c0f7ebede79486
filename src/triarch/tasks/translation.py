"""Say in another language what a text says.

    triarch run translation "Il pleut." -m Helsinki-NLP/opus-mt-fr-en
    triarch run translation letter.txt --input-format whole --alignment --json -m Helsinki-NLP/opus-mt-fr-en
    triarch run translation "It rains." --src-lang en --tgt-lang fr -m google-t5/t5-small
    triarch run translation "It rains." --src-lang en_XX --tgt-lang fr_XX -m facebook/mbart-large-50-many-to-many-mmt

A text of several lines, or longer than the model, is translated sentence by sentence, as translators are trained, and
its paragraphs stay. The task goes by the name of a pair too: translation_en_to_fr.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from triarch.errors import InvalidInput, show, some
from triarch.inputs.text import sentences
from triarch.inputs.text.targets import configured_start, language_settings
from triarch.suggest import did_you_mean
from triarch.tasks import PAIR, _writing
from triarch.tasks._writing import Document, Writing

if TYPE_CHECKING:
    from triarch.generation.rows import Generated
    from triarch.inputs.text.processor import TextProcessor


@dataclass(frozen=True, kw_only=True)
class Options(_writing.Options):
    src_lang: str | None = None  # the language of the text, by the checkpoint's own codes
    tgt_lang: str | None = None  # the language to write
    # What is translated by itself: every line, or sentence; auto: every sentence, but a single line whole if it fits
    split: Literal["auto", "lines", "sentences"] = "auto"


class Translation(Writing):
    """Text -> [{"translation_text"}], one for each sequence."""

    STARTERS = {"translation": "french-english"}
    OPTIONS = Options
    NAME = "translation"
    PARAMS = "translation"

    def params(self, asked: dict[str, Any]) -> str:
        """The reference's own name of a pair. Raises InvalidInput for a pair that the checkpoint does not speak of."""
        source, target = asked.get("src_lang"), asked.get("tgt_lang")
        chooses, name = self._chooses(source, target), _pair(source, target)
        if chooses:
            self._read_by(source, target)
        if not self.processor.says_language:
            self._check_own(source, None if chooses else target)
        if chooses:
            return name
        known, alike = self._taught(), self._alike(asked)
        if len(alike) == 1:
            return alike[0]
        if known and not alike and asked.get("prefix") is None:
            raise InvalidInput(
                f"no pair {show(name)!r}{did_you_mean(name, known)}; the checkpoint has {', '.join(known)}; choose one "
                "of them, or say what its prefix is"
            )
        return self.PARAMS

    def prefix(self, asked: dict[str, Any], said: dict[str, Any]) -> str | None:
        """None where the checkpoint has a prefix for each of several pairs that a call could mean."""
        return None if len(self._alike(asked)) > 1 else super().prefix(asked, said)

    def read(self, given: Any, options: Options) -> str:
        if options.prefix is None:
            raise InvalidInput(
                f"the checkpoint has {', '.join(self._taught())}; choose one by src_lang and tgt_lang, or give a prefix"
            )
        return super().read(given, options)

    def said(self, asked: dict[str, Any]) -> dict[str, Any]:
        """With the token of the language to write, where each text says its own. (The reference's pipeline makes both
        mBART and mBART-50 write it first, as its own documentation of mBART does not.)
        """
        said, reader = super().said(asked), self.processor
        source, target = asked.get("src_lang"), asked.get("tgt_lang")
        if not self._chooses(source, target) or not reader.says_language:
            return said
        if (target := target or reader.config.get("tgt_lang")) is None:
            return said
        return said | language_settings(self._read_by(source, target))

    def reader(self, options: Options) -> TextProcessor:
        """For the languages of a call. Raises InvalidInput where neither it nor the checkpoint says which they are."""
        own, source, target = self.processor, options.src_lang, options.tgt_lang
        if not self._chooses(source, target):
            return own
        if not own.says_language:
            return self._read_by(source, target)
        first = {options.forced_bos_token_id, options.decoder_start_token_id, self._start}
        needed = {
            "src_lang": source or own.config.get("src_lang"),
            "tgt_lang": target or own.config.get("tgt_lang") or first & {*own.languages.values()},
        }
        if missing := [name for name, value in needed.items() if not value]:
            raise InvalidInput(
                f"{self.model.architecture} translates between many languages; give {' and '.join(missing)}, of "
                f"{some(list(own.languages))}"
            )
        return self._read_by(source, target)

    def _read_by(self, source: str | None, target: str | None) -> TextProcessor:
        """For chosen languages. Raises InvalidInput for one that there is not."""
        made: TextProcessor = self._between(source if self.processor.says_language else None, target)
        return made  # Marian's sources say the language to write alone

    @cached_property
    def _between(self) -> Any:
        return lru_cache(maxsize=64)(self.processor.between)

    @property
    def _start(self) -> Any:
        return configured_start(self.model.config.to_hf())

    def _chooses(self, source: str | None, target: str | None) -> bool:
        """Whether languages are chosen by their tokens; not where the checkpoint has settings for the pair by its name,
        or for one pair alone."""
        known = self._taught()
        settled = len(known) == 1 and source is None and target is None
        return bool(self.processor.languages) and not settled and _pair(source, target) not in known

    def _check_own(self, source: str | None, target: str | None) -> None:
        """Marian's tokenizers say their pair; codes of two letters and of three cannot be compared, es is spa."""
        own = [self.processor.config.get(key) for key in ("source_lang", "target_lang")]
        for asked, said in zip((source, target), own, strict=True):
            if isinstance(asked, str) and isinstance(said, str) and len(asked) == len(said) and asked != said:
                raise InvalidInput(
                    f"no pair {show(_pair(source or own[0], target or own[1]))!r}; the checkpoint has "
                    f"{show(_pair(*own))}; leave src_lang and tgt_lang out, or choose another checkpoint"
                )

    def _alike(self, asked: dict[str, Any]) -> list[str]:
        """The pairs that the checkpoint has settings for and a call could mean."""
        source, target = asked.get("src_lang"), asked.get("tgt_lang")
        return [name for name, of in self._taught().items() if source in (None, of[0]) and target in (None, of[1])]

    def _taught(self) -> dict[str, tuple[str, str]]:
        """The pairs that the checkpoint has settings for, by their names; none where it says nothing."""
        params = self.model.config.extra.get("task_specific_params")
        names = params if isinstance(params, dict) else {}
        found = {name: PAIR.fullmatch(name) for name in names}
        return {name: (match["src_lang"], match["tgt_lang"]) for name, match in found.items() if match}

    def split(self, text: str, size: Any, room: int, options: Options) -> list[str]:
        parts = text.splitlines(keepends=True)
        whole = options.split == "lines" or (options.split == "auto" and len(parts) == 1 and size(text) <= room)
        if not whole:
            parts = [part for line in parts for part in _sentences(line)]
        return [piece for part in parts for piece in sentences.pieces(part, size, room)]

    def joined(self, document: Document, found: list[Generated], options: Options) -> str:
        """The translations with the white space of the text between them."""
        if len(found) == 1:
            return self.text(found[0], options)
        made, end = "", 0
        for piece, one in zip(document.pieces, found, strict=True):
            made += document.text[end : piece.start] + self.text(one, options).strip()
            end = piece.start + len(piece.text)
        return made + document.text[end:]


def _pair(source: str | None, target: str | None) -> str:
    return f"translation_{source}_to_{target}"


def _sentences(line: str) -> list[str]:
    ends = [0, *sentences.sentence_ends(line), len(line)]
    return [line[start:end] for start, end in pairwise(ends) if end > start]
