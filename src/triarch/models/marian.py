"""Marian: the first transformer as a translator, from one language, or many, into another. No norm stands before the
first block, and positions are computed.

Junczys-Dowmunt et al. 2018, https://arxiv.org/abs/1804.00344; Tiedemann and Thottingal 2020, OPUS-MT,
https://aclanthology.org/2020.eamt-1.61; Vaswani et al. 2017, https://arxiv.org/abs/1706.03762

Shapes: B sequences, S tokens of a source, T tokens of a target, D hidden size, H heads, V words of the target.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from triarch import config, limits
from triarch.config import hf
from triarch.errors import InvalidInput, Unsupported
from triarch.family import TRUNK, EncoderDecoder, Head
from triarch.inputs.text.format import TextFormat
from triarch.kinds import TargetWordScores
from triarch.layers.attention import Attention, padding_mask
from triarch.layers.cache import NOTHING, Cache, Past, Slots
from triarch.layers.dropout import Dropout
from triarch.layers.embeddings import check_length, look_up
from triarch.layers.encoder import Decoder, Encoder
from triarch.layers.feed_forward import ACTIVATIONS, FeedForward
from triarch.layers.heads import NextWords
from triarch.layers.positions import sines_then_cosines
from triarch.layers.source import Source
from triarch.weights import Layout, Stored

NORM_EPS = 1e-5  # config.json does not say it


@dataclass(frozen=True, kw_only=True)
class Config(config.Config):
    vocab_size: int = hf("vocab_size", 58101, most=limits.VOCABULARY)
    own_target_vocab_size: int | None = hf("decoder_vocab_size", None, most=limits.VOCABULARY)  # None: as vocab_size
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
    initializer_range: float = hf("init_std", 0.02)
    scaled: bool = hf("scale_embedding", False)  # token vectors are multiplied by the root of their size
    shared: bool = hf("share_encoder_decoder_embeddings", True)  # one table of token vectors for both languages
    tied: bool = hf("tie_word_embeddings", True)  # the output layer shares the token embedding

    def __post_init__(self) -> None:
        super().__post_init__()
        for heads in (self.num_heads, self.decoder_heads):
            if self.hidden_size % heads:
                raise InvalidInput(f"d_model {self.hidden_size} does not split into {heads} attention heads")
        if self.hidden_size % 2:
            raise InvalidInput(f"d_model {self.hidden_size} is odd; positions need a cosine for each sine")
        if self.shared and not self.tied:
            raise Unsupported(
                "config tie_word_embeddings=false with share_encoder_decoder_embeddings=true is not implemented: the "
                "versions of the reference read two different models from it"
            )
        # What older files say of a time when this family was a kind of BART
        self.only(normalize_before=False, normalize_embedding=False, add_final_layer_norm=False)
        self.only(static_position_embeddings=True)

    @property
    def target_vocab_size(self) -> int:
        own = None if self.shared else self.own_target_vocab_size
        return self.vocab_size if own is None else own

    @property
    def max_tokens(self) -> int:
        return self.max_positions


class Block(nn.Module):
    """Attention, in the decoder attention onto the source, then feed-forward; each is added to its input, and a norm
    follows the sum."""

    def __init__(self, c: Config, heads: int, intermediate_size: int, layer: int | None = None):
        """`layer`: its number in the decoder; None in the encoder."""
        super().__init__()
        self.layer = layer
        self.attention = Attention(c.hidden_size, heads, dropout=c.attention_dropout)
        self.attention_norm = nn.LayerNorm(c.hidden_size, NORM_EPS)
        if layer is not None:
            self.cross_attention = Attention(c.hidden_size, heads, dropout=c.attention_dropout)
            self.cross_attention_norm = nn.LayerNorm(c.hidden_size, NORM_EPS)
        self.feed_forward = FeedForward(c.hidden_size, intermediate_size, c.activation, dropout=c.activation_dropout)
        self.feed_forward_norm = nn.LayerNorm(c.hidden_size, NORM_EPS)
        self.dropout = Dropout(c.dropout)

    def forward(self, x: Tensor, mask: Tensor | None, source: Source | None = None, past: Past = NOTHING) -> Tensor:
        x = self.attention_norm(x + self.dropout(self.attention(x, mask, past)))
        if self.layer is not None and source is not None:
            x = self.cross_attention_norm(x + self.dropout(self.cross_attention.across(x, source, self.layer)))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))


class Model(EncoderDecoder):
    """The encoder, the decoder, and on top of it whichever head was asked for."""

    UNTIED = ("source_token", "target_token")

    def __init__(self, c: Config, head: Head):
        super().__init__()
        self.config = c
        if c.shared:
            self.token = nn.Embedding(c.vocab_size, c.hidden_size)  # before its other names: it is stored by this one
        self.source_token = self.token if c.shared else nn.Embedding(c.vocab_size, c.hidden_size)
        self.target_token = self.token if c.shared else nn.Embedding(c.target_vocab_size, c.hidden_size)
        self.dropout = Dropout(c.dropout)
        self.encoder = Encoder(Block(c, c.num_heads, c.intermediate_size) for _ in range(c.num_layers))
        self.decoder = Decoder(
            Block(c, c.decoder_heads, c.decoder_intermediate_size, layer) for layer in range(c.decoder_layers)
        )
        self.head = head.make(c, self.target_token)

    def encode(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Source:
        """(B, S) -> what is written from. Raises LimitExceeded for more tokens than there are positions."""
        x = self._embedded(self.source_token, input_ids, Slots(input_ids).positions)
        return Source(self.encoder(x, padding_mask(attention_mask)), attention_mask)

    def decode(
        self,
        decoder_input_ids: Tensor,
        source: Source,
        decoder_attention_mask: Tensor | None = None,
        *,
        cache: Cache | None = None,
    ) -> Tensor:
        """(B, T) of the tokens that come after those in the cache -> (B, T, D). Raises as `encode` does."""
        return self.decoder(*self._target(decoder_input_ids, source, decoder_attention_mask, cache))

    def initialize(self, module: nn.Module) -> None:
        super().initialize(module)
        if isinstance(module, NextWords) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def _target(
        self, ids: Tensor, source: Source, attention_mask: Tensor | None = None, cache: Cache | None = None
    ) -> tuple[Tensor, Source, Slots]:
        """(B, T) -> what goes into the first block, (B, T, D), the source, and where these tokens stand."""
        slots = Slots(ids, attention_mask, cache)
        return self._embedded(self.target_token, ids, slots.positions), source, slots

    def _embedded(self, token: nn.Embedding, ids: Tensor, places: Tensor) -> Tensor:
        if places.numel():
            check_length(int(places.max()) + 1, self.config.max_positions)
        size = self.config.hidden_size
        x = look_up(token, ids, "token id") * (size**0.5 if self.config.scaled else 1.0)
        return self.dropout(x + sines_then_cosines(places, size).to(x.dtype))


HEADS = {
    "MarianModel": TRUNK,
    "MarianMTModel": Head(
        TargetWordScores,
        lambda c, token: NextWords(c.hidden_size, c.target_vocab_size, token if c.tied else None, bias=True),
        untied=("words",),
    ),
}

SHARED = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")

# fmt: off
WEIGHTS = Layout(
    trunk="model.",
    zeros=("final_logits_bias",),
    ignored=(
        "model.encoder.embed_positions.weight",  # sinusoids that older files hold
        "model.decoder.embed_positions.weight",
    ),
    rows={
        "token.weight":                            Stored("model.shared.weight", others=SHARED),
        "source_token.weight":                     "model.encoder.embed_tokens.weight",
        "target_token.weight":                     "model.decoder.embed_tokens.weight",
        "encoder.blocks.#.attention.q.*":          "model.encoder.layers.#.self_attn.q_proj.*",
        "encoder.blocks.#.attention.k.*":          "model.encoder.layers.#.self_attn.k_proj.*",
        "encoder.blocks.#.attention.v.*":          "model.encoder.layers.#.self_attn.v_proj.*",
        "encoder.blocks.#.attention.out.*":        "model.encoder.layers.#.self_attn.out_proj.*",
        "encoder.blocks.#.attention_norm.*":       "model.encoder.layers.#.self_attn_layer_norm.*",
        "encoder.blocks.#.feed_forward.up.*":      "model.encoder.layers.#.fc1.*",
        "encoder.blocks.#.feed_forward.down.*":    "model.encoder.layers.#.fc2.*",
        "encoder.blocks.#.feed_forward_norm.*":    "model.encoder.layers.#.final_layer_norm.*",
        "decoder.blocks.#.attention.q.*":          "model.decoder.layers.#.self_attn.q_proj.*",
        "decoder.blocks.#.attention.k.*":          "model.decoder.layers.#.self_attn.k_proj.*",
        "decoder.blocks.#.attention.v.*":          "model.decoder.layers.#.self_attn.v_proj.*",
        "decoder.blocks.#.attention.out.*":        "model.decoder.layers.#.self_attn.out_proj.*",
        "decoder.blocks.#.attention_norm.*":       "model.decoder.layers.#.self_attn_layer_norm.*",
        "decoder.blocks.#.cross_attention.q.*":    "model.decoder.layers.#.encoder_attn.q_proj.*",
        "decoder.blocks.#.cross_attention.k.*":    "model.decoder.layers.#.encoder_attn.k_proj.*",
        "decoder.blocks.#.cross_attention.v.*":    "model.decoder.layers.#.encoder_attn.v_proj.*",
        "decoder.blocks.#.cross_attention.out.*":  "model.decoder.layers.#.encoder_attn.out_proj.*",
        "decoder.blocks.#.cross_attention_norm.*": "model.decoder.layers.#.encoder_attn_layer_norm.*",
        "decoder.blocks.#.feed_forward.up.*":      "model.decoder.layers.#.fc1.*",
        "decoder.blocks.#.feed_forward.down.*":    "model.decoder.layers.#.fc2.*",
        "decoder.blocks.#.feed_forward_norm.*":    "model.decoder.layers.#.final_layer_norm.*",
        "head.words.weight":                       "lm_head.weight",
        "head.bias":                               "final_logits_bias",
    },
)
# fmt: on

READS = TextFormat(
    single="{tgt_lang} $A </s>",
    pair="{tgt_lang} $A $B </s>",
    specials={"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
)

TINY = Config(
    vocab_size=99,
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    intermediate_size=37,
    decoder_layers=3,
    decoder_heads=2,
    decoder_intermediate_size=41,
    max_positions=16,
    activation="swish",
    scaled=True,
    extra={"pad_token_id": 98, "eos_token_id": 0, "decoder_start_token_id": 98, "forced_eos_token_id": 0},
)
