"""T5: every task as text that is written from text; positions are told by how far tokens are apart. And mT5.

Raffel et al. 2019, https://arxiv.org/abs/1910.10683; Xue et al. 2020, https://arxiv.org/abs/2010.11934

Shapes: B sequences, S tokens of a source, T tokens of a target, D hidden size, H heads, E size of a head, V vocabulary,
L labels.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from triarch import config, limits
from triarch.config import hf
from triarch.errors import InvalidInput, Unsupported, show
from triarch.family import END_LABELS, SPANS, TOKEN_LABELS, TRUNK, Alias, EncoderDecoder, Head
from triarch.inputs.text.format import TextFormat
from triarch.kinds import Features, TargetWordScores
from triarch.layers.attention import attend, attend_source, attention_weights, padding_mask
from triarch.layers.cache import NOTHING, Cache, Past, Slots
from triarch.layers.dropout import Dropout
from triarch.layers.embeddings import look_up
from triarch.layers.feed_forward import FeedForward, GatedFeedForward
from triarch.layers.heads import NextWords
from triarch.layers.norms import RMSNorm
from triarch.layers.source import Source
from triarch.weights import Layout, Stored

# What feed_forward_proj calls the network of each position, gated or not; the gated "gelu" was always the tanh form,
# whatever some files say of it in dense_act_fn
ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "silu": "silu", "gelu_new": "gelu_new"}
GATED = {"gated-gelu": "gelu_new", "gated-relu": "relu", "gated-silu": "silu", "gated-gelu_new": "gelu_new"}


@dataclass(frozen=True, kw_only=True)
class Config(config.Config):
    vocab_size: int = hf("vocab_size", 32128, most=limits.VOCABULARY)
    hidden_size: int = hf("d_model", 512)
    head_size: int = hf("d_kv", 64)
    intermediate_size: int = hf("d_ff", 2048, most=limits.VOCABULARY)
    num_layers: int = hf("num_layers", 6, most=limits.LAYERS)
    own_decoder_layers: int | None = hf("num_decoder_layers", None, most=limits.LAYERS)  # None: as num_layers
    num_heads: int = hf("num_heads", 8)
    buckets: int = hf("relative_attention_num_buckets", 32, least=4)  # distances that are told apart
    max_distance: int = hf("relative_attention_max_distance", 128, most=limits.POSITIONS)  # from which all are alike
    projection: str = hf("feed_forward_proj", "relu", choices=(*ACTIVATIONS, *GATED))
    dropout: float = hf("dropout_rate", 0.1, most=1)
    head_dropout: float = hf("classifier_dropout", 0.0, most=1)
    norm_eps: float = hf("layer_norm_epsilon", 1e-6)
    initializer_factor: float = hf("initializer_factor", 1.0)
    tied: bool = hf("tie_word_embeddings", True)  # the output layer shares the token embedding, and its input is scaled
    pad_id: int = hf("pad_token_id", 0, least=0, most=limits.VOCABULARY)
    end_id: int = hf("eos_token_id", 1, least=0, most=limits.VOCABULARY)
    start_id: int = hf("decoder_start_token_id", 0, least=0, most=limits.VOCABULARY)

    @classmethod
    def from_hf(cls, raw: dict[str, Any]) -> Self:
        """Version 5 of the reference says that all words are tied, and in a key of its own which are scaled."""
        raw = dict(raw)
        if (scaled := raw.pop("scale_decoder_outputs", None)) is not None:
            raw["tie_word_embeddings"] = scaled
        return super().from_hf(raw)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_distance <= self.buckets // 2:
            raise InvalidInput(
                f"relative_attention_max_distance {self.max_distance} is not over half of the "
                f"{self.buckets} relative_attention_num_buckets; mend config.json"
            )

        named, own = self.extra.get("dense_act_fn"), (ACTIVATIONS | GATED)[self.projection]
        if named not in (None, own) and (named, own) != ("gelu", "gelu_new"):
            raise Unsupported(
                f"config dense_act_fn={show(named)} with feed_forward_proj={self.projection} is not implemented"
            )

    @property
    def decoder_layers(self) -> int:
        return self.num_layers if self.own_decoder_layers is None else self.own_decoder_layers

    @property
    def inner_size(self) -> int:
        return self.num_heads * self.head_size

    @property
    def max_tokens(self) -> int:
        return limits.POSITIONS  # distances have no end; what the tokenizer says bounds what it reads


class Norm(RMSNorm):
    """In the type of its weights, whatever the sum has come to."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).to(self.weight.dtype)


