"""AR and CMP against scalar formulas, bit for bit; layouts, start lanes and what is an error."""

from __future__ import annotations

import math
import operator
from fractions import Fraction

import numpy as np
import pytest

from tests.runtime_sim.machine.single import (
    Single,
    bf16,
    bits,
    clamp,
    flush,
    from_bits,
    precision,
    rounded,
    same_bits,
    sizes,
    spread,
    wrap,
)  # fmt: skip

INF, NAN = np.inf, np.nan
TINY = 2.0**-126
EDGES = [0.0, -0.0, 1.0, -1.0, TINY, -TINY, TINY / 2, -TINY / 3, 3e38, -3e38, INF, -INF, 1e-40, 1.00390625]
PAIRS = [(a, b) for a in EDGES for b in EDGES]
LEFT = np.concatenate([spread(1, 100), np.float32([a for a, _ in PAIRS])])
RIGHT = np.concatenate([spread(2, 100), np.float32([b for _, b in PAIRS])])
OPERATIONS = {"add": operator.add, "sub": operator.sub, "mul": operator.mul}
INTEGERS = {
    "i8": [-128, -127, -100, -3, -1, 0, 1, 2, 77, 127],
    "u8": [0, 1, 2, 100, 128, 200, 254, 255],
    "i16": [-32768, -300, -1, 0, 1, 255, 12345, 32767],
    "i32": [-(2**31), -70000, -1, 0, 1, 65536, 2**30 + 1, 2**31 - 1],
}


@pytest.fixture(params=["bm1684x", "bm1688"])
def chip(request: pytest.FixtureRequest) -> Single:
    return Single(request.param)


@pytest.fixture
def x() -> Single:
    return Single("bm1684x")


def cross(left: list[int], right: list[int]) -> tuple[list[int], list[int]]:
    return [a for a in left for _ in right], [b for _ in left for b in right]


@pytest.mark.parametrize("kind", OPERATIONS)
def test_f32_arithmetic_flushes_denormals(chip: Single, kind: str):
    with np.errstate(all="ignore"):
        want = [flush(OPERATIONS[kind](flush(a), flush(b))) for a, b in zip(LEFT, RIGHT, strict=True)]
    same_bits(chip.ar(kind, LEFT, RIGHT), want)


@pytest.mark.parametrize("kind", OPERATIONS)
def test_bf16_arithmetic_rounds_once_to_even(chip: Single, kind: str):
    a, b = [[bf16(v) for v in side] for side in (LEFT, RIGHT)]
    with np.errstate(all="ignore"):
        want = [bf16(flush(OPERATIONS[kind](flush(p), flush(q)))) for p, q in zip(a, b, strict=True)]
    same_bits(chip.ar(kind, a, b, types="bf16"), want, "bf16")


def test_bf16_ties_go_to_even(x: Single):
    one, half_ulp = from_bits(0x3F800000), np.float32(2.0**-8)
    assert x.ar("add", [one, from_bits(0x3F810000)], [half_ulp, half_ulp], types="bf16") == [1.0, 1.015625]


def test_a_bf16_nan_result_is_all_ones_but_the_sign(x: Single):
    assert [bits(v, "bf16") for v in x.ar("sub", [INF, -NAN], [INF, 1.0], types="bf16")] == [0x7FFF, 0x7FFF]


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_max_and_min_of_floats(chip: Single, dtype: str):
    a, b = [[bf16(v) for v in [*side, *extra]] for side, extra in ((LEFT, [NAN, 2, NAN]), (RIGHT, [3, NAN, NAN]))]
    pairs = [(flush(p), flush(q)) for p, q in zip(a, b, strict=True)]
    same_bits(chip.ar("max", a, b, types=dtype), [p if p > q else q for p, q in pairs], dtype)
    same_bits(chip.ar("min", a, b, types=dtype), [q if q <= p else p for p, q in pairs], dtype)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("kind", [*OPERATIONS, "and", "or", "xor", "max", "min"])
