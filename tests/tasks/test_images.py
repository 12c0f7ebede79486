"""The tasks on images: the reference's answers, every way to give an image, and bad ones."""

import io
import json

import numpy as np
import PIL.Image
import pytest
import torch
import transformers

import tiny
import triarch
from answers import assert_same
from triarch.cli import main
from triarch.errors import CorruptFile, InvalidInput, LimitExceeded, NotFound, TriarchError, Unsupported

LABELS = ["cat", "dog", "bird", "fish", "horse", "cow", "sheep"]


def picture(seed=0, size=(37, 41)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels)


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tiny ViTs with their image processor, as the reference saves them: `folder(head)`."""
    made = {}

    def write(head, **config):
        key = (head, *config.items())
        if key not in made:
            torch.manual_seed(0)
            sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
            labels = {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}
            config = transformers.ViTConfig(image_size=24, patch_size=8, **sizes, **labels, **config)
            model = getattr(transformers, head)(config)
            for tensor in model.parameters():
                torch.nn.init.normal_(tensor, std=0.5 if tensor.dim() == 1 else 0.2)
            made[key] = tmp_path_factory.mktemp("vit")
            model.save_pretrained(made[key])
            transformers.ViTImageProcessor(size={"height": 24, "width": 24}).save_pretrained(made[key])
        return made[key]

    return write


@pytest.fixture(scope="module")
def classify(folder):
    return triarch.pipeline("image-classification", folder("ViTForImageClassification"))


def theirs(task, folder):
    processor = transformers.ViTImageProcessor.from_pretrained(folder)
    return transformers.pipeline(task, str(folder), image_processor=processor, device="cpu")


# Answers


@pytest.mark.parametrize("call", [{}, {"top_k": 2}, {"top_k": 100}, {"function_to_apply": "sigmoid"}])
def test_labels_are_those_of_the_reference(folder, classify, call):
    reference = theirs("image-classification", folder("ViTForImageClassification"))
    for seed in range(3):
        want, got = reference(picture(seed), **call), classify(picture(seed), **call)
        assert [one["label"] for one in got] == [one["label"] for one in want]
        assert [one["score"] for one in got] == pytest.approx([one["score"] for one in want], abs=1e-5)


def test_a_model_of_several_labels_at_once_has_a_share_for_each(folder):
    made = folder("ViTForImageClassification", problem_type="multi_label_classification")
    got = triarch.pipeline("image-classification", made)(picture())
    want = theirs("image-classification", made)(picture())
    assert [one["score"] for one in got] == pytest.approx([one["score"] for one in want], abs=1e-5)


@pytest.mark.parametrize("pool", [False, True])
def test_features_are_those_of_the_reference(folder, pool):
    made = folder("ViTModel")
    got = triarch.pipeline("image-feature-extraction", made)(picture(), pool=pool)
    want = theirs("image-feature-extraction", made)(picture(), pool=pool)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_features_come_as_a_tensor_on_request(folder):
    extract = triarch.pipeline("image-feature-extraction", folder("ViTModel"), return_tensors=True)
    assert extract(picture()).shape == (1, 10, 32)
    assert extract(picture(), pool=True).shape == (1, 32)


def test_a_model_without_a_pooler_says_so(folder):
    extract = triarch.pipeline("image-feature-extraction", folder("ViTForImageClassification"))
    with pytest.raises(Unsupported, match="ViTForImageClassification has no pooler; leave pool out"):
        extract(picture(), pool=True)


# Ways to give an image


def test_every_way_to_give_an_image_gives_the_same(classify, tmp_path):
    image = picture()
    path = tmp_path / "a.png"
    image.save(path)
    want = classify(image)
    for given in (path, str(path), png(image), io.BytesIO(png(image)), np.array(image), {"image": str(path)}):
        assert classify(given) == want


def test_lists_folders_and_tables_hold_several(classify, tmp_path):
    images = [picture(seed) for seed in range(3)]
    for number, image in enumerate(images):
        (tmp_path / "photos").mkdir(exist_ok=True)
        image.save(tmp_path / "photos" / f"{number}.png")
    want = [classify(image) for image in images]
    assert_same(classify(images), want)
    for given in (iter(images), tmp_path / "photos", str(tmp_path / "photos")):
        assert_same(list(classify(given)), want)
    rows = [json.dumps({"image": str(tmp_path / "photos" / f"{number}.png")}) for number in range(3)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n")
    assert_same(list(classify(tmp_path / "rows.jsonl")), want)


def test_answers_do_not_depend_on_the_batch(classify):
    images = [picture(seed) for seed in range(5)]
    for one, alone in zip(
        classify(images, batch_size=5, top_k=7), classify(images, batch_size=1, top_k=7), strict=True
    ):
        assert [label["score"] for label in one] == pytest.approx([label["score"] for label in alone], abs=1e-6)


def test_an_address_is_fetched_only_when_asked_for(classify, monkeypatch):
    asked = []
    monkeypatch.setattr("triarch.inputs.fetch.fetch", lambda url, **more: asked.append(url) or png(picture()))
    with pytest.raises(InvalidInput, match="nothing is fetched unless asked for"):
        classify("https://example.org/a.png")
    assert not asked
    assert classify("https://example.org/a.png", urls=True) == classify(picture())
    assert asked == ["https://example.org/a.png"]


def test_of_an_animation_the_first_frame_is_read_only_by_name(classify, tmp_path):
    frames = [picture(seed).quantize(16) for seed in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(InvalidInput, match=r"a\.gif has several frames; ask for the first with animated="):
        classify(tmp_path / "a.gif")
    assert classify(tmp_path / "a.gif", animated="first", top_k=1)


# Bad images


def bomb():
    file = io.BytesIO()
    PIL.Image.new("1", (60_000, 60_000)).save(file, "PNG")
    return file.getvalue()


BAD = {
    "bomb": (bomb, LimitExceeded),
    "truncated": (lambda: png(picture(size=(200, 200)))[:400], CorruptFile),
    "text": (lambda: b"hello, I am no picture", TriarchError),
    "empty": (lambda: b"", TriarchError),
    "wrong type": (lambda: 7, InvalidInput),
    "NaN": (lambda: np.full((8, 8, 3), np.nan), InvalidInput),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_is_an_error_of_one_line_and_the_rest_goes_on(classify, name):
    make, error = BAD[name]
    good, bad, after = classify.stream([picture(), make(), picture()], classify.options({}))
    assert_same([good, after], [classify(picture())] * 2)
    assert isinstance(bad, error)
    assert "\n" not in str(bad)


def test_one_pixel_is_an_image(classify):
    assert len(classify(PIL.Image.new("RGB", (1, 1)))) == 5


def test_a_folder_without_pictures_is_refused(classify, tmp_path):
    (tmp_path / "a.txt").write_text("no picture")
    with pytest.raises(TriarchError, match=r"holds no file that ends in \.jpg"):
        list(classify(tmp_path))
    with pytest.raises(NotFound):
        classify(str(tmp_path / "absent.png"))


# What a checkpoint is offered for


def test_a_vit_with_labels_is_no_text_classifier(folder):
    with pytest.raises(Unsupported, match="reads image, this task needs one that reads text"):
        triarch.pipeline("text-classification", folder("ViTForImageClassification"))


def test_a_bert_with_labels_is_no_image_classifier():
    with pytest.raises(Unsupported, match="reads text, this task needs one that reads image"):
        triarch.pipeline("image-classification", tiny.load("bert-labels"))


def run(capsys, *arguments):
    return main([*map(str, arguments)]), *capsys.readouterr()


def test_inspect_lists_the_tasks_of_its_medium(folder, capsys):
    code, out, _ = run(capsys, "inspect", folder("ViTForImageClassification"), "--json")
    assert code == 0
    assert json.loads(out)["tasks"] == ["image-classification", "image-feature-extraction"]


def test_the_shell_reads_a_file_a_folder_and_a_bad_file(folder, tmp_path, capsys):
    made = folder("ViTForImageClassification")
    (tmp_path / "photos").mkdir()
    picture().save(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "b.jpg").write_text("a text")
    code, out, _ = run(capsys, "run", "image-classification", tmp_path / "photos" / "a.png", "-m", made, "--json")
    assert code == 0
    assert json.loads(out) == triarch.pipeline("image-classification", made)(picture())
    code, out, _ = run(capsys, "run", "image-classification", tmp_path / "photos", "-m", made, "--jsonl")
    lines = [json.loads(line) for line in out.splitlines()]
    assert ["result" in line for line in lines] == [True, False]
    assert code == 3
