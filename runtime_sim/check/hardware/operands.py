"""Rules about where operands lie: alignment, bounds, lanes, overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

from compiler.target.isa import Instruction
from compiler.target.spec import ChipSpec
from runtime_sim.check.hardware.overlap import may_share, place_of, share_bytes
from runtime_sim.check.ranges import Access

OperandRule = Callable[[Instruction, Sequence[Access], ChipSpec], Iterator[str]]

FIRST_LANE = {  # what has to start on lane 0
    "mm2.nn": "opd1",
    "mm2.nt": "opd1",
    "mm.normal": "opd0",
    "tsbc.cw_ts": "opd0",
    "tsbc.wc_ts": "res0",
}
FREE_LANE = {  # what need not start on the lane of the others
    "mm2.nn": ("opd1",),
    "mm2.nt": ("opd1",),
    "tsbc": ("opd0", "res0"),
}
IN_PLACE = ("ar", "cmp", "tsbc.l_bc")  # what the vendor's programs run in place


def _name(instruction: Instruction) -> str:
    return f"{instruction.name}.{instruction.kind}"


def _alignment(instruction: Instruction, touched: Sequence[Access], spec: ChipSpec) -> Iterator[str]:
    for access in touched:
        if tensor := access.tensor:
            unit = spec.eu_bytes if tensor.eu_aligned else tensor.nibbles // 2 or 1
            if tensor.address % unit:
                yield f"{access.operand} at {tensor.address:#x} is not a multiple of {unit} bytes"


def _bounds(instruction: Instruction, touched: Sequence[Access], spec: ChipSpec) -> Iterator[str]:
    for access in touched:
        tensor = access.tensor
        if access.is_local and tensor and tensor.address >= spec.local_bytes:
            yield f"{access.operand} at {tensor.address:#x} is on no lane"
        elif access.is_local and any(box.end > spec.lane_bytes for box in access.boxes):
            end = max(box.end for box in access.boxes)
            yield f"{access.operand} ends at byte {end:#x} of a lane of {spec.lane_bytes:#x}"


def _static_memory(instruction: Instruction, touched: Sequence[Access], spec: ChipSpec) -> Iterator[str]:
    fields = instruction.fields
    items = {"tsbc.s_bc": "res0_w", "tsbc.s_distribute": "res0_c"}.get(_name(instruction))
    if items is not None and touched[0].tensor:
        start = fields["opd0_addr"] - spec.tiu_static_base
        end = start + fields[items] * touched[0].tensor.nibbles // 2
        if start < 0 or end > spec.static_bytes:
            yield f"opd0 at {fields['opd0_addr']:#x} is not all in static memory"


def _lanes(instruction: Instruction, touched: Sequence[Access], spec: ChipSpec) -> Iterator[str]:
    if instruction.engine == "dma":
        return
    lanes = {access.operand: access.tensor.address // spec.lane_bytes for access in touched if access.tensor}
    first = FIRST_LANE.get(_name(instruction))
    if first and lanes.get(first, 0):
        yield f"{first} starts on lane {lanes[first]}, expected lane 0"
    free = FREE_LANE.get(_name(instruction)) or FREE_LANE.get(instruction.name, ())
    bound = {operand: lane for operand, lane in lanes.items() if operand not in free}
    if len(set(bound.values())) > 1:
        yield "starts on different lanes: " + ", ".join(f"{key} on {lane}" for key, lane in bound.items())


def _overlap(instruction: Instruction, touched: Sequence[Access], spec: ChipSpec) -> Iterator[str]:
    """A result shares no byte with another operand; what a sum starts from is the result itself."""
    for first, second in combinations(touched, 2):
        result, other = (second, first) if second.write else (first, second)
        if not result.write or result.operand == other.operand or not may_share(result, other):
            continue
        if not _is_in_place(instruction, result, other, spec) and share_bytes(result, other, spec):
            yield f"{result.operand} overlaps {other.operand}"


def _is_in_place(instruction: Instruction, result: Access, other: Access, spec: ChipSpec) -> bool:
    """Whether every item of the result takes the place of an operand's, in an instruction that may do so."""
    may_be = instruction.name in IN_PLACE or _name(instruction) in IN_PLACE
    target, source = result.tensor, other.tensor
    if not may_be or other.write or not target or not source:
        return False
    if _name(instruction) == "tsbc.l_bc":  # its source is the result's first channel
        target = target._replace(shape=(target.shape[0], 1, *target.shape[2:]))
    return place_of(target, spec) == place_of(source, spec)


OPERAND_RULES: tuple[OperandRule, ...] = (_alignment, _bounds, _static_memory, _lanes, _overlap)
