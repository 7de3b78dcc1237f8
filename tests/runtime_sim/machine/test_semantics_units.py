"""Pooling, special functions, transposes and matrix products against scalar formulas, bit for bit."""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from tests.runtime_sim.machine.single import (
    Single,
    bf16,
    bits,
    flush,
    from_bits,
    precision,
    same_bits,
    sizes,
    spread,
)

LOWEST = 0xFF7FFFFF  # -FLT_MAX


@pytest.fixture(params=["bm1684x", "bm1688"])
def chip(request: pytest.FixtureRequest) -> Single:
    return Single(request.param)


@pytest.fixture
def x() -> Single:
    return Single("bm1684x")


def pool(chip: Single, kind: str, values: np.ndarray, kernel: tuple[int, int], dtype: str = "f32", **fields: int) -> np.ndarray:
    n, c, h, w = values.shape
    shape = (n, c, h - kernel[0] + 1, w - kernel[1] + 1)
    chip.put(0x1000, values, dtype)
    chip.run(
        "pord", kind, opd0_prec=precision(dtype), res0_prec=precision(dtype), opd0_addr=0x1000, res0_addr=0x8000, opd0_h=h,
        opd0_w=w, opd1_h=kernel[0], opd1_w=kernel[1], res_op_x_str=1, res_op_y_str=1, opd1_const=1, opd3_const=1,
        opd2_n_str=5, **sizes("res0", shape), **fields,
    )  # fmt: skip
    return chip.get(0x8000, shape, dtype)


@pytest.mark.parametrize(("kernel", "channels"), [((1, 7), 3), ((7, 1), 3), ((3, 4), 3), ((1, 1), 3), ((5, 6), 40)])
def test_avg_pooling_adds_even_and_odd_positions_apart(chip: Single, kernel: tuple[int, int], channels: int):
    values = spread(1, 2 * channels * 7 * 8).reshape(2, channels, 7, 8)
    scale = np.float32(0.3)
    got = pool(chip, "avgpooling", values, kernel, opd1_addr=bits(scale))
    for n, c, i, j in np.ndindex(got.shape):
        sums = [None, None]
        for position, v in enumerate(values[n, c, i : i + kernel[0], j : j + kernel[1]].reshape(-1)):
            term = flush(v * scale)
            old = sums[position % 2]
            sums[position % 2] = term if old is None else flush(old + term)
        same_bits([got[n, c, i, j]], [sums[0] if sums[1] is None else flush(sums[0] + sums[1])])


def test_avg_pooling_of_bf16_rounds_every_step(x: Single):
    rows = np.float32([bf16(v) for v in spread(2, 320, 1)]).reshape(10, 32)
    scale = bf16(0.3)
    want = []
    for row in rows:
        sums = [np.float32(0), np.float32(0)]
        for position, v in enumerate(row):
            sums[position % 2] = bf16(sums[position % 2] + bf16(v * scale))
        want.append(bf16(sums[0] + sums[1]))
    got = pool(x, "avgpooling", rows.reshape(1, 10, 1, 32), (1, 32), "bf16", opd1_addr=bits(scale, "bf16"))
    same_bits(got.reshape(-1), want, "bf16")


def test_max_pooling(chip: Single):
    values = spread(3, 2 * 70 * 4 * 6).reshape(2, 70, 4, 6)
    got = pool(chip, "maxpooling", values, (2, 3), opd3_addr=LOWEST)
    for n, c, i, j in np.ndindex(got.shape):
        assert got[n, c, i, j] == max(values[n, c, i : i + 2, j : j + 3].reshape(-1))


def test_max_pooling_drops_a_nan_when_a_number_follows(x: Single):
    values = np.float32([5, np.nan, 2, 3, 4, 5, 6, np.nan]).reshape(1, 2, 1, 4)
    same_bits(pool(x, "maxpooling", values, (1, 4), opd3_addr=LOWEST).reshape(-1), [3.0, np.nan])


def sfu(chip: Single, kind: str, values: np.ndarray, dtype: str = "f32", **fields: int) -> list:
    shape = (1, 1, 1, len(values))
    chip.put(0x1000, np.reshape(values, shape), dtype)
    code = precision(dtype)
    chip.run("sfu", kind, opd0_prec=code, res0_prec=code, opd0_addr=0x1000, res0_addr=0x2000, **sizes("res0", shape), **fields)
    return list(chip.get(0x2000, shape, dtype).reshape(-1))


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_rsqrt_is_newtons_iteration_in_f32(chip: Single, steps: int):
    values = abs(spread(4, 200, 20))
    want = []
    for v in values:
        y = from_bits(0x5F3759DF - (bits(v) >> 1))
        for _ in range(steps):
            y = y * (np.float32(1.5) - np.float32(np.float32(np.float32(0.5) * v) * y) * y)
        want.append(y)
    got = sfu(chip, "rsqrt", values, opd2_n_str=steps - 1)
    same_bits(got, want)
    tolerance = {1: 2e-3, 2: 5e-6, 3: 2e-7, 4: 2e-7}[steps]
    np.testing.assert_allclose(np.float64(got) * np.sqrt(np.float64(values)), 1, atol=tolerance)


