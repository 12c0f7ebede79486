"""GPT-2: a decoder with learned positions and pre-norm blocks; each token looks at itself and back.

Radford et al. 2019, https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf

Shapes: B sequences, T tokens, S tokens with those before them, D hidden size, H heads, V vocabulary, L labels.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from triarch import config, limits
from triarch.config import hf
from triarch.errors import InvalidInput
from triarch.family import LAST_LABELS, NEXT_WORDS, SPANS, TOKEN_LABELS, TRUNK, Head, Network
from triarch.inputs.text.format import TextFormat
from triarch.layers.attention import attend
from triarch.layers.cache import Cache, Past, Slots
from triarch.layers.dropout import Dropout
from triarch.layers.embeddings import check_length, look_up
from triarch.layers.feed_forward import ACTIVATIONS, FeedForward
from triarch.weights import Layout, Stored


@dataclass(frozen=True, kw_only=True)
class Config(config.Config):
    vocab_size: int = hf("vocab_size", 50257, most=limits.VOCABULARY)
    hidden_size: int = hf("n_embd", 768, also="hidden_size")
    num_layers: int = hf("n_layer", 12, most=limits.LAYERS, also="num_hidden_layers")
    num_heads: int = hf("n_head", 12, also="num_attention_heads")
    inner_size: int | None = hf("n_inner", None, most=limits.VOCABULARY)  # None: four times hidden_size
    max_positions: int = hf("n_positions", 1024, most=limits.POSITIONS, also="max_position_embeddings")
    activation: str = hf("activation_function", "gelu_new", choices=tuple(ACTIVATIONS))
    embedding_dropout: float = hf("embd_pdrop", 0.1, most=1)
    dropout: float = hf("resid_pdrop", 0.1, most=1)
    attention_dropout: float = hf("attn_pdrop", 0.1, most=1)
    classifier_dropout: float | None = hf("classifier_dropout", None, most=1)  # None: 0.1
    norm_eps: float = hf("layer_norm_epsilon", 1e-5)
    initializer_range: float = hf("initializer_range", 0.02)
    scaled: bool = hf("scale_attn_weights", True)  # scores of attention are divided by the root of a head's size
    scaled_by_layer: bool = hf("scale_attn_by_inverse_layer_idx", False)  # and by the number of the layer, from 1
    upcast: bool = hf("reorder_and_upcast_attn", False)  # attention in float32 whatever the rest is in
    tied: bool = hf("tie_word_embeddings", True)  # the output layer shares the token embedding

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size % self.num_heads:
            raise InvalidInput(f"n_embd {self.hidden_size} does not split into {self.num_heads} attention heads")
        self.only(add_cross_attention=False, is_causal=True)

    @property
    def intermediate_size(self) -> int:
        return 4 * self.hidden_size if self.inner_size is None else self.inner_size

    @property
    def max_tokens(self) -> int:
        return self.max_positions

    @property
    def head_dropout(self) -> float:
        return 0.1 if self.classifier_dropout is None else self.classifier_dropout


class Attention(nn.Module):
    """Each token onto itself and those before it; queries, keys and values come from one layer, as they are stored."""

    def __init__(self, c: Config, layer: int):
        super().__init__()
        self.num_heads, self.dropout, self.upcast = c.num_heads, c.attention_dropout, c.upcast
        self.scale = (c.hidden_size // c.num_heads) ** -0.5 if c.scaled else 1.0
        self.scale /= layer + 1 if c.scaled_by_layer else 1
        self.qkv = nn.Linear(c.hidden_size, 3 * c.hidden_size)
        self.out = nn.Linear(c.hidden_size, c.hidden_size)

    def forward(self, x: Tensor, mask: Tensor | None, past: Past) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (B, H, T, D/H) each
        k, v = past.extend(k, v)
        if self.upcast:
            q, k, v = q.float(), k.float(), v.float()
        with torch.autocast(x.device.type, enabled=False) if self.upcast else nullcontext():
            y = attend(q, k, v, mask, scale=self.scale, dropout=self.dropout if self.training else 0.0)
        return self.out(y.to(x.dtype).transpose(1, 2).flatten(2))  # (B, T, D)


class Block(nn.Module):
    """Attention, then feed-forward, each on what a norm makes of the sum so far."""

    def __init__(self, c: Config, layer: int):
        super().__init__()
        self.attention_norm = nn.LayerNorm(c.hidden_size, c.norm_eps)
        self.attention = Attention(c, layer)
        self.feed_forward_norm = nn.LayerNorm(c.hidden_size, c.norm_eps)
        self.feed_forward = FeedForward(c.hidden_size, c.intermediate_size, c.activation)
        self.dropout = Dropout(c.dropout)

    def forward(self, x: Tensor, mask: Tensor | None, past: Past) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), mask, past))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class Model(Network):
    """The decoder, and on top of it whichever head was asked for."""

    INPUTS = ("input_ids", "attention_mask")

    def __init__(self, c: Config, head: Head):
        super().__init__()
        self.config = c
        self.token = nn.Embedding(c.vocab_size, c.hidden_size)
        self.position = nn.Embedding(c.max_positions, c.hidden_size)
        self.dropout = Dropout(c.embedding_dropout)
        self.blocks = nn.ModuleList(Block(c, layer) for layer in range(c.num_layers))
        self.norm = nn.LayerNorm(c.hidden_size, c.norm_eps)
        self.head = head.make(c, self.token)

    def features(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *, cache: Cache | None = None
    ) -> Tensor:
        """(B, T) of the tokens that come after those in the cache -> (B, T, D).

        `attention_mask`: (B, S), of the tokens in the cache too; numbers other than 0 and 1 tell apart texts that share
        a row. Raises LimitExceeded for more tokens than there are positions.
        """
        slots = Slots(input_ids, attention_mask, cache)
        check_length(slots.longest, self.position.num_embeddings)
        x = self.dropout(look_up(self.token, input_ids, "token id") + self.position(slots.positions))  # (B, T, D)
        mask = slots.mask()
        for layer, block in enumerate(self.blocks):
            x = block(x, mask, slots[layer])
        return self.norm(x)

    def initialize(self, module: nn.Module) -> None:
        """As section 2.3 has it: what is added to the residual sum starts smaller, the more of it there is."""
        super().initialize(module)
        if isinstance(module, Block):
            std = self.config.initializer_range / math.sqrt(2 * self.config.num_layers)
            for linear in (module.attention.out, module.feed_forward.down):
                nn.init.normal_(linear.weight, std=std)


HEADS = {
    "GPT2Model": TRUNK,
    "GPT2LMHeadModel": NEXT_WORDS,
    "GPT2ForSequenceClassification": LAST_LABELS,
    "GPT2ForTokenClassification": TOKEN_LABELS,
    "GPT2ForQuestionAnswering": SPANS,
}

# fmt: off
WEIGHTS = Layout(
    trunk="transformer.",
    parts=("multiple_choice_head.",),  # of a model with two heads, of which one chooses among continuations
    ignored=("transformer.h.#.attn.bias", "transformer.h.#.attn.masked_bias"),  # masks that older files hold
    rows={
        "token.weight":                      "transformer.wte.weight",
        "position.weight":                   "transformer.wpe.weight",
        "blocks.#.attention_norm.*":         "transformer.h.#.ln_1.*",
        "blocks.#.attention.qkv.weight":     Stored("transformer.h.#.attn.c_attn.weight", transposed=True),
        "blocks.#.attention.qkv.bias":       "transformer.h.#.attn.c_attn.bias",
        "blocks.#.attention.out.weight":     Stored("transformer.h.#.attn.c_proj.weight", transposed=True),
        "blocks.#.attention.out.bias":       "transformer.h.#.attn.c_proj.bias",
        "blocks.#.feed_forward_norm.*":      "transformer.h.#.ln_2.*",
        "blocks.#.feed_forward.up.weight":   Stored("transformer.h.#.mlp.c_fc.weight", transposed=True),
        "blocks.#.feed_forward.up.bias":     "transformer.h.#.mlp.c_fc.bias",
        "blocks.#.feed_forward.down.weight": Stored("transformer.h.#.mlp.c_proj.weight", transposed=True),
        "blocks.#.feed_forward.down.bias":   "transformer.h.#.mlp.c_proj.bias",
        "norm.*":                            "transformer.ln_f.*",
        "head.words.weight":                 "lm_head.weight",
        "head.labels.weight":                "score.weight",
        "head.tags.*":                       "classifier.*",
        "head.span.*":                       "qa_outputs.*",
    },
)
# fmt: on

READS = TextFormat(
    single="$A",
    pair="$A $B",
    specials={"unk_token": "<|endoftext|>", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
    trimmed=False,
)

TINY = Config(vocab_size=99, hidden_size=32, num_layers=2, num_heads=4, max_positions=64, extra={"pad_token_id": 0})
