"""Images from outside: the pixels that the reference sees, and a typed error in bounded time for everything else."""

import base64
import io
import os
import random
import struct
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, ImageOps

import samples_of_images as samples
from triarch import kinds, limits
from triarch.data.inputs import files_in
from triarch.errors import (
    CorruptFile,
    InvalidInput,
    LimitExceeded,
    NotFound,
    TriarchError,
    UnsafeFile,
    Unsupported,
)
from triarch.inputs.media import open_picture

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
IMAGE = samples.image(90, 64)
JPEG, PNG, WEBP, GIF, BMP = (samples.encoded(IMAGE, form) for form in FORMATS)
FILES = {"JPEG": JPEG, "PNG": PNG, "WEBP": WEBP, "GIF": GIF, "BMP": BMP}


def pixels(given):
    return np.asarray(open_picture(given).image)


def theirs(data):
    """As the reference's load_image does it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def written():
    """Files of every format and mode that Pillow writes."""
    for form in FORMATS:
        for mode in samples.MODES:
            try:
                yield f"{form} {mode}", samples.encoded(IMAGE.convert(mode), form)
            except (OSError, ValueError):
                continue  # a format that has no such mode
    palette = IMAGE.convert("P")
    yield "PNG palette of transparencies", samples.encoded(palette, "PNG", transparency=bytes(range(256)))
    yield "PNG one transparent colour", samples.encoded(palette, "PNG", transparency=3)
    yield "PNG transparent RGB", samples.encoded(IMAGE, "PNG", transparency=(1, 2, 3))
    yield "GIF transparent", samples.encoded(palette, "GIF", transparency=3)
    yield "JPEG progressive", samples.encoded(IMAGE, "JPEG", progressive=True)
    yield "JPEG with restarts", samples.encoded(IMAGE, "JPEG", restart_marker_rows=1)
    yield "JPEG with a comment and a profile", samples.encoded(IMAGE, "JPEG", comment=b"x" * 99, icc_profile=b"y" * 9)


WRITTEN = dict(written())


@pytest.mark.parametrize("name", WRITTEN)
def test_pixels_are_those_that_the_reference_sees(name):
    np.testing.assert_array_equal(pixels(WRITTEN[name]), theirs(WRITTEN[name]))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = samples.encoded(IMAGE, form, exif=exif)
    np.testing.assert_array_equal(pixels(data), theirs(data))
    np.testing.assert_array_equal(pixels(Image.open(io.BytesIO(data))), theirs(data))


def test_of_sixteen_bits_the_upper_eight_are_seen():
    deep = Image.fromarray(np.array([[0, 255, 256, 4096, 65535]], dtype=np.uint16))
    data = samples.encoded(deep, "PNG")
    assert pixels(data)[0, :, 0].tolist() == [0, 0, 1, 16, 255]  # Pillow's own conversion makes the last three white


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_of_several_frames_the_first_is_seen_and_it_is_said(form):
    frames = [samples.image(30, 20, seed) for seed in range(4)]
    data = samples.encoded(frames[0], form, save_all=True, append_images=frames[1:])
    picture = open_picture(data)
    assert picture.animated
    np.testing.assert_array_equal(np.asarray(picture.image), theirs(data))
    assert not open_picture(FILES[form]).animated


def test_thousands_of_frames_take_no_time():
    frames = [Image.new("RGB", (8, 8), (i % 256, i // 256, 0)) for i in range(2000)]
    for form in ("GIF", "PNG", "WEBP"):
        data = samples.encoded(frames[0], form, save_all=True, append_images=frames[1:])
        start = time.thread_time()
        open_picture(data)
        assert time.thread_time() - start < 0.5


# Ways to give an image


def test_a_file_may_be_given_in_many_ways(tmp_path):
    path = tmp_path / "a photo.png"
    path.write_bytes(PNG)
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    ways = [path, str(path), PNG, bytearray(PNG), io.BytesIO(PNG), url, {"bytes": PNG}, {"bytes": None, "path": path}]
    for way in ways:
        np.testing.assert_array_equal(pixels(way), np.asarray(IMAGE))
    with open(path, "rb") as file:
        np.testing.assert_array_equal(pixels(file), np.asarray(IMAGE))


def test_pixels_in_memory_may_be_given_in_many_ways():
    array = np.asarray(IMAGE)
    ways = [IMAGE, array, array.transpose(2, 0, 1), array / 255, (array / 255).astype(np.float16)]
    ways += [torch.from_numpy(array.copy()), torch.from_numpy(array / 255).float().permute(2, 0, 1)]
    for way in ways:
        np.testing.assert_array_equal(pixels(way), array)


def test_grey_and_transparent_arrays():
    grey = np.asarray(IMAGE.convert("L"))
    for way in (grey, grey[..., None], grey[None]):
        np.testing.assert_array_equal(pixels(way), np.asarray(IMAGE.convert("L").convert("RGB")))
    clear = np.asarray(IMAGE.convert("RGBA"))
    np.testing.assert_array_equal(pixels(clear), np.asarray(IMAGE))


def test_what_is_given_is_left_as_it_was():
    image = Image.open(io.BytesIO(WRITTEN["PNG palette of transparencies"]))
    open_picture(image)
    assert image.mode == "P"
    array = np.asarray(IMAGE).copy()
    open_picture(array)
    np.testing.assert_array_equal(array, np.asarray(IMAGE))


@pytest.mark.parametrize("size", [(1, 1), (1, 16384), (16384, 1)])
def test_narrow_images_are_seen(size):
    assert open_picture(samples.encoded(Image.new("RGB", size), "PNG")).size == size[::-1]


ARRAYS = [
    (np.full((5, 5, 3), np.nan), InvalidInput, "holds NaN or infinity"),
    (np.full((5, 5, 3), np.inf), InvalidInput, "holds NaN or infinity"),
    (np.full((5, 5, 3), -0.5), InvalidInput, "holds -0.5 to -0.5; wanted floats from 0 to 1"),
    (np.full((5, 5, 3), 255.0), InvalidInput, "holds 255 to 255; wanted floats from 0 to 1, or uint8"),
    (np.zeros((5, 5, 3), np.uint16), InvalidInput, "is of uint16; wanted uint8"),
    (np.zeros((5, 5, 3), np.int64), InvalidInput, "is of int64; wanted uint8"),
    (np.zeros((5, 5, 3), object), InvalidInput, "is of object; wanted uint8"),
    (np.zeros((5, 5, 3), complex), InvalidInput, "is of complex128; wanted uint8"),
    (np.zeros((5, 5, 2), np.uint8), InvalidInput, r"shape is \[5, 5, 2\]; wanted"),
    (np.zeros((3, 9, 4), np.uint8), InvalidInput, r"shape \[3, 9, 4\] may be \(C, H, W\) or \(H, W, C\); give"),
    (np.zeros((2, 9, 9, 3), np.uint8), InvalidInput, "shape is .*; wanted"),
    (np.zeros(9, np.uint8), InvalidInput, "shape is .*; wanted"),
    (np.zeros((0, 9, 3), np.uint8), InvalidInput, "has 9 × 0 pixels"),
    (np.broadcast_to(np.uint8(0), (20000, 9, 3)), LimitExceeded, "has 9 × 20,000 pixels"),
    ([[1, 2], [3, 4]], InvalidInput, "is list; wanted a path, bytes"),
    (None, InvalidInput, "is NoneType; wanted a path, bytes"),
    ({}, InvalidInput, "is a dict with nothing, wanted bytes"),
    (io.StringIO("text"), InvalidInput, "gives str; open it in binary mode"),
    ("https://host/photo.jpg", InvalidInput, "is a URL, and nothing is fetched unless asked for"),
    ("data:text/html;base64,AAAA", InvalidInput, "is no image; wanted data:image/png;base64,"),
    ("data:image/png;base64," + "," * 5000, InvalidInput, "is not base64"),
]


@pytest.mark.parametrize("given, error, message", ARRAYS, ids=[case[2][:30] for case in ARRAYS])
def test_what_is_no_image_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        open_picture(given)


# Hostile files


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb(width, height):
    return PNG[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + PNG[33:]


def scans(count):
    """A JPEG that draws the same again and again."""
    data = samples.encoded(Image.new("RGB", (2000, 2000)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


def runs():
    data = bytearray(samples.encoded(Image.new("P", (2000, 2000)), "BMP"))
    data[30:34] = b"\1\0\0\0"
    return bytes(data)


def far_frame():
    at = GIF.index(b",", 781)
    return GIF[: at + 5] + struct.pack("<HH", 65000, 65000) + GIF[at + 9 :]


HOSTILE = {
    "PNG bomb": (bomb(65535, 65535), LimitExceeded, "has 65,535 × 65,535 pixels, at most 50,000,000"),
    "PNG bomb that Pillow warns of": (bomb(12000, 12000), LimitExceeded, "has 12,000 × 12,000 pixels"),
    "PNG of no size": (bomb(0, 5), TriarchError, "has 0 × 5 pixels|damaged"),
    "PNG of many chunks": (PNG[:33] + chunk(b"tEXt", b"a\0b") * 100_000 + PNG[33:], LimitExceeded, "over 50,000 parts"),
    "PNG with a wrong checksum": (PNG[:20] + b"\1" + PNG[21:], CorruptFile, "a checksum is wrong"),
    "JPEG of many comments": (JPEG[:2] + b"\xff\xfe\0\2" * 100_000 + JPEG[2:], LimitExceeded, "over 50,000 parts"),
    "JPEG of many fill bytes": (JPEG[:2] + b"\xff" * 1_000_000 + JPEG[2:], LimitExceeded, "over 50,000 parts"),
    "JPEG of stuffing": (JPEG[:2] + b"\xff\0" * 1_000_000 + JPEG[2:], CorruptFile, "a segment is missing"),
    "JPEG of many scans": (scans(1000), LimitExceeded, "draws 4,000,000 pixels 1,0.. times over"),
    "GIF of tiny blocks": (GIF[:781] + b"!\xfe" + b"\1a" * 1_000_000 + b"\0" + GIF[781:], LimitExceeded, "tiny blocks"),
    "GIF with a frame outside": (far_frame(), LimitExceeded, "has 65,000 × 65,000 pixels"),
    "BMP of runs": (runs(), LimitExceeded, "a large BMP packed in runs"),
    "text": (b"This is a text, whatever its name says.", InvalidInput, "no JPEG, PNG, WebP, GIF or BMP, whatever"),
    "other RIFF": (b"RIFF\0\0\0\0WAVEfmt ", InvalidInput, "no JPEG, PNG"),
    "nothing": (b"", CorruptFile, "is empty"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", Unsupported, "is SVG; save it as JPEG"),
    "TIFF": (samples.encoded(IMAGE, "TIFF"), Unsupported, "is TIFF; save it as JPEG"),
    "ICO": (samples.encoded(IMAGE, "ICO"), Unsupported, "is ICO"),
    "PSD": (b"8BPS\0\1", Unsupported, "is PSD"),
    "HEIC": (b"\0\0\0\x18ftypheic", Unsupported, "is HEIC, AVIF or a film"),
    "too many bytes": (b"\x89PNG\r\n\x1a\n" + bytes(limits.IMAGE_BYTES), LimitExceeded, "has over 67,108,864 bytes"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_bounded_time(name):
    data, error, message = HOSTILE[name]
    start = time.thread_time()
    with pytest.raises(error, match=message) as raised:
        open_picture(data)
    assert time.thread_time() - start < 3
    assert "\n" not in str(raised.value)
    assert "0x" not in str(raised.value)


@pytest.mark.parametrize("name", WRITTEN)
def test_truncated_files_are_refused(name):
    data = WRITTEN[name]
    for tenths in range(10):
        with pytest.raises(TriarchError):
            open_picture(data[: len(data) * tenths // 10])


def test_damaged_files_are_an_error_or_an_image():
    dice = random.Random(0)
    sources = [*FILES.values(), WRITTEN["JPEG progressive"], WRITTEN["PNG P"]]
    messages = []
    for _ in range(1500):
        data = bytearray(dice.choice(sources))
        for _ in range(dice.randint(1, 8)):
            data[dice.randrange(min(len(data), dice.choice([60, 400, len(data)])))] = dice.randrange(256)
        try:
            open_picture(bytes(data))
        except TriarchError as error:
            messages.append(str(error))
    assert len(messages) > 500
    assert not any("\n" in message for message in messages)


def test_what_hangs_on_a_file_is_not_read():
    bomb = b"a\0\0" + zlib.compress(bytes(9_000_000), 1)
    extra = chunk(b"zTXt", bomb) + chunk(b"iCCP", bomb) + chunk(b"eXIf", b"II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(pixels(PNG[:33] + extra + PNG[33:]), np.asarray(IMAGE))
    broken = JPEG[:2] + b"\xff\xe1\0\x10Exif\0\0II*\0\x08\0\0\0" + JPEG[2:]
    np.testing.assert_array_equal(pixels(broken), pixels(JPEG))


def test_a_polyglot_is_what_it_begins_as():
    np.testing.assert_array_equal(pixels(PNG + b"PK\3\4<html><script>"), np.asarray(IMAGE))


def test_nothing_of_the_whole_process_is_changed():
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)
    for data, _, _ in HOSTILE.values():
        with pytest.raises(TriarchError):
            open_picture(data)
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before


# Files and folders


def test_a_text_file_named_jpg(tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("no pixels")
    with pytest.raises(InvalidInput, match=r"notes\.jpg is no JPEG, PNG, WebP, GIF or BMP, whatever its name says"):
        open_picture(path)


def test_files_that_are_none(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    cases = [
        (tmp_path / "absent.jpg", NotFound, "is not there"),
        (tmp_path, InvalidInput, "is a folder, wanted one image"),
        (tmp_path / "pipe.jpg", UnsafeFile, "is not a regular file"),
        (Path("/dev/zero"), UnsafeFile, "is not a regular file"),
        ("zero\0byte.jpg", NotFound, "cannot be opened"),
        ("x" * 5000, NotFound, "cannot be opened"),
    ]
    for path, error, message in cases:
        with pytest.raises(error, match=message):
            open_picture(path)


def test_a_folder_gives_its_images_in_order(tmp_path):
    (tmp_path / "inside").mkdir()
    for name in ("b.JPG", "a.png", "inside/c.webp", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(PNG)
    assert [path.name for path in files_in(tmp_path, kinds.Image.suffixes)] == ["a.png", "b.JPG", "c.webp"]


def test_a_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InvalidInput, match=r"holds no file that ends in \.jpg"):
        files_in(tmp_path, kinds.Image.suffixes)
