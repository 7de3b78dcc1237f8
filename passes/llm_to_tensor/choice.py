"""The choice among numbers: the largest of them, and where they are."""

from __future__ import annotations

from compiler.ir.core import Value
from dialects import llm, tensor
from passes.llm_to_tensor.context import Lowering, lowers


@lowers(llm.TopkOp)
def topk(low: Lowering, op: llm.TopkOp) -> tuple[Value, ...]:
    """In f32. Of many tokens, each on a lane; of one, the results are on every lane."""
    return low.build.add_all(tensor.TopkOp(low.f32(op.x), k=op.k))
