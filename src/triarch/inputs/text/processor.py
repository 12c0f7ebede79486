"""Text <-> tensors, whole or in windows, with offsets into the original string.

Shapes: B sequences, T tokens. `Text` is a string, or the list of its words when it comes already split; the offsets
of a token count characters of that string, or of its word.
"""

import copy
import hashlib
import itertools
import json
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Unpack

import torch
from tokenizers import Encoding, Tokenizer, normalizers, pre_tokenizers, processors
from torch import Tensor

from triarch import limits
from triarch.errors import CorruptFile, InvalidInput, LimitExceeded, NotFound, Unsupported, show
from triarch.files import Folder, replacing, write_text
from triarch.inputs.fit import Fit, check_windows, count_windows
from triarch.inputs.processor import Piece
from triarch.inputs.text import vocabulary
from triarch.inputs.text.chat import Format, Messages, Options, Spans, read_templates, remove_template_files, saved
from triarch.inputs.text.format import TextFormat
from triarch.inputs.text.given import pair_of
from triarch.inputs.text.spelling import Guard, respelled, special_tokens

Text = str | Sequence[str]
Item = tuple[Text, Text | None]  # a text and its pair
Sizes = tuple[int, int]  # tokens of the first text and of its pair

APART = "target_tokenizer"  # the folder of a tokenizer of what is written, where it is not that of what is read
SPACED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


def load_text(
    folder: Folder,
    text_format: TextFormat,
    *,
    vocab_size: int,
    max_tokens: int,
    target_vocab_size: int | None = None,
    max_target_tokens: int | None = None,
) -> "TextProcessor | None":
    """The text processor of a checkpoint folder; None if the folder has no tokenizer.

    `vocab_size` is the number of rows of the embedding, `max_tokens` the length that the model takes; those of a target
    may be others. Raises what `vocabulary.load` raises.
    """
    found = vocabulary.load(folder, text_format, vocab_size)
    if found is None:
        return None
    longest = found.config.get("model_max_length") or max_tokens  # 1e30 in many files: nobody knew
    if not isinstance(longest, int | float) or not longest > 0:
        raise CorruptFile(f"{folder}: model_max_length in tokenizer_config.json is {show(longest)!r}; wanted a number")
    templates = read_templates(folder, found.config)
    made = TextProcessor(found, vocab_size, int(min(max_tokens, longest)), text_format.segments, templates)
    rows = vocab_size if target_vocab_size is None else target_vocab_size
    most = max_tokens if max_target_tokens is None else max_target_tokens
    if text_format.apart:
        found_beside = load_text(
            folder.inside(APART), replace(text_format, apart=False), vocab_size=rows, max_tokens=most
        )
        if found_beside is None:
            raise NotFound(f"{folder} has no {APART}, the tokenizer of what is written; download it whole")
        made.write_with(found_beside)
    elif (other := vocabulary.load(folder, text_format, rows, target=True)) is not None:
        made.target = TextProcessor(other, rows, int(min(most, longest)), text_format.segments, templates)
    return made


def check_text(text: object) -> None:
    """Raise unless `text` is a string, or a list of strings, that can be encoded.

    InvalidInput: another type, or half of a surrogate pair, which no encoding of text can hold. LimitExceeded: too
    long.
    """
    words = [text] if isinstance(text, str) else text
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise InvalidInput(f"the text is a {type(text).__name__}; wanted a string, or a list of its words")
    if (characters := sum(map(len, words))) > limits.TEXT_CHARACTERS:
        raise LimitExceeded(
            f"the text has {characters:,} characters; at most {limits.TEXT_CHARACTERS:,} are taken at once: split it"
        )
    for word in words:
        try:
            word.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"the text has a lone surrogate, {word[error.start]!r}, at character {error.start}; decode its bytes "
                "with the encoding that they are in, or with errors='replace'"
            ) from None


def cleaned(text: str) -> str:
    """Without the spaces that `clean_up_tokenization_spaces` in tokenizer_config.json takes away after decoding."""
    for spaced in SPACED:  # in this order
        text = text.replace(spaced, spaced.strip())
    return text


