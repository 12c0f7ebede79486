"""How a family writes text as ids."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from triarch.files import Folder
from triarch.kinds import Medium, Text

if TYPE_CHECKING:
    from triarch.inputs.text.processor import TextProcessor


@dataclass(frozen=True)
class TextFormat:
    """How a family writes text as ids. A tokenizer.json says most of this itself; a bare vocabulary does not."""

    medium: ClassVar[Medium] = Text

    # "[CLS] $A [SEP]", in the syntax of tokenizers' TemplateProcessing; {src_lang} and {tgt_lang} become the tokens of
    # the languages of a text and of its translation, if they have been chosen
    single: str
    pair: str  # "[CLS] $A [SEP] $B:1 [SEP]:1"
    specials: dict[str, str]  # "unk_token": "[UNK]", by the names of tokenizer_config.json
    segments: bool = False  # the model takes token_type_ids
    lowercase: bool = False  # vocab.txt alone: what holds when no config says do_lower_case
    first_pieces: tuple[str, ...] = ()  # SentencePiece alone: the ids from 0 on, in place of the model's own specials
    trimmed: bool = True  # vocab.json alone: offsets leave out the space before a word
    split: str = ""  # vocab.json alone: the regular expression that text is cut by, in NFC; empty: GPT-2's, as it is
    apart: bool = False  # what is written has a tokenizer of its own, in the folder target_tokenizer
    by_settings: bool = False  # add_bos_token and the like go before what tokenizer.json and SentencePiece models say
    languages: tuple[str, ...] = ()  # tokens of languages; of a SentencePiece model the ids after its pieces
    sentinels: int = 0  # SentencePiece alone: so many <extra_id_N> after its pieces, the last one first
    language: str = ""  # the one of texts where tokenizer_config.json has no src_lang
    classes: dict[str, TextFormat] = field(default_factory=dict)  # in place of this one, by the tokenizer_class

    def load(self, folder: Folder, config: Any) -> TextProcessor | None:
        """The text processor of a checkpoint's folder; None if it has no tokenizer. Raises what `load_text` raises."""
        from triarch.inputs.text.processor import load_text

        return load_text(
            folder,
            self,
            vocab_size=config.vocab_size,
            max_tokens=config.max_tokens,
            target_vocab_size=config.target_vocab_size,
            max_target_tokens=config.max_target_tokens,
        )