class Distances(nn.Module):
    """What is added to the scores of attention, by how far apart two tokens are. Section 2.1"""

    def __init__(self, c: Config, *, both_ways: bool):
        super().__init__()
        self.buckets, self.max_distance, self.both_ways = c.buckets, c.max_distance, both_ways
        self.bias = nn.Embedding(c.buckets, c.num_heads)

    def forward(self, tokens: int, seen: int) -> Tensor:
        """(1, H, T, S), of the last `tokens` of those that were seen onto all of these."""
        device = self.bias.weight.device
        ahead = torch.arange(seen, device=device) - torch.arange(seen - tokens, seen, device=device)[:, None]  # (T, S)
        return self.bias(self._bucket(ahead)).permute(2, 0, 1)[None]

    def _bucket(self, ahead: Tensor) -> Tensor:
        """Half of the buckets are for one distance each, the others for ever wider ranges up to the largest."""
        count, first = self.buckets, torch.zeros_like(ahead)
        if self.both_ways:  # half of them for what lies ahead
            count //= 2
            first = (ahead > 0) * count
            distance = ahead.abs()
        else:
            distance = (-ahead).clamp(min=0)
        exact = count // 2
        growth = torch.log(distance.float() / exact) / math.log(self.max_distance / exact) * (count - exact)
        far = (exact + growth.clamp(min=0).long()).clamp(max=count - 1)
        return first + torch.where(distance < exact, distance, far)


class Attention(nn.Module):
    """Scores are not scaled: the first values of the weights make up for it."""

    def __init__(self, c: Config):
        super().__init__()
        self.num_heads, self.dropout = c.num_heads, c.dropout
        self.q = nn.Linear(c.hidden_size, c.inner_size, bias=False)
        self.k = nn.Linear(c.hidden_size, c.inner_size, bias=False)
        self.v = nn.Linear(c.hidden_size, c.inner_size, bias=False)
        self.out = nn.Linear(c.inner_size, c.hidden_size, bias=False)

    def forward(self, x: Tensor, bias: Tensor, past: Past) -> Tensor:
        q, (k, v) = self._split(self.q(x)), past.extend(*self._keys_values(x))
        return self._joined(attend(q, k, v, bias, scale=1.0, dropout=self.dropout if self.training else 0.0))

    def across(self, x: Tensor, source: Source, layer: int) -> Tensor:
        q, made = self._split(self.q(x)), source.keys_values(layer, self._keys_values)
        if source.maps is not None:
            source.maps.append(attention_weights(q, made[0], source.mask, scale=1.0))
        return self._joined(attend_source(q, made, source, scale=1.0, dropout=self.dropout if self.training else 0.0))

    def _keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._split(self.k(x)), self._split(self.v(x))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, T, H * E) -> (B, H, T, E)

    def _joined(self, y: Tensor) -> Tensor:
        return self.out(y.transpose(1, 2).flatten(2))  # (B, H, T, E) -> (B, T, D)


