"""Norms, in f32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from compiler.ir.core import Value
from dialects import llm, tensor
from passes.llm_to_tensor.context import Lowering, lowers
from passes.tensor.build import Build
from passes.tensor.columns import column_ranges

Scaled = tuple[Value, Value]  # an array, and a number for each of its rows to multiply it by


@lowers(llm.RmsNormOp)
def rms_norm(low: Lowering, op: llm.RmsNormOp) -> Value:
    """x * rsqrt(mean(x**2) + eps) * (w + offset) in f32."""
    rows = Rows(low, op.weight, None, op.offset)
    return in_parts(low, op, lambda x: (x, root_of(low.build, x, op.eps)), rows)


@lowers(llm.LayerNormOp)
def layer_norm(low: Lowering, op: llm.LayerNormOp) -> Value:
    """c * rsqrt(mean(c**2) + eps) * w + bias in f32, where c is x - mean(x)."""

    def norm(x: Value) -> Scaled:
        centre = centred(low.build, x)
        return centre, root_of(low.build, centre, op.eps)

    return in_parts(low, op, norm, Rows(low, op.weight, op.bias))


@dataclass
class Rows:
    """The weight and the bias of a norm, loaded for its first part and cut for all, which come in order."""

    low: Lowering
    weight: Value | None
    bias: Value | None
    offset: float = 0.0  # more than the weight
    heads: int = 0  # that were taken so far
    loaded: list[Value | None] = field(default_factory=list)

    def beside(self, x: Value) -> list[Value | None]:
        """What to multiply the next part by, and what to add to it then."""
        if not self.loaded:
            self.loaded = [self._load(row, x) for row in (self.weight, self.bias)]
            gain = self.loaded[0]
            if gain is not None and self.offset:
                self.loaded[0] = self.low.build.scalar(tensor.AddOp, gain, self.offset)
        found = [row if row is None else self._heads_of(row, x) for row in self.loaded]
        self.heads += x.type.shape[1]
        return found

    def _load(self, row: Value | None, x: Value) -> Value | None:
        """[width], or [heads, width], on the axes of a part that they are for."""
        if row is None:
            return None
        shape = [1] * len(x.type.shape)
        shape[-1] = row.type.shape[-1]
        if len(row.type.shape) == 2:
            shape[self.low.head_axis(x)] = row.type.shape[0]
        return self.low.row(row, x, shape)

    def _heads_of(self, row: Value, x: Value) -> Value:
        """Axis 1 of a row is longer than 1 where parts are heads and each has a row of its own."""
        starts, sizes = [0] * len(row.type.shape), list(row.type.shape)
        if sizes[1] > 1:
            starts[1], sizes[1] = self.heads, x.type.shape[1]
        return self.low.build.slice(row, starts, sizes)


def in_parts(
    low: Lowering, op: llm.RmsNormOp | llm.LayerNormOp, norm: Callable[[Value], Scaled], rows: Rows
) -> Value:
    """The norm of the operand part by part, scaled and shifted some columns at a time."""
    build, parts = low.build, []
    for x in low.parts(op.x):
        beside, (centre, root) = rows.beside(x), norm(x)
        columns = []
        for part in column_ranges(build, x):
            gain, bias = (row and build.part(row, -1, part) for row in beside)
            y = build.binary(tensor.MulOp, build.part(centre, -1, part), root)
            y = build.binary(tensor.MulOp, y, gain) if gain else y
            y = build.binary(tensor.AddOp, y, bias) if bias else y
            columns.append(low.kept(y, op.y))
        parts.append(build.concat(columns, x.type.rank - 1))
    return low.joined(parts, op.x)


def centred(build: Build, x: Value) -> Value:
    return build.binary(tensor.SubOp, x, mean(build, x))


def root_of(build: Build, x: Value, eps: float) -> Value:
    """What scales x to unit mean square over its last axis."""
    square = build.binary(tensor.MulOp, x, x)
    return build.add(tensor.RsqrtOp(build.scalar(tensor.AddOp, mean(build, square), eps)))


def mean(build: Build, x: Value) -> Value:
    """Of the last axis, which stays with size 1."""
    last = len(x.type.shape) - 1
    return build.add(tensor.ReduceOp(x, kind="sum", axis=last, scale=1.0 / x.type.shape[last]))
