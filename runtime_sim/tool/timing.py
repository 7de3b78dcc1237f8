"""`timing`: how long the nets and the whole model take, in two estimates, and what bounds them."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence

from compiler.bmodel import read_bmodel
from compiler.diagnostics import UserError
from compiler.target.costs import Costs
from compiler.target.spec import ChipSpec
from compiler.target.timing import NetTiming, Timeline, cycles
from compiler.target.timing.report import bound, busy, total
from runtime_sim.launch.loader import Program
from runtime_sim.tool import timeline
from runtime_sim.tool.measured import Group, Measured, measure_file
from runtime_sim.tool.run import check_output

_HEAD = (
    "net", "estimate", "cycles", "x roofline", "bound by",
    "TIU busy", "DMA busy", "DMA alone", "B/cycle", "MAC use",
)  # fmt: skip
_BOUND = {"tiu": "TIU", "dma": "DMA", "waits": "both in turn", "ddr": "DDR of all cores"}


def run(arguments: Namespace) -> int:
    if arguments.ir and not arguments.html:
        raise UserError("--ir needs --html: the page is what names the modules")
    if arguments.html:
        check_output(arguments.html)
    measured = measure_file(Program(read_bmodel(arguments.file)), only=arguments.net)
    if arguments.html:
        timeline.write(arguments.html, measured, arguments.file.name, arguments.ir)
    if arguments.json:
        print(json.dumps(measured.as_dict(), indent=2))
    else:
        print("\n".join(_lines(measured, details=bool(arguments.net))))
    return 0


def text_of(measured: Measured) -> list[str]:
    """The figures of a model's nets and of the whole of it, as lines of text."""
    return [*_summary(measured), *_model_lines(measured)]


def _lines(measured: Measured, details: bool) -> Iterator[str]:
    yield from _summary(measured)
    for group in measured.groups:
        yield ""
        yield from _work_lines(group)
        if details:
            yield ""
            yield from _table(_by_kind(group, measured.spec))
    yield from _model_lines(measured)


def _summary(measured: Measured) -> Iterator[str]:
    yield f"{measured.spec.chip} at {measured.spec.mhz} MHz; estimates, not measurements"
    yield ""
    costs = measured.spec.costs
    yield from _table([_HEAD, *(row for group in measured.groups for row in _rows(group, costs))])


def _model_lines(measured: Measured) -> Iterator[str]:
    for name, reason in measured.incomplete.items():
        yield f"\n{'only in part' if name in measured.model.nets else 'not measured'}: {reason}"
    if measured.model.is_whole:
        yield ""
        yield from _table(_model_rows(measured))


def _rows(group: Group, costs: Costs) -> Iterator[tuple[str, ...]]:
    timing = group.timing
    plain = _figures(timing, timing.plain, timing.roofline, bound(timing.plain), costs)
    cautious = _figures(timing, timing.cautious, timing.roofline_cautious, timing.bound_cautious, costs)
    yield (group.title, "plain", *plain)
    yield ("", "cautious", *cautious)


def _figures(
    timing: NetTiming, cores: Sequence[Timeline], roofline: int, bound_by: str, costs: Costs
) -> tuple[str, ...]:
    end = max(total(cores), 1)
    moved = timing.work.ddr_read + timing.work.ddr_write
    exposed = max(core.dma.busy - core.overlapped for core in cores)
    return (
        f"{total(cores):,}",
        f"{end / max(roofline, 1):.2f}",
        _BOUND[bound_by],
        f"{busy(cores, 'tiu') / end:.0%}",
        f"{busy(cores, 'dma') / end:.0%}",
        f"{exposed / end:.0%}",
        f"{moved / end:.1f}",
        f"{timing.work.macs / (end * len(cores) * costs.macs_per_cycle):.1%}",
    )


def _work_lines(group: Group) -> Iterator[str]:
    timing, work = group.timing, group.timing.work
    shared = f", {timing.shared_ddr:,} of the DDR that all cores share" if timing.shared_ddr else ""
    yield f"{group.title}: roofline {timing.roofline:,} cycles{shared}, {work.macs:,} MACs"
    moved = f"{work.ddr_read:,} bytes of DDR read, {work.ddr_write:,} written"
    yield f"  {moved}, DMA commands: {work.dma_commands}"
    yield f"  cautious, with bank conflicts: {timing.cautious_banks:,} cycles"
    if len(timing.plain) > 1:
        yield from _core_lines(timing)
    if work.guessed:
        kinds = ", ".join(f"{kind} ({count})" for kind, count in sorted(work.guessed.items()))
        yield f"  cycles guessed, never seen in the vendor's estimate: {kinds}"


def _core_lines(timing: NetTiming) -> Iterator[str]:
    """What each of several cores does in the plain estimate, and when it is done in the cautious one."""
    for core, (plain, cautious) in enumerate(zip(timing.plain, timing.cautious, strict=True)):
        works = f"TIU busy for {plain.tiu.busy:,}, DMA for {plain.dma.busy:,}"
        yield f"  core {core}: {plain.total:,} cycles, {works}; cautious {cautious.total:,}"


def _by_kind(group: Group, spec: ChipSpec) -> Iterator[tuple[str, ...]]:
    """Where the cycles go: instructions by engine and kind, the most expensive first."""
    yield ("engine", "instruction", "count", "plain", "cautious")
    sums: dict[tuple[str, str], list[int]] = {}
    for core in group.stage.cores:
        for instruction in (*core.tiu, *core.dma):
            found = sums.setdefault((instruction.engine, f"{instruction.name}.{instruction.kind}"), [0, 0, 0])
            found[0] += 1
            found[1] += cycles(instruction, spec)
            found[2] += cycles(instruction, spec, cautious=True)
    for (engine, kind), counts in sorted(sums.items(), key=lambda item: (item[0][0] != "tiu", -item[1][1])):
        yield (engine.upper(), kind, *(f"{count:,}" for count in counts))


def _model_rows(measured: Measured) -> Iterator[tuple[str, ...]]:
    figures = measured.model.as_dict()
    prefill = figures["prefill_seconds"]
    heads = {"cycles": "plain", "cycles_cautious": "cautious", "roofline": "roofline"}
    if any(timing.shared_ddr for timing in measured.model.nets.values()):
        heads["roofline_cautious"] = "roofline, DDR shared"
    yield (f"{figures['layers']} layers", *heads.values())
    yield (f"prefill of {measured.tokens} tokens", *(f"{prefill[key] * 1e3:.2f} ms" for key in heads))
    for history, speeds in zip(measured.histories, measured.speeds, strict=True):
        decode = f"decode, up to {history} tokens" if len(measured.histories) > 1 else "decode"
        yield (decode, *(f"{speeds[key]:.1f} tokens/s" for key in heads))


def _table(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Columns as wide as they must be: words to the left, numbers to the right."""
    rows = list(rows)
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    right = [all(row[i][:1].isdigit() for row in rows[1:]) for i in range(len(widths))]
    for row in rows:
        cells = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True))
        yield "  ".join(cells).rstrip()
