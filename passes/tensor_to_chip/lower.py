"""The pass tensor-to-chip: arrays to buffers and instructions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compiler.ir.module import Builder, Function, Module
from compiler.target.attribute import target_of
from compiler.target.spec import ChipSpec
from dialects.contents import Content
from passes.manager import Pass
from passes.options import at_least
from passes.tensor_to_chip import arithmetic, dequantize, matmul, movement, sampling, softmax, take, topk
from passes.tensor_to_chip.context import Lowering
from passes.tensor_to_chip.emitter import Emitter
from passes.tensor_to_chip.record import plan_record

# Importing them fills the table of rules.
RULE_FILES = (arithmetic, dequantize, matmul, movement, sampling, softmax, take, topk)


@dataclass(frozen=True)
class TensorToChip(Pass):
    """tensor -> chip. Each value becomes a buffer, each op its instructions, in the order of the program.

    Arguments and results of a function become DDR regions numbered by `index`. A tile of more than so many
    bytes is unpacked and multiplied by part by part, so that it is never in local memory whole.
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
    for index, arg in enumerate(function.args):
        low.set(arg, low.in_ddr(arg.type, space="input", index=index, tensor=arg.type))
    for index, value in enumerate(terminator.operands):
        low.wanted[value] = low.in_ddr(value.type, space="output", index=index, tensor=value.type)
    low.plan(ops)
    plan_record(low, ops)
    for op in ops:
        low.lower(op)
    terminator.set_operands((), (0,))
    for op in reversed(ops):
        op.erase()
    for arg in list(function.args):
        block.erase_arg(arg)
    function.update_type()
    return low
