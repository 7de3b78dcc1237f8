"""Every cycle of seven programs of the vendor's compiler, from the reference data beside the repository."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from compiler.target.chips.bm1684x import BM1684X
from compiler.target.chips.cv186ah import CV186AH
from compiler.target.costs import Costs, rates
from compiler.target.isa import Instruction, isa_for
from compiler.target.spec import ChipSpec
from compiler.target.timing import cycles, estimate, work_of
from runtime_sim.launch.queues import CoreProgram

DATA = Path(__file__).parents[5] / "shared" / "data"
FAMILY = {
    "AR": "ar", "FUSED_CMP": "cmp", "LANE_BC": "tsbc", "STATIC_BC": "tsbc", "TRANS": "tsbc", "MM": "mm", "MM2": "mm2",
    "PorD": "pord", "SFU": "sfu", "GDMA_TENSOR": "dma_tensor", "GDMA_BROADCAST": "dma_tensor",
    "GDMA_MATRIX": "dma_matrix", "GDMA_GATHER": "dma_gather",
}  # fmt: skip
KIND = {"tiu": "tsk_eu_typ", "dma": "cmd_special_function"}

# By model, then net: total, and the sums of both engines.
TOTALS = {
    ("w4bf16", "block_0"): (1054451, 400374, 687572),
    ("w4bf16", "block_cache_0"): (75688, 14479, 64049),
    ("w4bf16", "lm_head"): (1382385, 13888, 1382385),
    ("w4bf16", "embedding"): (11571, 96, 11475),
    ("w4bf16", "embedding_cache"): (25, 3, 22),
    ("bf16", "block_0"): (608425, 391902, 356340),
    ("bf16", "block_cache_0"): (152279, 70723, 142482),
}
CAUTIOUS_TOTALS = {
    ("w4bf16", "block_0"): 1192167,
    ("w4bf16", "block_cache_0"): 112762,
    ("w4bf16", "lm_head"): 1388912,
    ("w4bf16", "embedding_cache"): 1077,
}
NETS = sorted(TOTALS)

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def records() -> dict[tuple[str, str], dict[str, list[dict[str, Any]]]]:
    """The vendor's instructions by model and net, then by engine."""
    found: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = defaultdict(
        lambda: {"tiu": [], "dma": []}
    )
    for record in read("vendor_cycles_bm1684x.jsonl"):
        mode = record["model"].split()[1]
        found[mode, record["net"]][record["engine"]].append(record)
    return found


def read(name: str) -> list[dict[str, Any]]:
    if not (DATA / name).is_file():
        pytest.skip(f"the vendor's cycles are not at {DATA / name}: NOTHING was compared with them")
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def instruction(record: dict[str, Any], spec: ChipSpec = BM1684X) -> Instruction:
    """The recorded fields, which leave out those that are 0, as decoding gives them."""
    layout = isa_for(spec).layout(FAMILY[record["func"]])
    code = record["fields"].get(KIND[record["engine"]], 0)
    kind = next(kind for kind, known in layout.kinds.items() if known == code)
    given = {our_name(name): value for name, value in record["fields"].items()}
    return Instruction(layout.name, kind, {name: given.get(name, 0) for name in layout.fields})


def our_name(field: str) -> str:
    """Registers of matrix commands have misleading names for the parts of an address; prefixes say what is optional."""
    field = field.replace("_addr_h32", "_addr_l32").replace("_addr_l8", "_addr_h8")
    return field.removeprefix("opt_").removeprefix("short_")


def program(records: dict[str, list[dict[str, Any]]]) -> CoreProgram:
    return CoreProgram(*([instruction(record) for record in records[engine]] for engine in ("tiu", "dma")))


def test_the_data_is_all_there(records):
    assert sum(len(queue) for net in records.values() for queue in net.values()) == 3052
    assert sorted(records) == NETS


@pytest.mark.parametrize("net", NETS, ids="-".join)
def test_every_instruction_takes_the_vendors_cycles(records, net):
    wrong = [
        record
        for queue in records[net].values()
        for record in queue
        if cycles(instruction(record), BM1684X) != record["cycles"]
    ]
    assert not wrong


