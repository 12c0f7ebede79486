"""Legacy `.bin` files: the same tensors as the reference reader, and nothing but a typed refusal for hostile ones.

Ids are those of the catalogue of hostile input: C16 and C17 programs, C18 archives, C19 tensors.
"""

import contextlib
import io
import os
import pickle
import pickletools
import random
import runpy
import struct
import sys
import tarfile
import time
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from triarch import limits
from triarch.errors import CorruptFile, TriarchError, UnsafeFile, Unsupported
from triarch.files import Folder
from triarch.weights import legacy

NAME = "pytorch_model.bin"
SECONDS = 6.0  # of one core, for the worst of the hostile files; twice our promise, as test machines differ

# ---------------------------------------------------------------------------------------------------------------------
# A watch on what happens while a file is read

FORBIDDEN = ("os.", "subprocess.", "socket.", "shutil.", "ctypes.", "pickle.", "marshal.", "exec", "compile", "import")
watched: list[str] | None = None


def _hook(event: str, arguments: tuple) -> None:
    if watched is None:
        return
    # What is opened by number was opened by name before
    elsewhere = event == "open" and isinstance(arguments[0], str | bytes) and os.path.basename(arguments[0]) != NAME
    if elsewhere or event.startswith(FORBIDDEN):
        watched.append(f"{event} {arguments[:1]}")


sys.addaudithook(_hook)


@contextlib.contextmanager
def watch():
    """Fails on code run, modules imported, and files opened but the checkpoint, and on more than SECONDS of work."""
    global watched
    watched, start = [], time.process_time()
    try:
        yield
    finally:
        seen, watched = watched, None
    assert not seen
    assert time.process_time() - start < SECONDS


def read(folder: Path) -> dict[str, torch.Tensor]:
    with watch():
        return {key: entry.read() for key, entry in legacy.entries(Folder(folder), NAME).items()}


def refused(folder: Path, error: type[TriarchError], message: str) -> None:
    with watch(), pytest.raises(error, match=message) as caught:
        legacy.entries(Folder(folder), NAME)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)


@pytest.fixture(autouse=True, scope="module")
def warm(tmp_path_factory):
    """What torch imports on first use is not what a file asked for."""
    folder = tmp_path_factory.mktemp("warm")
    torch.save({"a": torch.ones(2, 2).t() > 0}, folder / NAME)
    legacy.entries(Folder(folder), NAME)["a"].read()


# ---------------------------------------------------------------------------------------------------------------------
# Files of PyTorch


def tied() -> dict[str, torch.Tensor]:
    shared = torch.randn(4, 3)
    return {"a": shared, "b": shared, "rows": shared[1:3], "last": shared.view(-1)[-1]}


STATES = {
    "float32": lambda: {"a": torch.randn(3, 5)},
    "float16": lambda: {"a": torch.randn(3, 5).half()},
    "bfloat16": lambda: {"a": torch.randn(3, 5).bfloat16()},
    "float64": lambda: {"a": torch.randn(3, 5).double()},
    "integers": lambda: {str(dtype): torch.arange(-3, 3).to(dtype) for dtype in INTEGERS},
    "bool": lambda: {"a": torch.tensor([[True, False, True], [False, False, True]])},
    "bool transposed": lambda: {"a": torch.tensor([[True, False, True], [False, False, True]]).t()},
    "tied": tied,
    "transposed": lambda: {"a": torch.randn(3, 5).t(), "b": torch.randn(2, 3, 4).permute(2, 0, 1)},
    "sliced": lambda: {"a": torch.randn(6, 8)[1:5, 2:7], "b": torch.randn(9)[::2], "c": torch.randn(4, 4).diagonal()},
    "parameters": lambda: {"a": torch.nn.Parameter(torch.randn(3)), "b": torch.nn.Parameter(torch.randn(3), False)},
    "module": lambda: torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).state_dict(),
    "scalar": lambda: {"a": torch.tensor(2.5)},
    "empty": lambda: {"a": torch.empty(0, 3), "b": torch.ones(3, 4)[3:, 2:], "c": torch.empty(3, 0).t()},
    "no tensors": dict,
    "many": lambda: {f"layers.{i}.weight": torch.full((2,), i) for i in range(1100)},  # over one batch of SETITEMS
    "names": lambda: {"": torch.ones(1), "naïve.重み": torch.ones(2), "x" * 300: torch.ones(3)},
    "state_dict": lambda: {"state_dict": torch.nn.Linear(2, 2).state_dict()},
}
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("state", STATES)
def test_reads_what_the_reference_reads(tmp_path, state, protocol):
    torch.save(STATES[state](), tmp_path / NAME, pickle_protocol=protocol)
    # The reference's own safe reader knows protocol 2 only
    reference = torch.load(tmp_path / NAME, weights_only=protocol == 2)
    reference = reference.get("state_dict", reference)
    tensors = read(tmp_path)
    assert list(tensors) == list(reference)
    for key, wanted in reference.items():
        torch.testing.assert_close(tensors[key], wanted.detach(), rtol=0, atol=0, check_stride=False)
        assert tensors[key].is_contiguous()
        assert not tensors[key].requires_grad


