"""Cut linears into tiles of weights that stream through local memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compiler.ir.core import Value
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
        if not tensor.in_ddr(op.w.type) or feeds_from_gate(op):
            return
        if not is_term(op):
            bias = added_row(op, target_of(op))
            tiler = Tiler(bias or op, self.bytes, self.looked_up)
            parts = [self.part(tiler, op, bias, rows) for rows in tiler.row_ranges(op.w)]
            rw.replace(bias or op, [tiler.build.concat(parts, len(op.x.type.shape) - 1)])
            if bias is not None:
                rw.erase(op)
            return
        tiler = Tiler(op, self.bytes, self.looked_up)
        total = op.accumulator
        for columns in tiler.column_ranges(op.w):
            total = tiler.linear(tiler.columns(op.x, columns), op.w, columns=columns, start=total)
        assert total is not None, "a weight without inputs"
        rw.replace(op, [total])

    def part(self, tiler: Tiler, op: tensor.LinearOp, bias: tensor.AddOp | None, rows: Range) -> Value:
        """Some outputs."""
        product = tiler.linear(op.x, op.w, rows=rows)
        if bias is not None and bias.rhs is not None:
            return tiler.build.binary(tensor.AddOp, product, tiler.columns(bias.rhs, rows))
        return packed(tiler.build, product) if is_wide(op.y, tiler.build.spec) else product

    @rewrite(tensor.GatedLinearOp)
    def tile_gated(self, op: tensor.GatedLinearOp, rw: Rewriter) -> None:
        """gated_linear, and the linear it feeds, tile by tile."""
        down = op.y.users[0] if op.y.has_one_use() else None
        tiler = Tiler(op, self.bytes, self.looked_up)
        if not isinstance(down, tensor.LinearOp) or not is_term(down):
            ranges = even_ranges(op.gate.type.shape[0], tiler.lanes, tiler.row_limit(op.gate) // 2)
            biases = tiler.biases(op.x, op.biases)
            parts = [tiler.gated(op, rows, biases) for rows in ranges]
            rw.replace(op, [tiler.build.concat(parts, len(op.x.type.shape) - 1)])
            return
        total, tiler = down.accumulator, Tiler(down, self.bytes, self.looked_up)
        limit, biases = max(1, tiler.row_limit(op.gate) // 2), tiler.biases(op.x, op.biases)
        for part in tiler.column_ranges(down.w, limit):
            tiler.build.loc = op.loc
            gated = tiler.gated(op, part, biases)
            tiler.build.loc = down.loc
            total = tiler.linear(gated, down.w, columns=part, start=total)
        assert total is not None, "a weight without inputs"
        rw.replace(down, [total])

    @rewrite(tensor.ActLinearOp)
    def tile_activated(self, op: tensor.ActLinearOp, rw: Rewriter) -> None:
        """act_linear -> concat of act(linear(x, tile)): sums never exist whole."""
        tiler = Tiler(op, self.bytes, self.looked_up)
        parts = [tiler.activated_linear(op, rows) for rows in tiler.row_ranges(op.w)]
        rw.replace(op, [tiler.build.concat(parts, len(op.x.type.shape) - 1)])

    @rewrite(tensor.ExpertsOp)
    def tile_experts(self, op: tensor.ExpertsOp, rw: Rewriter) -> None:
        """experts -> one expert after the other, each adding to the same sums; tile by tile."""
        tiler, total = ExpertTiler(op, self.bytes, self.looked_up), op.accumulator
        for number in range(op.shares.type.shape[-1]):
            total = tiler.expert(op, number, total)
        stacks = [value.owner for value in (op.gate, op.up, op.down, op.gate_bias, op.up_bias) if value]
        rw.replace(op, [total] if total else [])
        erase_dead([*stacks, *tiler.made])


def feeds_from_gate(op: tensor.LinearOp) -> bool:
    """Whether `tile_gated` will cut this op, from the gated linear it alone reads."""
    gate = op.x.defining(tensor.GatedLinearOp)
    return gate is not None and gate.y.has_one_use() and is_term(op)


def is_term(op: tensor.LinearOp) -> bool:
    """Whether its products are added to others: to an accumulator, or where parts of a net meet."""
    return op.accumulator is not None or is_sent(op.y)


def is_sent(x: Value) -> bool:
    """Whether other parts are given x, maybe in another layout; this one may add it up itself as well."""
    casts = [user.y for user in x.users if isinstance(user, tensor.CastOp)]
    return any(isinstance(user, tensor.SendOp) for user in x.users) or any(map(is_sent, casts))


def added_row(op: tensor.LinearOp, spec: ChipSpec) -> tensor.AddOp | None:
    """The sum of a large y and one row for all of its rows, if nothing else reads y."""
    if buffer_bytes(op.y.type, spec) <= BESIDE_SHARE * spec.lane_bytes:
        return None
    add = op.y.users[0] if op.y.has_one_use() else None
    if not isinstance(add, tensor.AddOp) or add.lhs is not op.y or add.rhs is None:
        return None
    return add if add.rhs.type.layout == Replicated() and not tensor.is_column(op.y.type) else None


def is_wide(y: Value, spec: ChipSpec) -> bool:
    """Whether y, the logits of a large vocabulary, has to be packed; what reads it takes both forms."""
    reads_both = all(isinstance(user, READS_BOTH_FORMS) for user in y.users)
    share = buffer_bytes(y.type, spec) / spec.lane_bytes
    return tensor.is_column(y.type) and reads_both and share > SLOTS_SHARE


def packed(build: Build, y: Value) -> Value:
    return build.cast(y, F32, Lanes(y.type.layout.axis, compact=True))