def test_integers_wrap(chip: Single, kind: str, dtype: str):
    a, b = cross(INTEGERS[dtype], INTEGERS[dtype])
    function = OPERATIONS | {"and": operator.and_, "or": operator.or_, "xor": operator.xor, "max": max, "min": min}
    want = [wrap(function[kind](p, q), dtype) for p, q in zip(a, b, strict=True)]
    assert chip.ar(kind, a, b, types=dtype) == want


def test_integers_of_different_types(x: Single):
    a, b = cross(INTEGERS["u8"], INTEGERS["u8"])
    assert x.ar("sub", a, b, types="u8", result="i8") == [wrap(p - q, "i8") for p, q in zip(a, b, strict=True)]
    a, b = cross(INTEGERS["i16"], INTEGERS["i16"])
    assert x.ar("mul", a, b, types="i16", result="i32") == [p * q for p, q in zip(a, b, strict=True)]


@pytest.mark.parametrize("mode", range(7))
@pytest.mark.parametrize("dtype", ["i8", "u8", "i16", "i32"])
def test_arithmetic_shift(chip: Single, dtype: str, mode: int):
    a, by = cross(INTEGERS[dtype], [-9, -8, -7, -4, -3, -2, -1, 0, 1, 3, 7])
    want = [
        wrap(p << s if s >= 0 else rounded(Fraction(p, 1 << -s), mode), dtype) for p, s in zip(a, by, strict=True)
    ]
    assert chip.ar("ashift", a, by, types=(dtype, "i8"), opd2_n_str=mode) == want
    for s in (-4, 3):
        got = chip.ar("ashift", a, by, types=(dtype, "i8"), opd2_n_str=mode, opd1_const=1, opd1_addr=s & 0xFF)
        assert got == [wrap(p << s if s > 0 else rounded(Fraction(p, 16), mode), dtype) for p in a]


@pytest.mark.parametrize("mode", range(5))
@pytest.mark.parametrize("dtype", ["i8", "u8", "i16", "u16", "i32", "u32"])
def test_cast_of_floats_to_integers_saturates(chip: Single, dtype: str, mode: int):
    a = [0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999997, 126.5, 127.5, -128.5, 255.5, 3e9, -3e9, 32767.5, 65535.5, 8388607.5, 1e20, 16777217.0]
    a += [*spread(3, 60, 3), 2147483648.0, 2147483520.0, -2147483648.0]
    want = [clamp(rounded(Fraction(float(np.float32(v))), mode), dtype) for v in a]
    limits = np.iinfo(dtype.replace("u", "uint") if dtype.startswith("u") else dtype.replace("i", "int"))
    got = chip.ar("cast", [*a, INF, -INF, NAN], result=dtype, opd2_n_str=mode, opd2_sign=int(dtype.startswith("i")))
    assert got == [*want, limits.max, limits.min, 0]


@pytest.mark.parametrize("mode", range(5))
def test_cast_of_f32_to_whole_f32(chip: Single, mode: int):
    a = [0.5, 1.5, 2.5, 3.25, 1e6 + 0.5, 8388609.0, 3e38]
    a += [-v for v in a]
    same_bits(chip.ar("cast", a, opd2_n_str=mode), [np.copysign(np.float32(rounded(Fraction(v), mode)), v) for v in np.float32(a).tolist()])


@pytest.mark.parametrize("mode", range(5))
def test_cast_of_f32_to_bf16(chip: Single, mode: int):
    words = [0x3F800000 + low for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0x18000, 0x17FFF, 0xFFFF)]
    words += [0x7F7FFFFF, 0x42F68000, *(bits(v) for v in abs(spread(4, 40)))]
    words += [word | 1 << 31 for word in words]
    want = []
    for word in words:
        sign = -1 if word >> 31 else 1
        want.append(sign * rounded(sign * Fraction(word & 0x7FFFFFFF, 1 << 16), mode))
    got = chip.ar("cast", [from_bits(w) for w in words], result="bf16", opd2_n_str=mode, opd2_sign=1)
    assert [bits(v, "bf16") for v in got] == [abs(w) | (0x8000 if word >> 31 else 0) for w, word in zip(want, words, strict=True)]