def test_entries_say_what_reading_gives(tmp_path):
    torch.save(tied() | {"t": torch.randn(3, 5).t(), "half": torch.ones(2).half()}, tmp_path / NAME)
    for entry in legacy.entries(Folder(tmp_path), NAME).values():
        tensor = entry.read()
        assert (entry.dtype, entry.shape, entry.nbytes) == (tensor.dtype, tuple(tensor.shape), tensor.nbytes)


def test_tensors_outlive_the_file(tmp_path):
    torch.save({"a": torch.arange(5)}, tmp_path / NAME)
    tensors = read(tmp_path)
    os.truncate(tmp_path / NAME, 0)
    assert tensors["a"].tolist() == [0, 1, 2, 3, 4]


def test_a_file_cut_after_its_headers_were_read_is_reported(tmp_path):
    torch.save({"a": torch.arange(5)}, tmp_path / NAME)
    entry = legacy.entries(Folder(tmp_path), NAME)["a"]
    os.truncate(tmp_path / NAME, 100)
    with pytest.raises(CorruptFile, match="ended while it was read"):
        entry.read()


def test_reads_beyond_four_gibibytes(tmp_path):
    with open(tmp_path / NAME, "wb") as file:
        file.seek(5 << 30)  # a hole, so that every offset needs 64 bits
        file.write(archive(state({"a": Tensor(FLOATS)}), base=5 << 30))
    assert read(tmp_path)["a"].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_reads_archives_of_other_writers(tmp_path):
    with zipfile.ZipFile(tmp_path / NAME, "w") as file:
        for name, data in state({"a": Tensor(FLOATS)}):
            file.writestr(name, data)
    assert read(tmp_path)["a"].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_bool_bytes_become_zero_or_one(tmp_path):
    flags = Storage("BoolStorage", "0", 4)
    write(tmp_path, state({"a": Tensor(flags, size=(4,))}, {"0": b"\0\1\2\xff"}))
    assert read(tmp_path)["a"].view(torch.uint8).tolist() == [0, 1, 1, 1]


def test_an_empty_tensor_may_lie_anywhere(tmp_path):
    """As no byte of it is read: slices beyond the end of a tensor are saved like that."""
    write(tmp_path, state({"a": Tensor(FLOATS, 1 << 62, (0, 3), (1, 1 << 62))}))
    assert read(tmp_path)["a"].shape == (0, 3)


def test_big_endian_numbers_are_refused(tmp_path):
    write(tmp_path, [*state({"a": Tensor(FLOATS)}), ("archive/byteorder", b"big")])
    refused(tmp_path, Unsupported, "big-endian numbers; convert it to safetensors")


# ---------------------------------------------------------------------------------------------------------------------
# Makers of hostile files


class Storage:
    """What a program says of a storage."""

    def __init__(self, kind: object, key: object, numel: object, device: object = "cpu"):
        self.reference = ("storage", getattr(torch, kind) if isinstance(kind, str) else kind, key, device, numel)


FLOATS = Storage("FloatStorage", "0", 4)
LOCAL, CENTRAL, END, END64, LOCATOR = b"PK\3\4", b"PK\1\2", b"PK\5\6", b"PK\6\6", b"PK\6\7"
MAX16, MAX32 = 0xFFFF, 0xFFFFFFFF
NONE: dict[str, int] = {}


class Call:
    """Pickles as a call of `function`, which need not be what it takes."""

    def __init__(self, function: object, *arguments: object, state: object = None):
        self.reduced = (function, arguments, state)

    def __reduce__(self):
        return self.reduced


class Tensor(Call):
    def __init__(self, storage: object, offset: object = 0, size: object = (4,), stride: object = (1,), *more: object):
        super().__init__(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict(), *more)


class Pickler(pickle.Pickler):
    def persistent_id(self, value: object) -> object:
        return value.reference if isinstance(value, Storage) else None


def program(value: object, protocol: int = 2) -> bytes:
    buffer = io.BytesIO()
    Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()


def state(value: object, storages: dict[str, bytes] | None = None) -> list[tuple[str, bytes]]:
    """The records of a checkpoint whose program makes `value`, or is `value`."""
    storages = {"0": struct.pack("<4f", 0, 1, 2, 3)} if storages is None else storages
    source = value if isinstance(value, bytes) else program(value)
    return [("archive/data.pkl", source), *((f"archive/data/{key}", data) for key, data in storages.items())]


