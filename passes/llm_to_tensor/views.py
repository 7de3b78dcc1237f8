"""Values that are nothing but moved: they are not computed but read where what they came from lies in DDR."""

from __future__ import annotations

from typing import Any

from compiler.ir.core import Op, Value
from compiler.ir.types import F32
from dialects import llm
from passes.llm_to_tensor.context import Lowering
from passes.llm_to_tensor.moved import Joined, Moved, Spread
from passes.llm_to_tensor.sections import MOVEMENTS, Places, is_rounded
from passes.ranges import Range


class Views:
    """Of the values of one function, each made when it is first asked for."""

    def __init__(self, lowering: Lowering, places: Places):
        self.lowering = lowering
        self.places = places
        self.made: dict[Value, Moved | Joined] = {}

    def readable(self, value: Value, axis: int) -> Moved | Joined | Spread:
        """Put into its own order, by the lanes or in DDR, where it would be read in short pieces; tokens lie
        on this axis.
        """
        view = self.of(value)
        if not isinstance(view, Moved) or not view.is_scattered:
            return view
        element = value.type.element if is_rounded(value) else view.element
        if view.lane_axes(axis)[1]:
            return Spread(view, element)
        self.made[value] = view = view.collected(axis, element)
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
        is_moved = self.places.is_moved(value) or (llm.is_weight(value) and isinstance(op, MOVEMENTS))
        if not is_moved:
            return Moved.of(self.lowering.build, self._in_order(value))
        if isinstance(op, llm.ConcatOp):
            return Joined(tuple(self._part(x, op.axis) for x in op.parts))
        if isinstance(op, llm.SliceOp):
            return self.of(op.x).slice(op.axis, Range(op.start, op.stop))
        x = self.moved(op.x)
        if isinstance(op, llm.PermuteOp):
            return x.permute(op.order)
        return x.reshape(op.shape) if isinstance(op, llm.ReshapeOp) else x

    def _part(self, value: Value, axis: int) -> Moved | Spread:
        found = self.readable(value, axis) if self.places.is_moved(value) else self.of(value)
        return self.moved(value) if isinstance(found, Joined) else found

    def _in_order(self, value: Value) -> Value:
        """All items of what is not moved, in DDR; weights in f32 that are joined to what is computed."""
        lowering = self.lowering
        if value.owner is lowering.function.block:
            return value
        if value in lowering.givers:
            return lowering.whole(value)
        return lowering.weight(value, value.type.element if all(map(is_known, value.users)) else F32)


def is_known(op: Op) -> bool:
    return all(map(llm.is_weight, op.results))
