"""Images -> pixel values, by the steps that preprocessor_config.json names, one class for all families.

The steps are those of the reference's PIL path, in its order, and give its numbers to the bit: resize, crop the centre,
rescale, normalise. A step that is not known here is refused.

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from triarch import limits
from triarch.errors import CorruptFile, InvalidInput, NotFound, Unsupported, show
from triarch.files import Folder, write_text
from triarch.inputs.media import Picture, check_size, open_picture
from triarch.inputs.processor import Piece
from triarch.kinds import Image, Medium

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage
    from torch import Tensor

    from triarch.inputs.fit import Fit

FILE, NESTED = "preprocessor_config.json", "processor_config.json"  # the second: what version 5 of the reference writes
MODES = {1: "L", 3: "RGB"}  # of Pillow, by the number of channels
RESAMPLINGS = 6  # nearest, Lanczos, bilinear, bicubic, box, Hamming: Pillow's numbers
BILINEAR = 2
SIZES = ({"height", "width"}, {"shortest_edge"}, {"shortest_edge", "longest_edge"}, {"max_height", "max_width"})
STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")
CHANGING = ("crop_pct", "max_size", "size_divisor", "ensure_multiple_of", "keep_aspect_ratio")  # how steps are done
LARGEST = 1e6  # of factors, means and deviations, so that no number overflows
Size = dict[str, int]


@dataclass(frozen=True)
class ImageFormat:
    """How a family reads images: what preprocessor_config.json may leave out, by the class that it names."""

    medium: ClassVar[Medium] = Image
    called: ClassVar[str] = "image processor"
    files: ClassVar[str] = FILE

    defaults: dict[str, dict[str, Any]] = field(default_factory=dict)  # "ViTImageProcessor": {"do_resize": True, …}

    def load(self, folder: Folder, config: Any) -> ImageProcessor | None:
        """The image processor of a checkpoint's folder; None if it has none, or the model sees no ordinary images.

        Raises CorruptFile, InvalidInput, and Unsupported for a class or a step that is not known.
        """
        if config.num_channels not in MODES:
            return None
        raw = folder.json(FILE) if folder.has(FILE) else None
        if folder.has(NESTED):
            nested = folder.json(NESTED)
            raw = nested.get("image_processor", raw) if isinstance(nested, dict) else raw
        if raw is None:
            return None
        if not isinstance(raw, dict):
            raise CorruptFile(f"{folder}/{FILE} is a {type(raw).__name__}, wanted an object; download it again")
        return self.made(raw, config)

    def made(self, raw: dict[str, Any], config: Any) -> ImageProcessor:
        """The image processor that the content of preprocessor_config.json describes; {} is the family's usual one."""
        usual = next(iter(self.defaults))
        given = raw.get("image_processor_type", raw.get("feature_extractor_type")) or usual
        name = str(given).removesuffix("Fast").replace("FeatureExtractor", "ImageProcessor")
        if name not in self.defaults:
            raise Unsupported(f"{FILE} names {show(given)}; wanted {' or '.join(self.defaults)}")
        named = {key: value for key, value in raw.items() if value is not None and key != "feature_extractor_type"}
        settings = self.defaults[name] | named | {"image_processor_type": name}
        return ImageProcessor(settings, config.num_channels, config.patch_size)

    def settle(self, folder: Folder | None, family: str, raw: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
        return {}

    def new(self, folder: Folder | None, config: Any) -> ImageProcessor:
        """The family's usual one gives images of the size that the model sees."""
        if folder is None:
            height, width = config.image_sides
            return self.made({"size": {"height": height, "width": width}}, config)
        processor = self.load(folder, config)
        if processor is None:
            raise NotFound(f"{folder} holds no {FILE}; name a folder with one, or none for the usual steps")
        return processor


class ImageProcessor:
    """Reads images for one model. Threads may share it."""

    keeps_ids: ClassVar[bool] = False

    def __init__(self, settings: dict[str, Any], channels: int, patch_size: int):
        """`settings` are those of preprocessor_config.json, `patch_size` is the side of what a batch budget counts."""
        for step in (key for key in settings if key.startswith("do_")):
            if not isinstance(settings[step], bool):
                raise InvalidInput(f"{FILE}: {show(step)} is {show(settings[step])}, wanted true or false")
            if settings[step] and step not in STEPS:
                raise Unsupported(f"{FILE} asks for {show(step)}, which is not implemented, only {', '.join(STEPS)}")
        if strange := [key for key in CHANGING if settings.get(key)]:
            raise Unsupported(f"{FILE}: {strange[0]}={show(settings[strange[0]])} is not implemented; leave it out")
        square = settings.get("default_to_square", True) is not False
        self.channels, self.patch_size = channels, patch_size
        self.size = _size(settings, "size", square) if settings.get("do_resize") else None
        self.crop = _size(settings, "crop_size", True) if settings.get("do_center_crop") else None
        if self.crop is not None and self.crop.keys() != SIZES[0]:
            raise InvalidInput(f"{FILE}: crop_size has {', '.join(self.crop)}, wanted height and width")
        self.resample = settings.get("resample", BILINEAR)
        if type(self.resample) is not int or not 0 <= self.resample < RESAMPLINGS:
            raise InvalidInput(f"{FILE}: resample is {show(self.resample)}, wanted 0 to {RESAMPLINGS - 1}")
        self.values = _values(settings, channels)
        self.settings = settings | {
            name: size for name, size in (("size", self.size), ("crop_size", self.crop)) if size is not None
        }

    def single(self, given: Any) -> bool:
        """Whether it is one image: a list, a generator, a folder and a table of paths hold several."""
        if isinstance(given, os.PathLike):
            return os.fsdecode(given).lower().endswith(Image.suffixes) and not os.path.isdir(given)
        return not isinstance(given, list | tuple | Iterator) or callable(getattr(given, "read", None))

    def read(self, given: Any) -> Picture:
        """What `media.open_picture` takes, and raises."""
        return open_picture(given)

    def pieces(self, item: Picture, fit: Fit | None = None) -> list[Piece]:
        """The whole image, resized: its content is float32 (C, H, W), its cost the number of patches."""
        pixels = np.asarray(self._cropped(self._resized(item.image.convert(MODES[self.channels]))))
        planes = np.moveaxis(pixels.reshape(*pixels.shape[:2], self.channels), 2, 0)
        content = np.stack([values[plane] for values, plane in zip(self.values, planes, strict=True)])
        height, width = content.shape[1:]
        return [Piece(content, cost=math.ceil(height / self.patch_size) * math.ceil(width / self.patch_size))]

    def collate(self, pieces: Sequence[Piece]) -> dict[str, Tensor]:
        """{"pixel_values": (B, C, H, W)}. Raises InvalidInput for images of different sizes."""
        import torch

        shapes = {piece.content.shape: None for piece in pieces}
        if len(shapes) > 1:
            sizes = " and ".join(f"{height} × {width}" for _, height, width in shapes)
            raise InvalidInput(f"images of {sizes} pixels do not go into one batch; give them one by one")
        return {"pixel_values": torch.from_numpy(np.stack([piece.content for piece in pieces]))}

    def save(self, folder: Path) -> None:
        """Write preprocessor_config.json as both major versions of the reference read it."""
        write_text(folder / FILE, json.dumps(self.settings, indent=2, sort_keys=True) + "\n")

    def facts(self) -> dict[str, Any]:
        return self.settings

    def fingerprint(self) -> str:
        said = [self.settings, self.channels, self.patch_size]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def _resized(self, image: PILImage) -> PILImage:
        if self.size is None:
            return image
        height, width = _target(self.size, image.height, image.width)
        check_size(width, height, "the resized image")
        return image.resize((width, height), self.resample)

    def _cropped(self, image: PILImage) -> PILImage:
        """The centre; what lies outside of the image becomes black."""
        if self.crop is None:
            return image
        height, width = self.crop["height"], self.crop["width"]
        check_size(width, height, "the cropped image")
        top, left = (image.height - height) // 2, (image.width - width) // 2  # below 0 for a small image
        return image.crop((left, top, left + width, top + height))


def _target(size: Size, height: int, width: int) -> tuple[int, int]:
    """Height and width of an image once resized."""
    if "height" in size:
        return size["height"], size["width"]
    if "max_height" in size:
        scale = min(size["max_height"] / height, size["max_width"] / width)
        return int(height * scale), int(width * scale)
    low, high = min(height, width), max(height, width)
    shortest: float = size["shortest_edge"]
    short = size["shortest_edge"]
    if "longest_edge" in size:
        if high / low * short > size["longest_edge"]:
            shortest = size["longest_edge"] * low / high
            short = round(shortest)
        if low == short:
            return height, width
    long = int(shortest * high / low)
    return (long, short) if width < height else (short, long)


def _size(settings: dict[str, Any], name: str, square: bool) -> Size:
    """A size in any of its spellings: a number, [height, width], or an object."""
    given = settings.get(name)
    size: Any = given
    if type(given) is int:
        size = {"height": given, "width": given} if square else {"shortest_edge": given}
    elif isinstance(given, list | tuple) and len(given) == 2:
        size = {"height": given[0], "width": given[1]}
    if not isinstance(size, dict) or set(size) not in SIZES:
        raise InvalidInput(f"{FILE}: {name} is {show(given)}, wanted height and width, or shortest_edge")
    if wrong := [value for value in size.values() if type(value) is not int or not 0 < value <= limits.IMAGE_SIDE]:
        raise InvalidInput(f"{FILE}: {name} has {show(wrong[0])}, wanted pixels, 1 to {limits.IMAGE_SIDE:,}")
    return size


def _values(settings: dict[str, Any], channels: int) -> np.ndarray:
    """What each of the 256 values of a pixel becomes, (C, 256) of float32, in the reference's arithmetic."""
    values = np.arange(256, dtype=np.float32)
    if settings.get("do_rescale"):
        factor = settings.get("rescale_factor", 1 / 255)
        if not _is_number(factor):
            raise InvalidInput(f"{FILE}: rescale_factor is {show(factor)}, wanted a number such as 1/255")
        values = (values.astype(np.float64) * factor).astype(np.float32)
    table = np.tile(values, (channels, 1))
    if settings.get("do_normalize"):
        mean, std = (_numbers(settings, name, channels) for name in ("image_mean", "image_std"))
        if not (std > 1 / LARGEST).all():
            raise InvalidInput(f"{FILE}: image_std is {show(settings['image_std'])}, wanted numbers above 0")
        table = (table - mean[:, None]) / std[:, None]
    return table


def _numbers(settings: dict[str, Any], name: str, channels: int) -> np.ndarray:
    """One number for each channel; one that is the same for all serves any number of channels."""
    given = settings.get(name)
    numbers = [*given] if isinstance(given, list | tuple) else [given]
    if numbers and all(number == numbers[0] for number in numbers):
        numbers = numbers[:1] * channels
    if not all(map(_is_number, numbers)) or len(numbers) != channels:
        raise InvalidInput(f"{FILE}: {name} is {show(given)}, wanted {channels} numbers")
    return np.array(numbers, dtype=np.float32)


def _is_number(given: object) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool) and abs(given) <= LARGEST  # NaN is not
