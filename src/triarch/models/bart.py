"""BART: an encoder that reads a damaged text and a decoder that writes it whole; and mBART, the same in many languages.

Lewis et al. 2019, https://arxiv.org/abs/1910.13461; Liu et al. 2020, https://arxiv.org/abs/2001.08210

Shapes: B sequences, S tokens of a source, T tokens of a target, D hidden size, H heads, V vocabulary, L labels.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from triarch import config, limits
from triarch.config import hf
from triarch.errors import InvalidInput, Unsupported
from triarch.family import END_LABELS, SPANS, TRUNK, Alias, EncoderDecoder, Head
from triarch.inputs.text.format import TextFormat
from triarch.kinds import TargetWordScores
from triarch.layers.attention import Attention, padding_mask
from triarch.layers.cache import NOTHING, Cache, Past, Slots
from triarch.layers.dropout import Dropout
from triarch.layers.embeddings import check_length, look_up
from triarch.layers.encoder import Decoder, Encoder
from triarch.layers.feed_forward import ACTIVATIONS, FeedForward
from triarch.layers.heads import NextWords
from triarch.layers.source import Source
from triarch.weights import Layout, Stored

NORM_EPS = 1e-5  # config.json does not say it
LARGEST_HALF = torch.finfo(torch.float16).max - 1000
BEFORE = 2  # rows of the position embeddings that no token has: fairseq counted from behind the padding's id


@dataclass(frozen=True, kw_only=True)
class Config(config.Config):
    LABELS: ClassVar[int] = 3
    norm_first: ClassVar[bool] = False  # norms stand before attention and feed-forward, and one more at the end

    vocab_size: int = hf("vocab_size", 50265, most=limits.VOCABULARY)
    hidden_size: int = hf("d_model", 1024)
    num_layers: int = hf("encoder_layers", 12, most=limits.LAYERS)
    num_heads: int = hf("encoder_attention_heads", 16)
    intermediate_size: int = hf("encoder_ffn_dim", 4096, most=limits.VOCABULARY)
    decoder_layers: int = hf("decoder_layers", 12, most=limits.LAYERS)
    decoder_heads: int = hf("decoder_attention_heads", 16)
    decoder_intermediate_size: int = hf("decoder_ffn_dim", 4096, most=limits.VOCABULARY)
    max_positions: int = hf("max_position_embeddings", 1024, most=limits.POSITIONS)
    activation: str = hf("activation_function", "gelu", choices=tuple(ACTIVATIONS))
    dropout: float = hf("dropout", 0.1, most=1)
    attention_dropout: float = hf("attention_dropout", 0.0, most=1)
    activation_dropout: float = hf("activation_dropout", 0.0, most=1)
    head_dropout: float = hf("classifier_dropout", 0.0, most=1)
    initializer_range: float = hf("init_std", 0.02)
    scaled: bool = hf("scale_embedding", False)  # token vectors are multiplied by the root of their size
    # The output layer shares the token embedding; if not, sources and targets have token vectors of their own
    tied: bool = hf("tie_word_embeddings", True)
    pad_id: int = hf("pad_token_id", 1, least=0, most=limits.VOCABULARY)
    begin_id: int = hf("bos_token_id", 0, least=0, most=limits.VOCABULARY)
    end_id: int = hf("eos_token_id", 2, least=0, most=limits.VOCABULARY)
    start_id: int | None = hf("decoder_start_token_id", 2, least=0, most=limits.VOCABULARY)
    forced_end_id: int | None = hf("forced_eos_token_id", 2, least=0, most=limits.VOCABULARY)

    @classmethod
    def from_hf(cls, raw: dict[str, Any]) -> Self:
        if raw.get("force_bos_token_to_be_generated") and raw.get("forced_bos_token_id") is None:  # of older files
            raw = raw | {"forced_bos_token_id": raw.get("bos_token_id", 0)}
        return super().from_hf(raw)

    def __post_init__(self) -> None:
        super().__post_init__()
        for heads in (self.num_heads, self.decoder_heads):
            if self.hidden_size % heads:
                raise InvalidInput(f"d_model {self.hidden_size} does not split into {heads} attention heads")
        # What older files say of other members of fairseq's family
        self.only(normalize_before=self.norm_first, add_final_layer_norm=self.norm_first, normalize_embedding=True)
        self.only(static_position_embeddings=False, extra_pos_embeddings=BEFORE)

    @property
    def max_tokens(self) -> int:
        return self.max_positions


class Embeddings(nn.Module):
    """What makes of tokens, which the encoder and the decoder share, the input of the one or the other."""

    def __init__(self, c: Config):
        super().__init__()
        self.position = nn.Embedding(c.max_positions + BEFORE, c.hidden_size)
        self.norm = nn.LayerNorm(c.hidden_size, NORM_EPS)
        self.dropout = Dropout(c.dropout)

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D). Raises LimitExceeded for a place that has no position."""
        if places.numel():
            check_length(int(places.max()) + 1, self.position.num_embeddings - BEFORE)
        return self.dropout(self.norm(x + self.position(places + BEFORE)))


