"""How MM2 sums products: exactly within a block of k, with f32 roundings between blocks.

The products of a block of `block` consecutive k (the last may be short) are f32: exact, but flushed when
denormal and infinite when too large. E is the exponent of the largest |p|; every p is cut toward zero to a
multiple of 2**(E - 24); the sum of those is exact and is rounded once to f32. Block sums are added in f32, in
order, on top of the initial value if there is one. Source: found by single-instruction runs of the vendor's
C-model, all words equal (BM1684X blocks of 32, BM1688 16).
"""

from __future__ import annotations

import numpy as np

from runtime_sim.arrays import Floats
from runtime_sim.machine.floats import F32, INVALID, settle

F64 = np.dtype(np.float64)
I32 = np.dtype(np.int32)
KEPT_BITS = 24  # bits kept below the leading bit of the largest product
CHUNK = 1 << 17  # products held at once: two arrays of them stay in the second-level cache
SMALLEST = np.float32(2.0**-102)  # from this largest product on, 2**(E - 24) is a normal f32


def accumulate(a: Floats, b: Floats, start: Floats | None, block: int) -> Floats:
    """start + a.T @ b in the chip's order; a [K, M], b [K, N], start [M, N], all f32.

    Tiles M and N so that a few blocks of products fit in cache. Call within `flush_denormals`. Returns f32
    [M, N].
    """
    a, b = _in_blocks(a, block), _in_blocks(b, block)
    m, n = a.shape[2], b.shape[2]
    out = np.empty((m, n), F32)
    columns = min(n, max(CHUNK // block, 1))
    rows = min(m, max(CHUNK // block // columns, 1))
    for i in range(0, m, rows):
        for j in range(0, n, columns):
            here = np.s_[i : i + rows, j : j + columns]
            tile = None if start is None else start[here]
            out[here] = _tile(a[:, :, i : i + rows], b[:, :, j : j + columns], tile)
    return out


def _in_blocks(x: Floats, block: int) -> Floats:
    """[K, R] as [blocks, block, R]; zeros fill up the last block, as a zero product changes nothing."""
    k, r = x.shape
    blocks = -(-k // block)
    if blocks * block != k:
        x = np.concatenate([x, np.zeros((blocks * block - k, r), F32)])
    return np.ascontiguousarray(x).reshape(blocks, block, r)


def _tile(a: Floats, b: Floats, total: Floats | None) -> Floats:
    """The accumulation of one tile: a [blocks, block, m], b [blocks, block, n]."""
    block, m, n = a.shape[1], a.shape[2], b.shape[2]
    step = max(CHUNK // (block * m * n), 1)
    for i in range(0, len(a), step):
        for t in _block_sums(a[i : i + step], b[i : i + step]):
            total = t if total is None else _plus(total, t)
    assert total is not None
    return total


def _plus(total: Floats, t: Floats) -> Floats:
    """total + t; of two NaNs, t's."""
    nan = np.isnan(t)
    return np.where(nan, t, settle(total + t)) if nan.any() else settle(total + t)


def _block_sums(a: Floats, b: Floats) -> Floats:
    """The rounded sum of every block: [blocks, m, n]."""
    products = settle(a[:, :, :, None] * b[:, :, None, :])
    scratch = np.abs(products)
    largest = scratch.max(axis=1)
    if not np.isfinite(largest).all():
        return _special_sums(products)
    if np.any((largest < SMALLEST) & (largest > 0)):
        return _small_sums(products, largest)
    # Scale by 2**(24 - E), built from the exponent bits of the largest product; 2**(E - 24) undoes it.
    exponent = np.maximum(largest.view(I32) >> 23, KEPT_BITS + 1)
    products *= ((254 + KEPT_BITS - exponent) << 23).view(F32)[:, None]
    cut = scratch.view(I32)
    np.copyto(cut, products, casting="unsafe")  # the conversion cuts toward zero
    sums = np.add.reduce(cut, axis=1, dtype=I32)
    unit = ((exponent - KEPT_BITS) << 23).view(F32)
    return settle((sums.astype(F64) * unit).astype(F32))


def _small_sums(products: Floats, largest: Floats) -> Floats:
    """Block sums where 2**(E - 24) is too small for f32."""
    unit = np.ldexp(1.0, np.frexp(largest)[1].astype(np.int64) - 1 - KEPT_BITS)
    sums = np.trunc(products.astype(F64) / unit[:, None]).sum(axis=1) + 0.0
    return settle((sums * unit).astype(F32))


def _special_sums(products: Floats) -> Floats:
    """Block sums where some products are infinite or NaN: infinities of one sign win over NaN."""
    regular = np.where(np.isfinite(products), products, np.float32(0))
    ordinary = _small_sums(regular, np.abs(regular).max(axis=1))
    plus, minus = (products == np.inf).any(axis=1), (products == -np.inf).any(axis=1)
    invalid = np.isnan(products).any(axis=1)
    sums = np.where(invalid, INVALID, ordinary)
    sums = np.where(plus | minus, np.where(plus, np.float32(np.inf), np.float32(-np.inf)), sums)
    return np.where(plus & minus, INVALID, sums)
