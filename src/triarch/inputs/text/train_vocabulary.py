"""Train a vocabulary on texts: WordPiece, byte-level BPE or Unigram, by the trainers of the `tokenizers` library; or
their characters.

WordPiece as in BERT (Schuster & Nakajima 2012; pieces are found by frequency, as in Sennrich et al. 2015,
https://arxiv.org/abs/1508.07909), byte-level BPE as in GPT-2 and RoBERTa (Radford et al. 2019), Unigram as in XLM-R and
T5 (Kudo 2018, https://arxiv.org/abs/1804.10959). The special tokens, and how they go around a text, are the family's.

The same texts give the same vocabulary, byte for byte. The library alone does so for BPE only: its WordPiece numbers
inner letters in the order of a randomized hash table, by which ties are decided later, and its Unigram adds up
probabilities and scores rare letters in such an order. So the alphabet is numbered here, and scores are rounded.

What comes back from ids: byte-level BPE gives every text back to the letter (encode with `special_tokens=False` and
`parse_special=False`), and so do characters those texts that have no others than were seen, or the end of a line; any
other comes back as the unknown token. Unigram gives back the text in Unicode's NFKC form, runs of whitespace as one
space, none at the ends, and characters that were not in the texts as the unknown token. WordPiece loses as much as
BERT's: spaces around punctuation, control characters, with `lowercase` case and accents, and whole words with an
unknown character.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from triarch import limits
from triarch.errors import InvalidInput, TriarchError, Unsupported, show
from triarch.files import write_text
from triarch.inputs.text.format import TextFormat
from triarch.inputs.text.processor import TextProcessor, check_text
from triarch.inputs.text.sentencepiece import SPACE
from triarch.inputs.text.vocabulary import Vocabulary, sentinels
from triarch.suggest import did_you_mean

KINDS = ("wordpiece", "bpe", "unigram", "characters")
LANGUAGE = re.compile(r" ?\{\w+\}")  # in a template: a token that a vocabulary of one pair of languages does without
MIN_FREQUENCY = 2  # a pair of pieces seen but once is chance
INNER = "##"  # how WordPiece writes a piece inside a word

# The order in which BERT, RoBERTa, XLM-R and T5 number their special tokens, each those it has
SPECIALS = ("bos_token", "pad_token", "eos_token", "unk_token", "cls_token", "sep_token", "mask_token")

SCORE_DIGITS = 4  # of Unigram's log probabilities; what depends on chance begins at the tenth
RARE_STEP = 1e-4  # the trainer scores letters too rare to have a probability in such steps above the worst piece


def train_vocabulary(
    texts: Iterable[str],
    kind: str,
    vocab_size: int,
    text_format: TextFormat,
    *,
    lowercase: bool | None = None,
    min_frequency: int | None = None,
    max_characters: int | None = None,
    max_tokens: int = limits.POSITIONS,
) -> TextProcessor:
    """Learn a vocabulary of at most `vocab_size` entries, special tokens included; `kind` is one of `KINDS`.

    Texts that yield fewer give a smaller one: the processor's `vocab_size` is how many there are. They are read once,
    one by one; kept are the distinct words. `lowercase` is by default as `text_format` has it for WordPiece, and off
    for others. WordPiece and BPE join pairs seen `min_frequency` times, by default 2. Of more than `max_characters`
    distinct characters the rarest stay unknown, and WordPiece and Unigram learn nothing from words that hold them.
    `max_tokens` is the longest text that the model will take.

    Raises InvalidInput for texts that are none, for no text at all, and for a `vocab_size` that does not hold the
    special tokens and the alphabet; Unsupported for a family without an unknown token where the kind needs one.
    """
    _check(texts, kind, vocab_size, min_frequency, max_characters)
    specials = list(dict.fromkeys(text_format.specials[role] for role in SPECIALS if role in text_format.specials))
    unknown = text_format.specials.get("unk_token")
    vocab_size -= text_format.sentinels  # which come last
    frequency = MIN_FREQUENCY if min_frequency is None else min_frequency
    if kind == "wordpiece":
        tokenizer = _wordpiece(text_format.lowercase if lowercase is None else lowercase)
        words = _frequent(_count(texts, tokenizer), max_characters)
        tokenizer.model = _train_wordpiece(words, vocab_size, specials, _needed(unknown), frequency)
    elif kind == "unigram":
        tokenizer = _unigram(bool(lowercase))
        words = _frequent(_count(texts, tokenizer), max_characters)
        tokenizer.model = _train_unigram(words, vocab_size, specials, _needed(unknown))
    elif kind == "characters":
        tokenizer = _characters(bool(lowercase))
        tokenizer.model = _alphabet(texts, tokenizer, vocab_size, specials, _needed(unknown), max_characters)
    else:
        tokenizer = _byte_level(bool(lowercase))
        tokenizer.model = _train_bpe(texts, tokenizer, vocab_size, specials, frequency)
    return _processor(tokenizer, specials, text_format, max_tokens)


def save_vocabulary(processor: TextProcessor, folder: Path) -> None:
    """Write what `TextProcessor.save` writes, and the bare vocabulary that the reference's older classes expect.

    That is vocab.txt, or vocab.json with merges.txt; of Unigram and of characters there is no such file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TriarchError(f"cannot make the folder {show(folder)} ({error.strerror}); choose another") from None
    processor.save(folder)
    state = json.loads(processor.tokenizer.to_str())["model"]
    if state["type"] == "WordPiece":
        write_text(
            folder / "vocab.txt", "".join(f"{piece}\n" for piece in sorted(state["vocab"], key=state["vocab"].get))
        )
    elif isinstance(processor.tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel):
        write_text(folder / "vocab.json", json.dumps(state["vocab"], ensure_ascii=False) + "\n")
        merges = "".join(f"{left} {right}\n" for left, right in state["merges"])
        write_text(folder / "merges.txt", f"#version: 0.2\n{merges}")


