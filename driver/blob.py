"""The bytes of a coefficient blob: checkpoint tensors converted, quantized, packed and put in their places.

A blob is produced piece by piece while it is written, so that memory holds a tensor or two, never a layer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import singledispatchmethod
from itertools import groupby, islice
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.diagnostics import UserError
from compiler.weights.quant import Quantized, TileFormat, pack, quantize, to_float32
from dialects.chip import Floats, Iota, Joined, LaneRecord, Packed, RopeTable, WeightSource

Array = npt.NDArray[Any]
ReadTensor = Callable[[str], Array]


@dataclass(frozen=True)
class Piece:
    """One region of a blob: byte offset, size, and where its bytes come from."""

    offset: int
    size: int
    source: WeightSource


class Materializer:
    """Computes pieces. `read` gives a checkpoint tensor by the name the IR uses, and `full_name` its name in
    messages; `tables` are the rotary tables.
    """

    def __init__(
        self,
        read: ReadTensor,
        tables: dict[str, Array],
        lanes: int,
        full_name: Callable[[str], str] = str,
    ):
        self.read = read
        self.tables = tables
        self.lanes = lanes
        self.full_name = full_name

    def pieces(self, sources: Sequence[WeightSource]) -> list[Array]:
        """The bytes of several sources; tiles of one weight, which is quantized once, or any one other."""
        first = sources[0]
        if not isinstance(first, Packed):
            return [self.bytes_of(source) for source in sources]
        whole = self.weight(first)
        return [self.tile(whole, source) for source in sources if isinstance(source, Packed)]

    def weight(self, source: Packed) -> Quantized | Array:
        """The whole weight that a tile is part of."""
        if source.bits == 16:
            return convert(self.joined(source.names), source.scale.numpy)
        return self.quantized(source)

    def tile(self, whole: Quantized | Array, source: Packed) -> Array:
        columns = slice(source.column, source.column + source.columns)
        total = len(whole.codes) if isinstance(whole, Quantized) else len(whole)
        shares = list(share_rows(source, total, len(source.names) if source.each else 1))
        part: Quantized | Array
        if isinstance(whole, Quantized):
            part = stacked([whole.tile(rows, columns) for rows in shares])
        else:
            part = np.concatenate([whole[rows, columns] for rows in shares])
        tile = TileFormat(
            source.rows, source.columns, source.bits, source.group, source.symmetric, self.lanes
        )
        runs = pack(tile, part)
        return runs.reshape(self.lanes, source.pieces, -1).swapaxes(0, 1)

    @singledispatchmethod
    def bytes_of(self, source: WeightSource) -> Array:
        raise NotImplementedError(type(source).__name__)

    @bytes_of.register
    def _(self, source: Joined) -> Array:
        return convert(self.joined(source.names), source.dtype.numpy)

    @bytes_of.register
    def _(self, source: Packed) -> Array:
        return self.pieces([source])[0]

    @bytes_of.register
    def _(self, source: RopeTable) -> Array:
        cos, sin = self.tables[source.cos], self.tables[source.sin]
        half = sin.shape[1] // 2
        return np.concatenate([cos, sin[:, :half], -sin[:, half:]], axis=1).astype(np.float32)

    @bytes_of.register
    def _(self, source: Floats) -> Array:
        return np.array(source.values, np.float32)

    @bytes_of.register
    def _(self, source: Iota) -> Array:
        return np.arange(source.count, dtype=np.float32) * np.float32(source.step)

    @bytes_of.register
    def _(self, source: LaneRecord) -> Array:
        record = np.zeros((source.lanes, source.run_bytes // 4), np.float32)
        offset = 0
        for part in source.parts:
            values = self.bytes_of(part.source)
            rows = values.reshape(-1, source.lanes).T if part.over_lanes else values[None]
            record[:, offset : offset + rows.shape[1]] = rows
            offset += source.part_bytes(part) // 4
        return record

    def joined(self, names: tuple[str, ...]) -> Array:
        """Tensors as one, rows after rows; in f32 where they are stored in different types."""
        parts = [self.read(name) for name in names]
        if len({part.dtype for part in parts}) > 1:
            parts = [to_float32(part) for part in parts]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def quantized(self, source: Packed) -> Quantized:
        weight = self.joined(source.names)
        try:
            return quantize(weight, source.bits, source.group, source.symmetric, source.scale.numpy)
        except ValueError as error:
            names = " + ".join(map(self.full_name, source.names))
            raise UserError(f"{names} cannot be quantized: {error}") from error


def share_rows(source: Packed, total: int, shares: int) -> Iterator[slice]:
    """The rows of a packed tile among the `total` of its joined tensors; see `Packed.each`."""
    for start in range(source.row, total, total // shares):
        yield slice(start, start + source.rows // shares)
        if shares == 1:
            return


def stacked(parts: list[Quantized]) -> Quantized:
    """Parts with the same columns as one, row after row."""
    if len(parts) == 1:
        return parts[0]
    codes, scales = (np.concatenate([getattr(p, name) for p in parts]) for name in ("codes", "scales"))
    zeros = [p.zeros for p in parts if p.zeros is not None]
    return Quantized(codes, scales, np.concatenate(zeros) if zeros else None, parts[0].bits, parts[0].group)


def convert(values: Array, dtype: np.dtype) -> Array:
    """Values in another float type that holds them, to nearest even."""
    if values.dtype == dtype:
        return np.ascontiguousarray(values)
    return to_float32(values).astype(dtype)


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
                    waiting.append(pool.submit(self.materializer.pieces, [piece.source for piece in later]))
                yield from zip(group, waiting.popleft().result(), strict=True)


def weight_of(source: WeightSource) -> Hashable:
    """What tiles of one weight have in common."""
    return source.names if isinstance(source, Packed) else source
