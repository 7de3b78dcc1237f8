"""Programs that do the work of one together: the parts of a net, on cores of a chip or on several devices.

A pass makes one function of each part: straight-line programs that run at the same time, each on its own
values, and meet in collectives, all in the same ones and in the same order, as in MPI. Which part a function
is stands in its `bm.net`, as `dialects.nets.NetPart`.
"""

from __future__ import annotations

from typing import Literal

from compiler.ir.core import Op, Value
from compiler.ir.module import Function
from compiler.ir.types import TensorType, Type
from dialects.nets import KEY, WHOLE, NetAttr, NetPart
from dialects.shapes import check_axis

Over = Literal["core", "device"]


class Collective(Op):
    """Trait of the ops in which the parts of a net meet; `over` says which parts. They are defined with
    effects: all are there on all parts, whoever reads the results.
    """

    over: Over

    def takes_part(self, number: int) -> bool:
        """Whether the part of that number meets the others here."""
        return True


class Gathers(Collective):
    """Trait of the ops that put the parts' x one after the other along `axis`; `sizes` has how long each
    is. A part with 0 has nothing of it, and takes no part.
    """

    x: Value[TensorType]
    axis: int
    sizes: tuple[int, ...]

    def takes_part(self, number: int) -> bool:
        return self.sizes[number] > 0

    def infer_types(self) -> tuple[Type, ...]:
        shape = list(self.x.type.shape)
        shape[self.axis] = sum(self.sizes)
        return (TensorType(tuple(shape), self.x.type.element),)

    def check_sizes(self) -> None:
        check_axis(self, self.axis, self.x.type)
        number, count = place_of(self, self.over)
        own = self.x.type.shape[self.axis]
        if len(self.sizes) != count or min(self.sizes) < 0 or self.sizes[number] != own:
            self.fail(f"joins parts of sizes {list(self.sizes)}, where number {number} of {count} has {own}")


def part_name(whole: str, over: Over, number: int) -> str:
    """What the function of a part is called."""
    return f"{whole}.{over}{number}"


def part_of(function: Op | None) -> NetPart:
    """Which part of a net a function is; the whole, where it does not say."""
    net = function.attributes.get(KEY) if isinstance(function, Function) else None
    return net.part if isinstance(net, NetAttr) else WHOLE


def place_of(op: Op, over: Over) -> tuple[int, int]:
    """The number of an op's function among the parts of that kind, and how many there are."""
    return part_of(op.parent_op).place(over)