def _check(texts: object, kind: str, vocab_size: int, min_frequency: int | None, max_characters: int | None) -> None:
    if kind not in KINDS:
        raise InvalidInput(f"no kind {show(kind)!r}{did_you_mean(str(kind), KINDS)}; there are {', '.join(KINDS)}")
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise InvalidInput(f"texts are a {type(texts).__name__}, wanted a list or a generator of texts")
    if type(vocab_size) is not int or not 0 < vocab_size <= limits.VOCABULARY:
        raise InvalidInput(f"vocab_size is {show(vocab_size)}, wanted a count up to {limits.VOCABULARY:,}")
    for name, value in {"min_frequency": min_frequency, "max_characters": max_characters}.items():
        if value is not None and (type(value) is not int or value < 1):
            raise InvalidInput(f"{name} is {show(value)}, wanted a count")
    if min_frequency is not None and kind in ("unigram", "characters"):
        raise InvalidInput(f"min_frequency is for pairs, which {kind} does not join; leave it out")
    if max_characters is not None and kind == "bpe":
        raise InvalidInput("max_characters is for characters, and byte-level BPE has bytes; leave it out")


def _needed(unknown: str | None) -> str:
    if unknown is None:
        raise Unsupported('the family has no unknown token, which this kind needs; use kind "bpe"')
    return unknown


# The pipelines, before training


def _wordpiece(lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece())
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _byte_level(lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _characters(lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())  # which, without any pair to join, is letters
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def _unigram(lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    steps = [normalizers.NFKC(), *([normalizers.Lowercase()] if lowercase else [])]
    spaces = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    tokenizer.normalizer = normalizers.Sequence([*steps, *spaces])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, "always")
    tokenizer.decoder = decoders.Metaspace(SPACE, "always")
    return tokenizer


# What the texts hold


def _texts(texts: Iterable[str]) -> Iterator[str]:
    """The texts, each checked. Raises InvalidInput in the place of a bad one, and at the end if there was no text."""
    empty = True
    for number, text in enumerate(texts):
        try:
            if not isinstance(text, str):
                raise InvalidInput(f"it is a {type(text).__name__}, wanted a string")
            check_text(text)
        except InvalidInput as error:
            error.args = (f"text {number}: {error}",)
            raise
        empty = empty and not text.strip()
        yield text
    if empty:
        raise InvalidInput("there is no text to learn from; give texts that are not blank")


def _count(texts: Iterable[str], tokenizer: Tokenizer) -> Counter[str]:
    """How often each word comes, as the pipeline splits and normalises."""
    chunks: Counter[str] = Counter()  # split at spaces first: splitting for good is slow, and chunks recur
    for text in _texts(texts):
        chunks.update(tokenizer.normalizer.normalize_str(text).split(" "))
    words: Counter[str] = Counter()
    for chunk, count in chunks.items():
        if chunk:
            for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(chunk):
                words[word] += count
    if not words:
        raise InvalidInput("the texts hold nothing but what normalisation leaves out; give texts with letters")
    return words


def _frequent(words: Counter[str], most: int | None) -> Counter[str]:
    """The words that hold only the `most` frequent characters."""
    if most is None:
        return words
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    kept = set(_most_frequent(counts, most))
    left = Counter({word: count for word, count in words.items() if kept.issuperset(word)})
    if not left:
        raise InvalidInput(f"no word is left of the {most} most frequent characters; raise max_characters")
    return left


def _most_frequent(counts: Counter[str], most: int) -> list[str]:
    return sorted(counts, key=lambda character: (-counts[character], character))[:most]


def _repeated(words: Counter[str]) -> Iterator[str]:
    """Texts in which each word comes as often as counted: the trainers take no counts."""
    for word in sorted(words):
        whole, rest = divmod(words[word], 1000)
        yield from [" ".join([word] * 1000)] * whole
        yield " ".join([word] * rest)


def _room(vocab_size: int, specials: list[str], alphabet: int, what: str) -> None:
    if vocab_size < len(specials) + alphabet:
        raise InvalidInput(
            f"vocab_size is {vocab_size:,}, but there are {len(specials)} special tokens and {alphabet:,} {what}; "
            f"ask for at least {len(specials) + alphabet:,}" + (", or set max_characters" if what != "bytes" else "")
        )


# The training itself


def _train_wordpiece(
    words: Counter[str], vocab_size: int, specials: list[str], unknown: str, frequency: int
) -> models.Model:
    first = sorted({character for word in words for character in word})
    inner = sorted({INNER + character for word in words for character in word[1:]})
    _room(vocab_size, specials, len(first) + len(inner), "characters, at the beginning of words and inside")
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=frequency,
        special_tokens=[*specials, *first, *inner],  # the one way to have the alphabet numbered in this order
        continuing_subword_prefix=INNER,
        show_progress=False,
    )
    trained = Tokenizer(models.WordPiece())
    trained.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")
    trained.train_from_iterator(_repeated(words), trainer)
    return models.WordPiece(trained.get_vocab(), unk_token=unknown, continuing_subword_prefix=INNER)