class Block(nn.Module):
    """Attention, in the decoder attention onto the source, then feed-forward; each is added to its input. A norm
    follows each sum; in mBART it comes before what is added."""

    def __init__(self, c: Config, heads: int, intermediate_size: int, layer: int | None = None):
        """`layer`: its number in the decoder; None in the encoder."""
        super().__init__()
        self.norm_first, self.layer = c.norm_first, layer
        self.attention = Attention(c.hidden_size, heads, dropout=c.attention_dropout)
        self.attention_norm = nn.LayerNorm(c.hidden_size, NORM_EPS)
        if layer is not None:
            self.cross_attention = Attention(c.hidden_size, heads, dropout=c.attention_dropout)
            self.cross_attention_norm = nn.LayerNorm(c.hidden_size, NORM_EPS)
        self.feed_forward = FeedForward(c.hidden_size, intermediate_size, c.activation, dropout=c.activation_dropout)
        self.feed_forward_norm = nn.LayerNorm(c.hidden_size, NORM_EPS)
        self.dropout = Dropout(c.dropout)

    def forward(self, x: Tensor, mask: Tensor | None, source: Source | None = None, past: Past = NOTHING) -> Tensor:
        x = self._added(x, self.attention_norm, lambda x: self.attention(x, mask, past))
        if self.layer is not None and source is not None:
            read, layer = source, self.layer
            x = self._added(x, self.cross_attention_norm, lambda x: self.cross_attention.across(x, read, layer))
        return self._added(x, self.feed_forward_norm, self.feed_forward)

    def _added(self, x: Tensor, norm: nn.Module, part: Callable[[Tensor], Tensor]) -> Tensor:
        if not self.norm_first:
            return norm(x + self.dropout(part(x)))
        x = x + self.dropout(part(norm(x)))  # which grows from block to block, and must not overflow in float16
        return x.clamp(-LARGEST_HALF, LARGEST_HALF) if x.dtype == torch.float16 else x


class SourceEncoder(nn.Module):
    """Reads another language; what it makes of a token takes the place of the token's vector. Section 3.4"""

    def __init__(self, c: "SourceConfig"):
        super().__init__()
        self.token = nn.Embedding(c.vocab_size, c.hidden_size)
        self.position = nn.Embedding(c.source_positions, c.hidden_size)
        self.norm = nn.LayerNorm(c.hidden_size, NORM_EPS)
        self.dropout = Dropout(c.dropout)
        self.encoder = Encoder(Block(c, c.source_heads, c.source_intermediate_size) for _ in range(c.source_layers))

    def forward(self, ids: Tensor, places: Tensor, mask: Tensor | None) -> Tensor:
        """(B, S) -> (B, S, D). Raises LimitExceeded for a place that has no position."""
        if places.numel():
            check_length(int(places.max()) + 1, self.position.num_embeddings)
        x = look_up(self.token, ids, "token id") + self.position(places)
        return self.encoder(self.dropout(self.norm(x)), mask)


