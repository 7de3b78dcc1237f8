"""Keep weights in local memory from one run of tokens to the next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Hashable, Iterable
from dataclasses import dataclass
from typing import ClassVar

from compiler.ir.core import Op, Value
from compiler.ir.module import Function, Module
from compiler.ir.rewrite import Rewriter
from compiler.target.attribute import target_of
from compiler.target.spec import ChipSpec
from dialects import tensor
from dialects.contents import Content
from passes.manager import Pass
from passes.options import ByFunction, at_least, by_function
from passes.tensor_to_chip.placed import buffer_bytes


@dataclass(frozen=True)
class ShareConstants(Pass):
    """tensor -> tensor. Load and dequantize equal weights once, for up to `keep` bytes of local memory.

    A call that is cut into runs of tokens otherwise does so in each. With its weights kept, a call may be cut
    finely at little cost: the first run starts early, and the last has little left to store.
    """

    name: ClassVar[str] = "share-constants"
    takes = Content.TENSOR | Content.WHOLE | Content.TILED

    keep: ByFunction[int] = by_function(at_least(0, 0))  # bytes per lane

    def run(self, module: Module) -> None:
        for function in module.functions():
            share_constants(function, target_of(module), self.keep[function.sym_name])


def share_constants(function: Function, spec: ChipSpec, room: int) -> None:
    """Replace equal constants by the first of them, as long as there is room; first come, first served."""
    rewriter = Rewriter()
    for first, *others in equal_constants(function):
        size = buffer_bytes(first.results[0].type, spec)
        if not others or size > room:
            continue
        room -= size
        for op in others:
            rewriter.replace(op, first.results[0])


def equal_constants(function: Function) -> Iterable[list[Op]]:
    """The ops that make local constants for others to read, those of equal values together."""
    numbers: dict[Value, int] = {}  # of each constant; equal for equal values
    known: dict[Hashable, int] = {}
    for op in function.block.ops:
        if isinstance(op, tensor.Materializes | tensor.ViewLike) and all(x in numbers for x in op.operands):
            operands = tuple(numbers[x] for x in op.operands)
            key = type(op), operands, repr(op.attributes), op.results[0].type
            numbers[op.results[0]] = known.setdefault(key, len(known))
    found: dict[int, list[Op]] = defaultdict(list)
    for value, number in numbers.items():
        if tensor.in_ddr(value.type) or not is_read(value, numbers):
            continue
        if isinstance(value.owner, tensor.Materializes):
            found[number].append(value.owner)
    return found.values()


def is_read(value: Value, constants: Container[Value]) -> bool:
    """Whether it is of use by itself, not only to make another constant of."""
    return any(
        not isinstance(user, tensor.Materializes) or any(result not in constants for result in user.results)
        for user in value.users
    )
