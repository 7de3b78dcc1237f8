"""Types that an instruction reads and writes, and rounding."""

from __future__ import annotations

import pytest

from tests.runtime_sim.check.hardware.instructions import (
    BF16,
    F16,
    F32,
    I8,
    I16,
    I32,
    C,
    R,
    Rule,
    ar,
    check_rule,
)

CASES: dict[str, Rule] = {
    "mixed floats": ("add", {"opd1_prec": F32}, {"opd1_prec": BF16}, "mixes bf16, f32 into bf16"),
    "wider result": ("add", {"res0_prec": F32}, {"res0_prec": BF16}, "mixes bf16, bf16 into f32"),
    "integer among floats": ("mul", {"opd1_prec": BF16}, {"res0_prec": I32}, "mixes i16, bf16 into i16"),
    "bits of floats": ("and", {"opd0_prec": F16}, {"opd0_prec": I16}, "is for integers, not for f16"),
    "inverted floats": ("not", {"opd0_prec": BF16, "res0_prec": BF16}, {"opd1_prec": BF16}, "is for integers, not for bf16"),
    "saturating floats": ("adds", {"res0_prec": F32}, {"res0_prec": I32}, "is for integers, not for f32"),
    "shift in memory": ("adds", {"opd2_const": 0, "opd2_addr": C}, {"opd2_addr": 7}, "the shift, opd2, is no constant of type i8"),
    "wide constant shift": ("adds", {"opd2_prec": I16}, {"tsk_opd_num": 2, "opd2_prec": I16}, "the shift, opd2, is no constant of type i8"),
    "wide shift": ("shift", {"opd1_prec": I16}, {"opd1_prec": I8}, "the shift is i16, expected i8"),
    "signs": ("max", {"opd1_sign": 0}, ar(F32, opd1_sign=0), "compares a signed and an unsigned integer"),
    "division": ("div", {"opd0_prec": BF16, "opd1_prec": BF16, "res0_prec": BF16}, {}, "is for f32, not for bf16, bf16, bf16"),
    "mixed selection": ("select", {"opd1_prec": F16}, {"opd2_const": 0, "opd2_addr": R + 3}, "compares f32, f16"),
    "rounding of a float": ("cast", {"opd2_n_str": 5}, {"opd2_n_str": 4}, "the round mode is 5, the last is 4"),
    "rounding to an integer": ("cast", {"res0_prec": I8, "opd2_n_str": 6}, {"opd0_prec": I32, "res0_prec": I8, "opd2_n_str": 6}, "the round mode is 6, the last is 4"),
    "rounding of a shift": ("shift", {"opd2_n_str": 7}, {"opd2_n_str": 6}, "the round mode is 7, the last is 6"),
    "product of f32": ("nn", {"opd0_prec": F32}, {"opd0_prec": F16}, "cannot read f32"),
    "product into another half": ("nn", {"res0_prec": F16}, {"res0_prec": BF16}, "mixes bf16, bf16 into f16"),
    "integer product": ("nn", {"opd0_prec": I8, "res0_prec": I8}, {"opd0_prec": I8, "res0_prec": I32}, "sums i8 into i8, expected i32"),
    "zero point of floats": ("nn", {"opd2_addr": 3}, {"opd0_prec": I8, "res0_prec": I32, "opd2_addr": 3}, "opd2 of a float product is not the constant 0"),
    "square root": ("rsqrt", {"opd0_prec": BF16, "res0_prec": BF16}, {}, "is for f32, not from bf16 to bf16"),
    "exponent": ("normalize", {"res0_prec": I16}, {"res0_prec": I32}, "is from f32 to f32 or i32, not from f32 to i16"),
    "polynomial": ("taylor", {"res0_prec": BF16}, {"opd0_prec": BF16, "res0_prec": BF16}, "is for one type of float, not from f32 to bf16"),
    "short polynomial": ("taylor", {"opd1_n": 1}, {"opd1_n": 2}, "opd1_n is 1, the least is 2"),
    "dequantized to half": ("dq0", {"res0_prec": BF16}, {"opd0_prec": I16}, "is from i8 or i16 to f32, not from i8 to bf16"),
    "wide indices": ("sg", {"opd1_prec": I32}, {"opd1_prec": I8}, "its indices are i32, expected i8 or i16"),
}  # fmt: skip

BM1688: dict[str, Rule] = {
    "product of two types": ("nn", {"opd1_prec": F16}, {"opd1_prec": BF16}, "mixes bf16, f16 into f32"),
    "integer product": ("nn", {"opd0_prec": I8, "res0_prec": I8}, {"opd0_prec": I8, "res0_prec": I8, "rq": 1}, "sums i8 into i8, expected i32"),
    "pooling into another sign": ("pool", {"opd0_sign": 1, "res0_sign": 0}, {"opd0_sign": 1}, "pools a signed type into an unsigned one, or the other way round"),
    "bias": ("nn", {"opd1_prec": BF16, "opd2_const": 0}, {"opd1_prec": BF16, "opd2_const": 1}, "opd2 of a float product is not the constant 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_rule(case):
    check_rule(CASES[case])


@pytest.mark.parametrize("case", BM1688)
def test_rules_of_bm1688(case):
    check_rule(BM1688[case], "bm1688")
