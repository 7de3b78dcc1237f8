"""Nested dicts to a flatbuffer and back, after the tables of `schema`.

`encode` uses flatbuffers' own Builder. Its readers trust every offset, so `decode` has its own: a bmodel
comes from anywhere, and each access is checked against the buffer and raises UserError when it is bad.
"""

import struct
from collections.abc import Callable
from typing import Any

import flatbuffers

from compiler.bmodel.schema import DEFAULTS, TABLES
from compiler.diagnostics import UserError

Record = dict[str, Any]
BinaryRange = tuple[int, int]  # start in the section of raw bytes, size

_SCALARS = {"u32": "<I", "i32": "<i", "u64": "<Q", "f32": "<f"}
_MAX_DEPTH = 16  # the schema nests 7 deep
_TABLE_BYTES = 32  # about what a table and the reference to it take
_SHARED = 4  # how often what a file holds is read: writers may refer to a tensor or a name twice
_DAMAGED = "the description of the nets is damaged"


def encode(record: Record, table: str = "Model") -> bytes:
    """The finished flatbuffer of `record`; its length depends on the structure, not on the numbers."""
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(_encode_table(builder, record, table))
    return bytes(builder.Output())


def _encode_table(builder: flatbuffers.Builder, record: Record, table: str) -> int:
    fields = TABLES[table]
    if unknown := record.keys() - fields.keys():
        raise KeyError(f"{table} has no field {sorted(unknown)}")
    offsets = {name: _encode_child(builder, value, fields[name][1]) for name, value in record.items()}
    builder.StartObject(1 + max(number for number, _ in fields.values()))
    for name, value in record.items():
        number, kind = fields[name]
        _put_field(builder, number, kind, value, offsets[name])
    return int(builder.EndObject())


def _encode_child(builder: flatbuffers.Builder, value: Any, kind: str) -> int:
    """Write what a field refers to, ahead of its table; 0 for what lies inside the table."""
    if kind in _SCALARS or kind == "Binary":
        return 0
    if kind == "str":
        return int(builder.CreateString(value))
    if kind == "bytes":
        return int(builder.CreateByteVector(value))
    if kind.startswith("["):
        return _encode_vector(builder, value, kind[1:-1])
    return _encode_table(builder, value, kind)


def _encode_vector(builder: flatbuffers.Builder, values: list[Any], kind: str) -> int:
    if kind in _SCALARS:
        size, prepend = struct.calcsize(_SCALARS[kind]), _prepend_scalar(builder, kind)
        items = values
    else:
        size, prepend = 4, builder.PrependUOffsetTRelative
        items = [_encode_table(builder, value, kind) for value in values]
    builder.StartVector(size, len(items), size)
    for item in reversed(items):
        prepend(item)
    return int(builder.EndVector())


def _prepend_scalar(builder: flatbuffers.Builder, kind: str) -> Callable[[Any], None]:
    methods = {"u32": "Uint32", "i32": "Int32", "u64": "Uint64", "f32": "Float32"}
    method: Callable[[Any], None] = getattr(builder, "Prepend" + methods[kind])
    return method


def _put_field(builder: flatbuffers.Builder, number: int, kind: str, value: Any, offset: int) -> None:
    if kind in _SCALARS:
        _prepend_scalar(builder, kind)(value)
        builder.Slot(number)
    elif kind == "Binary":
        start, size = value
        builder.Prep(8, 16)
        builder.PrependUint64(size)
        builder.PrependUint64(start)
        builder.PrependStructSlot(number, builder.Offset(), 0)
    else:
        builder.PrependUOffsetTRelativeSlot(number, offset, 0)


def decode(data: bytes | memoryview, table: str = "Model") -> Record:
    """All fields of the table; what the buffer leaves out has its default, None for a table or Binary."""
    return _Decoder(bytes(data)).root(table)


class _Decoder:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.budget = 4096 + _SHARED * len(data)  # bytes still to be read: a crafted file has loops

    def root(self, table: str) -> Record:
        return self.table(self.offset(0), table, depth=0)

    def read(self, layout: str, position: int) -> Any:
        if not 0 <= position <= len(self.data) - struct.calcsize(layout):
            raise UserError(f"{_DAMAGED}: it refers to byte {position} of {len(self.data)}")
        return struct.unpack_from(layout, self.data, position)[0]

    def offset(self, position: int) -> int:
        return position + int(self.read("<I", position))

    def table(self, position: int, table: str, depth: int) -> Record:
        self.spend(_TABLE_BYTES if depth <= _MAX_DEPTH else self.budget + 1)
        vtable = position - int(self.read("<i", position))
        vtable_bytes = int(self.read("<H", vtable))
        record: Record = {}
        for name, (number, kind) in TABLES[table].items():
            slot = 4 + 2 * number
            at = int(self.read("<H", vtable + slot)) if slot + 2 <= vtable_bytes else 0
            record[name] = self.field(position + at, kind, depth) if at else _default(table, name, kind)
        return record

    def field(self, position: int, kind: str, depth: int) -> Any:
        if kind in _SCALARS:
            return self.read(_SCALARS[kind], position)
        if kind == "Binary":
            return (self.read("<Q", position), self.read("<Q", position + 8))
        target = self.offset(position)
        if kind == "str":
            return self.raw_vector(target).decode("utf-8", errors="replace")
        if kind == "bytes":
            return self.raw_vector(target)
        if kind.startswith("["):
            return self.vector(target, kind[1:-1], depth)
        return self.table(target, kind, depth + 1)

    def raw_vector(self, position: int) -> bytes:
        length = int(self.read("<I", position))
        self.check_length(length, 1, position)
        return self.data[position + 4 : position + 4 + length]

    def vector(self, position: int, kind: str, depth: int) -> list[Any]:
        length = int(self.read("<I", position))
        width = struct.calcsize(_SCALARS.get(kind, "<I"))
        self.check_length(length, width, position)
        places = range(position + 4, position + 4 + length * width, width)
        if kind in _SCALARS:
            return [self.read(_SCALARS[kind], place) for place in places]
        return [self.table(self.offset(place), kind, depth + 1) for place in places]

    def check_length(self, length: int, width: int, position: int) -> None:
        if position + 4 + length * width > len(self.data):
            raise UserError(f"{_DAMAGED}: a list of {length} items at byte {position}")
        self.spend(length * width)

    def spend(self, size: int) -> None:
        self.budget -= size
        if self.budget < 0:
            raise UserError(f"{_DAMAGED}: its tables refer to each other without end")


def _default(table: str, name: str, kind: str) -> Any:
    if kind in _SCALARS:
        return DEFAULTS.get((table, name), 0)
    if kind.startswith("["):
        return []
    return {"str": "", "bytes": b""}.get(kind)
