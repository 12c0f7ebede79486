"""A translator's two vocabularies: a SentencePiece model for each language, and a table of ids that is apart from both.

`source.spm` and `target.spm` say how text is cut into pieces, `vocab.json` which id a piece has, whichever model it is
of; one that the table lacks is unknown. With `separate_vocabs` in tokenizer_config.json the ids of targets are those of
`target_vocab.json`. A text may begin with a code such as >>fra<<, which says what it is to be translated into.

The reference mends punctuation first where the sacremoses package is installed; this is what it does without it.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from tokenizers import NormalizedString, PreTokenizedString, Tokenizer, models, normalizers
from tokenizers.pre_tokenizers import PreTokenizer, Sequence

from triarch import limits
from triarch.errors import CorruptFile, Unsupported, show
from triarch.files import Folder, parse_json
from triarch.inputs.text import sentencepiece
from triarch.inputs.text.format import TextFormat
from triarch.inputs.text.spelling import respelled

SOURCE = ("source.spm", "vocab.json")
TARGET = ("target.spm", "vocab.json")
TARGET_APART = ("target.spm", "target_vocab.json")
CODE = re.compile(r">>(.+)<<")


class Side(NamedTuple):
    """What the files of one language come to."""

    tokenizer: Tokenizer  # all but how text is cut, which is code and cannot be written into a tokenizer.json
    cut: PreTokenizer
    codes: dict[str, str]  # languages that a text may ask for -> the tokens that do so
    files: dict[str, bytes]


def load(folder: Folder, text_format: TextFormat, names: tuple[str, str]) -> Side:
    """Read one of the two, by the names of its files.

    Raises what `sentencepiece.read` raises, NotFound for a file that is not there, CorruptFile for a table that is
    none, Unsupported for a model that spells unknown text in bytes.
    """
    spm, table = names
    files = {spm: folder.read(spm, limits.SENTENCEPIECE_BYTES), table: folder.read(table, limits.TOKENIZER_BYTES)}
    model = sentencepiece.read(files[spm], str(folder.path / spm), limits.VOCABULARY)
    if model.byte_fallback:
        raise Unsupported(f"{folder.path / spm} spells unknown text in bytes, which is not implemented beside a table")
    ids = parse_json(files[table], str(folder.path / table))
    unknown = text_format.specials["unk_token"]
    if not isinstance(ids, dict) or {type(id_) for id_ in ids.values()} != {int} or unknown not in ids:
        raise CorruptFile(f"{folder.path / table} is not a table of tokens and ids with {unknown}; download it again")
    if low := [token for token, id_ in ids.items() if not 0 <= id_ < limits.VOCABULARY]:
        raise CorruptFile(f"{folder.path / table}: {show(low[0])!r} has no id of a vocabulary; download it again")
    segmenter = sentencepiece.build(model, text_format)
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=unknown))
    if segmenter.normalizer is not None:
        # The package composes letters of any length, which is what NFC does; the step after it knows short ones alone
        composed = [normalizers.NFC()] if model.charsmap else []
        tokenizer.normalizer = normalizers.Sequence([*composed, segmenter.normalizer])
    tokenizer.decoder = segmenter.decoder
    codes = {hit[1]: token for token in ids if (hit := CODE.fullmatch(token))}
    words, pieces = segmenter.pre_tokenizer, PreTokenizer.custom(_Cut(segmenter, model, frozenset(codes.values())))
    return Side(tokenizer, pieces if words is None else Sequence([words, pieces]), codes, files)


class _Cut:
    """Cuts a text into the pieces of a SentencePiece model, and a code off its beginning."""

    def __init__(self, segmenter: Tokenizer, model: sentencepiece.Model, codes: frozenset[str]):
        self.codes = codes
        segmenter.add_special_tokens([model.pieces[model.unknown].text])
        self.segmenter = respelled(segmenter, " ")  # no text is taken for a control piece, however it is spelled
        self.segmenter.encode_special_tokens = True
        self.segmenter.normalizer = self.segmenter.pre_tokenizer = None

    def pre_tokenize(self, text: PreTokenizedString) -> None:
        text.split(self._split)

    def _split(self, _: int, word: NormalizedString) -> list[NormalizedString]:
        if not (code := self._code(word)):
            return self._pieces(word)
        begin = word.normalized.index(code)  # behind the space that is put before a text
        end = begin + len(code)
        if end == len(word.normalized):
            return [_part(word, begin, end)]
        rest = _part(word, end, len(word.normalized))
        if begin:
            rest.prepend(sentencepiece.SPACE)
        return [_part(word, begin, end), *self._pieces(rest)]

    def _code(self, word: NormalizedString) -> str:
        """The code that a text begins with; what comes later, or is no code of this table, is plain text."""
        code = word.original[: word.original.find("<<") + 2]  # other words begin with the space before them
        return code if code in self.codes and code in word.normalized else ""

    def _pieces(self, word: NormalizedString) -> list[NormalizedString]:
        return [_part(word, begin, end) for begin, end in self.segmenter.encode(word.normalized).offsets]


def _part(word: NormalizedString, begin: int, end: int) -> NormalizedString:
    part = word[begin:end]
    assert part is not None
    return part


def names_of(folder: Folder, config: dict[str, Any], *, target: bool) -> tuple[str, str] | None:
    """The files of one side; None for a folder that holds no pair."""
    if not folder.has(SOURCE[0]):
        return None
    if not target:
        return SOURCE
    return TARGET_APART if config.get("separate_vocabs") is True else TARGET
