"""The program `data.pkl` of a legacy checkpoint, run on a machine that can do no more than a state dict needs.

The usual machine calls any function that the program names. This one knows plain values, dicts, storages and views of
them, and refuses all else by name. Instructions: the comments of `pickletools.py` in Python's standard library.
"""

import io
import struct
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch

from triarch import limits
from triarch.errors import CorruptFile, UnsafeFile, show
from triarch.weights.archive import AGAIN

CONVERT = "convert it to safetensors where its source is trusted"


class Call(Enum):
    """The functions that the program of a state dict names. None is called; each stands for a step of `Machine`."""

    ORDERED_DICT = ("collections", "OrderedDict")
    TENSOR = ("torch._utils", "_rebuild_tensor_v2")
    PARAMETER = ("torch._utils", "_rebuild_parameter")


GLOBALS: dict[tuple[str, str], Call | torch.dtype] = {
    **{call.value: call for call in Call},
    ("torch", "DoubleStorage"): torch.float64,
    ("torch", "FloatStorage"): torch.float32,
    ("torch", "HalfStorage"): torch.float16,
    ("torch", "BFloat16Storage"): torch.bfloat16,
    ("torch", "LongStorage"): torch.int64,
    ("torch", "IntStorage"): torch.int32,
    ("torch", "ShortStorage"): torch.int16,
    ("torch", "CharStorage"): torch.int8,
    ("torch", "ByteStorage"): torch.uint8,
    ("torch", "BoolStorage"): torch.bool,
}

# Instructions that make objects of any kind; the rest of what is refused is named by its code
REFUSED = {0x69: "INST", 0x6F: "OBJ", 0x81: "NEWOBJ", 0x82: "EXT1", 0x83: "EXT2", 0x84: "EXT4", 0x92: "NEWOBJ_EX"}