def archive(
    files: list[tuple[str, bytes]], base: int = 0, sizes: dict[str, int] = NONE, places: dict[str, int] = NONE
) -> bytes:
    """A zip archive for byte `base` of a file, with 64-bit fields where needed; `sizes` and `places` are lies."""
    out, directory = bytearray(), bytearray()
    for name, data in files:
        place, size, raw = places.get(name, base + len(out)), sizes.get(name, len(data)), name.encode()
        large = [value for value in (size, size, place) if value >= MAX32]
        extra = struct.pack(f"<HH{len(large)}Q", 1, 8 * len(large), *large) if large else b""
        shared = (0, 0, 0, 0, zlib.crc32(data), min(size, MAX32), min(size, MAX32), len(raw))
        out += struct.pack("<4sH4H3I2H", LOCAL, 45, *shared, 0) + raw + data
        directory += struct.pack("<4s2H4H3I5H2I", CENTRAL, 45, 45, *shared, len(extra), 0, 0, 0, 0, min(place, MAX32))
        directory += raw + extra
    begin, count, size = base + len(out), len(files), len(directory)
    out += directory
    if begin >= MAX32 or count >= MAX16:
        place = base + len(out)
        out += struct.pack("<4sQ2H2I4Q", END64, 44, 45, 45, 0, 0, count, count, size, begin)
        out += struct.pack("<4sIQI", LOCATOR, 0, place, 1)
    shown = min(count, MAX16)
    return bytes(out + struct.pack("<4s4H2IH", END, 0, 0, shown, shown, size, min(begin, MAX32), 0))


def write(folder: Path, files: list[tuple[str, bytes]] | bytes) -> None:
    raw, path = files if isinstance(files, bytes) else archive(files), folder / NAME
    with open(path, "r+b" if path.exists() else "wb") as file:  # over what is there, as emptying a file is slow
        file.write(raw)
        file.truncate()


# ---------------------------------------------------------------------------------------------------------------------
# C16, C17: programs

TOUCH = "touch canary"  # of which no file may come


class Plain:
    """Pickles as an object whose attributes are set."""

    def __init__(self):
        self.attribute = 1


class Restoring(Plain):
    """Pickles as an object that restores itself."""

    def __setstate__(self, state):
        os.system(TOUCH)


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def holding_itself(kind: type) -> object:
    made = kind()
    made.append(made) if kind is list else made.update(state_dict=made)
    return made


ORDERED = named("collections", "OrderedDict")
SYSTEM = named("os", "system")

