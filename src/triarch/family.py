"""What a family file declares, besides its config and its weight table: its heads, its aliases, its network.

Shapes: B sequences, S tokens of a source, T tokens of a target, D hidden size, C choices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from torch import Tensor, nn

from triarch.config import Config
from triarch.errors import InvalidInput
from triarch.inputs.processor import Format
from triarch.kinds import ChoiceScores, Features, LabelScores, NextWordScores, Scores, SpanScores, TokenScores
from triarch.layers import heads
from triarch.layers.brick import plain
from triarch.layers.cache import Cache
from triarch.layers.embeddings import fold, last_end, last_token
from triarch.layers.encoder import Encoder
from triarch.layers.source import Source

# A Config, and the embedding that an output layer may share: None in a family that has no words
Make = Callable[[Any, Any], nn.Module]


@dataclass(frozen=True)
class Head:
    """One head of a family, under the name that `architectures` in config.json uses."""

    kind: type  # of the scores that it gives, one of `kinds`
    make: Make
    # Which features it is given: of all positions; of the first, or the last that is no padding; of the last end token;
    # of all and, beside them, of the first; or of all that an encoder makes, in a model which then needs no decoder
    reads: Literal["all", "first", "last", "end", "all and first", "encoder"] = "all"
    optional: tuple[str, ...] = ()  # parts that a checkpoint may leave out, and the model then does without
    untied: tuple[str, ...] = ()  # layers that share their weights as config.json says, unless the file holds others
    former: tuple[str, ...] = ()  # names of the same head in older files


# Heads that several families have as they are; they ask their config for its standard names
TRUNK = Head(Features, lambda c, _: heads.Trunk())
POOLED_TRUNK = Head(
    Features, lambda c, _: heads.Trunk(heads.Pooler(c.hidden_size)), reads="all and first", optional=("pooler",)
)
NEXT_WORDS = Head(
    NextWordScores, lambda c, token: heads.NextWords(c.hidden_size, c.vocab_size, token if c.tied else None)
)
LAST_LABELS = Head(LabelScores, lambda c, _: heads.Labels(c.hidden_size, c.num_labels, bias=False), reads="last")
END_LABELS = Head(LabelScores, lambda c, _: heads.DeepLabels(c.hidden_size, c.num_labels, c.head_dropout), reads="end")
TOKEN_LABELS = Head(TokenScores, lambda c, _: heads.TokenLabels(c.hidden_size, c.num_labels, c.head_dropout))
SPANS = Head(SpanScores, lambda c, _: heads.Spans(c.hidden_size))


@dataclass(frozen=True)
class Alias:
    """Another model_type with the same mathematics."""

    prefix: str  # its class names begin with this where the family's own begin with the family's
    reads: Format
    tiny: Config | None = None  # of a Config class of its own, where the same file means something else or has defaults
    heads: tuple[str, ...] | None = None  # which of the family's it has, without the prefix; None: all
    known: bool = True  # the reference library has it too


class Network(nn.Module):
    """What every family's `Model` derives from: a trunk, `features()`, and a head that turns features into scores."""

    INPUTS: ClassVar[tuple[str, ...]]  # names of the tensors that it takes, in the order of positional arguments
    WIDE: ClassVar[tuple[str, ...]] = ()  # patterns of parameters kept in float32 because they overflow in float16
    PRESETS: ClassVar[dict[str, tuple[str, ...]]] = {}  # patterns of parameters that are trained together, by a name
    UNTIED: ClassVar[tuple[str, ...]] = ()  # as `Head.untied`, of the trunk

    config: Any  # the family's Config
    head: nn.Module
    family: Any  # the models.Family it was built from
    architecture: str  # the name of its head, as config.json has it
    processor: Any = None  # raw input -> dict of tensors, and back
    sidecars: dict[str, bytes]  # small files that lay beside the weights and are saved with them
    fresh: Sequence[str] = ()  # our names of the parameters that loading started afresh

    @property
    def declared(self) -> Head:
        """What the family file says of its head."""
        declared: Head = self.family.heads[self.architecture]
        return declared

    @property
    def kind(self) -> type:
        """What kind of scores it gives, one of `kinds`."""
        return self.declared.kind

    def train(self, mode: bool = True) -> Self:
        """Training takes ordinary layers, which the engine may have replaced. Raises as `brick.plain` does."""
        if mode:
            plain(self)
        return super().train(mode)

    def features(self, *args: Any, **kwargs: Any) -> Tensor:
        """Inputs -> (B, T, D), before any head."""
        raise NotImplementedError(f"{type(self).__module__} has no features()")

    def forward(self, *inputs: Any, score_at: Tensor | None = None, **named: Any) -> Scores:
        """The tensors of `INPUTS`, by position or name -> the scores of the head.

        For multiple choice they have the choices as another dimension, (B, C, T). A head that scores every position
        does so only at `score_at`, (B, T) of truth values, if they are given.
        """
        by_place = dict(zip(self.INPUTS, inputs, strict=False))
        if len(inputs) > len(self.INPUTS) or by_place.keys() & named.keys():
            raise TypeError(f"forward() takes {', '.join(self.INPUTS)}, each once")
        named = self.completed(by_place | named)
        if self.kind is ChoiceScores:
            x = self.features(**{name: fold(value) for name, value in named.items()})
            x = x.unflatten(0, named[self.INPUTS[0]].shape[:-1])
        else:
            x = self.features(**named)
        return self.scores(*self._picked(x, named, score_at))

    def scores(self, *features: Tensor) -> Any:
        """Features, as the head reads them -> its scores, of the kind that it declares."""
        given = self.head(*features)
        return self.kind(*given) if isinstance(given, tuple) else self.kind(given)

    def completed(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs of `forward`, with those that follow from the others."""
        return inputs

    def _picked(self, x: Tensor, inputs: dict[str, Any], score_at: Tensor | None) -> tuple[Tensor, ...]:
        match self.declared.reads:
            case "first":
                return (x[..., 0, :],)
            case "last":
                return (last_token(x, inputs.get("attention_mask")),)
            case "end":
                return (last_end(x, inputs["input_ids"], self.config.end_id),)
            case "all and first":
                return x if score_at is None else x[score_at], x[..., 0, :]
            case _:
                return (x if score_at is None else x[score_at],)

    def reads_as(self, length: int) -> int:
        """Prompts may share a KV cache only where this value is equal."""
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


class EncoderNetwork(Network):
    """What embeds its inputs and runs one stack of blocks over them."""

    encoder: Encoder

    def embedded(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """Inputs -> what goes into the first block (B, T, D), and where attention may look, None for everywhere."""
        raise NotImplementedError(f"{type(self).__module__} has no embedded()")

    def features(self, *args: Any, **kwargs: Any) -> Tensor:
        x: Tensor = self.encoder(*self.embedded(*args, **kwargs))
        return x

    def attention_maps(self, *args: Any, **kwargs: Any) -> list[Tensor]:
        """Where each token looks, for people to see: (B, H, T, T) of each block."""
        return self.encoder.attention_maps(*self.embedded(*args, **kwargs))


class EncoderDecoder(Network):
    """What reads a source with its encoder, and writes a target with a decoder that looks at it."""

    INPUTS = ("input_ids", "attention_mask")

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
        """Where each target token looks in the source, for people to see: (B, H, T, S) of each layer of the decoder;
        rows sum to 1."""
        source = self.encode(input_ids, attention_mask)
        source.maps = []
        self.decode(decoder_input_ids, source)
        return source.maps

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

    def completed(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """A target that is missing is the source, shifted; a head of the encoder has none."""
        if self.declared.reads == "encoder":
            return {name: inputs[name] for name in inputs if not name.startswith("decoder_")}
        if inputs.get("decoder_input_ids") is None:
            return inputs | {"decoder_input_ids": self.shifted(inputs["input_ids"])}
        return inputs
