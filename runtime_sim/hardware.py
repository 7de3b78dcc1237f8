"""Rules of the chip that Sophgo's C-model does not enforce: fields, types, alignment, lanes, bounds, overlap.

The C-model accepts what breaks them, or computes something else without a word; the chip need not even do
that. Each instruction is checked by itself, from its fields; nothing is executed. A rule is here when the
chips' instruction reference states it and the vendor's own programs keep it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, islice

import numpy as np

from compiler.chips import ChipSpec
from compiler.isa import PRECISION, ROUND, STRIDED, Instruction
from runtime_sim.queues import CoreProgram
from runtime_sim.ranges import Access, Box, Tensor, accesses, lane_groups, local_address

MAX_PROBLEMS = 10  # of one stream; the rest is seldom news
MAX_STRIDE = (1 << 18) - 1  # items, of a TIU operand
MAX_POOLED = 32767  # items along h or w of what pooling reads and writes
MAX_RUNS = 1 << 22  # of one operand, compared exactly; beyond it the gaps are taken too

I8, F16, F32, I16, I32, BF16, I4 = (
    PRECISION[name] for name in ("i8", "f16", "f32", "i16", "i32", "bf16", "i4")
)
TYPE_NAME = {code: name for name, code in PRECISION.items()}
FLOATS = {F16, F32, BF16}

Fields = dict[str, int]
FieldRule = Callable[[Instruction, ChipSpec], Iterator[str]]
OperandRule = Callable[[Instruction, Sequence[Access], ChipSpec], Iterator[str]]


def hardware_problems(core: CoreProgram, spec: ChipSpec) -> Iterator[str]:
    """At most one sentence for an instruction, and MAX_PROBLEMS for a stream."""
    for engine, stream in (("tiu", core.tiu), ("dma", core.dma)):
        yield from islice(_stream_problems(engine, stream, spec), MAX_PROBLEMS)


def _stream_problems(engine: str, stream: Sequence[Instruction], spec: ChipSpec) -> Iterator[str]:
    known: dict[tuple[object, ...], str | None] = {}  # most instructions come again in other tiles
    for number, instruction in enumerate(stream, 1):
        key = _without_ids(instruction)
        if key not in known:
            known[key] = next(iter(problems_of(instruction, spec)), None)
        if problem := known[key]:
            yield f"{engine} {number} ({instruction.name}.{instruction.kind}): {problem}"


def _without_ids(instruction: Instruction) -> tuple[object, ...]:
    fields = dict(instruction.fields)
    fields.pop("cmd_id", None)
    fields.pop("cmd_id_dep", None)
    return (instruction.name, instruction.kind, instruction.size, *fields.values())


def problems_of(instruction: Instruction, spec: ChipSpec) -> list[str]:
    """What an instruction breaks: each kind of rule takes for granted that those before it are kept."""
    broken = [problem for rule in FIELD_RULES for problem in rule(instruction, spec)]
    if broken:
        return broken
    touched = accesses(instruction, spec)
    found = (list(rule(instruction, touched, spec)) for rule in OPERAND_RULES)
    return next(filter(None, found), [])


# --- fields -------------------------------------------------------------------------------------------------

PRECISIONS = ("res0_prec", "opd0_prec", "opd1_prec", "opd2_prec", "src_data_format")
LAYOUTS = ("res0_str", "opd0_str", "opd1_str", "opd2_str")
RESULT = ("res0_n", "res0_c", "res0_h", "res0_w")
SOURCE = ("src_nsize", "src_csize", "src_hsize", "src_wsize")
TARGET = ("dst_nsize", "dst_csize", "dst_hsize", "dst_wsize")
ROWS = ("src_csize", "src_wsize", "index_csize", "index_hsize")
SIZES = {
    "ar": RESULT,
    "cmp": RESULT,
    "sfu": RESULT,
    "rqdq": RESULT,
    "lin": RESULT,
    "tsbc": RESULT,
    "sg": RESULT,
    "sgl": RESULT,
    "pord": (*RESULT, "opd0_h", "opd0_w", "opd1_h", "opd1_w"),
    "mm2": ("res0_c", "res0_w", "opd1_c", "opd1_w"),
    "mm": ("res0_c", "res0_w", "opd0_n", "opd0_c", "opd0_w"),
    "dma_tensor": SOURCE,
    "dma_cw_transpose": SOURCE,
    "dma_general": ("move_length",),
    "dma_gather": (*ROWS, "src_hsize"),
    "dma_scatter": (*ROWS, "dst_hsize"),
}
POOLED = ("opd0_h", "opd0_w", "res0_h", "res0_w")
UNARY = ("cast", "copy", "not", "abs")
UNDOCUMENTED = ("copy_mb", "first_one", "first_zero")  # how many operands they have
ALL_LANES = {"tsk_lane_num": (1 << 64) - 1, "localmem_mask_l32": 0xFFFFFFFF, "localmem_mask_h32": 0xFFFFFFFF}


def _codes(instruction: Instruction, spec: ChipSpec) -> Iterator[str]:
    fields, last = instruction.fields, I4 if spec.native_int4 else BF16
    for name in PRECISIONS:
        if fields.get(name, 0) > last:
            yield f"{name} is {fields[name]}, which is no type of this chip"
    for name in LAYOUTS:
        if fields.get(name, 0) > STRIDED:
            yield f"{name} is {fields[name]}, which is no layout"


def _sizes(instruction: Instruction, spec: ChipSpec) -> Iterator[str]:
    fields, names = instruction.fields, SIZES.get(instruction.name, ())
    if names is SOURCE and fields["fill_constant_en"] and all(fields[name] for name in TARGET):
        names = TARGET
    for name in names:
        if fields[name] < 1:
            yield f"{name} is 0"
    if instruction.name == "pord":
        for name in POOLED:
            if fields[name] > MAX_POOLED:
                yield f"{name} is {fields[name]}, the most is {MAX_POOLED}"


def _strides(instruction: Instruction, spec: ChipSpec) -> Iterator[str]:
    fields = instruction.fields
    for layout in LAYOUTS:
        if fields.get(layout) == STRIDED:
            for axis in "nchw":
                name = f"{layout[:4]}_{axis}_str"
                if fields.get(name, 0) > MAX_STRIDE:
                    yield f"{name} is {fields[name]}, the most is {MAX_STRIDE}"


def _operand_count(instruction: Instruction, spec: ChipSpec) -> Iterator[str]:
    """This number decides what counts as read."""
    if instruction.name == "ar" and instruction.kind not in UNDOCUMENTED:
        count, is_unary = instruction.fields["tsk_opd_num"], instruction.kind in UNARY
        if count < 1 or (count == 1) != is_unary:
            yield f"tsk_opd_num is {count}, expected {'1' if is_unary else '2 or 3'}"


def _lanes_enabled(instruction: Instruction, spec: ChipSpec) -> Iterator[str]:
    """Lanes that a mask leaves out are skipped; channels do not move up."""
    for name, mask in ALL_LANES.items():
        if instruction.fields.get(name, mask) != mask:
            yield f"{name} is {instruction.fields[name]:#x}: some lanes are left out"


def _id_enabled(instruction: Instruction, spec: ChipSpec) -> Iterator[str]:
    """Set in all commands of the vendor's, but for those to the system."""
    if instruction.name != "sys" and not instruction.fields.get("cmd_id_en", 1):
        yield "cmd_id_en is 0"