class Block(nn.Module):
    """Attention, then in a decoder attention onto the source, then feed-forward, each on what a norm makes of the sum
    so far."""

    def __init__(self, c: Config, layer: int | None = None):
        """`layer`: its number in the decoder; None in the encoder."""
        super().__init__()
        self.layer = layer
        self.attention_norm, self.attention = Norm(c.hidden_size, c.norm_eps), Attention(c)
        if layer is not None:
            self.cross_attention_norm, self.cross_attention = Norm(c.hidden_size, c.norm_eps), Attention(c)
        self.feed_forward_norm = Norm(c.hidden_size, c.norm_eps)
        sizes, gate = (c.hidden_size, c.intermediate_size), GATED.get(c.projection)
        if gate is None:
            self.feed_forward = FeedForward(*sizes, ACTIVATIONS[c.projection], bias=False, dropout=c.dropout)
        else:
            self.gated_feed_forward = GatedFeedForward(*sizes, gate, dropout=c.dropout)
        self.gated = gate is not None
        self.dropout = Dropout(c.dropout)

    def forward(self, x: Tensor, bias: Tensor, source: Source | None = None, past: Past = NOTHING) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), bias, past))
        if self.layer is not None and source is not None:
            x = x + self.dropout(self.cross_attention.across(self.cross_attention_norm(x), source, self.layer))
        feed_forward = self.gated_feed_forward if self.gated else self.feed_forward
        return x + self.dropout(feed_forward(self.feed_forward_norm(x)))


class Stack(nn.Module):
    """The encoder, or the decoder: blocks that share what distances are worth."""

    def __init__(self, c: Config, layers: int, *, decoder: bool):
        super().__init__()
        self.distances = Distances(c, both_ways=not decoder)
        self.blocks = nn.ModuleList(Block(c, layer if decoder else None) for layer in range(layers))
        self.norm = Norm(c.hidden_size, c.norm_eps)
        self.dropout = Dropout(c.dropout)


