"""PorD: pooling, which is how the chip reduces along h and w."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np

from compiler.target.isa import Instruction
from runtime_sim.arrays import Array, DType, Floats
from runtime_sim.machine.core import Core
from runtime_sim.machine.errors import SimulationError
from runtime_sim.machine.floats import F32, HOST_FLUSHES, TINY, flush, narrow, product, settle, to_f32
from runtime_sim.machine.instructions.compare import flush_bits
from runtime_sim.machine.instructions.operands import Operands, Plan, is_float

Reduce = Callable[[Array], Array]  # [kh, kw, n, slots, lanes, h, w] to [n, slots, lanes, h, w]

PADS = ("opd0_up_pad", "opd0_dn_pad", "opd0_lf_pad", "opd0_rt_pad")
NO_INDICES = 0xFFFFFFFF  # in opd2_addr, where some chips would otherwise store the positions of the extremes
FEW_WINDOWS = 256  # results up to which all partial sums at once are cheaper than a step per kernel position
NOTHING = np.float32(-0.0)  # the sum of no values: adding it changes nothing, a zero's sign included
INSERTS = ("opd0_x_ins0", "opd0_y_ins0", "opd1_x_ins0", "opd1_y_ins0")


def prepare(core: Core, instruction: Instruction) -> Plan:
    """The plan of one pooling; kernel positions are numbered row by row."""
    operands = Operands(core, instruction)
    f, kind = operands.fields, instruction.kind
    if kind not in ("avgpooling", "maxpooling", "minpooling"):
        raise SimulationError(f"pord.{kind} is not modelled")
    if any(f[name] for name in PADS + INSERTS):
        raise SimulationError("pooling with padding or inserted zeros is not modelled")
    dtype = operands.dtype("opd0")
    if not is_float(dtype) or operands.dtype("res0") != dtype:
        raise SimulationError(f"pord.{kind} from {dtype} to {operands.dtype('res0')} is not modelled")
    if kind != "avgpooling" and core.spec.pools_tell_where and f["opd2_addr"] != NO_INDICES:
        raise SimulationError("pooling that also stores where the extreme was (opd2_addr) is not modelled")
    if kind == "minpooling" and dtype != F32:  # the chip model's answers make no sense
        raise SimulationError("pord.minpooling of 16-bit floats is not modelled")
    keeps = core.spec.pools_keep_first
    reduce = _average(operands, dtype) if kind == "avgpooling" else _extreme(kind, dtype, keeps)
    n, c = f["res0_n"], f["res0_c"]
    source = operands.tensor("opd0", (n, c, f["opd0_h"], f["opd0_w"]), dtype)
    result = operands.tensor("res0", operands.result_shape, dtype)
    windows = [_windows(piece, f) for piece in source]

    def run() -> None:
        values = [reduce(w) for w in windows]
        for target, value in zip(result, values, strict=True):
            target[...] = value

    return run


def _windows(piece: Array, f: dict[str, int]) -> Array:
    """A view [kh, kw, n, slots, lanes, out_h, out_w]: the kernel's positions first."""
    kernel = (f["opd1_h"], f["opd1_w"])
    steps = (f["res_op_y_str"], f["res_op_x_str"])
    out = (f["res0_h"], f["res0_w"])
    for size, k, step, count in zip(piece.shape[3:], kernel, steps, out, strict=True):
        if (count - 1) * step + k > size:
            raise SimulationError(f"{count} windows of {k} in steps of {step} do not fit {size} items")
    hs, ws = piece.strides[3:]
    return np.lib.stride_tricks.as_strided(
        piece,
        (*kernel, *piece.shape[:3], *out),
        (hs, ws, *piece.strides[:3], hs * steps[0], ws * steps[1]),
    )


def _average(operands: Operands, dtype: DType) -> Reduce:
    if not operands.fields["opd1_const"]:
        raise SimulationError("average pooling with its scale in memory is not modelled")
    scale = to_f32(operands.constant("opd1", dtype))
    if dtype == F32:
        return lambda windows: _average_f32(windows, scale)
    return lambda windows: _average_16(windows, scale, dtype)


def _average_f32(windows: Floats, scale: Floats) -> Floats:
    """Two accumulators: even positions add up in one, odd ones in the other, strictly in order."""
    if HOST_FLUSHES and windows[0, 0].size < FEW_WINDOWS:
        scaled = (windows * scale).reshape(-1, *windows.shape[2:])
        return _last_sum(scaled[0::2]) + _last_sum(scaled[1::2])
    totals: list[Floats] = []
    for position, index in enumerate(np.ndindex(windows.shape[:2])):
        value = settle(settle(windows[index]) * scale)
        if position < 2:
            totals.append(value)
        else:
            total = totals[position & 1]
            totals[position & 1] = settle(np.add(total, value, out=total))
    return settle(totals[0] + (totals[1] if len(totals) == 2 else NOTHING))


def _last_sum(values: Floats) -> Floats:
    """The sum along the first axis from first to last; numpy's own sum goes in pairs."""
    return np.add.accumulate(values, axis=0)[-1] if len(values) else np.full(values.shape[1:], NOTHING)


def _average_16(windows: Array, scale: Floats, dtype: DType) -> Array:
    """The same with every product and every partial sum rounded to 16 bits."""
    scaled = to_f32(product(windows, scale, dtype))
    scaled = scaled.reshape(-1, *windows.shape[2:])
    totals = [np.full(scaled.shape[1:], NOTHING) for _ in range(2)]
    for position, value in enumerate(scaled):
        half = position & 1
        totals[half] = to_f32(narrow(settle(totals[half] + value), dtype))
    return narrow(settle(totals[0] + totals[1]), dtype)


def _extreme(kind: str, dtype: DType, keeps: bool) -> Reduce:
    """The fold starts from the type's own finite end, which an infinity of that sign does not displace."""
    reduce, better = (np.max, np.greater) if kind == "maxpooling" else (np.min, np.less)
    limits = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    end = limits.min if kind == "maxpooling" else limits.max
    start = np.array(end, dtype)

    def step(so_far: Array, value: Array) -> Array:
        """The better of two; when neither is, some chips keep the old one and others take the new one."""
        old, new = flush(to_f32(so_far)), flush(to_f32(value))
        if keeps:
            return np.where(better(new, old), value, so_far)
        return np.where(better(old, new), so_far, value)

    def run(windows: Array) -> Array:
        values = windows.reshape(-1, *windows.shape[2:])
        out = reduce(to_f32(values), axis=0)
        plain = np.isfinite(out) & (np.abs(out) >= TINY)
        return out.astype(dtype) if plain.all() else _fold(values, start, step)

    return run


def _fold(values: Array, start: Array, step: Callable[..., Array]) -> Array:
    """Position by position, for what numpy decides otherwise: NaN, and zeros of different sign."""
    out = np.broadcast_to(start, values.shape[1:])
    for value in values:
        out = step(out, value)
    return flush_bits(out) if out.dtype == F32 else out
