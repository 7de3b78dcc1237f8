"""Small tensor functions, built op by op, run on the tensor level and on the chip at each of its stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

import runtime_sim.interpret.tensor  # noqa: F401  (registers the rules)
from compiler.ir.core import Op, Value
from compiler.ir.module import Builder, Function
from compiler.ir.types import ELEMENTS, Attribute, ElementType, FunctionType, TensorType, Type
from compiler.target.chips.bm1684x import BM1684X
from compiler.target.spec import ChipSpec
from compiler.weights.stored import Weight
from dialects import tensor
from dialects.builtin import FuncOp, ModuleOp, ReturnOp
from dialects.chip import Instruction
from dialects.tensor import Lanes, Replicated
from driver.blob import Materializer
from passes import load_all
from passes.manager import PassManager, parse_pipeline
from runtime_sim.interpret.chip import ChipProgram
from runtime_sim.interpret.rules import interpret
from runtime_sim.launch.queues import CoreProgram

Array = np.ndarray
SPEC = BM1684X
PLACING = "hoist-stores,hoist-loads,allocate-local,assign-addresses,insert-waits"
EVERYWHERE = Replicated()


def array(shape: Sequence[int], element: ElementType, layout: Attribute | None = None) -> TensorType:
    return TensorType(tuple(shape), element, layout)


def slots(axis: int) -> Lanes:
    """Items over the lanes, each row of lanes starting on an EU width, as matrix operands lie."""
    return Lanes(axis)


def packed(axis: int) -> Lanes:
    return Lanes(axis, compact=True)


@dataclass
class Program:
    """A function under construction. `weights` and `tables` are what its ops name."""

    inputs: list[Array]
    weights: Mapping[str, Weight] = field(default_factory=dict)
    tables: Mapping[str, Array] = field(default_factory=dict)
    spec: ChipSpec = SPEC

    def __post_init__(self) -> None:
        load_all()
        types = [array(a.shape, element_of(a)) for a in self.inputs]
        self.function: Function = FuncOp.with_args("test", types)
        self.module = ModuleOp.of(self.function, target=self.spec.name)
        self.builder = Builder(self.function.block)
        self.arguments = iter(self.function.args)

    def add(self, op: Op) -> Value:
        return self.builder.add(op).results[0]

    def make(self, op_class: Callable[..., Op], *operands: Value, type_: Type, **attributes: object) -> Value:
        """An op whose result type is not inferred."""
        return self.add(op_class(*operands, types=[type_], **attributes))

    def load(self, layout: Attribute | None) -> Value:
        """The next argument, in local memory."""
        source = next(self.arguments)
        return self.make(tensor.LoadOp, source, type_=array(source.type.shape, source.type.element, layout))

    def finish(self, *values: Value) -> Program:
        """Return the values, stored to DDR if they are not there."""
        results = [v if tensor.in_ddr(v.type) else self.add(tensor.StoreOp(v)) for v in values]
        self.add_return(results)
        return self

    def add_return(self, results: list[Value]) -> None:
        self.builder.add(ReturnOp(*results))
        inputs = tuple(arg.type for arg in self.function.args)
        self.function.function_type = FunctionType(inputs, tuple(value.type for value in results))

    def lower(self, pipeline: str) -> None:
        PassManager(parse_pipeline(pipeline)).run(self.module)

    def interpreted(self) -> list[Array]:
        read, codes = self.weights.__getitem__, self.materializer.codes
        return interpret(self.function, self.inputs, read, self.tables, codes=codes)

    @property
    def materializer(self) -> Materializer:
        return Materializer(self.weights.__getitem__, self.tables)

    def chip(self) -> ChipProgram:
        return ChipProgram(self.function, self.spec, self.materializer.bytes_of)

    def executed(self) -> list[Array]:
        return self.chip().run(self.inputs)

    def instructions(self) -> list[Instruction]:
        return [op for op in self.function.block.ops if isinstance(op, Instruction)]


def element_of(values: Array) -> ElementType:
    return next(e for e in ELEMENTS.values() if e.numpy == values.dtype)


def core_program(program: ChipProgram) -> CoreProgram:
    """The two queues of a program after `insert-waits`, for the checker of waits."""
    queues: dict[str, list] = {"tiu": [], "dma": []}
    for op in program.ops:
        instruction = program.instruction(op)
        instruction.fields["cmd_id_dep"] = op.wait
        queues[op.engine].append(instruction)
    return CoreProgram(queues["tiu"], queues["dma"])
