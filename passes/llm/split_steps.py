"""What a device does between two meetings with the others, as a function of its own: a step of a cascade."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from compiler.client_nets import ON_FIRST_DEVICE
from compiler.ir.core import Op, Value
from compiler.ir.module import Function, Module
from compiler.ir.types import TensorType
from dialects import llm
from dialects.builtin import FuncOp, ReturnOp
from dialects.contents import Content
from dialects.nets import KEY, NetAttr, NetInput, NetOutput, net_of, stages_of, token_count
from dialects.parts import Collective
from passes.llm.canonicalize import erase_dead
from passes.manager import Pass

MOST_STEPS = 3  # the file keeps apart what two of them leave; see `driver.devices.with_spares`


@dataclass(frozen=True)
class SplitSteps(Pass):
    """llm -> llm. Cut each device's function where devices meet, into functions that run in turn.

    A device leaves what it has for the others as hidden results of a step; the next one takes those of all
    devices and does alone what they did together. They meet as rarely as can be: at once for all that needs
    no other meeting before. What else a later step reads goes there as hidden results too, from step to step,
    as nothing else outlives one; what is known at compile time is made anew.

    A client gives and takes values on all devices. Where only the first has a function, the others take its
    results; of nets that clients call on the first device only, they take its arguments and give nothing.
    """

    name: ClassVar[str] = "split-steps"
    takes = Content.LLM

    def run(self, module: Module) -> None:
        for functions in stages_of(module.functions()):
            if net_of(functions[0]).part.devices > 1:
                meetings = meeting_steps(functions)
                for function in functions:
                    replace_by(function, Steps(function, meetings).made())
        for functions in stages_of(module.functions()):
            net = net_of(functions[0])
            devices = {net_of(function).part.device for function in functions}
            if net.part.devices > 1 and len(devices) == 1 and net.name not in ON_FIRST_DEVICE:
                hand_out(functions[-1])


def replace_by(function: Function, made: Iterable[Function]) -> None:
    assert function.parent is not None
    for each in made:
        function.parent.insert_before(function, each)
    function.erase()


def meeting_steps(functions: Sequence[Function]) -> list[int]:
    """Of each collective of the devices, in order, the step behind which they meet: the first that has all
    operands on all devices, of which one may have more to wait for.
    """
    found = [0] * len(meetings_of(functions[0]))
    while True:
        needed = [reads_of(function, found) for function in functions]
        if (later := [max(each) for each in zip(*needed, strict=True)]) == found:
            return found
        found = later


def meetings_of(function: Function) -> list[Op]:
    return [op for op in function.block.ops if isinstance(op, Collective) and op.over == "device"]


def reads_of(function: Function, meetings: Sequence[int]) -> list[int]:
    """The first step that has all operands of each collective, when they meet behind those steps."""
    homes = homes_of(function, meetings)
    return [home_of(op, homes) for op in meetings_of(function)]


def homes_of(function: Function, meetings: Sequence[int]) -> dict[Value, int]:
    """The first step that has each value, wherever it is computed; none for what is known at compile time."""
    homes = dict.fromkeys(function.args, 0)
    steps = dict(zip(meetings_of(function), meetings, strict=True))
    for op in function.block.ops:
        if not is_known_op(op):
            homes |= dict.fromkeys(op.results, steps[op] + 1 if op in steps else home_of(op, homes))
    return homes


def home_of(op: Op, homes: Mapping[Value, int]) -> int:
    return max((homes.get(value, 0) for value in op.operands), default=0)


def hand_out(function: Function) -> None:
    """Functions of the other devices, which take the results of the one that alone computes them."""
    net = net_of(function)
    for device in range(net.part.devices - 1, 0, -1):
        new = FuncOp.with_args(name_of(net, device, 1), ())
        inputs = [*net.inputs, *(taken(each, 0) for each in net.outputs)]
        for arg in function.args:
            new.block.add_arg(arg.type, arg.name_hint)
        results = [new.block.add_arg(value.type, None) for value in function.terminator.operands]
        new.block.append(ReturnOp(*results, loc=function.terminator.loc))
        part = replace(net.part, device=device, step=1)
        describe(new, function, replace(net, inputs=tuple(inputs), part=part))
        assert function.parent is not None
        function.parent.ops.insert(new, function.next_op)


def describe(new: FuncOp, old: Function, net: NetAttr) -> None:
    new.loc = old.loc
    new.update_type()
    own = {key: value for key, value in old.attributes.items() if "." in key}
    new.attributes = {**new.attributes, **own, KEY: net}


def name_of(net: NetAttr, device: int, step: int) -> str:
    return f"{net.stage_name}.device{device}.step{step}"


def taken(given: NetOutput | NetInput, device: int | None) -> NetInput:
    """What a device has, as another one, or a later step, takes it."""
    return NetInput(given.name, given.tokens, hidden=True, device=device)


@dataclass
class Step:
    """A function that comes to be, with the values of the old one that it has so far."""

    function: FuncOp
    inputs: list[NetInput] = field(default_factory=list)
    outputs: list[NetOutput] = field(default_factory=list)
    values: dict[Value, Value] = field(default_factory=dict)
    results: list[Value] = field(default_factory=list)

    def take(self, stated: NetInput, type: TensorType, hint: str | None = None) -> Value:
        self.inputs.append(stated)
        return self.function.block.add_arg(type, hint)

    def give(self, stated: NetOutput, value: Value) -> None:
        self.outputs.append(stated)
        self.results.append(value)


class Steps:
    """Cuts the function of one device."""

    def __init__(self, function: Function, meetings: Sequence[int]) -> None:
        self.old = function
        self.net = net_of(function)
        self.device, self.devices = self.net.part.place("device")
        self.is_called = self.device == 0 or self.net.name not in ON_FIRST_DEVICE
        self.home = homes_of(function, meetings)
        self.meetings = dict(zip(meetings_of(function), meetings, strict=True))
        self.last = self._last_reads()
        self.numbers = range(max(meetings, default=-1) + 2)
        if len(self.numbers) > MOST_STEPS:
            function.fail(f"has {len(self.numbers)} steps: what one leaves would be lost to some devices")
        names = [name_of(self.net, self.device, step) for step in self.numbers]
        self.steps = [Step(FuncOp.with_args(name, ())) for name in names]

    def _last_reads(self) -> dict[Value, int]:
        """The step of the last op that reads a value."""
        found: dict[Value, int] = {}
        for op in self.old.block.ops:
            read = self.meetings.get(op, home_of(op, self.home))
            for value in () if op.is_terminator else op.operands:
                found[value] = max(read, found.get(value, 0))
        return found

    def made(self) -> list[Function]:
        self._take_arguments()
        ops = [op for op in self.old.block.ops if not op.is_terminator and op not in self.meetings]
        for number, step in enumerate(self.steps):
            for op in ops:
                if is_known_op(op) or home_of(op, self.home) == number:
                    self._copy(op, step)
            if step is not self.steps[-1]:
                self._meet(number, [op for op, behind in self.meetings.items() if behind == number])
        self._give_results()
        return [self._finished(number) for number in self.numbers if self.steps[number].results]

    def _copy(self, op: Op, step: Step) -> None:
        copy = op.clone(step.values)
        step.values |= zip(op.results, copy.results, strict=True)
        step.function.block.append(copy)

    def _take_arguments(self) -> None:
        """All, also those that nothing reads, as the client gives all."""
        for index, (arg, stated) in enumerate(zip(self.old.args, self.net.inputs, strict=True)):
            own = replace(stated, index=index) if self.is_called else taken(stated, 0)
            self.steps[0].values[arg] = self.steps[0].take(own, arg.type, arg.name_hint)

    def _meet(self, number: int, ops: Sequence[Op]) -> None:
        """End a step and begin the next one."""
        before, after = self.steps[number : number + 2]
        for place, op in enumerate(ops):
            name = f"{op.opname.partition('.')[2]}{number}_{place}"
            named = zip("ab", op.operands, strict=False)
            operands = [self._of_all(number, f"{name}{letter}", operand) for letter, operand in named]
            together = done_together(op, operands)
            after.function.block.append(together)
            after.values[op.results[0]] = together.results[0]
        crossing = [value for value, last in self.last.items() if self.home.get(value, last) <= number < last]
        for place, value in enumerate(value for value in crossing if value in before.values):
            left = self._leave(number, f"kept{number}_{place}", value)
            after.values[value] = self._as_was(after, [self._enter(after, left, None)], value)[0]

    def _of_all(self, number: int, name: str, operand: Value) -> list[Value]:
        """What each device has for a meeting, as the next step takes it."""
        after = self.steps[number + 1]
        term = self._leave(number, name, operand)
        return self._as_was(after, [self._enter(after, term, each) for each in range(self.devices)], operand)

    def _leave(self, number: int, name: str, value: Value) -> tuple[NetOutput, TensorType]:
        """Make a value of a step a hidden result of it."""
        step = self.steps[number]
        found, tokens = step.values[value], self._token_axis(value)
        if tokens == 0:
            found = step.function.block.append(llm.ReshapeOp(found, shape=(1, *found.type.shape))).y
        stated = NetOutput(name, None if tokens is None else 1, hidden=True)
        step.give(stated, found)
        return stated, found.type

    def _enter(self, step: Step, left: tuple[NetOutput, TensorType], device: int | None) -> Value:
        stated, type_ = left
        return step.take(taken(stated, device), type_)

    def _as_was(self, step: Step, found: Sequence[Value], value: Value) -> list[Value]:
        """Values that went from one step to another, in the shape that they had."""
        if self._token_axis(value) != 0:
            return list(found)
        shape = value.type.shape
        return [step.function.block.append(llm.ReshapeOp(x, shape=shape)).y for x in found]

    def _token_axis(self, value: Value) -> int | None:
        """The axis that a call's tokens are on: the second, or the first in a matrix of tokens."""
        if all(each.tokens is None for each in self.net.inputs):
            return None
        count, shape = token_count(self.old), value.type.shape
        if len(shape) == 2 and shape[0] == count:
            return 0
        return 1 if len(shape) > 2 and shape[1] == count else None

    def _give_results(self) -> None:
        numbers = self.net.part.writes or range(len(self.net.outputs))
        stated = zip(numbers, self.net.written, self.old.terminator.operands, strict=True)
        for index, each, value in stated if self.is_called else ():
            step = self.steps[self.home[value]]
            step.give(replace(each, index=index), step.values[value])

    def _finished(self, number: int) -> Function:
        step = self.steps[number]
        function = step.function
        function.block.append(ReturnOp(*step.results, loc=self.old.terminator.loc))
        erase_dead(function.block)
        part = replace(self.net.part, step=number, writes=None)
        apart = any(each.kept == "session" for each in self.net.inputs)
        net = replace(self.net, inputs=tuple(step.inputs), outputs=tuple(step.outputs))
        describe(function, self.old, replace(net, part=part, apart=apart))
        return function


def is_known_op(op: Op) -> bool:
    if isinstance(op, llm.TableOp | llm.IndicesOp):
        return True
    return bool(op.results) and all(map(llm.is_weight, op.results))


def done_together(op: Op, operands: list[list[Value]]) -> Op:
    """What one device does for all, of the operands that each has."""
    match op:
        case llm.AllReduceOp():
            return llm.AddTermsOp(operands[0], types=[op.y.type], loc=op.loc)
        case llm.AllGatherOp():
            return llm.ConcatOp(*operands[0], axis=op.axis, loc=op.loc)
        case llm.AllReduceArgmaxOp():
            return llm.IndexOfLargestOp(*operands, loc=op.loc)
    op.fail("has no way to be done by one device for all")
