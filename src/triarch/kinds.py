"""The kinds of scores that heads return, and the media that models read.

A kind is a named tuple of tensors. Its type is also the kind of the head: tasks and objectives ask for a type of these,
never for a family's name. Importing this module does not import torch.

Shapes: B sequences, T tokens, D hidden size, V vocabulary, L labels, C choices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Medium:
    """What sort of input a model reads."""

    name: str  # of a column that holds it, and of the medium in lists and errors
    usual: tuple[str, ...] = ()  # other names of such columns in data sets
    suffixes: tuple[str, ...] = ()  # of files that hold one input each; none: a file holds rows, or running text


Text = Medium(
    "text",
    usual=(
        *("sentence", "content", "review", "body", "comment", "document", "tweet", "message", "utterance", "question"),
        *("query", "headline", "premise", "sentence1", "text1", "question1", "sentence_a"),
    ),
)
Image = Medium(
    "image",
    usual=("img", "photo", "picture", "pixel_values", "image_path", "file", "file_name"),
    suffixes=(".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"),
)


class Features(NamedTuple):
    """The trunk alone."""

    last_hidden_state: Tensor  # (B, T, D)
    pooler_output: Tensor | None = None  # (B, D); None where family or checkpoint has no pooler


class WordScores(NamedTuple):
    """A score for every word at every position."""

    logits: Tensor  # (B, T, V); or (N, V), of the positions that were asked for


class NextWordScores(NamedTuple):
    """At every position a score for every word as the next one."""

    logits: Tensor  # (B, T, V); or (N, V), of the positions that were asked for


class TargetWordScores(NamedTuple):
    """At every position of a target a score for every word as the next one, given the source it is written from."""

    logits: Tensor  # (B, T, V); or (N, V), of the positions that were asked for


class FollowsScores(NamedTuple):
    """Whether the second segment follows the first."""

    logits: Tensor  # (B, 2); class 0: it follows


class PretrainingScores(NamedTuple):
    """Words and next sentence together."""

    prediction_logits: Tensor  # (B, T, V); or (N, V), of the positions that were asked for
    seq_relationship_logits: Tensor  # (B, 2); class 0: the second segment follows the first


class LabelScores(NamedTuple):
    """One set of labels for the whole sequence."""

    logits: Tensor  # (B, L)


class ChoiceScores(NamedTuple):
    """One score for each of several continuations."""

    logits: Tensor  # (B, C)


class TokenScores(NamedTuple):
    """One set of labels for each token."""

    logits: Tensor  # (B, T, L)


class SpanScores(NamedTuple):
    """Where a span begins and where it ends."""

    start_logits: Tensor  # (B, T)
    end_logits: Tensor  # (B, T)


class PixelScores(NamedTuple):
    """A picture as the model fills it in."""

    reconstruction: Tensor  # (B, C, height, width)


Scores = (
    Features
    | WordScores
    | NextWordScores
    | TargetWordScores
    | FollowsScores
    | PretrainingScores
    | LabelScores
    | ChoiceScores
    | TokenScores
    | SpanScores
    | PixelScores
)
