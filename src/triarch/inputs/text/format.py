"""How a family writes text as ids."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from triarch import limits
from triarch.errors import InvalidInput, NotFound
from triarch.files import Folder
from triarch.kinds import Medium, Text

if TYPE_CHECKING:
    from triarch.inputs.text.processor import TextProcessor

# Roles of tokens, and under which name config.json has their ids; encoders begin and end texts with tokens of their own
ROLES = {
    "pad_token": "pad_token_id",
    "cls_token": "bos_token_id",
    "sep_token": "eos_token_id",
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
}


@dataclass(frozen=True)
class TextFormat:
    """How a family writes text as ids. A tokenizer.json says most of this itself; a bare vocabulary does not."""

    medium: ClassVar[Medium] = Text
    called: ClassVar[str] = "tokenizer"
    files: ClassVar[str] = "tokenizer.json or the vocabulary"

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

    def alone(self, folder: Folder) -> TextProcessor:
        """The text processor of a folder that holds a tokenizer, and no model whose sizes it has to fit.

        Raises what `load_text` raises, and NotFound where there is no tokenizer.
        """
        from triarch.inputs.text.processor import load_text

        processor = load_text(folder, self, vocab_size=limits.VOCABULARY, max_tokens=limits.POSITIONS)
        if processor is None:
            raise NotFound(f"{folder} holds no tokenizer; wanted tokenizer.json, or a vocabulary")
        for one in (processor, processor.target):
            one.vocab_size = max(one.tokenizer.get_vocab().values()) + 1
        inputs = processor.config.get("model_input_names")
        processor.segments |= isinstance(inputs, list) and "token_type_ids" in inputs
        return processor

    def settle(self, folder: Folder | None, family: str, raw: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
        """The number of tokens, and the ids of special ones. Raises InvalidInput for no folder, or none of these."""
        from triarch.inputs.text.targets import ids_of_roles

        if folder is None:
            raise InvalidInput(
                "there is no model; name a checkpoint to start from, or a family and a tokenizer's folder"
            )
        processor = self.alone(folder)
        vocabulary = processor.tokenizer.get_vocab()
        if absent := [token for token in self.specials.values() if token not in vocabulary]:
            raise InvalidInput(
                f"the tokenizer has no {', '.join(absent)}, which {family} needs; make one with "
                f"triarch tokenizer train --family {family}"
            )
        # Under the names of config.json whatever ids these tokens have here: positions and padding go by them
        ids = [(key, processor.id(role)) for role, key in ROLES.items() if key in raw or key == f"{role}_id"]
        found: dict[str, Any] = {"vocab_size": processor.vocab_size}
        return found | {key: id_ for key, id_ in ids if id_ is not None} | ids_of_roles(usual, ROLES, processor)

    def new(self, folder: Folder | None, config: Any) -> TextProcessor | None:
        assert folder is not None, "settle() comes first"
        return self.load(folder, config)
