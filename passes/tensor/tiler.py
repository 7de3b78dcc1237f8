"""The tiles of one linear: which of its rows and columns, and the products with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import lcm
from typing import TypeAlias

from compiler.ir.core import Value
from compiler.ir.module import Builder, Module, walk
from compiler.ir.types import BF16, F32, ElementType, TensorType
from compiler.target.attribute import target_of
from compiler.weights.scheme import scheme_of
from dialects import tensor
from dialects.activations import SWISHES
from dialects.tensor import Lanes, PackedType, Replicated
from dialects.weights import view_of_name
from passes.ranges import Range, even_ranges, falling_ranges
from passes.tensor.build import Build
from passes.tensor.columns import column_ranges
from passes.tensor.formulas import ACTIVATIONS

LookedUp: TypeAlias = Mapping[str, TensorType]  # by the name of a parameter


class Tiler:
    """Makes the tiles of one linear in front of it."""

    def __init__(self, op: tensor.TensorOp, most: int, looked_up: LookedUp):
        """`most` is the bytes of a tile per lane, as 16-bit weights; 0 for `work_bytes` of the chip.

        `looked_up` has the sources of weights as the function of that name finds them.
        """
        spec = target_of(op)
        self.looked_up = looked_up
        self.bytes = most or spec.work_bytes
        self.lanes = spec.lanes
        self.build = Build(Builder.before(op), spec)
        self.build.loc = op.loc

    def row_limit(self, w: Value) -> int:
        """How many rows of lanes of W fit a tile."""
        width: int = w.type.shape[-1]
        return max(1, self.bytes // (2 * width))

    def row_ranges(self, w: Value) -> Iterator[Range]:
        return even_ranges(w.type.shape[0], self.lanes, self.row_limit(w))

    def column_ranges(self, w: Value, limit: int = 1 << 16) -> Iterator[Range]:
        """Ranges of inputs that split no group; `limit` caps them in multiples of the number of lanes.

        The last are the smaller ones: what is loaded last is multiplied by while nothing else is loaded.
        """
        *_, rows, columns = w.type.shape
        unit, slot_bytes = self.column_unit(w), 2 * -(-rows // self.lanes)
        most = min(self.bytes // (slot_bytes * unit), limit * self.lanes // unit)
        return falling_ranges(columns, unit, most)

    def column_unit(self, w: Value) -> int:
        """As few inputs as are whole rows of lanes and groups."""
        scheme, columns = scheme_of(w.type), int(w.type.shape[-1])
        if scheme is None:
            return self.lanes
        return columns if scheme.group > columns // 2 else lcm(self.lanes, scheme.group)

    def last_apart(self, w: Value, part: Range) -> list[Range]:
        """Some inputs without the last of them, and as few of these as may be."""
        unit = self.column_unit(w)
        last = part.start + (part.size - 1) // unit * unit
        return [each for each in (Range(part.start, last), Range(last, part.stop)) if each.size]

    def columns(self, x: Value, part: Range) -> Value:
        shape = x.type.shape
        return self.build.slice(x, (*(0 for _ in shape[:-1]), part.start), (*shape[:-1], part.size))

    def biases(self, x: Value, rows: Sequence[Value]) -> list[Value]:
        """The rows to add to products with x: whole and over the lanes for one token, else in DDR."""
        if not tensor.is_column(x.type):
            return list(rows)
        layout = Lanes(len(x.type.shape) - 1, compact=True)
        return [self.build.load(bias, layout) for bias in rows]

    def biased(self, products: list[Value], biases: list[Value], rows: Range) -> list[Value]:
        if not biases:
            return products
        parts = [self.columns(bias, rows) for bias in biases]
        local = [self.build.load(part, Replicated()) if tensor.in_ddr(part.type) else part for part in parts]
        pairs = zip(products, local, strict=True)
        return [self.build.binary(tensor.AddOp, product, bias) for product, bias in pairs]

    def gated(self, op: tensor.GatedLinearOp, cuts: Sequence[Range], biases: list[Value]) -> list[Value]:
        """act(x @ gate.T) * (x @ up.T) for neighbouring outputs, those of each cut rounded to 16 bit as a
        matrix operand.
        """
        rows = Range(cuts[0].start, cuts[-1].stop)
        gate, up = self.biased(self.gate_and_up(op, rows), biases, rows)
        return self.activated(op, gate, up, [cut.moved(-rows.start) for cut in cuts])

    def gate_and_up(self, op: tensor.GatedLinearOp, rows: Range) -> list[Value]:
        """Some products by both weights, whose rows are one tile, and their products one array."""
        whole = Range(0, op.gate.type.shape[1])
        if rows.size % self.lanes:  # the second half would not start on lane 0
            return [self.linear(op.x, w, rows=rows) for w in (op.gate, op.up)]
        both = self.product(op.x, self.tile([op.gate, op.up], rows, whole), None)
        return [self.columns(both, Range(i * rows.size, (i + 1) * rows.size)) for i in (0, 1)]

    def activated_linear(self, op: tensor.ActLinearOp, cuts: Sequence[Range]) -> list[Value]:
        """act(x @ w.T + bias) for neighbouring outputs, as `gated` gives them."""
        rows, like = Range(cuts[0].start, cuts[-1].stop), op.x.type
        biases = self.biases(op.x, [] if op.bias is None else [op.bias])
        (product,) = self.biased([self.linear(op.x, op.w, rows=rows)], biases, rows)
        values = self.act(op.act, product, like.element)
        pieces = [self.columns(values, cut.moved(-rows.start)) for cut in cuts]
        return [self.build.cast(piece, like.element, like.layout) for piece in pieces]

    def act(self, act: str, x: Value, to: ElementType) -> Value:
        """act(x) in f32, which will be rounded to 16 bit."""
        if to != BF16 or act not in SWISHES:
            return ACTIVATIONS[act](self.build, x)
        slope, cubic = SWISHES[act]
        return self.build.unary(partial(tensor.Bf16SwishOp, slope=slope, cubic=cubic), x)

    def activated(
        self, op: tensor.GatedLinearOp, gate: Value, up: Value, cuts: Sequence[Range]
    ) -> list[Value]:
        """Some columns at a time, since what lies between takes several times the room of both."""
        like, made = op.x.type, [list[Value]() for _ in cuts]
        for part in column_ranges(self.build, gate):
            values = self.gate(op.act, self.columns(gate, part), self.columns(up, part), like.element)
            for cut, pieces in zip(cuts, made, strict=True):
                if (some := part.within(cut)).size:
                    piece = self.columns(values, some.moved(-part.start))
                    pieces.append(self.build.cast(piece, like.element, like.layout))
        return [self.build.concat(pieces, len(like.shape) - 1) for pieces in made]

    def gate(self, act: str, gate: Value, up: Value, to: ElementType) -> Value:
        """act(gate) * up in f32, which will be rounded to 16 bit."""
        if act != "silu":
            return self.build.binary(tensor.MulOp, self.act(act, gate, to), up)
        type_ = gate.type
        if tensor.is_column(type_):
            type_ = replace(type_, layout=Lanes(type_.layout.axis, compact=True))
        kind = tensor.Bf16GateOp if to == BF16 else tensor.GateOp
        return self.build.add(kind(gate, up, types=[type_]))

    def linear(
        self,
        x: Value,
        w: Value,
        rows: Range | None = None,
        columns: Range | None = None,
        start: Value | None = None,
    ) -> Value:
        rows = rows or Range(0, w.type.shape[0])
        columns = columns or Range(0, w.type.shape[1])
        return self.product(x, self.tile([w], rows, columns), start)

    def product(self, x: Value, tile: Value, start: Value | None) -> Value:
        type_ = TensorType((*x.type.shape[:-1], tile.type.shape[0]), F32, x.type.layout)
        return self.build.add(tensor.LinearOp(x, tile, start, types=[type_]))

    def tile(self, ws: Sequence[Value], rows: Range, columns: Range) -> Value:
        """These rows of each weight, one after the other, as 16-bit weights in local memory.

        Weights are packed in the order of the DMA, unless an embedding reads the same rows from DDR.
        """
        if scheme_of(ws[0].type) is None and any(map(self.is_looked_up, ws)):
            return self.build.concat([self.rectangle(w, rows, columns) for w in ws], 0)
        return self.packed_tile(ws, rows, columns)

    def rectangle(self, w: Value, rows: Range, columns: Range) -> Value:
        """Of the table that rows are gathered from, of which w may be some."""
        (source,) = sources_of(w)
        view = view_of_name(source)
        if view.cut:
            name, rows = replace(view, cut=()).name, rows.moved(view.cut[0].start)
            w = self.build.add(tensor.WeightOp(sources=[name], types=[self.looked_up[name]]))
        part = self.build.slice(w, (rows.start, columns.start), (rows.size, columns.size))
        return self.build.load(part, Lanes(0))

    def is_looked_up(self, w: Value) -> bool:
        """Whether rows of this parameter are gathered as well, and w is it, or neighbouring rows of it."""
        source, *others = sources_of(w)
        view = view_of_name(source)
        table = self.looked_up.get(replace(view, cut=()).name)
        neighbours = not view.cut or (len(view.cut) == 1 and view.cut[0].step == 1)
        return not others and table is not None and table.element == w.type.element and neighbours

    def packed_tile(self, ws: Sequence[Value], rows: Range, columns: Range) -> Value:
        sources = [name for w in ws for name in sources_of(w)]
        stored = ws[0].type
        type_ = PackedType(rows.size * len(ws), columns.size, stored.element, scheme_of(stored))
        each = len(ws) > 1
        op = tensor.PackedWeightOp(
            sources=sources, row=rows.start, column=columns.start, each=each, types=[type_]
        )
        local = self.build.add(tensor.LoadOp(self.build.add(op), types=[replace(type_, local=True)]))
        return self.build.add(tensor.DequantizeOp(local))


def sources_of(w: Value) -> Sequence[str]:
    weight = w.defining(tensor.WeightOp)
    assert weight is not None
    return weight.sources


def looked_up(module: Module) -> LookedUp:
    """The parameters that some function of a module gathers rows of, by name, as they lie in DDR."""
    tables = [op.table.defining(tensor.WeightOp) for op in walk(module) if isinstance(op, tensor.GatherOp)]
    return {table.sources[0]: table.result_.type for table in tables if table and len(table.sources) == 1}
