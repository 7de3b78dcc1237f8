"""Give every region of DDR the address by which DMA commands name it.

Weights come first, then inputs and outputs, then scratch: one behind the other, or each from a base of its
own, as the chip has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

from compiler.ir.module import Function, Module
from compiler.sizes import round_up
from compiler.target.attribute import target_of
from compiler.target.spec import ChipSpec
from dialects.chip import GlobalOp
from dialects.contents import Content
from dialects.nets import has_memory_of_its_own, net_of, programs_of, stages_of
from dialects.weights import WeightSource
from passes.manager import Pass

PAGE = 4096  # regions that the runtime moves are whole pages
WEIGHT_ALIGNMENT = 256  # bytes; a shorter DMA burst costs as much

Room = Mapping[tuple[str, int | None], int]  # bytes for inputs and outputs, by space and index


@dataclass(frozen=True)
class AssignAddresses(Pass):
    """chip -> chip. Place weights, inputs, outputs and scratch memory in DDR.

    All functions of the module share one blob of weights, so equal sources get equal addresses. In each
    function inputs and outputs follow each other in the order of the signature, integers last, then scratch.
    So what `embedding` writes and what a block reads first start at the same place, as clients that copy from
    one to the other need. They are part of the scratch memory, except where the client keeps an input for a
    session: such a net has memory of its own for them. All its stages have their inputs and outputs where the
    others have them, with room for the largest: the runtime gives them one memory, where what a client keeps
    serves each of them. The functions of a net's cores work in one memory too: inputs, outputs and what they
    share are the same for all, and the scratch memory of each is its own.
    """

    name: ClassVar[str] = "assign-addresses"
    takes = ~(Content.LLM | Content.TENSOR | Content.WHOLE | Content.TILED | Content.ADDRESSED)
    ends = Content.UNADDRESSED
    leaves = Content.ADDRESSED
    changes = (Function, GlobalOp)

    def run(self, module: Module) -> None:
        spec = target_of(module)
        end = assign_weights(module, spec)
        for cores in (cores for net in stages_of(module.functions()) for cores in programs_of(net)):
            room = room_of(chain(*cores))
            for stage in zip(*cores, strict=True):
                assign_stage(stage, room, spec, end)


def globals_of(function: Function, *spaces: str) -> Iterator[GlobalOp]:
    """The DDR regions of some spaces; inputs and outputs in the order of the signature."""
    found = [op for op in function.block.ops.listed() if isinstance(op, GlobalOp) and op.space in spaces]
    yield from sorted(found, key=lambda op: (spaces.index(op.space), op.index or 0))


def assign_weights(module: Module, spec: ChipSpec) -> int:
    """Addresses of the pieces of the blob; returns the blob's end.

    Pieces follow each other in order of first use, those of one weight together: it is then quantized once.
    """
    regions = [op for function in module.functions() for op in globals_of(function, "weight")]
    by_weight: dict[object, dict[WeightSource, int]] = {}
    for op in regions:
        source = weight_source(op)
        by_weight.setdefault(getattr(source, "names", source), {})[source] = op.buffer.type.bytes
    known: dict[WeightSource, int] = {}
    end = spec.coeff_base
    for source, size in (item for pieces in by_weight.values() for item in pieces.items()):
        known[source] = end
        end = round_up(end + size, WEIGHT_ALIGNMENT)
    for op in regions:
        op.address = known[weight_source(op)]
    return end


def weight_source(op: GlobalOp) -> WeightSource:
    assert op.source is not None, f"{op} does not say what it holds"
    return op.source


def regions_of(functions: Iterable[Function], *spaces: str) -> list[list[GlobalOp]]:
    """Inputs, outputs or shared regions in order, each by what the functions of all cores call it."""
    found: dict[tuple[int, int], list[GlobalOp]] = {}
    for op in (op for function in functions for op in globals_of(function, *spaces)):
        found.setdefault((spaces.index(op.space), op.index or 0), []).append(op)
    return [found[key] for key in sorted(found)]


def room_of(stages: Iterable[Function]) -> Room:
    """What the largest stage needs for each input and output."""
    room: dict[tuple[str, int | None], int] = {}
    for op in (op for function in stages for op in globals_of(function, "input", "output")):
        room[op.space, op.index] = max(room.get((op.space, op.index), 0), op.buffer.type.bytes)
    return room


def assign_stage(cores: Sequence[Function], room: Room, spec: ChipSpec, weights_end: int) -> None:
    """Record the start of the I/O and scratch memory on the functions of a stage, with the sizes."""
    alone = has_memory_of_its_own(cores[0])
    scratch = start = (spec.io_start if alone else spec.neuron_base) or round_up(weights_end, PAGE)
    end = place(sorted(regions_of(cores, "input", "output"), key=is_integer), start, room)
    known = {}
    if alone:
        known = {"bm.io_address": start, "bm.io_bytes": end - start}
        scratch = end = spec.neuron_base or end
    end = place(regions_of(cores, "shared"), end, {})
    end = place(([op] for function in cores for op in globals_of(function, "scratch")), end, {})
    size = max(end - scratch, PAGE)  # the runtime refuses a net without any
    known |= {"bm.scratch_address": scratch, "bm.scratch_bytes": size}
    for function in cores:
        function.attributes = {**function.attributes, **known}


def is_integer(region: Sequence[GlobalOp]) -> bool:
    return region[0].tensor is not None and not region[0].tensor.element.is_float


def place(regions: Iterable[Sequence[GlobalOp]], start: int, room: Room) -> int:
    """Put regions one after the other from a page's start on; the start of the page behind them."""
    for ops in regions:
        for op in ops:
            op.address = start
        size = max(op.buffer.type.bytes for op in ops)
        start = round_up(start + room.get((ops[0].space, ops[0].index), size), PAGE)
    return start


def set_apart(functions: Sequence[Function]) -> None:
    """Move what flexible nets keep for a session behind all that the others work in.

    They share their memory with the other nets, which are only known when all modules are compiled.
    """
    apart = [function for function in functions if net_of(function).flexible]
    others = [function.attributes["bm.scratch_bytes"] for function in functions if function not in apart]
    room = round_up(max(others, default=0), PAGE)
    for function in apart:
        for op in globals_of(function, "input", "output", "shared", "scratch"):
            op.address = (op.address or 0) + room
        size = function.attributes["bm.scratch_bytes"] + room
        function.attributes = {**function.attributes, "bm.scratch_bytes": size}
        room = round_up(size, PAGE)
