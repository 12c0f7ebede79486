"""BERT: a bidirectional encoder with learned positions and post-norm blocks.

Devlin et al. 2018, https://arxiv.org/abs/1810.04805

Shapes: B sequences, T tokens, D hidden size, V vocabulary, L labels, C choices.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from triarch import config, limits
from triarch.config import hf
from triarch.errors import InvalidInput
from triarch.family import POOLED_TRUNK, SPANS, TOKEN_LABELS, EncoderNetwork, Head
from triarch.inputs.text.format import TextFormat
from triarch.kinds import (
    ChoiceScores,
    FollowsScores,
    LabelScores,
    PretrainingScores,
    WordScores,
)
from triarch.layers.attention import Attention, padding_mask
from triarch.layers.dropout import Dropout
from triarch.layers.embeddings import check_length, look_up
from triarch.layers.encoder import Encoder
from triarch.layers.feed_forward import ACTIVATIONS, FeedForward
from triarch.layers.heads import Choices, Labels, MaskedWords, Pooler, Words
from triarch.weights import Layout, Stored


@dataclass(frozen=True, kw_only=True)
class Config(config.Config):
    vocab_size: int = hf("vocab_size", 30522, most=limits.VOCABULARY)
    hidden_size: int = hf("hidden_size", 768)
    num_layers: int = hf("num_hidden_layers", 12, most=limits.LAYERS)
    num_heads: int = hf("num_attention_heads", 12)
    intermediate_size: int = hf("intermediate_size", 3072, most=limits.VOCABULARY)
    max_positions: int = hf("max_position_embeddings", 512, most=limits.POSITIONS)
    type_vocab_size: int = hf("type_vocab_size", 2)
    activation: str = hf("hidden_act", "gelu", choices=tuple(ACTIVATIONS))
    dropout: float = hf("hidden_dropout_prob", 0.1, most=1)
    attention_dropout: float = hf("attention_probs_dropout_prob", 0.1, most=1)
    classifier_dropout: float | None = hf("classifier_dropout", None, most=1)  # None: as `dropout`
    norm_eps: float = hf("layer_norm_eps", 1e-12)
    initializer_range: float = hf("initializer_range", 0.02)
    tied: bool = hf("tie_word_embeddings", True)  # the output layer shares the token embedding

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size % self.num_heads:
            raise InvalidInput(f"hidden_size {self.hidden_size} does not split into {self.num_heads} attention heads")
        self.only(position_embedding_type="absolute", is_decoder=False, add_cross_attention=False)

    @property
    def max_tokens(self) -> int:
        return self.max_positions

    @property
    def head_dropout(self) -> float:
        return self.dropout if self.classifier_dropout is None else self.classifier_dropout


class Embeddings(nn.Module):
    """Token, position and segment vectors, summed and normalised."""

    def __init__(self, c: Config):
        super().__init__()
        self.token = nn.Embedding(c.vocab_size, c.hidden_size)
        self.position = nn.Embedding(c.max_positions, c.hidden_size)
        self.segment = nn.Embedding(c.type_vocab_size, c.hidden_size)
        self.norm = nn.LayerNorm(c.hidden_size, c.norm_eps)
        self.dropout = Dropout(c.dropout)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        vectors, T = look_up(self.token, input_ids, "token id"), input_ids.shape[1]
        check_length(T, self.position.num_embeddings)
        segments = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        x = vectors + look_up(self.segment, segments, "token type id")
        return self.dropout(self.norm(x + self.position.weight[:T]))  # (B, T, D)


class Block(nn.Module):
    """Attention, then feed-forward; each is added to its input, and a norm follows the sum."""

    def __init__(self, c: Config):
        super().__init__()
        self.attention = Attention(c.hidden_size, c.num_heads, dropout=c.attention_dropout)
        self.attention_norm = nn.LayerNorm(c.hidden_size, c.norm_eps)
        self.feed_forward = FeedForward(c.hidden_size, c.intermediate_size, c.activation)
        self.feed_forward_norm = nn.LayerNorm(c.hidden_size, c.norm_eps)
        self.dropout = Dropout(c.dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attention_norm(x + self.dropout(self.attention(x, mask)))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))


class Model(EncoderNetwork):
    """The encoder, and on top of it whichever head was asked for."""

    INPUTS = ("input_ids", "attention_mask", "token_type_ids")

    def __init__(self, c: Config, head: Head):
        super().__init__()
        self.config = c
        self.embeddings = Embeddings(c)
        self.encoder = Encoder(Block(c) for _ in range(c.num_layers))
        self.head = head.make(c, self.embeddings.token)

    def embedded(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        return self.embeddings(input_ids, token_type_ids), padding_mask(attention_mask)


class Follows(nn.Module):
    """Whether the second segment follows the first. Section 3.1"""

    def __init__(self, pooler: Pooler):
        super().__init__()
        self.pooler = pooler
        self.follows = nn.Linear(pooler.dense.out_features, 2)

    def forward(self, first: Tensor) -> Tensor:
        return self.follows(self.pooler(first))  # (B, 2)


class Pretraining(nn.Module):
    """Masked words and next sentence together."""

    def __init__(self, pooler: Pooler, words: Words):
        super().__init__()
        self.pooler, self.words = pooler, words
        self.follows = nn.Linear(pooler.dense.out_features, 2)

    def forward(self, x: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        return self.words(x), self.follows(self.pooler(first))


def _words(c: Config, token: nn.Embedding) -> Words:
    return Words(c.hidden_size, c.vocab_size, c.activation, c.norm_eps, token if c.tied else None)


HEADS = {
    "BertModel": POOLED_TRUNK,
    "BertForPreTraining": Head(
        PretrainingScores,
        lambda c, token: Pretraining(Pooler(c.hidden_size), _words(c, token)),
        reads="all and first",
    ),
    "BertForMaskedLM": Head(WordScores, lambda c, token: MaskedWords(_words(c, token))),
    "BertForNextSentencePrediction": Head(FollowsScores, lambda c, _: Follows(Pooler(c.hidden_size)), reads="first"),
    "BertForSequenceClassification": Head(
        LabelScores,
        lambda c, _: Labels(c.hidden_size, c.num_labels, c.head_dropout, pooler=Pooler(c.hidden_size)),
        reads="first",
    ),
    "BertForMultipleChoice": Head(
        ChoiceScores, lambda c, _: Choices(c.hidden_size, c.head_dropout, Pooler(c.hidden_size)), reads="first"
    ),
    "BertForTokenClassification": TOKEN_LABELS,
    "BertForQuestionAnswering": SPANS,
}

# fmt: off
WEIGHTS = Layout(
    trunk="bert.",
    renamed={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
    ignored=("bert.embeddings.position_ids",),
    rows={
        "embeddings.token.weight":              "bert.embeddings.word_embeddings.weight",
        "embeddings.position.weight":           "bert.embeddings.position_embeddings.weight",
        "embeddings.segment.weight":            "bert.embeddings.token_type_embeddings.weight",
        "embeddings.norm.*":                    "bert.embeddings.LayerNorm.*",
        "encoder.blocks.#.attention.q.*":       "bert.encoder.layer.#.attention.self.query.*",
        "encoder.blocks.#.attention.k.*":       "bert.encoder.layer.#.attention.self.key.*",
        "encoder.blocks.#.attention.v.*":       "bert.encoder.layer.#.attention.self.value.*",
        "encoder.blocks.#.attention.out.*":     "bert.encoder.layer.#.attention.output.dense.*",
        "encoder.blocks.#.attention_norm.*":    "bert.encoder.layer.#.attention.output.LayerNorm.*",
        "encoder.blocks.#.feed_forward.up.*":   "bert.encoder.layer.#.intermediate.dense.*",
        "encoder.blocks.#.feed_forward.down.*": "bert.encoder.layer.#.output.dense.*",
        "encoder.blocks.#.feed_forward_norm.*": "bert.encoder.layer.#.output.LayerNorm.*",
        "head.pooler.dense.*":                  "bert.pooler.dense.*",
        "head.words.dense.*":                   "cls.predictions.transform.dense.*",
        "head.words.norm.*":                    "cls.predictions.transform.LayerNorm.*",
        "head.words.out.bias":                  Stored("cls.predictions.bias", copy="cls.predictions.decoder.bias"),
        "head.words.out.weight":                "cls.predictions.decoder.weight",
        "head.follows.*":                       "cls.seq_relationship.*",
        "head.labels.*":                        "classifier.*",
        "head.choice.*":                        "classifier.*",
        "head.tags.*":                          "classifier.*",
        "head.span.*":                          "qa_outputs.*",
    },
)
# fmt: on

READS = TextFormat(
    single="[CLS] $A [SEP]",
    pair="[CLS] $A [SEP] $B:1 [SEP]:1",
    specials={
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    },
    segments=True,
    lowercase=True,
)

TINY = Config(vocab_size=99, hidden_size=32, num_layers=2, num_heads=4, intermediate_size=37, max_positions=16)
