"""Every cycle of seven programs of the vendor's compiler, from the reference data beside the repository."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from compiler.target.chips.bm1684x import BM1684X
from compiler.target.isa import Instruction, isa_for
from compiler.target.timing import cycles, estimate, work_of
from runtime_sim.launch.queues import CoreProgram

DATA = Path(__file__).parents[5] / "shared" / "data" / "vendor_cycles_bm1684x.jsonl"
ISA = isa_for(BM1684X)
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
    if not DATA.is_file():
        pytest.skip(f"the vendor's cycles are not at {DATA}: NOTHING was compared with them")
    found: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = defaultdict(
        lambda: {"tiu": [], "dma": []}
    )
    for line in DATA.read_text().splitlines():
        record = json.loads(line)
        mode = record["model"].split()[1]
        found[mode, record["net"]][record["engine"]].append(record)
    return found


def instruction(record: dict[str, Any]) -> Instruction:
    """The recorded fields, which leave out those that are 0, as decoding gives them."""
    layout = ISA.layout(FAMILY[record["func"]])
    code = record["fields"].get(KIND[record["engine"]], 0)
    kind = next(kind for kind, known in layout.kinds.items() if known == code)
    # The registers of matrix commands have misleading names for the two parts of an address.
    given = {name.replace("_addr_h32", "_addr_l32").replace("_addr_l8", "_addr_h8"): value
             for name, value in record["fields"].items()}  # fmt: skip
    return Instruction(layout.name, kind, {name: given.get(name, 0) for name in layout.fields})


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