def test_casts_that_are_exact(chip: Single):
    assert chip.ar("cast", INTEGERS["i16"], types="i16", result="f32", opd2_sign=1) == INTEGERS["i16"]
    assert chip.ar("cast", INTEGERS["u8"], types="u8", result="bf16", opd2_sign=1) == [bf16(v) for v in INTEGERS["u8"]]
    a = [bf16(v) for v in spread(5, 40)]
    same_bits(chip.ar("cast", a, types="bf16", result="f32", opd2_sign=1), a)
    got = chip.ar("cast", [from_bits(0xFFC00000), from_bits(0x7FC12345)], result="bf16", opd2_sign=1)
    assert [bits(v, "bf16") for v in got] == [0xFFFF, 0x7FFF]


@pytest.mark.parametrize("mode", [0, 2, 5])
@pytest.mark.parametrize("shift", [-5, -1, 0, 3, 23])
@pytest.mark.parametrize(("kind", "types", "result"), [
    ("adds", ("i16", "i16"), "i32"), ("adds", ("i16", "i16"), "i8"), ("subs", ("u8", "u8"), "i8"), ("muls", ("i8", "i8"), "i16"), ("adds", ("u8", "u8"), "u8"),
])  # fmt: skip
def test_saturating_operations_shift_by_a_constant(x: Single, kind: str, types: tuple[str, str], result: str, shift: int, mode: int):
    a, b = cross(INTEGERS[types[0]], INTEGERS[types[1]])
    exact = [OPERATIONS[kind[:3]](p, q) for p, q in zip(a, b, strict=True)]
    want = [clamp(rounded(e * Fraction(2) ** shift, mode), result) for e in exact]
    fields = {"tsk_opd_num": 3, "opd2_const": 1, "opd2_addr": shift & 0xFF, "opd2_sign": 1, "opd2_n_str": mode}
    assert x.ar(kind, a, b, types=types, result=result, **fields) == want


def test_copy_keeps_bits_and_fills(chip: Single):
    words = [0x00000001, 0x80000000, 0x7FA00001, 0xFFC12345, 0x3F800000]
    got = chip.ar("copy", [from_bits(w) for w in words])
    assert [bits(v) for v in got] == words
    assert chip.ar("copy", [0.0] * 5, types="bf16", opd0_const=1, opd0_addr=0x3F80) == [1.0] * 5


def newton(x: np.float32, steps: int) -> np.float32:
    """1 / sqrt(x), every operation rounded to f32 and flushed."""
    y = from_bits(0x5F3759DF - (bits(x) >> 1))
    half = flush(np.float32(0.5) * flush(x))
    for _ in range(steps):
        y = flush(y * flush(np.float32(1.5) - flush(flush(half * y) * y)))
    return y


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_div_iterates(chip: Single, steps: int):
    a, b = spread(6, 200), spread(7, 200)
    roots = [newton(abs(q), steps) for q in b]
    got = chip.ar("div", a, b, opd2_n_str=steps - 1)
    same_bits(got, [flush(flush(y * y) * (-p if q < 0 else p)) for p, q, y in zip(a, b, roots, strict=True)])
    ulps = {1: 2.0**17, 2: 300, 3: 6, 4: 6}[steps]
    assert max(abs(float(g) - float(p) / float(q)) / np.spacing(abs(p / q)) for g, p, q in zip(got, a, b, strict=True)) < ulps


def test_div_by_extremes(x: Single):
    got = x.ar("div", [1.0, 1.0, 5.0, 5.0, -5.0, 0.0], [3e38, INF, 0.0, -0.0, 0.0, 0.0], opd2_n_str=2)
    same_bits(got, [0.0, INF, INF, -INF, -INF, NAN])


