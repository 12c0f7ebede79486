"""Llama: a decoder with rotary positions, RMS norms, gated feed-forward and heads that share keys and values.

Mistral sees a window of tokens; Qwen2 has biases on queries, keys and values.

Touvron et al. 2023, https://arxiv.org/abs/2302.13971 and https://arxiv.org/abs/2307.09288; Grattafiori et al. 2024,
https://arxiv.org/abs/2407.21783; Jiang et al. 2023, https://arxiv.org/abs/2310.06825; Yang et al. 2024,
https://arxiv.org/abs/2407.10671

Shapes: B sequences, T tokens, S tokens with those before them, D hidden size, H heads, K key-value heads, E size of a
head, V vocabulary, L labels.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from torch import Tensor, nn

from triarch import config, limits
from triarch.config import hf
from triarch.errors import InvalidInput, Unsupported, show, some
from triarch.family import LAST_LABELS, NEXT_WORDS, SPANS, TOKEN_LABELS, TRUNK, Alias, Head, Network
from triarch.inputs.text.format import TextFormat
from triarch.layers import rotary
from triarch.layers.attention import attend
from triarch.layers.cache import Cache, Past, Slots
from triarch.layers.embeddings import check_length, look_up
from triarch.layers.feed_forward import ACTIVATIONS, GatedFeedForward
from triarch.layers.norms import RMSNorm
from triarch.layers.rotary import Rotary, Rotation, rotate
from triarch.weights import Layout

FULL, SLIDING = "full_attention", "sliding_attention"  # kinds of layers
BESIDE = ("rope_theta", "partial_rotary_factor")  # numbers that version 4 has beside the table, version 5 in it
TRAINED = "original_max_position_embeddings"  # how long texts were before positions were stretched


@dataclass(frozen=True, kw_only=True)
class Config(config.Config):
    vocab_size: int = hf("vocab_size", 32000, most=limits.VOCABULARY)
    hidden_size: int = hf("hidden_size", 4096)
    intermediate_size: int = hf("intermediate_size", 11008, most=limits.VOCABULARY)
    num_layers: int = hf("num_hidden_layers", 32, most=limits.LAYERS)
    num_heads: int = hf("num_attention_heads", 32)
    shared_heads: int | None = hf("num_key_value_heads", None)  # None: each head has keys and values of its own
    head_dim: int | None = hf("head_dim", None)  # None: the heads share hidden_size
    activation: str = hf("hidden_act", "silu", choices=tuple(ACTIVATIONS))
    max_positions: int = hf("max_position_embeddings", 2048, most=limits.POSITIONS)
    rope_theta: float = hf("rope_theta", 10_000.0, most=limits.ROTARY_BASE)
    rope_scaling: dict | None = hf("rope_scaling", None)  # how positions are stretched, see `_rotary`
    attention_bias: bool = hf("attention_bias", False)
    feed_forward_bias: bool = hf("mlp_bias", False)
    attention_dropout: float = hf("attention_dropout", 0.0, most=1)
    classifier_dropout: float | None = hf("classifier_dropout", None, most=1)  # None: 0.1
    norm_eps: float = hf("rms_norm_eps", 1e-6)
    initializer_range: float = hf("initializer_range", 0.02)
    tied: bool = hf("tie_word_embeddings", False)  # the output layer shares the token embedding

    @classmethod
    def from_hf(cls, raw: dict[str, Any]) -> Self:
        return super().from_hf(_in_one_spelling(raw))

    def to_hf(self) -> dict[str, Any]:
        """With the numbers for which the major versions of the reference have different defaults."""
        raw = super().to_hf() | {"num_key_value_heads": self.kv_heads, "head_dim": self.head_size}
        if isinstance(found := self.rotary, rotary.Llama3 | rotary.Yarn | rotary.LongRope):
            raw["rope_scaling"] = raw["rope_scaling"] | {TRAINED: found.trained}
        if isinstance(
            found, rotary.LongRope
        ):  # version 4 looks for the one beside the table, and knows no other factor
            raw["rope_scaling"]["attention_factor"] = found.sharpness
            raw[TRAINED] = found.trained
        return raw

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head_dim is None and self.hidden_size % self.num_heads:
            raise InvalidInput(f"hidden_size {self.hidden_size} does not split into {self.num_heads} attention heads")
        if self.num_heads % self.kv_heads:
            raise InvalidInput(
                f"{self.num_heads} attention heads cannot share num_key_value_heads={self.kv_heads} evenly"
            )
        if self.head_size % 2:
            raise InvalidInput(f"heads of size {self.head_size} cannot be rotated; wanted an even head_dim")
        self.only(partial_rotary_factor=1.0, is_causal=True)
        _ = self.rotary  # checked now, not at the first forward pass

    @property
    def kv_heads(self) -> int:
        return self.num_heads if self.shared_heads is None else self.shared_heads

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_heads if self.head_dim is None else self.head_dim

    @property
    def qkv_bias(self) -> bool:
        return self.attention_bias

    def window(self, layer: int) -> int | None:
        """How many tokens a token of that layer looks at, itself included; None: all."""
        return None

    @cached_property
    def rotary(self) -> Rotary:
        return _rotary(self)

    @property
    def max_tokens(self) -> int:
        return min(self.rotary.reach(self.max_positions), limits.POSITIONS)

    @property
    def head_dropout(self) -> float:
        return 0.1 if self.classifier_dropout is None else self.classifier_dropout


@dataclass(frozen=True, kw_only=True)
class MistralConfig(Config):
    intermediate_size: int = hf("intermediate_size", 14336, most=limits.VOCABULARY)
    shared_heads: int | None = hf("num_key_value_heads", 8)
    max_positions: int = hf("max_position_embeddings", 131072, most=limits.POSITIONS)
    sliding_window: int | None = hf("sliding_window", 4096, most=limits.POSITIONS)

    def window(self, layer: int) -> int | None:
        return self.sliding_window


@dataclass(frozen=True, kw_only=True)
class Qwen2Config(Config):
    vocab_size: int = hf("vocab_size", 151936, most=limits.VOCABULARY)
    intermediate_size: int = hf("intermediate_size", 22016, most=limits.VOCABULARY)
    shared_heads: int | None = hf("num_key_value_heads", 32)
    max_positions: int = hf("max_position_embeddings", 32768, most=limits.POSITIONS)
    windowed: bool = hf("use_sliding_window", False)
    sliding_window: int | None = hf("sliding_window", 4096, most=limits.POSITIONS)
    full_layers: int = hf("max_window_layers", 28, least=0, most=limits.LAYERS)  # so many, the first ones, see all
    layer_types: list | None = hf("layer_types", None)  # "full_attention" or "sliding_attention" of each layer

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer_types is not None:
            if len(self.layer_types) != self.num_layers or not {*map(str, self.layer_types)} <= {FULL, SLIDING}:
                raise InvalidInput(
                    f"config layer_types is {show(self.layer_types)}, wanted {FULL} or {SLIDING} for each of "
                    f"{self.num_layers} layers; mend config.json"
                )
            if SLIDING in self.layer_types and not (self.windowed and self.sliding_window):
                raise InvalidInput("config layer_types asks for a window, but use_sliding_window gives none")

    @property
    def qkv_bias(self) -> bool:
        return True

    def window(self, layer: int) -> int | None:
        if not self.windowed:
            return None
        slides = layer >= self.full_layers if self.layer_types is None else self.layer_types[layer] == SLIDING
        return self.sliding_window if slides else None


# How positions are stretched. Version 4 of the reference writes `rope_scaling`, with `rope_theta` beside it; version 5
# writes both into `rope_parameters`, and reads the older spelling too, which is therefore the one we write.


def _in_one_spelling(raw: dict[str, Any]) -> dict[str, Any]:
    """config.json with `rope_theta` and `rope_scaling`, whichever way it was spelled."""
    given = (raw.get("rope_scaling"), raw.get("rope_parameters"))
    found: Any = next((table for table in given if table not in (None, {})), {})
    if not isinstance(found, dict) or any(isinstance(value, dict) for value in found.values()):
        raise InvalidInput(f"config rope_scaling is {show(found)}, wanted one table of numbers; mend config.json")
    rest = {key: value for key, value in raw.items() if key not in ("rope_scaling", "rope_parameters")}
    scaling = {key: value for key, value in found.items() if key not in BESIDE}
    beside = {key: found[key] for key in BESIDE if found.get(key) is not None}
    return rest | beside | {"rope_scaling": None if _type_of(scaling) == "default" else scaling}


def _type_of(scaling: dict[str, Any]) -> Any:
    new, old = scaling.get("rope_type"), scaling.get("type")  # the second is the older name; files may hold both
    if new is not None and old is not None and new != old:
        raise InvalidInput(f"config rope_scaling has the types {show(new)} and {show(old)}; leave one of them")
    if not (new or old) and scaling:
        raise InvalidInput(f"config rope_scaling names no type beside {some(list(scaling))}; add rope_type")
    return new or old or "default"


def _rotary(c: Config) -> Rotary:
    """Raises Unsupported for a type that there is no mathematics for, InvalidInput for numbers out of bounds."""
    scaling = c.rope_scaling or {}
    if c.rope_theta <= 1:
        raise InvalidInput(f"config rope_theta={show(c.rope_theta)}, wanted more than 1; mend config.json")
    size, theta = c.head_size, float(c.rope_theta)
    beside = c.extra.get(TRAINED)  # goes before the one in the table
    trained = int(_number({TRAINED: beside} if beside is not None else scaling, TRAINED, c.max_positions, least=2))
    match _type_of(scaling):
        case "default":
            return Rotary(size=size, theta=theta)
        case "linear":
            return rotary.Linear(size=size, theta=theta, factor=_number(scaling, "factor"))
        case "dynamic" if size > 2:
            factor = _number(scaling, "factor", least=1)
            return rotary.Dynamic(size=size, theta=theta, factor=factor, trained=c.max_positions)
        case "llama3":
            factor, low, high = (_number(scaling, key) for key in ("factor", "low_freq_factor", "high_freq_factor"))
            if low >= high:
                raise InvalidInput(f"config rope_scaling has low_freq_factor={low}, wanted less than {high}")
            return rotary.Llama3(size=size, theta=theta, factor=factor, trained=trained, low=low, high=high)
        case "yarn":
            factor = _number(scaling, "factor")
            sharp = [_sharpness(factor, _number(scaling, key, 0, least=0)) for key in ("mscale", "mscale_all_dim")]
            both = scaling.get("mscale") and scaling.get("mscale_all_dim")
            return rotary.Yarn(
                size=size,
                theta=theta,
                factor=factor,
                trained=trained,
                fast=_number(scaling, "beta_fast", 32),
                slow=_number(scaling, "beta_slow", 1),
                sharpness=_number(
                    scaling, "attention_factor", sharp[0] / sharp[1] if both else _sharpness(factor, 1), least=0
                ),
                truncate=scaling.get("truncate") is not False,
            )
        case "longrope":
            factor = _number(scaling, "factor", c.max_positions / trained)
            wanted = math.sqrt(1 + math.log(factor) / math.log(trained)) if factor > 1 else 1.0
            return rotary.LongRope(
                size=size,
                theta=theta,
                trained=trained,
                short=_numbers(scaling, "short_factor", size // 2),
                long=_numbers(scaling, "long_factor", size // 2),
                sharpness=_number(scaling, "attention_factor", wanted, least=0),
            )
        case other:
            raise Unsupported(f"config rope_scaling type {show(other)} is not implemented for heads of size {size}")


def _sharpness(factor: float, scale: float) -> float:
    """Peng et al. 2023, equation 22; `scale` is DeepSeek's."""
    return 0.1 * scale * math.log(factor) + 1 if factor > 1 else 1.0


