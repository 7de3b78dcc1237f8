"""MM2: where matrices lie, their types, and how each chip sums."""

from fractions import Fraction

import numpy as np
import pytest

from runtime_sim.machine.errors import SimulationError
from tests.runtime_sim.machine.instructions.board import B8, BF16, LANE, Board, X, code_of, words
from tests.runtime_sim.machine.instructions.scalars import dot

F32, F16 = np.dtype(np.float32), np.dtype(np.float16)


def operands(kind, m, k, n):
    """Shapes of left and right as they are stored, and the fields that say so."""
    left = (k, m) if kind == "tt" else (m, k)
    right = (k, n) if kind == "nn" else (n, k)
    result = (n, m) if kind == "tt" else (m, n)
    sizes = {"res0_c": result[0], "res0_w": result[1], "opd1_c": right[0], "opd1_w": right[1]}
    return left, right, result, sizes


def as_rows(matrix):
    return matrix.reshape(1, matrix.shape[0], 1, matrix.shape[1])


def multiply(kind, a, b, result_type, spec=X, start=None, lane=0, exact=True, **fields):
    """Store a [M, K] and b [K, N] as the kind wants them, multiply, fetch [M, N]."""
    board = Board(spec, exact)
    left, _, result, sizes = operands(kind, a.shape[0], a.shape[1], b.shape[1])
    board.put(as_rows(np.ascontiguousarray(a if left == a.shape else a.T)), lane * LANE)
    board.put(as_rows(np.ascontiguousarray(b if kind == "nn" else b.T)), 4096)
    if start is not None:
        board.put(as_rows(np.ascontiguousarray(start.T if kind == "tt" else start)), 8192 + lane * LANE)
        fields["res_add"] = 1
    precisions = {"opd0_prec": code_of(a.dtype), "res0_prec": code_of(result_type), "opd2_const": 1}
    if spec is B8:
        precisions["opd1_prec"] = code_of(b.dtype)
    signs = {f"opd{i}_sign": int(x.dtype.kind != "u") for i, x in enumerate((a, b))}
    addresses = {"opd0_addr": lane * LANE, "opd1_addr": 4096, "res0_addr": 8192 + lane * LANE}
    board.run("mm2", kind, **sizes | precisions | signs | addresses | fields)
    out = board.take((1, result[0], 1, result[1]), result_type, 8192 + lane * LANE)[0, :, 0, :]
    return out.T if kind == "tt" else out


@pytest.mark.parametrize("spec", [X, B8], ids=lambda s: s.name)
@pytest.mark.parametrize("kind", ["nn", "nt", "tt"])
@pytest.mark.parametrize(("m", "k", "n"), [(3, 5, 2), (70, 40, 3), (2, 33, 66)])
def test_matrices_lie_with_their_rows_round_the_lanes(spec, kind, m, k, n):
    rng = np.random.default_rng(m)
    a, b = (rng.integers(-9, 9, shape).astype(BF16) for shape in ((m, k), (k, n)))
    start = rng.integers(-9, 9, (m, n)).astype(F32)
    exact = a.astype(F32) @ b.astype(F32)
    np.testing.assert_array_equal(multiply(kind, a, b, F32, spec), exact)
    np.testing.assert_array_equal(multiply(kind, a, b, F32, spec, start), exact + start)


@pytest.mark.parametrize("spec", [X, B8], ids=lambda s: s.name)
@pytest.mark.parametrize("kind", ["nn", "nt", "tt"])
def test_each_chip_sums_in_blocks_of_its_own(spec, kind):
    rng = np.random.default_rng(6)
    a, b, start = words(rng, (3, 77), BF16, 2), words(rng, (77, 5), BF16, 2), words(rng, (3, 5), F32, 2)
    for first in (None, start):
        ours = multiply(kind, a, b, F32, spec, first)
        for m, n in np.ndindex(ours.shape):
            begin = None if first is None else Fraction(float(first[m, n]))
            wanted = dot(a[m].tolist(), b[:, n].tolist(), {X: 32, B8: 16}[spec], begin)
            assert Fraction(float(ours[m, n])) == wanted


