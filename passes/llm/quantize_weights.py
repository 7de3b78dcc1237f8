"""Choose how the weights of the nets that allow it are stored."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.ir.module import Module, walk
from dialects import llm
from dialects.contents import Content
from dialects.nets import net_of
from passes.manager import Pass
from passes.options import at_least, option


@dataclass(frozen=True)
class QuantizeWeights(Pass):
    """llm -> llm. Mark the linears of quantizable nets as w4 or w8 in groups; activations keep their type.
    """

    name = "quantize-weights"
    takes = Content.LLM
    leaves = Content.QUANTIZED

    bits: int = option(4, "4 or 8", (4, 8).__contains__)  # bits per weight
    group: int = at_least(0, 64)  # neighbours along the input axis that share a scale; 0 for the whole axis
    symmetric: bool = False  # no zero points; 8 bits never have any

    def run(self, module: Module) -> None:
        quant = llm.Quant(self.bits, self.group, symmetric=self.symmetric or self.bits == 8)
        for function in module.functions():
            if net_of(function).quantizable:
                for op in walk(function):
                    if isinstance(op, llm.LinearOp | llm.GatedLinearOp):
                        op.quant = quant
