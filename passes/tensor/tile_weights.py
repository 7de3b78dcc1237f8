"""Cut linears into tiles of weights that stream through local memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import lcm
from typing import ClassVar

from compiler.ir.core import Block, Op, Value
from compiler.ir.module import Builder, Module, walk
from compiler.ir.rewrite import Rewriter, apply_patterns, rewrite
from compiler.ir.types import F32, TensorType
from compiler.target.attribute import target_of
from compiler.weights.part import of_expert
from compiler.weights.scheme import scheme_of
from dialects import tensor
from dialects.contents import Content
from dialects.tensor import Lanes, PackedType, Replicated
from passes.manager import Pass
from passes.options import at_least
from passes.ranges import Range, even_ranges
from passes.tensor.build import Build
from passes.tensor.formulas import ACTIVATIONS, clamp
from passes.tensor_to_chip.placed import buffer_bytes

READS_BOTH_FORMS = (tensor.ArgmaxOp, tensor.TopkOp, tensor.CastOp, tensor.StoreOp)  # of a vector
SLOTS_SHARE = 0.8  # of a lane that a vector may take in whole slots; a longer one is packed part by part


@dataclass(frozen=True)
class TileWeights(Pass):
    """tensor -> tensor. Leave only linears whose weight is a tile in local memory.

    A linear with an accumulator is cut along its inputs, so that each tile adds to the same sums; any other
    along its outputs. A gated linear that feeds only such a sum is cut together with it: its activations
    never exist whole.
    """

    name: ClassVar[str] = "tile-weights"
    takes = Content.TENSOR | Content.WHOLE
    ends = Content.WHOLE
    leaves = Content.TILED

    bytes: int = at_least(0, 0)  # the largest tile, as 16-bit weights, per lane; 0 for a chip's `work_bytes`

    def run(self, module: Module) -> None:
        apply_patterns(module, [self.tile_experts])
        apply_patterns(module, [self.tile_linear, self.tile_gated])

    @rewrite(tensor.LinearOp)
    def tile_linear(self, op: tensor.LinearOp, rw: Rewriter) -> None:
        """linear(x, W) -> concat of linear(x, tile), or a chain of accumulating linear(x slice, tile)."""
        if not tensor.in_ddr(op.w.type) or feeds_from_gate(op):
            return
        tiler = Tiler(self, op)
        if op.accumulator is None:
            finish = tiler.packed if tiler.is_wide(op.y) else tiler.as_it_is
            parts = [finish(tiler.linear(op.x, op.w, rows=r)) for r in tiler.row_ranges(op.w)]
            rw.replace(op, [tiler.build.concat(parts, len(op.x.type.shape) - 1)])
            return
        total = op.accumulator
        for columns in tiler.column_ranges(op.w):
            total = tiler.linear(tiler.columns(op.x, columns), op.w, columns=columns, start=total)
        rw.replace(op, [total])

    @rewrite(tensor.GatedLinearOp)
    def tile_gated(self, op: tensor.GatedLinearOp, rw: Rewriter) -> None:
        """gated_linear, and the linear it feeds, tile by tile."""
        down = op.y.users[0] if op.y.has_one_use() else None
        tiler = Tiler(self, op)
        if not isinstance(down, tensor.LinearOp) or down.accumulator is None:
            ranges = even_ranges(op.gate.type.shape[0], tiler.lanes, tiler.row_limit(op.gate) // 2)
            biases = tiler.biases(op.x, op.biases)
            parts = [tiler.gated(op, rows, biases) for rows in ranges]
            rw.replace(op, [tiler.build.concat(parts, len(op.x.type.shape) - 1)])
            return
        total, tiler = down.accumulator, Tiler(self, down)
        limit, biases = max(1, tiler.row_limit(op.gate) // 2), tiler.biases(op.x, op.biases)
        for part in tiler.column_ranges(down.w, limit):
            tiler.build.loc = op.loc
            gated = tiler.gated(op, part, biases)
            tiler.build.loc = down.loc
            total = tiler.linear(gated, down.w, columns=part, start=total)
        rw.replace(down, [total])


    @rewrite(tensor.ExpertsOp)
    def tile_experts(self, op: tensor.ExpertsOp, rw: Rewriter) -> None:
        """experts -> one expert after the other, each adding to the same sums; tile by tile."""
        tiler = Tiler(self, op)
        total = op.accumulator
        tiler.bias_rows = tiler.chosen_biases(op)
        for number in range(op.shares.type.shape[-1]):
            total = tiler.expert(op, number, total)
        stacks = [value.owner for value in (op.gate, op.up, op.down, op.gate_bias, op.up_bias) if value]
        rw.replace(op, [total] if total else [])
        erase_dead([*stacks, *tiler.made])


def feeds_from_gate(op: tensor.LinearOp) -> bool:
    """Whether `tile_gated` will cut this op, from the gated linear it alone reads."""
    gate = op.x.defining(tensor.GatedLinearOp)
    return gate is not None and gate.y.has_one_use() and op.accumulator is not None


def is_looked_up(w: Value) -> bool:
    """Whether a gather of the same module reads rows of this parameter."""
    weight = w.defining(tensor.WeightOp)
    assert weight is not None
    module = weight.parent_op.parent_op if weight.parent_op is not None else None
    gathers = [op for op in walk(module) if isinstance(op, tensor.GatherOp)] if module is not None else []
    tables = [op.table.defining(tensor.WeightOp) for op in gathers]
    return any(table is not None and table.sources == weight.sources for table in tables)


def is_tabled(op: tensor.ExpertsOp, lanes: int) -> bool:
    """Whether tiles of all experts are cut alike, in whole rows of lanes; those that are chosen must be."""
    _, inner, outer = op.up.type.shape
    return op.ids is not None or not (inner % lanes or outer % lanes)


def erase_dead(ops: Sequence[Op | Block]) -> None:
    """Weights that nothing reads any more, as tiles name their sources themselves."""
    for op in ops:
        if isinstance(op, Op) and op.is_dead():
            op.erase()


class Tiler:
    """Makes the tiles of one linear, or of experts, in front of it."""

    def __init__(self, options: TileWeights, op: tensor.LinearOp | tensor.GatedLinearOp | tensor.ExpertsOp):
        spec = target_of(op)
        self.bytes = options.bytes or spec.work_bytes
        self.lanes = spec.lanes
        self.build = Build(Builder.before(op), spec)
        self.build.loc = op.loc
        self.made: list[Op] = []  # weights of single experts
        self.bias_rows: list[Value] = []  # of the experts that are chosen

    def row_limit(self, w: Value) -> int:
        """How many rows of lanes of W fit a tile."""
        width: int = w.type.shape[-1]
        return max(1, self.bytes // (2 * width))

    def row_ranges(self, w: Value) -> Iterator[Range]:
        return even_ranges(w.type.shape[0], self.lanes, self.row_limit(w))

    def column_ranges(self, w: Value, limit: int = 1 << 16) -> Iterator[Range]:
        """Ranges of inputs that split no group; `limit` caps them in multiples of the number of lanes."""
        *_, rows, columns = w.type.shape
        scheme = scheme_of(w.type)
        unit = lcm(self.lanes, scheme.group) if scheme is not None else self.lanes
        if scheme is not None and scheme.group > columns // 2:
            unit = columns
        slot_bytes = 2 * -(-rows // self.lanes)
        most = min(self.bytes // (slot_bytes * unit), limit * self.lanes // unit)
        return even_ranges(columns, unit, most)

    def is_wide(self, y: Value) -> bool:
        """Whether y, the logits of a large vocabulary, has to be packed; what reads it takes both forms."""
        share = buffer_bytes(y.type, self.build.spec) / self.build.spec.lane_bytes
        reads_both = all(isinstance(user, READS_BOTH_FORMS) for user in y.users)
        return tensor.is_column(y.type) and reads_both and share > SLOTS_SHARE

    def as_it_is(self, y: Value) -> Value:
        return y

    def packed(self, y: Value) -> Value:
        return self.build.cast(y, F32, Lanes(y.type.layout.axis, compact=True))

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

    def gated(self, op: tensor.GatedLinearOp, rows: Range, biases: list[Value]) -> Value:
        """act(x @ gate.T) * (x @ up.T) for some outputs, rounded to 16 bit as a matrix operand.

        The rows of both weights are one tile, and their products one array.
        """
        whole = Range(0, op.gate.type.shape[1])
        if rows.size % self.lanes:  # the second half would not start on lane 0
            products = [self.linear(op.x, w, rows=rows) for w in (op.gate, op.up)]
            return self.activated(op, *self.biased(products, biases, rows))
        both = self.product(op.x, self.tile([op.gate, op.up], rows, whole), None)
        products = [self.columns(both, Range(i * rows.size, (i + 1) * rows.size)) for i in (0, 1)]
        return self.activated(op, *self.biased(products, biases, rows))

    def activated(self, op: tensor.GatedLinearOp, gate: Value, up: Value) -> Value:
        return self.build.cast(self.gate(op.act, gate, up), op.x.type.element, op.x.type.layout)

    def gate(self, act: str, gate: Value, up: Value) -> Value:
        """act(gate) * up in f32."""
        if act != "silu":
            return self.build.binary(tensor.MulOp, ACTIVATIONS[act](self.build, gate), up)
        type_ = gate.type
        if tensor.is_column(type_):
            type_ = replace(type_, layout=Lanes(type_.layout.axis, compact=True))
        return self.build.add(tensor.GateOp(gate, up, types=[type_]))

    def expert(self, op: tensor.ExpertsOp, number: int, total: Value | None) -> Value:
        """total + down @ (inner * share) of one expert, or of one that is chosen."""
        stacks = [stack for stack in (op.gate, op.up) if stack]
        biases = self.expert_biases(op, number)
        *lead, _ = op.shares.type.shape
        share = self.build.slice(op.shares, (*(0 for _ in lead), number), (*lead, 1))
        every = Range(0, op.down.type.shape[1])
        for part in self.column_ranges(op.down, max(1, self.row_limit(op.up) // len(stacks))):
            inner = self.inner(op, self.biased(self.products(op, stacks, part, number), biases, part))
            inner = self.build.binary(tensor.MulOp, inner, share)
            half = self.build.cast(inner, op.x.type.element, op.x.type.layout)
            total = self.product(half, self.expert_tile(op, [op.down], every, part, number), total)
        assert total is not None
        return total

    def one_of(self, stack: Value, expert: int) -> Value:
        """An expert's matrix [n, k], of a parameter [experts, n, k]; or its row of one [experts, n]."""
        weight = stack.defining(tensor.WeightOp)
        assert weight is not None
        sources = [of_expert(name, expert) for name in weight.sources]
        type_ = replace(stack.type, shape=stack.type.shape[1:])
        one = tensor.WeightOp(sources=sources, types=[type_])
        self.made.append(one)
        return self.build.add(one)

    def expert_biases(self, op: tensor.ExpertsOp, expert: int) -> list[Value]:
        """Those of its first products, as rows."""
        if op.ids is not None:
            width = op.up.type.shape[1]
            chosen = [self.build.slice(rows, (0, expert, 0), (1, 1, width)) for rows in self.bias_rows]
            return self.biases(op.x, [self.build.reshape(row, (1, width), None) for row in chosen])
        found = [self.one_of(stack, expert) for stack in (op.gate_bias, op.up_bias) if stack]
        lead = [1 for _ in op.x.type.shape[:-1]]
        rows = [self.build.reshape(bias, (*lead, *bias.type.shape), None) for bias in found]
        return self.biases(op.x, rows)

    def chosen_biases(self, op: tensor.ExpertsOp) -> list[Value]:
        """Rows [1, k, n] in DDR of the experts that are chosen."""
        if op.ids is None:
            return []
        found = []
        for stack in (op.gate_bias, op.up_bias):
            if stack is not None:
                type_ = TensorType((*op.ids.type.shape, stack.type.shape[1]), F32)
                found.append(self.build.add(tensor.GatherOp(stack, op.ids, types=[type_])))
        return found

    def products(self, op: tensor.ExpertsOp, stacks: list[Value], rows: Range, number: int) -> list[Value]:
        """x by some rows of each weight, which are one tile where they are whole rows of lanes."""
        whole, count = Range(0, op.up.type.shape[2]), rows.size
        if len(stacks) > 1 and count % self.lanes:  # the second would not start on lane 0
            tiles = [self.expert_tile(op, [stack], rows, whole, number) for stack in stacks]
            return [self.product(op.x, tile, None) for tile in tiles]
        joined = self.product(op.x, self.expert_tile(op, stacks, rows, whole, number), None)
        return [self.columns(joined, Range(i * count, (i + 1) * count)) for i in range(len(stacks))]

    def expert_tile(
        self, op: tensor.ExpertsOp, stacks: list[Value], rows: Range, columns: Range, number: int
    ) -> Value:
        """These rows of each of an expert's weights, of a table of all experts' tiles where it has one."""
        stored = stacks[0].type
        if not is_tabled(op, self.lanes):
            return self.tile([self.one_of(stack, number) for stack in stacks], rows, columns)
        weights = [stack.defining(tensor.WeightOp) for stack in stacks]
        names = [of_expert(name, None) for weight in weights if weight is not None for name in weight.sources]
        type_ = PackedType(rows.size * len(stacks), columns.size, stored.element, scheme_of(stored))
        packed = tensor.PackedWeightOp(
            sources=names,
            row=rows.start,
            column=columns.start,
            each=len(stacks) > 1,
            experts=stored.shape[0],
            types=[type_],
        )
        local = tensor.LoadExpertOp(self.build.add(packed), op.ids, number=number)
        return self.build.add(tensor.DequantizeOp(self.build.add(local)))

    def inner(self, op: tensor.ExpertsOp, products: list[Value]) -> Value:
        """What stands between the first products of an expert and the last."""
        build, up = self.build, products[-1]
        if op.gate is None:
            return ACTIVATIONS[op.act](build, up)
        gate = products[0]
        if op.limit is not None:
            gate, up = clamp(build, gate, None, op.limit), clamp(build, up, -op.limit, op.limit)
        if op.offset:
            up = build.scalar(tensor.AddOp, up, op.offset)
        return self.gate(op.act, gate, up)

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
        if scheme_of(ws[0].type) is None and any(map(is_looked_up, ws)):
            return self.build.concat([self.rectangle(w, rows, columns) for w in ws], 0)
        return self.packed_tile(ws, rows, columns)

    def rectangle(self, w: Value, rows: Range, columns: Range) -> Value:
        part = self.build.slice(w, (rows.start, columns.start), (rows.size, columns.size))
        return self.build.load(part, Lanes(0))

    def packed_tile(self, ws: Sequence[Value], rows: Range, columns: Range) -> Value:
        weights = [w.defining(tensor.WeightOp) for w in ws]
        sources = [name for weight in weights if weight is not None for name in weight.sources]
        stored = ws[0].type
        type_ = PackedType(rows.size * len(ws), columns.size, stored.element, scheme_of(stored))
        each = len(ws) > 1
        op = tensor.PackedWeightOp(
            sources=sources, row=rows.start, column=columns.start, each=each, types=[type_]
        )
        local = self.build.add(tensor.LoadOp(self.build.add(op), types=[replace(type_, local=True)]))
        return self.build.add(tensor.DequantizeOp(local))
