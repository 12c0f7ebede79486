"""A family of melodies: each note is heard by itself, and a melody is the mean of its notes.

Shapes: B melodies, T notes, D hidden size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from made_up.melody import NOTES, MelodyFormat
from triarch import config, limits
from triarch.config import hf
from triarch.family import TRUNK, Head, Network
from triarch.kinds import LabelScores
from triarch.layers.feed_forward import FeedForward
from triarch.layers.heads import Labels
from triarch.weights import Layout


@dataclass(frozen=True, kw_only=True)
class Config(config.Config):
    hidden_size: int = hf("hidden_size", 64)
    num_layers: int = hf("num_layers", 2, most=limits.LAYERS)
    intermediate_size: int = hf("intermediate_size", 128)
    most_notes: int = hf("most_notes", 64, most=limits.POSITIONS)
    initializer_range: float = hf("initializer_range", 0.1)


class Block(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.norm = nn.LayerNorm(c.hidden_size)
        self.feed_forward = FeedForward(c.hidden_size, c.intermediate_size, "gelu")

    def forward(self, x: Tensor) -> Tensor:
        return x + self.feed_forward(self.norm(x))


class Model(Network):
    INPUTS = ("notes", "attention_mask")

    def __init__(self, c: Config, head: Head):
        super().__init__()
        self.config = c
        self.note = nn.Embedding(NOTES, c.hidden_size)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.num_layers))
        self.head = head.make(c, None)

    def features(self, notes: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, T) -> the means up to each note (B, T, D)."""
        x = self.note(notes)
        for block in self.blocks:
            x = block(x)
        return x.cumsum(1) / torch.arange(1, x.shape[1] + 1, device=x.device)[:, None]


HEADS = {
    "MadeUpModel": TRUNK,
    "MadeUpForClassification": Head(LabelScores, lambda c, _: Labels(c.hidden_size, c.num_labels), reads="last"),
}

WEIGHTS = Layout(
    trunk="made_up.",
    rows={
        "note.*": "made_up.notes.*",
        "blocks.#.norm.*": "made_up.layer.#.norm.*",
        "blocks.#.feed_forward.up.*": "made_up.layer.#.up.*",
        "blocks.#.feed_forward.down.*": "made_up.layer.#.down.*",
        "head.labels.*": "classifier.*",
    },
)

READS = MelodyFormat()

TINY = Config(hidden_size=16, num_layers=2, intermediate_size=24, most_notes=8)
