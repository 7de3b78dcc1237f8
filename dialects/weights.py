"""What a region of the coefficient blob holds: named weights and how they are stored, tables, constants."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from compiler.ir.text import parameter_text
from compiler.ir.types import Attribute, ElementType, attr_def
from compiler.sizes import round_up
from compiler.weights.part import of_expert, part_of
from compiler.weights.scheme import Scheme
from compiler.weights.tile import Tile

ROPE_TABLES = ("half", "interleaved", "half_tables")


TRANSPOSED, MATRIX = "^T", "^M"
_CUT = re.compile(r"(.*)\{([\d:,]+)\}")
EVERYTHING = slice(None)


@dataclass(frozen=True)
class TensorView:
    """What a name in a source says: a tensor, maybe as a matrix of its first axis and of all others, or that
    transposed, and which items along each axis of that, from the first axis on; all along those that it does
    not name.

    The tensor may itself be a part of another (`compiler.weights.part`), or have rows in another order. Of
    a part of every expert, the axes are those of one.
    """

    tensor: str
    transposed: bool = False
    cut: tuple[slice, ...] = ()
    matrix: bool = False

    @property
    def index(self) -> tuple[slice, ...]:
        """What the tensor, transposed or not, is indexed with."""
        part = part_of(self.tensor)
        return (EVERYTHING, *self.cut) if part is not None and part.expert is None and self.cut else self.cut

    @property
    def name(self) -> str:
        """The name that says it; the inverse of `view_of_name`."""
        axes = ",".join("" if each == EVERYTHING else range_text(each) for each in self.cut)
        ways = MATRIX * self.matrix + TRANSPOSED * self.transposed
        return f"{self.tensor}{ways}{f'{{{axes}}}' if self.cut else ''}"

    def of(self, values: Any) -> Any:
        """The tensor's values, an array, as the name says but for the cut."""
        values = values.reshape(len(values), -1) if self.matrix else values
        return values.T if self.transposed else values

    def of_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the tensor, as the name says but for the cut."""
        shape = (shape[0], prod(shape[1:])) if self.matrix else shape
        return shape[::-1] if self.transposed else shape


def range_text(cut: slice) -> str:
    return f"{cut.start}:{cut.stop}:{cut.step}"


def view_of_name(name: str) -> TensorView:
    found = _CUT.fullmatch(name)
    tensor, axes = (found[1], found[2].split(",")) if found else (name, [])
    cut = tuple(slice(*map(int, axis.split(":"))) if axis else EVERYTHING for axis in axes)
    whole = tensor.removesuffix(TRANSPOSED)
    return TensorView(whole.removesuffix(MATRIX), tensor.endswith(TRANSPOSED), cut, whole.endswith(MATRIX))


def some_items(name: str, axis: int, some: slice) -> str:
    """The name of some items along an axis of what a name says: of rows of a gate, "gate_up.weight{0:256:1}";
    of columns of a weight, "down.weight{,0:256:1}".
    """
    view = view_of_name(name)
    if (part := part_of(view.tensor)) is not None and part.expert is None:
        axis -= 1
    before = [*view.cut, *[EVERYTHING] * (axis + 1 - len(view.cut))]
    if before[axis] != EVERYTHING:
        kept = range(before[axis].start, before[axis].stop, before[axis].step)[some]
        some = slice(kept.start, kept.stop, kept.step)
    before[axis] = some
    return replace(view, cut=tuple(before)).name


def expert_name(name: str, expert: int | None) -> str:
    """As `of_expert`, of a name with a cut: that of one expert's part, or of every one's."""
    view = view_of_name(name)
    cut = view.cut if part_of(view.tensor) is not None else view.cut[1:]
    return replace(view, tensor=of_expert(view.tensor, expert), cut=cut).name


def transposed(name: str) -> str:
    """The name of a tensor transposed, as some models keep the weights of linears."""
    return f"{name}{TRANSPOSED}"


def as_matrix(name: str) -> str:
    """The name of a tensor of several axes as a matrix, as convolutions of patches use their weight."""
    return f"{name}{MATRIX}"


class WeightSource(Attribute):
    """Where the bytes of a region of the coefficient blob come from; equal sources are one region."""


@attr_def("weights.joined")
@dataclass(frozen=True)
class Joined(WeightSource):
    """Checkpoint tensors, or some of their rows, joined along axis 0, converted to `dtype`, row-major."""

    names: tuple[str, ...]
    dtype: ElementType

    def problem(self) -> str | None:
        return None if self.names and self.dtype.is_float else "names no weights, or is of no float type"


@attr_def("weights.packed")
@dataclass(frozen=True)
class Packed(WeightSource):
    """A rectangle of the joined tensors: the tile's rows and columns, from (row, column) on.

    With `each`, the rows are an equal share of every tensor, from its row `row` on, one share after the
    other. A lane's run of bytes is cut into `pieces`, and all lanes' first pieces come first.

    With `experts`, the names are those of every expert's parts (`compiler.weights.part`), and the tiles of so
    many experts lie one behind the other.
    """

    names: tuple[str, ...]
    row: int
    column: int
    tile: Tile
    each: bool = False
    pieces: int = 1
    experts: int = 0

    @property
    def total_bytes(self) -> int:
        return self.tile.total_bytes * max(1, self.experts)

    def problem(self) -> str | None:
        if problem := self.tile.problem():
            return f"holds {self.tile}, which {problem}"
        right = self.names and min(self.row, self.column, self.experts) >= 0 and self.pieces >= 1
        if not right or self.tile.run_bytes % self.pieces or (self.each and self.tile.rows % len(self.names)):
            return "names no weights, begins before them, or does not go into its pieces or shares"
        return None


@attr_def("weights.rope_table")
@dataclass(frozen=True)
class RopeTable(WeightSource):
    """f32 rows [cos | sin'] of d each, from two tables of one width: sin' is what an item times it gives to
    its partner.

    mode half: d is the tables' width; sin' is [sin of the second half | minus sin of the first half].
    half_tables: the same with each table twice, so d is twice their width.
    interleaved: d is their width; sin' of an even item is sin of the next one, that of an odd one minus sin
    of the one before.
    `columns`: which items of each row, in which order; none for all as they are.
    """

    cos: str
    sin: str
    mode: str = "half"
    columns: tuple[int, ...] = ()

    def problem(self) -> str | None:
        if self.mode not in ROPE_TABLES:
            return f"has the mode {self.mode!r}"
        return "has columns below 0" if min(self.columns, default=0) < 0 else None


@attr_def("weights.table")
@dataclass(frozen=True)
class Table(WeightSource):
    """A table of the model by name, f32, row-major."""

    name: str


@attr_def("weights.floats")
@dataclass(frozen=True)
class Floats(WeightSource):
    """f32 numbers, written out."""

    values: tuple[float, ...]


@attr_def("weights.iota")
@dataclass(frozen=True)
class Iota(WeightSource):
    """f32 0, step, 2 step, ...: `count` numbers."""

    count: int
    step: float


@attr_def("weights.indices")
@dataclass(frozen=True)
class Indices(WeightSource):
    """Whole numbers that a checkpoint, or what reads it, has by this name, as ui16."""

    name: str


@attr_def("weights.lane_part")
@dataclass(frozen=True)
class LanePart(Attribute):
    """`count` f32 numbers of a record: item i on lane i mod lanes, or all of them on every lane."""

    source: WeightSource
    count: int
    over_lanes: bool


@attr_def("weights.lane_record")
@dataclass(frozen=True)
class LaneRecord(WeightSource):
    """As many bytes for every lane, one lane after the other: its parts, each in whole EU widths."""

    parts: tuple[LanePart, ...]
    lanes: int
    eu_bytes: int

    def part_bytes(self, part: LanePart) -> int:
        """Bytes of a part in one lane."""
        items = -(-part.count // self.lanes) if part.over_lanes else part.count
        return round_up(4 * items, self.eu_bytes)

    @property
    def run_bytes(self) -> int:
        return sum(self.part_bytes(part) for part in self.parts)


# ---- their names in a file ----

_TILE = re.compile(r"#chip\.packed<.*\], row = \d+, rows = \d+, column = \d+, columns = \d+, bits = (\d+), ")
_ROWS = re.compile(r"#chip\.joined<.*\], dtype = b?f(16)>")


def region_name(source: WeightSource | LanePart) -> str:
    """What the list of weights in a bmodel calls a region; nothing else in the file says what its bytes are.

    It looks like an attribute of the IR and is a format of its own: the IR may change, equal programs give
    equal files, and `stored_bits` reads them all.
    """
    match source:
        case Packed(names, row, column, tile, each, pieces, experts):
            rectangle = {"row": row, "rows": tile.rows, "column": column, "columns": tile.columns}
            ways = {"each": each, "pieces": pieces} | ({"experts": experts} if experts else {})
            return _named("packed", names=names, **rectangle, **_stored_fields(tile.stored), **ways)
        case Joined(names, dtype):
            return _named("joined", names=names, dtype=dtype)
        case RopeTable(cos, sin, mode, columns):
            stated: dict[str, Any] = {} if mode == "half" else {"mode": mode}
            stated |= {"columns": columns} if columns else {}
            return _named("rope_table", cos=cos, sin=sin, **stated)
        case Table(name):
            return _named("table", name=name)
        case Floats(values):
            return _named("floats", values=values)
        case Iota(count, step):
            return _named("iota", count=count, step=step)
        case Indices(name):
            return _named("indices", name=name)
        case LanePart(part, count, over_lanes):
            fields = _fields(count=count, over_lanes=over_lanes)
            return f"#chip.lane_part<source = {region_name(part)}, {fields}>"
        case LaneRecord(parts, lanes, eu_bytes):
            texts = ", ".join(map(region_name, parts))
            return f"#chip.lane_record<parts = [{texts}], {_fields(lanes=lanes, eu_bytes=eu_bytes)}>"
    raise NotImplementedError(type(source).__name__)


def _stored_fields(stored: ElementType | Scheme) -> dict[str, Any]:
    if isinstance(stored, ElementType):
        return {"bits": stored.bits, "group": 0, "symmetric": True, "scale": stored}
    fields = {"bits": stored.bits, "group": stored.group, "symmetric": not stored.zeros}
    return fields | {"scale": stored.scale} | ({"minimum": True} if stored.minimum else {})


def _named(kind: str, **values: Any) -> str:
    return f"#chip.{kind}<{_fields(**values)}>"


def _fields(**values: Any) -> str:
    return ", ".join(f"{name} = {parameter_text(value)}" for name, value in values.items())


def stored_bits(name: str) -> int | None:
    """How many bits a weight takes in a region of this name; None where it holds other numbers."""
    found = _TILE.match(name) or _ROWS.fullmatch(name)
    return int(found[1]) if found else None
