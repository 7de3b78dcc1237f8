"""Rules about the types that an instruction reads and writes, and about rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from compiler.target.isa import PRECISION, ROUND, Instruction
from compiler.target.spec import ChipSpec

Fields = dict[str, int]

I8, F16, F32, I16, I32, BF16, I4 = (
    PRECISION[name] for name in ("i8", "f16", "f32", "i16", "i32", "bf16", "i4")
)
TYPE_NAME = {code: name for name, code in PRECISION.items()}
FLOATS = {F16, F32, BF16}
UNARY = ("cast", "copy", "not", "abs")
SAME_FLOATS = ("mul", "add", "sub", "max", "min", "div", "fsubabs")
SELECTS = ("select_gt", "select_eq", "select_lt")
SATURATING = ("adds", "subs", "muls")
INTEGER_ONLY = (*SATURATING, "and", "or", "xor", "not", "ashift")
ROUNDED = (*SATURATING, "cast", "ashift")
MAX_ROUNDING = ROUND["half_down"]
MAX_FLOAT_ROUNDING = ROUND["up"]  # the modes beyond it are for integers


def types(instruction: Instruction, spec: ChipSpec) -> Iterator[str]:
    rule = TYPE_RULES.get(instruction.name)
    if rule is not None:
        yield from rule(instruction.kind, instruction.fields)


def _named(*codes: int) -> str:
    return ", ".join(TYPE_NAME[code] for code in codes)


def _ar_types(kind: str, fields: Fields) -> Iterator[str]:
    left, right, result = (fields[f"{operand}_prec"] for operand in ("opd0", "opd1", "res0"))
    used = {left, result} if kind in UNARY else {left, right, result}
    if kind in INTEGER_ONLY and used & FLOATS:
        yield f"is for integers, not for {_named(*sorted(used & FLOATS))}"
    if kind in SAME_FLOATS and used & FLOATS and len(used) > 1:
        yield f"mixes {_named(left, right)} into {_named(result)}"
    if kind in SELECTS and left != right and {left, right} & FLOATS:
        yield f"compares {_named(left, right)}"
    if kind == "div" and used != {F32}:
        yield f"is for f32, not for {_named(left, right, result)}"
    yield from _integer_types(kind, fields, left, right)
    yield from _rounding(kind, fields, left)


def _integer_types(kind: str, fields: Fields, left: int, right: int) -> Iterator[str]:
    if kind in ("max", "min") and left not in FLOATS and fields["opd0_sign"] != fields["opd1_sign"]:
        yield "compares a signed and an unsigned integer"
    if kind == "ashift" and right != I8:
        yield f"the shift is {_named(right)}, expected i8"
    if kind in SATURATING and fields["tsk_opd_num"] == 3:
        if not fields["opd2_const"] or fields["opd2_prec"] != I8:
            yield "the shift, opd2, is no constant of type i8"


def _rounding(kind: str, fields: Fields, source: int) -> Iterator[str]:
    mode, last = fields["opd2_n_str"], MAX_FLOAT_ROUNDING if source in FLOATS else MAX_ROUNDING
    if kind in ROUNDED and mode > last:
        yield f"the round mode is {mode}, the last is {last}"


def _mm2_types(kind: str, fields: Fields) -> Iterator[str]:
    left, result = fields["opd0_prec"], fields["res0_prec"]
    right = fields.get("opd1_prec", left)
    if left in (F32, I16, I32):
        yield f"cannot read {_named(left)}"
    if left in FLOATS and (right != left or result not in (F32, left)):
        yield f"mixes {_named(left, right)} into {_named(result)}"
    if left == I8 and result != I32 and not fields.get("rq", 0):
        yield f"sums i8 into {_named(result)}, expected i32"


def _pooling_types(kind: str, fields: Fields) -> Iterator[str]:
    sign = fields["opd0_sign"]
    if kind.endswith("pooling") and not fields.get("rq", 0) and fields.get("res0_sign", sign) != sign:
        yield "pools a signed type into an unsigned one, or the other way round"


def _sfu_types(kind: str, fields: Fields) -> Iterator[str]:
    source, result = fields["opd0_prec"], fields["res0_prec"]
    if kind == "rsqrt" and (source, result) != (F32, F32):
        yield f"is for f32, not from {_named(source)} to {_named(result)}"
    if kind == "normalize" and (source != F32 or result not in (F32, I32)):
        yield f"is from f32 to f32 or i32, not from {_named(source)} to {_named(result)}"
    if kind.startswith("taylor") and (source not in FLOATS or source != result):
        yield f"is for one type of float, not from {_named(source)} to {_named(result)}"
    if kind.startswith("taylor") and fields["opd1_n"] < 2:
        yield f"opd1_n is {fields['opd1_n']}, the least is 2"


def _rqdq_types(kind: str, fields: Fields) -> Iterator[str]:
    source, result = fields["opd0_prec"], fields["res0_prec"]
    if kind == "dq0" and (source not in (I8, I16) or result != F32):
        yield f"is from i8 or i16 to f32, not from {_named(source)} to {_named(result)}"


def _sg_types(kind: str, fields: Fields) -> Iterator[str]:
    if kind == "pe_s_gather_d1coor" and fields["opd1_prec"] not in (I8, I16):
        yield f"its indices are {_named(fields['opd1_prec'])}, expected i8 or i16"


TYPE_RULES: dict[str, Callable[[str, Fields], Iterator[str]]] = {
    "ar": _ar_types,
    "mm2": _mm2_types,
    "pord": _pooling_types,
    "sfu": _sfu_types,
    "rqdq": _rqdq_types,
    "sg": _sg_types,
}


def float_product_bias(instruction: Instruction, spec: ChipSpec) -> Iterator[str]:
    """A float product has no zero point; where there can be a bias, what is no constant is its address."""
    fields = instruction.fields
    if instruction.name == "mm2" and fields["opd0_prec"] in FLOATS:
        is_const = fields["opd2_const"] or "rq" not in fields  # without requantization there is no bias
        if fields["opd2_addr"] or not is_const:
            yield "opd2 of a float product is not the constant 0"
