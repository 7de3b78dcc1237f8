"""Nets as clients call them: one by itself, or a cascade of several that work on several devices, in steps.

What a step leaves for later ones is hidden from the client. The runtime keeps it in a buffer of each device,
where the outputs of a step lie from its start on, whatever other steps have there. Source: Bmruntime of
Sophgo's tpu-runtime (cascade_update_hidden_buffer), and its libraries, which do the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from compiler.bmodel.container import Net, TensorInfo
from compiler.sizes import round_up

HIDDEN_ALIGNMENT = 4096  # bytes
# On so many devices of one card the runtime takes a cascade that begins with one net on each of them for one
# of the vendor's, and puts a sum of its own in the place of later steps. A first step of more nets is let be.
SUMMED_BY_RUNTIME = (4, 6, 8)


@dataclass(frozen=True)
class Part:
    """An input or output of the callable net, and the net that it belongs to."""

    net: Net
    info: TensorInfo


@dataclass(frozen=True, eq=False)
class MainNet:
    """What clients call `name`: nets in the order of the file."""

    name: str
    nets: tuple[Net, ...]

    @property
    def is_cascade(self) -> bool:
        return self.nets[0].cascade is not None

    @property
    def steps(self) -> list[list[Net]]:
        found: dict[int, list[Net]] = {}
        for net in self.nets:
            found.setdefault(step_of(net), []).append(net)
        return [found[step] for step in sorted(found)]

    @property
    def inputs(self) -> list[Part]:
        """Device by device, in the order of their indices; what several steps read, once."""
        found: dict[tuple[str, int], Part] = {}
        for part in self._parts("inputs"):
            found.setdefault((part.info.name, part.net.device), part)
        return in_order(found.values())

    @property
    def outputs(self) -> list[Part]:
        return in_order(self._parts("outputs"))

    def _parts(self, which: str) -> Iterator[Part]:
        return (
            Part(net, info)
            for step in self.steps
            for net in step
            for info in getattr(net.stages[0], which)
            if not info.hidden
        )

    def hidden_places(self) -> dict[tuple[str, int], range]:
        """Where the runtime keeps each hidden output, by name and device: bytes of the device's buffer."""
        found: dict[tuple[str, int], range] = {}
        for step in self.steps:
            ends: dict[int, int] = {}
            for net in step:
                for info in (info for info in net.stages[0].outputs if info.hidden):
                    start = ends.get(net.device, 0)
                    found[info.name, net.device] = range(start, start + info.size)
                    ends[net.device] = round_up(start + info.size, HIDDEN_ALIGNMENT)
        return found


def main_nets(nets: Iterable[Net]) -> list[MainNet]:
    """What clients can call, in the order of the file."""
    found: dict[tuple[str, bool], list[Net]] = {}
    for net in nets:
        found.setdefault((net.main_name, net.cascade is not None), []).append(net)
    return [MainNet(name, tuple(each)) for (name, _), each in found.items()]


def step_of(net: Net) -> int:
    return net.cascade.step if net.cascade else 0


def in_order(parts: Iterable[Part]) -> list[Part]:
    return sorted(parts, key=lambda part: (part.net.device, part.info.index))
