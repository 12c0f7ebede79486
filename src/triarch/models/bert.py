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
from triarch.family import Network, TextFormat
from triarch.kinds import (
    ChoiceScores,
    Features,
    FollowsScores,
    LabelScores,
    PretrainingScores,
    Scores,
    SpanScores,
    TokenScores,
    WordScores,
)
from triarch.layers.attention import padding_mask
from triarch.layers.dropout import Dropout
from triarch.layers.embeddings import check_length, fold, look_up
from triarch.layers.encoder import Block, Encoder
from triarch.layers.feed_forward import ACTIVATIONS
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
    tied: bool = hf("tie_word_embeddings", True)  # words are read off with the token embedding itself

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
        T = input_ids.shape[1]
        check_length(T, self.position.num_embeddings)
        segments = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        x = look_up(self.token, input_ids, "token id") + look_up(self.segment, segments, "token type id")
        return self.dropout(self.norm(x + self.position.weight[:T]))  # (B, T, D)


class Model(Network):
    """The encoder, and on top of it whichever head was asked for."""

    def __init__(self, c: Config, head: type[nn.Module]):
        super().__init__()
        self.config = c
        self.embeddings = Embeddings(c)
        self.encoder = Encoder(
            Block(
                c.hidden_size,
                c.num_heads,
                c.intermediate_size,
                c.activation,
                norm_eps=c.norm_eps,
                attention_dropout=c.attention_dropout,
                attention_out_dropout=c.dropout,
                feed_forward_dropout=c.dropout,
            )
            for _ in range(c.num_layers)
        )
        self.head = head(c, self.embeddings)

    def features(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        mask = None if attention_mask is None else padding_mask(attention_mask)
        return self.encoder(self.embeddings(input_ids, token_type_ids), mask)  # (B, T, D)

    def attention_maps(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> list[Tensor]:
        """Where each token looks, for people to see: (B, H, T, T) of each block."""
        mask = None if attention_mask is None else padding_mask(attention_mask)
        return self.encoder.attention_maps(self.embeddings(input_ids, token_type_ids), mask)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        positions: Tensor | None = None,
    ) -> Scores:
        """(B, T), or (B, C, T) for multiple choice -> the scores of the head.

        A head that scores words does so only at `positions`, (B, T) of truth values, if they are given.
        """
        x = self.features(fold(input_ids), fold(attention_mask), fold(token_type_ids))
        x = x.unflatten(0, input_ids.shape[:-1])
        return self.head(x) if positions is None else self.head(x, positions)


# Heads: each maps features (B, T, D) to the scores of its task.


class Pooler(nn.Module):
    """The summary vector: the first token through a tanh layer."""

    def __init__(self, c: Config):
        super().__init__()
        self.dense = nn.Linear(c.hidden_size, c.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x[..., 0, :]).tanh()  # (B, D)


class Words(nn.Module):
    """A score for every word at every position."""

    def __init__(self, c: Config, embeddings: Embeddings):
        super().__init__()
        self.dense = nn.Linear(c.hidden_size, c.hidden_size)
        self.activation = ACTIVATIONS[c.activation]
        self.norm = nn.LayerNorm(c.hidden_size, c.norm_eps)
        self.out = nn.Linear(c.hidden_size, c.vocab_size)
        if c.tied:
            self.out.weight = embeddings.token.weight

    def forward(self, x: Tensor, positions: Tensor | None) -> Tensor:
        x = x if positions is None else x[positions]  # (N, D), row by row
        return self.out(self.norm(self.activation(self.dense(x))))  # (B, T, V) or (N, V)


class Trunk(nn.Module):
    OPTIONAL = ("pooler",)  # sentence encoders are often saved without

    def __init__(self, c: Config, embeddings: Embeddings):
        super().__init__()
        self.pooler = Pooler(c)

    def forward(self, x: Tensor) -> Features:
        return Features(x, None if self.pooler is None else self.pooler(x))


class MaskedLM(nn.Module):
    def __init__(self, c: Config, embeddings: Embeddings):
        super().__init__()
        self.words = Words(c, embeddings)

    def forward(self, x: Tensor, positions: Tensor | None = None) -> WordScores:
        return WordScores(self.words(x, positions))


class NextSentence(nn.Module):
    def __init__(self, c: Config, embeddings: Embeddings):
        super().__init__()
        self.pooler = Pooler(c)
        self.follows = nn.Linear(c.hidden_size, 2)

    def forward(self, x: Tensor) -> FollowsScores:
        return FollowsScores(self.follows(self.pooler(x)))


class Pretraining(nn.Module):
    def __init__(self, c: Config, embeddings: Embeddings):
        super().__init__()
        self.pooler = Pooler(c)
        self.words = Words(c, embeddings)
        self.follows = nn.Linear(c.hidden_size, 2)

    def forward(self, x: Tensor, positions: Tensor | None = None) -> PretrainingScores:
        return PretrainingScores(self.words(x, positions), self.follows(self.pooler(x)))


class SequenceClassifier(nn.Module):
    def __init__(self, c: Config, embeddings: Embeddings):
        super().__init__()
        self.pooler = Pooler(c)
        self.dropout = Dropout(c.head_dropout)
        self.labels = nn.Linear(c.hidden_size, c.num_labels)

    def forward(self, x: Tensor) -> LabelScores:
        return LabelScores(self.labels(self.dropout(self.pooler(x))))  # (B, L)


class MultipleChoice(nn.Module):
    def __init__(self, c: Config, embeddings: Embeddings):
        super().__init__()
        self.pooler = Pooler(c)
        self.dropout = Dropout(c.head_dropout)
        self.choice = nn.Linear(c.hidden_size, 1)

    def forward(self, x: Tensor) -> ChoiceScores:
        return ChoiceScores(self.choice(self.dropout(self.pooler(x))).squeeze(-1))  # (B, C, T, D) -> (B, C)


class TokenClassifier(nn.Module):
    def __init__(self, c: Config, embeddings: Embeddings):
        super().__init__()
        self.dropout = Dropout(c.head_dropout)
        self.tags = nn.Linear(c.hidden_size, c.num_labels)

    def forward(self, x: Tensor) -> TokenScores:
        return TokenScores(self.tags(self.dropout(x)))  # (B, T, L)


class QuestionAnswering(nn.Module):
    def __init__(self, c: Config, embeddings: Embeddings):
        super().__init__()
        self.span = nn.Linear(c.hidden_size, 2)

    def forward(self, x: Tensor) -> SpanScores:
        return SpanScores(*self.span(x).unbind(-1))  # (B, T) each


HEADS = {
    "BertModel": Trunk,
    "BertForPreTraining": Pretraining,
    "BertForMaskedLM": MaskedLM,
    "BertForNextSentencePrediction": NextSentence,
    "BertForSequenceClassification": SequenceClassifier,
    "BertForMultipleChoice": MultipleChoice,
    "BertForTokenClassification": TokenClassifier,
    "BertForQuestionAnswering": QuestionAnswering,
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

TEXT = TextFormat(
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
