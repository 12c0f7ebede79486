"""Pixel values: those of the reference's PIL path to the bit, over sizes, modes and the spellings of its settings."""

import io
import json
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from transformers.image_utils import load_image

import samples_of_images as samples
from triarch.errors import CorruptFile, InvalidInput, LimitExceeded, TriarchError, Unsupported
from triarch.files import Folder
from triarch.inputs.image import ImageFormat

VIT = {"do_resize": True, "size": {"height": 224, "width": 224}, "resample": 2, "do_rescale": True}
VIT |= {"do_normalize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
DEIT = VIT | {"resample": 3, "do_center_crop": True, "size": {"height": 256, "width": 256}}
DEIT |= {"crop_size": {"height": 224, "width": 224}}
FORMAT = ImageFormat({"ViTImageProcessor": VIT, "DeiTImageProcessor": DEIT})
RGB = SimpleNamespace(num_channels=3, patch_size=16)
SIZES = [(1, 1), (2, 300), (300, 2), (31, 32), (224, 224), (225, 223), (500, 333), (640, 480)]
SETTINGS = {
    "ViT": {},
    "an int": {"size": 30},
    "a pair": {"size": [20, 33]},
    "nearest": {"resample": 0, "size": 40},
    "Lanczos": {"resample": 1, "size": 40},
    "bicubic": {"resample": 3, "size": 40},
    "box": {"resample": 4, "size": 40},
    "Hamming": {"resample": 5, "size": 40},
    "other mean": {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
    "no resizing": {"do_resize": False},
    "no rescaling": {"do_rescale": False},
    "no normalising": {"do_normalize": False},
    "nothing at all": {"do_resize": False, "do_rescale": False, "do_normalize": False},
    "other factor": {"rescale_factor": 0.01},
    "crop": {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": 32},
    "large crop": {"size": {"shortest_edge": 21}, "do_center_crop": True, "crop_size": {"height": 30, "width": 31}},
    "longest": {"size": {"shortest_edge": 40, "longest_edge": 60}},
    "within": {"size": {"max_height": 40, "max_width": 60}},
    "not square": {"size": 40, "default_to_square": False},
}


def theirs(image, name="ViT", **settings):
    processor = getattr(transformers, f"{name}ImageProcessorPil")(**settings)
    return processor(images=load_image(image), return_tensors="np")["pixel_values"][0]


def ours(image, config=RGB, **settings):
    processor = FORMAT.made(settings, config)
    (piece,) = processor.pieces(processor.read(image))
    return piece.content


NARROW = ("longest", "within")  # the reference would make a very long image 0 pixels wide, and fails


@pytest.mark.parametrize(
    "settings, size", [(name, size) for name in SETTINGS for size in SIZES if name not in NARROW or 2 not in size]
)
def test_pixel_values_are_those_of_the_reference_to_the_bit(settings, size):
    image = samples.image(*size)
    got = ours(image, **SETTINGS[settings])
    want = theirs(image, **SETTINGS[settings])
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("mode", samples.MODES)
def test_every_mode_becomes_rgb_as_in_the_reference(mode):
    image = samples.image(50, 40).convert(mode)
    np.testing.assert_array_equal(ours(image), theirs(image))


def test_other_classes_have_defaults_of_their_own():
    image = samples.image(300, 260)
    np.testing.assert_array_equal(ours(image, image_processor_type="DeiTImageProcessorFast"), theirs(image, "DeiT"))


def test_the_names_of_older_and_newer_versions_are_one_class():
    for key, name in (
        ("feature_extractor_type", "ViTFeatureExtractor"),
        ("image_processor_type", "ViTImageProcessorFast"),
    ):
        assert FORMAT.made({key: name, "size": 32}, RGB).settings["image_processor_type"] == "ViTImageProcessor"


def test_one_channel_is_grey():
    config = SimpleNamespace(num_channels=1, patch_size=7)
    image = samples.image(28, 28)
    got = ours(image, config, size=28, image_mean=0.5)
    np.testing.assert_allclose(got[0], (np.asarray(image.convert("L")) / 255 - 0.5) / 0.5, atol=1e-6)


def test_the_cost_is_the_number_of_patches():
    processor = FORMAT.made({"size": [32, 60]}, RGB)
    (piece,) = processor.pieces(processor.read(samples.image(9, 9)))
    assert piece.cost == 2 * 4


def test_pieces_become_a_batch():
    processor = FORMAT.made({"size": 32}, RGB)
    pieces = [piece for side in (5, 50) for piece in processor.pieces(processor.read(samples.image(side, 9)))]
    batch = processor.collate(pieces)
    assert list(batch) == ["pixel_values"]
    assert batch["pixel_values"].shape == (2, 3, 32, 32)
    assert batch["pixel_values"].dtype == torch.float32


def test_a_batch_of_unlike_sizes_is_refused():
    processor = FORMAT.made({"do_resize": False}, RGB)
    pieces = [piece for side in (5, 50) for piece in processor.pieces(processor.read(samples.image(side, 9)))]
    with pytest.raises(InvalidInput, match=r"9 × 5 and 9 × 50 pixels do not go into one batch"):
        processor.collate(pieces)


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_reference_reads_what_is_saved_and_sees_the_same(settings, tmp_path):
    FORMAT.made({"size": 224} | SETTINGS[settings], RGB).save(tmp_path)
    image = samples.image(70, 61)
    loaded = transformers.AutoImageProcessor.from_pretrained(tmp_path, use_fast=False)
    want = loaded(images=load_image(image), return_tensors="np")["pixel_values"][0]
    again = FORMAT.load(Folder(tmp_path), RGB)
    np.testing.assert_array_equal(again.pieces(again.read(image))[0].content, want)


def test_settings_inside_of_processor_config_are_read(tmp_path):
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": {"size": 48}}))
    assert FORMAT.load(Folder(tmp_path), RGB).size == {"height": 48, "width": 48}


def test_a_folder_without_the_file_has_no_processor(tmp_path):
    assert FORMAT.load(Folder(tmp_path), RGB) is None


def test_a_model_of_thirteen_channels_has_no_processor(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text("{}")
    assert FORMAT.load(Folder(tmp_path), SimpleNamespace(num_channels=13, patch_size=16)) is None


def test_threads_share_a_processor():
    processor = FORMAT.made({"size": 64}, RGB)
    image = samples.encoded(samples.image(200, 100), "JPEG")
    want, wrong = processor.pieces(processor.read(image))[0].content, []

    def work():
        for _ in range(20):
            if not np.array_equal(processor.pieces(processor.read(image))[0].content, want):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


NUMBER = r"preprocessor_config\.json: "
BAD = [
    ({"size": 10**9}, InvalidInput, "size has 1000000000, wanted pixels, 1 to 16,384"),
    ({"size": {"height": 0, "width": 5}}, InvalidInput, "size has 0, wanted pixels"),
    ({"size": {"height": True, "width": 5}}, InvalidInput, "size has True, wanted pixels"),
    ({"size": {"longest_edge": 5}}, InvalidInput, "size is .*longest_edge.*, wanted height and width, or"),
    ({"size": "224"}, InvalidInput, "size is 224, wanted height and width"),
    ({"do_center_crop": True}, InvalidInput, "crop_size is None, wanted height and width"),
    ({"do_center_crop": True, "crop_size": {"shortest_edge": 5}}, InvalidInput, "crop_size has shortest_edge, wanted"),
    ({"resample": 6}, InvalidInput, "resample is 6, wanted 0 to 5"),
    ({"resample": "bicubic"}, InvalidInput, "resample is bicubic, wanted 0 to 5"),
    ({"do_resize": "yes"}, InvalidInput, "do_resize is yes, wanted true or false"),
    ({"rescale_factor": float("nan")}, InvalidInput, "rescale_factor is nan, wanted a number"),
    ({"rescale_factor": 1e300}, InvalidInput, "rescale_factor is 1e[+]300, wanted a number"),
    ({"image_std": [0.5, 0, 0.5]}, InvalidInput, "image_std is .*, wanted numbers above 0"),
    ({"image_mean": [float("nan")] * 3}, InvalidInput, "image_mean is .*, wanted 3 numbers"),
    ({"image_mean": [0.5, 0.4]}, InvalidInput, "image_mean is .*, wanted 3 numbers"),
    ({"image_processor_type": "DPTImageProcessor"}, Unsupported, "names DPTImageProcessor; wanted ViTImageProcessor"),
    ({"image_processor_type": ["x"]}, Unsupported, "names .*; wanted ViTImageProcessor or DeiTImageProcessor"),
    ({"do_flip_channel_order": True}, Unsupported, "asks for do_flip_channel_order, which is not implemented, only"),
    ({"do_pad": True}, Unsupported, "asks for do_pad, which is not implemented"),
    ({"size_divisor": 32}, Unsupported, "size_divisor=32 is not implemented"),
]


@pytest.mark.parametrize("settings, error, message", BAD, ids=[str(case[0]) for case in BAD])
def test_settings_that_are_not_understood_are_refused(settings, error, message):
    with pytest.raises(error, match=message) as raised:
        FORMAT.made(settings, RGB)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("step", ["do_pad", "do_flip_channel_order"])
def test_a_step_that_is_switched_off_does_no_harm(step):
    assert FORMAT.made({step: False, "size_divisor": None}, RGB).size == VIT["size"]


def test_a_file_that_is_no_object_is_refused(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text("[1]")
    with pytest.raises(CorruptFile, match="is a list, wanted an object"):
        FORMAT.load(Folder(tmp_path), RGB)


def test_resizing_cannot_make_a_giant():
    with pytest.raises(LimitExceeded, match=r"the resized image has 3,670,016 × 224 pixels"):
        ours(samples.image(16384, 1), size={"shortest_edge": 224})


def test_what_is_no_image_is_a_typed_error():
    processor = FORMAT.made({}, RGB)
    with pytest.raises(TriarchError, match="no JPEG, PNG, WebP, GIF or BMP"):
        processor.read(io.BytesIO(b"some text"))
