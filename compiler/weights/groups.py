"""From floats to codes: the scale and the zero point of each group, searched for the least squared error."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from compiler.weights.scheme import Scheme
from compiler.weights.stored import Array, Floats, Quantized, to_float32

CLIP_RATIOS = {4: (1.0, 0.95, 0.9, 0.85), 8: (1.0,)}  # parts of a range to try; twice as many gain 1 %
LARGEST_WEIGHT = 1e18  # so that squares and their sums stay finite in f32
CHUNK_WEIGHTS = 125_000  # worked on at once: three f32 copies fit a 2 MiB cache, and columns share no line


def quantize(weight: Array, scheme: Scheme, importance: Floats | None = None) -> Quantized:
    """Store a float weight [rows, columns] as codes, with scales that make each group's squared error small.

    Errors in a column count by its `importance` [columns], such as the mean square of the input that it is
    multiplied by: the sum over a row is then the expected square of the output's error, were inputs
    independent. Only its proportions matter; without it, all columns count the same.

    Raises ValueError when the scheme cannot hold such a matrix or has minimums, which are only ever taken
    over, a weight is not finite or out of all bounds, or what the codes stand for would not be finite in the
    type of the scales.
    """
    check_scheme(scheme, weight.shape)
    rows, columns = weight.shape
    across = columns // scheme.group
    codes = np.empty((rows * across, scheme.group), scheme.codes)
    scales = np.empty(len(codes), scheme.scale.numpy)
    zeros = np.empty(len(codes), np.uint8) if scheme.zeros else None
    groups = np.ascontiguousarray(weight).reshape(codes.shape)
    step = across * min(max(1, CHUNK_WEIGHTS // columns), rows)
    roots = None if importance is None else roots_of(importance).reshape(across, -1).T
    search = GridSearch(scheme, step, None if roots is None else np.tile(roots, step // across))
    for start in range(0, len(codes), step):
        chunk = slice(start, start + step)
        search.run(groups[chunk])
        codes[chunk] = search.codes().T
        scales[chunk] = search.scale
        if zeros is not None:
            zeros[chunk] = search.zero
    shape = (rows, columns // scheme.group)
    zeros = None if zeros is None else zeros.reshape(shape)
    quantized = Quantized(codes.reshape(rows, columns), scales.reshape(shape), zeros, scheme)
    check_decodes(quantized)
    return quantized


def check_scheme(scheme: Scheme, shape: tuple[int, ...]) -> None:
    """ValueError for what no floats are stored as."""
    if problem := scheme.problem_in(shape):
        raise ValueError(f"{scheme} {problem}")
    if scheme.minimum:
        raise ValueError(f"{scheme} has minimums, which only checkpoints bring")


def roots_of(importance: Floats) -> Floats:
    """What to multiply errors by before they are squared, about one on average; of none all are one."""
    mean = float(importance.mean(dtype=np.float64))
    return np.sqrt(importance / mean, dtype=np.float32) if mean > 0 else np.ones_like(importance, np.float32)


def check_decodes(quantized: Quantized) -> None:
    """The chip decodes in the type of the scales, and rounding can carry a large weight beyond its end."""
    limit = float(ml_dtypes.finfo(quantized.scales.dtype).max)  # type: ignore[no-untyped-call]
    steps = quantized.scheme.highest
    if steps * float(np.abs(quantized.scales.astype(np.float32)).max(initial=0)) <= limit:
        return
    peak = float(np.abs(quantized.dequantize()).max())
    if peak > limit:
        name = quantized.scales.dtype.name
        raise ValueError(f"decoded, it goes up to {peak:g}, which is beyond {name} ({limit:g})")


class GridSearch:
    """The best scale and zero point of each group of a chunk, among ranges clipped by a few ratios.

    Groups are columns here ([group, count]): numpy then works along contiguous rows with one scale per
    column, and reduces over the first axis, ten times as fast as over short rows.
    """

    def __init__(self, scheme: Scheme, count: int, roots: Floats | None = None):
        """For chunks of up to `count` groups, which all use the same arrays: fresh ones would cost more.

        `roots`, [group, count] or [group, 1], multiply the errors.
        """
        self.roots = roots
        self.buffers = np.empty((3, scheme.group * count), np.float32)
        self.scale_dtype: np.dtype[Any] = scheme.scale.numpy
        self.asymmetric = scheme.zeros
        self.implied_zero = scheme.implied_zero
        self.code_dtype = scheme.codes
        self.ratios = CLIP_RATIOS[scheme.bits]
        self.lowest, self.highest = -127 if scheme.signed else 0, scheme.highest

    def _begin(self, groups: Array) -> None:
        count, size = groups.shape
        self.weights, self.work, self.rounded = self.buffers[:, : groups.size].reshape(3, size, count)
        self.weights[...] = to_float32(groups).T
        self.error: Floats = np.full(count, np.inf, np.float32)
        self.scale: Floats = np.ones(count, np.float32)
        self.zero: Floats = np.full(count, self.implied_zero, np.float32)

    def run(self, groups: Array) -> None:
        """Find the best for the groups of a chunk, [count, group]."""
        self._begin(groups)
        low, high = self.weights.min(axis=0), self.weights.max(axis=0)
        if not (low.min() >= -LARGEST_WEIGHT and high.max() <= LARGEST_WEIGHT):
            raise ValueError(f"the weight holds NaN or infinity, or magnitudes beyond {LARGEST_WEIGHT:g}")
        for ratio in self.ratios:
            if self.asymmetric:
                self._try(*self._asymmetric(np.minimum(low, 0) * ratio, np.maximum(high, 0) * ratio))
            else:
                self._try(self._symmetric(low * ratio, high * ratio), self.zero)
        self._try(self._least_squares(), self.zero)

    def _asymmetric(self, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        scale = self._stored((high - low) / self.highest)
        return scale, np.clip(np.rint(-low / scale), 0, self.highest)

    def _symmetric(self, low: Floats, high: Floats) -> Floats:
        """The scale that puts the end of larger magnitude on the lowest code; negative if that end is high.

        In 4 bits the lowest code (-8) lies one step further from zero than the highest (7), so that no code
        is wasted.
        """
        end = np.where(high > -low, high, low)
        return self._stored(end / (self.lowest - self.zero))

    def _least_squares(self) -> Floats:
        """The scale of least squared error for the codes of the best candidate so far."""
        steps = self._round(self.scale, self.zero)
        steps -= self.zero
        power = np.einsum("ij,ij->j", self._weighted(steps), steps)
        product = np.einsum("ij,ij->j", steps, self._weighted(self.weights, self.work))
        return self._stored(product / np.maximum(power, np.float32(1e-30)))

    def _weighted(self, values: Floats, out: Floats | None = None) -> Floats:
        """The values times `roots`, in their own place or another."""
        if self.roots is None:
            return values
        return np.multiply(values, self.roots[:, : values.shape[1]], out=values if out is None else out)

    def _stored(self, scale: Floats) -> Floats:
        """The scale as its 16 bits will hold it; 1 where it vanishes, which rounds such weights to zero."""
        limit = 65504.0 if self.scale_dtype == np.float16 else 3e38
        stored = to_float32(np.clip(scale, -limit, limit).astype(self.scale_dtype))
        return np.where(stored == 0, np.float32(1), stored)

    def _round(self, scale: Floats, zero: Floats) -> Floats:
        """Codes of all groups, as floats; `work` is left holding them before rounding."""
        np.multiply(self.weights, 1 / scale, out=self.work)
        self.work += zero
        np.rint(self.work, out=self.rounded)
        return np.clip(self.rounded, self.lowest, self.highest, out=self.rounded)

    def _try(self, scale: Floats, zero: Floats) -> None:
        """Keep scale and zero for the groups whose squared error they lessen."""
        self.work -= self._round(scale, zero)
        self._weighted(self.work)
        error = np.einsum("ij,ij->j", self.work, self.work) * scale**2
        better = error < self.error
        for old, new in ((self.error, error), (self.scale, scale), (self.zero, zero)):
            np.copyto(old, new, where=better)

    def nearest(self, values: Floats) -> Floats:
        """The codes, as floats, of one value of each group, by the group's scale and zero."""
        codes = np.rint(values / self.scale + self.zero)
        return np.clip(codes, self.lowest, self.highest, out=codes)

    def codes(self) -> Array:
        return self._round(self.scale, self.zero).astype(self.code_dtype)
