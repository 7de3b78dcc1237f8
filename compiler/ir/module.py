"""Functions and modules as generic code sees them, and how it adds ops to them and visits them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from compiler.ir.core import Block, Op, Value, block_of
from compiler.ir.types import FunctionType

OpT = TypeVar("OpT", bound=Op)


class Function(Op):
    """What generic code knows of a function; ``dialects.builtin.FuncOp`` is the one that is defined."""

    sym_name: str
    function_type: FunctionType

    @property
    def block(self) -> Block:
        return self.region.block

    @property
    def args(self) -> list[Value]:
        return self.block.args

    @property
    def terminator(self) -> Op:
        return self.block.terminator

    def update_type(self) -> None:
        """Make ``function_type`` say what the arguments and the return now are."""
        results = tuple(value.type for value in self.terminator.operands)
        self.function_type = FunctionType(tuple(arg.type for arg in self.args), results)


class Module(Op):
    """What generic code knows of a module; ``dialects.builtin.ModuleOp`` is the one that is defined."""

    @property
    def block(self) -> Block:
        return self.region.block

    def functions(self) -> list[Function]:
        return [op for op in self.block.ops if isinstance(op, Function)]

    def function(self, name: str) -> Function:
        """The function of that name; KeyError names those there are."""
        by_name = {function.sym_name: function for function in self.functions()}
        if name not in by_name:
            raise KeyError(f"no function {name!r}; the module has {', '.join(by_name) or 'none'}")
        return by_name[name]


class Builder:
    """Adds ops at one place: the end of a block, or before an op."""

    def __init__(self, block: Block, anchor: Op | None = None) -> None:
        self.block = block
        self.anchor = anchor

    @classmethod
    def before(cls, op: Op) -> Builder:
        return cls(block_of(op), op)

    def add(self, op: OpT) -> OpT:
        self.block.ops.insert(op, self.anchor)
        return op


def walk(root: Op) -> Iterator[Op]:
    """The op and everything inside it, outer before inner, in order; of a block what is in it at first."""
    yield root
    for region in root.regions:
        for op in region.block.ops.listed():
            if op.regions:
                yield from walk(op)
            else:
                yield op


def discard(root: Op) -> None:
    """Take apart what nothing will look at again, so that its memory is free at once; see `Op.release`."""
    for op in list(walk(root)):
        op.release()