class OrderedDict(dict):
    """Told apart from a plain dict because programs may set an attribute on it: `_metadata`, which is dropped."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Storage:
    dtype: torch.dtype
    key: str  # its record is data/<key>
    numel: int


@dataclass(frozen=True, slots=True)
class View:
    """A tensor as the program describes it, in elements of its storage; not checked yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Machine:
    """Runs the program `data.pkl`, in at most `limits.PICKLE_STEPS` steps, none of which recurses."""

    def __init__(self, program: bytes, where: str):
        self.program, self.where = io.BytesIO(program), where
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stack under each mark
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        try:
            for _ in range(limits.PICKLE_STEPS):
                code = self.program.read(1)[0]
                if code == 0x2E:  # STOP
                    return self.stack.pop()
                self.step(code)
        except (IndexError, KeyError, UnicodeDecodeError):  # nothing on the stack or in the memo, or no text
            raise self.broken() from None
        raise UnsafeFile(f"{self.where} takes over {limits.PICKLE_STEPS:,} steps to describe its tensors; {CONVERT}")

    def step(self, code: int) -> None:
        match code:
            case 0x80:  # PROTO
                self.take(1)
            case 0x95:  # FRAME
                self.take(8)
            # Values
            case 0x4E:  # NONE
                self.stack.append(None)
            case 0x88 | 0x89:  # NEWTRUE, NEWFALSE
                self.stack.append(code == 0x88)
            case 0x4B | 0x4D:  # BININT1, BININT2
                self.stack.append(self.number(1 if code == 0x4B else 2))
            case 0x4A:  # BININT
                self.stack.append(int.from_bytes(self.take(4), "little", signed=True))
            case 0x8A:  # LONG1
                self.stack.append(int.from_bytes(self.take(self.number(1)), "little", signed=True))
            case 0x47:  # BINFLOAT
                self.stack.append(struct.unpack(">d", self.take(8))[0])
            case 0x58 | 0x8C:  # BINUNICODE, SHORT_BINUNICODE
                self.stack.append(self.take(self.number(4 if code == 0x58 else 1)).decode())
            # The memo
            case 0x71 | 0x72:  # BINPUT, LONG_BINPUT
                self.memo[self.number(1 if code == 0x71 else 4)] = self.stack[-1]
            case 0x94:  # MEMOIZE
                self.memo[len(self.memo)] = self.stack[-1]
            case 0x68 | 0x6A:  # BINGET, LONG_BINGET
                self.stack.append(self.memo[self.number(1 if code == 0x68 else 4)])
            # Collections
            case 0x28:  # MARK
                self.below.append(self.stack)
                self.stack = []
            case 0x29:  # EMPTY_TUPLE
                self.stack.append(())
            case 0x85 | 0x86 | 0x87:  # TUPLE1, TUPLE2, TUPLE3
                self.stack.append(tuple(self.pop(code - 0x84)))
            case 0x74:  # TUPLE
                items = tuple(self.since_mark())  # first, as it changes which stack is ours
                self.stack.append(items)
            case 0x5D:  # EMPTY_LIST
                self.stack.append([])
            case 0x61:  # APPEND
                self.extend(self.pop(1))
            case 0x65:  # APPENDS
                self.extend(self.since_mark())
            case 0x7D:  # EMPTY_DICT
                self.stack.append({})
            case 0x73:  # SETITEM
                self.update(self.pop(2))
            case 0x75:  # SETITEMS
                self.update(self.since_mark())
            # What outside names stand for, and what is made with it
            case 0x63:  # GLOBAL
                self.stack.append(self.named(self.line(), self.line()))
            case 0x93:  # STACK_GLOBAL
                self.stack.append(self.named(*self.pop(2)))
            case 0x51:  # BINPERSID
                self.stack.append(self.storage(self.stack.pop()))
            case 0x52:  # REDUCE
                self.stack.append(self.call(*self.pop(2)))
            case 0x62:  # BUILD
                self.drop_attributes(self.stack.pop())
            case _:
                raise self.refused(f"asks for the instruction {REFUSED.get(code, hex(code))}")

    # Reading the program

    def take(self, count: int) -> bytes:
        data = self.program.read(count)
        if len(data) < count:
            raise self.broken()
        return data

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def line(self) -> str:
        return self.program.readline().removesuffix(b"\n").decode()

    def pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise self.broken()
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def since_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.below.pop()
        return items

    # What instructions do

    def extend(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise self.broken()
        self.stack[-1].extend(items)

    def update(self, items: list[Any]) -> None:
        keys, values = items[::2], items[1::2]
        if not isinstance(self.stack[-1], dict) or len(keys) != len(values):
            raise self.broken()
        if not all(type(key) is str for key in keys):
            raise self.refused("has a key that is not text")
        self.stack[-1].update(zip(keys, values, strict=True))

    def named(self, module: Any, name: Any) -> Call | torch.dtype:
        if type(module) is not str or type(name) is not str:
            raise self.refused("asks for something by a name that is not text")
        if (module, name) not in GLOBALS:
            raise self.refused(f"asks for {show(f'{module}.{name}')}")
        return GLOBALS[module, name]

    def storage(self, reference: Any) -> Storage:
        match reference:
            case ("storage", torch.dtype() as dtype, str(key), str(), int(numel)):  # the last text names a device
                return Storage(dtype, key, numel)
        raise self.refused("refers to something that is not a storage")

    def call(self, function: Any, arguments: Any) -> OrderedDict | View:
        match function, arguments:
            case Call.ORDERED_DICT, ():
                return OrderedDict()
            # The flag says whether it is trained, and the dict holds no hooks: they would not have been saved
            case Call.TENSOR, (Storage() as storage, offset, tuple(shape), tuple(stride), bool(), OrderedDict()):
                return View(storage, offset, shape, stride)
            case Call.PARAMETER, (View() as view, bool(), OrderedDict()):
                return view
            case Call(), _:
                raise self.refused(f"calls {'.'.join(function.value)} in an unknown way")
        raise self.refused("calls what is not a function")

    def drop_attributes(self, attributes: Any) -> None:
        if not isinstance(self.stack[-1], OrderedDict) or not isinstance(attributes, dict):
            raise self.refused("sets the state of something that is not a dict of tensors")
        if list(attributes) != ["_metadata"]:
            raise self.refused(f"sets the attributes {show(', '.join(attributes))}")

    def broken(self) -> CorruptFile:
        return CorruptFile(f"{self.where} does not describe its tensors as PyTorch does; {AGAIN}")

    def refused(self, what: str) -> UnsafeFile:
        return UnsafeFile(f"{self.where} {what}, which no checkpoint needs; {CONVERT}")
