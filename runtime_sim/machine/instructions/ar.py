"""AR: elementwise arithmetic, result = op(opd0, opd1[, opd2])."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from compiler.target.isa import PRECISION, Instruction
from runtime_sim.arrays import Array, DType
from runtime_sim.machine.core import Core
from runtime_sim.machine.errors import SimulationError
from runtime_sim.machine.floats import F32, narrow, product, settle, to_f32
from runtime_sim.machine.instructions.cast import caster
from runtime_sim.machine.instructions.compare import FLOAT_COMPARE, INTEGER_COMPARE, larger, smaller
from runtime_sim.machine.instructions.integers import (
    binary_integer,
    saturating,
    shift,
    shift_logically,
)
from runtime_sim.machine.instructions.nibbles import packed_source, unpack
from runtime_sim.machine.instructions.operands import (
    I8,
    Operands,
    Plan,
    elementwise,
    is_float,
    raw_of,
)
from runtime_sim.machine.instructions.reciprocal import divide

Function = Callable[..., Array]

ARITHMETIC = {"add": np.add, "sub": np.subtract, "mul": np.multiply}
SAME_WIDTH = {
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "max": np.maximum,
    "min": np.minimum,
}
SATURATING = {"adds": np.add, "subs": np.subtract, "muls": np.multiply}
SHIFTS = {"ashift": shift, "logic_shift": shift_logically}
UNMODELLED = ("cshift", "copy_mb", "mac", "mul_dhr", "first_one", "first_zero")
SELECTS = {"select_gt": "gt", "select_eq": "eq", "select_lt": "lt"}


def prepare(core: Core, instruction: Instruction) -> Plan:
    """The plan of one AR instruction."""
    operands = Operands(core, instruction)
    if operands.fields.get("tsk_lane_num", (1 << 64) - 1) != (1 << 64) - 1:
        raise SimulationError("a lane mask in a long form is not modelled")
    kind = instruction.kind
    if kind == "cast" or kind in UNARY:
        return _unary(operands, kind)
    if kind in UNMODELLED:
        raise SimulationError(f"ar.{kind} is not modelled")
    return _binary(operands, kind)


def _unary(operands: Operands, kind: str) -> Plan:
    source_type = operands.dtype("opd0")
    # A cast's result takes its sign from opd2; elsewhere only the width of the result matters.
    result_type = operands.dtype("res0")
    if kind == "cast":
        signed = operands.fields["opd2_sign"]
        result_type = _with_sign(result_type, signed)
        function = caster(source_type, result_type, operands.fields["opd2_n_str"])
    else:
        _same_width(operands, source_type, result_type)
        if kind == "not" and is_float(source_type):
            raise SimulationError(f"ar.not on {source_type}: the chip cannot")
        if kind != "abs":
            source_type = result_type = raw_of(source_type)
        function = UNARY[kind]
    result = operands.tensor("res0", operands.result_shape, result_type)
    if operands.fields["opd0_prec"] == PRECISION["i4"]:
        return elementwise(result, [packed_source(operands)], lambda a: function(unpack(a, source_type)))
    return elementwise(result, [operands.source("opd0", source_type, len(result))], function)


def _binary(operands: Operands, kind: str) -> Plan:
    left, right = operands.dtype("opd0"), operands.dtype("opd1")
    result_type = operands.dtype("res0")
    function = _function(operands, kind, left, right, result_type)
    result = operands.tensor("res0", operands.result_shape, result_type)
    second = operands.source("opd1", right, len(result))
    if operands.fields["opd0_prec"] == PRECISION["i4"]:
        return elementwise(
            result, [packed_source(operands), second], lambda a, b: function(unpack(a, left), b)
        )
    return elementwise(result, [operands.source("opd0", left, len(result)), second], function)


def _function(operands: Operands, kind: str, left: DType, right: DType, result: DType) -> Function:
    """What the instruction computes, from arrays in memory format to an array in memory format."""
    if kind in SELECTS:
        return _select(operands, kind, left, right, result)
    if is_float(left):
        if not left == right == result:
            raise SimulationError(f"ar.{kind} mixes {left}, {right} and {result}; the chip cannot")
        return _float_function(operands, kind, left)
    if is_float(right) or is_float(result):
        raise SimulationError(f"ar.{kind} mixes {left}, {right} and {result}; the chip cannot")
    return _integer_function(operands, kind, left, right, result)


def _float_function(operands: Operands, kind: str, dtype: DType) -> Function:
    if kind in ARITHMETIC:
        return _float_arithmetic(ARITHMETIC[kind], dtype)
    if kind in ("max", "min"):
        return larger if kind == "max" else smaller
    if kind == "fsubabs":
        return lambda a, b: narrow(_distance(to_f32(a), to_f32(b)), dtype)
    if kind == "div" and dtype == F32:
        steps = operands.fields["opd2_n_str"] + 1
        checked = operands.core.spec.checked_roots
        return lambda a, b: divide(a, b, steps, checked)
    raise SimulationError(f"ar.{kind} on {dtype} is not modelled")


def _distance(a: Array, b: Array) -> Array:
    """a > b ? a - b : b - a, which makes +0 and -0 differ by -0."""
    a, b = settle(a), settle(b)
    return settle(np.where(a > b, a - b, b - a))


def _float_arithmetic(function: Function, dtype: DType) -> Function:
    """One f32 operation, rounded to the operands' type."""
    if dtype == F32:
        return lambda a, b: settle(function(settle(a), settle(b)))
    if function is np.multiply:
        return lambda a, b: product(a, b, dtype)
    return lambda a, b: narrow(settle(function(settle(to_f32(a)), settle(to_f32(b)))), dtype)


