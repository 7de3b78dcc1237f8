"""What a file takes of a device's memory when clients run it, by kind."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from compiler.bmodel.container import BModel, Coeff, Net
from compiler.client_nets import BLOCK_CACHE, kind_of

HISTORY = 3  # inputs of a step of decode from here on: keys and values of what was before


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes on one device. The runtime uploads equal blobs once, nets share one scratch memory, and those
    whose inputs and outputs outlive a launch have these by themselves, caches among them.
    """

    weights: int
    blobs: int  # how many they are
    caches: int
    io: int  # other inputs and outputs
    scratch: int
    instructions: int  # of each net, also where others have the same

    @property
    def total(self) -> int:
        return self.weights + self.caches + self.io + self.scratch + self.instructions


def device_memory(bmodel: BModel, device: int = 0) -> DeviceMemory:
    nets = [net for net in bmodel.nets if net.device == device]
    stages = [stage for net in nets for stage in net.stages]
    blobs = {key_of(stage.coeff): stage.coeff.size for stage in stages if stage.coeff}
    caches = sum(map(cache_bytes, nets))
    cores = [core for stage in stages for core in (*stage.cores, *stage.idle)]
    return DeviceMemory(
        weights=sum(blobs.values()),
        blobs=len(blobs),
        caches=caches,
        io=sum(max(stage.io_size for stage in net.stages) for net in nets) - caches,
        scratch=max((stage.ctx_size for stage in stages), default=0),
        instructions=sum(len(core.tiu) + len(core.dma) for core in cores),
    )


def key_of(coeff: Coeff) -> Hashable:
    """What the runtime knows a blob by; before a file is written, what the writer does."""
    return (coeff.check_code, coeff.size) if coeff.check_code else coeff.blob.key


def cache_bytes(net: Net) -> int:
    """Of the keys and values that a step of decode keeps: all its stages have them in one place."""
    stage = net.stages[0]
    if kind_of(net.main_name)[0] != BLOCK_CACHE or not stage.io_size:
        return 0
    return sum(tensor.size for tensor in stage.inputs[HISTORY:] if not tensor.hidden)
