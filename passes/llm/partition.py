"""A net as the parts that do its work together: cores of a chip, or several devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

from compiler.ir.core import Op, Value
from compiler.ir.module import Function, Module
from compiler.target.attribute import target_of
from dialects import llm
from dialects.builtin import FuncOp, ReturnOp
from dialects.contents import Content
from dialects.nets import KEY, NetAttr, NetPart, net_of
from dialects.parts import part_name
from passes.llm.canonicalize import erase_dead
from passes.llm.pieces import piece_of
from passes.llm.shares import Cuts, Parts, Plan, even, plan_of
from passes.manager import Pass
from passes.options import at_least
from passes.ranges import Range

OpT = TypeVar("OpT", bound=Op)


@dataclass(frozen=True)
class Partition(Pass):
    """llm -> llm. Replace each function by one for each part, which meet in all_reduce and the like.

    Each part has some heads of each attention, and some columns of each block of linears: rows of the weights
    before, and inputs of the weight behind, so that it has a term of the sum that all need. What follows is
    computed by all, up to the outputs of the last linear of a net, of which each part has some again. Only
    weights and caches are placed: the rest follows op by op, and what has no rule is computed whole.

    Cores share arguments and results. A device has its own heads of keys and values only, so they have to go
    round. A net of which nothing is shared out is that of the first device, and is left as it is for cores.

    Expects linears by themselves, before those of one input are joined: each part joins its own.
    """

    name: ClassVar[str] = "partition"
    takes = Content.LLM

    cores: int = at_least(1, 1)
    devices: int = at_least(1, 1)

    def run(self, module: Module) -> None:
        lanes = target_of(module).lanes
        for parts in (Parts("device", self.devices, lanes), Parts("core", self.cores, lanes)):
            for function in module.functions() if parts.count > 1 else ():
                split(function, parts)


def split(function: Function, parts: Parts) -> None:
    """Put the parts of a function in its place."""
    plan = plan_of(function, parts)
    if parts.over == "device":
        check_heads(function, plan, parts)
    assert function.parent is not None
    if plan.is_empty and parts.over == "core":
        return
    for number in range(1 if plan.is_empty else parts.count):
        function.parent.insert_before(function, Part(function, plan, parts, number).made())
    function.erase()


def check_heads(function: Function, plan: Plan, parts: Parts) -> None:
    """CompileError where devices would have different numbers of heads."""
    for op in function.block.ops:
        if isinstance(op, llm.AttentionOp):
            kv_heads = plan.kv_heads(op)
            own = zip(plan.heads.get(op, ()), kv_heads, strict=True)
            if len({(cut.size, kv.size) for cut, kv in own}) != 1:
                heads = f"{op.q.type.shape[1]} query and {op.k.type.shape[1]} KV heads"
                op.fail(f"has {heads}, which do not divide among {parts.count} devices")


class Part:
    """Makes the function of one part, of values of the whole one as they are asked for."""

    def __init__(self, function: Function, plan: Plan, parts: Parts, number: int) -> None:
        self.old = function
        self.plan = plan
        self.parts = parts
        self.number = number
        self.terms = plan.terms
        self.wholes: dict[Value, Value] = {}
        self.pieces: dict[tuple[Value, int], dict[Range, Value]] = {}
        self.new = FuncOp.with_args(part_name(function.sym_name, parts.over, number), ())

    def made(self) -> Function:
        """Sums and choices come in the order of the whole function, on all parts. Keys and values are given
        as soon as an attention has them: behind a sum, next to nothing is read of what was before it.
        """
        self._take_arguments()
        self.new.loc = self.old.loc
        results = self.old.terminator.operands
        caches = {value: found[0] for value in results if (found := self.plan.cache_of(value)) is not None}
        given: dict[Value, Value | None] = {}
        for op in self.old.block.ops:
            if op in self.plan.heads:
                self.piece(op.results[0], 2, self.plan.heads[op][self.number])
                given |= {value: self.result(value) for value, reader in caches.items() if reader is op}
            if (op in self.plan.sums and op not in self.terms) or op in self.plan.choices:
                self.whole(op.results[0])
        given |= {value: self.result(value) for value in results if value not in given}
        numbered = {i: given[value] for i, value in enumerate(results)}
        return self._finished({i: value for i, value in numbered.items() if value is not None})

    def _finished(self, given: Mapping[int, Value]) -> Function:
        """With what it gives, by the numbers of results."""
        self.add(ReturnOp(*given.values(), loc=self.old.terminator.loc))
        erase_dead(self.new.block)
        self.new.update_type()
        said = {key: value for key, value in self.old.attributes.items() if "." in key}
        self.new.attributes = {**self.new.attributes, **said, KEY: self._net(tuple(given))}
        return self.new

    def _net(self, writes: tuple[int, ...]) -> NetAttr:
        net = net_of(self.old)
        place = {self.parts.over: self.number, f"{self.parts.over}s": self.parts.count}
        before = net.part.writes or range(len(net.outputs))
        numbers = tuple(before[number] for number in writes)
        all_ = numbers == tuple(range(len(net.outputs)))
        part: NetPart = replace(net.part, **place, writes=None if all_ else numbers)
        return replace(net, part=part)

    def _take_arguments(self) -> None:
        """All of each, but of keys and values a device has its own heads."""
        for arg in self.old.args:
            cache = self.plan.caches.get(arg) if self.parts.over == "device" else None
            own = cache and self.plan.kv_heads(cache[0])[self.number]
            if cache is None or own is None or own.size == arg.type.shape[cache[1]]:
                self.wholes[arg] = self.new.block.add_arg(arg.type, arg.name_hint)
                continue
            axis = cache[1]
            shape = (*arg.type.shape[:axis], own.size, *arg.type.shape[axis + 1 :])
            new = self.new.block.add_arg(replace(arg.type, shape=shape), arg.name_hint)
            self.pieces[arg, axis] = {own: new}

    # ---- values ----

    def add(self, op: OpT) -> OpT:
        return self.new.block.append(op)

    def remade(self, op: Op, operands: Sequence[Value], **changed: Any) -> Value:
        types = [result.type for result in op.results]
        copy = op.build(operands, types, {**op.attributes, **changed}, segments=op.segments, loc=op.loc)
        (copy.result.type,) = copy.infer_types()
        return self.add(copy).result

    def whole(self, value: Value) -> Value:
        if value not in self.wholes:
            op = value.owner
            if not isinstance(op, Op):
                self.old.fail(f"argument {value.index} is needed whole, of which each device has some heads")
            self._make(op)
        return self.wholes[value]

    def _make(self, op: Op) -> None:
        if op in self.plan.sums:
            self.wholes[op.results[0]] = self._sum(op)
        elif op in self.plan.choices:
            self.wholes[op.results[0]] = self._choice(op)
        else:
            self.wholes |= {operand: self.whole(operand) for operand in op.operands}
            self.add(op.clone(self.wholes))

    def piece(self, value: Value, axis: int, cut: Range) -> Value:
        if cut == Range(0, value.type.shape[axis]) and (value, axis) not in self.pieces:
            return self.whole(value)
        known = self.pieces.setdefault((value, axis), {})
        if cut not in known:
            known[cut] = self._piece(value, axis, cut, dict(known))
        return known[cut]

    def _piece(self, value: Value, axis: int, cut: Range, known: dict[Range, Value]) -> Value:
        """Of a larger piece, if there is one; else made by itself, or cut off."""
        if value in self.wholes and not llm.is_weight(value):
            return self._cut(self.wholes[value], axis, cut)
        for other, piece in known.items():
            if cut.within(other) == cut and not llm.is_weight(value):
                return self._cut(piece, axis, cut.moved(-other.start))
        op = value.owner
        made = None
        if isinstance(op, Op) and op not in self.plan.sums:
            made = piece_of(self, op, axis, cut)
        return made or self._cut(self.whole(value), axis, cut)

    def _cut(self, value: Value, axis: int, cut: Range) -> Value:
        loc = value.owner.loc if isinstance(value.owner, Op) else self.old.loc
        return self.add(llm.SliceOp(value, axis=axis, start=cut.start, stop=cut.stop, loc=loc)).y

    # ---- where parts meet ----

    def _sum(self, op: Op) -> Value:
        """The sum of all parts' terms, of which the first part's has what is added once."""
        term, y = self._term(op), op.results[0]
        return self.add(llm.AllReduceOp(term, over=self.parts.over, types=[y.type], loc=op.loc)).y

    def _term(self, op: Op) -> Value:
        cut = self.plan.sums[op][self.number]
        return self._linear(op, cut) if isinstance(op, llm.LinearOp) else self._experts(op, cut)

    def _linear(self, op: llm.LinearOp, cut: Range) -> Value:
        x = self.piece(op.x, op.x.type.rank - 1, cut)
        weight = self.piece(op.weight, 1, cut)
        other = op.residual.owner if op.residual is not None else None
        joins = isinstance(other, Op) and other in self.terms
        bias, residual = self._once(op.bias), None if joins else self._once(op.residual)
        term = self.add(llm.LinearOp(x, weight, bias, residual, partial=True, loc=op.loc)).y
        if not isinstance(other, Op) or not joins:
            return term
        return self.add(llm.AddOp(self._term(other), term, loc=op.loc)).y

    def _experts(self, op: Op, cut: Range) -> Value:
        assert isinstance(op, llm.ExpertsOp)
        operands = [
            *map(self.whole, (op.x, op.ids, op.weights)),
            *(value and self.piece(value, 1, cut) for value in (op.gate, op.up)),
            self.piece(op.down, 2, cut),
            *(value and self.piece(value, 1, cut) for value in (op.gate_bias, op.up_bias)),
            self._once(op.down_bias),
        ]
        settings = {**op.attributes, "partial": True}
        return self.add(llm.ExpertsOp(*operands, **settings, loc=op.loc)).y

    def _once(self, value: Value | None) -> Value | None:
        """What the first part adds alone; all make it, since parts may meet on the way."""
        made = value and self.whole(value)
        return made if self.number == 0 else None

    def _choice(self, op: Op) -> Value:
        assert isinstance(op, llm.ArgmaxOp)
        cut = self.plan.choices[op][self.number]
        x = self.piece(op.x, op.x.type.rank - 1, cut)
        own = self.add(llm.LargestOp(x, offset=cut.start, loc=op.loc))
        return self.add(llm.AllReduceArgmaxOp(own.value, own.index, over=self.parts.over, loc=op.loc)).y

    # ---- results ----

    def result(self, value: Value) -> Value | None:
        """What the part gives of a result; None where others give it."""
        if self.plan.is_empty:
            return self.whole(value)
        cache = self.plan.cache_of(value)
        if cache is not None:
            attention, axis = cache
            return self._heads(value, axis, self.plan.kv_heads(attention))
        last, cuts = value.type.rank - 1, self.plan.outputs.get(value)
        if cuts is None and self.parts.over == "core":
            cuts = even(value.type.shape[last], self.parts.unit, self.parts.count)
        if cuts is not None:
            return self._gathered(self.piece(value, last, cuts[self.number]), last, cuts)
        whole = self.whole(value)
        return whole if self.parts.over == "device" or self.number == 0 else None

    def _heads(self, value: Value, axis: int, held: Cuts) -> Value | None:
        """Keys or values: a device's own; of cores, each gives those that no later one has as well."""
        own = held[self.number]
        found = self.piece(value, axis, own)
        if self.parts.over == "device":
            return found
        starts = [*(cut.start for cut in held[1:]), held[-1].stop]
        given = tuple(cut.within(Range(0, start)) for cut, start in zip(held, starts, strict=True))
        if not given[self.number].size:
            return None
        return self._gathered(self.piece(value, axis, given[self.number]), axis, given)

    def _gathered(self, piece: Value, axis: int, cuts: Cuts) -> Value:
        sizes = tuple(cut.size for cut in cuts)
        if sum(size > 0 for size in sizes) == 1:
            return piece
        loc = piece.owner.loc if isinstance(piece.owner, Op) else self.old.loc
        return self.add(llm.AllGatherOp(piece, over=self.parts.over, axis=axis, sizes=sizes, loc=loc)).y