# What asks for a name is refused by that name, before anything is made
CALLS = {
    "C16 os.system": (Call(os.system, TOUCH), "asks for (posix|nt).system"),
    "C16 eval": (Call(eval, "print()"), r"asks for (__builtin__|builtins)\.eval"),
    "C16 exec": (Call(exec, "print()"), r"asks for (__builtin__|builtins)\.exec"),
    "C16 getattr": (Call(getattr, OrderedDict(), "clear"), r"asks for (__builtin__|builtins)\.getattr"),
    "C16 runpy": (Call(runpy.run_path, "script.py"), r"asks for runpy\.run_path"),
    "C16 torch.hub.load": (Call(torch.hub.load, "someone/something", "entry"), r"asks for torch\.hub\.load"),
    "C16 torch.load": (Call(torch.load, "other.bin"), r"asks for torch\.serialization\.load"),
    "C16 module": (torch.nn.Linear(2, 2), r"asks for torch\.nn\.modules\.linear\.Linear"),
    "C16 as a tensor": ({"a": Call(os.system, TOUCH)}, "asks for (posix|nt).system"),
    "C16 as a shape": ({"a": Tensor(FLOATS, 0, Call(os.system, TOUCH))}, "asks for (posix|nt).system"),
    "C16 as a storage type": ({"a": Tensor(Storage(os.system, "0", 4))}, "asks for (posix|nt).system"),
    "C16 as a device": ({"a": Tensor(Storage("FloatStorage", "0", 4, Call(eval, "0")))}, "eval"),
    "C16 after tensors": (OrderedDict(a=Tensor(FLOATS), b=Call(os.system, TOUCH)), "asks for (posix|nt).system"),
    "C17 object": (Plain(), r"asks for \S*Plain"),
    "C17 object with __setstate__": (Restoring(), r"asks for \S*Restoring"),
    "C17 bytes": ({"a": b"bytes"}, "asks for"),
    "C17 set": ({"a": {1, 2}}, "asks for"),
    "C19 complex": ({"a": Tensor(Storage("ComplexFloatStorage", "0", 2))}, r"asks for torch\.ComplexFloatStorage"),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("case", CALLS)
def test_a_name_that_no_checkpoint_needs_is_refused(tmp_path, monkeypatch, case, protocol):
    monkeypatch.chdir(tmp_path)
    value, message = CALLS[case]
    write(tmp_path, state(program(value, protocol)))
    refused(tmp_path, UnsafeFile, message + ".*, which no checkpoint needs; convert it to safetensors")
    assert os.listdir(tmp_path) == [NAME]


PROGRAMS = {
    "C17 protocol 0": (pickle.dumps({"a": 1}, 0), UnsafeFile, "asks for the instruction 0x64"),
    "C17 protocol 0 call": (pickle.dumps(Call(os.system, TOUCH), 0), UnsafeFile, "asks for (posix|nt).system"),
    "C17 protocol 1 object": (pickle.dumps(Plain(), 1), UnsafeFile, r"asks for copy_reg\._reconstructor"),
    "C17 name from the stack": (text("os") + text("system") + b"\x93.", UnsafeFile, r"asks for os\.system"),
    "C17 name from the memo": (text("system") + b"\x940" + text("os") + b"h\0\x93.", UnsafeFile, "instruction 0x30"),
    "C17 computed name": (text("os") + named("operator", "add"), UnsafeFile, r"asks for operator\.add"),
    "C17 name of no text": (text("os") + b"K\1\x93.", UnsafeFile, "a name that is not text"),
    "C17 module of no text": (b"]" + text("system") + b"\x93.", UnsafeFile, "a name that is not text"),
    "C17 dotted name": (named("torch", "_utils._rebuild_tensor_v2"), UnsafeFile, "asks for"),
    "C17 long name": (named("os", "x" * 10_000_000), UnsafeFile, "asks for os.x{100,116}…"),
    "C17 name with control characters": (named("os", "a\x1b[31m\rb"), UnsafeFile, r"os\.a\\x1b\[31m\\rb"),
    "C17 INST": (b"(" + text(TOUCH) + b"i" + SYSTEM[1:] + b".", UnsafeFile, "INST"),
    "C17 OBJ": (b"(" + ORDERED + b"o.", UnsafeFile, "OBJ"),
    "C17 NEWOBJ": (ORDERED + b")\x81.", UnsafeFile, "NEWOBJ"),
    "C17 NEWOBJ_EX": (ORDERED + b")}\x92.", UnsafeFile, "NEWOBJ_EX"),
    "C17 EXT1": (b"\x82\1.", UnsafeFile, "EXT1"),
    "C17 REDUCE of a text": (text("os.system") + b")R.", UnsafeFile, "calls what is not a function"),
    "C17 REDUCE of a storage type": (named("torch", "FloatStorage") + b")R.", UnsafeFile, "not a function"),
    "C17 OrderedDict of items": (ORDERED + b"]\x85R.", UnsafeFile, "collections.OrderedDict in an unknown way"),
    "C17 BUILD on a dict": (b"}}b.", UnsafeFile, "sets the state"),
    "C17 BUILD of no dict": (ORDERED + b")RNb.", UnsafeFile, "sets the state"),
    "C17 BUILD on a name": (ORDERED + b"}b.", UnsafeFile, "sets the state"),
    "C17 BUILD of a method": (
        ORDERED + b")R}" + text("__setstate__") + b"Nsb.",
        UnsafeFile,
        "sets the attributes __setstate__",
    ),
    "C17 BINPERSID of a text": (text("archive/data/0") + b"Q.", UnsafeFile, "not a storage"),
    "C17 PERSID": (b"P0\n.", UnsafeFile, "instruction 0x50"),
    "C17 list holding itself": (pickle.dumps(holding_itself(list), 2), UnsafeFile, "is not a dict"),
    "C17 dict holding itself": (
        pickle.dumps(holding_itself(dict), 2),
        UnsafeFile,
        "'state_dict' is not a tensor",
    ),
    "C17 deep tuples": (b")" + b"\x85" * 200_000 + b".", UnsafeFile, "is not a dict"),
    "C17 deep marks": (b"(" * 200_000 + b".", CorruptFile, "as PyTorch does"),
    "C17 deep dicts": (b"}" + (text("a") + b"}") * 200_000 + b"s" * 200_000 + b".", UnsafeFile, "not a tensor"),
    "C17 endless": (b"N" * 2_000_000, UnsafeFile, "over 1,500,000 steps"),
    "C17 full memo": (b"]" + b"\x94" * 2_000_000, UnsafeFile, "over 1,500,000 steps"),
    "C17 full dict": (
        b"}(" + b"".join(text(str(i)) + b"N" for i in range(150_000)) + b"u.",
        UnsafeFile,
        "is not a dict",
    ),
    "C17 key of no text": (b"}K\1Ns.", UnsafeFile, "a key that is not text"),
    "C17 key that hashes deep": (b"}" + b")" + b"\x85" * 100_000 + b"Ns.", UnsafeFile, "a key that is not text"),
    "C17 number": ({"epoch": 3}, UnsafeFile, "'epoch' is not a tensor"),
    "C17 state_dict among others": ({"state_dict": {}, "epoch": 3}, UnsafeFile, "'state_dict' is not a tensor"),
    "C17 nested dict": ({"model": {"a": Tensor(FLOATS)}}, UnsafeFile, "'model' is not a tensor"),
    "C17 tensor alone": (Tensor(FLOATS), UnsafeFile, "is not a dict"),
    "empty": (b"", CorruptFile, "as PyTorch does; copy or download it again"),
    "no STOP": (b"}", CorruptFile, "as PyTorch does"),
    "empty stack": (b".", CorruptFile, "as PyTorch does"),
    "empty memo": (b"h\1.", CorruptFile, "as PyTorch does"),
    "no mark": (b"Nt.", CorruptFile, "as PyTorch does"),
    "key without value": (b"}(" + text("a") + b"u.", CorruptFile, "as PyTorch does"),
    "items of a list": (b"]" + text("a") + b"Ns.", CorruptFile, "as PyTorch does"),
    "append to a dict": (b"}Na.", CorruptFile, "as PyTorch does"),
    "text that is none": (b"\x8c\2\xff\xff.", CorruptFile, "as PyTorch does"),
    "text of 4 GiB": (b"X\xff\xff\xff\xff.", CorruptFile, "as PyTorch does"),
    "number of 255 bytes": (b"\x8a\xff.", CorruptFile, "as PyTorch does"),
    "fraction cut short": (b"G\0\0.", CorruptFile, "as PyTorch does"),
    "name without end": (b"cos", UnsafeFile, "asks for os"),
}


@pytest.mark.parametrize("case", PROGRAMS)
def test_a_program_that_does_anything_else_is_refused(tmp_path, case):
    value, error, message = PROGRAMS[case]
    write(tmp_path, state(value))
    refused(tmp_path, error, message)


def test_formats_before_the_archive_are_refused(tmp_path):
    """C17: several pickles in a row, a tar archive, and a pickle alone."""
    torch.save({"a": torch.ones(2)}, tmp_path / NAME, _use_new_zipfile_serialization=False)
    refused(tmp_path, UnsafeFile, "the format of PyTorch before 1.6, which is not read; convert it to safetensors")
    with tarfile.open(tmp_path / NAME, "w") as file:
        file.addfile(tarfile.TarInfo("storages"))
    refused(tmp_path, UnsafeFile, "the format of PyTorch before 1.6")
    write(tmp_path, pickle.dumps(Call(os.system, TOUCH), 0) + bytes(200))
    refused(tmp_path, CorruptFile, "does not end like a zip archive; copy or download it again")


# ---------------------------------------------------------------------------------------------------------------------
# C18: archives

HONEST = state({"a": Tensor(FLOATS)})


Change = tuple[bytes, int, str, int]  # mark of a header, byte in the last such header, format, value


def patched(*changes: Change, raw: bytes | None = None) -> bytes:
    patch = bytearray(raw or archive(HONEST))
    for mark, offset, field, value in changes:
        struct.pack_into(field, patch, patch.rindex(mark) + offset, value)
    return bytes(patch)


def saved(*changes: Change) -> bytes:
    """The same with a file of PyTorch, which has 64-bit fields."""
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(3)}, buffer)
    return patched(*changes, raw=buffer.getvalue())


