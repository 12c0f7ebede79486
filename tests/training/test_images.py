"""A new ViT learns from a folder of images for each class."""

import numpy as np
import pytest
from PIL import Image

import runs
import triarch
from triarch.errors import InvalidInput

SIZES = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "intermediate_size": 32, "image_size": 16, "patch_size": 8}
COLOURS = {"blue": (20, 30, 200), "red": (210, 40, 20)}


@pytest.fixture
def photos(tmp_path):
    for name, colour in COLOURS.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(6):
            image = Image.new("RGB", (20 + i, 24), tuple(value + i for value in colour))
            image.save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


def learn(photos, output, **settings):
    given = {"family": "vit", "config": SIZES, "epochs": 6, "batch_size": 4, "lr": 0.003} | settings
    return triarch.train(photos, output=output, note=lambda line: None, **given)


def test_a_new_model_learns_from_a_folder_for_each_class(photos, tmp_path, fast_disk):
    learn(photos, tmp_path / "out")
    assert triarch.evaluate(tmp_path / "out", photos, note=lambda line: None)["accuracy"] == 1.0
    assert triarch.load(tmp_path / "out").processor.size == {"height": 16, "width": 16}


def test_the_folder_of_a_processor_goes_before_the_usual_one(photos, tmp_path, fast_disk):
    learn(photos, tmp_path / "first", epochs=1)
    learn(photos, tmp_path / "second", epochs=1, tokenizer=str(tmp_path / "first"))
    names = ("model.safetensors", "preprocessor_config.json")
    first, second = ([(tmp_path / run / name).read_bytes() for name in names] for run in ("first", "second"))
    assert first == second


def test_rows_in_memory_hold_arrays_or_bytes(photos, tmp_path, fast_disk):
    files = sorted(photos.rglob("*.png"))
    labels = [path.parent.name for path in files]
    inputs = [np.asarray(Image.open(path)) if i % 2 else path.read_bytes() for i, path in enumerate(files)]
    rows = [{"image": image, "label": label} for image, label in zip(inputs, labels, strict=True)]
    learn(rows, tmp_path / "out", validation_share=0.25, epochs=1, lr=1e-6)
    assert triarch.evaluate(tmp_path / "out", rows, note=lambda line: None)["loss"] > 0


def test_a_damaged_image_is_a_row_that_cannot_be_used(photos, tmp_path):
    (photos / "red" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InvalidInput, match=r"1 of 12 rows cannot be used: .*red/0\.png"):
        learn(photos, tmp_path / "out")


def test_media_are_kept_apart(photos, model, tmp_path):
    with pytest.raises(InvalidInput, match=r"holds files that are not known as data \(blue/0\.png"):
        triarch.train(photos, model=model("bert"), output=tmp_path / "images", note=lambda line: None)
    with pytest.raises(InvalidInput, match=r"the columns \(text, label\) fit no kind .* --column image=text"):
        learn(runs.ROWS, tmp_path / "texts")