class Model(EncoderDecoder):
    """The encoder, the decoder unless the head does without, and on top of them whichever head was asked for."""

    WIDE = ("*feed_forward.down.*",)

    def __init__(self, c: Config, head: Head):
        super().__init__()
        self.config = c
        self.token = nn.Embedding(c.vocab_size, c.hidden_size)
        self.encoder = Stack(c, c.num_layers, decoder=False)
        if head.reads != "encoder":
            self.decoder = Stack(c, c.decoder_layers, decoder=True)
        self.head = head.make(c, self.token)

    def encode(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Source:
        """(B, S) -> what is written from."""
        stack, S = self.encoder, input_ids.shape[1]
        x = stack.dropout(look_up(self.token, input_ids, "token id"))  # (B, S, D)
        bias = stack.distances(S, S)
        bias = _closed(bias, padding_mask(attention_mask))
        for block in stack.blocks:
            x = block(x, bias)
        return Source(stack.dropout(stack.norm(x)), attention_mask)

    def decode(
        self,
        decoder_input_ids: Tensor,
        source: Source,
        decoder_attention_mask: Tensor | None = None,
        *,
        cache: Cache | None = None,
    ) -> Tensor:
        """(B, T) of the tokens that come after those in the cache -> (B, T, D)."""
        slots = Slots(decoder_input_ids, decoder_attention_mask, cache)
        x, bias = self._target(decoder_input_ids, slots)
        for layer, block in enumerate(self.decoder.blocks):
            x = block(x, bias, source, slots[layer])
        return self.decoder.dropout(self.decoder.norm(x))

    def shifted(self, ids: Tensor) -> Tensor:
        """The start token, and all of these but the last."""
        if self.kind in (Features, TargetWordScores):
            return super().shifted(ids)
        return torch.cat([torch.full_like(ids[:, :1], self.config.start_id), ids[:, :-1]], 1)

    def initialize(self, module: nn.Module) -> None:
        """As in the first code: attention is not scaled, so its queries are smaller by the root of a head's size."""
        c = self.config
        stds: dict[nn.Module, float] = {}
        if isinstance(module, Attention):
            stds = dict.fromkeys((module.k, module.v), c.hidden_size**-0.5)
            stds |= {module.q: (c.hidden_size * c.head_size) ** -0.5, module.out: c.inner_size**-0.5}
        elif isinstance(module, FeedForward | GatedFeedForward):
            stds = {module.up: c.hidden_size**-0.5, module.down: c.intermediate_size**-0.5}
            if isinstance(module, GatedFeedForward):
                stds[module.gate] = c.hidden_size**-0.5
        elif isinstance(module, Distances):
            stds = {module.bias: c.hidden_size**-0.5}
        elif isinstance(module, NextWords):
            stds = {module.words: 1.0}
        elif isinstance(module, nn.Embedding | Norm):
            nn.init.ones_(module.weight) if isinstance(module, Norm) else nn.init.normal_(module.weight)
            module.weight.data.mul_(c.initializer_factor)
        elif isinstance(module, nn.Linear):  # of the other heads; those above are done after what they hold
            stds = {module: c.hidden_size**-0.5}
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        for layer, std in stds.items():
            assert isinstance(layer.weight, Tensor)
            nn.init.normal_(layer.weight, std=c.initializer_factor * std)

    def _target(self, ids: Tensor, slots: Slots) -> tuple[Tensor, Tensor]:
        """(B, T) -> what goes into the first block, (B, T, D), and what is added to the scores of attention."""
        bias = _closed(self.decoder.distances(slots.tokens, slots.seen), slots.mask())
        return self.decoder.dropout(look_up(self.token, ids, "token id")), bias


def _closed(bias: Tensor, mask: Tensor | None) -> Tensor:
    """Nothing is seen where the mask is False. Not infinity: a row that is padding alone would be no number."""
    return bias if mask is None else bias.masked_fill(~mask, torch.finfo(bias.dtype).min)


def _words(c: Config, token: nn.Embedding) -> NextWords:
    """Token vectors that the output layer shares are longer than its own would be, and features are scaled down."""
    return NextWords(
        c.hidden_size, c.vocab_size, token if c.tied else None, scale=c.hidden_size**-0.5 if c.tied else 1.0
    )


HEADS = {
    "T5Model": TRUNK,
    # `tied` says what is scaled, too; a file that holds another output layer than its token vectors is of that layer
    "T5ForConditionalGeneration": Head(TargetWordScores, _words, untied=("words",), former=("T5WithLMHeadModel",)),
    "T5EncoderModel": replace(TRUNK, reads="encoder"),
    "T5ForSequenceClassification": END_LABELS,
    "T5ForTokenClassification": replace(TOKEN_LABELS, reads="encoder"),
    "T5ForQuestionAnswering": SPANS,
}

COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")  # of shared.weight, or in its place

DISTANCES = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"

# fmt: off
WEIGHTS = Layout(
    trunks={
        f"{prefix}For{head}Classification": "transformer." for prefix in ("T5", "MT5") for head in ("Sequence", "Token")
    },
    parts=("decoder.",),
    ignored=("decoder.block.#.layer.1.EncDecAttention.relative_attention_bias.weight",),  # of the first files, unused
    rows={
        "token.weight":                                  Stored("shared.weight", others=(*COPIES, "lm_head.weight")),
        "encoder.distances.bias.weight":                 f"encoder.{DISTANCES}",
        "encoder.blocks.#.attention_norm.*":             "encoder.block.#.layer.0.layer_norm.*",
        "encoder.blocks.#.attention.out.*":              "encoder.block.#.layer.0.SelfAttention.o.*",
        "encoder.blocks.#.attention.q.*":                "encoder.block.#.layer.0.SelfAttention.q.*",
        "encoder.blocks.#.attention.k.*":                "encoder.block.#.layer.0.SelfAttention.k.*",
        "encoder.blocks.#.attention.v.*":                "encoder.block.#.layer.0.SelfAttention.v.*",
        "encoder.blocks.#.feed_forward_norm.*":          "encoder.block.#.layer.1.layer_norm.*",
        "encoder.blocks.#.gated_feed_forward.gate.*":    "encoder.block.#.layer.1.DenseReluDense.wi_0.*",
        "encoder.blocks.#.feed_forward.up.*":            "encoder.block.#.layer.1.DenseReluDense.wi.*",
        "encoder.blocks.#.gated_feed_forward.up.*":      "encoder.block.#.layer.1.DenseReluDense.wi_1.*",
        "encoder.blocks.#.feed_forward.down.*":          "encoder.block.#.layer.1.DenseReluDense.wo.*",
        "encoder.blocks.#.gated_feed_forward.down.*":    "encoder.block.#.layer.1.DenseReluDense.wo.*",
        "encoder.norm.*":                                "encoder.final_layer_norm.*",
        "decoder.distances.bias.weight":                 f"decoder.{DISTANCES}",
        "decoder.blocks.#.attention_norm.*":             "decoder.block.#.layer.0.layer_norm.*",
        "decoder.blocks.#.attention.out.*":              "decoder.block.#.layer.0.SelfAttention.o.*",
        "decoder.blocks.#.attention.q.*":                "decoder.block.#.layer.0.SelfAttention.q.*",
        "decoder.blocks.#.attention.k.*":                "decoder.block.#.layer.0.SelfAttention.k.*",
        "decoder.blocks.#.attention.v.*":                "decoder.block.#.layer.0.SelfAttention.v.*",
        "decoder.blocks.#.cross_attention_norm.*":       "decoder.block.#.layer.1.layer_norm.*",
        "decoder.blocks.#.cross_attention.out.*":        "decoder.block.#.layer.1.EncDecAttention.o.*",
        "decoder.blocks.#.cross_attention.q.*":          "decoder.block.#.layer.1.EncDecAttention.q.*",
        "decoder.blocks.#.cross_attention.k.*":          "decoder.block.#.layer.1.EncDecAttention.k.*",
        "decoder.blocks.#.cross_attention.v.*":          "decoder.block.#.layer.1.EncDecAttention.v.*",
        "decoder.blocks.#.feed_forward_norm.*":          "decoder.block.#.layer.2.layer_norm.*",
        "decoder.blocks.#.gated_feed_forward.gate.*":    "decoder.block.#.layer.2.DenseReluDense.wi_0.*",
        "decoder.blocks.#.feed_forward.up.*":            "decoder.block.#.layer.2.DenseReluDense.wi.*",
        "decoder.blocks.#.gated_feed_forward.up.*":      "decoder.block.#.layer.2.DenseReluDense.wi_1.*",
        "decoder.blocks.#.feed_forward.down.*":          "decoder.block.#.layer.2.DenseReluDense.wo.*",
        "decoder.blocks.#.gated_feed_forward.down.*":    "decoder.block.#.layer.2.DenseReluDense.wo.*",
        "decoder.norm.*":                                "decoder.final_layer_norm.*",
        "head.words.weight":                             Stored("lm_head.weight", others=("shared.weight", *COPIES)),
        "head.dense.*":                                  "classification_head.dense.*",
        "head.labels.*":                                 "classification_head.out_proj.*",
        "head.tags.*":                                   "classifier.*",
        "head.span.*":                                   "qa_outputs.*",
    },
)
# fmt: on

READS = TextFormat(
    single="$A </s>",
    pair="$A </s> $B </s>",
    specials={"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
    sentinels=100,
)


@dataclass(frozen=True, kw_only=True)
class MT5Config(Config):
    vocab_size: int = hf("vocab_size", 250112, most=limits.VOCABULARY)
    intermediate_size: int = hf("d_ff", 1024, most=limits.VOCABULARY)
    num_layers: int = hf("num_layers", 8, most=limits.LAYERS)
    num_heads: int = hf("num_heads", 6)
    projection: str = hf("feed_forward_proj", "gated-gelu", choices=(*ACTIVATIONS, *GATED))
    tied: bool = hf("tie_word_embeddings", False)

    @classmethod
    def from_hf(cls, raw: dict[str, Any]) -> Self:
        """Words were never tied, whatever files say that version 5 of the reference has saved."""
        return super().from_hf(raw | {"tie_word_embeddings": False})


SIZES: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "head_size": 6,
    "intermediate_size": 37,
    "num_layers": 2,
    "own_decoder_layers": 3,
    "num_heads": 4,
    "buckets": 8,
    "max_distance": 20,
}
TINY = Config(**SIZES)

ALIASES = {"mt5": Alias(prefix="MT5", reads=replace(READS, sentinels=0), tiny=MT5Config(**SIZES))}