@pytest.mark.parametrize("net", NETS, ids="-".join)
def test_every_start_and_total_is_the_vendors(records, net):
    code = program(records[net])
    timeline = estimate(code.tiu, code.dma, BM1684X)
    for engine, track in (("tiu", timeline.tiu), ("dma", timeline.dma)):
        assert track.start == [record["start"] for record in records[net][engine]]
    assert (timeline.total, timeline.tiu.busy, timeline.dma.busy) == TOTALS[net]


@pytest.mark.parametrize("net", sorted(CAUTIOUS_TOTALS), ids="-".join)
def test_the_cautious_totals(records, net):
    code = program(records[net])
    assert estimate(code.tiu, code.dma, BM1684X, cautious=True).total == CAUTIOUS_TOTALS[net]


@pytest.mark.parametrize("net", NETS, ids="-".join)
def test_every_command_moves_the_vendors_bytes(records, net):
    for record in records[net]["dma"]:
        work = work_of([CoreProgram([], [instruction(record)])], BM1684X)
        moved = [work.ddr_read, work.ddr_write]
        if record["func"] == "GDMA_GATHER":  # ours has the indices with them
            assert record["bytes"] in moved
        else:
            assert sum(moved) == record["bytes"]


# Of CV186X, by net: DMA commands, of those the ones charged 0.06 cycles per byte (see `RATE` in chips/bm1688.py)
# and the ones that take a cycle less; the vendor's total, and the share of it that we count.
CV186X = {
    "block_cache_0": (110, 11, 0, 161931, 0.9987),
    "block_0": (430, 23, 6, 4095069, 0.9734),
}
SLOW = 0.06  # cycles per byte


@pytest.fixture(scope="module")
def cv186x() -> dict[str, dict[str, list[dict[str, Any]]]]:
    found: dict[str, dict[str, list[dict[str, Any]]]] = {net: {"tiu": [], "dma": []} for net in CV186X}
    for record in read("vendor_cycles_cv186x.jsonl"):
        found[record["net"]][record["engine"]].append(record)
    return found


def test_every_compute_instruction_takes_the_vendors_cycles_on_cv186ah(cv186x):
    compute = [record for net in cv186x.values() for record in net["tiu"]]
    assert len(compute) == 3577
    assert [r for r in compute if cycles(instruction(r, CV186AH), CV186AH) != r["cycles"]] == []


@pytest.mark.parametrize("net", CV186X)
def test_dma_commands_on_cv186ah_are_exact_but_for_a_second_rate(cv186x, net):
    """Which of the two rates applies is not in a command's fields: equal ones are charged either."""
    slow = dataclasses.replace(CV186AH, costs=at_rate(SLOW))
    dma = cv186x[net]["dma"]
    different = [r for r in dma if cycles(instruction(r, CV186AH), CV186AH) != r["cycles"]]
    at_slow_rate = [r for r in different if abs(cycles(instruction(r, slow), slow) - r["cycles"]) <= 1]
    a_cycle_off = [r for r in different if cycles(instruction(r, CV186AH), CV186AH) == r["cycles"] + 1]
    assert (len(dma), len(at_slow_rate), len(a_cycle_off)) == CV186X[net][:3]
    assert len(different) == len(at_slow_rate) + len(a_cycle_off)


def at_rate(rate: float) -> Costs:
    tensor = rates(rate, rate)
    return dataclasses.replace(CV186AH.costs, tensor_rate=tensor, matrix_rate=tensor, broadcast_rate=rate)


@pytest.mark.parametrize("net", CV186X)
def test_totals_on_cv186ah(cv186x, net):
    *_, total, share = CV186X[net]
    ends = [r["start"] + r["cycles"] for queue in cv186x[net].values() for r in queue]
    assert max(ends) == total
    code = CoreProgram(*([instruction(r, CV186AH) for r in cv186x[net][engine]] for engine in ("tiu", "dma")))
    assert round(estimate(code.tiu, code.dma, CV186AH).total / total, 4) == share