def deflated() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", program({"a": Tensor(FLOATS)}))
        file.writestr("archive/data/0", bytes(10_000_000))
    return buffer.getvalue()


ARCHIVES = {
    "C18 same name twice": (lambda: archive([*HONEST, HONEST[0]]), UnsafeFile, "two records 'archive/data.pkl'"),
    "C18 deflated 1000:1": (deflated, UnsafeFile, "packed or encrypted"),
    "C18 encrypted": (lambda: patched((CENTRAL, 8, "<H", 1), (LOCAL, 6, "<H", 1)), UnsafeFile, "packed or encrypted"),
    "C18 70,000 records": (
        lambda: archive([*HONEST, *((f"archive/data/x{i}", b"") for i in range(70_000))]),
        UnsafeFile,
        "lists 70,002 records",
    ),
    "C18 more records than counted": (lambda: patched((END, 10, "<H", 1)), CorruptFile, "more records than it counts"),
    "C18 fewer records than counted": (lambda: patched((END, 10, "<H", 3)), CorruptFile, "broken zip directory"),
    "C18 directory of 4 GiB": (lambda: patched((END, 12, "<I", 0xFFFFFFFF)), UnsafeFile, "in 4,294,967,295 bytes"),
    "C18 directory elsewhere": (
        lambda: patched((END, 16, "<I", 0)),
        CorruptFile,
        "no zip directory where its end says",
    ),
    "C18 bytes before": (lambda: b"#!/bin/sh\n" + archive(HONEST), CorruptFile, "no zip directory where its end says"),
    "C18 bytes after": (lambda: archive(HONEST) + b"\n", CorruptFile, "does not end like a zip archive"),
    "C18 comment": (lambda: patched((END, 20, "<H", 1)) + b"#", CorruptFile, "does not end like a zip archive"),
    "C18 comment missing": (lambda: patched((END, 20, "<H", 1)), CorruptFile, "does not end like a zip archive"),
    "C18 other name in the header": (lambda: patched((LOCAL, 35, "B", 88)), CorruptFile, "in two ways"),
    "C18 other size in the header": (lambda: patched((LOCAL, 22, "<I", 8)), CorruptFile, "in two ways"),
    "C18 other checksum in the header": (lambda: patched((LOCAL, 14, "<I", 8)), CorruptFile, "in two ways"),
    "C18 other method in the header": (lambda: patched((LOCAL, 8, "<H", 8)), CorruptFile, "in two ways"),
    "C18 other flags in the header": (lambda: patched((LOCAL, 6, "<H", 8)), CorruptFile, "in two ways"),
    "C18 sizes left out": (
        lambda: patched(*((LOCAL, at, "<I", 0) for at in (14, 18, 22))),
        CorruptFile,
        "in two ways",
    ),
    "C18 no entry": (lambda: patched((CENTRAL, 0, "<I", 0)), CorruptFile, "broken zip directory"),
    "C18 no header": (lambda: patched((CENTRAL, 42, "<I", 1)), CorruptFile, "in two ways"),
    "C18 header of another record": (lambda: patched((CENTRAL, 42, "<I", 0)), CorruptFile, "in two ways"),
    "C18 header beyond the file": (lambda: patched((CENTRAL, 42, "<I", 1 << 31)), CorruptFile, "broken zip directory"),
    "C18 64-bit header beyond the file": (
        lambda: archive(HONEST, places={"archive/data/0": 1 << 63}),
        CorruptFile,
        "broken zip directory",
    ),
    "C18 packed size differs": (lambda: patched((CENTRAL, 20, "<I", 8)), CorruptFile, "broken zip directory"),
    "C18 broken extra field": (lambda: patched((CENTRAL, 30, "<H", 3)), CorruptFile, "broken zip directory"),
    "C18 name that is no text": (lambda: patched((CENTRAL, 50, "B", 255)), CorruptFile, "broken zip directory"),
    "C18 records over one another": (
        lambda: patched(
            *((mark, at, "<I", 17) for mark, at in ((CENTRAL, 20), (CENTRAL, 24), (LOCAL, 18), (LOCAL, 22)))
        ),
        CorruptFile,
        "reach into what follows",
    ),
    "C18 wrong checksum": (
        lambda: archive(HONEST).replace(b"_rebuild_tensor", b"_rebuild_tensoR"),
        CorruptFile,
        "does not match its checksum",
    ),
    "C18 64-bit size": (lambda: archive(HONEST, sizes={"archive/data/0": 1 << 63}), CorruptFile, "reach into"),
    "C18 64-bit size of the program": (
        lambda: archive(HONEST, sizes={"archive/data.pkl": (1 << 64) - 1}),
        CorruptFile,
        "reach into",
    ),
    "C18 64-bit size left out": (
        lambda: patched(*((mark, at, "<I", (1 << 32) - 1) for mark, at in ((CENTRAL, 20), (CENTRAL, 24)))),
        CorruptFile,
        "in two ways",
    ),
    "C18 64-bit count": (lambda: saved((END64, 32, "<Q", 1 << 63)), CorruptFile, "in two ways"),
    "C18 64-bit count, both": (
        lambda: saved((END64, 32, "<Q", 1 << 63), (END, 10, "<H", 0xFFFF)),
        UnsafeFile,
        "lists 9,223,372,036,854,775,808 records",
    ),
    "C18 64-bit directory": (
        lambda: saved((END64, 48, "<Q", 1 << 63), (END, 16, "<I", 0xFFFFFFFF)),
        CorruptFile,
        "no zip directory",
    ),
    "C18 64-bit end elsewhere": (lambda: saved((LOCATOR, 8, "<Q", 0)), CorruptFile, "in two ways"),
    "C18 64-bit end missing": (lambda: saved((END64, 0, "<I", 0)), CorruptFile, "in two ways"),
    "no program": (lambda: archive([*HONEST[1:], ("archive/x", bytes(50))]), CorruptFile, "without data.pkl"),
    "empty file": (lambda: b"", CorruptFile, "broken zip directory"),
    "empty archive": (lambda: archive([]), CorruptFile, "broken zip directory"),
    "zeros": (lambda: bytes(1000), CorruptFile, "does not end like a zip archive"),
}
for name in ("archive", "../x", "archive/../x", "archive/./x", "archive//x", "archive/", "/etc/passwd", "other/x", "x"):
    ARCHIVES[f"C18 name {name}"] = (
        lambda name=name: archive([*HONEST, (name, b"")]),
        UnsafeFile,
        "outside of one folder",
    )
