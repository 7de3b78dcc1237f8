"""Pooling, polynomials, fused per-channel operations and dequantization."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime_sim.machine.errors import SimulationError
from tests.runtime_sim.machine.instructions.board import B8, BF16, Board, X, code_of, shape_fields
from tests.runtime_sim.machine.instructions.scalars import rounded

F32, F16 = np.dtype(np.float32), np.dtype(np.float16)


def raw(value, dtype):
    return int(np.array(value, dtype).view({2: np.uint16, 4: np.uint32}[np.dtype(dtype).itemsize]))


def pool(kind, x, kernel, steps=(1, 1), scale=1.0, spec=X, **fields):
    """Windows of `kernel` over x (n, c, h, w)."""
    board = Board(spec)
    board.put(x, 0)
    n, c, h, w = x.shape
    out = ((h - kernel[0]) // steps[0] + 1, (w - kernel[1]) // steps[1] + 1)
    code = code_of(x.dtype)
    usual = {"res0_prec": code, "opd0_prec": code, "opd1_const": 1, "opd3_const": 1, "res0_addr": 8192}
    usual |= {"opd0_h": h, "opd0_w": w, "opd1_h": kernel[0], "opd1_w": kernel[1]}
    usual |= {"res_op_y_str": steps[0], "res_op_x_str": steps[1], "opd1_addr": raw(scale, x.dtype)}
    board.run("pord", kind, **shape_fields((n, c, *out)) | usual | fields)
    return board.take((n, c, *out), x.dtype, 8192)


def windows(x, kernel, steps, y, z):
    top, left = y * steps[0], z * steps[1]
    return x[:, :, top : top + kernel[0], left : left + kernel[1]].reshape(*x.shape[:2], -1)


@pytest.mark.parametrize("dtype", [F32, BF16, F16], ids=str)
@pytest.mark.parametrize(
    ("shape", "kernel", "steps"),
    [
        ((1, 3, 6, 4), (6, 1), (1, 1)),
        ((2, 66, 1, 9), (1, 9), (1, 1)),
        ((2, 66, 1, 9), (1, 1), (1, 1)),
        ((1, 2, 5, 6), (2, 3), (2, 3)),
        ((1, 2, 61, 1), (61, 1), (1, 1)),
    ],
)
def test_averages_use_two_accumulators(dtype, shape, kernel, steps):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(shape) * 10.0 ** rng.integers(-2, 3, shape)).astype(F32).astype(dtype)
    ours = pool("avgpooling", x, kernel, steps, scale=0.3)
    scale = Fraction(float(np.array(0.3, dtype)))
    flushes = dtype != F16

    def fit(value):
        """One operation's result: through f32 into the format."""
        return rounded(rounded(value, F32), dtype, flushes=flushes)

    for y, z in np.ndindex(ours.shape[2:]):
        for n, c in np.ndindex(shape[:2]):
            sums = [Fraction(0), Fraction(0)]
            for i, value in enumerate(windows(x, kernel, steps, y, z)[n, c]):
                sums[i % 2] = fit(sums[i % 2] + fit(Fraction(float(value)) * scale))
            assert Fraction(float(ours[n, c, y, z])) == fit(sum(sums))