class TextProcessor:
    """Encodes and decodes the text of one model. Threads may share it."""

    keeps_ids: ClassVar[bool] = True

    def __init__(
        self,
        found: vocabulary.Vocabulary,
        vocab_size: int,
        max_tokens: int,
        segments: bool,
        templates: dict[str, str],
    ):
        self.config = found.config  # tokenizer_config.json
        self.chat_format = Format(templates, found.specials)
        self.vocab_size = vocab_size
        self.max_tokens = max_tokens
        self.segments = segments
        self._found = found
        self._apart = False  # the target's tokenizer is in a folder of its own
        # Windows get their special tokens once they are cut, so the two steps are kept apart.
        self._framing = found.tokenizer.post_processor or processors.TemplateProcessing("$A", "$A $B:1", [])
        self._written = found.tokenizer
        self._written.post_processor = None
        self._plain = self._cutting(self._written)
        splitter = self._written.pre_tokenizer
        self._joins_words = isinstance(splitter, pre_tokenizers.ByteLevel) and not splitter.add_prefix_space

    def __deepcopy__(self, memo: dict[int, Any]) -> "TextProcessor":
        return self  # copies of a model share it, as threads do; what cuts text may be code, which has no copy

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The whole pipeline, special tokens included, as `tokenizer.json` holds it; of a translator's two vocabularies
        all but how text is cut, which no such file can say."""
        whole = Tokenizer.from_str(self._written.to_str())
        whole.post_processor = self._framing
        return whole

    @cached_property
    def target(self) -> "TextProcessor":
        """What reads and writes the texts that a model writes from others: this one, unless these are in another
        language with a vocabulary, or special tokens, of its own."""
        # Where texts say their language, its own one stands around it
        return self.between(self.config.get("tgt_lang")) if self.says_language else self

    @property
    def says_language(self) -> bool:
        """Whether a token beside each text says which language it is in, as mBART's does."""
        return vocabulary.SOURCE in self._found.template

    def write_with(self, target: "TextProcessor") -> None:
        """Read and write what a model writes with another tokenizer, which is saved in a folder of its own."""
        self.target, self._apart = target, True

    @cached_property
    def languages(self) -> dict[str, int]:
        """Those that `between` can choose, with the ids of their tokens."""
        ids = self._plain.get_vocab()
        return {name: ids[token] for name, token in self._found.languages.items()}

    def between(self, src_lang: str | None = None, tgt_lang: str | None = None) -> "TextProcessor":
        """The same processor for other languages: of the texts that it reads, and of what is written from them.

        Raises InvalidInput for a language that it does not have, and for one of a source that no source says.
        """
        found, says = self._found, self.says_language
        for name in (src_lang, tgt_lang):
            if name is not None:
                vocabulary.language(name, found.languages, found.source)
        if src_lang is not None and not says:
            raise InvalidInput(f"{found.source} reads its sources without a language; leave {show(src_lang)!r} out")
        if found.around is None:
            return self
        made = copy.copy(self)
        for cached in ("tokenizer", "_frames", *(("target",) if says else ())):
            made.__dict__.pop(cached, None)
        if says:
            chosen = {"src_lang": src_lang, "tgt_lang": tgt_lang}
            made.config = self.config | {key: name for key, name in chosen.items() if name is not None}
        made._framing = found.around(made.config.get("src_lang"), tgt_lang)
        return made

    @property
    def files(self) -> dict[str, bytes]:
        """What says how text is cut where `tokenizer` can not, that of targets too: files as they were read."""
        return self._found.files | self.target._found.files

    def token(self, role: str) -> str | None:
        """The token of a role such as "mask_token"; None if the vocabulary has none."""
        return self._found.specials.get(role)

    def id(self, role: str) -> int | None:
        """The id of the token of a role; None if the vocabulary has none."""
        token = self.token(role)
        return None if token is None else self._plain.token_to_id(token)

    def __call__(
        self,
        text: str | list[str],
        pair: str | list[str] | None = None,
        *,
        truncation: bool = False,
        max_length: int | None = None,
    ) -> dict[str, Tensor]:
        """One text or several, each with its pair if pairs are given -> the tensors (B, T) that the model takes.

        Raises LimitExceeded for a text over `max_length` tokens, at most and by default what the model takes, unless
        `truncation` asks for it to be cut.
        """
        texts = text if isinstance(text, list | tuple) else [text]
        pairs = pair if isinstance(pair, list | tuple) else [pair] if pair is not None else [None] * len(texts)
        if len(texts) != len(pairs):
            raise InvalidInput(f"{len(texts)} texts came with {len(pairs)} pairs; give one pair for each text")
        advice = "take it in windows(), or cut it with truncation=True"
        fit = Fit(strategy="truncate" if truncation else "error", most=self._most(max_length), advice=advice)
        return self._padded([self.pieces(both, fit)[0] for both in zip(texts, pairs, strict=True)])

    def facts(self) -> dict[str, Any]:
        return {
            "kind": type(self.tokenizer.model).__name__,
            "tokens": self.tokenizer.get_vocab_size(),
            "max_tokens": self.max_tokens,
            **{role: self.token(role) for role in vocabulary.ROLES if self.token(role) is not None},
        }

    def fingerprint(self) -> str:
        """Of a tokenizer: another one, or a changed one, has another."""
        digest = hashlib.sha256(self.tokenizer.to_str().encode())
        for _, data in sorted(self.files.items()):  # what the former can not say
            digest.update(data)
        return digest.hexdigest()

    def single(self, given: Any) -> bool:
        return isinstance(given, str)

    def read(self, given: Any) -> Item:
        """A text, {"text", "text_pair"}, or a list of words -> the text and its pair. Raises as `check_text` does."""
        text, pair = pair_of(given, None) if isinstance(given, str | dict) else (given, None)
        for one in (text,) if pair is None else (text, pair):
            check_text(one)
        return text, pair

    def pieces(self, item: Item, fit: Fit) -> list[Piece]:
        """Encodings of a text, or of a text and its pair.

        Windows run over one side (`fit.side`) and each holds the other side whole. Where that leaves them less than a
        quarter of the room, or no more than the stride, they run over both sides, in all combinations. Truncation
        keeps the beginning of one side, with side="auto" of the longer one, and of both from where they are equal; the
        rest is in `.overflowing`.

        Raises InvalidInput for a stride that no window can hold, LimitExceeded for too many windows, for a text that is
        refused, and where truncation leaves nothing of one side; and what `encode` raises.
        """
        (most, shared), (text, pair) = fit.sizes(self.max_tokens), item
        first, second = self._encode(text, pair)
        sizes = (len(first), len(second) if second else 0)
        specials, least = self._framing.num_special_tokens_to_add(pair is not None), 1 if pair is None else 2
        room, stride, keep = most - specials, 0, sizes
        if fit.strategy == "error":
            fit.refuse(sum(sizes) + specials, most)
        elif room < least:
            raise InvalidInput(f"{most} tokens leave no room for text; wanted at least {specials + least}")
        elif fit.strategy == "truncate":
            keep = _share(sizes, room) if fit.side == "auto" else _keep(sizes, room, fit.side)
            if any(kept < min(size, 1) for kept, size in zip(keep, sizes, strict=True)):
                raise LimitExceeded(
                    f"of {room} tokens the {fit.side} text gets none, the other takes them all; cut that one"
                )
        else:
            keep, stride = _keep(sizes, room, fit.side), shared
            if any(kept < size and (kept < room / 4 or kept <= stride) for kept, size in zip(keep, sizes, strict=True)):
                keep = _share(sizes, room)
            moving = [(size, kept) for kept, size in zip(keep, sizes, strict=True) if kept < size]
            shortest = min((kept for _, kept in moving), default=room)
            if not 0 <= stride < shortest:
                raise InvalidInput(
                    f"windows of {shortest} tokens cannot overlap by {stride}; wanted 0 to {shortest - 1}"
                )
            check_windows(math.prod(count_windows(size, kept, stride) for size, kept in moving))
        first.truncate(keep[0], stride=stride)
        if second is not None:
            second.truncate(keep[1], stride=stride)
        shown = self._frame(first, second)
        found = [shown, *shown.overflowing] if fit.strategy == "window" else [shown]
        dropped = sum(sizes) - sum(keep) if fit.strategy == "truncate" else 0
        return [Piece(one, len(one), None, sum(sizes), dropped) for one in found]

    def encode(
        self, text: Text, pair: Text | None = None, *, special_tokens: bool = True, parse_special: bool = True
    ) -> Encoding:
        """A text, or a text and its pair, whole.

        Without `parse_special`, text that spells a special token is encoded as the plain text it is. Raises what
        `check_text` raises, and Unsupported for words where the vocabulary would run them together.
        """
        return self._frame(*self._encode(text, pair, parse_special), special_tokens)

    def windows(
        self,
        text: Text,
        pair: Text | None = None,
        *,
        max_tokens: int | None = None,
        stride: int = 0,
        side: str = "auto",
    ) -> list[Encoding]:
        """Encodings of at most `max_tokens` that together lose nothing, as `pieces` makes them."""
        fit = Fit(most=self._most(max_tokens), stride=stride, side=side)
        return [piece.content for piece in self.pieces((text, pair), fit)]

    def cut(
        self, text: Text, pair: Text | None = None, *, max_tokens: int | None = None, side: str = "auto"
    ) -> tuple[Encoding, int]:
        """The beginning of a text that fits, as `pieces` makes it, and how many tokens were dropped."""
        (piece,) = self.pieces((text, pair), Fit(strategy="truncate", most=self._most(max_tokens), side=side))
        return piece.content, piece.dropped

    def frame(self, first: Sequence[int], second: Sequence[int] | None = None) -> tuple[list[int], list[int]]:
        """Ids of one text or two, without special tokens -> ids with them, and the segment of each, as `encode` has it.

        Nothing is cut: what is longer than the model stays so.
        """
        ids: list[int] = []
        types: list[int] = []
        for sequence, token, type_id in self._frames[second is not None]:
            part = [token] if sequence is None else (first, second or ())[sequence]
            ids += part
            types += [type_id] * len(part)
        return ids, types

    @cached_property
    def _frames(self) -> tuple[list[tuple[int | None, int, int]], list[tuple[int | None, int, int]]]:
        """What stands around one text and around two: (0 or 1 for a text, else None; the special token; segment)."""
        probes = itertools.chain(["a"], (self.decode([id_]) for id_ in self.ordinary_ids))
        probe = next(text for text in probes if len(self.encode(text, special_tokens=False)))
        size = len(self.encode(probe, special_tokens=False))
        frames = []
        for pair in (None, probe):
            whole = self.encode(probe, pair)
            inner = [i for i, special in enumerate(whole.special_tokens_mask) if not special]
            heads = {inner[0]: 0} | ({} if pair is None else {inner[size]: 1})  # where a text begins, and which one
            skipped = set(inner) - heads.keys()
            columns = enumerate(zip(whole.ids, whole.type_ids, strict=True))
            frames.append([(heads.get(i), *column) for i, column in columns if i not in skipped])
        return frames[0], frames[1]

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of the tokens that `decode` leaves out with `skip_special_tokens`."""
        return frozenset(id_ for id_, token in self._plain.get_added_tokens_decoder().items() if token.special)

    @cached_property
    def ordinary_ids(self) -> list[int]:
        """Ids of all tokens that are not special, ascending; what stands for an unknown word is special too."""
        special = self.special_ids | set(map(self.id, self._found.specials))
        return [id_ for id_ in sorted(set(self._plain.get_vocab().values()) - special) if id_ < self.vocab_size]

    def collate(self, pieces: Sequence[Piece]) -> dict[str, Tensor]:
        """int64 tensors (B, T), padded at the end; token_type_ids only where the model takes them."""
        batch = self._padded(pieces)
        if all(piece.cost == pieces[0].cost for piece in pieces):
            del batch["attention_mask"]  # which says nothing, and attention is faster without it
        return batch

    def _padded(self, pieces: Sequence[Piece]) -> dict[str, Tensor]:
        return self.pad([piece.content.ids for piece in pieces], [piece.content.type_ids for piece in pieces])

    def pad(self, ids: list[list[int]], type_ids: list[list[int]]) -> dict[str, Tensor]:
        """Ids and segments, a row for each text -> the same, with the mask."""
        if not ids:
            raise InvalidInput("there is no text; give at least one")
        width = max(map(len, ids))

        def padded(rows: list[list[int]], filler: int) -> Tensor:
            return torch.tensor([row + [filler] * (width - len(row)) for row in rows], dtype=torch.int64)

        tensors = {
            "input_ids": padded(ids, self.id("pad_token") or 0),
            "attention_mask": padded([[1] * len(row) for row in ids], 0),
        }
        if self.segments:
            tensors["token_type_ids"] = padded(type_ids, 0)
        return tensors

    def decode(self, ids: Iterable[int] | Tensor, skip_special_tokens: bool = False, *, clean_up: bool = True) -> str:
        """The text that ids stand for; without `clean_up` to the letter, whatever the checkpoint would mend of it.

        Raises InvalidInput for ids outside of the embedding.
        """
        checked = self._checked(ids)
        with vocabulary.guarded(self._found.source):
            text = self._plain.decode(checked, skip_special_tokens)
        return cleaned(text) if clean_up and self.config.get("clean_up_tokenization_spaces") is True else text

    def tokens(self, ids: Iterable[int] | Tensor) -> list[str]:
        """The token of each id, empty for a row of the embedding without one. Raises as `decode` does."""
        return [self._plain.id_to_token(id_) or "" for id_ in self._checked(ids)]

    def joined(self, tokens: Sequence[str]) -> str:
        """The text that tokens, as `Encoding.tokens` writes them, make together."""
        decoder = self._plain.decoder
        return " ".join(tokens) if decoder is None else decoder.decode(list(tokens))

    def chat(self, messages: Messages, **options: Unpack[Options]) -> str:
        """A conversation as the text that the checkpoint's chat template writes. Raises what `Format.write` raises."""
        return self.chat_format.write(messages, **options)

    def chat_ids(self, messages: Messages, *, parse_special: bool = False, **options: Unpack[Options]) -> list[int]:
        """The ids of `chat`; special tokens are the template's own, and no others are put around it.

        What a message, tool or document spells like a special token is encoded as the plain text it is, so that nobody
        ends their turn from inside of it. With `parse_special` it becomes the token, as in the reference.
        """
        guard = None if parse_special else Guard(special_tokens(self._plain))
        text = self.chat_format.write(messages, guard=guard, **options)
        if not text:
            raise InvalidInput("the chat template writes nothing for these messages; mend it, or choose another")
        if guard is None or not guard.found:
            return self.encode(text, special_tokens=False).ids
        check_text(text)
        with vocabulary.guarded(self._found.source):
            return self._marked.encode(guard.turn(text), add_special_tokens=False).ids

    def chat_spans(self, messages: Messages, tools: Sequence[Mapping[str, Any]] | None = None) -> tuple[str, Spans]:
        """The text of `chat`, and where in it, in characters, the assistant's answers lie; see `Format.spans`."""
        return self.chat_format.spans(messages, tools)

    def save(self, folder: Path) -> None:
        """Write the files that this library, and both major versions of the reference, read the same ids from.

        Those of a target are among them.
        """
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"model_max_length": self.max_tokens} | self.config | self._found.specials
        settings.pop("chat_template", None)
        if (templates := saved(self.chat_format.templates)) is not None:
            settings["chat_template"] = templates
        segments = ["token_type_ids"] if self.segments else []
        settings.setdefault("model_input_names", ["input_ids", *segments, "attention_mask"])
        if isinstance(settings.get("extra_special_tokens"), list):  # version 5; version 4 stops at a list here
            settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
        # The reference lets these go before tokenizer.json, with defaults of its own where they are absent.
        if isinstance(normalizer := self._plain.normalizer, normalizers.BertNormalizer):
            settings["do_lower_case"] = normalizer.lowercase
            settings["strip_accents"] = normalizer.strip_accents
            settings["tokenize_chinese_chars"] = normalizer.handle_chinese_chars
        splitter = self._written.pre_tokenizer
        if isinstance(splitter, pre_tokenizers.ByteLevel):
            settings["add_prefix_space"] = splitter.add_prefix_space
        # Version 5 builds the pipeline of a class anew and comes to the same one for these two kinds only; the generic
        # class takes tokenizer.json as it stands. Version 4 does not know the name that version 5 gives it.
        rebuilt_alike = isinstance(splitter, pre_tokenizers.BertPreTokenizer | pre_tokenizers.ByteLevel)
        says = vocabulary.SOURCE in self._found.template  # only their own classes can change the language there
        if not says and (not rebuilt_alike or settings.get("tokenizer_class") in (None, "TokenizersBackend")):
            settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        if files := self.files:
            settings["tokenizer_class"] = "MarianTokenizer"
            settings["added_tokens_decoder"] = self._added_tokens()
        for name, data in files.items():
            with replacing(folder / name) as temporary:
                temporary.write_bytes(data)
        for name, content in (("tokenizer_config", settings), ("special_tokens_map", self._found.specials)):
            write_text(folder / f"{name}.json", json.dumps(content, ensure_ascii=False, indent=2) + "\n")
        if not files:
            write_text(folder / "tokenizer.json", self.tokenizer.to_str(pretty=True) + "\n")
        remove_template_files(folder)
        if self._apart:
            self.target.save(folder / APART)

    def _added_tokens(self) -> dict[str, dict[str, Any]]:
        """As tokenizer_config.json lists them."""
        flags = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
        added = self._written.get_added_tokens_decoder()
        return {str(id_): {flag: getattr(token, flag) for flag in flags} for id_, token in sorted(added.items())}

    @cached_property
    def _literal(self) -> Tokenizer:
        """The pipeline that takes the text of special tokens for plain text."""
        literal = respelled(self._written, " ")  # no piece is ever looked up with a space in it
        literal.encode_special_tokens = True
        return self._cutting(literal)

    @cached_property
    def _marked(self) -> Tokenizer:
        """The pipeline that takes the text of special tokens for such only where a `Guard` has marked it."""
        return self._cutting(respelled(self._written, Guard.MARK))

    def _cutting(self, tokenizer: Tokenizer) -> Tokenizer:
        """The pipeline with what cuts text, where that is code."""
        if self._found.cut is None:
            return tokenizer
        made = Tokenizer.from_str(tokenizer.to_str())
        made.encode_special_tokens = tokenizer.encode_special_tokens
        made.pre_tokenizer = self._found.cut
        return made

    def _encode(self, text: Text, pair: Text | None, parse_special: bool = True) -> tuple[Encoding, Encoding | None]:
        """Both texts on their own, without special tokens around them."""
        for given in (text,) if pair is None else (text, pair):
            check_text(given)
            if not isinstance(given, str) and self._joins_words:
                raise Unsupported(
                    "this vocabulary marks words by the space before them, which a list of words does not have; "
                    "pass the text as one string, or set add_prefix_space in tokenizer_config.json"
                )
        with vocabulary.guarded(self._found.source):
            tokenizer = self._plain if parse_special else self._literal
            first = tokenizer.encode(text, is_pretokenized=not isinstance(text, str))
            if pair is None:
                return first, None
            words = not isinstance(pair, str)
            if not self.segments:
                return first, tokenizer.encode(pair, is_pretokenized=words)
            # Windows after the first keep the segment that their tokens were encoded in, so this has to be the second.
            return first, tokenizer.encode([] if words else "", pair, is_pretokenized=words)

    def _most(self, max_tokens: int | None) -> int:
        return self.max_tokens if max_tokens is None else min(max_tokens, self.max_tokens)

    def _frame(self, first: Encoding, second: Encoding | None, special_tokens: bool = True) -> Encoding:
        with vocabulary.guarded(self._found.source):
            return self._framing.process(first, second, special_tokens)

    def _checked(self, ids: Iterable[int] | Tensor) -> list[int]:
        try:
            numbers = [operator.index(id_) for id_ in ids]
        except TypeError:
            raise InvalidInput("ids are not a sequence of whole numbers; pass one text's ids at a time") from None
        if wrong := [id_ for id_ in numbers if not 0 <= id_ < self.vocab_size]:
            raise InvalidInput(f"there is no id {show(wrong[0])}; wanted 0 to {self.vocab_size - 1}")
        return numbers


def _keep(sizes: Sizes, room: int, side: str) -> Sizes:
    """How many tokens of each text stay where one of them gives way; below 1 if the other takes all the room."""
    moving = {"first": 0, "second": 1, "auto": 0 if sizes[0] > sizes[1] else 1}.get(side)
    if moving is None:
        raise InvalidInput(f"side is {show(side)!r}; wanted auto, first or second")
    if sum(sizes) <= room:
        return sizes
    return (room - sizes[1], sizes[1]) if moving == 0 else (sizes[0], room - sizes[0])


def _share(sizes: Sizes, room: int) -> Sizes:
    """How many tokens of each text stay where both may give way: the longer until they are equal, then in turns."""
    if sum(sizes) <= room:
        return sizes
    shorter = min(*sizes, room // 2)
    return (room - shorter, shorter) if sizes[0] > sizes[1] else (shorter, room - shorter)