def _number(scaling: dict[str, Any], key: str, default: float | None = None, *, least: float = 1e-6) -> float:
    value: Any = default if scaling.get(key) is None else scaling[key]
    if type(value) not in (int, float) or not least <= value <= limits.ROTARY_BASE:
        raise InvalidInput(
            f"config rope_scaling has {key}={show(value)}, wanted a number in {least:g}..{limits.ROTARY_BASE:,}; "
            "mend config.json"
        )
    return float(value)


def _numbers(scaling: dict[str, Any], key: str, count: int) -> tuple[float, ...]:
    values = scaling.get(key)
    if not isinstance(values, list) or len(values) != count:
        raise InvalidInput(f"config rope_scaling has {key}={show(values)}, wanted {count} numbers; mend config.json")
    return tuple(_number({key: value}, key) for value in values)


class Attention(nn.Module):
    """Each token onto itself and those before it; several heads share keys and values."""

    def __init__(self, c: Config, layer: int):
        super().__init__()
        self.head_size, self.dropout, self.window = c.head_size, c.attention_dropout, c.window(layer)
        self.q = nn.Linear(c.hidden_size, c.num_heads * c.head_size, bias=c.qkv_bias)
        self.k = nn.Linear(c.hidden_size, c.kv_heads * c.head_size, bias=c.qkv_bias)
        self.v = nn.Linear(c.hidden_size, c.kv_heads * c.head_size, bias=c.qkv_bias)
        self.out = nn.Linear(c.num_heads * c.head_size, c.hidden_size, bias=c.attention_bias)

    def forward(self, x: Tensor, rotation: Rotation, mask: Tensor | None, past: Past) -> Tensor:
        q, k, v = (
            made(x).unflatten(-1, (-1, self.head_size)).transpose(1, 2)  # (B, H or K, T, E)
            for made in (self.q, self.k, self.v)
        )
        q, k = rotate(q, rotation), rotate(k, rotation)
        k, v = past.extend(k, v, self.window)
        y = attend(q, k, v, mask, dropout=self.dropout if self.training else 0.0)
        return self.out(y.transpose(1, 2).flatten(2))  # (B, T, D)