for name in ("archive/..\\x", "archive/a\0b", "archive/a\x1b[31m", "archive/a\nb", "archive\\x"):
    ARCHIVES[f"C18 name {name!r}"] = (
        lambda name=name: archive([*HONEST, (name, b"")]),
        UnsafeFile,
        "outside of one folder",
    )


@pytest.mark.parametrize("case", ARCHIVES)
def test_an_archive_that_contradicts_itself_is_refused(tmp_path, case):
    make, error, message = ARCHIVES[case]
    write(tmp_path, make())
    refused(tmp_path, error, message)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    """C14, C18."""
    torch.save({"a": torch.randn(300), "b": torch.randn(30).half()}, tmp_path / NAME)
    raw = (tmp_path / NAME).read_bytes()
    for length in [*range(0, len(raw) - 150, 41), *range(len(raw) - 150, len(raw))]:
        write(tmp_path, raw[:length])
        refused(tmp_path, CorruptFile, "copy or download it again")


# ---------------------------------------------------------------------------------------------------------------------
# C19: tensors


def views(count: int) -> bytes:
    """A program of many views of one storage."""
    tensor = program(Tensor(FLOATS))[:-1] + b"r\xff\xff\0\0"
    items = b"".join(text(str(i)) + b"j\xff\xff\0\0" for i in range(count))
    return b"\x80\2}(" + text("first") + tensor[2:] + items + b"u."


def shares(count: int, size: tuple[int, ...], stride: tuple[int, ...]) -> list[tuple[str, bytes]]:
    storage = Storage("ByteStorage", "0", 100_000)
    return state({str(i): Tensor(storage, 0, size, stride) for i in range(count)}, {"0": bytes(100_000)})


