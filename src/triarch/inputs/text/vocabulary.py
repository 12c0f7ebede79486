"""A folder's tokenizer files -> one `tokenizers` pipeline and the names of its special tokens.

`tokenizer.json` says nearly everything itself. A bare vocabulary (`vocab.txt`, `vocab.json` with `merges.txt`, a
SentencePiece model, or two of them with `vocab.json`) is completed from the family's `TextFormat` and the small JSON
files beside it. Where the major versions of the reference library disagree about a bare vocabulary, ids are those of
4.57.
"""

import io
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.pre_tokenizers import PreTokenizer
from tokenizers.processors import PostProcessor

from triarch import limits
from triarch.errors import CorruptFile, InvalidInput, LimitExceeded, NotFound, TriarchError, show, some
from triarch.files import Folder
from triarch.inputs.text import paired, sentencepiece
from triarch.inputs.text.format import TextFormat
from triarch.suggest import did_you_mean

# In the order in which the reference library adds those that a vocabulary lacks
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# Classes of the reference that build the pipeline's ends from tokenizer_config.json; named there, or else the family's
BY_SETTINGS = ("LlamaTokenizer", "LlamaTokenizerFast")
SENTENCEPIECE_FILES = ("sentencepiece.bpe.model", "spiece.model", "tokenizer.model")
SOURCE, TARGET = "{src_lang}", "{tgt_lang}"  # in a TextFormat: the tokens of these languages; nothing for none

Around = Callable[[str | None, str | None], PostProcessor]


@dataclass(frozen=True)
class Vocabulary:
    """What a folder's tokenizer files come to."""

    tokenizer: Tokenizer  # puts special tokens around text; neither cuts nor pads
    config: dict[str, Any]  # tokenizer_config.json; empty if there is none
    specials: dict[str, str]  # role -> token, for the roles that this vocabulary has a token for
    source: str  # the folder, for messages
    cut: PreTokenizer | None = None  # how text is cut, where `tokenizer` can not say it
    files: dict[str, bytes] = field(default_factory=dict)  # that say it in place of tokenizer.json, by their names
    languages: dict[str, str] = field(default_factory=dict)  # that can be chosen, and their tokens
    template: str = ""  # what goes around one text, where tokenizer.json does not say it; see TextFormat
    around: Around | None = None  # the languages of a text and of its translation -> what puts it there


def load(folder: Folder, text_format: TextFormat, rows: int, *, target: bool = False) -> Vocabulary | None:
    """Read a folder's tokenizer; None if it holds no file of one. Ids must be below `rows`, those of the embedding.

    `target`: that of what is written, where the folder has another one for it; None if it has not.

    Raises NotFound when there are settings but no vocabulary, CorruptFile for a file that breaks its format,
    LimitExceeded for one of absurd size, InvalidInput for ids that the embedding has no row for.
    """
    config = _settings(folder, "tokenizer_config.json")
    if text_format.classes:
        text_format = text_format.classes.get(_class_of(folder, config), text_format)
    pair = paired.names_of(folder, config, target=target)
    if target and pair is None:
        return None
    stated = config if "added_tokens_decoder" in config else config | _settings(folder, "special_tokens_map.json")
    named = text_format.specials | {role: stated[role] for role in ROLES if role in stated}
    names = {role: _content(named[role], role, folder) for role in ROLES if named.get(role) is not None}
    where = str(folder)
    with guarded(where):
        extra = _extra(stated, folder)
        by_settings = _by_settings(config, text_format)
        side = None if pair is None else paired.load(folder, text_format, pair)
        whole = folder.has("tokenizer.json") and not (by_settings and _rebuilt(folder, config)) and side is None
        tokenizer: Tokenizer | None
        if side is not None:
            tokenizer = side.tokenizer
        else:
            tokenizer = _whole(folder, config) if whole else _bare(folder, config, names, text_format, rows)
        if tokenizer is None and stated:
            raise NotFound(
                f"{folder} has settings of a tokenizer but no vocabulary: tokenizer.json, vocab.txt, vocab.json with "
                f"merges.txt, or {' or '.join(SENTENCEPIECE_FILES)}, or source.spm with target.spm; download one"
            )
        if tokenizer is None:
            return None
        mask = _own_mask(names, text_format)
        _check_ids(base := tokenizer.get_vocab(), rows, where, rowless=mask)
        if not whole:
            _add_listed(tokenizer, config, {*names.values(), *(token.content for token in extra)}, folder, pair)
        languages = {code: code for code in text_format.languages if code in base} if side is None else side.codes
        extra += [AddedToken(code, special=True) for code in text_format.languages if code in base]
        specials = _add_specials(tokenizer, stated, names, extra, folder)
        if tokenizer.get_vocab_size() > len(base):
            _check_ids(tokenizer.get_vocab(), rows, where, rowless=mask)
        if mask is not None and (tokenizer.token_to_id(mask) or 0) >= rows:
            tokenizer = _without(specials.pop("mask_token"), tokenizer)
        around: Around = partial(_framing, tokenizer, text_format, names, languages, folder)
        if by_settings:
            tokenizer.post_processor = _put_around(tokenizer, *_template(config, names, folder), folder)
        elif not whole or text_format.languages:
            tokenizer.post_processor = around(config.get("src_lang"), None)
        for id_ in (*tokenizer.encode("").ids, *tokenizer.encode("", "").ids):
            _check_ids({"put around every text": id_}, rows, where)
    cut, files = (None, {}) if side is None else (side.cut, side.files)
    return Vocabulary(tokenizer, config, specials, where, cut, files, languages, text_format.single, around)


