"""Where operands lie: alignment, bounds, static memory, lanes."""

from __future__ import annotations

import pytest

from compiler.target.isa import COMPACT, PER_CHANNEL, STRIDED, split_address
from tests.runtime_sim.check.hardware.instructions import I4, LANE, A, B, C, R, Rule, X, check_rule, strided
from tests.runtime_sim.check.programs import DDR, local

CASES: dict[str, Rule] = {
    # alignment
    "aligned operand": ("add", {"opd0_addr": 0x1020}, {"opd0_addr": 0x1040}, "opd0 at 0x1020 is not a multiple of 64 bytes"),
    "aligned result": ("add", {"res0_addr": R + 2}, {"res0_addr": R + 64}, "res0 at 0xc002 is not a multiple of 64 bytes"),
    "strided operand": ("strided", {"opd0_addr": A + 1}, {"opd0_addr": A + 2}, "opd0 at 0x1 is not a multiple of 2 bytes"),
    "compact operand": ("add", {"opd1_str": COMPACT, "opd1_addr": B + 1}, {"opd1_str": COMPACT, "opd1_addr": B + 2}, "opd1 at 0x4001 is not a multiple of 2 bytes"),
    "operand per channel": ("add", {"opd1_str": PER_CHANNEL, "opd1_addr": B + 1}, {"opd1_str": PER_CHANNEL, "opd1_addr": B + 2}, "opd1 at 0x4001 is not a multiple of 2 bytes"),
    "matrix operand": ("nn", {"opd1_addr": B + 32}, {"opd1_addr": B + 64}, "opd1 at 0x4020 is not a multiple of 64 bytes"),
    "f32 matrix operand": ("mm", {"opd1_addr": B + 32}, {"opd1_addr": B + 64}, "opd1 at 0x4020 is not a multiple of 64 bytes"),
    "coefficients": ("taylor", {"opd1_addr": B + 32}, {"opd1_addr": B + 64}, "opd1 at 0x4020 is not a multiple of 64 bytes"),
    "data of a polynomial": ("taylor", {"opd0_addr": A + 32}, {"opd0_addr": A + 64}, "opd0 at 0x20 is not a multiple of 64 bytes"),
    "pooled": ("pool", {"opd0_addr": A + 4}, {"opd0_addr": A + 64}, "opd0 at 0x4 is not a multiple of 64 bytes"),
    "pooling result": ("pool", {"res0_addr": R + 4}, {"res0_addr": R + 64}, "res0 at 0xc004 is not a multiple of 64 bytes"),
    "weights of a window": ("depthwise", {"opd1_addr": B + 2}, {"opd1_addr": B + 4}, "opd1 at 0x4002 is not a multiple of 4 bytes"),
    "payload": ("cmp", {"opd2_addr": C + 4}, {"opd2_addr": C + 64}, "opd2 at 0x8004 is not a multiple of 64 bytes"),
    "second result": ("cmp", {"res1_addr": 0x14004}, {"res1_addr": 0x14040}, "res1 at 0x14004 is not a multiple of 64 bytes"),
    "value per lane": ("cmp", {"opd1_str": STRIDED, "opd1_addr": B + 2}, {"opd1_str": STRIDED, "opd1_addr": B + 4}, "opd1 at 0x4002 is not a multiple of 4 bytes"),
    "parameters": ("dq0", {"opd1_addr": B + 8}, {"opd1_addr": B + 64}, "opd1 at 0x4008 is not a multiple of 64 bytes"),
    "factor per channel": ("lin", {"opd1_addr": B + 2}, {"opd1_addr": B + 4}, "opd1 at 0x4002 is not a multiple of 4 bytes"),
    "line-aligned result": ("cw", {"res0_addr": R + 4}, {"res0_addr": R + 64}, "res0 at 0xc004 is not a multiple of 64 bytes"),
    "transposed source": ("wc", {"opd0_addr": A + 4}, {"opd0_addr": A + 64}, "opd0 at 0x4 is not a multiple of 64 bytes"),
    "distributed result": ("s_distribute", {"res0_addr": R + 2}, {"res0_addr": R + 4}, "res0 at 0xc002 is not a multiple of 4 bytes"),
    "DMA from an odd byte": ("load", split_address("src", DDR + 1), split_address("src", DDR + 2), "src at 0x100000001 is not a multiple of 2 bytes"),
    "DMA to an odd byte": ("load", split_address("dst", local(1)), split_address("dst", local(2)), "dst at 0x1 is not a multiple of 2 bytes"),
    "DMA to an aligned tensor": ("packed", split_address("dst", local(2)), split_address("dst", local(64)), "dst at 0x2 is not a multiple of 64 bytes"),
    "indices": ("gather", split_address("index", DDR + 2), split_address("index", DDR + 0x10004), "index at 0x100000002 is not a multiple of 4 bytes"),
    "local indices": ("gather", split_address("index", local(0x1004)), split_address("index", local(0x1040)), "index at 0x1004 is not a multiple of 64 bytes"),
    # bounds
    "end of a lane": ("add", {"res0_addr": LANE - 64}, {"res0_addr": LANE - 128}, "res0 ends at byte 0x40020 of a lane of 0x40000"),
    "second slot": ("add", {"res0_addr": LANE - 128, "res0_c": 65}, {"res0_addr": LANE - 256, "res0_c": 65}, "res0 ends at byte 0x40060 of a lane of 0x40000"),
    "no lane": ("l_copy", {"res0_addr": 64 * LANE}, {"res0_addr": 63 * LANE}, "res0 at 0x1000000 is on no lane"),
    "DMA beyond a lane": ("load", split_address("dst", local(LANE - 64)), split_address("dst", local(LANE - 128)), "dst ends at byte 0x40020 of a lane of 0x40000"),
    "fill beyond a lane": ("fill", split_address("dst", local(LANE - 64)), split_address("dst", local(LANE - 128)), "dst ends at byte 0x40020 of a lane of 0x40000"),
    "static memory": ("s_bc", {"opd0_addr": X.tiu_static_base + X.static_bytes - 60}, {"opd0_addr": X.tiu_static_base + X.static_bytes - 64}, "opd0 at 0x9003fc4 is not all in static memory"),
    "before static memory": ("s_distribute", {"opd0_addr": X.tiu_static_base - 4}, {"opd0_addr": X.tiu_static_base + 4}, "opd0 at 0x8fffffc is not all in static memory"),
    # lanes
    "lanes of an addition": ("add", {"opd1_addr": B + LANE}, {name: LANE for name in ("opd0_addr", "opd1_addr")} | {"opd1_addr": B + LANE, "res0_addr": R + LANE}, "starts on different lanes: opd0 on 0, opd1 on 1, res0 on 0"),
    "lane of coefficients": ("taylor", {"opd1_addr": B + LANE}, {"opd0_addr": LANE, "opd1_addr": B + LANE, "res0_addr": R + LANE}, "starts on different lanes: opd0 on 0, opd1 on 1, res0 on 0"),
    "lane of a right operand": ("nn", {"opd1_addr": B + LANE}, {"opd0_addr": A + LANE, "res0_addr": R + LANE}, "opd1 starts on lane 1, expected lane 0"),
    "lane of a transposed operand": ("nt", {"opd1_addr": B + LANE}, {"opd0_addr": A + LANE, "res0_addr": R + LANE}, "opd1 starts on lane 1, expected lane 0"),
    "lanes of a product": ("nt", {"res0_addr": R + LANE}, {"opd0_addr": A + LANE, "res0_addr": R + LANE}, "starts on different lanes: opd0 on 0, res0 on 1"),
    "lane of a left operand": ("mm", {"opd0_addr": A + LANE, "opd1_addr": B + LANE, "res0_addr": R + LANE}, {}, "opd0 starts on lane 1, expected lane 0"),
    "lane of a source": ("cw", {"opd0_addr": LANE}, {"res0_addr": R + LANE}, "opd0 starts on lane 1, expected lane 0"),
    "lane of a transpose": ("wc", {"res0_addr": R + LANE}, {"opd0_addr": LANE}, "res0 starts on lane 1, expected lane 0"),
}  # fmt: skip

BM1688: dict[str, Rule] = {
    "narrower EU": ("add", {"opd0_addr": A + 8}, {"opd0_addr": A + 16}, "opd0 at 0x8 is not a multiple of 16 bytes"),
    "shorter lanes": ("add", {"res0_addr": (1 << 17) - 64}, {"res0_addr": (1 << 17) - 192}, "res0 ends at byte 0x20080 of a lane of 0x20000"),
    "fewer lanes": ("l_copy", {"res0_addr": 32 << 17}, {"res0_addr": 31 << 17}, "res0 at 0x400000 is on no lane"),
    "half bytes": ("copy", {"opd0_prec": I4, "opd0_addr": A + 1}, {"opd0_prec": I4, "opd0_addr": A + 1} | strided("opd0", 0, 48, 24, 1), "opd0 at 0x1 is not a multiple of 16 bytes"),
    "static memory": ("s_bc", {"opd0_addr": 0x10000 - 60}, {"opd0_addr": 0x10000 - 64}, "opd0 at 0xffc4 is not all in static memory"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_rule(case):
    check_rule(CASES[case])


@pytest.mark.parametrize("case", BM1688)
def test_rules_of_bm1688(case):
    check_rule(BM1688[case], "bm1688")