def _train_bpe(
    texts: Iterable[str], tokenizer: Tokenizer, vocab_size: int, specials: list[str], frequency: int
) -> models.Model:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    _room(vocab_size, specials, len(alphabet), "bytes")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=frequency,
        special_tokens=specials,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    trained = Tokenizer(models.BPE())
    trained.normalizer, trained.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    trained.train_from_iterator(_texts(texts), trainer)
    return trained.model


def _alphabet(
    texts: Iterable[str], tokenizer: Tokenizer, vocab_size: int, specials: list[str], unknown: str, most: int | None
) -> models.Model:
    counts: Counter[str] = Counter()
    for text in _texts(texts):
        counts.update(tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text)
    kept = counts if most is None else _most_frequent(counts, most)
    letters = sorted({*kept, "\n"})  # which a text that came as a line of a file does not show
    _room(vocab_size, specials, len(letters), "characters")
    vocabulary = {token: id_ for id_, token in enumerate([*specials, *letters])}
    return models.BPE(vocabulary, [], unk_token=unknown)


def _train_unigram(words: Counter[str], vocab_size: int, specials: list[str], unknown: str) -> models.Model:
    alphabet = {character for word in words for character in word}
    _room(vocab_size, specials, len(alphabet), "characters")
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=specials, unk_token=unknown, show_progress=False
    )
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")
    trained.train_from_iterator(_repeated(words), trainer)
    found = {piece: score for piece, score in json.loads(trained.to_str())["model"]["vocab"] if piece not in specials}
    worst = min(found.values())
    rare = {c for c in alphabet if c not in found or found[c] < worst + RARE_STEP * len(alphabet)}
    scores = {piece: round(worst if piece in rare else score, SCORE_DIGITS) for piece, score in found.items()}
    pieces = sorted(scores, key=lambda piece: (-scores[piece], piece))
    longer = [piece for piece in pieces if piece not in alphabet]
    left_out = set(longer[max(0, vocab_size - len(specials) - len(alphabet)) :])  # at times it finds a few too many
    vocabulary = [(token, 0.0) for token in specials]
    vocabulary += [(piece, scores[piece]) for piece in pieces if piece not in left_out]
    return models.Unigram(vocabulary, specials.index(unknown), False)


def _processor(tokenizer: Tokenizer, specials: list[str], text_format: TextFormat, max_tokens: int) -> TextProcessor:
    """The pipeline with its special tokens."""
    mask = text_format.specials.get("mask_token")
    joined = not isinstance(tokenizer.model, models.WordPiece)  # spaces belong to words: a mask stands for both
    tokenizer.add_special_tokens([AddedToken(token, lstrip=joined and token == mask) for token in specials])
    tokenizer.add_special_tokens(sentinels(text_format.sentinels))
    single, pair = (LANGUAGE.sub("", template).strip() for template in (text_format.single, text_format.pair))
    used = {part.partition(":")[0] for part in f"{single} {pair}".split() if part[0] != "$"}
    framing: processors.PostProcessor = processors.TemplateProcessing(
        single=single,
        pair=pair,
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in specials if token in used],
    )
    if isinstance(tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel):
        framing = processors.Sequence([processors.ByteLevel(add_prefix_space=False, trim_offsets=True), framing])
    tokenizer.post_processor = framing
    config = {"clean_up_tokenization_spaces": False}  # version 4 takes spaces out of what it decodes unless told
    found = Vocabulary(tokenizer, config, dict(text_format.specials), "the trained vocabulary")
    return TextProcessor(found, tokenizer.get_vocab_size(), max_tokens, text_format.segments, templates={})