def test_left_and_result_may_start_on_another_lane():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-9, 9, shape).astype(BF16) for shape in ((9, 8), (8, 4)))
    np.testing.assert_array_equal(multiply("nn", a, b, F32, lane=60), a.astype(F32) @ b.astype(F32))


def test_a_16_bit_result_is_the_f32_sum_rounded_once_and_starts_from_f32():
    rng = np.random.default_rng(0)
    a, b = words(rng, (4, 64), BF16, 1), words(rng, (64, 5), BF16, 1)
    start = words(rng, (4, 5), F32, 1)
    in_f32 = multiply("nn", a, b, F32, start=start)
    np.testing.assert_array_equal(multiply("nn", a, b, BF16, start=start), in_f32.astype(BF16))


def test_the_sum_may_be_split_at_whole_blocks_and_nowhere_else():
    rng = np.random.default_rng(0)
    a, b = words(rng, (4, 96), BF16, 3), words(rng, (96, 5), BF16, 3)
    whole = multiply("nn", a, b, F32)

    def split(at):
        first = multiply("nn", a[:, :at], b[:at], F32)
        return multiply("nn", a[:, at:], b[at:], F32, start=first)

    np.testing.assert_array_equal(split(64), whole)
    assert (split(40) != whole).any()


@pytest.mark.parametrize("types", [(np.int8, np.int8), (np.uint8, np.int8), (np.uint8, np.uint8)])
@pytest.mark.parametrize("kind", ["nn", "nt", "tt"])
def test_integers_sum_exactly(kind, types):
    rng = np.random.default_rng(0)
    a, b = (
        rng.integers(np.iinfo(t).min, np.iinfo(t).max + 1, shape).astype(t)
        for t, shape in zip(types, ((6, 70), (70, 5)), strict=True)
    )
    start = rng.integers(-(1 << 31), (1 << 31) - 1, (6, 5)).astype(np.int32)
    wanted = (a.astype(np.int64) @ b.astype(np.int64) + start).astype(np.int32)
    np.testing.assert_array_equal(multiply(kind, a, b, np.int32, start=start), wanted)


def test_a_constant_left_operand_sums_columns():
    b = np.random.default_rng(0).integers(-9, 9, (40, 3)).astype(BF16)
    half = int(np.array(0.5, BF16).view(np.uint16))
    ours = multiply("nn", np.zeros((2, 40), BF16), b, F32, opd0_const=1, opd0_addr=half)
    np.testing.assert_array_equal(ours, np.tile(b.astype(F32).sum(axis=0) / 2, (2, 1)))


def test_the_fast_product_is_close_and_the_exact_one_is_the_default():
    rng = np.random.default_rng(0)
    a, b = words(rng, (8, 256), BF16, 0), words(rng, (256, 8), BF16, 0)
    exact, fast = multiply("nn", a, b, F32), multiply("nn", a, b, F32, exact=False)
    assert (exact != fast).any()
    np.testing.assert_allclose(fast, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"opd2_addr": 3}, "zero point"),
        ({"opd0_prec": 2}, "cannot read f32"),
        ({"res0_prec": 1}, "mm2 of bfloat16 and bfloat16 into float16"),
        ({"opd1_w": 3}, "the result has 2 columns, the right operand 3"),
    ],
)
def test_products_the_chip_cannot_make(fields, message):
    with pytest.raises(SimulationError, match=message):
        multiply("nn", np.ones((2, 4), BF16), np.ones((4, 2), BF16), F32, **fields)


def test_integer_sums_go_into_32_bits():
    ones = np.ones((2, 2), np.int8)
    for narrow in (np.int8, np.float32):
        with pytest.raises(SimulationError, match="mm2 of int8 into"):
            multiply("nn", ones, ones, narrow)
    with pytest.raises(SimulationError, match="not modelled for BM1688"):
        multiply("nn", ones, ones, np.int32, B8)