class Model(EncoderDecoder):
    """The encoder, the decoder, and on top of it whichever head was asked for."""

    UNTIED = ("source_token", "target_token")
    PRESETS = {  # what the first of two trainings for a new source language changes
        "source": ("source_encoder",),
        "course": ("source_encoder", "source.position", "target.position", "token"),
        "paper": (
            *("source_encoder", "source.position", "target.position"),
            *(f"encoder.blocks.0.attention.{part}" for part in "qkv"),
        ),
    }

    def __init__(self, c: Config, head: Head):
        super().__init__()
        self.config = c
        if c.tied:
            self.token = nn.Embedding(c.target_vocab_size, c.hidden_size)  # before its other names: stored by this one
        self.source_token = self.token if c.tied else nn.Embedding(c.target_vocab_size, c.hidden_size)
        self.target_token = self.token if c.tied else nn.Embedding(c.target_vocab_size, c.hidden_size)
        self.source_encoder = SourceEncoder(c) if isinstance(c, SourceConfig) else None
        self.source = Embeddings(c)
        self.encoder = Encoder(Block(c, c.num_heads, c.intermediate_size) for _ in range(c.num_layers))
        self.encoder_norm = _last_norm(c)
        self.target = Embeddings(c)
        self.decoder = Decoder(
            Block(c, c.decoder_heads, c.decoder_intermediate_size, layer) for layer in range(c.decoder_layers)
        )
        self.decoder_norm = _last_norm(c)
        self.head = head.make(c, self.target_token)

    def encode(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Source:
        """(B, S) -> what is written from. Raises LimitExceeded for more tokens than there are positions."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        mask = padding_mask(attention_mask)
        if self.source_encoder is None:
            vectors = self._vectors(self.source_token, input_ids)
        else:
            vectors = self.source_encoder(input_ids, places, mask)
        x = self.encoder(self.source(vectors, places), mask)
        return Source(self.encoder_norm(x), attention_mask)

    def decode(
        self,
        decoder_input_ids: Tensor,
        source: Source,
        decoder_attention_mask: Tensor | None = None,
        *,
        cache: Cache | None = None,
    ) -> Tensor:
        """(B, T) of the tokens that come after those in the cache -> (B, T, D). Raises as `encode` does."""
        x, slots = self._target(decoder_input_ids, decoder_attention_mask, cache)
        return self.decoder_norm(self.decoder(x, source, slots))

    def alone(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """As the decoder reads it again; or the encoder, where sources are in another language than is written."""
        source = self.encode(input_ids, attention_mask)
        return source.states if self.source_encoder is not None else self.decode(self.shifted(input_ids), source)

    def shifted(self, ids: Tensor) -> Tensor:
        """What the decoder is given to write these ids (B, T) from: they begin with the start token and lack the last.

        mBART begins with the last token of each, which says the language.
        """
        c = self.config
        if self.source_encoder is not None:  # it reads another language than is written
            return super().shifted(ids)
        if c.norm_first:
            last = (ids != c.pad_id).sum(1, keepdim=True) - 1
            return torch.cat([ids.gather(1, last), ids[:, :-1]], 1)
        if c.start_id is None:
            raise InvalidInput("config has no decoder_start_token_id, which a target begins with; add it")
        return torch.cat([torch.full_like(ids[:, :1], c.start_id), ids[:, :-1]], 1)

    def initialize(self, module: nn.Module) -> None:
        super().initialize(module)
        if isinstance(module, NextWords) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def _vectors(self, token: nn.Embedding, ids: Tensor) -> Tensor:
        scale = self.config.hidden_size**0.5 if self.config.scaled else 1.0
        return look_up(token, ids, "token id") * scale

    def _target(
        self, ids: Tensor, attention_mask: Tensor | None = None, cache: Cache | None = None
    ) -> tuple[Tensor, Slots]:
        """(B, T) -> what goes into the first block, (B, T, D), and where these tokens stand among all so far."""
        slots = Slots(ids, attention_mask, cache)
        return self.target(self._vectors(self.target_token, ids), slots.positions), slots


def _last_norm(c: Config) -> nn.Module:
    """After the last block, where norms stand before what they are for."""
    return nn.LayerNorm(c.hidden_size, NORM_EPS) if c.norm_first else nn.Identity()


HEADS = {
    "BartModel": TRUNK,
    "BartForConditionalGeneration": Head(
        TargetWordScores,
        lambda c, token: NextWords(c.hidden_size, c.target_vocab_size, token if c.tied else None, bias=True),
        untied=("words",),
    ),
    "BartForSequenceClassification": END_LABELS,
    "BartForQuestionAnswering": SPANS,
}

SHARED = "model.shared.weight"
READ, WRITTEN = "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"  # its copies, where tied

# fmt: off
WEIGHTS = Layout(
    trunk="model.",
    zeros=("final_logits_bias",),
    ignored=("model.encoder.version", "model.decoder.version"),  # marks of fairseq's own files
    rows={
        "token.weight":                                        Stored(SHARED, others=(READ, WRITTEN, "lm_head.weight")),
        "source_token.weight":                                 Stored(READ, others=(SHARED,)),
        "target_token.weight":                                 Stored(WRITTEN, others=(SHARED,)),
        "source.position.weight":                              "model.encoder.embed_positions.weight",
        "source.norm.*":                                       "model.encoder.layernorm_embedding.*",
        "encoder_norm.*":                                      "model.encoder.layer_norm.*",
        "encoder.blocks.#.attention.q.*":                      "model.encoder.layers.#.self_attn.q_proj.*",
        "encoder.blocks.#.attention.k.*":                      "model.encoder.layers.#.self_attn.k_proj.*",
        "encoder.blocks.#.attention.v.*":                      "model.encoder.layers.#.self_attn.v_proj.*",
        "encoder.blocks.#.attention.out.*":                    "model.encoder.layers.#.self_attn.out_proj.*",
        "encoder.blocks.#.attention_norm.*":                   "model.encoder.layers.#.self_attn_layer_norm.*",
        "encoder.blocks.#.feed_forward.up.*":                  "model.encoder.layers.#.fc1.*",
        "encoder.blocks.#.feed_forward.down.*":                "model.encoder.layers.#.fc2.*",
        "encoder.blocks.#.feed_forward_norm.*":                "model.encoder.layers.#.final_layer_norm.*",
        "target.position.weight":                              "model.decoder.embed_positions.weight",
        "target.norm.*":                                       "model.decoder.layernorm_embedding.*",
        "decoder_norm.*":                                      "model.decoder.layer_norm.*",
        "decoder.blocks.#.attention.q.*":                      "model.decoder.layers.#.self_attn.q_proj.*",
        "decoder.blocks.#.attention.k.*":                      "model.decoder.layers.#.self_attn.k_proj.*",
        "decoder.blocks.#.attention.v.*":                      "model.decoder.layers.#.self_attn.v_proj.*",
        "decoder.blocks.#.attention.out.*":                    "model.decoder.layers.#.self_attn.out_proj.*",
        "decoder.blocks.#.attention_norm.*":                   "model.decoder.layers.#.self_attn_layer_norm.*",
        "decoder.blocks.#.cross_attention.q.*":                "model.decoder.layers.#.encoder_attn.q_proj.*",
        "decoder.blocks.#.cross_attention.k.*":                "model.decoder.layers.#.encoder_attn.k_proj.*",
        "decoder.blocks.#.cross_attention.v.*":                "model.decoder.layers.#.encoder_attn.v_proj.*",
        "decoder.blocks.#.cross_attention.out.*":              "model.decoder.layers.#.encoder_attn.out_proj.*",
        "decoder.blocks.#.cross_attention_norm.*":             "model.decoder.layers.#.encoder_attn_layer_norm.*",
        "decoder.blocks.#.feed_forward.up.*":                  "model.decoder.layers.#.fc1.*",
        "decoder.blocks.#.feed_forward.down.*":                "model.decoder.layers.#.fc2.*",
        "decoder.blocks.#.feed_forward_norm.*":                "model.decoder.layers.#.final_layer_norm.*",
        "source_encoder.token.weight":                         "model.source.embed_tokens.weight",
        "source_encoder.position.weight":                      "model.source.embed_positions.weight",
        "source_encoder.norm.*":                               "model.source.layernorm_embedding.*",
        "source_encoder.encoder.blocks.#.attention.q.*":       "model.source.layers.#.self_attn.q_proj.*",
        "source_encoder.encoder.blocks.#.attention.k.*":       "model.source.layers.#.self_attn.k_proj.*",
        "source_encoder.encoder.blocks.#.attention.v.*":       "model.source.layers.#.self_attn.v_proj.*",
        "source_encoder.encoder.blocks.#.attention.out.*":     "model.source.layers.#.self_attn.out_proj.*",
        "source_encoder.encoder.blocks.#.attention_norm.*":    "model.source.layers.#.self_attn_layer_norm.*",
        "source_encoder.encoder.blocks.#.feed_forward.up.*":   "model.source.layers.#.fc1.*",
        "source_encoder.encoder.blocks.#.feed_forward.down.*": "model.source.layers.#.fc2.*",
        "source_encoder.encoder.blocks.#.feed_forward_norm.*": "model.source.layers.#.final_layer_norm.*",
        "head.words.weight":                                   "lm_head.weight",
        "head.bias":                                           "final_logits_bias",
        "head.dense.*":                                        "classification_head.dense.*",
        "head.labels.*":                                       "classification_head.out_proj.*",
        "head.span.*":                                         "qa_outputs.*",
    },
)
# fmt: on

SPECIALS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}

READS = TextFormat(single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", specials=SPECIALS)

# Liu et al. 2020, table 1, https://arxiv.org/abs/2001.08210; Tang et al. 2020, https://arxiv.org/abs/2008.00401
LANGUAGES = (
    *("ar_AR", "cs_CZ", "de_DE", "en_XX", "es_XX", "et_EE", "fi_FI", "fr_XX", "gu_IN", "hi_IN", "it_IT", "ja_XX"),
    *("kk_KZ", "ko_KR", "lt_LT", "lv_LV", "my_MM", "ne_NP", "nl_XX", "ro_RO", "ru_RU", "si_LK", "tr_TR", "vi_VN"),
    "zh_CN",
)
MORE_LANGUAGES = (
    *("af_ZA", "az_AZ", "bn_IN", "fa_IR", "he_IL", "hr_HR", "id_ID", "ka_GE", "km_KH", "mk_MK", "ml_IN", "mn_MN"),
    *("mr_IN", "pl_PL", "ps_AF", "pt_XX", "sv_SE", "sw_KE", "ta_IN", "te_IN", "th_TH", "tl_XX", "uk_UA", "ur_PK"),
    *("xh_ZA", "gl_ES", "sl_SI"),
)
MBART50_TEXT = replace(
    READS,
    single="{src_lang} $A </s>",
    pair="{src_lang} $A $B </s>",
    first_pieces=("<s>", "<pad>", "</s>", "<unk>"),
    languages=LANGUAGES + MORE_LANGUAGES,
    language="en_XX",
)
MBART_TEXT = replace(
    MBART50_TEXT,
    single="$A </s> {src_lang}",
    pair="$A $B </s> {src_lang}",
    languages=LANGUAGES,
    classes={"MBart50Tokenizer": MBART50_TEXT},
)


@dataclass(frozen=True, kw_only=True)
class MBartConfig(Config):
    LABELS: ClassVar[int] = 2
    norm_first: ClassVar[bool] = True

    start_id: int | None = hf("decoder_start_token_id", None, least=0, most=limits.VOCABULARY)


@dataclass(frozen=True, kw_only=True)
class SourceConfig(Config):
    """A BART whose sources are in another language, as `triarch surgery add-source-encoder` makes it.

    What a config calls `vocab_size` of BART is what can be written; sources have words of their own.
    """

    vocab_size: int = hf("source_vocab_size", 50265, most=limits.VOCABULARY)
    written: int = hf("vocab_size", 50265, most=limits.VOCABULARY)
    source_layers: int = hf("source_layers", 6, most=limits.LAYERS)
    source_heads: int = hf("source_attention_heads", 16)
    source_intermediate_size: int = hf("source_ffn_dim", 4096, most=limits.VOCABULARY)
    source_positions: int = hf("source_max_position_embeddings", 1024, most=limits.POSITIONS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tied:
            raise Unsupported("config tie_word_embeddings=false is not implemented for bart-source; set true")
        if self.hidden_size % self.source_heads:
            raise InvalidInput(f"d_model {self.hidden_size} does not split into {self.source_heads} attention heads")

    @property
    def target_vocab_size(self) -> int:
        return self.written

    @property
    def max_tokens(self) -> int:
        return min(self.source_positions, self.max_positions)

    @property
    def max_target_tokens(self) -> int:
        return self.max_positions


SIZES: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "max_positions": 16,
    "num_layers": 2,
    "num_heads": 4,
    "intermediate_size": 37,
    "decoder_layers": 3,
    "decoder_heads": 2,
    "decoder_intermediate_size": 41,
}
SOURCE_SIZES = {"source_layers": 2, "source_heads": 2, "source_intermediate_size": 29, "source_positions": 20}
TINY = Config(**SIZES)
MBART_TINY = MBartConfig(**SIZES, scaled=True)
SOURCE_TINY = SourceConfig(**SIZES | SOURCE_SIZES | {"vocab_size": 77, "written": 99})

ALIASES = {
    "mbart": Alias(prefix="MBart", reads=MBART_TEXT, tiny=MBART_TINY),
    "bart-source": Alias(
        prefix="BartSource",
        reads=replace(READS, apart=True),
        tiny=SOURCE_TINY,
        heads=("Model", "ForConditionalGeneration"),
        known=False,
    ),
}
