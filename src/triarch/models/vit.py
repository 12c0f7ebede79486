"""ViT: an image cut into square patches, which a transformer reads like the tokens of a text.

Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929

Shapes: B images, C channels, P patches, T = P + 1 tokens of which the first stands for the image, D hidden size.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triarch import config, limits
from triarch.config import hf
from triarch.errors import InvalidInput, Unsupported, show
from triarch.family import EncoderNetwork, Head
from triarch.inputs.image import ImageFormat
from triarch.kinds import Features, LabelScores, PixelScores
from triarch.layers.attention import Attention
from triarch.layers.dropout import Dropout
from triarch.layers.encoder import Encoder
from triarch.layers.feed_forward import ACTIVATIONS, FeedForward
from triarch.layers.heads import Labels, Pooler, Trunk
from triarch.weights import Layout


@dataclass(frozen=True, kw_only=True)
class Config(config.Config):
    hidden_size: int = hf("hidden_size", 768)
    num_layers: int = hf("num_hidden_layers", 12, most=limits.LAYERS)
    num_heads: int = hf("num_attention_heads", 12)
    intermediate_size: int = hf("intermediate_size", 3072, most=limits.VOCABULARY)
    image_size: int | list = hf("image_size", 224, most=limits.IMAGE_SIDE)  # or [height, width]
    patch_size: int = hf("patch_size", 16, most=limits.IMAGE_SIDE)
    num_channels: int = hf("num_channels", 3)
    activation: str = hf("hidden_act", "gelu", choices=tuple(ACTIVATIONS))
    dropout: float = hf("hidden_dropout_prob", 0.0, most=1)
    attention_dropout: float = hf("attention_probs_dropout_prob", 0.0, most=1)
    qkv_bias: bool = hf("qkv_bias", True)
    pooler_size: int | None = hf("pooler_output_size", None)  # None: hidden_size
    pooler_activation: str = hf("pooler_act", "tanh", choices=tuple(ACTIVATIONS))
    pixels_per_vector: int = hf("encoder_stride", 16, most=limits.IMAGE_SIDE)  # on a side, filled in by masked images
    norm_eps: float = hf("layer_norm_eps", 1e-12)
    initializer_range: float = hf("initializer_range", 0.02)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size % self.num_heads:
            raise InvalidInput(f"hidden_size {self.hidden_size} does not split into {self.num_heads} attention heads")
        if self.pooler_size not in (None, self.hidden_size):
            raise Unsupported(f"config pooler_output_size={self.pooler_size} is not implemented, only hidden_size")
        self.only(head_dim=self.hidden_size // self.num_heads)
        size = self.image_size
        sides = size if isinstance(size, list) else [size, size]
        if len(sides) != 2 or not all(type(side) is int and 0 < side <= limits.IMAGE_SIDE for side in sides):
            raise InvalidInput(f"config image_size={show(size)}, wanted a number, or [height, width]; mend config.json")
        if min(self.grid) < 1 or math.prod(self.grid) > limits.POSITIONS:
            raise InvalidInput(f"image_size {show(size)} does not split into patches of {self.patch_size} pixels")

    @property
    def image_sides(self) -> tuple[int, int]:
        """Height and width."""
        size = self.image_size
        return (size[0], size[1]) if isinstance(size, list) else (size, size)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = self.image_sides
        return height // self.patch_size, width // self.patch_size


class Embeddings(nn.Module):
    """Patches as vectors, with one for the whole image before them, and their positions added. Section 3.1"""

    def __init__(self, c: Config):
        super().__init__()
        self.sides, self.grid, self.patch_size, self.channels = c.image_sides, c.grid, c.patch_size, c.num_channels
        self.patch = nn.Conv2d(c.num_channels, c.hidden_size, kernel_size=c.patch_size, stride=c.patch_size)
        self.first = nn.Parameter(torch.empty(1, 1, c.hidden_size))
        self.position = nn.Parameter(torch.empty(1, math.prod(c.grid) + 1, c.hidden_size))
        self.dropout = Dropout(c.dropout)

    def forward(self, pixels: Tensor, masked: Tensor | None, mask_token: Tensor | None, *, interpolate: bool) -> Tensor:
        """(B, C, height, width) -> (B, T, D). `masked` patches (B, P) are replaced by `mask_token` (1, 1, D)."""
        self._check(pixels, interpolate)
        x = self.patch(pixels.to(self.patch.weight.dtype))  # (B, D, rows, columns)
        position = self._position(x.shape[2], x.shape[3])
        x = x.flatten(2).transpose(1, 2)  # (B, P, D)
        if masked is not None and mask_token is not None:
            if masked.shape != x.shape[:2]:
                raise InvalidInput(f"bool_masked_pos has the shape {[*masked.shape]}, wanted {[*x.shape[:2]]}")
            x = torch.where(masked.bool()[..., None], mask_token, x)
        return self.dropout(torch.cat([self.first.expand(len(x), -1, -1), x], 1) + position)

    def _check(self, pixels: Tensor, interpolate: bool) -> None:
        """Raise InvalidInput for a batch that the model cannot see, or not to its edges."""
        if pixels.ndim != 4 or pixels.shape[1] != self.channels:
            raise InvalidInput(f"pixel_values have the shape {[*pixels.shape]}, wanted (B, {self.channels}, H, W)")
        sides = (pixels.shape[2], pixels.shape[3])
        if sides == self.sides:
            return
        found, wanted = (" × ".join(map(str, pair)) for pair in (sides, self.sides))
        if not interpolate:
            raise InvalidInput(
                f"images have {found} pixels, the model sees {wanted}; resize them, or let it interpolate "
                "positions with interpolate_pos_encoding=True"
            )
        if any(side % self.patch_size or not side for side in sides):
            raise InvalidInput(
                f"images have {found} pixels; wanted multiples of {self.patch_size}, the side of a patch"
            )

    def _position(self, rows: int, columns: int) -> Tensor:
        """The learned vectors, or, for another grid than that which they were learned on, those between them."""
        if (rows, columns) == self.grid:
            return self.position
        learned = self.position[:, 1:].unflatten(1, self.grid).permute(0, 3, 1, 2)  # (1, D, rows, columns)
        between = F.interpolate(learned, size=(rows, columns), mode="bicubic", align_corners=False)
        return torch.cat([self.position[:, :1], between.flatten(2).transpose(1, 2)], 1)


class Block(nn.Module):
    """Attention, then feed-forward; a norm comes before each, and what they give is added to their input."""

    def __init__(self, c: Config):
        super().__init__()
        self.attention_norm = nn.LayerNorm(c.hidden_size, c.norm_eps)
        self.attention = Attention(c.hidden_size, c.num_heads, dropout=c.attention_dropout, qkv_bias=c.qkv_bias)
        self.feed_forward_norm = nn.LayerNorm(c.hidden_size, c.norm_eps)
        self.feed_forward = FeedForward(c.hidden_size, c.intermediate_size, c.activation)
        self.dropout = Dropout(c.dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), mask))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class Model(EncoderNetwork):
    """The encoder, and on top of it whichever head was asked for."""

    INPUTS = ("pixel_values", "bool_masked_pos")

    def __init__(self, c: Config, head: Head):
        super().__init__()
        self.config = c
        self.embeddings = Embeddings(c)
        self.encoder = Encoder((Block(c) for _ in range(c.num_layers)), norm_first=True)
        self.norm = nn.LayerNorm(c.hidden_size, c.norm_eps)
        self.head = head.make(c, None)

    def embedded(
        self, pixel_values: Tensor, bool_masked_pos: Tensor | None = None, *, interpolate_pos_encoding: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Images (B, C, height, width), and which of their patches (B, P) are hidden -> (B, T, D).

        `interpolate_pos_encoding` takes images of other sizes than the model was trained on. Raises InvalidInput.
        """
        mask_token = self.head.mask_token if isinstance(self.head, FilledIn) else None
        if bool_masked_pos is not None and mask_token is None:
            raise InvalidInput(f"{self.architecture} hides no patches; leave bool_masked_pos out")
        if bool_masked_pos is not None and self.config.pixels_per_vector != self.config.patch_size:
            raise InvalidInput(
                f"what is hidden has patches of {self.config.patch_size} pixels, what is filled in has "
                f"{self.config.pixels_per_vector}; set encoder_stride in config.json to patch_size"
            )
        x = self.embeddings(pixel_values, bool_masked_pos, mask_token, interpolate=interpolate_pos_encoding)
        return x, None  # every patch may look at every other

    def features(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.norm(super().features(*args, **kwargs))

    def initialize(self, module: nn.Module) -> None:
        super().initialize(module)
        if isinstance(module, nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=self.config.initializer_range)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # all of ours have one
        if isinstance(module, Embeddings):
            nn.init.trunc_normal_(module.first, std=self.config.initializer_range)
            nn.init.trunc_normal_(module.position, std=self.config.initializer_range)
        if isinstance(module, FilledIn):
            nn.init.zeros_(module.mask_token)


class FilledIn(nn.Module):
    """The pixels of each patch, from its vector, also of those that were hidden. Xie et al. 2021 (SimMIM),
    https://arxiv.org/abs/2111.09886"""

    def __init__(self, c: Config):
        super().__init__()
        self.mask_token = nn.Parameter(torch.empty(1, 1, c.hidden_size))  # stands where a patch is hidden
        self.pixels = nn.Conv2d(c.hidden_size, c.pixels_per_vector**2 * c.num_channels, kernel_size=1)
        self.arranged = nn.PixelShuffle(c.pixels_per_vector)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, 1:].transpose(1, 2)  # (B, D, P)
        side = math.isqrt(x.shape[2])
        if side * side != x.shape[2]:
            raise InvalidInput(f"the image has {x.shape[2]} patches, which make no square; only squares are filled in")
        return self.arranged(self.pixels(x.unflatten(2, (side, side))))  # (B, C, height, width)