@contextmanager
def guarded(where: str) -> Iterator[None]:
    """Turn whatever the Rust library raises into CorruptFile; its panics do not derive from Exception."""
    try:
        yield
    except (TriarchError, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CorruptFile(f"{where}: its tokenizer cannot be used ({show(error)}); download it again") from None


def _whole(folder: Folder, config: dict[str, Any]) -> Tokenizer:
    tokenizer = Tokenizer.from_buffer(folder.read("tokenizer.json", limits.TOKENIZER_BYTES))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for part in (tokenizer.normalizer, tokenizer.decoder):
        if part is not None and (growth := _growth(json.loads(part.__getstate__()))) > limits.TEXT_GROWTH:
            raise LimitExceeded(f"{folder.path / 'tokenizer.json'} makes text {growth:,} times as long; do not use it")
    _override(tokenizer, config, folder)
    return tokenizer


def _own_mask(names: dict[str, str], text_format: TextFormat) -> str | None:
    """The family's usual mask. BART's checkpoints for summaries have it in their vocabulary, and no row for it."""
    mask = names.get("mask_token")
    return mask if mask == text_format.specials.get("mask_token") else None


def _without(token: str, tokenizer: Tokenizer) -> Tokenizer:
    """In text it is now what its characters are."""
    made = json.loads(tokenizer.to_str())
    made["added_tokens"] = [added for added in made["added_tokens"] if added["content"] != token]
    words = made["model"]["vocab"]
    made["model"]["vocab"] = (
        {word: id_ for word, id_ in words.items() if word != token}
        if isinstance(words, dict)
        else [scored for scored in words if scored[0] != token]
    )
    return Tokenizer.from_str(json.dumps(made))


def _growth(step: dict[str, Any]) -> int:
    """How many times longer the replacements of a step make text. Out of memory, the Rust library ends the process."""
    steps = step.get("normalizers") or step.get("decoders") or []
    return max(1, len(step.get("content", "")), len(step.get("prepend", ""))) * math.prod(map(_growth, steps))


def _bare(
    folder: Folder, config: dict[str, Any], names: dict[str, str], text_format: TextFormat, rows: int
) -> Tokenizer | None:
    """The pipeline of a bare vocabulary, without any special token; None if the folder has none."""
    if folder.has("vocab.txt"):
        return _wordpiece(folder, config, text_format.lowercase, names, rows)
    if folder.has("vocab.json") and folder.has("merges.txt"):
        return _byte_level(folder, config, names, text_format, rows)
    for name in SENTENCEPIECE_FILES:
        if folder.has(name):
            model = sentencepiece.read(folder.read(name, limits.SENTENCEPIECE_BYTES), str(folder.path / name), rows)
            if not _by_settings(config, text_format):
                return _with_sentinels(sentencepiece.build(model, text_format), config, text_format, rows, folder)
            prefix = _flag(config, "add_prefix_space", True, folder)
            model = replace(model, charsmap=b"", remove_extra_whitespaces=False, add_dummy_prefix=prefix)
            return sentencepiece.build(model, text_format, after_specials=_flag(config, "legacy", True, folder))
    return None


def _with_sentinels(
    tokenizer: Tokenizer, config: dict[str, Any], text_format: TextFormat, rows: int, folder: Folder
) -> Tokenizer:
    """T5 counts its sentinels down, so that the first one is the last row."""
    count = config.get("extra_ids", text_format.sentinels)
    if type(count) is not int or not 0 <= count <= rows:
        raise CorruptFile(f"{folder}/tokenizer_config.json: extra_ids is {show(repr(count))}, wanted a count; mend it")
    tokenizer.add_special_tokens(sentinels(count))
    return tokenizer


def sentinels(count: int) -> list[AddedToken]:
    """The tokens that stand for what was taken out of a text, the last one first."""
    return [AddedToken(f"<extra_id_{i}>") for i in reversed(range(count))]


def _by_settings(config: dict[str, Any], text_format: TextFormat) -> bool:
    name = config.get("tokenizer_class")
    return text_format.by_settings if name is None else name in BY_SETTINGS


def _rebuilt(folder: Folder, config: dict[str, Any]) -> bool:
    """Whether 4.57 passes tokenizer.json over: what says whether a space is put before text may differ from it."""
    return config.get("add_prefix_space") is not None and folder.has("tokenizer.model")


def _wordpiece(folder: Folder, config: dict[str, Any], lowercase: bool, names: dict[str, str], rows: int) -> Tokenizer:
    # Not str.splitlines(): it would also end a line at U+2028 and its like, which are tokens of real vocabularies.
    lines = io.TextIOWrapper(io.BytesIO(folder.read("vocab.txt", limits.TOKENIZER_BYTES)), encoding="utf-8")
    vocabulary = {line.rstrip("\n"): id_ for id_, line in zip(range(rows + 1), lines, strict=False)}
    unknown = names.get("unk_token", "")
    if unknown not in vocabulary:
        raise CorruptFile(f"{folder.path / 'vocab.txt'} lacks the unknown token {show(unknown)!r}; download it again")
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    config.setdefault("clean_up_tokenization_spaces", True)
    _override(tokenizer, config, folder)
    return tokenizer


def _byte_level(
    folder: Folder, config: dict[str, Any], names: dict[str, str], text_format: TextFormat, rows: int
) -> Tokenizer:
    where = str(folder.path / "merges.txt")
    vocabulary = folder.json("vocab.json", limits.TOKENIZER_BYTES)
    # The model below would take a string for a path
    _check_ids(vocabulary, rows, str(folder.path / "vocab.json"), rowless=_own_mask(names, text_format))
    data = folder.read("merges.txt", limits.TOKENIZER_BYTES)
    if data.count(b"\n") > limits.MERGES:
        raise LimitExceeded(f"{where} has over {limits.MERGES:,} lines; no such file has")
    lines = [line for line in data.decode("utf-8").split("\n") if line and not line.startswith("#version")]
    if any(line.count(" ") != 1 for line in lines):
        raise CorruptFile(f"{where} has a line that does not name two tokens; download it again")
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines)]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix=""))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if text_format.split:
        cut = pre_tokenizers.Split(Regex(text_format.split), "isolated")
        prefix = _flag(config, "add_prefix_space", False, folder)
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False)
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    _override(tokenizer, config, folder)
    return tokenizer


