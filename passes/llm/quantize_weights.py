"""Choose how the weights of the nets that allow it are stored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from compiler.ir.core import Op, Value
from compiler.ir.module import Function, Module, walk
from compiler.ir.types import TensorType
from compiler.weights.scheme import Scheme
from dialects import llm
from dialects.contents import Content
from dialects.nets import net_of
from passes.manager import Pass
from passes.options import at_least, option

BITS = (4, 8, 16)


def kept(text: str) -> tuple[str, int] | None:
    """A pattern of module names and the bits that it gives them, of `PATTERN=BITS`; None for other texts."""
    pattern, _, bits = text.rpartition("=")
    return (pattern, int(bits)) if pattern and bits in map(str, BITS) else None


def routers_in(function: Function) -> set[Op]:
    """The linears whose products choose experts."""
    mixtures = [op for op in walk(function) if isinstance(op, llm.ExpertsOp)]
    made = [value.owner for op in mixtures for value in llm.routed_by(op)]
    return {maker for maker in made if isinstance(maker, llm.LinearOp)}


@dataclass(frozen=True)
class QuantizeWeights(Pass):
    """llm -> llm. Store the weights of quantizable nets' linears in 4 or 8 bits; activations stay, and so do
    the few weights that choose experts, as a choice has no small errors.

    `keep` gives modules bits of their own, in any net, by the names that the IR gives their weights:
    `mlp.down_proj=8,lm_head=4`, with the wildcards * and ?. The last that matches counts. What has a scheme
    already keeps it.
    """

    name = "quantize-weights"
    takes = Content.LLM

    bits: int = option(4, "4, 8 or 16", BITS.__contains__)  # bits per weight; 16 for as they are
    group: int = at_least(0, 64)  # neighbours along the input axis that share a scale; 0 for the whole axis
    symmetric: bool = False  # no zero points; 8 bits never have any
    keep: tuple[str, ...] = option((), "MODULE=BITS, with 4, 8 or 16 bits", lambda each: all(map(kept, each)))

    def run(self, module: Module) -> None:
        for function in module.functions():
            bits = self.bits if net_of(function).quantizable else 16
            routers = routers_in(function)
            for op in walk(function):
                if isinstance(op, llm.Projects):
                    for weight in op.projections:
                        self.store(weight, 16 if op in routers else bits, op)

    def store(self, weight: Value, bits: int, reader: Op) -> None:
        """Give the parameters that a linear's weight is made of a scheme, and with them what is made."""
        maker = weight.owner
        if not isinstance(maker, llm.IsWeight):
            return
        for part in maker.operands:
            self.store(part, bits, reader)
        if isinstance(maker, llm.WeightOp):
            bits = self.bits_of(maker.module, bits)
            if weight.type.layout is None and bits < 16:
                weight.type = self.stored(weight.type, bits, reader)
        elif weight.type.layout is None:
            weight.type = maker.infer_types()[0]

    def bits_of(self, name: str, others: int) -> int:
        """Of a module's weight, `others` where nothing says more about it."""
        for pattern, bits in filter(None, map(kept, reversed(self.keep))):
            if fnmatchcase(name, pattern):
                return bits
        return others

    def stored(self, weight: TensorType, bits: int, reader: Op) -> TensorType:
        """The type of a parameter after the pass; scales have the type that the weights had."""
        group = self.group or weight.shape[-1]
        scheme = Scheme(bits, group, not self.symmetric and bits == 4, weight.element)
        if problem := scheme.problem_in(weight.shape):
            reader.fail(f"has a weight {weight} that {scheme} cannot store: it {problem}")
        return replace(weight, layout=scheme)
