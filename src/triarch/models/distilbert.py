"""DistilBERT: half of BERT's blocks, no segments, no pooler, trained to imitate the whole one.

Sanh et al. 2019, https://arxiv.org/abs/1910.01108

Shapes: B sequences, T tokens, D hidden size, V vocabulary, L labels, C choices.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from triarch import config, limits
from triarch.config import hf
from triarch.errors import InvalidInput
from triarch.family import Network, TextFormat
from triarch.kinds import ChoiceScores, Features, LabelScores, Scores, SpanScores, TokenScores, WordScores
from triarch.layers.attention import padding_mask
from triarch.layers.dropout import Dropout
from triarch.layers.embeddings import check_length, fold, look_up
from triarch.layers.encoder import Block, Encoder
from triarch.layers.feed_forward import ACTIVATIONS
from triarch.layers.positions import sinusoids
from triarch.weights import Layout

NORM_EPS = 1e-12  # not in the config


@dataclass(frozen=True, kw_only=True)
class Config(config.Config):
    vocab_size: int = hf("vocab_size", 30522, most=limits.VOCABULARY)
    hidden_size: int = hf("dim", 768, also="hidden_size")
    num_layers: int = hf("n_layers", 6, most=limits.LAYERS, also="num_hidden_layers")
    num_heads: int = hf("n_heads", 12, also="num_attention_heads")
    intermediate_size: int = hf("hidden_dim", 3072, most=limits.VOCABULARY)
    max_positions: int = hf("max_position_embeddings", 512, most=limits.POSITIONS)
    sinusoidal: bool = hf("sinusoidal_pos_embds", False)  # how positions start; either way the file holds them
    activation: str = hf("activation", "gelu", choices=tuple(ACTIVATIONS))
    dropout: float = hf("dropout", 0.1, most=1)
    attention_dropout: float = hf("attention_dropout", 0.1, most=1)
    qa_dropout: float = hf("qa_dropout", 0.1, most=1)
    classifier_dropout: float = hf("seq_classif_dropout", 0.2, most=1)
    initializer_range: float = hf("initializer_range", 0.02)
    tied: bool = hf("tie_word_embeddings", True)  # words are read off with the token embedding itself

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size % self.num_heads:
            raise InvalidInput(f"dim {self.hidden_size} does not split into {self.num_heads} attention heads")

    @property
    def max_tokens(self) -> int:
        return self.max_positions


class Embeddings(nn.Module):
    """Token and position vectors, summed and normalised."""

    def __init__(self, c: Config):
        super().__init__()
        self.token = nn.Embedding(c.vocab_size, c.hidden_size)
        self.position = nn.Embedding(c.max_positions, c.hidden_size)
        self.norm = nn.LayerNorm(c.hidden_size, NORM_EPS)
        self.dropout = Dropout(c.dropout)

    def forward(self, input_ids: Tensor) -> Tensor:
        T = input_ids.shape[1]
        check_length(T, self.position.num_embeddings)
        x = look_up(self.token, input_ids, "token id") + self.position.weight[:T]
        return self.dropout(self.norm(x))  # (B, T, D)


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
                norm_eps=NORM_EPS,
                attention_dropout=c.attention_dropout,
                attention_out_dropout=0.0,
                feed_forward_dropout=c.dropout,
            )
            for _ in range(c.num_layers)
        )
        self.head = head(c, self.embeddings)

    def features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        mask = None if attention_mask is None else padding_mask(attention_mask)
        return self.encoder(self.embeddings(input_ids), mask)  # (B, T, D)

    def attention_maps(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> list[Tensor]:
        """Where each token looks, for people to see: (B, H, T, T) of each block."""
        mask = None if attention_mask is None else padding_mask(attention_mask)
        return self.encoder.attention_maps(self.embeddings(input_ids), mask)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *, positions: Tensor | None = None
    ) -> Scores:
        """(B, T), or (B, C, T) for multiple choice -> the scores of the head.

        A head that scores words does so only at `positions`, (B, T) of truth values, if they are given.
        """
        x = self.features(fold(input_ids), fold(attention_mask)).unflatten(0, input_ids.shape[:-1])
        return self.head(x) if positions is None else self.head(x, positions)

    def initialize(self, module: nn.Module) -> None:
        super().initialize(module)
        if module is self.embeddings and self.config.sinusoidal:
            with torch.no_grad():
                self.embeddings.position.weight.copy_(sinusoids(self.config.max_positions, self.config.hidden_size))


# Heads: each maps features (B, T, D) to the scores of its task.


class Trunk(nn.Module):
    def __init__(self, c: Config, embeddings: Embeddings):
        super().__init__()

    def forward(self, x: Tensor) -> Features:
        return Features(x)


class MaskedLM(nn.Module):
    """A score for every word at every position."""

    def __init__(self, c: Config, embeddings: Embeddings):
        super().__init__()
        self.transform = nn.Linear(c.hidden_size, c.hidden_size)
        self.activation = ACTIVATIONS[c.activation]
        self.norm = nn.LayerNorm(c.hidden_size, NORM_EPS)
        self.out = nn.Linear(c.hidden_size, c.vocab_size)
        if c.tied:
            self.out.weight = embeddings.token.weight

    def forward(self, x: Tensor, positions: Tensor | None = None) -> WordScores:
        x = x if positions is None else x[positions]  # (N, D), row by row
        return WordScores(self.out(self.norm(self.activation(self.transform(x)))))  # (B, T, V) or (N, V)


class SequenceClassifier(nn.Module):
    def __init__(self, c: Config, embeddings: Embeddings):
        super().__init__()
        self.dense = nn.Linear(c.hidden_size, c.hidden_size)
        self.dropout = Dropout(c.classifier_dropout)
        self.labels = nn.Linear(c.hidden_size, c.num_labels)

    def forward(self, x: Tensor) -> LabelScores:
        return LabelScores(self.labels(self.dropout(self.dense(x[..., 0, :]).relu())))  # (B, L)


class MultipleChoice(nn.Module):
    def __init__(self, c: Config, embeddings: Embeddings):
        super().__init__()
        self.dense = nn.Linear(c.hidden_size, c.hidden_size)
        self.dropout = Dropout(c.classifier_dropout)
        self.choice = nn.Linear(c.hidden_size, 1)

    def forward(self, x: Tensor) -> ChoiceScores:
        summary = self.dense(x[..., 0, :]).relu()  # (B, C, D)
        return ChoiceScores(self.choice(self.dropout(summary)).squeeze(-1))  # (B, C)


class TokenClassifier(nn.Module):
    def __init__(self, c: Config, embeddings: Embeddings):
        super().__init__()
        self.dropout = Dropout(c.dropout)
        self.tags = nn.Linear(c.hidden_size, c.num_labels)

    def forward(self, x: Tensor) -> TokenScores:
        return TokenScores(self.tags(self.dropout(x)))  # (B, T, L)


class QuestionAnswering(nn.Module):
    def __init__(self, c: Config, embeddings: Embeddings):
        super().__init__()
        self.dropout = Dropout(c.qa_dropout)
        self.span = nn.Linear(c.hidden_size, 2)

    def forward(self, x: Tensor) -> SpanScores:
        return SpanScores(*self.span(self.dropout(x)).unbind(-1))  # (B, T) each


HEADS = {
    "DistilBertModel": Trunk,
    "DistilBertForMaskedLM": MaskedLM,
    "DistilBertForSequenceClassification": SequenceClassifier,
    "DistilBertForMultipleChoice": MultipleChoice,
    "DistilBertForTokenClassification": TokenClassifier,
    "DistilBertForQuestionAnswering": QuestionAnswering,
}

# fmt: off
WEIGHTS = Layout(
    trunk="distilbert.",
    renamed={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
    ignored=("distilbert.embeddings.position_ids",),
    rows={
        "embeddings.token.weight":              "distilbert.embeddings.word_embeddings.weight",
        "embeddings.position.weight":           "distilbert.embeddings.position_embeddings.weight",
        "embeddings.norm.*":                    "distilbert.embeddings.LayerNorm.*",
        "encoder.blocks.#.attention.q.*":       "distilbert.transformer.layer.#.attention.q_lin.*",
        "encoder.blocks.#.attention.k.*":       "distilbert.transformer.layer.#.attention.k_lin.*",
        "encoder.blocks.#.attention.v.*":       "distilbert.transformer.layer.#.attention.v_lin.*",
        "encoder.blocks.#.attention.out.*":     "distilbert.transformer.layer.#.attention.out_lin.*",
        "encoder.blocks.#.attention_norm.*":    "distilbert.transformer.layer.#.sa_layer_norm.*",
        "encoder.blocks.#.feed_forward.up.*":   "distilbert.transformer.layer.#.ffn.lin1.*",
        "encoder.blocks.#.feed_forward.down.*": "distilbert.transformer.layer.#.ffn.lin2.*",
        "encoder.blocks.#.feed_forward_norm.*": "distilbert.transformer.layer.#.output_layer_norm.*",
        "head.transform.*":                     "vocab_transform.*",
        "head.norm.*":                          "vocab_layer_norm.*",
        "head.out.*":                           "vocab_projector.*",
        "head.dense.*":                         "pre_classifier.*",
        "head.labels.*":                        "classifier.*",
        "head.choice.*":                        "classifier.*",
        "head.tags.*":                          "classifier.*",
        "head.span.*":                          "qa_outputs.*",
    },
)
# fmt: on

TEXT = TextFormat(
    single="[CLS] $A [SEP]",
    pair="[CLS] $A [SEP] $B [SEP]",
    specials={
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    },
    lowercase=True,
)

TINY = Config(vocab_size=99, hidden_size=32, num_layers=2, num_heads=4, intermediate_size=37, max_positions=16)
