"""The bytes of a coefficient blob: checkpoint tensors as they are to be stored, packed and in their places.

A blob is produced piece by piece while it is written, so that memory holds a tensor or two, never a layer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import singledispatchmethod
from itertools import groupby, islice

import numpy as np

from compiler.diagnostics import UserError
from compiler.ir.types import ElementType
from compiler.weights.groups import quantize
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Array, Quantized, Weight, convert, joined, rectangle, rows_of
from compiler.weights.stored import Floats as FloatArray
from compiler.weights.tile import pack
from dialects.weights import (
    Floats,
    Indices,
    Iota,
    Joined,
    LaneRecord,
    Packed,
    RopeTable,
    Table,
    TensorView,
    WeightSource,
    expert_name,
    view_of_name,
)

ReadTensor = Callable[[str], Weight]


@dataclass(frozen=True)
class Piece:
    """One region of a blob: byte offset, size, and where its bytes come from."""

    offset: int
    size: int
    source: WeightSource


@dataclass(frozen=True)
class Materializer:
    """Computes pieces.

    `read` gives a checkpoint tensor by the name the IR uses: floats, or codes where the checkpoint has those.
    `tables` are the rotary tables, and `full_name` is a tensor's name in messages; `importance` is that of a
    tensor's inputs, where it is known.
    """

    read: ReadTensor
    tables: Mapping[str, Array]
    full_name: Callable[[str], str] = str
    importance: Callable[[str], FloatArray | None] = lambda name: None

    def pieces(self, sources: Sequence[WeightSource]) -> Iterator[Array]:
        """The bytes of several sources for which `weight_of` is the same, so that it is quantized once."""
        first, parts = sources[0], []
        if isinstance(first, Packed) and not first.experts:
            parts = [self.stored(name, first.tile.stored) for name in first.names]
        for source in sources:
            yield tile_bytes(parts, source) if parts and isinstance(source, Packed) else self.bytes_of(source)

    def stored(self, name: str, form: ElementType | Scheme) -> Weight:
        """A tensor as the program expects it: codes as they are, floats converted or quantized.

        UserError when they are codes of another scheme, or cannot be quantized.
        """
        return self._as(self._rows(name), form, name)

    def _rows(self, name: str) -> Weight:
        """Floats of a stack of matrices are given as one, since each row is quantized by itself."""
        view = view_of_name(name)
        weight = self.read(view.tensor)
        if isinstance(weight, Quantized):
            return self._part(weight, view)
        chosen: Array = view.of(weight)[view.index]
        return chosen.reshape(-1, chosen.shape[-1]) if chosen.ndim == 3 else chosen

    def _part(self, weight: Quantized, view: TensorView) -> Weight:
        """UserError for codes to be transposed: their groups would not lie along the inputs."""
        if view.transposed:
            raise UserError(
                f"{self.full_name(view.tensor)} cannot be taken over: it is stored as codes, and the program "
                "needs it transposed"
            )
        return rectangle(weight, *view.cut) if view.cut else weight

    def _as(
        self, weight: Weight, form: ElementType | Scheme, name: str, columns: slice = slice(None)
    ) -> Weight:
        """A weight that is some columns of what a name says."""
        try:
            if isinstance(weight, Quantized):
                return taken_over(weight, form)
            if not isinstance(form, Scheme):
                return convert(weight, form.numpy)
            return quantize(weight, form, self._importance(name, columns))
        except ValueError as error:
            what = "taken over" if isinstance(weight, Quantized) else "quantized"
            tensor = self.full_name(view_of_name(name).tensor)
            raise UserError(f"{tensor} cannot be {what}: {error}") from error

    def _importance(self, name: str, columns: slice) -> FloatArray | None:
        """That of some columns of what a name says."""
        view = view_of_name(name)
        found = self.importance(view.tensor)
        cut = view.cut[-1] if len(view.cut) > 1 else slice(None)
        return None if found is None else found[cut][columns]

    def codes(self, name: str, scheme: Scheme) -> Quantized:
        """A tensor that is stored as codes."""
        weight = self.stored(name, scheme)
        assert isinstance(weight, Quantized)
        return weight

    @singledispatchmethod
    def bytes_of(self, source: WeightSource) -> Array:
        raise NotImplementedError(type(source).__name__)

    @bytes_of.register
    def _(self, source: Packed) -> Array:
        if not source.experts:
            return next(self.pieces([source]))
        return np.stack([self._tile_of(source, expert) for expert in range(source.experts)])

    def _tile_of(self, source: Packed, expert: int) -> Array:
        """One expert's tile. Only what the tile holds is quantized: each row's groups are on their own."""
        tile = source.tile
        rows = slice(source.row, source.row + tile.rows // (len(source.names) if source.each else 1))
        columns = slice(source.column, source.column + tile.columns)
        parts = []
        for name in source.names:
            one = expert_name(name, expert)
            parts.append(self._as(rectangle(self._rows(one), rows, columns), tile.stored, one, columns))
        runs = pack(tile, joined(parts))
        return runs.reshape(tile.lanes, source.pieces, -1).swapaxes(0, 1)

    @bytes_of.register
    def _(self, source: Joined) -> Array:
        whole = joined([self.stored(name, source.dtype) for name in source.names])
        assert not isinstance(whole, Quantized)
        return whole

    @bytes_of.register
    def _(self, source: RopeTable) -> Array:
        cos, sin = self.tables[source.cos], self.tables[source.sin]
        rows = np.concatenate(ROPE_ROWS[source.mode](cos, sin), axis=1).astype(np.float32)
        return rows[:, source.columns] if source.columns else rows

    @bytes_of.register
    def _(self, source: Table) -> Array:
        return self.tables[source.name].astype(np.float32, copy=False)

    @bytes_of.register
    def _(self, source: Floats) -> Array:
        return np.array(source.values, np.float32)

    @bytes_of.register
    def _(self, source: Iota) -> Array:
        return np.arange(source.count, dtype=np.float32) * np.float32(source.step)

    @bytes_of.register
    def _(self, source: Indices) -> Array:
        numbers = self.read(source.name)
        assert isinstance(numbers, np.ndarray)
        return numbers.astype(np.uint16)

    @bytes_of.register
    def _(self, source: LaneRecord) -> Array:
        record = np.zeros((source.lanes, source.run_bytes // 4), np.float32)
        offset = 0
        for part in source.parts:
            values = self.bytes_of(part.source)
            rows = over_lanes(values, source.lanes) if part.over_lanes else values[None]
            record[:, offset : offset + rows.shape[1]] = rows
            offset += source.part_bytes(part) // 4
        return record


# Pieces of one weight by what computes them: from elsewhere.
Make = Callable[[Sequence[Piece], Materializer], list[Array]]


def over_lanes(values: Array, lanes: int) -> Array:
    """[lanes, rows]: item i in lane i mod lanes, and zeros behind the last."""
    return np.pad(values.reshape(-1), (0, -values.size % lanes)).reshape(-1, lanes).T


def rows_of_halves(cos: Array, sin: Array) -> list[Array]:
    half = sin.shape[1] // 2
    return [cos, sin[:, half:], -sin[:, :half]]


def rows_of_neighbours(cos: Array, sin: Array) -> list[Array]:
    pairs = sin.reshape(len(sin), -1, 2)
    return [cos, np.stack([pairs[..., 1], -pairs[..., 0]], axis=-1).reshape(sin.shape)]


ROPE_ROWS: Mapping[str, Callable[[Array, Array], list[Array]]] = {  # see `RopeTable`
    "half": rows_of_halves,
    "half_tables": lambda cos, sin: [cos, cos, sin, -sin],
    "interleaved": rows_of_neighbours,
}


def taken_over(weight: Quantized, form: ElementType | Scheme) -> Quantized:
    """Codes that come from outside, for a program that expects them; ValueError when it does not."""
    weight.check_range()
    if weight.scheme != form:
        raise ValueError(f"it is stored as {weight.scheme}, where the program expects {form}")
    return weight


def tile_bytes(parts: Sequence[Weight], source: Packed) -> Array:
    """The bytes of a tile, of the tensors that it names as they are stored: [pieces, lanes, bytes]."""
    tile = source.tile
    columns = slice(source.column, source.column + tile.columns)
    chosen = zip(parts, rows_in(parts, source), strict=True)
    shares = [rectangle(part, rows, columns) for part, rows in chosen if rows.start < rows.stop]
    runs = pack(tile, joined(shares))
    return runs.reshape(tile.lanes, source.pieces, -1).swapaxes(0, 1)


def rows_in(parts: Sequence[Weight], source: Packed) -> Iterator[slice]:
    """Which rows of each tensor a tile holds; see `Packed.each`."""
    start, count = source.row, source.tile.rows // (len(parts) if source.each else 1)
    for part in parts:
        yield slice(max(start, 0), max(0, min(start + count, rows_of(part))))
        start -= 0 if source.each else rows_of(part)


@dataclass(eq=False)
class WeightBlob:
    """A `compiler.bmodel.BlobSource` over the pieces of one module, bound to one layer's tensors.

    `jobs` weights are worked on at the same time; the bytes do not depend on it.
    """

    pieces: list[Piece]
    materializer: Materializer
    key: Hashable
    jobs: int = 1
    done: Callable[[], object] = lambda: None  # called when all bytes were taken
    make: Make | None = None

    @property
    def size(self) -> int:
        return max((piece.offset + piece.size for piece in self.pieces), default=0)

    def chunks(self) -> Iterator[memoryview]:
        position = 0
        for piece, data in self._computed():
            if piece.offset > position:
                yield memoryview(bytes(piece.offset - position))
            assert data.nbytes == piece.size, f"{piece.source} is {data.nbytes} bytes, expected {piece.size}"
            yield np.ascontiguousarray(data).view(np.uint8).reshape(-1).data
            position = piece.offset + piece.size
        self.done()

    def _computed(self) -> Iterator[tuple[Piece, Array]]:
        """Pieces with their bytes, in order; `jobs` weights ahead of the one that is asked for."""
        ordered = sorted(self.pieces, key=lambda piece: piece.offset)
        groups = [list(pieces) for _, pieces in groupby(ordered, key=lambda piece: weight_of(piece.source))]
        with ThreadPoolExecutor(self.jobs) as pool:
            waiting = deque[Future[list[Array]]]()
            ahead = iter(groups)
            for group in groups:
                for later in islice(ahead, self.jobs + 1 - len(waiting)):
                    waiting.append(pool.submit(self._bytes_of, later))
                yield from zip(group, waiting.popleft().result(), strict=True)

    def _bytes_of(self, pieces: Sequence[Piece]) -> list[Array]:
        if self.make is not None:
            return self.make(pieces, self.materializer)
        return list(self.materializer.pieces([piece.source for piece in pieces]))


def weight_of(source: WeightSource) -> Hashable:
    """What tiles of one weight have in common."""
    if isinstance(source, Packed) and not source.experts:
        return source.names, source.tile.stored
    return source
