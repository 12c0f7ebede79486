"""RoBERTa: BERT without the next-sentence objective, on byte-level BPE; XLM-R is the same on SentencePiece.

Liu et al. 2019, https://arxiv.org/abs/1907.11692; Conneau et al. 2019, https://arxiv.org/abs/1911.02116

Shapes: B sequences, T tokens, D hidden size, V vocabulary, L labels, C choices.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from triarch import config, limits
from triarch.config import hf
from triarch.errors import InvalidInput
from triarch.family import POOLED_TRUNK, SPANS, TOKEN_LABELS, Alias, EncoderNetwork, Head
from triarch.inputs.text.format import TextFormat
from triarch.kinds import ChoiceScores, LabelScores, WordScores
from triarch.layers.attention import Attention, padding_mask
from triarch.layers.dropout import Dropout
from triarch.layers.embeddings import check_length, look_up
from triarch.layers.encoder import Encoder
from triarch.layers.feed_forward import ACTIVATIONS, FeedForward
from triarch.layers.heads import Choices, DeepLabels, MaskedWords, Pooler, Words
from triarch.weights import Layout, Stored


@dataclass(frozen=True, kw_only=True)
class Config(config.Config):
    vocab_size: int = hf("vocab_size", 50265, most=limits.VOCABULARY)
    hidden_size: int = hf("hidden_size", 768)
    num_layers: int = hf("num_hidden_layers", 12, most=limits.LAYERS)
    num_heads: int = hf("num_attention_heads", 12)
    intermediate_size: int = hf("intermediate_size", 3072, most=limits.VOCABULARY)
    max_positions: int = hf("max_position_embeddings", 512, most=limits.POSITIONS)
    type_vocab_size: int = hf("type_vocab_size", 2)
    activation: str = hf("hidden_act", "gelu", choices=tuple(ACTIVATIONS))
    dropout: float = hf("hidden_dropout_prob", 0.1, most=1)
    attention_dropout: float = hf("attention_probs_dropout_prob", 0.1, most=1)
    pad_id: int = hf("pad_token_id", 1, least=0, most=limits.VOCABULARY)
    classifier_dropout: float | None = hf("classifier_dropout", None, most=1)  # None: as `dropout`
    norm_eps: float = hf("layer_norm_eps", 1e-12)
    initializer_range: float = hf("initializer_range", 0.02)
    tied: bool = hf("tie_word_embeddings", True)  # the output layer shares the token embedding

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_tokens < 1:
            raise InvalidInput(f"max_position_embeddings {self.max_positions} leaves none behind pad id {self.pad_id}")
        if self.hidden_size % self.num_heads:
            raise InvalidInput(f"hidden_size {self.hidden_size} does not split into {self.num_heads} attention heads")
        self.only(position_embedding_type="absolute", is_decoder=False, add_cross_attention=False)

    @property
    def max_tokens(self) -> int:
        return self.max_positions - self.pad_id - 1

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
        self.pad_id, self.max_tokens = c.pad_id, c.max_tokens

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
        vectors = look_up(self.token, input_ids, "token id")
        check_length(input_ids.shape[1], self.max_tokens)
        # Positions count real tokens and start behind the padding id, as in fairseq
        real = (input_ids != self.pad_id).long()
        positions = real.cumsum(1) * real + self.pad_id
        segments = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        x = vectors + look_up(self.segment, segments, "token type id")
        return self.dropout(self.norm(x + self.position(positions)))  # (B, T, D)


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


HEADS = {
    "RobertaModel": POOLED_TRUNK,
    "RobertaForMaskedLM": Head(
        WordScores,
        lambda c, token: MaskedWords(  # gelu whatever the config says
            Words(c.hidden_size, c.vocab_size, "gelu", c.norm_eps, token if c.tied else None)
        ),
    ),
    "RobertaForSequenceClassification": Head(
        LabelScores, lambda c, _: DeepLabels(c.hidden_size, c.num_labels, c.head_dropout), reads="first"
    ),
    "RobertaForMultipleChoice": Head(
        ChoiceScores, lambda c, _: Choices(c.hidden_size, c.dropout, Pooler(c.hidden_size)), reads="first"
    ),
    "RobertaForTokenClassification": TOKEN_LABELS,
    "RobertaForQuestionAnswering": SPANS,
}

# fmt: off
WEIGHTS = Layout(
    trunk="roberta.",
    renamed={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
    ignored=("roberta.embeddings.position_ids",),
    rows={
        "embeddings.token.weight":              "roberta.embeddings.word_embeddings.weight",
        "embeddings.position.weight":           "roberta.embeddings.position_embeddings.weight",
        "embeddings.segment.weight":            "roberta.embeddings.token_type_embeddings.weight",
        "embeddings.norm.*":                    "roberta.embeddings.LayerNorm.*",
        "encoder.blocks.#.attention.q.*":       "roberta.encoder.layer.#.attention.self.query.*",
        "encoder.blocks.#.attention.k.*":       "roberta.encoder.layer.#.attention.self.key.*",
        "encoder.blocks.#.attention.v.*":       "roberta.encoder.layer.#.attention.self.value.*",
        "encoder.blocks.#.attention.out.*":     "roberta.encoder.layer.#.attention.output.dense.*",
        "encoder.blocks.#.attention_norm.*":    "roberta.encoder.layer.#.attention.output.LayerNorm.*",
        "encoder.blocks.#.feed_forward.up.*":   "roberta.encoder.layer.#.intermediate.dense.*",
        "encoder.blocks.#.feed_forward.down.*": "roberta.encoder.layer.#.output.dense.*",
        "encoder.blocks.#.feed_forward_norm.*": "roberta.encoder.layer.#.output.LayerNorm.*",
        "head.pooler.dense.*":                  "roberta.pooler.dense.*",
        "head.words.dense.*":                   "lm_head.dense.*",
        "head.words.norm.*":                    "lm_head.layer_norm.*",
        "head.words.out.bias":                  Stored("lm_head.bias", copy="lm_head.decoder.bias"),
        "head.words.out.weight":                "lm_head.decoder.weight",
        "head.labels.*":                        "classifier.out_proj.*",
        "head.dense.*":                         "classifier.dense.*",
        "head.choice.*":                        "classifier.*",
        "head.tags.*":                          "classifier.*",
        "head.span.*":                          "qa_outputs.*",
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

# SentencePiece numbers <unk> <s> </s> from 0; fairseq had put its own four first
XLM_TEXT = replace(READS, first_pieces=("<s>", "<pad>", "</s>", "<unk>"))

ALIASES = {"xlm-roberta": Alias(prefix="XLMRoberta", reads=XLM_TEXT)}

TINY = Config(
    vocab_size=99,
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    intermediate_size=37,
    max_positions=16,
)