# --- types --------------------------------------------------------------------------------------------------

SAME_FLOATS = ("mul", "add", "sub", "max", "min", "div", "fsubabs")
SELECTS = ("select_gt", "select_eq", "select_lt")
SATURATING = ("adds", "subs", "muls")
INTEGER_ONLY = (*SATURATING, "and", "or", "xor", "not", "ashift")
ROUNDED = (*SATURATING, "cast", "ashift")
MAX_ROUNDING = ROUND["half_down"]
MAX_FLOAT_ROUNDING = ROUND["up"]  # the modes beyond it are for integers


def _types(instruction: Instruction, spec: ChipSpec) -> Iterator[str]:
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
    "sfu": _sfu_types,
    "rqdq": _rqdq_types,
    "sg": _sg_types,
}


def _bias(instruction: Instruction, spec: ChipSpec) -> Iterator[str]:
    """A float product has no zero point; BM1688 takes what is no constant there for the address of a bias."""
    fields = instruction.fields
    if instruction.name == "mm2" and fields["opd0_prec"] in FLOATS:
        is_const = fields["opd2_const"] or spec.isa == "bm1684x"
        if fields["opd2_addr"] or not is_const:
            yield "opd2 of a float product is not the constant 0"


# --- DMA fields ---------------------------------------------------------------------------------------------

