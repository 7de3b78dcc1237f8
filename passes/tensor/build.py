"""Short spellings for making tensor ops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from compiler.ir.core import Op, Value
from compiler.ir.location import UNKNOWN, Location
from compiler.ir.module import Builder
from compiler.ir.types import Attribute, ElementType, TensorType
from compiler.target.spec import ChipSpec
from dialects import tensor
from dialects.tensor import Lanes
from passes.ranges import Range


class Build:
    """Makes ops for a chip at one place, all with the location of the op being lowered."""

    def __init__(self, builder: Builder, spec: ChipSpec):
        self.builder = builder
        self.spec = spec
        self.loc: Location = UNKNOWN

    def add(self, op: Op) -> Value:
        return self.add_all(op)[0]

    def add_all(self, op: Op) -> tuple[Value, ...]:
        """As `add`, of an op with several results."""
        op.loc = self.loc
        return tuple(self.builder.add(op).results)

    def load(self, source: Value, layout: Attribute) -> Value:
        type_ = source.type
        return self.add(tensor.LoadOp(source, types=[TensorType(type_.shape, type_.element, layout)]))

    def cast(self, x: Value, element: ElementType, layout: Attribute | None) -> Value:
        if x.type.element == element and x.type.layout == layout:
            return x
        return self.add(tensor.CastOp(x, types=[TensorType(x.type.shape, element, layout)]))

    def copy(self, x: Value) -> Value:
        """x in the strides of its type, whatever those of a view of it are."""
        return self.add(tensor.CastOp(x, types=[x.type]))

    def binary(self, kind: type[tensor.Binary], lhs: Value, rhs: Value, compact: bool = True) -> Value:
        """Vectors over the lanes are packed unless `compact` is False; see `tensor.Lanes`."""
        op = kind(lhs, rhs)
        op.results[0].type = self._packed(op.results[0].type, compact)
        return self.add(op)

    def scalar(self, kind: type[tensor.Binary], x: Value, value: float, compact: bool = True) -> Value:
        op = kind(x, scalar=value)
        op.results[0].type = self._packed(x.type, compact)
        return self.add(op)

    def unary(self, kind: Callable[[Value], tensor.Unary], x: Value) -> Value:
        """Vectors over the lanes are packed, as those of `binary`."""
        op = kind(x)
        op.results[0].type = self._packed(x.type, True)
        return self.add(op)

    def _packed(self, type_: TensorType, compact: bool) -> TensorType:
        if not tensor.is_column(type_):
            return type_
        assert isinstance(type_.layout, Lanes)
        return replace(type_, layout=Lanes(type_.layout.axis, compact))

    def slice(self, x: Value, starts: Sequence[int], sizes: Sequence[int]) -> Value:
        if tuple(sizes) == x.type.shape:
            return x
        return self.add(tensor.SliceOp(x, starts=tuple(starts), sizes=tuple(sizes)))

    def part(self, x: Value, axis: int, part: Range) -> Value:
        """Some items along one axis."""
        starts, sizes = [0] * x.type.rank, list(x.type.shape)
        starts[axis], sizes[axis] = part.start, part.size
        return self.slice(x, starts, sizes)

    def reshape(self, x: Value, shape: Sequence[int], layout: Attribute | None) -> Value:
        if tuple(shape) == x.type.shape:
            return x
        return self.add(tensor.ReshapeOp(x, types=[TensorType(tuple(shape), x.type.element, layout)]))

    def broadcast(self, x: Value, shape: Sequence[int], layout: Attribute) -> Value:
        return self.add(tensor.BroadcastOp(x, types=[TensorType(tuple(shape), x.type.element, layout)]))

    def relayout(self, x: Value, shape: Sequence[int], layout: Attribute) -> Value:
        return self.add(tensor.RelayoutOp(x, types=[TensorType(tuple(shape), x.type.element, layout)]))

    def permute(self, x: Value, order: Sequence[int]) -> Value:
        return self.add(tensor.PermuteOp(x, order=tuple(order)))

    def concat(self, parts: Sequence[Value], axis: int) -> Value:
        return parts[0] if len(parts) == 1 else self.add(tensor.ConcatOp(*parts, axis=axis))

    def pad(self, x: Value, columns: int, fill: float) -> Value:
        """x with its last axis filled up to so many columns."""
        if x.type.shape[-1] == columns:
            return x
        type_ = replace(x.type, shape=(*x.type.shape[:-1], columns))
        return self.add(tensor.PadOp(x, value=fill, types=[type_]))
