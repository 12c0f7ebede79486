"""The words a family file is written in, besides its config and its weight table: how text is read, the base of models.

Shapes: B sequences, T tokens, D hidden size, V vocabulary, L labels, C choices.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from triarch.config import Config
from triarch.errors import InvalidInput
from triarch.kinds import Scores
from triarch.layers.brick import plain
from triarch.layers.cache import Cache
from triarch.layers.embeddings import last_end
from triarch.layers.source import Source


@dataclass(frozen=True)
class TextFormat:
    """How a family writes text as ids. A tokenizer.json says most of this itself; a bare vocabulary does not."""

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
    classes: dict[str, "TextFormat"] = field(default_factory=dict)  # in place of this one, by the tokenizer_class


@dataclass(frozen=True)
class Alias:
    """Another model_type with the same mathematics."""

    prefix: str  # its class names begin with this where the family's own begin with the family's
    text: TextFormat
    tiny: Config | None = None  # of a Config class of its own, where the same file means something else or has defaults
    heads: tuple[type[nn.Module], ...] | None = None  # which of the family's it has; None: all
    known: bool = True  # the reference library has it too


class Network(nn.Module):
    """What every family's `Model` derives from: a trunk, `features()`, and a head that turns features into scores."""

    WIDE: ClassVar[tuple[str, ...]] = ()  # patterns of what stays in float32 in a model of float16, which has no range

    PRESETS: ClassVar[dict[str, tuple[str, ...]]] = {}  # patterns of parameters that are trained together, by a name

    config: Any  # the family's Config
    head: nn.Module
    family: Any  # the models.Family it was built from
    architecture: str  # the name of its head, as config.json has it
    kind: type  # of the scores that its head gives, one of `kinds`
    processor: Any = None  # raw input -> dict of tensors, and back
    sidecars: dict[str, bytes]  # small files that lay beside the weights and are saved with them
    fresh: Sequence[str] = ()  # our names of the parameters that loading started afresh

    def train(self, mode: bool = True) -> Self:
        """Training takes ordinary layers, which the engine may have replaced. Raises as `brick.plain` does."""
        if mode:
            plain(self)
        return super().train(mode)

    def features(self, *args: Any, **kwargs: Any) -> Tensor:
        """Inputs -> (B, T, D), before any head."""
        raise NotImplementedError(f"{type(self).__module__} has no features()")

    def reads_as(self, length: int) -> int:
        """Texts of lengths with the same number here have the same keys and values where they begin alike."""
        return 0

    def initialize(self, module: nn.Module) -> None:
        """Fresh values for one module. Devlin et al. 2018, appendix A.2, and every encoder since."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.LayerNorm | nn.RMSNorm):
            nn.init.ones_(module.weight)
        if isinstance(module, nn.LayerNorm):
            nn.init.zeros_(module.bias)


class EncoderDecoder(Network):
    """What derives from this one reads a source with its encoder, and writes a target with a decoder that looks at it.

    A head with `AT_END` is given what the decoder makes of the last end token alone, one with `READS` what the encoder
    makes of the source.
    """

    def encode(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Source:
        """(B, S) -> what is written from; once for all that is. Raises LimitExceeded for more tokens than it takes."""
        raise NotImplementedError(f"{type(self).__module__} has no encode()")

    def decode(
        self,
        decoder_input_ids: Tensor,
        source: Source,
        decoder_attention_mask: Tensor | None = None,
        *,
        cache: Cache | None = None,
    ) -> Tensor:
        """(B, T) of the tokens that come after those in the cache -> (B, T, D). Raises as `encode` does."""
        raise NotImplementedError(f"{type(self).__module__} has no decode()")

    def alignment(self, input_ids: Tensor, attention_mask: Tensor | None, decoder_input_ids: Tensor) -> list[Tensor]:
        """Where each token that is written looks in what was read, for people to see: (B, H, T, S) of each layer of the
        decoder; rows sum to 1."""
        raise NotImplementedError(f"{type(self).__module__} has no alignment()")

    def alone(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Features of a text from which nothing is written: (B, S) -> (B, S, D)."""
        return self.encode(input_ids, attention_mask).states

    def shifted(self, ids: Tensor) -> Tensor:
        """Where a head takes its source for the target too: what the decoder is given to write these ids (B, S) from.

        Raises InvalidInput where it does not.
        """
        raise InvalidInput("there is no target; give decoder_input_ids, from decoder_start_token_id on")

    def features(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Sources (B, S) and targets (B, T) -> (B, T, D); of sources alone (B, S, D)."""
        if decoder_input_ids is None:
            return self.alone(input_ids, attention_mask)
        return self.decode(decoder_input_ids, self.encode(input_ids, attention_mask), decoder_attention_mask)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Scores:
        """Sources (B, S) and targets (B, T), else the sources `shifted` -> the scores of the head.

        A head that scores words does so only at `positions`, (B, T) of truth values, if they are given. Raises
        InvalidInput where a target is missing.
        """
        if getattr(self.head, "READS", False):
            decoder_input_ids = None
        elif decoder_input_ids is None:
            decoder_input_ids = self.shifted(input_ids)
        x = self.features(
            input_ids,
            attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
        )
        if getattr(self.head, "AT_END", False):
            return self.head(last_end(x, input_ids, self.config.end_id))
        return self.head(x if positions is None else x[positions])