MOVES = ("dma_tensor", "dma_cw_transpose")


def _steps(instruction: Instruction, spec: ChipSpec) -> Iterator[str]:
    """Items of a row lie one step or more apart; only n, c and h can stand still."""
    fields = instruction.fields
    if instruction.name in MOVES and fields["stride_enable"]:
        for side in ("dst",) if fields["fill_constant_en"] else ("src", "dst"):
            if fields[f"{side}_wstride"] < 1:
                yield f"{side}_wstride is 0"


def _broadcast(instruction: Instruction, spec: ChipSpec) -> Iterator[str]:
    if instruction.engine == "dma" and instruction.kind == "broadcast":
        channels = {name: instruction.fields[name] for name in ("src_csize", "dst_csize")}
        if instruction.name == "dma_tensor" and channels["src_csize"] != 1:
            yield f"src_csize is {channels['src_csize']}, expected 1"
        if channels["dst_csize"] < 1:
            yield "dst_csize is 0"


def _matrix(instruction: Instruction, spec: ChipSpec) -> Iterator[str]:
    """Rows and columns on one side, in local memory blocks of columns on the other."""
    if instruction.name != "dma_matrix":
        return
    fields = instruction.fields
    if fields["nchw_copy"] or not fields["stride_enable"]:
        yield "needs nchw_copy 0 and stride_enable 1"
    local = [side for side in ("src", "dst") if local_address(instruction.address(side), spec) is not None]
    if len(local) != 1:
        yield "goes between local memory and global memory only"
        return
    (inside,), outside = local, "dst" if local == ["src"] else "src"
    for name in [f"{inside}_{axis}size" for axis in "ncw"] + [f"{outside}_{axis}size" for axis in "hw"]:
        if fields[name] < 1:
            yield f"{name} is 0"
    if fields[f"{inside}_hsize"] > 1:
        yield f"{inside}_hsize is {fields[f'{inside}_hsize']}, expected 0 or 1"


def _gather(instruction: Instruction, spec: ChipSpec) -> Iterator[str]:
    """The sizes of the source and of the index say what is written; those of the target say nothing."""
    if instruction.name != "dma_gather":
        return
    fields = instruction.fields
    channels = max(fields["src_csize"], fields["index_csize"])
    if min(fields["src_csize"], fields["index_csize"]) not in (1, channels):
        yield f"src_csize {fields['src_csize']} and index_csize {fields['index_csize']} do not match"
    if fields["dst_csize"] not in (0, channels):
        yield f"dst_csize is {fields['dst_csize']}, but {channels} channels are written"
    if fields["dst_wsize"] not in (0, fields["src_wsize"]):
        yield f"dst_wsize is {fields['dst_wsize']}, but {fields['src_wsize']} items are written"
    if fields["index_hsize"] > 1 and fields["index_hstride"] != 1:
        yield f"index_hstride is {fields['index_hstride']}, expected 1"


