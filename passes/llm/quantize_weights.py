"""Choose how the weights of the nets that allow it are stored."""

from __future__ import annotations

from dataclasses import dataclass, replace

from compiler.ir.core import Op, Value
from compiler.ir.module import Module, walk
from compiler.ir.types import TensorType
from compiler.weights.scheme import Scheme
from dialects import llm
from dialects.contents import Content
from dialects.nets import net_of
from passes.manager import Pass
from passes.options import at_least, option


@dataclass(frozen=True)
class QuantizeWeights(Pass):
    """llm -> llm. Store the weights of quantizable nets' linears in 4 or 8 bits; activations stay.

    What has a scheme already keeps it.
    """

    name = "quantize-weights"
    takes = Content.LLM

    bits: int = option(4, "4 or 8", (4, 8).__contains__)  # bits per weight
    group: int = at_least(0, 64)  # neighbours along the input axis that share a scale; 0 for the whole axis
    symmetric: bool = False  # no zero points; 8 bits never have any

    def run(self, module: Module) -> None:
        for function in module.functions():
            if net_of(function).quantizable:
                for op in walk(function):
                    if isinstance(op, llm.Projects):
                        for weight in op.projections:
                            self.store(weight, op)

    def store(self, weight: Value, reader: Op) -> None:
        """Give the parameters that a linear's weight is made of a scheme, and with them what is made."""
        maker = weight.owner
        if not isinstance(maker, llm.IsWeight):
            return
        for part in maker.operands:
            self.store(part, reader)
        if weight.type.layout is None:
            weight.type = maker.infer_types()[0] if maker.operands else self.stored(weight.type, reader)

    def stored(self, weight: TensorType, reader: Op) -> TensorType:
        """The type of a parameter after the pass; scales have the type that the weights had."""
        group = self.group or weight.shape[-1]
        scheme = Scheme(self.bits, group, not self.symmetric and self.bits == 4, weight.element)
        if problem := scheme.problem_in(weight.shape):
            reader.fail(f"has a weight {weight} that {scheme} cannot store: it {problem}")
        return replace(weight, layout=scheme)