def _override(tokenizer: Tokenizer, config: dict[str, Any], folder: Folder) -> None:
    """What tokenizer_config.json says goes before what the pipeline was built with."""
    normalizer = tokenizer.normalizer
    if isinstance(normalizer, normalizers.BertNormalizer):
        normalizer.lowercase = _flag(config, "do_lower_case", normalizer.lowercase, folder)
        normalizer.handle_chinese_chars = _flag(
            config, "tokenize_chinese_chars", normalizer.handle_chinese_chars, folder
        )
        normalizer.strip_accents = config.get("strip_accents", normalizer.strip_accents)
    splitter, framing = tokenizer.pre_tokenizer, tokenizer.post_processor
    if isinstance(splitter, pre_tokenizers.ByteLevel):
        splitter.add_prefix_space = _flag(config, "add_prefix_space", splitter.add_prefix_space, folder)
        if isinstance(framing, processors.RobertaProcessing):
            framing.add_prefix_space = splitter.add_prefix_space  # offsets leave out a space that was not in the text


def _add_listed(
    tokenizer: Tokenizer,
    config: dict[str, Any],
    special: set[str],
    folder: Folder,
    pair: tuple[str, str] | None,
) -> None:
    """Add the tokens that tokenizer_config.json, or else added_tokens.json, lists with their ids.

    Those of a translator's vocabularies are found in text as it stands, before it is normalised; ids that are listed
    are those of its sources.
    """
    if "added_tokens_decoder" in config:
        found = config["added_tokens_decoder"].items()
        if pair is not None:
            found = [(id_, value | {"normalized": False}) for id_, value in found]
        listed = {int(id_): _added_token(value, folder) for id_, value in found}
    else:
        listed = {
            id_: AddedToken(content, normalized=pair is None and content not in special, special=content in special)
            for content, id_ in _settings(folder, "added_tokens.json").items()
        }
    if pair == paired.TARGET_APART:
        listed = {id_: token for id_, token in listed.items() if tokenizer.token_to_id(token.content) is None}
    tokenizer.add_tokens([listed[id_] for id_ in sorted(listed)])  # all at once: each call indexes all tokens anew
    for id_, token in listed.items():
        if (given := tokenizer.token_to_id(token.content)) != id_:
            raise InvalidInput(
                f"{folder}: the added token {show(token.content)} is listed as id {show(id_)}, but comes to {given}; "
                "list added tokens without gaps after the vocabulary"
            )