class Block(nn.Module):
    """Attention, then feed-forward, each on what a norm makes of the sum so far."""

    def __init__(self, c: Config, layer: int):
        super().__init__()
        self.attention_norm = RMSNorm(c.hidden_size, c.norm_eps)
        self.attention = Attention(c, layer)
        self.feed_forward_norm = RMSNorm(c.hidden_size, c.norm_eps)
        self.feed_forward = GatedFeedForward(c.hidden_size, c.intermediate_size, c.activation, bias=c.feed_forward_bias)

    def forward(self, x: Tensor, rotation: Rotation, mask: Tensor | None, past: Past) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rotation, mask, past)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Model(Network):
    """The decoder, and on top of it whichever head was asked for."""

    INPUTS = ("input_ids", "attention_mask")

    def __init__(self, c: Config, head: Head):
        super().__init__()
        self.config = c
        self.token = nn.Embedding(c.vocab_size, c.hidden_size)
        self.blocks = nn.ModuleList(Block(c, layer) for layer in range(c.num_layers))
        self.norm = RMSNorm(c.hidden_size, c.norm_eps)
        self.head = head.make(c, self.token)
        self.windows = [c.window(layer) for layer in range(c.num_layers)]

    def features(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *, cache: Cache | None = None
    ) -> Tensor:
        """(B, T) of the tokens that come after those in the cache -> (B, T, D).

        `attention_mask`: (B, S), of the tokens in the cache too; numbers other than 0 and 1 tell apart texts that share
        a row. Raises LimitExceeded for more tokens than the model has positions.
        """
        slots = Slots(input_ids, attention_mask, cache)
        check_length(slots.longest, self.config.max_tokens)
        x = look_up(self.token, input_ids, "token id")  # (B, T, D)
        rotation = self.config.rotary(slots.positions, slots.lengths, x.dtype)
        masks = {window: slots.mask(window) for window in {*self.windows}}
        for layer, (block, window) in enumerate(zip(self.blocks, self.windows, strict=True)):
            x = block(x, rotation, masks[window], slots[layer])
        return self.norm(x)

    def reads_as(self, length: int) -> int:
        return self.config.rotary.kind(length)


