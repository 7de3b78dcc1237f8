"""The tiles of a mixture of experts: of each expert in turn, or of those that are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from compiler.ir.core import Block, Op, Value
from compiler.ir.types import F32, TensorType
from compiler.weights.scheme import scheme_of
from dialects import tensor
from dialects.tensor import PackedType
from dialects.weights import expert_name
from passes.ranges import Range
from passes.tensor.formulas import ACTIVATIONS, clamp
from passes.tensor.tiler import LookedUp, Tiler


class ExpertTiler(Tiler):
    """Makes the tiles of experts in front of their op."""

    def __init__(self, op: tensor.ExpertsOp, most: int, looked_up: LookedUp):
        super().__init__(op, most, looked_up)
        self.made: list[Op] = []  # weights of single experts
        self.bias_rows = self.chosen_biases(op)

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
        sources = [expert_name(name, expert) for name in weight.sources]
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
        sources = [name for weight in weights if weight is not None for name in weight.sources]
        type_ = PackedType(rows.size * len(stacks), columns.size, stored.element, scheme_of(stored))
        packed = tensor.PackedWeightOp(
            sources=[expert_name(name, None) for name in sources],
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
        return self.gate(op.act, gate, up, op.x.type.element)


def is_tabled(op: tensor.ExpertsOp, lanes: int) -> bool:
    """Whether tiles of all experts are cut alike, in whole rows of lanes; those that are chosen must be."""
    _, inner, outer = op.up.type.shape
    return op.ids is not None or not (inner % lanes or outer % lanes)


def erase_dead(ops: Sequence[Op | Block]) -> None:
    """Weights that nothing reads any more, as tiles name their sources themselves."""
    for op in ops:
        if isinstance(op, Op) and op.is_dead():
            op.erase()