def test_rsqrt_of_one_is_one_ulp_low(x: Single):
    assert sfu(x, "rsqrt", [1.0], opd2_n_str=3) == [np.float32(0.99999994)]


def test_rsqrt_of_what_is_no_positive_number():
    values = [np.inf, -2.0, np.nan, 0.0]
    same_bits(sfu(Single("bm1684x"), "rsqrt", values[:3], opd2_n_str=3), [np.inf, np.inf, np.nan])
    got = sfu(Single("bm1688"), "rsqrt", [*values, -0.0], opd2_n_str=3)
    assert [bits(v) for v in got] == [0, 0xFFC00000, 0xFFC00000, bits(np.inf), bits(-np.inf)]
    assert sfu(Single("bm1684x"), "rsqrt", [0.0], opd2_n_str=3)[0] == pytest.approx(6.7e19, rel=0.01)


@pytest.mark.parametrize("kind", ["taylor", "taylor_4x"])
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_taylor_is_horners_rule_rounded_at_each_step(chip: Single, kind: str, dtype: str):
    def step(v: np.float32) -> np.float32:
        return flush(v) if dtype == "f32" else bf16(v)

    coefficients = [step(np.float32(1 / math.factorial(k))) for k in range(9)]
    chip.put(0x4000, np.reshape(coefficients, (1, 1, 1, 9)), dtype)
    values = [step(v) for v in spread(5, 60, 1)]
    want = []
    for v in values:
        total = coefficients[-1]
        for c in coefficients[-2::-1]:
            total = step(step(total * v) + c)
        want.append(total)
    same_bits(sfu(chip, kind, values, dtype, opd1_addr=0x4000, opd1_n=9), want, dtype)


def tsbc(chip: Single, kind: str, dtype: str, shape: tuple[int, ...], source: int, target: int, **fields: int) -> None:
    chip.run("tsbc", kind, res0_prec=precision(dtype), opd0_addr=source, res0_addr=target, **sizes("res0", shape), **fields)


