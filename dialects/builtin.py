"""Modules and functions, with the names and the meaning that upstream MLIR gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compiler.ir.core import Block, Op, Region
from compiler.ir.define import Attr, OptionalAttr, VariadicOperand, op
from compiler.ir.module import Function, Module
from compiler.ir.types import FunctionType, Type
from compiler.target.attribute import TARGET, check_target
from dialects import nets


@op("builtin.module", isolated=True)
class ModuleOp(Module):
    """The outermost op: a list of functions. `bm.target`, where there is one, says what chip they are for."""

    sym_name: OptionalAttr[str]
    body: Region

    @classmethod
    def of(cls, *functions: Function, target: str | None = None) -> ModuleOp:
        module = cls()
        if target is not None:
            module.attributes = {TARGET: target}
        for function in functions:
            module.block.append(function)
        return module

    def verify(self) -> None:
        check_target(self)
        for inner in self.block.ops:
            if not isinstance(inner, Function):
                inner.fail("stands in a module, which holds functions only")
        names: set[str] = set()
        for function in self.functions():
            if function.sym_name in names:
                function.fail(f"a second function is called {function.sym_name!r}")
            names.add(function.sym_name)
        self._verify_nets()

    def _verify_nets(self) -> None:
        stated = [function for function in self.functions() if nets.KEY in function.attributes]
        for cores in (cores for net in nets.stages_of(stated) for cores in nets.programs_of(net)):
            first = nets.net_of(cores[0][0])
            for place, function in (each for stages in cores for each in enumerate(stages)):
                if problem := nets.net_of(function).problem_as_stage(place, first):
                    function.fail(problem)


@op("func.func", isolated=True)
class FuncOp(Function):
    """A function. Its block's arguments and its ``func.return`` match ``function_type``.

    ``bm.net`` says what it is to a client, see ``dialects.nets``; functions of tests may do without.
    """

    sym_name: Attr[str]
    function_type: Attr[FunctionType]
    body: Region

    @classmethod
    def with_args(
        cls, name: str, inputs: Sequence[Type], results: Sequence[Type] = (), names: Sequence[str] = ()
    ) -> FuncOp:
        """An empty function of that signature; ``names`` are hints for its arguments."""
        block = Block(inputs)
        for arg, hint in zip(block.args, names, strict=False):
            arg.name_hint = hint
        function_type = FunctionType(tuple(inputs), tuple(results))
        return cls(sym_name=name, function_type=function_type, body=Region(block))

    def verify(self) -> None:
        if not isinstance(self.parent_op, ModuleOp | None):
            self.fail("stands inside of another function")
        inputs = tuple(arg.type for arg in self.args)
        if inputs != self.function_type.inputs:
            self.fail(f"block arguments do not match function_type {self.function_type}")
        if not isinstance(self.block.ops.last, ReturnOp):
            self.fail("the body does not end with func.return")
        self._verify_net()

    def _verify_net(self) -> None:
        """Once lowered to regions of DDR, a function has no types, and each region is verified by itself."""
        if nets.KEY not in self.attributes:
            return
        net, types = nets.net_of(self), self.function_type
        lowered = not types.inputs and not types.results
        if problem := net.problem() or (None if lowered else net.problem_of(types)):
            self.fail(problem)


@op("func.return", terminator=True)
class ReturnOp(Op):
    """Ends a function; its operands are the function's results."""

    values: VariadicOperand[Any]

    def verify(self) -> None:
        function = self.parent_op
        types = tuple(value.type for value in self.values)
        if isinstance(function, FuncOp) and types != function.function_type.results:
            self.fail(f"returned types do not match function_type {function.function_type}")