def _integer_function(
    operands: Operands, kind: str, left: DType, right: DType, result: DType
) -> Function:
    if kind in ARITHMETIC:
        return binary_integer(ARITHMETIC[kind], left, right, result)
    if kind in SAME_WIDTH:
        if not left.itemsize == right.itemsize == result.itemsize:
            raise SimulationError(f"ar.{kind} of {left} and {right} into {result}: the chip cannot")
        if kind in ("max", "min") and left.kind != right.kind:
            raise SimulationError(f"ar.{kind} of a signed and an unsigned operand")
        function = SAME_WIDTH[kind]
        return lambda a, b: function(a, b.view(left)).view(result)
    if kind in SHIFTS:
        return SHIFTS[kind](left, right, result, operands.fields["opd2_n_str"])
    if kind in SATURATING:
        signed = kind == "subs" or "i" in (left.kind, right.kind)
        amount, mode = _shift_amount(operands), operands.fields["opd2_n_str"]
        return saturating(SATURATING[kind], _with_sign(result, signed), amount, mode)
    raise SimulationError(f"ar.{kind} on {left} and {right} is not modelled")


def _shift_amount(operands: Operands) -> int:
    """The shift of a saturating operation: a constant int8, absent with two operands."""
    if operands.fields["tsk_opd_num"] < 3:
        return 0
    if not operands.fields["opd2_const"]:
        raise SimulationError("a shift amount in memory is not modelled")
    return int(operands.constant("opd2", I8))


def _select(operands: Operands, kind: str, left: DType, right: DType, result: DType) -> Function:
    """cond ? opd2 : 0."""
    if not operands.fields["opd2_const"]:
        raise SimulationError(f"ar.{kind} with opd2 in memory is not modelled")
    if is_float(left) != is_float(right):
        raise SimulationError(f"ar.{kind} mixes {left} and {right}; the chip cannot")
    payload = operands.constant("opd2", result)
    zero = np.zeros((), result)
    condition = SELECTS[kind]
    if is_float(left):
        compare = FLOAT_COMPARE[condition]
        return lambda a, b: np.where(compare(to_f32(a), to_f32(b)), payload, zero)
    compare_integers = INTEGER_COMPARE[condition]
    return lambda a, b: np.where(compare_integers(a, b), payload, zero)


def _copy(x: Array) -> Array:
    return x


UNARY: dict[str, Function] = {"copy": _copy, "not": np.bitwise_not, "abs": np.abs}


def _with_sign(dtype: DType, signed: int | bool) -> DType:
    """An integer type with another sign; floats as they are."""
    if is_float(dtype):
        return dtype
    return np.dtype(f"{'i' if signed else 'u'}{dtype.itemsize}")


def _same_width(operands: Operands, source: DType, result: DType) -> None:
    if source.itemsize != result.itemsize:
        raise SimulationError(f"ar.{operands.instruction.kind} from {source} to {result}")
