"""Columns of an array that arithmetic takes at a time, so that what lies between takes little room."""

from __future__ import annotations

from collections.abc import Iterator

from compiler.ir.core import Value
from dialects import tensor
from passes.ranges import Range, even_ranges
from passes.tensor.build import Build
from passes.tensor_to_chip.placed import buffer_bytes


def column_parts(build: Build, x: Value) -> Iterator[Value]:
    """x in parts along its last axis that take little room each; whole where that axis is over the lanes."""
    for part in column_ranges(build, x):
        yield build.part(x, -1, part)


def column_ranges(build: Build, x: Value) -> Iterator[Range]:
    columns: int = x.type.shape[-1]
    if tensor.is_over_lanes(x.type, x.type.rank - 1):
        return iter((Range(0, columns),))
    column_bytes = -(-buffer_bytes(x.type, build.spec) // columns)
    unit = build.spec.eu_items(2)  # parts may be rounded to 16 bit, and each begins a slot
    return even_ranges(columns, unit, build.spec.work_bytes // (unit * column_bytes))
