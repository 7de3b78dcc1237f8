"""`diff`: what differs between two files: nets, shapes, weights, instructions, and cycles by both estimates.

Nets of layers that differ in the same way are told together.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property

from compiler.bmodel import BModel, Net, Stage, TensorInfo, read_bmodel
from compiler.diagnostics import CompileError
from compiler.target.isa import Instruction
from runtime_sim.launch.loader import Program, stage_names
from runtime_sim.launch.queues import CoreProgram
from runtime_sim.tool.info import tensor_text
from runtime_sim.tool.measured import Measured, measure_file

_SHOWN = 5  # instructions of a queue


def run(arguments: Namespace) -> int:
    first, second = Program(read_bmodel(arguments.file)), Program(read_bmodel(arguments.other))
    differences = list(Pair(first, second).differences())
    print("\n".join(differences) if differences else "the same chip, nets, programs and weights")
    return 1 if differences else 0


@dataclass
class Pair:
    """Two files."""

    first: Program
    second: Program
    _told: dict[tuple[int, int], list[str]] = field(default_factory=dict)  # of programs, equal ones once

    def differences(self) -> Iterator[str]:
        a, b = self.first.bmodel, self.second.bmodel
        if a.chip != b.chip:
            yield f"chip: {a.chip} | {b.chip}"
        yield from (f"net {name}: only in the first" for name in _missing(a, b))
        yield from (f"net {name}: only in the second" for name in _missing(b, a))
        found: list[tuple[str, list[str]]] = []
        for net in a.nets:
            if b.has_net(net.name):
                found += self.of_net(net, b.net(net.name))
        for names, texts in _alike(found):
            yield from (f"net {names}: {text}" for text in texts)
        if found:
            yield from self.of_model()

    def of_net(self, a: Net, b: Net) -> Iterator[tuple[str, list[str]]]:
        """What differs, by stage; what is of the whole net under the name of its first stage."""
        texts = []
        if a.addr_mode != b.addr_mode:
            texts.append(f"addr_mode {a.addr_mode.name} | {b.addr_mode.name}")
        if len(a.stages) != len(b.stages):
            texts.append(f"stages {len(a.stages)} | {len(b.stages)}")
        for name, left, right in zip(stage_names(a), a.stages, b.stages, strict=False):
            texts += _stage_differences(left, right)
            if left.cores != right.cores and not (left.unsupported or right.unsupported):
                texts += self.of_programs(name)
            if texts:
                yield name, texts
            texts = []

    def of_programs(self, name: str) -> Iterator[str]:
        cores = self.first.stage(name).cores, self.second.stage(name).cores
        for index, (one, other) in enumerate(zip(*cores, strict=False)):
            key = id(one), id(other)
            if key not in self._told:
                self._told[key] = list(_core_differences(one, other))
            yield from (f"core {index} {text}" if index else text for text in self._told[key])
        if self.timings:
            left, right = (each.model.nets[name] for each in self.timings)
            yield from _changes("cycles, plain", left.cycles, right.cycles)
            yield from _changes("cycles, cautious", left.cycles_cautious, right.cycles_cautious)

    @cached_property
    def timings(self) -> tuple[Measured, ...]:
        """Of both files; of none where a program waits forever, which `check` says."""
        with suppress(CompileError):
            return measure_file(self.first), measure_file(self.second)
        return ()

    def of_model(self) -> Iterator[str]:
        """The size of the file, and the time of the whole model where a program differs."""
        sizes = self.first.bmodel.file_bytes, self.second.bmodel.file_bytes
        yield from _changes("file, bytes", *sizes)
        timings = self.timings if self._told else ()
        if not timings or not all(each.model.is_whole for each in timings):
            return
        left, right = (each.model.as_dict() for each in timings)
        for key, name in (("cycles", "plain"), ("cycles_cautious", "cautious")):
            prefill = [each["prefill_seconds"][key] * 1e6 for each in (left, right)]
            yield from _changes(f"prefill of the model, microseconds, {name}", *map(round, prefill))
            token = [1e6 / each["tokens_per_second"][key] for each in (left, right)]
            yield from _changes(f"a token of the model, microseconds, {name}", *map(round, token))


def _changes(what: str, one: int, other: int) -> Iterator[str]:
    if one != other:
        share = f" ({other / one - 1:+.1%})" if one else ""
        yield f"{what}: {one:,} | {other:,}{share}"


def _alike(found: Sequence[tuple[str, list[str]]]) -> Iterator[tuple[str, list[str]]]:
    """Stages that differ in the same way together, those of one kind of net."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, texts in found:
        groups.setdefault((name.rstrip("0123456789."), *texts), []).append(name)
    for (_, *texts), names in groups.items():
        more = f" .. {names[-1]} ({len(names)} nets)" if len(names) > 1 else ""
        yield names[0] + more, texts


def _missing(given: BModel, other: BModel) -> list[str]:
    return [net.name for net in given.nets if not other.has_net(net.name)]


def _stage_differences(a: Stage, b: Stage) -> Iterator[str]:
    for what in ("inputs", "outputs"):
        yield from _tensor_differences(what, getattr(a, what), getattr(b, what))
    for what in ("ctx_address", "ctx_size", "io_address", "io_size"):
        if getattr(a, what) != getattr(b, what):
            yield f"{what}: {getattr(a, what):#x} | {getattr(b, what):#x}"
    if _weights(a) != _weights(b):
        yield _weight_difference(a, b)
    if len(a.cores) != len(b.cores):
        yield f"cores: {len(a.cores)} | {len(b.cores)}"


def _tensor_differences(what: str, a: Sequence[TensorInfo], b: Sequence[TensorInfo]) -> Iterator[str]:
    """Those that only lie elsewhere are counted, since one larger blob moves them all."""
    moved = 0
    for left, right in zip(a, b, strict=False):
        if replace(left, address=right.address) != right:
            yield f"{tensor_text(left)} | {tensor_text(right)}"
        else:
            moved += left.address != right.address
    if moved:
        yield f"{what}: {moved} at other addresses"
    if len(a) != len(b):
        yield f"{what}: {len(a)} | {len(b)}"


def _weights(stage: Stage) -> tuple[int, bytes]:
    return (stage.coeff.size, stage.coeff.check_code) if stage.coeff else (0, b"")


def _weight_difference(a: Stage, b: Stage) -> str:
    (one, _), (other, _) = _weights(a), _weights(b)
    return f"weights: {one:,} bytes | {other:,}" if one != other else f"weights: {one:,} bytes, other content"


def _core_differences(one: CoreProgram, other: CoreProgram) -> Iterator[str]:
    yield from _queue_differences("tiu", one.tiu, other.tiu)
    yield from _queue_differences("dma", one.dma, other.dma)


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
