"""How MM2 sums products: exactly within a block of k, with f32 roundings between blocks.

For each block of `block` consecutive k (the last may be short), with products p = a * b taken exactly: E is
the exponent of the largest |p|; every p is cut toward zero to a multiple of 2**(E - 24); the sum of those is
exact and is rounded once to f32. Block sums are added in f32, in order, on top of the initial value if there
is one. Source: found by single-instruction runs of the vendor's C-model, all words equal (BM1684X blocks of
32, BM1688 16).
"""

from __future__ import annotations

import numpy as np

from runtime_sim.floats import F32, settle

F64 = np.dtype(np.float64)
I32 = np.dtype(np.int32)
KEPT_BITS = 24  # bits kept below the leading bit of the largest product
CHUNK = 1 << 17  # products held at once: two arrays of them stay in the second-level cache
INVALID = np.array(0xFFC00000, np.uint32).view(F32)  # the NaN that the unit produces

# Within these bounds of the largest product, cutting in f32 is exact: what f32 would flush is cut off anyway.
SMALLEST, LARGEST = np.float32(2.0**-102), np.float32(3.4e38)


def accumulate(a: np.ndarray, b: np.ndarray, start: np.ndarray | None, block: int) -> np.ndarray:
    """start + a.T @ b in the chip's order; a [K, M], b [K, N], start [M, N], f32, no denormal bf16 left.

    Call within `flush_denormals`. Returns f32 [M, N].
    """
    finite = bool(np.isfinite(a).all() and np.isfinite(b).all())
    total = _blockwise(_only_finite(a), _only_finite(b), start, block)
    return total if finite else _with_specials(total, a, b)


def _only_finite(x: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(x), x, np.float32(0))


def _blockwise(a: np.ndarray, b: np.ndarray, start: np.ndarray | None, block: int) -> np.ndarray:
    """Tile over M and N so that a few blocks of products fit in cache."""
    a, b = _in_blocks(a, block), _in_blocks(b, block)
    (m, n) = a.shape[2], b.shape[2]
    out = np.empty((m, n), F32)
    columns = min(n, max(CHUNK // block, 1))
    rows = min(m, max(CHUNK // block // columns, 1))
    for i in range(0, m, rows):
        for j in range(0, n, columns):
            here = np.s_[i : i + rows, j : j + columns]
            tile = None if start is None else start[here]
            out[here] = _tile(a[:, :, i : i + rows], b[:, :, j : j + columns], tile)
    return out


def _in_blocks(x: np.ndarray, block: int) -> np.ndarray:
    """[K, R] as [blocks, block, R]; zeros fill up the last block, as a zero product changes nothing."""
    k, r = x.shape
    blocks = -(-k // block)
    if blocks * block != k:
        x = np.concatenate([x, np.zeros((blocks * block - k, r), F32)])
    return np.ascontiguousarray(x).reshape(blocks, block, r)


def _tile(a: np.ndarray, b: np.ndarray, total: np.ndarray | None) -> np.ndarray:
    """The accumulation of one tile: a [blocks, block, m], b [blocks, block, n]."""
    block, m, n = a.shape[1], a.shape[2], b.shape[2]
    step = max(CHUNK // (block * m * n), 1)
    for i in range(0, len(a), step):
        for t in _block_sums(a[i : i + step], b[i : i + step]):
            total = t if total is None else settle(total + t)
    assert total is not None
    return total


def _block_sums(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The rounded sum of every block: [blocks, m, n]."""
    products = a[:, :, :, None] * b[:, :, None, :]
    scratch = np.abs(products)
    largest = scratch.max(axis=1)
    if not _f32_is_exact(largest, a, b):
        return _block_sums_f64(a.astype(F64), b.astype(F64))
    # Scale by 2**(24 - E), built from the exponent bits of the largest product; 2**(E - 24) undoes it.
    exponent = np.maximum(largest.view(I32) >> 23, 25)
    products *= ((278 - exponent) << 23).view(F32)[:, None]
    cut = scratch.view(I32)
    np.copyto(cut, products, casting="unsafe")  # the conversion cuts toward zero
    sums = np.add.reduce(cut, axis=1, dtype=I32)
    unit = ((exponent - KEPT_BITS) << 23).view(F32)
    return settle((sums.astype(F64) * unit).astype(F32))


def _f32_is_exact(largest: np.ndarray, a: np.ndarray, b: np.ndarray) -> bool:
    """Whether no product that matters is too large or too small for f32."""
    if largest.max() > LARGEST:
        return False
    small = largest < SMALLEST
    if not small.any():
        return True
    # Small is fine only if it is truly zero, and not a product that f32 has flushed.
    return not largest[small].any() and _least(a) * _least(b) > 2.0**-126


def _least(x: np.ndarray) -> float:
    """The smallest magnitude that is not zero."""
    magnitude = np.abs(x[x != 0])
    return float(magnitude.min()) if magnitude.size else 1.0


def _block_sums_f64(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`_block_sums` for any range: products of 16-bit floats are exact in f64."""
    products = a[:, :, :, None] * b[:, :, None, :]
    largest = np.abs(products).max(axis=1)
    exponent = np.frexp(largest)[1] - 1
    unit = np.ldexp(np.float64(1), exponent - KEPT_BITS)
    sums = np.trunc(products / unit[:, None]).sum(axis=1)
    return settle((sums * unit).astype(F32))


def _with_specials(total: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Put NaN and infinities where an operand that is not finite decides the sum."""

    def meet(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return np.matmul(left.T.astype(F32), right.astype(F32)) > 0

    inf = np.float32(np.inf)
    plus = meet(a == inf, b > 0) | meet(a == -inf, b < 0) | meet(a > 0, b == inf) | meet(a < 0, b == -inf)
    minus = meet(a == inf, b < 0) | meet(a == -inf, b > 0) | meet(a > 0, b == -inf) | meet(a < 0, b == inf)
    invalid = meet(np.isinf(a), b == 0) | meet(a == 0, np.isinf(b)) | (plus & minus)
    invalid |= np.isnan(a).any(axis=0)[:, None] | np.isnan(b).any(axis=0)
    total = np.where(plus, total + inf, np.where(minus, total - inf, total))
    return np.where(invalid | (np.isnan(total) & (plus | minus)), INVALID, total)
