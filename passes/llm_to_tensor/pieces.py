"""Keys or values of neighbouring tokens, wherever they lie: attention reads one piece after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from compiler.ir.core import Value
from compiler.ir.types import ElementType
from dialects.tensor import Lanes
from passes.ranges import Range, even_ranges
from passes.tensor.build import Build

HEADS_OUTSIDE = (0, 2, 1, 3)  # between [1, tokens, heads, d] and [1, heads, tokens, d]
HISTORY_SHARE = 8  # of local memory, a piece of the history takes one part in so many at most


class Piece(Protocol):
    """The keys, or the values, of some tokens for all KV heads."""

    @property
    def size(self) -> int:
        """How many tokens."""

    def head(self, index: int, rows: Range) -> Value:
        """Rows of KV head `index` as a 16-bit matrix [rows, d] in local memory, tokens over the lanes."""


@dataclass(frozen=True)
class Computed:
    """What this call computed for a run of tokens: x [1, kv heads, n, d] in local memory.

    Tokens are over the lanes, or heads where n is 1.
    """

    build: Build
    x: Value

    @property
    def size(self) -> int:
        tokens: int = self.x.type.shape[2]
        return tokens

    def head(self, index: int, rows: Range) -> Value:
        width = self.x.type.shape[3]
        one = self.build.slice(self.x, (0, index, rows.start, 0), (1, 1, rows.size, width))
        return self.build.reshape(one, (rows.size, width), Lanes(0))


def packed_heads(build: Build, x: Value) -> Value:
    """Keys or values x [n, heads, d] as they were loaded at the highest rate, as [1, heads, n, d]: each head
    is then a matrix by itself.
    """
    packed = build.copy(build.permute(x, (1, 0, 2)))
    return build.reshape(packed, (1, *packed.type.shape), Lanes(2))


def counted(build: Build, values: Value) -> Value:
    """Values [.., d] as [.., d + 1] with a 1 behind each: a product with weights then gives their sum too."""
    return build.pad(values, values.type.shape[-1] + 1, 1.0)


class History:
    """Tokens of earlier calls, some of x [1, tokens, kv heads, d] in DDR, loaded when first asked for.

    `width`: how many of d are read; the rest fills rows up.

    They are loaded for all heads at once, since the heads of a token follow each other in DDR: a head by
    itself is rows of 2 d bytes, which only the tensor command can fetch, at 54 bytes a cycle where these are
    256 bytes, and half of that where d is 64, instead of the matrix command's 58.
    """

    def __init__(self, build: Build, x: Value, tokens: Range, width: int):
        self.build = build
        self.x = x
        self.tokens = tokens
        self.width = width
        self.local: Value | None = None

    @property
    def size(self) -> int:
        return self.tokens.size

    def head(self, index: int, rows: Range) -> Value:
        one = self.build.slice(self.load(), (rows.start, index, 0), (rows.size, 1, self.width))
        return self.build.reshape(one, (rows.size, self.width), Lanes(0))

    def load(self) -> Value:
        """[tokens, kv heads, d] in local memory, tokens over the lanes."""
        if self.local is None:
            _, _, heads, width = self.x.type.shape
            some = self.build.slice(self.x, (0, self.tokens.start, 0, 0), (1, self.size, heads, width))
            some = self.build.reshape(some, (self.size, heads, width), None)
            self.local = self.build.load(some, Lanes(0))
        return self.local


class Stored:
    """Tokens that lie in DDR, x [1, n, heads, d] by token, for a number of uses; loaded when first asked for,
    some neighbouring heads at a time, so that products with those of the first need not wait for all.

    element: as which they are read; with `ones`, they are `counted`. Where `whole`, the rows of these heads
    are loaded as they follow each other, at the highest rate, and taken apart afterwards; otherwise the DMA
    takes them apart.
    """

    def __init__(self, build: Build, x: Value, element: ElementType, whole: bool, ones: bool = False):
        self.build = build
        self.x = x
        self.element = element
        self.whole = whole
        self.ones = ones
        self.loaded: dict[Range, Value] = {}  # by heads, [1, heads, n, d]

    @property
    def size(self) -> int:
        tokens: int = self.x.type.shape[1]
        return tokens

    def head(self, index: int, rows: Range) -> Value:
        some = next(some for some in self._groups() if some.start <= index < some.stop)
        if some not in self.loaded:
            self.loaded[some] = self._load(some)
        return Computed(self.build, self.loaded[some]).head(index - some.start, rows)

    def _groups(self) -> Iterator[Range]:
        """Heads that are loaded together: as many as take little room."""
        spec, (_, tokens, heads, width) = self.build.spec, self.x.type.shape
        head_bytes = -(-tokens // spec.lanes) * width * self.element.bytes
        return even_ranges(heads, 1, spec.work_bytes // head_bytes)

    def _load(self, heads: Range) -> Value:
        _, tokens, _, width = self.x.type.shape
        x = self.build.slice(self.x, (0, 0, heads.start, 0), (1, tokens, heads.size, width))
        if self.whole:
            x = self.build.permute(self.build.load(x, Lanes(1)), HEADS_OUTSIDE)
        else:
            x = self.build.load(self.build.permute(x, HEADS_OUTSIDE), Lanes(2))
        x = self.build.cast(x, self.element, x.type.layout)
        x = self.build.copy(x) if self.whole else x
        return counted(self.build, x) if self.ones else x


def history_pieces(build: Build, x: Value, width: int) -> list[Piece]:
    """The keys or values [1, tokens, kv heads, d] in DDR, in pieces that leave room for the rest; the first
    `width` of each d.

    The first is loaded at once, ahead of the mask and of the stores of the new token: the DMA is then at work
    while that is computed.
    """
    _, tokens, heads, pitch = x.type.shape
    row_bytes = heads * pitch * x.type.element.bytes
    most = build.spec.lane_bytes // HISTORY_SHARE // row_bytes
    first, *others = [History(build, x, part, width) for part in even_ranges(tokens, build.spec.lanes, most)]
    first.load()
    return [first, *others]


@dataclass(frozen=True)
class Part:
    """Those rows of piece number `index` that some queries may see."""

    index: int
    rows: Range


def parts_within(sizes: Sequence[int], wanted: Range) -> list[Part]:
    """Where tokens [start, stop) lie among pieces of these sizes."""
    parts, first = [], 0
    for index, size in enumerate(sizes):
        rows = Range(max(0, wanted.start - first), min(size, wanted.stop - first))
        if rows.size > 0:
            parts.append(Part(index, rows))
        first += size
    return parts
