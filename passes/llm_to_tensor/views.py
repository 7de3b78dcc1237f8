"""Values that are nothing but moved: they are not computed but read where what they came from lies in DDR."""

from __future__ import annotations

from typing import Any

from compiler.ir.core import Value
from compiler.ir.types import F32
from dialects import llm
from passes.llm_to_tensor.context import Lowering
from passes.llm_to_tensor.moved import Joined, Moved
from passes.llm_to_tensor.sections import Places, is_rounded
from passes.ranges import Range


class Views:
    """Of the values of one function, each made when it is first asked for."""

    def __init__(self, lowering: Lowering, places: Places):
        self.lowering = lowering
        self.places = places
        self.made: dict[Value, Moved | Joined] = {}

    def readable(self, value: Value, axis: int) -> Moved | Joined:
        """Copied into its own order where it would be read in short pieces; tokens lie on this axis."""
        view = self.of(value)
        if isinstance(view, Moved) and view.is_scattered:
            view = view.collected(axis, value.type.element if is_rounded(value) else view.element)
            self.made[value] = view
        return view

    def of(self, value: Value) -> Moved | Joined:
        if value not in self.made:
            self.made[value] = self._view(value)
        return self.made[value]

    def moved(self, value: Value) -> Moved:
        """Of what was not joined."""
        found = self.of(value)
        if isinstance(found, Joined):
            op = self.lowering.op
            op.fail("moves tokens that were joined, which has no lowering to the tensor dialect")
        return found

    def _view(self, value: Value) -> Moved | Joined:
        op: Any = value.owner
        if not self.places.is_moved(value):
            return Moved.of(self.lowering.build, self._in_order(value))
        if isinstance(op, llm.ConcatOp):
            return Joined(tuple(self._part(x, op.axis) for x in op.parts))
        if isinstance(op, llm.SliceOp):
            return self.of(op.x).slice(op.axis, Range(op.start, op.stop))
        x = self.moved(op.x)
        if isinstance(op, llm.PermuteOp):
            return x.permute(op.order)
        return x.reshape(op.shape) if isinstance(op, llm.ReshapeOp) else x

    def _part(self, value: Value, axis: int) -> Moved:
        found = self.readable(value, axis) if self.places.is_moved(value) else self.of(value)
        return found if isinstance(found, Moved) else self.moved(value)

    def _in_order(self, value: Value) -> Value:
        """All items of what is not moved, in DDR; those of weights in f32, as what they are joined to."""
        lowering = self.lowering
        if value.owner is lowering.function.block:
            return value
        return lowering.whole(value) if value in lowering.givers else lowering.weight(value, F32)
