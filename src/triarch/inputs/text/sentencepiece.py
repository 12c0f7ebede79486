"""SentencePiece `.model` files, without the sentencepiece and protobuf packages.

The file is one protobuf message (`ModelProto` of sentencepiece_model.proto). `read` takes from it what segmentation
needs; `build` makes the equivalent pipeline of the `tokenizers` library.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from triarch import limits
from triarch.errors import CorruptFile, InvalidInput, LimitExceeded, Unsupported, show
from triarch.inputs.text.format import TextFormat

SPACE = "▁"  # how pieces write a space
OWN_SPECIALS = 3  # <unk>, <s>, </s>: the pieces every trained model begins with unless told otherwise

# Values of SentencePiece.type and TrainerSpec.model_type
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
UNIGRAM, BPE = 1, 2

# Field numbers of ModelProto, SentencePiece, TrainerSpec, NormalizerSpec
PIECES, TRAINER, NORMALIZER = 1, 2, 3
TEXT, SCORE, KIND = 1, 2, 3
ALGORITHM, SPACE_AS_SUFFIX, BYTE_FALLBACK, UNKNOWN = 3, 24, 35, 40
CHARSMAP, DUMMY_PREFIX, REMOVE_SPACES = 2, 3, 4

# Wire types of the protobuf encoding
VARINT, EIGHT_BYTES, PREFIXED, FOUR_BYTES = 0, 1, 2, 5

Fields = dict[int, int | bytes]


class Piece(NamedTuple):
    text: str
    score: float
    kind: int


@dataclass(frozen=True)
class Model:
    """What a `.model` file says about segmentation; the defaults are those of the format."""

    pieces: list[Piece]
    algorithm: int = UNIGRAM
    unknown: int = 0  # index of the piece for what no other piece covers
    byte_fallback: bool = False  # such text is spelled in bytes, <0x00> to <0xFF>
    charsmap: bytes = field(default=b"", repr=False)  # compiled normalisation; empty: none
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True


def read(data: bytes, where: str, max_pieces: int) -> Model:
    """Read the bytes of a `.model` file; `where` names it in errors.

    Raises CorruptFile for bytes that are no such file, InvalidInput for more than `max_pieces` pieces, LimitExceeded
    for a piece that is too long, Unsupported for the word and character algorithms and for trailing-space pieces.
    """
    pieces: list[Piece] = []
    trainer: Fields = {}
    normalizer: Fields = {}
    for number, value in _fields(data, where):
        if number not in (PIECES, TRAINER, NORMALIZER):
            continue  # self tests, denormaliser, extensions
        if not isinstance(value, bytes):
            raise _corrupt(where, f"field {number} is not a message")
        if number == PIECES:
            pieces.append(_piece(value, len(pieces), where))
            if len(pieces) > max_pieces:
                raise InvalidInput(
                    f"{where} has more pieces than the embedding has rows ({max_pieces}); "
                    "use the tokenizer that these weights were trained with"
                )
        elif number == TRAINER:
            trainer = dict(_fields(value, where))
        else:
            normalizer = dict(_fields(value, where))

    algorithm = _integer(trainer, ALGORITHM, UNIGRAM, where)
    if algorithm not in (UNIGRAM, BPE) or _integer(trainer, SPACE_AS_SUFFIX, 0, where):
        raise Unsupported(
            f"{where} splits text into words or characters, or marks spaces at the end of words; "
            "wanted a unigram or BPE model that marks them at the beginning"
        )
    model = Model(
        pieces=pieces,
        algorithm=algorithm,
        unknown=_integer(trainer, UNKNOWN, 0, where),
        byte_fallback=bool(_integer(trainer, BYTE_FALLBACK, 0, where)),
        charsmap=_charsmap(normalizer.get(CHARSMAP, b""), where),
        add_dummy_prefix=bool(_integer(normalizer, DUMMY_PREFIX, 1, where)),
        remove_extra_whitespaces=bool(_integer(normalizer, REMOVE_SPACES, 1, where)),
    )
    if not 0 <= model.unknown < len(pieces):
        raise _corrupt(where, f"its unknown piece is number {model.unknown} of {len(pieces)}")
    if len({piece.text for piece in pieces}) < len(pieces):
        raise _corrupt(where, "a piece comes twice")
    return model


def build(model: Model, text_format: TextFormat, *, after_specials: bool = True) -> Tokenizer:
    """The pipeline that segments as `model` does, up to where special tokens are added around the text.

    Where a model takes spaces as they stand, `after_specials` says whether one is put before text that follows a
    special token, as before the whole text. With `text_format.first_pieces` the ids follow fairseq: those pieces stand
    in place of the model's own first three, and tokens of languages and the mask token come last.
    """
    vocabulary = [(piece.text, piece.score) for piece in model.pieces]
    unknown = model.unknown
    if first := text_format.first_pieces:
        last = (*text_format.languages, text_format.specials["mask_token"])
        vocabulary = [*((text, 0.0) for text in first), *vocabulary[OWN_SPECIALS:], *((text, 0.0) for text in last)]
        unknown = first.index(text_format.specials["unk_token"])

    if model.algorithm == UNIGRAM:
        tokenizer = Tokenizer(models.Unigram(vocabulary, unknown, model.byte_fallback))
    else:
        ids = {text: i for i, (text, _) in enumerate(vocabulary)}
        merges = _merges(model.pieces, ids)
        unk_token = vocabulary[unknown][0]
        bpe = models.BPE(ids, merges, unk_token=unk_token, fuse_unk=True, byte_fallback=model.byte_fallback)
        tokenizer = Tokenizer(bpe)
    tokenizer.add_tokens(
        [
            AddedToken(piece.text, normalized=False, special=piece.kind == CONTROL)
            for piece in model.pieces
            if piece.kind in (CONTROL, USER_DEFINED)
        ]
    )

    steps: list[normalizers.Normalizer] = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    decoding: list[decoders.Decoder]
    if model.remove_extra_whitespaces:
        prefix = "always" if model.add_dummy_prefix else "never"
        # Spaces at the beginning become the prefix, if there is one.
        strip = normalizers.Strip(left=not model.add_dummy_prefix, right=True)
        steps += [strip, normalizers.Replace(Regex(" {2,}"), SPACE)]
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prefix)
        decoding = [decoders.ByteFallback()] if model.byte_fallback else []
        decoding.append(decoders.Metaspace(SPACE, prefix))
    else:
        # Such models (Llama) have pieces for runs of spaces, so the text must not be split at spaces first.
        if after_specials:
            steps += [normalizers.Prepend(SPACE)] if model.add_dummy_prefix else []
            steps.append(normalizers.Replace(" ", SPACE))
        else:
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
                SPACE, "first" if model.add_dummy_prefix else "never", split=False
            )
        decoding = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        decoding += [decoders.Strip(" ", left=1)] if model.add_dummy_prefix else []
    if steps:
        tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.decoder = decoders.Sequence(decoding)
    return tokenizer


def _merges(pieces: list[Piece], ids: dict[str, int]) -> list[tuple[str, str]]:
    """The merges that lead to the pieces, best first: by score, then longest parts first.

    SentencePiece merges any two neighbours that form a piece; the `tokenizers` library wants the pairs spelled out.
    """
    ranked = []
    for text, score, kind in pieces:
        if kind in (NORMAL, USER_DEFINED) and text in ids:
            halves = ((text[:cut], text[cut:]) for cut in range(1, len(text)))
            pairs = [(left, right) for left, right in halves if left in ids and right in ids]
            pairs.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
            ranked += [(score, len(left), len(right), left, right) for left, right in pairs]
        if len(ranked) > limits.MERGES:
            raise LimitExceeded(f"a SentencePiece model comes to over {limits.MERGES:,} merges; no real one does")
    ranked.sort(key=lambda merge: merge[:3], reverse=True)
    return [merge[3:] for merge in ranked]


def _piece(data: bytes, index: int, where: str) -> Piece:
    fields = dict(_fields(data, where))
    text, score = fields.get(TEXT), fields.get(SCORE, bytes(4))
    if not isinstance(text, bytes) or not isinstance(score, bytes) or len(score) != 4:
        raise _corrupt(where, f"piece {index} has no text, or a score that is not a float")
    try:
        piece = Piece(text.decode("utf-8"), struct.unpack("<f", score)[0], _integer(fields, KIND, NORMAL, where))
    except UnicodeDecodeError:
        raise _corrupt(where, f"piece {index} is not UTF-8") from None
    if not piece.text or not abs(piece.score) < float("inf"):
        raise _corrupt(where, f"piece {index} is empty, or its score is not a finite number")
    if len(piece.text) > limits.PIECE_CHARACTERS:
        raise LimitExceeded(f"{where}: piece {index} has over {limits.PIECE_CHARACTERS} characters; no real one has")
    return piece


def _charsmap(value: int | bytes, where: str) -> bytes:
    """The compiled normalisation: the length of an automaton, the automaton, NUL-terminated replacements."""
    if not isinstance(value, bytes) or 0 < len(value) < 4:
        raise _corrupt(where, "its normalisation is not a table")
    replacements = value[4 + int.from_bytes(value[:4], "little") :]
    if re.search(rb"[^\0]{%d}" % (limits.NORMALIZED_BYTES + 1), replacements):
        raise LimitExceeded(
            f"{where}: its normalisation makes over {limits.NORMALIZED_BYTES} bytes of one character; no real one does"
        )
    return value


def _integer(fields: Fields, number: int, default: int, where: str) -> int:
    value = fields.get(number, default)
    if not isinstance(value, int):
        raise _corrupt(where, f"field {number} is not a number")
    return value - (1 << 64) if value >> 63 else value  # negative numbers are written as 64-bit two's complement


def _fields(data: bytes, where: str) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of one message; of a field that comes twice the last counts."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position, where)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise _corrupt(where, f"field number 0 at byte {position}")
        if wire == VARINT:
            value, position = _varint(data, position, where)
            yield number, value
            continue
        if wire == PREFIXED:
            length, position = _varint(data, position, where)
        elif wire in (EIGHT_BYTES, FOUR_BYTES):
            length = 8 if wire == EIGHT_BYTES else 4
        else:
            raise _corrupt(where, f"wire type {wire} at byte {position}")
        if length > len(data) - position:
            raise _corrupt(where, f"a field of {length} bytes where {len(data) - position} are left")
        yield number, data[position : position + length]
        position += length


def _varint(data: bytes, position: int, where: str) -> tuple[int, int]:
    """Seven bits a byte, lowest first; the top bit says that more follow."""
    value = 0
    for shift in range(0, 70, 7):
        if position == len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & ((1 << 64) - 1), position
    raise _corrupt(where, f"the number that ends at byte {position} is cut off or too long")


def _corrupt(where: str, found: str) -> CorruptFile:
    return CorruptFile(f"{where} is not a SentencePiece model ({show(found)}); download it again")
