"""The pass tensor-to-chip: arrays to buffers and instructions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from compiler.ir.module import Builder, Function, Module
from compiler.target.attribute import target_of
from compiler.target.spec import ChipSpec
from dialects.contents import Content
from dialects.parts import part_of
from passes.manager import Pass
from passes.options import at_least
from passes.tensor_to_chip import (
    arithmetic,
    dequantize,
    exchange,
    matmul,
    movement,
    sampling,
    softmax,
    take,
    topk,
)
from passes.tensor_to_chip.context import Lowering
from passes.tensor_to_chip.cores import Cores
from passes.tensor_to_chip.emitter import Emitter
from passes.tensor_to_chip.record import plan_record

# Importing them fills the table of rules.
RULE_FILES = (arithmetic, dequantize, exchange, matmul, movement, sampling, softmax, take, topk)


@dataclass(frozen=True)
class TensorToChip(Pass):
    """tensor -> chip. Each value becomes a buffer, each op its instructions, in the order of the program.

    Arguments and results of a function become DDR regions numbered by `index`. Functions of several cores
    meet by messages where they exchange arrays, and at the start and the end. A tile of more than so many
    bytes, or a much larger one than a chip's `work_bytes`, is unpacked and multiplied by part by part, so
    that it is never in local memory whole.
    """

    name: ClassVar[str] = "tensor-to-chip"
    takes = Content.TENSOR | Content.TILED
    ends = Content.TENSOR | Content.TILED
    leaves = Content.CHIP | Content.UNPLACED | Content.UNADDRESSED | Content.UNORDERED

    bytes: int = at_least(0, 0)  # of 16-bit weights, per lane; 0 for a chip's `work_bytes`

    def run(self, module: Module) -> None:
        for function in module.functions():
            lower_function(function, target_of(module), self.bytes)


def lower_function(function: Function, spec: ChipSpec, part_bytes: int = 0) -> Lowering:
    """Lower in place; what is returned knows where each value was put."""
    block = function.block
    *ops, terminator = list(block.ops)
    low = Lowering(block, spec, Emitter(Builder.before(block.ops[0]), spec), part_bytes)
    low.cores = Cores.of(part_of(function), ops)
    inputs = [
        low.in_ddr(arg.type, space="input", index=index, tensor=arg.type)
        for index, arg in enumerate(function.args)
    ]
    outputs = [
        low.in_ddr(value.type, space="output", index=index, tensor=value.type)
        for index, value in zip(written_by(function), terminator.operands, strict=True)
    ]
    low.placed |= zip(function.args, inputs, strict=True)
    low.wanted |= zip(terminator.operands, outputs, strict=True)
    low.plan(ops)
    exchange.meet_at_start(low, inputs)
    plan_record(low, ops)
    for op in ops:
        low.lower(op)
    low.emit.builder = Builder.before(terminator)
    exchange.meet_at_end(low, outputs)
    terminator.set_operands((), (0,))
    block.erase_all(ops)
    for arg in list(function.args):
        block.erase_arg(arg)
    function.update_type()
    return low


def written_by(function: Function) -> Sequence[int]:
    """The numbers of the net's outputs that a function gives."""
    numbers = part_of(function).writes
    return range(len(function.terminator.operands)) if numbers is None else numbers