TENSORS = {
    "C19 offset beyond": (Tensor(FLOATS, 1), UnsafeFile, "reaches beyond its storage of 4 elements"),
    "C19 offset far beyond": (Tensor(FLOATS, 1 << 62), UnsafeFile, "reaches beyond"),
    "C19 negative offset": (Tensor(FLOATS, -1), UnsafeFile, "no whole number"),
    "C19 size beyond": (Tensor(FLOATS, 0, (5,)), UnsafeFile, "reaches beyond"),
    "C19 negative size": (Tensor(FLOATS, 0, (-4,)), UnsafeFile, "no whole number"),
    "C19 negative sizes": (Tensor(FLOATS, 0, (-2, -2), (2, 1)), UnsafeFile, "no whole number"),
    "C19 stride beyond": (Tensor(FLOATS, 0, (2, 2), (3, 1)), UnsafeFile, "reaches beyond"),
    "C19 negative stride": (Tensor(FLOATS, 3, (4,), (-1,)), UnsafeFile, "no whole number"),
    "C19 sizes overflow": (Tensor(FLOATS, 0, (1 << 32, 1 << 32), (1 << 32, 1)), UnsafeFile, "more than can be counted"),
    "C19 sizes overflow to 4": (Tensor(FLOATS, 0, ((1 << 62) + 1, 4), (4, 1)), UnsafeFile, "more than can be counted"),
    "C19 empty sizes overflow": (
        Tensor(FLOATS, 0, (0, 1 << 40, 1 << 40), (0, 0, 0)),
        UnsafeFile,
        "than can be counted",
    ),
    "C19 strides overflow": (Tensor(FLOATS, 0, (2, 2), (1 << 63, 1)), UnsafeFile, "reaches beyond"),
    "C19 huge number": (Tensor(FLOATS, 1 << 2000), UnsafeFile, "reaches beyond"),
    "C19 size true": (Tensor(FLOATS, 0, (True,)), UnsafeFile, "no whole number"),
    "C19 size a fraction": (Tensor(FLOATS, 0, (4.0,)), UnsafeFile, "no whole number"),
    "C19 size a text": (Tensor(FLOATS, 0, ("4",)), UnsafeFile, "no whole number"),
    "C19 size no tuple": (Tensor(FLOATS, 0, 4), UnsafeFile, "_rebuild_tensor_v2 in an unknown way"),
    "C19 expanded": (Tensor(FLOATS, 0, (1000, 4), (0, 1)), UnsafeFile, "more than once; save a copy of it instead"),
    "C19 windows": (Tensor(FLOATS, 0, (3, 2), (1, 1)), UnsafeFile, "more than once"),
    "C19 fewer strides": (Tensor(FLOATS, 0, (2, 2), (1,)), UnsafeFile, "2 sizes and 1 strides"),
    "C19 nine dimensions": (Tensor(FLOATS, 0, (1,) * 9, (1,) * 9), UnsafeFile, "9 sizes and 9 strides"),
    "C19 lazy": (Tensor(FLOATS, 0, (4,), (1,), {"neg": True}), UnsafeFile, "_rebuild_tensor_v2 in an unknown way"),
    "C19 hooks": (
        Call(torch._utils._rebuild_tensor_v2, FLOATS, 0, (4,), (1,), False, [print]),
        UnsafeFile,
        r"asks for __builtin__\.print",
    ),
    "C19 hooks that are no dict": (
        Call(torch._utils._rebuild_tensor_v2, FLOATS, 0, (4,), (1,), False, None),
        UnsafeFile,
        "_rebuild_tensor_v2 in an unknown way",
    ),
    "C19 no storage": (Tensor(None), UnsafeFile, "_rebuild_tensor_v2 in an unknown way"),
    "C19 storage of an unknown type": (Tensor(Storage(4, "0", 4)), UnsafeFile, "not a storage"),
    "C19 storage that is absent": (Tensor(Storage("FloatStorage", "1", 4)), CorruptFile, "does not hold"),
    "C19 storage elsewhere": (Tensor(Storage("FloatStorage", "../data.pkl", 4)), CorruptFile, "does not hold"),
    "C19 longer storage": (Tensor(Storage("FloatStorage", "0", 5)), CorruptFile, "storage of 16 bytes, not 20"),
    "C19 shorter storage": (Tensor(Storage("FloatStorage", "0", 3)), CorruptFile, "storage of 16 bytes, not 12"),
    "C19 wider storage": (Tensor(Storage("DoubleStorage", "0", 4)), CorruptFile, "storage of 16 bytes, not 32"),
    "C19 storage of -4": (Tensor(Storage("FloatStorage", "0", -4)), CorruptFile, "storage of 16 bytes, not -16"),
    "C19 parameter of a text": (
        Call(torch._utils._rebuild_parameter, "a", True, OrderedDict()),
        UnsafeFile,
        "_rebuild_parameter in an unknown way",
    ),
}