FIELD_RULES: tuple[FieldRule, ...] = (
    _codes,
    _sizes,
    _strides,
    _operand_count,
    _lanes_enabled,
    _id_enabled,
    _types,
    _bias,
    _steps,
    _broadcast,
    _matrix,
    _gather,
)


# --- operands -----------------------------------------------------------------------------------------------

FIRST_LANE = {  # what has to start on lane 0
    "mm2.nn": "opd1",
    "mm2.nt": "opd1",
    "mm.normal": "opd0",
    "tsbc.cw_ts": "opd0",
    "tsbc.wc_ts": "res0",
}
FREE_LANE = {  # what need not start on the lane of the others
    "mm2.nn": ("opd1",),
    "mm2.nt": ("opd1",),
    "tsbc": ("opd0", "res0"),
}
IN_PLACE = ("ar", "cmp", "tsbc.l_bc")  # what the vendor's programs run in place


def _name(instruction: Instruction) -> str:
    return f"{instruction.name}.{instruction.kind}"


def _alignment(instruction: Instruction, touched: Sequence[Access], spec: ChipSpec) -> Iterator[str]:
    for access in touched:
        if tensor := access.tensor:
            unit = spec.eu_bytes if tensor.eu_aligned else tensor.nibbles // 2 or 1
            if tensor.address % unit:
                yield f"{access.operand} at {tensor.address:#x} is not a multiple of {unit} bytes"


def _bounds(instruction: Instruction, touched: Sequence[Access], spec: ChipSpec) -> Iterator[str]:
    for access in touched:
        tensor = access.tensor
        if access.is_local and tensor and tensor.address >= spec.local_bytes:
            yield f"{access.operand} at {tensor.address:#x} is on no lane"
        elif access.is_local and any(box.end > spec.lane_bytes for box in access.boxes):
            end = max(box.end for box in access.boxes)
            yield f"{access.operand} ends at byte {end:#x} of a lane of {spec.lane_bytes:#x}"


def _static_memory(instruction: Instruction, touched: Sequence[Access], spec: ChipSpec) -> Iterator[str]:
    fields = instruction.fields
    items = {"tsbc.s_bc": "res0_w", "tsbc.s_distribute": "res0_c"}.get(_name(instruction))
    if items is not None and touched[0].tensor:
        start = fields["opd0_addr"] - spec.tiu_static_base
        end = start + fields[items] * touched[0].tensor.nibbles // 2
        if start < 0 or end > spec.static_bytes:
            yield f"opd0 at {fields['opd0_addr']:#x} is not all in static memory"


