"""The timing of a file as one HTML page: both engines over time, local memory, roofline.

`timeline.html` beside this file is the page; it only draws. The data that goes into it is made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compiler.page import write_page
from compiler.target.costs import LOAD
from compiler.target.spec import ChipSpec
from compiler.target.timing import Timeline
from runtime_sim.launch.queues import CoreProgram
from runtime_sim.tool.disasm import operands
from runtime_sim.tool.measured import Group, Measured
from runtime_sim.tool.occupancy import peak, pieces
from runtime_sim.tool.sources import Sources

_TEMPLATE = Path(__file__).with_suffix(".html")


def write(path: Path, measured: Measured, title: str, ir: Path | None) -> None:
    """The page; `ir` is a folder of dumps that say which module each instruction comes from."""
    write_page(path, _TEMPLATE, page_data(measured, title, Sources.read(ir) if ir else None))


def page_data(measured: Measured, title: str, sources: Sources | None) -> dict[str, Any]:
    spec = measured.spec
    costs = spec.costs
    figures = measured.as_dict()
    return {
        "title": title,
        "chip": spec.chip,
        "mhz": spec.mhz,
        "peak_macs": costs.macs_per_cycle * spec.cores,
        "peak_bytes": spec.cores / costs.best_rate(LOAD),
        "lane_bytes": spec.lane_bytes,
        "bank_bytes": spec.bank_bytes,
        "model": figures.get("model"),
        "nets": [_net(group, spec, sources) for group in measured.groups],
    }


def _net(group: Group, spec: ChipSpec, sources: Sources | None) -> dict[str, Any]:
    timing = group.timing
    cores = zip(group.stage.cores, timing.plain, timing.cautious, strict=True)
    return {
        "title": group.title,
        "figures": timing.as_dict(),
        "cores": [
            _core(core, (plain, cautious), group, sources) | {"memory": _memory(core, plain, spec)}
            for core, plain, cautious in cores
        ],
    }


def _core(
    core: CoreProgram, timelines: tuple[Timeline, Timeline], group: Group, sources: Sources | None
) -> dict[str, Any]:
    """Both queues of a core, with the starts and ends of both estimates."""
    function = sources.find(group.names[0], core) if sources else None
    queues = {}
    for engine, stream in (("tiu", core.tiu), ("dma", core.dma)):
        tracks = [getattr(timeline, engine) for timeline in timelines]
        queues[engine] = {
            "kind": _interned([f"{instruction.name}.{instruction.kind}" for instruction in stream]),
            "module": _interned(getattr(function, engine).modules) if function else None,
            "wait": [instruction.wait for instruction in stream],
            "text": ["  ".join(operands(instruction, group.stage)) for instruction in stream],
            "start": [track.start for track in tracks],
            "end": [track.end for track in tracks],
        }
    return queues


def _interned(values: Sequence[str]) -> dict[str, Any]:
    """Each distinct string once, and which of them each value is."""
    names = list(dict.fromkeys(values))
    number = {name: i for i, name in enumerate(names)}
    return {"names": names, "of": [number[value] for value in values]}


def _memory(core: CoreProgram, timeline: Timeline, spec: ChipSpec) -> dict[str, Any]:
    """Pieces of local memory: [start, end, writer, last reader]; instructions as 2 * place, plus 1 if DMA."""
    order = _by_end(timeline)
    streams = (core.tiu, core.dma)
    found = pieces([streams[code % 2][code // 2] for code in order], spec)
    return {
        "pieces": [[piece.start, piece.end, order[piece.first], order[piece.last]] for piece in found],
        "peak": peak(found),
    }


def _by_end(timeline: Timeline) -> Sequence[int]:
    """All instructions in an order in which they may run: as they end."""
    ends = [
        (end, start, 2 * place + dma)
        for dma, track in enumerate((timeline.tiu, timeline.dma))
        for place, (start, end) in enumerate(zip(track.start, track.end, strict=True))
    ]
    return [code for *_, code in sorted(ends)]
