"""Store the sums of one run of tokens between the products of the next one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

from compiler.ir.core import Op, Value
from compiler.ir.module import Function, Module
from dialects import tensor
from dialects.contents import Content
from passes.chip.reorder import reorder
from passes.manager import Pass

STEPS = (tensor.SliceOp, tensor.LoadOp, tensor.AddOp, tensor.CastOp)


@dataclass(frozen=True)
class SpreadSums(Pass):
    """tensor -> tensor. Move sums that are stored in between the products before them, one behind the other.

    What parts of a net add up is loaded, added and stored, which takes the DMA long and the compute engine
    hardly any time: both are at work where products of other tokens stand in between. Sums that are read by
    anything else stay where they are.
    """

    name: ClassVar[str] = "spread-sums"
    takes = Content.TENSOR | Content.TILED

    def run(self, module: Module) -> None:
        for function in module.functions():
            spread_sums(function)


@dataclass(frozen=True)
class Sum:
    """The ops that make and store one, all of which are behind those that make what they read."""

    ops: Sequence[Op]
    read: Collection[Op]


def spread_sums(function: Function) -> None:
    """Those that could stand behind the same op share the products that are between it and their place."""
    ops = list(function.block.ops)
    places = {op: place for place, op in enumerate(ops)}
    products = [place for place, op in enumerate(ops) if isinstance(op, tensor.LinearOp)]
    moved: dict[Op, int] = {}
    for ready, found in groupby(sums_of(ops), key=lambda each: max(map(places.__getitem__, each.read))):
        sums = list(found)
        first = min(places[op] for op in sums[0].ops)
        between = products[bisect_left(products, ready) : bisect_left(products, first)]
        for number, each in enumerate(sums if between else (), 1):
            product = between[number * len(between) // (len(sums) + 1)]
            moved |= dict.fromkeys(each.ops, product)
    reorder(function, lambda place: (moved.get(ops[place], place), place))


def sums_of(ops: Iterable[Op]) -> Iterator[Sum]:
    for op in ops:
        if isinstance(op, tensor.StoreOp):
            made: dict[Op, None] = {op: None}
            read: dict[Op, None] = {}
            if is_sum(op.value, made, read):
                yield Sum([*made], [*read])


def is_sum(x: Value, made: dict[Op, None], read: dict[Op, None]) -> bool:
    """Whether x is made of nothing but what parts of the net have sent, for one op alone."""
    op = x.owner
    if isinstance(op, tensor.ReceiveOp) or (isinstance(op, tensor.SliceOp) and not x.has_one_use()):
        read[op] = None
        return tensor.in_ddr(x.type) and isinstance(source_of(x).owner, tensor.ReceiveOp)
    if not isinstance(op, STEPS) or not x.has_one_use():
        return False
    made[op] = None
    return all([is_sum(operand, made, read) for operand in op.operands])


def source_of(x: Value) -> Value:
    """What x is some of."""
    part = x.defining(tensor.SliceOp)
    return x if part is None else source_of(part.x)
