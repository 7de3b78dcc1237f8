"""MM2: matrix products. An R x C matrix is the tensor (1, R, 1, C), EU-aligned: rows go round the lanes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from compiler.target.isa import Instruction
from runtime_sim.arrays import Array, DType, Longs
from runtime_sim.machine.core import Core
from runtime_sim.machine.errors import SimulationError
from runtime_sim.machine.floats import BF16, F32, flush, round_to_16_bits, settle, to_f32
from runtime_sim.machine.instructions.accumulate import accumulate
from runtime_sim.machine.instructions.operands import (
    I32,
    Operands,
    Plan,
    dtype_of,
    gather_channels,
    is_float,
    scatter_channels,
)
from runtime_sim.machine.memory import Pieces

Read = Callable[[], Array]


def prepare(core: Core, instruction: Instruction) -> Plan:
    """nn: left [M, K] x right [K, N]; nt: left [M, K] x right [N, K]; tt: left [K, M] x right [N, K].

    The result is [M, N], for tt its transpose [N, M]. With res_add the sum starts from the f32 (or int32)
    values found at the result's address, also when the result is narrower.
    """
    operands = Operands(core, instruction)
    _check(operands)
    left = _matrix(operands, "opd0", _left_shape(operands), _left_type(operands))
    right = _matrix(operands, "opd1", _right_shape(operands), _right_type(operands))
    # Both as [K, ...]: the sum runs along the first axis.
    if instruction.kind != "tt":
        left = _transposed(left)
    if instruction.kind != "nn":
        right = _transposed(right)
    multiply = _float_product if is_float(_left_type(operands)) else _integer_product
    product = multiply(operands, left, right)
    result = _result(operands, operands.dtype("res0"))
    if instruction.kind == "tt":
        product = _transposed(product)
    return lambda: scatter_channels(result, product()[None, :, None, :])


def _check(operands: Operands) -> None:
    f = operands.fields
    if f.get("rq") or f.get("relu"):
        raise SimulationError("mm2 with requantization or relu is not modelled")
    zero_point = f["opd2_addr"] if f["opd2_const"] else 0
    if zero_point or (not f["opd2_const"] and operands.core.spec.products_with_bias):
        raise SimulationError("mm2 with a bias or a zero point is not modelled")
    if not is_float(_left_type(operands)) and not operands.core.spec.integer_products:
        raise SimulationError(f"mm2 of integers is not modelled for {operands.core.spec.chip}")
    if _left_type(operands) == F32:
        raise SimulationError("mm2 cannot read f32 operands")


def _left_type(operands: Operands) -> DType:
    return operands.dtype("opd0")


def _right_type(operands: Operands) -> DType:
    """opd1 has a precision of its own on some chips only."""
    f = operands.fields
    return dtype_of(f.get("opd1_prec", f["opd0_prec"]), f["opd1_sign"])


def _left_shape(operands: Operands) -> tuple[int, int]:
    f, kind = operands.fields, operands.instruction.kind
    if kind == "tt":
        return f["opd1_w"], f["res0_w"]
    return f["res0_c"], f["opd1_c"] if kind == "nn" else f["opd1_w"]


def _right_shape(operands: Operands) -> tuple[int, int]:
    f = operands.fields
    expected = f["res0_w"] if operands.instruction.kind == "nn" else f["opd1_w"]
    if operands.instruction.kind == "nn" and expected != f["opd1_w"]:
        raise SimulationError(f"mm2.nn: the result has {expected} columns, the right operand {f['opd1_w']}")
    rows = f["res0_c"] if operands.instruction.kind == "tt" else f["res0_w"]
    if operands.instruction.kind != "nn" and rows != f["opd1_c"]:
        raise SimulationError(f"mm2: the result needs {rows} rows of the right operand, it has {f['opd1_c']}")
    return f["opd1_c"], f["opd1_w"]


def _pieces(operands: Operands, prefix: str, shape: tuple[int, int], dtype: DType) -> Pieces:
    return operands.aligned(prefix, (1, shape[0], 1, shape[1]), dtype)


def _result(operands: Operands, dtype: DType) -> Pieces:
    return _pieces(operands, "res0", (operands.fields["res0_c"], operands.fields["res0_w"]), dtype)


def _matrix(operands: Operands, prefix: str, shape: tuple[int, int], dtype: DType) -> Read:
    """A function that reads a matrix [rows, columns]; a constant operand has the same value everywhere."""
    if operands.fields[f"{prefix}_const"]:
        value = np.broadcast_to(operands.constant(prefix, dtype), shape)
        return lambda: value
    pieces = _pieces(operands, prefix, shape, dtype)
    return lambda: gather_channels(pieces)[0, :, 0, :]


def _transposed(read: Read) -> Read:
    return lambda: read().T


def _float_product(operands: Operands, left: Read, right: Read) -> Read:
    core = operands.core
    result_type = operands.dtype("res0")
    if result_type not in (F32, _left_type(operands)) or _right_type(operands) != _left_type(operands):
        raise SimulationError(f"mm2 of {_left_type(operands)} and {_right_type(operands)} into {result_type}")
    widen = _flushed if _left_type(operands) == BF16 else to_f32
    start = _start(operands, F32)
    block = core.spec.mm_k_block

    def run() -> Array:
        a, b, c = widen(left()), widen(right()), start()
        total = accumulate(a, b, c, block) if core.exact else _fast(a, b, c)
        return total if result_type == F32 else round_to_16_bits(total, result_type, 0)

    return run


def _flushed(x: Array) -> Array:
    return flush(to_f32(x))


def _fast(a: Array, b: Array, start: Array | None) -> Array:
    """The product by the host's f32 matrix multiplication: another order of summation, no cut digits."""
    product = np.matmul(a.T, b)
    return product if start is None else settle(start + product)


def _start(operands: Operands, dtype: DType) -> Callable[[], Array | None]:
    """A function that reads the values to start from, in the orientation of the untransposed product."""
    if not operands.fields["res_add"]:
        return lambda: None
    pieces = _result(operands, dtype)
    if operands.instruction.kind == "tt":
        return lambda: gather_channels(pieces)[0, :, 0, :].T
    return lambda: gather_channels(pieces)[0, :, 0, :]


def _integer_product(operands: Operands, left: Read, right: Read) -> Read:
    """int8 products and their int32 sum; every partial sum is exact in f64."""
    if operands.dtype("res0").itemsize != 4 or is_float(operands.dtype("res0")):
        raise SimulationError(f"mm2 of int8 into {operands.dtype('res0')} is not modelled")
    start = _start(operands, I32)
    result_type = operands.dtype("res0")

    def run() -> Array:
        total: Longs = np.matmul(left().astype(np.float64).T, right().astype(np.float64)).astype(np.int64)
        first = start()
        return (total if first is None else np.add(total, first)).astype(result_type, copy=False)

    return run
