"""Choose how the weights of the blocks are stored."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.ir.core import Module, walk
from compiler.pass_manager import Pass
from dialects import llm


@dataclass(frozen=True)
class QuantizeWeights(Pass):
    """llm -> llm. Mark the linears of the blocks as w4 or w8 in groups; activations keep their type.

    The embedding and the output embedding stay as they are: their functions are not named block.
    """

    name = "quantize-weights"

    bits: int = 4  # bits per weight, 4 or 8
    group: int = 64  # neighbours along the input axis that share a scale; 0 for the whole axis
    symmetric: bool = False  # no zero points

    def run(self, module: Module) -> None:
        quant = llm.Quant(bits=self.bits, group=self.group, symmetric=self.symmetric)
        for function in module.functions():
            if function.sym_name.startswith("block"):
                for op in walk(function):
                    if isinstance(op, llm.LinearOp | llm.GatedLinearOp):
                        op.quant = quant
