"""Heads: from the features of a trunk to the scores of a task. A family file lists which it has, with their sizes.

Each returns the fields of its kind of scores (see `kinds`), as one tensor or a tuple. `shared` is an embedding whose
weight an output layer uses as its own.

Shapes: B sequences, T tokens, D hidden size, V vocabulary, L labels, C choices.
"""

from __future__ import annotations

from torch import Tensor, nn

from triarch.layers.dropout import Dropout
from triarch.layers.feed_forward import ACTIVATIONS


class Pooler(nn.Module):
    """The summary of a sequence: its first token through one layer. Devlin et al. 2018."""

    def __init__(self, hidden_size: int, activation: str = "tanh"):
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.activation = ACTIVATIONS[activation]

    def forward(self, first: Tensor) -> Tensor:
        return self.activation(self.dense(first))  # (..., D)


class Trunk(nn.Module):
    """No head: the features themselves, and their summary where there is a pooler."""

    def __init__(self, pooler: Pooler | None = None):
        super().__init__()
        self.pooler = pooler

    def forward(self, x: Tensor, first: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return x, None if self.pooler is None else self.pooler(first)


class Words(nn.Module):
    """Every word at every position: a layer with a norm, then the output layer. Devlin et al. 2018, section 3.1."""

    def __init__(
        self, hidden_size: int, vocab_size: int, activation: str, norm_eps: float, shared: nn.Embedding | None = None
    ):
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.activation = ACTIVATIONS[activation]
        self.norm = nn.LayerNorm(hidden_size, norm_eps)
        self.out = nn.Linear(hidden_size, vocab_size)
        if shared is not None:
            self.out.weight = shared.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.activation(self.dense(x))))  # (B, T, V) or (N, V)


class MaskedWords(nn.Module):
    """The head of masked language modelling."""

    def __init__(self, words: Words):
        super().__init__()
        self.words = words

    def forward(self, x: Tensor) -> Tensor:
        return self.words(x)


class NextWords(nn.Module):
    """Every word as the next one. `bias` is not learned, as in BART; `scale` multiplies features, as in T5."""

    bias: Tensor | None

    def __init__(
        self,
        hidden_size: int,
        vocab_size: int,
        shared: nn.Embedding | None = None,
        *,
        bias: bool = False,
        scale: float = 1.0,
    ):
        super().__init__()
        self.scale = scale
        self.words = nn.Linear(hidden_size, vocab_size, bias=False)
        if shared is not None:
            self.words.weight = shared.weight
        self.register_buffer("bias", self.words.weight.new_zeros(1, vocab_size) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.words(x if self.scale == 1 else x * self.scale)  # (B, T, V) or (N, V)
        return scores if self.bias is None else scores + self.bias.squeeze(0)


class Labels(nn.Module):
    """One set of labels for a whole sequence, from its summary (B, D)."""

    def __init__(
        self, hidden_size: int, labels: int, dropout: float = 0.0, *, pooler: Pooler | None = None, bias: bool = True
    ):
        super().__init__()
        self.pooler = pooler
        self.dropout = Dropout(dropout)
        self.labels = nn.Linear(hidden_size, labels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.pooler is None else self.pooler(x)
        return self.labels(self.dropout(x))  # (B, L)


class DeepLabels(nn.Module):
    """The same with a layer of its own before the labels, and dropout before both. Liu et al. 2019, RoBERTa's code."""

    def __init__(self, hidden_size: int, labels: int, dropout: float):
        super().__init__()
        self.dropout = Dropout(dropout)
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.labels = nn.Linear(hidden_size, labels)

    def forward(self, x: Tensor) -> Tensor:
        return self.labels(self.dropout(self.dense(self.dropout(x)).tanh()))  # (B, L)


class TokenLabels(nn.Module):
    """One set of labels for each token."""

    def __init__(self, hidden_size: int, labels: int, dropout: float):
        super().__init__()
        self.dropout = Dropout(dropout)
        self.tags = nn.Linear(hidden_size, labels)

    def forward(self, x: Tensor) -> Tensor:
        return self.tags(self.dropout(x))  # (B, T, L)


class Choices(nn.Module):
    """One score for each of several continuations, from their summaries (B, C, D)."""

    def __init__(self, hidden_size: int, dropout: float, pooler: Pooler):
        super().__init__()
        self.pooler = pooler
        self.dropout = Dropout(dropout)
        self.choice = nn.Linear(hidden_size, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.choice(self.dropout(self.pooler(x))).squeeze(-1)  # (B, C)


class Spans(nn.Module):
    """Where a span begins and where it ends."""

    def __init__(self, hidden_size: int, dropout: float = 0.0):
        super().__init__()
        self.dropout = Dropout(dropout)
        self.span = nn.Linear(hidden_size, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.span(self.dropout(x)).unbind(-1)  # (B, T) each
