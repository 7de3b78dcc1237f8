"""Cut linears into tiles of weights that stream through local memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias, TypeGuard

from compiler.ir.core import Op, Value
from compiler.ir.location import Location
from compiler.ir.module import Module
from compiler.ir.rewrite import Rewriter, apply_patterns, rewrite
from compiler.ir.types import F32
from compiler.target.attribute import target_of
from compiler.target.spec import ChipSpec
from dialects import tensor
from dialects.contents import Content
from dialects.tensor import Lanes, Replicated
from passes.manager import Pass
from passes.options import at_least
from passes.ranges import Range, even_ranges
from passes.tensor.build import Build
from passes.tensor.expert_tiler import ExpertTiler, erase_dead
from passes.tensor.tiler import LookedUp, Tiler, looked_up
from passes.tensor_to_chip.placed import buffer_bytes

READS_BOTH_FORMS = (tensor.ArgmaxOp, tensor.TopkOp, tensor.CastOp, tensor.StoreOp)  # of a vector
BESIDE_SHARE = 1 / 3  # of a lane that sums may take twice over, without what is added and with it
SLOTS_SHARE = 0.8  # of a lane that a vector may take in whole slots; a longer one is packed part by part


# What is made of neighbouring outputs, those of each cut by themselves.
Outputs: TypeAlias = Callable[[Tiler, Sequence[Range]], list[Value]]


@dataclass(frozen=True)
class TileWeights(Pass):
    """tensor -> tensor. Leave only linears whose weight is a tile in local memory.

    A linear with an accumulator, or whose sums others add to, is cut along its inputs, so that each tile adds
    to the same sums; any other along its outputs. A gated linear that feeds only such a sum is cut together
    with it: its activations never exist whole.
    """

    name: ClassVar[str] = "tile-weights"
    takes = Content.TENSOR | Content.WHOLE
    ends = Content.WHOLE
    leaves = Content.TILED

    bytes: int = at_least(0, 0)  # the largest tile, as 16-bit weights, per lane; 0 for a chip's `work_bytes`

    def run(self, module: Module) -> None:
        tiling = Tiling(self.bytes, looked_up(module))
        apply_patterns(module, [tiling.tile_experts])
        apply_patterns(module, [tiling.tile_linear, tiling.tile_gated, tiling.tile_activated])


@dataclass(frozen=True)
class Tiling:
    """How the linears of a module are cut."""

    bytes: int
    looked_up: LookedUp

    @rewrite(tensor.LinearOp)
    def tile_linear(self, op: tensor.LinearOp, rw: Rewriter) -> None:
        """linear(x, W) -> concat of linear(x, tile), or a chain of accumulating linear(x slice, tile).

        What is added to all rows of outputs alike is added to each part where these are large, so that sums
        without it never exist whole.
        """
        if not tensor.in_ddr(op.w.type) or is_cut_with_source(op):
            return
        if not is_term(op):
            self.tile_outputs(op, rw)
            return
        tiler = Tiler(op, self.bytes, self.looked_up)
        total = op.accumulator
        for columns in tiler.column_ranges(op.w):
            total = tiler.linear(tiler.columns(op.x, columns), op.w, columns=columns, start=total)
        assert total is not None, "a weight without inputs"
        rw.replace(op, [total])

    def tile_outputs(self, op: tensor.LinearOp, rw: Rewriter) -> None:
        """linear(x, W) and what is done to each of its outputs alike -> concat of that of linear(x, tile)."""
        alike = done_alike(op, target_of(op))
        tiler = Tiler(alike[-1] if alike else op, self.bytes, self.looked_up)
        limit = tiler.row_limit(op.w) // (2 if alike else 1)
        ranges = [*even_ranges(op.w.type.shape[0], tiler.lanes, limit)]
        parts = [self.part(tiler, op, alike, rows) for rows in ranges]
        last = alike[-1] if alike else op
        apart = read_apart(last.results[0], ranges) if alike else []
        for columns in apart:
            found = zip(parts, ranges, strict=True)
            some = [part for part, rows in found if rows.within(columns_of(columns)).size]
            rw.replace(columns, [tiler.build.concat(some, len(op.x.type.shape) - 1)])
        if not apart:
            rw.replace(last, [tiler.build.concat(parts, len(op.x.type.shape) - 1)])

    def part(self, tiler: Tiler, op: tensor.LinearOp, alike: Sequence[Op], rows: Range) -> Value:
        """Some outputs."""
        y = tiler.linear(op.x, op.w, rows=rows)
        for each in alike:
            if isinstance(each, tensor.AddOp):
                assert each.rhs is not None
                y = tiler.build.binary(tensor.AddOp, y, tiler.columns(each.rhs, rows))
            else:
                y = tiler.build.cast(y, each.results[0].type.element, y.type.layout)
        return packed(tiler.build, y) if is_wide(op.y, tiler.build.spec) else y

    @rewrite(tensor.GatedLinearOp)
    def tile_gated(self, op: tensor.GatedLinearOp, rw: Rewriter) -> None:
        """gated_linear, and the linear it feeds, tile by tile."""
        tiler = Tiler(op, self.bytes, self.looked_up)
        limit = tiler.row_limit(op.gate) // 2
        biases = tiler.biases(op.x, op.biases)
        self.tile_source(op, op.gate, limit, lambda tiler, cuts: tiler.gated(op, cuts, biases), rw)

    @rewrite(tensor.ActLinearOp)
    def tile_activated(self, op: tensor.ActLinearOp, rw: Rewriter) -> None:
        """act_linear, and the linear it feeds, tile by tile: sums never exist whole."""
        limit = Tiler(op, self.bytes, self.looked_up).row_limit(op.w) // 2
        self.tile_source(op, op.w, limit, lambda tiler, cuts: tiler.activated_linear(op, cuts), rw)

    def tile_source(
        self,
        op: tensor.GatedLinearOp | tensor.ActLinearOp,
        w: Value,
        limit: int,
        outputs: Outputs,
        rw: Rewriter,
    ) -> None:
        """Some `outputs` after the other, of `limit` rows of lanes of w at most; multiplied at once where the
        op feeds a sum.
        """
        down = fed_sum(op)
        if down is None:
            tiler = Tiler(op, self.bytes, self.looked_up)
            ranges = even_ranges(w.type.shape[0], tiler.lanes, limit)
            parts = [part for rows in ranges for part in outputs(tiler, [rows])]
            rw.replace(op, [tiler.build.concat(parts, len(op.x.type.shape) - 1)])
            return
        total, tiler = down.accumulator, Tiler(down, self.bytes, self.looked_up)
        for columns, inputs in inputs_of(down, max(1, limit), outputs, tiler, op.loc):
            tiler.build.loc = down.loc
            total = tiler.linear(inputs, down.w, columns=columns, start=total)
        assert total is not None, "a weight without inputs"
        rw.replace(down, [total])

    @rewrite(tensor.ExpertsOp)
    def tile_experts(self, op: tensor.ExpertsOp, rw: Rewriter) -> None:
        """experts -> one expert after the other, each adding to the same sums; tile by tile."""
        tiler, total = ExpertTiler(op, self.bytes, self.looked_up), op.accumulator
        for number in range(op.shares.type.shape[-1]):
            total = tiler.expert(op, number, total)
        stacks = [value.owner for value in (op.gate, op.up, op.down, op.gate_bias, op.up_bias) if value]
        rw.replace(op, [total] if total else [])
        erase_dead([*stacks, *tiler.made])


def inputs_of(
    down: tensor.LinearOp, limit: int, outputs: Outputs, tiler: Tiler, loc: Location
) -> Iterable[tuple[Range, Value]]:
    """What each tile of `down` is multiplied by, and which of its inputs that are.

    Nothing is loaded while the last of them is multiplied by, so it has as few as may be. Those of one token
    take no room, and are all made before: then its tile is all that is waited for at the end.
    """
    *ranges, last = tiler.column_ranges(down.w, limit)

    def made() -> Iterator[tuple[Range, Value]]:
        for cuts in (*([each] for each in ranges), tiler.last_apart(down.w, last)):
            tiler.build.loc = loc
            yield from zip(cuts, outputs(tiler, cuts), strict=True)

    return [*made()] if tensor.is_column(down.x.type) else made()


def fed_sum(op: tensor.GatedLinearOp | tensor.ActLinearOp) -> tensor.LinearOp | None:
    """The linear that alone reads the op, and is cut along its inputs."""
    user = op.y.users[0] if op.y.has_one_use() else None
    return user if isinstance(user, tensor.LinearOp) and is_term(user) else None


def is_cut_with_source(op: tensor.LinearOp) -> bool:
    """Whether it will be cut together with what makes its inputs."""
    source = op.x.owner
    return isinstance(source, tensor.GatedLinearOp | tensor.ActLinearOp) and fed_sum(source) is op


def is_term(op: tensor.LinearOp) -> bool:
    """Whether its products are added to others: to an accumulator, or where parts of a net meet."""
    return op.accumulator is not None or is_sent(op.y)


def is_sent(x: Value) -> bool:
    """Whether other parts are given x, maybe in another layout; this one may add it up itself as well."""
    casts = [user.y for user in x.users if isinstance(user, tensor.CastOp)]
    return any(isinstance(user, tensor.SendOp) for user in x.users) or any(map(is_sent, casts))


def done_alike(op: tensor.LinearOp, spec: ChipSpec) -> list[tensor.AddOp | tensor.CastOp]:
    """What is done to all rows of a large y alike before anything else reads it: one row is added to them,
    they are rounded.
    """
    if buffer_bytes(op.y.type, spec) <= BESIDE_SHARE * spec.lane_bytes or tensor.is_column(op.y.type):
        return []
    found: list[tensor.AddOp | tensor.CastOp] = []
    y = op.y
    while y.has_one_use() and (adds_row(user := y.users[0], y) or rounds(user, y)):
        found.append(user)
        y = user.results[0]
    return found


def adds_row(op: Op, y: Value) -> TypeGuard[tensor.AddOp]:
    return (
        isinstance(op, tensor.AddOp)
        and op.lhs is y
        and op.rhs is not None
        and op.rhs.type.layout == Replicated()
    )


def rounds(op: Op, y: Value) -> TypeGuard[tensor.CastOp]:
    return isinstance(op, tensor.CastOp) and op.results[0].type.layout == y.type.layout


def read_apart(y: Value, parts: Sequence[Range]) -> list[tensor.SliceOp]:
    """The slices along its last axis that alone read y, if each is some of these parts."""
    slices = [user for user in y.users if isinstance(user, tensor.SliceOp)]
    bounds = {part.start for part in parts} | {part.stop for part in parts}

    def is_some(op: tensor.SliceOp) -> bool:
        columns = columns_of(op)
        return op.sizes[:-1] == y.type.shape[:-1] and {columns.start, columns.stop} <= bounds

    return slices if len(slices) == len(y.users) and all(map(is_some, slices)) else []


def columns_of(op: tensor.SliceOp) -> Range:
    """Along the last axis."""
    return Range(op.starts[-1], op.starts[-1] + op.sizes[-1])


def is_wide(y: Value, spec: ChipSpec) -> bool:
    """Whether y, the logits of a large vocabulary, has to be packed; what reads it takes both forms."""
    reads_both = all(isinstance(user, READS_BOTH_FORMS) for user in y.users)
    share = buffer_bytes(y.type, spec) / spec.lane_bytes
    return tensor.is_column(y.type) and reads_both and share > SLOTS_SHARE


def packed(build: Build, y: Value) -> Value:
    return build.cast(y, F32, Lanes(y.type.layout.axis, compact=True))
