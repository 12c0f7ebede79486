"""Images from outside, opened as if hostile: JPEG, PNG, WebP, GIF and BMP, told by content; and arrays of pixels.

Pillow decodes, but reads no more of a file than its pixels come from: `_jpeg`, `_png` and `_gif` leave out everything
else (thumbnails, profiles, texts, all frames but the first), and with it the code that would parse it and warn. The
orientation is read here. Sizes are checked before anything is decoded. Nothing of Pillow's process-wide state is set.
"""

from __future__ import annotations

import binascii
import io
import os
import re
import stat
import struct
import sys
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from triarch import limits
from triarch.errors import (
    CorruptFile,
    InvalidInput,
    LimitExceeded,
    NotFound,
    TriarchError,
    UnsafeFile,
    Unsupported,
    show,
)

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage
    from PIL.ImageFile import ImageFile

OTHERS = {  # first bytes of files that are images, too, but of a format that is not read
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"8BPS": "PSD",
    b"%PDF": "PDF",
    b"%!PS": "EPS",
    b"\0\0\1\0": "ICO",
    b"DDS ": "DDS",
    b"\0\0\0\x0cjP": "JPEG 2000",
    b"SIMPLE": "FITS",
    b"<svg": "SVG",
}
READ = "JPEG, PNG, WebP, GIF or BMP"
TURNS = {  # of EXIF's Orientation, section 4.6.4: what makes the image upright, a name of PIL.Image.Transpose
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


@dataclass(frozen=True)
class Picture:
    """A decoded image, upright."""

    image: PILImage  # of mode RGB; never changed in place
    animated: bool = False  # it is the first of several frames

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.height, self.image.width


def open_picture(given: Any) -> Picture:
    """A path, bytes, a file object, a data: URL, a PIL image, an array or a tensor -> its pixels.

    Colours become RGB as Pillow's `convert` does it, transparency is dropped, of 16 bits the upper 8 stay, of several
    frames the first is read. Arrays are (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels, of uint8, or of floats
    from 0 to 1. A row that data sets write, {"bytes": …, "path": …}, serves as well.

    Raises InvalidInput for what is no image, NotFound, LimitExceeded, CorruptFile for one that is broken, UnsafeFile
    for a device, Unsupported for another format.
    """
    if isinstance(given, Picture):
        return given
    if isinstance(given, dict):
        found = [given[name] for name in ("bytes", "path") if given.get(name) is not None]
        if not found:
            raise InvalidInput(f"the image is a dict with {', '.join(map(show, given)) or 'nothing'}, wanted bytes")
        given = found[0]
    if isinstance(given, str) and given.startswith("data:"):
        given = _of_data_url(given)
    if isinstance(given, str) and re.match(r"https?://", given, re.IGNORECASE):
        raise InvalidInput(
            f"{show(given)} is a URL, and nothing is fetched unless asked for; ask for it with urls=True"
        )
    if isinstance(given, str | os.PathLike):
        return _decoded(_read(Path(given)), show(os.fsdecode(given)))
    if isinstance(given, bytes | bytearray | memoryview):
        return _decoded(bytes(given), "the image")
    if callable(getattr(given, "read", None)):
        data = given.read(limits.IMAGE_BYTES + 1)
        if not isinstance(data, bytes):
            raise InvalidInput(f"the file object gives {type(data).__name__}; open it in binary mode")
        return _decoded(data, "the image")
    if (shared := sys.modules.get("PIL.Image")) is not None and isinstance(given, shared.Image):
        return Picture(_upright(given, given.info.get("exif"), "the image"))
    return Picture(_of_array(given))


def _of_data_url(url: str) -> bytes:
    head, comma, body = url.partition(",")
    if not comma or not head.startswith("data:image/") or not head.endswith(";base64"):
        raise InvalidInput(f"{show(head)} is no image; wanted data:image/png;base64, and its bytes")
    if len(body) > limits.IMAGE_BYTES * 4 // 3 + 4:
        raise _too_many_bytes("the image")
    try:
        return b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("the data: URL is not base64; encode the bytes again") from None


def _read(path: Path) -> bytes:
    """The bytes of a regular file; never blocks on a pipe."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UnsafeFile(f"{show(path)} is not a regular file; save the image as one")
            return file.read(limits.IMAGE_BYTES + 1)
    except FileNotFoundError:
        raise NotFound(f"{show(path)} is not there; check the path") from None
    except IsADirectoryError:
        raise InvalidInput(f"{show(path)} is a folder, wanted one image; name a file in it") from None
    except (OSError, ValueError) as error:
        if isinstance(error, TriarchError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise NotFound(f"{show(path)} cannot be opened ({show(reason)}); check the path") from None


def _too_many_bytes(where: str) -> LimitExceeded:
    return LimitExceeded(f"{where} has over {limits.IMAGE_BYTES:,} bytes; save it smaller")


# Files


def _decoded(data: bytes, where: str) -> Picture:
    """The bytes of a file -> its pixels."""
    if len(data) > limits.IMAGE_BYTES:
        raise _too_many_bytes(where)
    if not data:
        raise CorruptFile(f"{where} is empty; save the image again")
    form = next((form for begins, form in FORMS.items() if data.startswith(begins)), None)
    if form is None or (form is _webp and data[8:12] != b"WEBP"):
        raise _unread(data, where)
    try:
        found = form(data, where)
        image = found.opened()
        check_size(image.width, image.height, where)
        found.check(image, where)
        image.load()
        return Picture(_upright(image, found.exif, where), found.animated)
    except TriarchError:
        raise
    except MemoryError:
        raise LimitExceeded(f"{where} needs more memory than there is; save it smaller") from None
    except Exception:  # a broken file makes Pillow raise whatever its parsing runs into; none of it is for the user
        raise CorruptFile(f"{where} is cut short or damaged; save the image again") from None


def _unread(data: bytes, where: str) -> TriarchError:
    """What is said of a file that is of no format that is read."""
    other = next((name for begins, name in OTHERS.items() if data.startswith(begins)), None)
    if other is None and data[4:8] == b"ftyp":
        other = "HEIC, AVIF or a film"
    if other is not None:
        return Unsupported(f"{where} is {other}; save it as {READ}")
    return InvalidInput(f"{where} is no {READ}, whatever its name says; save it as one")


def check_size(width: int, height: int, where: str) -> None:
    """Raise LimitExceeded for more pixels than are worked on, InvalidInput for none."""
    if width < 1 or height < 1:
        raise InvalidInput(f"{where} has {width} × {height} pixels; wanted at least one")
    if max(width, height) > limits.IMAGE_SIDE or width * height > limits.IMAGE_PIXELS:
        raise LimitExceeded(
            f"{where} has {width:,} × {height:,} pixels, at most {limits.IMAGE_PIXELS:,} and {limits.IMAGE_SIDE:,} a "
            "side are taken; make it smaller"
        )


def _upright(image: PILImage, exif: object, where: str) -> PILImage:
    """In RGB, turned as its EXIF asks."""
    from PIL.Image import Transpose

    check_size(image.width, image.height, where)
    turn = TURNS.get(_orientation(exif)) if isinstance(exif, bytes) else None
    try:
        rgb = _rgb(image)
        return rgb if turn is None else rgb.transpose(Transpose[turn])
    except TriarchError:
        raise
    except Exception:  # a lazily opened image, or a mode that Pillow does not convert
        raise CorruptFile(f"{where}, of mode {show(image.mode)}, cannot be decoded; convert it to RGB first") from None


def _rgb(image: PILImage) -> PILImage:
    from PIL.Image import fromarray

    if image.mode == "RGB":
        image.load()
        return image
    if image.mode.startswith("I;16"):  # Pillow's own conversion makes all from 255 on white
        return fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return _of_array(np.asarray(image))
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")  # the same colours, without a warning
    return image.convert("RGB")


@dataclass(frozen=True)
class _Found:
    """What a file's own structure says, and the part of it that Pillow is to read."""

    plugin: str  # of Pillow, and its class
    data: bytes
    exif: bytes | None = None
    animated: bool = False
    scans: int = 1
    runs: bool = False  # packed in a way that takes long

    def opened(self) -> ImageFile:
        """Its header alone. Not by Image.open, which warns of large images and would try all formats."""
        from importlib import import_module

        module, name = self.plugin.split(".")
        made: ImageFile = getattr(import_module(f"PIL.{module}"), name)(io.BytesIO(self.data))
        return made

    def check(self, image: ImageFile, where: str) -> None:
        """Raise LimitExceeded where decoding would take long."""
        pixels = image.width * image.height
        if pixels * self.scans > limits.IMAGE_WORK:
            raise LimitExceeded(f"{where} draws {pixels:,} pixels {self.scans:,} times over; save it as a plain JPEG")
        if self.runs and max(pixels, len(self.data)) > limits.IMAGE_RUNS:
            raise LimitExceeded(f"{where} is a large BMP packed in runs; save it as PNG")


def _parts(where: str) -> Iterator[None]:
    """One for each part of a file that is looked at."""
    for _ in range(limits.IMAGE_PARTS):
        yield
    raise LimitExceeded(f"{where} has over {limits.IMAGE_PARTS:,} parts; save the image again")


MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # after compressed data, in which FF 00 and restarts may stand
BARE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
START, END, EXIF = 0xDA, 0xD9, 0xE1
# Frame headers, tables, restart intervals, and the two APPs that say what the colours are: what pixels come from
KEPT = {*range(0xC0, 0xD0), START, 0xDB, 0xDD, 0xE0, 0xEE}


def _jpeg(data: bytes, where: str) -> _Found:
    """ITU T.81, annex B: segments, each FF, a marker and a length, and compressed data after each start of a scan."""
    kept, exif, scans, at = [data[:2]], None, 0, 2
    for _ in _parts(where):
        if scans:
            hit = MARKER.search(data, at)
            start = hit.start() if hit else len(data)
            kept.append(data[at:start])
        else:
            start = at
        marker = data[start + 1] if start + 1 < len(data) else END
        if marker == END:
            break
        if data[start] != 0xFF or marker == 0:
            raise CorruptFile(f"{where} is damaged: a segment is missing; save the image again")
        size = 0 if marker in BARE or marker == 0xFF else int.from_bytes(data[start + 2 : start + 4])
        at = start + 1 if marker == 0xFF else start + 2 + size  # FF before a marker is padding
        if marker in KEPT:
            kept.append(data[start:at])
        elif marker == EXIF and exif is None and data[start + 4 : start + 10] == b"Exif\0\0":
            exif = data[start + 10 : at]
        scans += marker == START
    whole = b"".join(kept) + data[start : start + 2]
    return _Found("JpegImagePlugin.JpegImageFile", whole, exif, scans=max(scans, 1))


def _png(data: bytes, where: str) -> _Found:
    """PNG, third edition, section 5: chunks, each a length, a name, data and a checksum."""
    head: list[bytes] = []
    pixels, exif, frames, at = [], None, 0, 8
    view = memoryview(data)
    for _ in _parts(where):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        end = at + 12 + size
        if end > len(data):
            raise CorruptFile(f"{where} is cut short; save the image again")
        if name in (b"IHDR", b"PLTE", b"IDAT"):
            if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
                raise CorruptFile(f"{where} is damaged: a checksum is wrong; save the image again")
            if name == b"IDAT":
                pixels.append(view[at + 8 : end - 4])
            else:
                head.append(data[at:end])
        elif name == b"eXIf":
            exif = data[at + 8 : end - 4]
        elif name == b"acTL":
            frames = int.from_bytes(data[at + 8 : at + 12])
        elif name == b"IEND":
            break
        at = end
    body = b"IDAT" + b"".join(pixels)
    whole = data[:8] + b"".join(head) + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return _Found("PngImagePlugin.PngImageFile", whole + b"\0\0\0\0IEND\xaeB`\x82", exif, frames > 1)


def _gif(data: bytes, where: str) -> _Found:
    """GIF89a, sections 15 to 26: a screen, then extensions and images, each with blocks of up to 255 bytes."""

    def after_blocks(at: int) -> int:
        for _ in range(10 * limits.IMAGE_PARTS):
            if not (size := data[at]):
                return at + 1
            at += 1 + size
        raise LimitExceeded(f"{where} is cut into tiny blocks; save the image again")

    def after_palette(at: int, flags: int) -> int:
        return at + (3 << (flags & 7) + 1 if flags & 0x80 else 0)

    at = after_palette(13, data[10])
    kept, control, images = [data[:at]], b"", 0
    for _ in _parts(where):
        if data[at : at + 1] not in (b"!", b","):
            break
        if data[at] == 0x21:
            end = after_blocks(at + 2)
            if data[at + 1] == 0xF9:  # says which colour is transparent: the canvas around a frame is filled with it
                control = data[at:end]
        elif images:
            return _Found("GifImagePlugin.GifImageFile", b"".join(kept) + b";", animated=True)
        else:
            left, top, width, height, flags = struct.unpack("<4HB", data[at + 1 : at + 10])
            check_size(max(left + width, 1), max(top + height, 1), where)  # Pillow makes the canvas as large
            end = after_blocks(after_palette(at + 10, flags) + 1)
            kept += [control, data[at:end]]
            images += 1
        at = end
    return _Found("GifImagePlugin.GifImageFile", b"".join(kept) + b";")


def _webp(data: bytes, where: str) -> _Found:
    """WebP container, https://developers.google.com/speed/webp/docs/riff_container

    Its decoder sets the canvas aside as soon as it is opened, so the size is read before.
    """
    first, flags = data[12:16], 0
    if first == b"VP8X":
        flags = data[20]
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif first == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    check_size(width, height, where)
    exif, at = None, 12
    for _ in _parts(where):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if len(name) < 4 or not flags & 0x08:
            break
        if name == b"EXIF":
            exif = data[at + 8 : at + 8 + size].removeprefix(b"Exif\0\0")
            break
        at += 8 + size + size % 2
    return _Found("WebPImagePlugin.WebPImageFile", data, exif, bool(flags & 0x02))


def _bmp(data: bytes, where: str) -> _Found:
    return _Found("BmpImagePlugin.BmpImageFile", data, runs=data[30:34] in (b"\1\0\0\0", b"\2\0\0\0"))


FORMS: dict[bytes, Callable[[bytes, str], _Found]] = {
    b"\xff\xd8\xff": _jpeg,
    b"\x89PNG\r\n\x1a\n": _png,
    b"GIF87a": _gif,
    b"GIF89a": _gif,
    b"RIFF": _webp,
    b"BM": _bmp,
}


def _orientation(exif: bytes) -> int:
    """The Orientation tag of EXIF data, a TIFF; 1, upright, where there is none, or the data is broken."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, entry)
            if tag == 0x0112:
                return value if kind == 3 else 1
    except struct.error:
        pass
    return 1


# Arrays


def _of_array(given: Any) -> PILImage:
    """Pixels in memory -> an image. Raises InvalidInput for other shapes, types and values."""
    from PIL.Image import fromarray

    torch = sys.modules.get("torch")
    if torch is not None and isinstance(given, torch.Tensor):
        given = given.detach().cpu()
        given = (given.float() if given.is_floating_point() else given).numpy()
    if not isinstance(given, np.ndarray):
        raise InvalidInput(f"the image is {type(given).__name__}; wanted a path, bytes, a PIL image or an array")
    pixels = _channels_last(given)
    check_size(pixels.shape[1], pixels.shape[0], "the image")
    if np.issubdtype(pixels.dtype, np.floating):
        low, high = float(pixels.min()), float(pixels.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise InvalidInput("the image holds NaN or infinity; wanted numbers from 0 to 1")
        if low < 0 or high > 1:
            raise InvalidInput(f"the image holds {low:.4g} to {high:.4g}; wanted floats from 0 to 1, or uint8")
        pixels = np.rint(pixels * pixels.dtype.type(255)).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        raise InvalidInput(f"the image is of {pixels.dtype}; wanted uint8, or floats from 0 to 1")
    pixels = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3])
    return fromarray(pixels).convert("RGB")


def _channels_last(pixels: np.ndarray) -> np.ndarray:
    """(H, W), (H, W, C) or (C, H, W) -> (H, W, C)."""
    shape = [*pixels.shape]
    if len(shape) == 2:
        return pixels[..., None]
    first, last = (len(shape) == 3 and shape[i] in (1, 3, 4) for i in (0, 2))
    if first and last:
        raise InvalidInput(f"the image's shape {shape} may be (C, H, W) or (H, W, C); give a PIL image")
    if not first and not last:
        raise InvalidInput(f"the image's shape is {shape}; wanted (H, W), (H, W, C) or (C, H, W), C being 1, 3 or 4")
    return np.moveaxis(pixels, 0, -1) if first else pixels