def _add_specials(
    tokenizer: Tokenizer, stated: dict[str, Any], names: dict[str, str], extra: list[AddedToken], folder: Folder
) -> dict[str, str]:
    """Make the tokens that have a role, and `extra` ones, special; returns those with a role.

    A token that the folder states is added if the vocabulary lacks it; a role of which only the family's usual token
    is known stays empty.
    """
    specials = {role: name for role, name in names.items() if role in stated or tokenizer.token_to_id(name) is not None}
    tokens = {role: _added_token(stated.get(role, name), folder) for role, name in specials.items()}
    bare_mask = "mask_token" in specials and not isinstance(stated.get("mask_token"), dict)
    if bare_mask and not isinstance(tokenizer.model, models.WordPiece):
        tokens["mask_token"] = AddedToken(specials["mask_token"], lstrip=True)  # it stands for a word and its space
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    tokenizer.add_special_tokens([token for token in (*tokens.values(), *extra) if token.content not in known])
    return specials


def _class_of(folder: Folder, config: dict[str, Any]) -> str:
    """The reference's name for the kind of tokenizer; checkpoints of several kinds share a model_type."""
    named = config if "tokenizer_class" in config else _settings(folder, "config.json")
    return str(named.get("tokenizer_class")).removesuffix("Fast")


def language(name: Any, languages: dict[str, str], where: str) -> str:
    """The token of a language. Raises InvalidInput, with names that begin alike, for one that there is not."""
    if isinstance(name, str) and (name in languages or name in languages.values()):
        return languages.get(name, name)
    if not languages:
        raise InvalidInput(f"{where} has no languages to choose from; leave {show(name)!r} out")
    alike = [known for known in languages if known[:2] == str(name)[:2]]
    hint = f" (did you mean {some(alike)}?)" if alike else did_you_mean(str(name), languages)
    raise InvalidInput(f"{where} has no language {show(name)!r}{hint}; it has {some(list(languages))}")


def _framing(
    tokenizer: Tokenizer,
    text_format: TextFormat,
    names: dict[str, str],
    languages: dict[str, str],
    folder: Folder,
    src_lang: str | None,
    tgt_lang: str | None,
) -> PostProcessor:
    """What puts special tokens around a text, under the names that the folder gives them, and those of languages."""
    renamed = {
        text_format.specials[role]: names[role]
        for role in ("eos_token", "bos_token", "sep_token", "cls_token")  # the last of those that share a token wins
        if role in text_format.specials and role in names
    }
    chosen = {SOURCE: src_lang or text_format.language, TARGET: tgt_lang}

    def rename(template: str) -> list[str]:
        for place, name in chosen.items():
            if place in template:
                template = template.replace(place, language(name, languages, str(folder)) if name else "")
        parts = [part.partition(":") for part in template.split()]
        return [renamed.get(name, name) + colon + type_id for name, colon, type_id in parts]

    made = _put_around(tokenizer, rename(text_format.single), rename(text_format.pair), folder)
    if isinstance(splitter := tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel):
        trim = processors.ByteLevel(add_prefix_space=splitter.add_prefix_space, trim_offsets=text_format.trimmed)
        return processors.Sequence([trim, made])
    return made


