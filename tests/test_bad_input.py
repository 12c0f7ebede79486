"""One table of hostile and broken checkpoints, each through Python and through the command line.

Ids are those of the project's catalogue of hostile input (C: checkpoint files, T: tokenizer files, L: command line).
Every case ends in a typed error of one line, within seconds and bounded memory, without side effects.
"""

import io
import json
import os
import pickle
import resource
import shutil
import struct
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
import triarch
from triarch import limits
from triarch.cli import main
from triarch.errors import (
    CheckpointMismatch,
    CorruptFile,
    InvalidInput,
    LimitExceeded,
    NotFound,
    TriarchError,
    UnsafeFile,
    Unsupported,
)

# Watching the process


class Watch:
    """Notes what no case may do. An audit hook cannot be taken off, so it is there once and switched."""

    FORBIDDEN = ("os.system", "subprocess.Popen", "os.posix_spawn", "os.exec", "os.fork", "socket.connect", "pty.spawn")

    def __init__(self):
        self.on, self.seen = False, []
        sys.addaudithook(self.hook)

    def hook(self, event, args):
        if self.on and event in self.FORBIDDEN:
            self.seen.append(event)

    def __enter__(self):
        self.on, self.seen, self.start = True, [], time.thread_time()
        self.memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def __exit__(self, *raised):
        self.on = False
        assert self.seen == []
        assert time.thread_time() - self.start < 3  # seconds of work, however busy the machine
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self.memory < 256 * 1024  # KiB


WATCH = Watch()


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    tiny.write_checkpoint(folder, "bert", "BertForSequenceClassification")
    triarch.pipeline("text-classification", folder)("warm up")
    return folder


@pytest.fixture
def folder(good, tmp_path):
    return Path(shutil.copytree(good, tmp_path / "model"))


# Builders: each spoils a good folder


def weights(folder):
    return folder / "model.safetensors"


def split(folder):
    """A safetensors file as header and data."""
    raw = weights(folder).read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def joined(folder, header, data=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    weights(folder).write_bytes(struct.pack("<Q", len(raw)) + raw + data)


def header_length(value):
    def build(folder):
        raw = weights(folder).read_bytes()
        weights(folder).write_bytes(struct.pack("<Q", value) + raw[8:])

    return build


def only_bytes(data):
    return lambda folder: weights(folder).write_bytes(data)


def header_is(raw):
    return lambda folder: joined(folder, raw, b"")


def one_tensor(**said):
    """A file with one tensor, described in this way, over 64 bytes of data."""
    described = {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]} | said
    return lambda folder: joined(folder, {"a": described}, bytes(64))


def two_tensors(first, second, size=64):
    def build(folder):
        spans = {"a": first, "b": second}
        header = {n: {"dtype": "U8", "shape": [abs(e - b)], "data_offsets": [b, e]} for n, (b, e) in spans.items()}
        joined(folder, header, bytes(size))

    return build


def twice(folder):
    line = '"a":{"dtype":"F32","shape":[16],"data_offsets":[0,64]}'
    joined(folder, f"{{{line},{line}}}".encode(), bytes(64))


def many_tensors(count):
    def build(folder):
        lines = (f'"{i}":{{"dtype":"U8","shape":[1],"data_offsets":[{i},{i + 1}]}}' for i in range(count))
        joined(folder, f"{{{','.join(lines)}}}".encode(), bytes(count))

    return build


def wrong_shapes(folder):
    header, data = split(folder)
    said = header["classifier.weight"]
    said["shape"] = said["shape"][::-1]
    joined(folder, header, data)


def headless(folder):
    tensors = {name: tensor for name, tensor in load_file(weights(folder)).items() if "classifier" not in name}
    save_file(tensors, weights(folder))


def truncated(folder):
    raw = weights(folder).read_bytes()
    weights(folder).write_bytes(raw[: len(raw) // 2])


def renamed_to_index(folder, weight_map, *, keep=False):
    names = [name for name in split(folder)[0] if name != "__metadata__"]
    if not keep:
        weights(folder).rename(folder / "whole.safetensors")
    else:
        weights(folder).rename(folder / "model-00001-of-00001.safetensors")
    table = dict.fromkeys(names, weight_map)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))


def shard_named(name):
    return lambda folder: renamed_to_index(folder, name)


def shard_that_is(make):
    """A plainly named shard that is no file of the folder."""

    def build(folder):
        renamed_to_index(folder, "shard.safetensors")
        make(folder / "shard.safetensors")

    return build


def tensor_in_two_shards(folder):
    renamed_to_index(folder, "whole.safetensors")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    shutil.copy(folder / "whole.safetensors", folder / "more.safetensors")
    index["weight_map"]["one.more"] = "more.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def many_shards(folder):
    weights(folder).unlink()
    table = {f"t{i}": f"s{i}.safetensors" for i in range(limits.SHARDS + 1)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))