def numbers(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return (np.arange(math.prod(shape)) % (251 if dtype == "u8" else 65521)).reshape(shape)


@pytest.mark.parametrize("dtype", ["u8", "u16", "u32"])
@pytest.mark.parametrize(("kind", "result_layout"), [("cw_ts", 4), ("wc_ts", 0)])
def test_transposes_of_channels_and_columns(chip: Single, kind: str, result_layout: int, dtype: str):
    values = numbers((2, 35, 3, 21), dtype)
    lane = {"cw_ts": (0, 3), "wc_ts": (5, 0)}[kind]
    chip.put(chip.at(0x1000, lane[0]), values, dtype)
    tsbc(chip, kind, dtype, (2, 21, 3, 35), chip.at(0x1000, lane[0]), chip.at(0x8000, lane[1]), opd0_c=35, opd0_w=21)
    got = chip.get(chip.at(0x8000, lane[1]), (2, 21, 3, 35), dtype, result_layout)
    for n, c, h, w in np.ndindex(values.shape):
        assert got[n, w, h, c] == values[n, c, h, w]


def test_lane_copy_and_broadcast(chip: Single):
    values = numbers((2, 70, 2, 9), "u16")
    chip.put(chip.at(0x1000, 3), values, "u16")
    tsbc(chip, "l_copy", "u16", values.shape, chip.at(0x1000, 3), chip.at(0x8000, 20), opd0_c=70, opd0_w=9)
    assert np.array_equal(chip.get(chip.at(0x8000, 20), values.shape, "u16"), values)
    chip.put(chip.at(0x1000, 9), values[:, :1], "u16")
    tsbc(chip, "l_bc", "u16", values.shape, chip.at(0x1000, 9), chip.at(0x8000), opd0_c=1, opd0_w=9)
    assert np.array_equal(chip.get(0x8000, values.shape, "u16"), np.repeat(values[:, :1], 70, axis=1))


@pytest.mark.parametrize(("name", "offset"), [("bm1684x", 1024), ("bm1688", 0)])
def test_static_memory_to_every_lane(name: str, offset: int):
    chip = Single(name)
    tsbc(chip, "s_bc", "f32", (1, chip.spec.lanes, 1, 9), chip.spec.tiu_static_base + offset, 0x1000)
    want = [np.float32(1 / math.factorial(k)) for k in range(9)]
    for row in chip.get(0x1000, (1, chip.spec.lanes, 1, 9), "f32")[0, :, 0]:
        same_bits(row, want)


def exact_sum(a: list[Fraction], b: list[Fraction], block: int, start: np.float32 | None) -> np.float32:
    """Blocks of products cut toward zero 24 bits below the leading one; block sums rounded and added in f32."""
    total = start
    for k in range(0, len(a), block):
        products = [p * q for p, q in zip(a[k : k + block], b[k : k + block], strict=True)]
        largest = max(abs(p) for p in products)
        if largest:
            unit = Fraction(2) ** (math.frexp(float(largest))[1] - 1 - 24)
            partial = np.float32(float(sum(math.trunc(p / unit) for p in products) * unit))
        else:
            partial = np.float32(0)
        total = partial if total is None else np.float32(total + partial)
    return total


MATMUL = {"nn": ("mk", "kn"), "nt": ("mk", "nk"), "tt": ("km", "nk")}


@pytest.mark.parametrize("res_add", [0, 1])
@pytest.mark.parametrize("result", ["f32", "bf16"])
@pytest.mark.parametrize("kind", MATMUL)
def test_mm2_sums_blocks_exactly(chip: Single, kind: str, result: str, res_add: int):
    size = {"m": 3, "k": 77, "n": 5}
    a = spread(6, 3 * 77, 2).astype(ml_dtypes.bfloat16).astype(np.float32).reshape(3, 77)
    b = spread(7, 5 * 77, 2).astype(ml_dtypes.bfloat16).astype(np.float32).reshape(77, 5)
    a[1, :40] = 0
    sides = {"mk": a, "km": a.T, "kn": b, "nk": b.T}
    for address, side in zip((0x1000, 0x8000), MATMUL[kind], strict=True):
        chip.put(address, sides[side][None, :, None, :], "bf16")
    rows, columns = (5, 3) if kind == "tt" else (3, 5)
    start = spread(8, rows * columns).reshape(1, rows, 1, columns)
    chip.put(0x10000, start, "f32")
    chip.run(
        "mm2", kind, opd0_prec=5, res0_prec=precision(result), opd0_addr=0x1000, opd1_addr=0x8000, res0_addr=0x10000,
        res0_c=rows, res0_w=columns, opd1_c=size[MATMUL[kind][1][0]], opd1_w=size[MATMUL[kind][1][1]],
        opd2_const=1, res_add=res_add,
    )  # fmt: skip
    got = chip.get(0x10000, (1, rows, 1, columns), result)[0, :, 0]
    block = {"bm1684x": 32, "bm1688": 16}[chip.spec.name]
    for i, j in np.ndindex(3, 5):
        at = (j, i) if kind == "tt" else (i, j)
        first = start[0, at[0], 0, at[1]] if res_add else None
        want = exact_sum([Fraction(float(v)) for v in a[i]], [Fraction(float(v)) for v in b[:, j]], block, first)
        same_bits([got[at]], [want if result == "f32" else bf16(want)], result)


def test_mm2_cuts_what_is_24_bits_below_the_largest_product(x: Single):
    # 2**0 + 31 terms of 2**-25: each is cut to nothing, though their sum would count.
    for small, want in ((2.0**-25, 1.0), (2.0**-24, 1 + 31 * 2.0**-24)):
        x.put(0x1000, np.float32([1.0] + [small] * 31).reshape(1, 1, 1, 32), "bf16")
        x.run("mm2", "nn", opd0_prec=5, res0_prec=2, opd0_addr=0x1000, opd1_const=1, opd1_addr=0x3F80, opd2_const=1,
              res0_addr=0x8000, res0_c=1, res0_w=1, opd1_c=32, opd1_w=1)  # fmt: skip
        same_bits(x.get(0x8000, (1, 1, 1, 1), "f32").reshape(-1), [np.float32(want)])


def test_mm2_of_int8_from_other_lanes_with_a_constant_left(x: Single):
    right = (np.arange(65 * 7) % 251 - 125).reshape(65, 7)
    x.put(0x8000, right[None, :, None, :], "i8")
    x.run("mm2", "nn", opd0_prec=0, opd0_sign=1, opd1_sign=1, res0_prec=4, opd0_const=1, opd0_addr=0xFD, opd1_addr=0x8000,
          opd2_const=1, res0_addr=x.at(0x2000, 7), res0_c=2, res0_w=7, opd1_c=65, opd1_w=7)  # fmt: skip
    got = x.get(x.at(0x2000, 7), (1, 2, 1, 7), "i32")[0, :, 0]
    assert got.tolist() == [[-3 * int(sum(right[:, j])) for j in range(7)]] * 2