HEADS = {
    "ViTModel": Head(
        Features,
        lambda c, _: Trunk(Pooler(c.hidden_size, c.pooler_activation)),
        reads="all and first",
        optional=("pooler",),
    ),
    "ViTForImageClassification": Head(LabelScores, lambda c, _: Labels(c.hidden_size, c.num_labels), reads="first"),
    "ViTForMaskedImageModeling": Head(PixelScores, lambda c, _: FilledIn(c)),
}

# fmt: off
WEIGHTS = Layout(
    trunk="vit.",
    renamed={  # models saved with the names that version 5 of the reference has in memory
        "layers.":           "encoder.layer.",
        "attention.q_proj.": "attention.attention.query.",
        "attention.k_proj.": "attention.attention.key.",
        "attention.v_proj.": "attention.attention.value.",
        "attention.o_proj.": "attention.output.dense.",
        "mlp.fc1.":          "intermediate.dense.",
        "mlp.fc2.":          "output.dense.",
    },
    rows={
        "embeddings.patch.*":                   "vit.embeddings.patch_embeddings.projection.*",
        "embeddings.first":                     "vit.embeddings.cls_token",
        "embeddings.position":                  "vit.embeddings.position_embeddings",
        "encoder.blocks.#.attention_norm.*":    "vit.encoder.layer.#.layernorm_before.*",
        "encoder.blocks.#.attention.q.*":       "vit.encoder.layer.#.attention.attention.query.*",
        "encoder.blocks.#.attention.k.*":       "vit.encoder.layer.#.attention.attention.key.*",
        "encoder.blocks.#.attention.v.*":       "vit.encoder.layer.#.attention.attention.value.*",
        "encoder.blocks.#.attention.out.*":     "vit.encoder.layer.#.attention.output.dense.*",
        "encoder.blocks.#.feed_forward_norm.*": "vit.encoder.layer.#.layernorm_after.*",
        "encoder.blocks.#.feed_forward.up.*":   "vit.encoder.layer.#.intermediate.dense.*",
        "encoder.blocks.#.feed_forward.down.*": "vit.encoder.layer.#.output.dense.*",
        "norm.*":                               "vit.layernorm.*",
        "head.pooler.dense.*":                  "vit.pooler.dense.*",
        "head.labels.*":                        "classifier.*",
        "head.mask_token":                      "vit.embeddings.mask_token",
        "head.pixels.*":                        "decoder.0.*",
    },
)
# fmt: on

SQUARE = {"height": 224, "width": 224}
STEPS = {"do_resize": True, "do_rescale": True, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
CROPPED = {"size": {"height": 256, "width": 256}, "do_center_crop": True, "crop_size": SQUARE}
READS = ImageFormat(
    {
        "ViTImageProcessor": STEPS | {"size": SQUARE, "resample": 2},
        "DeiTImageProcessor": STEPS | CROPPED | {"resample": 3},
    }
)

TINY = Config(
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    intermediate_size=37,
    image_size=24,
    patch_size=8,
    pixels_per_vector=8,
)
