"""Operands that share bytes, exactly, and those that may because they lie in place."""

from __future__ import annotations

import random
from collections import Counter
from itertools import product

import pytest

from compiler.target.isa import split_address
from runtime_sim.check.hardware import overlap
from tests.runtime_sim.check.hardware.instructions import (
    BF16,
    I4,
    I8,
    I32,
    LANE,
    A,
    B,
    C,
    Fields,
    R,
    Rule,
    X,
    ar,
    check_rule,
    problems,
    strided,
)
from tests.runtime_sim.check.programs import local
from tests.runtime_sim.machine.instructions.board import shape_fields

CASES: dict[str, Rule] = {
    "in place in part": ("add", {"res0_addr": A + 64}, {"res0_addr": A}, "res0 overlaps opd0"),
    "second operand": ("add", {"res0_addr": B + 64}, {"res0_addr": B}, "res0 overlaps opd1"),
    "in place with other strides": ("strided", strided("opd0", 0, 64, 1, 2) | {"res0_addr": A}, strided("opd0", 7, 64, 24, 1) | {"res0_addr": A}, "res0 overlaps opd0"),
    "in place with a broadcast": ("strided", strided("opd0", 0, 64, 0, 1) | {"res0_addr": A}, strided("opd0", 0, 64, 0, 1) | {"res0_addr": 48}, "res0 overlaps opd0"),
    "in place with other items": ("cast", {"res0_addr": A}, {"res0_prec": I32, "res0_addr": A}, "res0 overlaps opd0"),
    "between items": ("strided", strided("opd0", 0, 64, 48, 2) | strided("res0", 0, 64, 48, 2) | {"res0_addr": A + 4}, strided("opd0", 0, 64, 48, 2) | strided("res0", 0, 64, 48, 2) | {"res0_addr": A + 2}, "res0 overlaps opd0"),
    "square root in place": ("rsqrt", {"res0_addr": A}, {"res0_addr": A + 128}, "res0 overlaps opd0"),
    "result over coefficients": ("taylor", {"res0_addr": B}, {"res0_addr": B + 64}, "res0 overlaps opd1"),
    "pooling in place": ("pool", {"res0_addr": A}, {"res0_addr": A + 64}, "res0 overlaps opd0"),
    "pooling of single items in place": ("pool", {"res0_addr": A, "opd0_h": 1, "opd1_h": 1}, {"opd0_h": 1, "opd1_h": 1}, "res0 overlaps opd0"),
    "copy onto itself": ("l_copy", {"res0_addr": A}, {"res0_addr": A + 128}, "res0 overlaps opd0"),
    "product over its operand": ("nt", {"res0_addr": B}, {"res0_addr": B + 128}, "res0 overlaps opd1"),
    "one result over the other": ("cmp", {"res1_addr": R}, {"res1_addr": C}, "res1 overlaps res0"),
    "transpose in place": ("wc", {"res0_addr": A}, {"res0_addr": A + 128}, "res0 overlaps opd0"),
    "broadcast over its source": ("l_bc", {"res0_addr": A + 64}, {"res0_addr": A}, "res0 overlaps opd0"),
    "copy within a lane": ("l_copy", {"res0_addr": A + 64}, {"res0_addr": A + 64 + 8 * LANE}, "res0 overlaps opd0"),
    "DMA inside": ("inside", split_address("dst", local(32)), split_address("dst", local(96)), "dst overlaps src"),
    "DMA outside": ("outside", {"src_cstride": 95}, {"src_cstride": 96}, "dst overlaps src"),
    "DMA in place": ("inside", split_address("dst", local(0)), split_address("dst", local(64 * LANE - LANE) + 128), "dst overlaps src"),
}  # fmt: skip

BM1688: dict[str, Rule] = {
    "half bytes in place": ("copy", {"opd0_prec": I4, "res0_prec": I8, "res0_addr": A}, {"opd0_prec": I4, "res0_prec": I8, "res0_addr": A + 64}, "res0 overlaps opd0"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_rule(case):
    check_rule(CASES[case])


@pytest.mark.parametrize("case", BM1688)
def test_rules_of_bm1688(case):
    check_rule(BM1688[case], "bm1688")


def bytes_of(operand: str, fields: Fields, address: int) -> set[int]:
    """Addresses of a bf16 tensor's bytes, item by item."""
    n_str, c_str, h_str, w_str = (fields[f"{operand}_{axis}_str"] for axis in "nchw")
    found = set()
    for n, c, h, w in product(*(range(fields[f"res0_{axis}"]) for axis in "nchw")):
        slot, lane = divmod(address // LANE + c, X.lanes)
        start = lane * LANE + address % LANE + 2 * (n * n_str + slot * c_str + h * h_str + w * w_str)
        found |= {start, start + 1}
    return found


def test_overlap_is_exact(monkeypatch):
    monkeypatch.setattr("runtime_sim.check.hardware.operands.IN_PLACE", ())
    rng, outcomes = random.Random(0), Counter()
    for _ in range(400):
        fields = ar(BF16, tsk_opd_num=1) | shape_fields([rng.randint(1, most) for most in (2, 70, 3, 5)])
        for operand in ("opd0", "res0"):
            fields |= strided(operand, *(rng.choice([0, 1, 2, 3, 8, 40]) for _ in range(4)))
        lane = rng.choice([0, 5, 62]) * LANE
        fields |= {"opd0_addr": lane + 2 * rng.randint(0, 40), "res0_addr": lane + 2 * rng.randint(0, 40)}
        meet = bool(
            bytes_of("opd0", fields, fields["opd0_addr"]) & bytes_of("res0", fields, fields["res0_addr"])
        )
        found = problems("copy", **fields)
        assert found == (["res0 overlaps opd0"] if meet else []), fields
        outcomes[meet] += 1
    assert min(outcomes.values()) > 50


def test_beyond_a_limit_gaps_count(monkeypatch):
    between = CASES["between items"][2]
    assert problems("strided", **between) == []
    monkeypatch.setattr(overlap, "MAX_RUNS", 8)
    assert problems("strided", **between) == ["res0 overlaps opd0"]
