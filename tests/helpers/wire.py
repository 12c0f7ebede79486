"""Protobuf messages written by hand, of which SentencePiece models are made."""

import struct


def varint(value):
    groups = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def message(**fields):
    """`f3=5` is field 3 as a number, bytes are length-prefixed, a float is 32 bits, a list repeats its field."""
    data = b""
    for name, values in fields.items():
        number = int(name[1:]) << 3
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, bytes):
                data += varint(number | 2) + varint(len(value)) + value
            elif isinstance(value, float):
                data += varint(number | 5) + struct.pack("<f", value)
            else:
                data += varint(number) + varint(value)
    return data


def piece(text, score=0.0, kind=1):
    """A piece of a SentencePiece model: 1 is a common one, 2 the unknown one, 3 a control symbol."""
    return message(f1=text if isinstance(text, bytes) else text.encode(), f2=score, f3=kind)