def huge(name, size=500_000_000):
    """A file that is large on paper alone."""

    def build(folder):
        if name.endswith("index.json"):
            weights(folder).unlink()
        with (folder / name).open("wb") as file:
            file.truncate(size)

    return build


class Calls:
    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def hostile_bin(folder):
    weights(folder).unlink()
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": Calls(os.system, f"touch {folder}/canary")}, 2))
        archive.writestr("archive/version", "3\n")


def pickle_alone(folder):
    weights(folder).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Calls(os.system, f"touch {folder}/canary")}, 2))


def config(**changes):
    def build(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return build


def config_bytes(change):
    return lambda folder: (folder / "config.json").write_bytes(change((folder / "config.json").read_bytes()))


def without(*names):
    def build(folder):
        for name in names:
            (folder / name).unlink()

    return build


def text_file(name, content):
    return lambda folder: (folder / name).write_text(content)


def tokenizer_too_large(folder):
    names = folder / "vocab.txt"
    (folder / "tokenizer.json").unlink(missing_ok=True)
    names.write_text(names.read_text().rstrip("\n") + "\n" + "\n".join(f"extra{i}" for i in range(500)) + "\n")


def tokenizer_cut(folder):
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "WordPiece", "vocab": {"a"')


NESTED = b'{"__metadata__":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001

CASES = [
    ("C01 header longer than any", header_length(2**63), CorruptFile),
    ("C01 header longer than the file", header_length(10_000_000), CorruptFile),
    ("C01 header over the limit", header_length(limits.HEADER_BYTES + 1), CorruptFile),
    ("C02 empty file", only_bytes(b""), CorruptFile),
    ("C02 five bytes", only_bytes(bytes(5)), CorruptFile),
    ("C02 eight bytes", only_bytes(bytes(8)), CorruptFile),
    ("C03 header not UTF-8", header_is(b'{"\xff\xfe":1}'), CorruptFile),
    ("C03 header not JSON", header_is(b"{nonsense}"), CorruptFile),
    ("C03 header with a space before", header_is(b" {}"), CorruptFile),
    ("C03 header is a list", header_is(b"[1]"), CorruptFile),
    ("C03 header ends in a zero byte", header_is(b"{}\0"), CorruptFile),
    ("C04 a tensor twice", twice, CorruptFile),
    ("C05 tensors overlap", two_tensors((0, 40), (30, 64)), CorruptFile),
    ("C05 a hole between tensors", two_tensors((0, 30), (40, 64)), CorruptFile),
    ("C05 offsets the wrong way round", two_tensors((0, 32), (64, 32)), CorruptFile),
    ("C05 tensor past the end", two_tensors((0, 32), (32, 128)), CorruptFile),
    ("C05 negative offset", two_tensors((-32, 0), (0, 64)), CorruptFile),
    ("C05 bytes that no tensor claims", two_tensors((0, 16), (16, 32)), CorruptFile),
    ("C06 shape overflows", one_tensor(shape=[2**32, 2**32]), CorruptFile),
    ("C06 shape is huge", one_tensor(shape=[2**40]), CorruptFile),
    ("C06 shape is negative", one_tensor(shape=[-1]), CorruptFile),
    ("C06 shape is no number", one_tensor(shape=[True]), CorruptFile),
    ("C06 unknown dtype", one_tensor(dtype="F31"), CorruptFile),
    ("C06 nine dimensions", one_tensor(shape=[16, *[1] * 8]), CorruptFile),
    ("C07 bytes do not match the shape", one_tensor(shape=[15]), CorruptFile),
    ("C08 200,000 tensors", many_tensors(200_000), LimitExceeded),
    ("C08 a header of tensors over the limit", many_tensors(400_000), CorruptFile),
    ("C09 metadata 10,000 levels deep", header_is(NESTED), CorruptFile),
    ("C10 shapes unlike the config's", wrong_shapes, CheckpointMismatch),
    ("C14 half a file", truncated, CorruptFile),
    ("C16 a pickle that runs a command", hostile_bin, UnsafeFile),
    ("C17 a bare pickle", pickle_alone, UnsafeFile),
    ("C21 shard above the folder", shard_named("../../etc/passwd"), UnsafeFile),
    ("C21 absolute shard", shard_named("/etc/shadow"), UnsafeFile),
    ("C21 shard on another drive", shard_named("C:\\x"), UnsafeFile),
    ("C21 shard around a corner", shard_named("a/../b"), UnsafeFile),
    ("C21 shard is a dot", shard_named(".."), UnsafeFile),
    ("C21 shard is a link outside", shard_that_is(lambda path: path.symlink_to("/etc/passwd")), UnsafeFile),
    ("C21 shard is a device", shard_that_is(lambda path: path.symlink_to("/dev/zero")), UnsafeFile),
    ("C21 shard is a pipe", shard_that_is(os.mkfifo), UnsafeFile),
    ("C21 shard is a folder", shard_that_is(Path.mkdir), UnsafeFile),
    ("C21 shard is a hard link to another file", shard_that_is(lambda path: path.hardlink_to(__file__)), CorruptFile),
    ("C22 index too large", huge("model.safetensors.index.json"), LimitExceeded),
    ("C22 too many shards", many_shards, LimitExceeded),
    ("C22 shard that is not there", shard_named("absent.safetensors"), NotFound),
    ("C22 a tensor in two shards", tensor_in_two_shards, CorruptFile),
    ("C24 hidden size of a trillion", config(hidden_size=2**40), InvalidInput),
    ("C24 hidden size negative", config(hidden_size=-1), InvalidInput),
    ("C24 hidden size with a fraction", config(hidden_size=1.5), InvalidInput),
    ("C24 hidden size as text", config(hidden_size="64"), InvalidInput),
    ("C24 hidden size as truth value", config(hidden_size=True), InvalidInput),
    ("C24 dropout that is no number", config(hidden_dropout_prob=float("nan")), CorruptFile),
    ("C24 dropout above one", config(hidden_dropout_prob=1.5), InvalidInput),
    ("C24 a billion layers", config(num_hidden_layers=10**9), InvalidInput),
    ("C24 many layers that the file lacks", config(num_hidden_layers=200), CheckpointMismatch),
    ("C24 heads that do not divide", config(num_attention_heads=5), InvalidInput),
    ("C24 no vocabulary", config(vocab_size=0), InvalidInput),
    ("C24 a larger vocabulary than the file", config(vocab_size=10_000_000), CheckpointMismatch),
    ("C25 dtype that names a function", config(torch_dtype="os.system", dtype="os.system"), InvalidInput),
    ("C25 activation that names an attribute", config(hidden_act="__class__"), InvalidInput),
    ("C26 config of 200 MB", huge("config.json", 200_000_000), LimitExceeded),
    ("C26 config nested deep", config_bytes(lambda raw: b'{"a":' * 100_000), CorruptFile),
    ("C26 config with a key twice", config_bytes(lambda raw: b'{"vocab_size": 1,' + raw.lstrip(b"{ \n")), CorruptFile),
    ("C26 config with a byte order mark", config_bytes(lambda raw: b"\xef\xbb\xbf" + raw), CorruptFile),
    ("C26 config in UTF-16", config_bytes(lambda raw: raw.decode().encode("utf-16")), CorruptFile),
    ("C26 config is a list", config_bytes(lambda raw: b"[]"), CorruptFile),
    ("C27 labels with odd keys", config(id2label={"0": "a", "x": "b"}), InvalidInput),
    ("C27 labels with a gap", config(id2label={"0": "a", "7": "b"}), InvalidInput),
    ("C27 labels that are a list", config(id2label=["a", "b"]), InvalidInput),
    ("C27 too many labels", config(id2label=None, num_labels=2**40), InvalidInput),
    ("C35 another format under our name", only_bytes(b"GGUF" + bytes(100)), CorruptFile),
    ("no config", without("config.json"), NotFound),
    ("modules that are no list", text_file("modules.json", "5"), CorruptFile),
    ("modules that are no objects", text_file("modules.json", '["1_Pooling"]'), CorruptFile),
    ("thousands of modules", text_file("modules.json", json.dumps([{"path": "1_Pooling"}] * 5000)), LimitExceeded),
    ("no weights", without("model.safetensors"), NotFound),
    ("unknown family", config(model_type="bertt"), NotFound),
    ("no model type", config(model_type=None), InvalidInput),
    ("a head that the file lacks", headless, CheckpointMismatch),
    ("architectures that is no list", config(architectures="BertModel"), InvalidInput),
    ("T01 tokenizer cut short", tokenizer_cut, CorruptFile),
    ("T04 tokenizer larger than the embedding", tokenizer_too_large, InvalidInput),
]


def error_of(capsys, *arguments):
    """Exit code and the one line that a failing command leaves on stderr."""
    code = main([*map(str, arguments)])
    out, err = capsys.readouterr()
    assert out == ""
    return code, err


@pytest.mark.parametrize("build, error", [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_refused_in_python_and_shell(folder, capsys, build, error):
    build(folder)
    before = sorted(folder.rglob("*"))
    with WATCH, pytest.raises(TriarchError) as refused:
        triarch.pipeline("text-classification", folder)
    assert type(refused.value) is error, refused.value
    assert "\n" not in str(refused.value)
    with WATCH:
        code, line = error_of(capsys, "run", "text-classification", "hello", "-m", folder)
    assert code == error.exit_code
    assert line == f"triarch: {refused.value}\n"
    assert sorted(folder.rglob("*")) == before


HARMLESS = [
    ("C20 a hostile .bin beside safetensors", lambda folder: (folder / "pytorch_model.bin").symlink_to("/dev/zero")),
    ("C23 code to load", config(auto_map={"AutoModel": "evil--model.Evil"}, trust_remote_code=True)),
    (
        "C23 a kernel to fetch",
        config(_attn_implementation_internal="evil/kernel", custom_pipelines={"x": {"impl": "y"}}),
    ),
    ("C27 labels that paint the terminal", config(id2label={"0": "\x1b[31m<b>red\nline", "1": "b"})),
]


@pytest.mark.parametrize("build", [case[1] for case in HARMLESS], ids=[case[0] for case in HARMLESS])
def test_ignored_and_answered(good, folder, capsys, build):
    want = triarch.pipeline("text-classification", good)("hello", top_k=None)
    build(folder)
    with WATCH:
        got = triarch.pipeline("text-classification", folder)("hello", top_k=None)
    assert [label["score"] for label in got] == pytest.approx([label["score"] for label in want])
    with WATCH:
        assert main(["run", "text-classification", "hello", "-m", str(folder)]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_c14_cut_at_any_place(folder, good):
    raw = weights(good).read_bytes()
    for size in {*range(0, len(raw), 4096), len(raw) - 1, 8 + 1}:
        weights(folder).write_bytes(raw[:size])
        with pytest.raises(CorruptFile):
            triarch.load(folder)


MISUSES = [
    ("missing folder", ["run", "fill-mask", "x", "-m", "./nowhere"], NotFound),
    ("a file for a folder", ["run", "fill-mask", "x", "-m", __file__], NotFound),
    ("a zero byte in the name", ["inspect", "a\0b"], InvalidInput),
    ("no name", ["inspect", ""], InvalidInput),
    ("a name too long for a file", ["inspect", "a" * 5000], NotFound),
    ("a user who is not there", ["inspect", "~nobody-of-that-name/model"], NotFound),
    ("a name above the folder", ["inspect", "../../../nowhere"], NotFound),
    ("a name like a repo, upwards", ["inspect", "a/.."], NotFound),
]


@pytest.mark.parametrize("arguments, error", [case[1:] for case in MISUSES], ids=[case[0] for case in MISUSES])
def test_wrong_names(capsys, arguments, error):
    code, line = error_of(capsys, *arguments)
    assert code == error.exit_code
    assert line.startswith("triarch: ")
    assert line.count("\n") == 1


def test_unknown_task_in_python():
    with pytest.raises(NotFound, match="did you mean fill-mask"):
        triarch.pipeline("fil-mask", "x")


def test_head_that_the_checkpoint_lacks(good):
    with pytest.raises(Unsupported, match="BertForSequenceClassification has no head that gives SpanScores"):
        triarch.pipeline("question-answering", good)


def test_a_classifier_of_sequences_is_none_of_tokens(good):
    with pytest.raises(Unsupported, match="BertForSequenceClassification has no head that gives TokenScores"):
        triarch.pipeline("ner", good)


@pytest.mark.parametrize("shape", [(3,), (1, 1, 1, 3)])
def test_ids_of_another_shape(good, shape):
    with pytest.raises(InvalidInput, match="wanted \\(B, T\\)"):
        triarch.load(good)(torch.ones(shape, dtype=torch.int64))


def test_offline_opens_no_socket(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with WATCH, pytest.raises(triarch.errors.Offline, match="HF_HUB_OFFLINE is set"):
        triarch.load("nobody/nothing")


def test_empty_text_is_answered(good):
    assert triarch.pipeline("text-classification", good)("")[0]["score"] > 0


def test_ten_megabytes_in_one_line(good):
    assert triarch.pipeline("text-classification", good)(("x" * 124 + " ") * 80_000)[0]["score"] > 0


def test_ten_megabytes_without_a_space(good):
    assert triarch.pipeline("text-classification", good)("x" * 10_000_000)[0]["score"] > 0


def test_bytes_that_are_not_utf8(good, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"good\n\xff\xfe bad\nfine\n")))
    code = main(["run", "text-classification", "-", "--jsonl", "-m", str(good)])
    first, second, third = map(json.loads, capsys.readouterr().out.splitlines())
    assert code == 3
    assert ("result" in first, "result" in third) == (True, True)
    assert "not UTF-8 at byte 0" in second["error"]["message"]


def test_lone_surrogate(good):
    with pytest.raises(InvalidInput, match="lone surrogate"):
        triarch.pipeline("text-classification", good)("bad \ud800 text")
