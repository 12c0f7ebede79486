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
from triarch.family import TRUNK, EncoderNetwork, Head
from triarch.inputs.text.format import TextFormat
from triarch.kinds import ChoiceScores, LabelScores, SpanScores, TokenScores, WordScores
from triarch.layers.attention import Attention, padding_mask
from triarch.layers.dropout import Dropout
from triarch.layers.embeddings import check_length, look_up
from triarch.layers.encoder import Encoder
from triarch.layers.feed_forward import ACTIVATIONS, FeedForward
from triarch.layers.heads import Choices, DeepLabels, MaskedWords, Pooler, Spans, TokenLabels, Words
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
    tied: bool = hf("tie_word_embeddings", True)  # the output layer shares the token embedding

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
        x, T = look_up(self.token, input_ids, "token id"), input_ids.shape[1]
        check_length(T, self.position.num_embeddings)
        return self.dropout(self.norm(x + self.position.weight[:T]))  # (B, T, D)


class Block(nn.Module):
    """Attention, then feed-forward; each is added to its input, and a norm follows the sum."""

    def __init__(self, c: Config):
        super().__init__()
        self.attention = Attention(c.hidden_size, c.num_heads, dropout=c.attention_dropout)
        self.attention_norm = nn.LayerNorm(c.hidden_size, NORM_EPS)
        self.feed_forward = FeedForward(c.hidden_size, c.intermediate_size, c.activation)
        self.feed_forward_norm = nn.LayerNorm(c.hidden_size, NORM_EPS)
        self.dropout = Dropout(c.dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attention_norm(x + self.attention(x, mask))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))


class Model(EncoderNetwork):
    """The encoder, and on top of it whichever head was asked for."""

    INPUTS = ("input_ids", "attention_mask")

    def __init__(self, c: Config, head: Head):
        super().__init__()
        self.config = c
        self.embeddings = Embeddings(c)
        self.encoder = Encoder(Block(c) for _ in range(c.num_layers))
        self.head = head.make(c, self.embeddings.token)

    def embedded(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return self.embeddings(input_ids), padding_mask(attention_mask)

    def initialize(self, module: nn.Module) -> None:
        super().initialize(module)
        if module is self.embeddings and self.config.sinusoidal:
            with torch.no_grad():
                self.embeddings.position.weight.copy_(sinusoids(self.config.max_positions, self.config.hidden_size))


HEADS = {
    "DistilBertModel": TRUNK,
    "DistilBertForMaskedLM": Head(
        WordScores,
        lambda c, token: MaskedWords(
            Words(c.hidden_size, c.vocab_size, c.activation, NORM_EPS, token if c.tied else None)
        ),
    ),
    "DistilBertForSequenceClassification": Head(
        LabelScores,
        lambda c, _: DeepLabels(c.hidden_size, c.num_labels, c.classifier_dropout, "relu", dropped=False),
        reads="first",
    ),
    "DistilBertForMultipleChoice": Head(
        ChoiceScores,
        lambda c, _: Choices(c.hidden_size, c.classifier_dropout, Pooler(c.hidden_size, "relu")),
        reads="first",
    ),
    "DistilBertForTokenClassification": Head(
        TokenScores, lambda c, _: TokenLabels(c.hidden_size, c.num_labels, c.dropout)
    ),
    "DistilBertForQuestionAnswering": Head(SpanScores, lambda c, _: Spans(c.hidden_size, c.qa_dropout)),
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
        "head.words.dense.*":                   "vocab_transform.*",
        "head.words.norm.*":                    "vocab_layer_norm.*",
        "head.words.out.*":                     "vocab_projector.*",
        "head.dense.*":                         "pre_classifier.*",  # before labels
        "head.pooler.dense.*":                  "pre_classifier.*",  # before choices
        "head.labels.*":                        "classifier.*",
        "head.choice.*":                        "classifier.*",
        "head.tags.*":                          "classifier.*",
        "head.span.*":                          "qa_outputs.*",
    },
)
# fmt: on

READS = TextFormat(
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
