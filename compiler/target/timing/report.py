"""The figures of a net and of a model: both estimates, work, roofline, and what bounds them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from compiler.client_nets import (
    BLOCK,
    BLOCK_CACHE,
    EMBEDDING,
    EMBEDDING_CACHE,
    GREEDY_HEAD,
    LM_HEAD,
    layer_count,
    net_name,
    stage_name,
)
from compiler.target.costs import LOAD, MOVE, STORE, Costs
from compiler.target.isa import Instruction
from compiler.target.spec import ChipSpec
from compiler.target.timing.dma import DmaModel
from compiler.target.timing.schedule import Streams, Timeline, estimate_cores
from compiler.target.timing.tiu import blocked_matmul_sizes, matmul_sizes

BUSY = 0.9  # an engine that works this part of the time is what bounds a program

# What the vendor's estimate was seen with. The cost of everything else is a guess on the high side.
SEEN = {
    "ar": None,
    "sys": None,
    "dma_sys": None,
    "cmp": None,
    "sfu": {"rsqrt", "taylor_4x", "taylor"},
    "pord": {"avgpooling", "maxpooling"},
    "mm2": {"nn", "nt"},
    "mm": {"normal"},
    "tsbc": {"l_bc", "s_bc", "cw_ts", "wc_ts"},
}
SEEN_WAYS = {
    ("dma_tensor", "copy"): {LOAD, STORE},
    ("dma_tensor", "transpose"): {LOAD, STORE},
    ("dma_tensor", "broadcast"): {LOAD},
    ("dma_matrix", "copy"): {LOAD, STORE},
    ("dma_gather", "copy"): {MOVE},
}


@dataclass
class Work:
    """What a program moves and computes, whenever it does so."""

    ddr_read: int = 0  # bytes
    ddr_write: int = 0  # bytes
    dma_commands: int = 0
    macs: int = 0  # multiply-accumulates of matrix products; vector instructions count none
    dma_bound: float = 0.0  # cycles of the bytes, if each command ran at the best rate of its direction
    guessed: Counter[str] = field(default_factory=Counter)  # instructions whose cost was never seen, by kind

    def bound(self, costs: Costs, cores: int = 1) -> int:
        """The roofline: the least cycles that the bytes or the products need, whichever is more."""
        return int(max(self.dma_bound, self.macs / costs.macs_per_cycle) / cores)

    def shared(self, spec: ChipSpec, cores: int) -> int:
        """Cycles of the DDR that several cores share, if it never rested; 0 for one core."""
        rate = spec.costs.shared_rate if cores > 1 else None
        return int((self.ddr_read + self.ddr_write) * (rate or 0) * spec.dma_cycle)


def work_of(cores: Iterable[Streams], spec: ChipSpec) -> Work:
    """What the instructions of all cores move and compute."""
    work = Work()
    model = DmaModel(spec)
    for core in cores:
        for instruction in core.dma:
            if instruction.name != "dma_sys":
                _count_dma(work, instruction, model)
        for instruction in core.tiu:
            work.macs += macs(instruction)
            if not _is_seen(instruction):
                work.guessed[f"{instruction.name}.{instruction.kind}"] += 1
    return work


def _count_dma(work: Work, instruction: Instruction, model: DmaModel) -> None:
    traffic = model.traffic(instruction.name, instruction.kind, instruction.fields)
    way = model.direction(instruction.fields)
    work.dma_commands += 1
    work.ddr_read += traffic.read
    work.ddr_write += traffic.written
    work.dma_bound += traffic.data * model.spec.costs.best_rate(way)
    if way not in SEEN_WAYS.get((instruction.name, instruction.kind), ()):
        work.guessed[f"{instruction.name}.{instruction.kind} {way}"] += 1


def macs(instruction: Instruction) -> int:
    """Multiply-accumulates of a matrix product; 0 for everything else."""
    if instruction.name == "mm2":
        rows, inner, columns = matmul_sizes(instruction.kind, instruction.fields)
    elif instruction.name == "mm":
        rows, inner, columns = blocked_matmul_sizes(instruction.fields)
    else:
        return 0
    return rows * inner * columns


def _is_seen(instruction: Instruction) -> bool:
    kinds = SEEN.get(instruction.name, set())
    return kinds is None or instruction.kind in kinds


@dataclass(frozen=True)
class NetTiming:
    """A net in both estimates; the timelines are one per core."""

    net: str
    plain: Sequence[Timeline]
    cautious: Sequence[Timeline]
    cautious_banks: int  # cycles of the cautious estimate with the cost of bank conflicts
    work: Work
    roofline: int  # cycles
    shared_ddr: int  # cycles for which all bytes keep DDR busy, by the cautious estimate; 0 for one core

    @property
    def cycles(self) -> int:
        return total(self.plain)

    @property
    def cycles_cautious(self) -> int:
        return total(self.cautious)

    @property
    def roofline_cautious(self) -> int:
        return max(self.roofline, self.shared_ddr)

    @property
    def bound_cautious(self) -> str:
        """What bounds a program in the cautious estimate: DDR, where cores that share it leave it no rest."""
        busy_ddr = self.shared_ddr and self.shared_ddr >= BUSY * self.cycles_cautious
        return "ddr" if busy_ddr else bound(self.cautious)

    def as_dict(self) -> dict[str, Any]:
        return {
            "net": self.net,
            "cycles": self.cycles,
            "cycles_cautious": self.cycles_cautious,
            "cycles_cautious_banks": self.cautious_banks,
            "ddr_read": self.work.ddr_read,
            "ddr_write": self.work.ddr_write,
            "dma_commands": self.work.dma_commands,
            "tiu_busy": busy(self.plain, "tiu"),
            "gdma_busy": busy(self.plain, "dma"),
            "tiu_busy_cautious": busy(self.cautious, "tiu"),
            "gdma_busy_cautious": busy(self.cautious, "dma"),
            "macs": self.work.macs,
            "roofline": self.roofline,
            "roofline_cautious": self.roofline_cautious,
            "bound": bound(self.plain),
            "bound_cautious": self.bound_cautious,
            "guessed": dict(self.work.guessed),
        }


def measure(net: str, cores: Sequence[Streams], spec: ChipSpec) -> NetTiming:
    """Both estimates of a net and its work."""
    work = work_of(cores, spec)
    return NetTiming(
        net,
        plain=estimate_cores(cores, spec),
        cautious=estimate_cores(cores, spec, cautious=True),
        cautious_banks=total(estimate_cores(cores, spec, cautious=True, banks=True)),
        work=work,
        roofline=work.bound(spec.costs, len(cores)),
        shared_ddr=work.shared(spec, len(cores)),
    )


def total(cores: Iterable[Timeline]) -> int:
    """The cycles until the last core is done."""
    return max(core.total for core in cores)


def busy(cores: Iterable[Timeline], engine: str) -> int:
    """The cycles during which an engine works, on the core where that is most."""
    return max((core.tiu if engine == "tiu" else core.dma).busy for core in cores)


def bound(cores: Sequence[Timeline]) -> str:
    """What bounds a program: an engine that hardly rests, or that the engines take turns."""
    end = total(cores) or 1
    tiu, dma = busy(cores, "tiu"), busy(cores, "dma")
    if max(tiu, dma) < BUSY * end:
        return "waits"
    return "dma" if dma >= tiu else "tiu"


@dataclass(frozen=True)
class ModelTiming:
    """Prefill and decode of a whole model, from the figures of its nets by name."""

    nets: Mapping[str, NetTiming]
    mhz: int

    @cached_property
    def layers(self) -> int:
        """Layers whose two nets are both there, counted from 0 as clients do."""
        return layer_count(self.nets.__contains__)

    @property
    def is_whole(self) -> bool:
        return self.layers > 0 and LM_HEAD in self.nets

    def prefill(self) -> list[NetTiming]:
        """The nets that a prompt runs through, as often as they run."""
        return self._chain(EMBEDDING, BLOCK)

    def decode(self, stage: int = 0) -> list[NetTiming]:
        """The nets that one token runs through, where clients choose this stage."""
        return self._chain(EMBEDDING_CACHE, BLOCK_CACHE, stage)

    def _chain(self, embedding: str, block: str, stage: int = 0) -> list[NetTiming]:
        blocks = [stage_name(net_name(block, layer), stage) for layer in range(self.layers)]
        names = [embedding, *blocks, LM_HEAD, GREEDY_HEAD]
        return [self.nets[name] for name in names if name in self.nets]

    def seconds(self, cycles: float) -> float:
        return cycles / (self.mhz * 1e6)

    def as_dict(self) -> dict[str, Any]:
        """Seconds of a prefill and tokens per second, each in both estimates and by the roofline."""
        prefill = _sums(self.prefill())
        return {
            "layers": self.layers,
            "prefill_seconds": {key: self.seconds(value) for key, value in prefill.items()},
            "tokens_per_second": self.speed(),
        }

    def speed(self, stage: int = 0) -> dict[str, float]:
        """Tokens per second of decode in a stage."""
        sums = _sums(self.decode(stage))
        return {key: 1 / self.seconds(max(value, 1)) for key, value in sums.items()}


def _sums(nets: Iterable[NetTiming]) -> dict[str, int]:
    nets = list(nets)
    return {
        "cycles": sum(net.cycles for net in nets),
        "cycles_cautious": sum(net.cycles_cautious for net in nets),
        "roofline": sum(net.roofline for net in nets),
        "roofline_cautious": sum(net.roofline_cautious for net in nets),
    }
