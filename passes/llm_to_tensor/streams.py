"""Rotary rows whose columns follow several streams of positions.

The columns of a stream lie side by side in a table of their own, so that one gather brings them. Then all are
put in order. Since that repeats itself (cosines and sines have the same sections, and so have both halves of
a head), a few strided copies do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from compiler.ir.core import Value
from dialects.llm import Streams
from passes.tensor.build import Build

Columns = Sequence[int]  # of each column, the number of the stream that it follows


def columns_of(streams: Streams) -> list[int]:
    sections = zip(streams.numbers, streams.widths, strict=True)
    return [number for number, width in sections for _ in range(width)]


def rotary_columns(table: Columns, mode: str) -> list[int]:
    """Of rows that are made of cosines and sines with these columns; see `weights.RopeTable`.

    A sine stands where its item's partner is.
    """
    if mode == "half_tables":
        return [*table] * 4
    half = len(table) // 2
    halves = [*table[half:], *table[:half]]
    return [*table, *(halves if mode == "half" else (table[column ^ 1] for column in range(len(table))))]


def woven(build: Build, parts: Mapping[int, Value], columns: Columns) -> Value:
    """[1, tokens, .., columns] of those that each stream has, [1, tokens, .., some], by its number."""
    rank = len(next(iter(parts.values())).type.shape)
    return build.concat([*_pieces(build, parts, columns)], rank - 1)


def _pieces(build: Build, parts: Mapping[int, Value], columns: Columns) -> Iterator[Value]:
    """Neighbouring columns, in order: of one stream, or some that repeat themselves."""
    taken: Counter[int] = Counter()
    start = 0
    while start < len(columns):
        period, times = repetition(columns[start:])
        piece = columns[start : start + period * times]
        counts = Counter(piece)
        some = {each: _columns(build, parts[each], taken[each], counts[each]) for each in counts}
        yield _repeated(build, some, piece[:period], times)
        taken += counts
        start += len(piece)


def _columns(build: Build, x: Value, start: int, count: int) -> Value:
    *lead, _ = x.type.shape
    return build.slice(x, (*(0 for _ in lead), start), (*lead, count))


def _repeated(build: Build, parts: Mapping[int, Value], period: Columns, times: int) -> Value:
    if len(parts) == 1:
        return parts[period[0]]
    split = {}
    for number, part in parts.items():
        *lead, width = part.type.shape
        split[number] = build.reshape(part, (*lead, times, width // times), part.type.layout)
    whole = woven(build, split, period)
    return build.reshape(whole, (*lead, times * len(period)), whole.type.layout)


def repetition(columns: Columns) -> tuple[int, int]:
    """The shortest period of the longest beginning that repeats itself, and how many times it does."""
    found = [(period, _times(columns, period)) for period in range(1, len(columns) // 2 + 1)]
    repeats = [each for each in found if each[1] > 1]
    return max(repeats, key=lambda each: each[0] * each[1], default=(1, 1))


def _times(columns: Columns, period: int) -> int:
    length = period
    while length < len(columns) and columns[length] == columns[length - period]:
        length += 1
    return length // period