PAYLOADS = {"sel_gt": operator.gt, "sel_lt": operator.lt}
COMPARED = [(1, 2), (2, 1), (2, 2), (0.0, -0.0), (-0.0, -0.0), (1e-40, 0.0), (0.0, -1e-40), (INF, 3e38), (-INF, INF)]


@pytest.mark.parametrize("kind", ["sel_gt", "sel_lt", "sel_eq", "gt_and_sel", "lt_and_sel"])
@pytest.mark.parametrize("payload", ["f32", "i32"])
def test_cmp_selects(x: Single, kind: str, payload: str):
    a, b = np.float32(COMPARED).T.reshape(2, 1, 1, 1, -1)
    yes, no = np.arange(len(COMPARED)) + 1, -np.arange(len(COMPARED))
    shape = a.shape
    for address, values, dtype in ((0x1000, a, "f32"), (0x2000, b, "f32"), (0x3000, yes, payload), (0x4000, no, payload)):
        x.put(address, np.reshape(values, shape), dtype)
    x.run(
        "cmp", kind, opd0_prec=precision("f32"), opd2_prec=precision(payload), opd0_sign=1, opd0_addr=0x1000,
        opd1_addr=0x2000, opd2_addr=0x3000, opd3_addr=0x4000, res0_addr=0x5000, res1_addr=0x6000, **sizes("res0", shape),
    )  # fmt: skip
    p, q = [[flush(v) for v in side.reshape(-1)] for side in (a, b)]
    if "eq" in kind:  # on bits
        hold = [(u, v) in ((2, 2), (-INF, -INF)) or (math.copysign(1, u) == math.copysign(1, v) == -1 and u == v == 0) for u, v in COMPARED]
    else:
        hold = [u > v if "gt" in kind else u < v for u, v in zip(p, q, strict=True)]
    where = 0x6000 if kind.endswith("and_sel") else 0x5000
    assert x.get(where, shape, payload).reshape(-1).tolist() == [y if h else n for h, y, n in zip(hold, yes, no, strict=True)]
    if kind.endswith("and_sel"):
        extreme = [u if u > v else v for u, v in zip(p, q, strict=True)] if "gt" in kind else [v if v <= u else u for u, v in zip(p, q, strict=True)]
        same_bits(x.get(0x5000, shape, "f32").reshape(-1), extreme)


@pytest.mark.parametrize(("kind", "want"), [("sel_gt", [0, 0, 0]), ("sel_eq", [0, 0, 1]), ("sel_lt", [1, 1, 0])])
def test_cmp_of_nan(x: Single, kind: str, want: list[int]):
    x.put(0x1000, np.float32([NAN, 1.0, NAN]).reshape(1, 1, 1, 3), "f32")
    x.put(0x2000, np.float32([1.0, NAN, NAN]).reshape(1, 1, 1, 3), "f32")
    x.run(
        "cmp", kind, opd0_prec=2, opd2_prec=4, opd0_addr=0x1000, opd1_addr=0x2000, opd2_const=1, opd2_addr=1,
        opd3_const=1, opd3_addr=0, res0_addr=0x5000, **sizes("res0", (1, 1, 1, 3)),
    )  # fmt: skip
    assert x.get(0x5000, (1, 1, 1, 3), "i32").reshape(-1).tolist() == want


def test_ar_select_gives_the_payload_or_zero(x: Single):
    fields = {"tsk_opd_num": 3, "opd2_const": 1, "opd2_addr": bits(7.0), "opd2_prec": 2}
    assert x.ar("select_gt", [1, 2, NAN], [2, 1, 0], **fields) == [0, 7, 0]
    assert x.ar("select_eq", [0.0, 2, 3], [-0.0, 2, 4], **fields) == [0, 7, 0]
    assert x.ar("select_lt", [1, 2, NAN], [2, 1, 0], **fields) == [7, 0, 7]