def _lanes(instruction: Instruction, touched: Sequence[Access], spec: ChipSpec) -> Iterator[str]:
    if instruction.engine == "dma":
        return
    lanes = {access.operand: access.tensor.address // spec.lane_bytes for access in touched if access.tensor}
    first = FIRST_LANE.get(_name(instruction))
    if first and lanes.get(first, 0):
        yield f"{first} starts on lane {lanes[first]}, expected lane 0"
    free = FREE_LANE.get(_name(instruction)) or FREE_LANE.get(instruction.name, ())
    bound = {operand: lane for operand, lane in lanes.items() if operand not in free}
    if len(set(bound.values())) > 1:
        yield "starts on different lanes: " + ", ".join(f"{key} on {lane}" for key, lane in bound.items())


def _overlap(instruction: Instruction, touched: Sequence[Access], spec: ChipSpec) -> Iterator[str]:
    """A result shares no byte with another operand; what a sum starts from is the result itself."""
    for first, second in combinations(touched, 2):
        result, other = (second, first) if second.write else (first, second)
        if not result.write or result.operand == other.operand or not _may_meet(result, other):
            continue
        if not _is_in_place(instruction, result, other, spec) and _meet(result, other, spec):
            yield f"{result.operand} overlaps {other.operand}"


OPERAND_RULES: tuple[OperandRule, ...] = (_alignment, _bounds, _static_memory, _lanes, _overlap)


# --- which operands share bytes -----------------------------------------------------------------------------


def _may_meet(first: Access, second: Access) -> bool:
    """Whether the hulls of two operands of known layout meet."""
    if first.is_local != second.is_local or not (first.tensor and second.tensor):
        return False
    return _meets(_hull(first.boxes), _hull(second.boxes))


def _hull(boxes: Sequence[Box]) -> Box:
    if len(boxes) == 1:
        return boxes[0]
    lanes, lane_ends, starts, ends = zip(*boxes, strict=True)
    return Box(min(lanes), max(lane_ends), min(starts), max(ends))


def _meets(first: Box, second: Box) -> bool:
    return (
        first.start < second.end
        and second.start < first.end
        and first.lane < second.lane_end
        and second.lane < first.lane_end
    )


def _is_in_place(instruction: Instruction, result: Access, other: Access, spec: ChipSpec) -> bool:
    """Whether every item of the result takes the place of an operand's, in an instruction that may do so."""
    may_be = instruction.name in IN_PLACE or _name(instruction) in IN_PLACE
    target, source = result.tensor, other.tensor
    if not may_be or other.write or not target or not source:
        return False
    if _name(instruction) == "tsbc.l_bc":  # its source is the result's first channel
        target = target._replace(shape=(target.shape[0], 1, *target.shape[2:]))
    return _place(target, spec) == _place(source, spec)


def _place(tensor: Tensor, spec: ChipSpec) -> tuple[object, ...]:
    """What two tensors have in common that lie in place; strides that are never taken do not count."""
    n, c, h, w = tensor.shape
    slots = -(-(tensor.address // spec.lane_bytes + c) // spec.lanes)
    loops = zip((n, slots, h, w), tensor.strides, strict=True)
    taken = [stride for count, stride in loops if count > 1]
    return (tensor.address, tensor.shape, tensor.nibbles, *taken)


def _meet(first: Access, second: Access, spec: ChipSpec) -> bool:
    """Whether two operands have a byte in common; exact, where boxes are not."""
    return any(
        lane < other_end and other_lane < lane_end and _share(runs, other_runs)
        for lane, lane_end, runs in _lane_runs(first, spec)
        for other_lane, other_end, other_runs in _lane_runs(second, spec)
    )


Runs = tuple[np.ndarray, int]  # sorted starts and a length, in nibbles


def _lane_runs(access: Access, spec: ChipSpec) -> Iterator[tuple[int, int, Runs]]:
    """(lane, end lane, runs in each of them); global memory is one lane."""
    assert access.tensor
    address, (n, c, h, w), strides, nibbles, _ = access.tensor
    lane, offset, groups = 0, address, [(0, 1, 0, c)]
    if access.is_local:
        lane, offset = divmod(address, spec.lane_bytes)
        groups = list(lane_groups(lane, c, spec.lanes))
    for first_lane, end_lane, slot, slots in groups:
        start = 2 * offset + slot * strides[1] * nibbles
        yield first_lane, end_lane, _runs(start, (n, slots, h, w), strides, nibbles)


def _runs(start: int, counts: Sequence[int], strides: Sequence[int], nibbles: int) -> Runs:
    """The intervals that nested loops cover, those that touch joined where the strides say so."""
    starts, run = np.array([start], np.int64), nibbles
    for stride, count in sorted(zip(strides, counts, strict=True)):
        step = stride * nibbles
        if (len(starts) == 1 and step <= run) or len(starts) * count > MAX_RUNS:
            run += (count - 1) * step + int(starts[-1] - starts[0])
            starts = starts[:1]
        elif count > 1:
            starts = np.add.outer(np.arange(count, dtype=np.int64) * step, starts).reshape(-1)
    return np.sort(starts), run


def _share(first: Runs, second: Runs) -> bool:
    """Whether an interval of one meets one of the other: the first that ends behind its start decides."""
    (starts, run), (others, other_run) = first, second
    index = np.searchsorted(starts, others - run, side="right")
    found = index < len(starts)
    return bool((starts[index[found]] < others[found] + other_run).any())