def _template(config: dict[str, Any], names: dict[str, str], folder: Folder) -> tuple[list[str], list[str]]:
    """What stands around one text and around two, where tokenizer_config.json says it."""

    def framed(text: str, type_id: int) -> list[str]:
        return [f"{name}:{type_id}" for name in (*before, text, *after)]

    asked = {"bos_token": _flag(config, "add_bos_token", True, folder)}
    asked["eos_token"] = _flag(config, "add_eos_token", False, folder)
    if unnamed := [role for role, wanted in asked.items() if wanted and role not in names]:
        raise InvalidInput(
            f"{folder}: add_{unnamed[0]} asks for a {unnamed[0]}, and no file names one; name it, or set false"
        )
    before, after = ([names[role]] if wanted else [] for role, wanted in asked.items())
    return framed("$A", 0), framed("$A", 0) + framed("$B", 1)


def _put_around(tokenizer: Tokenizer, single: list[str], pair: list[str], folder: Folder) -> PostProcessor:
    used = dict.fromkeys(part.partition(":")[0] for part in single + pair if not part.startswith("$"))
    if missing := [name for name in used if tokenizer.token_to_id(name) is None]:
        raise CorruptFile(f"{folder}: its vocabulary lacks the special token {show(missing[0])!r}; download it again")
    return processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(name, tokenizer.token_to_id(name)) for name in used]
    )


def _check_ids(ids: Any, rows: int, where: str, *, rowless: str | None = None) -> None:
    """Raise CorruptFile unless `ids` maps tokens to numbers, InvalidInput unless each has a row of its own.

    `rowless`: a token that may be without one where it comes last.
    """
    if not isinstance(ids, dict) or set(map(type, ids.values())) != {int}:
        raise CorruptFile(f"{where} does not give every token a number; download it again")
    least, most = min(ids.values()), max(ids.values())
    most = rows - 1 if most == rows == ids.get(rowless) else most
    for id_ in (least, most):
        if not 0 <= id_ < rows:
            token = next(token for token, found in ids.items() if found == id_)
            raise InvalidInput(
                f"{where}: the token {show(token)!r} has the id {id_}, but the embedding has {rows} rows, 0 to "
                f"{rows - 1}; use the tokenizer that these weights were trained with, or resize the embedding"
            )
    owners: dict[int, str] = {}
    if len(set(ids.values())) < len(ids):
        first, second = next((owners[i], t) for t, i in ids.items() if owners.setdefault(i, t) != t)
        raise InvalidInput(f"{where}: {show(first)!r} and {show(second)!r} have the same id; give each its own")


def _settings(folder: Folder, name: str) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no such file."""
    settings = folder.json(name) if folder.has(name) else {}
    if not isinstance(settings, dict):
        raise CorruptFile(f"{folder.path / name} is not a JSON object; download it again")
    return settings


def _extra(stated: dict[str, Any], folder: Folder) -> list[AddedToken]:
    """Special tokens without a role; version 5 of the reference writes them under a name of its own."""
    listed = stated.get("additional_special_tokens") or stated.get("extra_special_tokens") or []
    if not isinstance(listed, list | dict):
        raise CorruptFile(f"{folder}: its additional special tokens are {show(listed)!r}; wanted a list")
    return [_added_token(value, folder) for value in (listed.values() if isinstance(listed, dict) else listed)]


def _flag(config: dict[str, Any], key: str, default: bool, folder: Folder) -> bool:
    value = default if config.get(key) is None else config[key]
    if not isinstance(value, bool):
        raise CorruptFile(f"{folder}: {key} in tokenizer_config.json is {show(value)!r}; wanted true or false")
    return value


def _content(value: Any, role: str, folder: Folder) -> str:
    content = value.get("content") if isinstance(value, dict) else value
    if not isinstance(content, str):
        raise CorruptFile(f"{folder}: its {role} is {show(value)!r}; wanted a string, or an object with content")
    return content


def _added_token(value: Any, folder: Folder) -> AddedToken:
    """A token as the JSON files write it: its text alone, or an object with its flags."""
    if not isinstance(value, dict):
        return AddedToken(_content(value, "special token", folder), special=True)
    flags = {key: flag for key, flag in value.items() if key not in ("content", "__type")}
    return AddedToken(_content(value, "added token", folder), **flags)
