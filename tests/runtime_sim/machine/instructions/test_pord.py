"""Pooling."""

from fractions import Fraction

import numpy as np
import pytest

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