@pytest.mark.parametrize("many", [False, True])
def test_few_and_many_windows_add_up_in_the_same_order(many):
    """Both ways of summing long windows; the wider tensor goes the other way."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 1, 100, 1)).astype(F32)
    alone = pool("avgpooling", x, (100, 1))
    wide = np.tile(x, (1, 64, 1, 8)) if many else np.tile(x, (1, 2, 1, 1))
    np.testing.assert_array_equal(
        pool("avgpooling", wide, (100, 1)), np.broadcast_to(alone, (1, wide.shape[1], 1, wide.shape[3]))
    )


def test_a_sum_of_negative_zeros_is_negative():
    x = np.full((1, 2, 3, 1), -0.0, F32)
    assert np.signbit(pool("avgpooling", x, (3, 1))).all()


@pytest.mark.parametrize("dtype", [F32, BF16, F16], ids=str)
def test_maxima(dtype):
    x = np.random.default_rng(0).standard_normal((1, 70, 6, 5)).astype(dtype)
    ours = pool("maxpooling", x, (3, 5))
    wanted = [windows(x, (3, 5), (1, 1), y, 0).astype(F32).max(axis=2) for y in range(4)]
    np.testing.assert_array_equal(ours[..., 0].astype(F32), np.stack(wanted, axis=2))


def test_minima():
    x = np.random.default_rng(0).standard_normal((1, 40, 6, 5)).astype(F32)
    np.testing.assert_array_equal(pool("minpooling", x, (6, 5), spec=B8)[..., 0, 0], x.min(axis=(2, 3)))


NAN = np.float32(np.nan)


@pytest.mark.parametrize(
    ("column", "x_wants", "b8_wants"),
    [
        ([1.0, NAN, 0.5], 0.5, 1.0),
        ([1.0, 0.5, NAN], NAN, 1.0),
        ([NAN, -np.inf], -np.inf, np.finfo(F32).min),
        ([0.0, -0.0], -0.0, 0.0),
        ([-0.0, 0.0], 0.0, -0.0),
        ([1e-40, -1.0], 0.0, 0.0),
    ],
)
def test_maxima_of_what_is_no_number_differ_between_chips(column, x_wants, b8_wants):
    x = np.array(column, F32).reshape(1, 1, -1, 1)
    for spec, wanted in ((X, x_wants), (B8, b8_wants)):
        (got,) = pool("maxpooling", x, (len(column), 1), spec=spec).reshape(-1)
        np.testing.assert_array_equal([got, np.signbit(got)], [wanted, np.signbit(np.float32(wanted))])


def test_pooling_that_is_not_modelled():
    x = np.ones((1, 2, 4, 1), F32)
    with pytest.raises(SimulationError, match="padding"):
        pool("avgpooling", x, (2, 1), opd0_up_pad=1)
    with pytest.raises(SimulationError, match="do not fit"):
        pool("avgpooling", x, (2, 1), opd0_h=3)
    with pytest.raises(SimulationError, match="where the extreme was"):
        pool("maxpooling", x, (2, 1), spec=B8, opd2_addr=0)
    with pytest.raises(SimulationError, match="16-bit"):
        pool("minpooling", x.astype(BF16), (2, 1), spec=B8)
    with pytest.raises(SimulationError, match="depthwise"):
        pool("depthwise", x, (2, 1))


@pytest.mark.parametrize("dtype", [F32, BF16, F16], ids=str)
@pytest.mark.parametrize("kind", ["taylor", "taylor_4x"])
@settings(max_examples=10)
@given(seed=st.integers(0, 1 << 30), count=st.integers(2, 12))
def test_polynomials_round_every_product_and_sum(kind, dtype, seed, count):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (1, 70, 1, 3)).astype(dtype)
    rows = rng.uniform(-2, 2, (1, 64, 1, count)).astype(dtype)
    board = Board()
    board.put(x, 0)
    board.put(rows, 4096)
    code = code_of(dtype)
    board.run(
        "sfu", kind, res0_prec=code, opd0_prec=code, opd1_n=count, opd1_addr=4096, res0_addr=8192,
        **shape_fields(x.shape),
    )  # fmt: skip
    ours = board.take(x.shape, dtype, 8192)
    flushes = dtype != F16
    for c in (0, 5, 63, 64, 69):
        coefficients = [Fraction(float(v)) for v in rows[0, c % 64, 0]]
        total = coefficients[-1]
        for coefficient in reversed(coefficients[:-1]):
            value = rounded(total * Fraction(float(x[0, c, 0, 1])), dtype, flushes=flushes)
            total = rounded(rounded(value + coefficient, F32), dtype, flushes=flushes)
        assert Fraction(float(ours[0, c, 0, 1])) == total


@pytest.mark.parametrize("kind", ["mac", "square_sum", "square_diff"])
def test_fused_operations_round_twice(kind):
    rng = np.random.default_rng(0)
    x, b, c = (rng.standard_normal((1, 70, 1, w)).astype(F32) for w in (5, 1, 1))
    board = Board()
    board.put(x, 0)
    board.put(b, 4096, strides=(0, 1, 0, 0))
    board.put(c, 6144, strides=(0, 1, 0, 0))
    board.run(
        "lin", kind, res0_prec=2, opd1_addr=4096, opd2_addr=6144, res0_addr=8192, **shape_fields(x.shape)
    )
    wanted = {"mac": x * b + c, "square_sum": (x + b) * (x + b), "square_diff": (x - b) * (x - b)}
    np.testing.assert_array_equal(board.take(x.shape, F32, 8192), wanted[kind])


@pytest.mark.parametrize("spec", [X, B8], ids=lambda s: s.name)
def test_dequantization_by_channel(spec):
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (1, 66, 2, 3)).astype(np.int8)
    zero_points = rng.integers(-20, 20, 66).astype(np.int32)
    scales = rng.standard_normal(66).astype(F32)
    board = Board(spec)
    board.put(x, 0)
    pairs = np.stack([zero_points.view(np.uint32), scales.view(np.uint32)], axis=1)
    board.put(pairs.reshape(1, 66, 1, 2), 4096)
    board.run(
        "rqdq", "dq0", res0_prec=2, opd0_sign=1, opd2_sign=1, opd1_addr=4096, res0_addr=8192,
        **shape_fields(x.shape),
    )  # fmt: skip
    wanted = (x - zero_points[:, None, None]).astype(F32) * scales[:, None, None]
    np.testing.assert_array_equal(board.take(x.shape, F32, 8192), wanted)
    totals = rng.integers(-9999, 9999, x.shape).astype(np.int32)
    board.put(totals, 0)
    small = np.stack([scales * np.float32(0.01), scales], axis=1).view(np.uint32)
    board.put(small.reshape(1, 66, 1, 2), 4096)
    board.run(
        "rqdq", "rq0", opd0_prec=4, opd0_sign=1, opd2_sign=1, opd1_addr=4096, res0_addr=8192,
        **shape_fields(x.shape),
    )  # fmt: skip
    real = totals.astype(F32) * (scales * np.float32(0.01))[:, None, None] + scales[:, None, None]
    np.testing.assert_array_equal(board.take(x.shape, np.int8, 8192), np.clip(np.rint(real), -128, 127))
