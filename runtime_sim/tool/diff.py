"""`diff`: what differs between two files."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence

from compiler.bmodel import BModel, Net, Stage, read_bmodel
from compiler.target.isa import Instruction
from runtime_sim.launch.loader import Program, stage_names

_SHOWN = 5  # instructions of a queue


def run(arguments: Namespace) -> int:
    first, second = Program(read_bmodel(arguments.file)), Program(read_bmodel(arguments.other))
    differences = list(_differences(first, second))
    print("\n".join(differences) if differences else "the same chip, nets, programs and weights")
    return 1 if differences else 0


def _differences(first: Program, second: Program) -> Iterator[str]:
    a, b = first.bmodel, second.bmodel
    if a.chip != b.chip:
        yield f"chip: {a.chip} | {b.chip}"
    yield from (f"net {name}: only in the first" for name in _missing(a, b))
    yield from (f"net {name}: only in the second" for name in _missing(b, a))
    for net in a.nets:
        if b.has_net(net.name):
            yield from _net_differences(net, b.net(net.name), first, second)


def _missing(given: BModel, other: BModel) -> list[str]:
    return [net.name for net in given.nets if not other.has_net(net.name)]


def _net_differences(a: Net, b: Net, first: Program, second: Program) -> Iterator[str]:
    if a.addr_mode != b.addr_mode:
        yield f"net {a.name}: addr_mode {a.addr_mode.name} | {b.addr_mode.name}"
    if len(a.stages) != len(b.stages):
        yield f"net {a.name}: stages {len(a.stages)} | {len(b.stages)}"
    for name, left, right in zip(stage_names(a), a.stages, b.stages, strict=False):
        yield from (f"net {name}: {text}" for text in _stage_differences(left, right))
        if left.cores != right.cores and not (left.unsupported or right.unsupported):
            cores = (first.stage(name).cores, second.stage(name).cores)
            for index, (one, other) in enumerate(zip(*cores, strict=False)):
                where = f"net {name}: " + (f"core {index} " if index else "")
                yield from (where + text for text in _queue_differences("tiu", one.tiu, other.tiu))
                yield from (where + text for text in _queue_differences("dma", one.dma, other.dma))


def _stage_differences(a: Stage, b: Stage) -> Iterator[str]:
    for what in ("inputs", "outputs"):
        for left, right in zip(getattr(a, what), getattr(b, what), strict=False):
            if left != right:
                yield f"{left} | {right}"
        counts = len(getattr(a, what)), len(getattr(b, what))
        if counts[0] != counts[1]:
            yield f"{what}: {counts[0]} | {counts[1]}"
    for what in ("ctx_address", "ctx_size", "io_address", "io_size"):
        if getattr(a, what) != getattr(b, what):
            yield f"{what}: {getattr(a, what):#x} | {getattr(b, what):#x}"
    if _weights(a) != _weights(b):
        yield f"weights: {_weights(a)} | {_weights(b)}"
    if len(a.cores) != len(b.cores):
        yield f"cores: {len(a.cores)} | {len(b.cores)}"


def _weights(stage: Stage) -> str:
    return f"{stage.coeff.size} bytes {stage.coeff.check_code.hex()[:12]}" if stage.coeff else "none"


def _queue_differences(engine: str, a: Sequence[Instruction], b: Sequence[Instruction]) -> Iterator[str]:
    if len(a) != len(b):
        yield f"{engine}: {len(a)} instructions | {len(b)}"
    different = [number for number, (x, y) in enumerate(zip(a, b, strict=False)) if x != y]
    for number in different[:_SHOWN]:
        yield f"{engine} {number + 1}: {_changed(a[number], b[number])}"
    if len(different) > _SHOWN:
        yield f"{engine}: {len(different) - _SHOWN} more instructions differ"


def _changed(a: Instruction, b: Instruction) -> str:
    if (a.name, a.kind) != (b.name, b.kind):
        return f"{a.name}.{a.kind} | {b.name}.{b.kind}"
    fields = [name for name in a.fields if a.fields[name] != b.fields.get(name)]
    return f"{a.name}.{a.kind} " + ", ".join(
        f"{name} {a.fields[name]} | {b.fields.get(name)}" for name in fields
    )
