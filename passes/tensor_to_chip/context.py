"""The state of lowering one function: where each value lies, and where it should be produced.

Concatenation moves nothing if the parts are produced in their place. So before any instruction is emitted, a
walk from the end of the function gives each part, through renaming ops, its share of the whole's buffer.
"""

from __future__ import annotations

from typing import Any

from compiler.ir.core import Block, Op, Value
from compiler.ir.module import Builder
from compiler.ir.types import Attribute, ElementType, TensorType
from compiler.target.spec import ChipSpec
from dialects import chip, tensor
from dialects.nets import WHOLE
from dialects.tensor import axis_over_lanes
from passes.conversion import Rules
from passes.tensor_to_chip.cores import Cores
from passes.tensor_to_chip.emitter import Emitter
from passes.tensor_to_chip.placed import CannotView, Placed, default_strides

MOST_WORK = 2  # times `work_bytes` of a chip, what is unpacked at a time of a tile, which takes as much twice

lowers = Rules("the chip")


def unpacked_bytes(tile_bytes: int, spec: ChipSpec) -> int:
    """What is unpacked at a time of tiles of so many bytes at most, or 0 for a chip's `work_bytes`."""
    return min(tile_bytes or spec.work_bytes, MOST_WORK * spec.work_bytes)


class Lowering:
    """Lower the ops of one block, in order, in front of themselves."""

    def __init__(self, block: Block, spec: ChipSpec, emit: Emitter, part_bytes: int = 0):
        self.block = block
        self.spec = spec
        self.emit = emit
        self.part_bytes = unpacked_bytes(part_bytes, spec)
        self.placed: dict[Value, Placed] = {}
        self.wanted: dict[Value, Placed] = {}
        self.tables: dict[Attribute, Placed] = {}  # constants in all lanes, by where they come from
        self.ones: dict[ElementType, Placed] = {}  # a column of them over the lanes
        self.recorded: dict[Op, Placed] = {}  # loads that the record of constants serves
        self.cores = Cores(WHOLE)

    # ---- destinations ----

    def plan(self, ops: list[Op]) -> None:
        """Decide, from the last op to the first, which values are produced inside another's buffer."""
        for op in reversed(ops):
            if isinstance(op, tensor.ConcatOp):
                self._plan_concat(op)
            elif isinstance(op, tensor.PadOp):
                whole = self._whole(op)
                self._want(op.x, whole.slice([0] * len(op.x.type.shape), op.x.type.shape))
            elif isinstance(op, tensor.JoinOp):
                self._want(op.x, self._whole(op).slice(op.own_starts(), op.x.type.shape))
            elif isinstance(op, tensor.ReshapeOp | tensor.PermuteOp) and op.y in self.wanted:
                self._plan_renaming(op)
            elif isinstance(op, tensor.Accumulates) and op.accumulator and op.y in self.wanted:
                self._want(op.accumulator, self.wanted[op.y])

    def _plan_concat(self, op: tensor.ConcatOp) -> None:
        whole = self._whole(op)
        start = 0
        for part in op.operands:
            shape = part.type.shape
            starts = [start if axis == op.axis else 0 for axis in range(len(shape))]
            start += shape[op.axis]
            place = whole.slice(starts, shape)
            if not place.lane or not tensor.is_vector(op.results[0].type):
                self._want(part, place)  # others are copied into place: vectors begin on the first lane

    def _whole(self, op: Op) -> Placed:
        result = op.results[0]
        if result not in self.wanted:
            self.wanted[result] = self._fresh(result.type)
        return self.wanted[result]

    def _fresh(self, type_: TensorType) -> Placed:
        return self.scratch(type_) if type_.layout is None else self.emit.of_type(type_)

    def _want(self, value: Value, place: Placed) -> None:
        """In local memory the whole may be written over while others still read the part, but not in DDR."""
        alone = value.has_one_use() or tensor.in_ddr(value.type)
        if alone and isinstance(value.owner, tensor.MadeAnywhere) and value not in self.wanted:
            self.wanted[value] = place

    def _plan_renaming(self, op: tensor.ReshapeOp | tensor.PermuteOp) -> None:
        place = self.wanted[op.y]
        try:
            if isinstance(op, tensor.PermuteOp):
                inverse = [op.order.index(i) for i in range(len(op.order))]
                self._want(op.x, place.permute(inverse))
            else:
                self._want(op.x, place.reshape(op.x.type.shape, axis_over_lanes(op.x.type)))
        except CannotView:
            return

    # ---- DDR ----

    def scratch(self, type_: TensorType) -> Placed:
        return self.in_ddr(type_, space="scratch")

    def in_ddr(self, type_: TensorType, **where: Any) -> Placed:
        """A fresh row-major array in DDR."""
        op = self.emit.add(chip.GlobalOp(types=[chip.GlobalType(type_.bytes)], **where))
        return self.row_major(op.results[0], type_)

    def row_major(self, buffer: Value, type_: TensorType) -> Placed:
        strides, step = [0] * len(type_.shape), 1
        for axis in reversed(range(len(type_.shape))):
            strides[axis] = step
            step *= type_.shape[axis]
        return Placed(buffer, type_.element, type_.shape, tuple(strides), None, self.spec.lanes)

    # ---- values ----

    def get(self, value: Value) -> Placed:
        return self.placed[value]

    def set(self, value: Value, place: Placed) -> None:
        self.placed[value] = place

    def result(self, op: Op) -> Placed:
        """Where op's result is to be written: its place in another value's buffer, or a fresh one."""
        value = op.results[0]
        place = self.wanted[value] if value in self.wanted else self._fresh(value.type)
        self.placed[value] = place
        return place

    def put(self, op: Op, source: Placed) -> None:
        """`source` holds op's result; move it if the result is wanted elsewhere."""
        value = op.results[0]
        if value in self.wanted and not self.wanted[value].same_place(source):
            source = self.emit.cast(self.wanted[value], source)
        self.placed[value] = source

    def put_or_copy(self, op: Op, source: Placed) -> None:
        """As `put`, and in the strides of the result's type."""
        fresh = default_strides(op.results[0].type, self.spec)
        if op.results[0] not in self.wanted and all(
            size == 1 or ours == theirs
            for size, ours, theirs in zip(source.shape, source.strides, fresh, strict=True)
        ):
            self.placed[op.results[0]] = source
        else:
            self.emit.cast(self.result(op), source)

    def lower(self, op: Op) -> None:
        self.emit.builder = Builder.before(op)
        self.emit.loc = op.loc
        try:
            lowers.find(op)(self, op)
        except CannotView as reason:
            op.fail(f"would move data: {reason}")
