"""The protobuf wire format, as far as a file is judged by it: each message as its fields, in order.

Where readers could read different things, nothing is read: such a file is refused.
"""

from __future__ import annotations

from collections.abc import Iterator

from .errors import ModelFileError

MAX_ENTRIES = 200_000  # of a message

Entry = tuple[int, int, int | memoryview]  # field number, wire type, value


def refused(seen: str) -> ModelFileError:
    return ModelFileError(
        "The ONNX file was refused",
        seen=seen,
        repair="Use a file written by `gan export`; if it is one, it is damaged: copy or export it again",
    )


def entries(data: memoryview) -> Iterator[Entry]:
    """The fields of one message, in order; values of wire type 2 are views, others integers. Floats are left out."""
    position, end, count = 0, len(data), 0
    while position < end:
        count += 1
        if count > MAX_ENTRIES:
            raise refused(f"a message of more than {MAX_ENTRIES} parts")
        tag, position = varint(data, position)
        number, wire = tag >> 3, tag & 7
        if not 1 <= number < 2**29:  # above, other readers drop bits and see another field
            raise refused(f"broken protobuf (field number {number})")
        if wire == 0:
            value, position = varint(data, position)
            yield number, wire, value
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            if position + size > end:
                raise refused("broken protobuf (cut short)")
            position += size  # nothing that is looked at here: to other readers neither
        elif wire == 2:
            size, position = varint(data, position)
            if size > end - position:
                raise refused("broken protobuf (cut short)")
            yield number, wire, data[position : position + size]
            position += size
        else:
            raise refused(f"broken protobuf (wire type {wire})")


def varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
        if shift > 63:
            raise refused("broken protobuf (a number of more than 64 bits)")


def varints(wire: int, value: int | memoryview) -> Iterator[int]:
    """A repeated integer, packed or not."""
    if not isinstance(value, memoryview):
        yield value
        return
    position = 0
    while position < len(value):
        number, position = varint(value, position)
        yield number


def view(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise refused("broken protobuf (a number where a message belongs)")
    return value


def text(value: int | memoryview) -> str:
    return str(view(value), "utf-8")


def signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value