@pytest.mark.parametrize("case", TENSORS)
def test_a_tensor_that_is_no_plain_view_is_refused(tmp_path, case):
    value, error, message = TENSORS[case]
    write(tmp_path, state({"a": value}))
    refused(tmp_path, error, message)


KINDS = {
    "C19 sparse": (lambda: torch.eye(2).to_sparse(), "_rebuild_sparse_tensor"),
    "C19 quantized": (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "_rebuild_qtensor"),
    "C19 meta": (lambda: torch.ones(2, device="meta"), "_rebuild_meta_tensor_no_storage"),
    "C19 nested": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "_rebuild_nested_tensor"),
    "C19 subclass": (lambda: torch.nn.Buffer(torch.ones(2)).as_subclass(Subclass), "_rebuild_from_type_v2"),
    "C19 float8": (lambda: torch.ones(2).to(torch.float8_e4m3fn), "_rebuild_tensor_v3"),
}


class Subclass(torch.Tensor):
    pass


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", KINDS)
def test_other_kinds_of_tensors_are_refused(tmp_path, case):
    make, message = KINDS[case]
    torch.save({"a": make()}, tmp_path / NAME)
    refused(tmp_path, UnsafeFile, message)


SHARED = {
    "C19 10^6 views": (lambda: state(views(1_000_000)), "over 1,500,000 steps"),
    "C19 150,000 views": (lambda: state(views(150_000)), "not a dict of up to 100,000 tensors"),
    "C19 views of it all": (lambda: shares(100, (100_000,), (1,)), "10,000,000 bytes of tensors"),
    "C19 views of both ends": (lambda: shares(100, (2,), (99_999,)), "10,000,000 bytes of tensors"),
}


@pytest.mark.parametrize("case", SHARED)
def test_a_storage_is_shared_within_bounds(tmp_path, case):
    make, message = SHARED[case]
    write(tmp_path, make())
    refused(tmp_path, UnsafeFile, message)


# ---------------------------------------------------------------------------------------------------------------------
# Bounds, and bytes changed at random

SAMPLE = state({str(i): Tensor(FLOATS, 0, (2, 2), (2, 1)) for i in range(3)})
STEPS = sum(1 for _ in pickletools.genops(SAMPLE[0][1]))
BOUNDS = {
    "ARCHIVE_RECORDS": (2, "lists 2 records"),
    "PICKLE_BYTES": (len(SAMPLE[0][1]), "a record of [0-9]+ bytes where [0-9]+ are plenty"),
    "PICKLE_STEPS": (STEPS, "takes over [0-9]+ steps"),
    "TENSORS": (3, "not a dict of up to 2 tensors"),
    "TENSOR_DIMENSIONS": (2, "2 sizes and 2 strides"),
}


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_bound_is_the_last_that_passes(tmp_path, monkeypatch, bound):
    write(tmp_path, SAMPLE)
    needed, message = BOUNDS[bound]
    for allowed in (needed, needed + 1):
        monkeypatch.setattr(limits, bound, allowed)
        assert len(read(tmp_path)) == 3
    monkeypatch.setattr(limits, bound, needed - 1)
    refused(tmp_path, UnsafeFile, message)


def test_storages_may_be_read_a_few_times_over(tmp_path):
    write(tmp_path, shares(limits.STORAGE_READS, (100_000,), (1,)))
    assert len(read(tmp_path)) == limits.STORAGE_READS
    write(tmp_path, shares(limits.STORAGE_READS + 1, (100_000,), (1,)))
    refused(tmp_path, UnsafeFile, "makes 500,000 bytes of tensors from .* by sharing them")


def changed(raw: bytes, chance: random.Random) -> bytes:
    made = bytearray(raw)
    for _ in range(chance.choice((1, 1, 2, 8))):
        made[chance.randrange(len(raw))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    return bytes(made)


def read_or_refuse(folder: Path) -> bool:
    """Whether all tensors were read; any error but a typed one is a failure."""
    try:
        read(folder)
    except TriarchError:
        return False
    return True


def test_changed_bytes_of_a_file_give_tensors_or_a_typed_error(tmp_path):
    """C15."""
    torch.save(tied() | {"t": torch.randn(3, 2).t(), "b": torch.ones(3) > 0}, tmp_path / NAME)
    raw, chance, outcomes = (tmp_path / NAME).read_bytes(), random.Random(0), set()
    for _ in range(400):
        write(tmp_path, changed(raw, chance))
        outcomes.add(read_or_refuse(tmp_path))
    assert outcomes == {True, False}


@pytest.mark.parametrize("protocol", [2, 4])
def test_changed_bytes_of_a_program_give_tensors_or_a_typed_error(tmp_path, protocol):
    """With a checksum that fits, so that each change reaches the machine and the checks behind it."""
    tensors = OrderedDict(a=Tensor(FLOATS), t=Tensor(FLOATS, 0, (2, 2), (1, 2)), s=Tensor(FLOATS, 1, (), ()))
    source, chance, outcomes = program(tensors, protocol), random.Random(protocol), set()
    for _ in range(600):
        write(tmp_path, state(changed(source, chance)))
        outcomes.add(read_or_refuse(tmp_path))
    assert outcomes == {True, False}