HEADS = {
    "LlamaModel": TRUNK,
    "LlamaForCausalLM": NEXT_WORDS,
    "LlamaForSequenceClassification": LAST_LABELS,
    "LlamaForTokenClassification": TOKEN_LABELS,
    "LlamaForQuestionAnswering": SPANS,
}

# fmt: off
WEIGHTS = Layout(
    trunk="model.",
    trunks={"LlamaForQuestionAnswering": "transformer.", "Qwen2ForQuestionAnswering": "transformer."},
    ignored=("model.layers.#.self_attn.rotary_emb.inv_freq",),  # what older files hold
    rows={
        "token.weight":                    "model.embed_tokens.weight",
        "blocks.#.attention_norm.*":       "model.layers.#.input_layernorm.*",
        "blocks.#.attention.q.*":          "model.layers.#.self_attn.q_proj.*",
        "blocks.#.attention.k.*":          "model.layers.#.self_attn.k_proj.*",
        "blocks.#.attention.v.*":          "model.layers.#.self_attn.v_proj.*",
        "blocks.#.attention.out.*":        "model.layers.#.self_attn.o_proj.*",
        "blocks.#.feed_forward_norm.*":    "model.layers.#.post_attention_layernorm.*",
        "blocks.#.feed_forward.gate.*":    "model.layers.#.mlp.gate_proj.*",
        "blocks.#.feed_forward.up.*":      "model.layers.#.mlp.up_proj.*",
        "blocks.#.feed_forward.down.*":    "model.layers.#.mlp.down_proj.*",
        "norm.*":                          "model.norm.*",
        "head.words.weight":               "lm_head.weight",
        "head.labels.weight":              "score.weight",
        "head.tags.*":                     "score.*",
        "head.span.*":                     "qa_outputs.*",
    },
)
# fmt: on

READS = TextFormat(
    single="<s> $A",
    pair="<s> $A <s>:1 $B:1",
    specials={"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
    by_settings=True,
)
# Contractions, words with the character before them, single digits, runs of signs, ends of lines, spaces
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_TEXT = TextFormat(
    single="$A",
    pair="$A $B",
    specials={"unk_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
    split=QWEN2_SPLIT,
)

SIZES: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_layers": 2,
    "num_heads": 4,
    "shared_heads": 2,
    "max_positions": 64,
    "extra": {"pad_token_id": 0},
}
TINY = Config(**SIZES)

ALIASES = {
    "mistral": Alias(prefix="Mistral", reads=READS, tiny=MistralConfig(**SIZES, sliding_window=3)),
    "qwen2": Alias(
        prefix="Qwen2", reads=QWEN2_TEXT, tiny=Qwen2Config(**SIZES, windowed=True, sliding_window=3, full_layers=1)
    ),
}
