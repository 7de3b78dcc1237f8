"""Buffers, views and the registers of instructions, and what the verifiers refuse at the op."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from compiler.diagnostics import CompileError
from compiler.ir.types import BF16, F16, F32, I8, I16, I32, UI16
from compiler.ir.verify import verify
from compiler.target.chips.bm1684x import BM1684X
from compiler.target.chips.bm1688 import BM1688
from compiler.target.isa import isa_for
from dialects import chip
from dialects.chip import Access, GlobalOp, GlobalType, LocalOp, LocalType, Placement, View
from runtime_sim.check.ranges import accesses
from runtime_sim.interpret.chip import ChipProgram
from tests.helpers import parse_ir
from tests.passes.chip.random_programs import moves, program_of
from tests.passes.programs import PLACING, PassManager, parse_pipeline

SPEC = BM1684X
LOCAL = LocalOp(types=[LocalType(1 << 16)]).results[0]
OTHER = LocalOp(types=[LocalType(1 << 16)]).results[0]
DDR = GlobalOp(space="scratch", types=[GlobalType(1 << 16)]).results[0]


@pytest.mark.parametrize(
    ("value", "dtype", "bits"),
    [
        (1.5, F32, 0x3FC00000),
        (-0.0, F32, 0x80000000),
        (1.5, BF16, 0x3FC0),
        (-1.5, F16, 0xBE00),
        (127.0, I32, 127),
        (-126.0, I16, 0xFF82),
        (-4.0, I8, 0xFC),
        (1.5, F16, 0x3E00),
    ],
)
def test_numbers_are_held_as_bits(value, dtype, bits):
    assert chip.constant(value, dtype) == chip.Const(dtype, bits)


def test_rows_of_lanes_start_on_eu_widths():
    assert chip.aligned_strides((2, 65, 3, 7), F32, SPEC) == (64, 32, 7, 1)
    assert chip.aligned_strides((1, 64, 1, 33), BF16, SPEC) == (64, 64, 33, 1)
    assert chip.aligned_strides((2, 64, 1, 16), F32, SPEC, lane=1) == (32, 16, 16, 1)


@pytest.mark.parametrize(
    ("shape", "strides", "same"),
    [
        ((1, 64, 1, 32), (0, 0, 0, 1), True),  # strides of axes of size 1 do not matter
        ((1, 65, 1, 16), (0, 16, 0, 1), True),
        ((1, 65, 1, 16), (0, 32, 0, 1), False),
        ((1, 64, 2, 8), (0, 0, 16, 1), False),
    ],
)
def test_the_aligned_layout_is_recognized(shape, strides, same):
    assert chip.same_layout(strides, shape, View(F32), SPEC) is same


def test_accesses_conflict_where_bytes_and_lanes_meet_and_one_writes():
    write = Access(LOCAL, True, 0, 64, 0, 32)
    assert write.conflicts(Access(LOCAL, False, 63, 128, 31, 64))
    assert not write.conflicts(Access(LOCAL, False, 64, 128, 0, 64))
    assert not write.conflicts(Access(LOCAL, False, 0, 64, 32, 64))
    assert not write.conflicts(Access(OTHER, True, 0, 64, 0, 32))
    assert not Access(LOCAL, False, 0, 64).conflicts(Access(LOCAL, False, 0, 64))


PLACE = Placement(SPEC, lambda buffer: {LOCAL: 256, OTHER: 4096, DDR: SPEC.ddr_base + 512}[buffer], SPEC.lane_bytes)


def test_addresses_tell_lanes_and_engines():
    view = View(F32, offset=64, lane=3)
    assert PLACE.tiu(LOCAL, view) == 3 * SPEC.lane_bytes + 320
    assert PLACE.dma(LOCAL, view) == SPEC.dma_local_base + 3 * SPEC.lane_bytes + 320
    assert PLACE.dma(DDR, View(F32, offset=64)) == SPEC.ddr_base + 576


AR = {"kind": "add", "shape": (1, 64, 1, 16), "res": View(F32), "opd0": View(F32)}
OPS = [
    chip.ArOp(LOCAL, OTHER, OTHER, **AR, opd1=View(F32)),
    chip.ArOp(LOCAL, OTHER, None, **AR, opd1=chip.constant(2.0, F32)),
    chip.ArOp(LOCAL, OTHER, OTHER, **AR, opd1=View(F32, strides=(0, 0, 0, 0))),
    chip.SelectOp(
        LOCAL, OTHER, OTHER, OTHER, kind="sel_eq", shape=(1, 64, 1, 16), res=View(F32), opd0=View(F32),
        opd1=View(F32), opd2=View(F32), opd3=chip.constant(0.0, F32),
    ),
    chip.SelectOp(
        LOCAL, OTHER, OTHER, OTHER, kind="sel_eq", shape=(1, 64, 1, 16), res=View(F32), opd0=View(F32),
        opd1=View(F32, strides=(0, 0, 0, 0)), opd2=chip.constant(-1.0, F32), opd3=View(F32, offset=64),
    ),
    chip.MatmulOp(
        LOCAL, OTHER, OTHER, kind="nt", m=70, k=64, n=20, res=View(F32), opd0=View(BF16), opd1=View(BF16),
        accumulate=True,
    ),
    chip.SfuOp(LOCAL, OTHER, None, kind="rsqrt", shape=(1, 64, 1, 16), res=View(F32), opd0=View(F32)),
    chip.SfuOp(
        LOCAL, OTHER, OTHER, kind="taylor", shape=(1, 64, 1, 16), res=View(F32), opd0=View(F32), opd1=View(F32),
        terms=5,
    ),
    chip.PoolOp(
        LOCAL, OTHER, kind="avg", shape=(1, 64, 1, 16), kernel=(1, 16), res=View(F32), opd0=View(F32), scale=0.5
    ),
    chip.LanesOp(LOCAL, OTHER, kind="cw_ts", shape=(1, 64, 1, 70), res=View(BF16), opd0=View(BF16)),
    chip.LanesOp(LOCAL, OTHER, kind="l_bc", shape=(1, 64, 1, 16), res=View(F32), opd0=View(F32)),
    chip.GatherOp(
        LOCAL, OTHER, OTHER, kind="pl_gather_d1coor", shape=(1, 70, 1, 90), width=32, res=View(BF16), opd0=View(BF16),
        opd1=View(UI16, offset=1024),
    ),
    chip.GatherOp(
        LOCAL, OTHER, OTHER, kind="pe_s_gather_d1coor", shape=(1, 64, 1, 16), width=90, res=View(BF16),
        opd0=View(BF16), opd1=View(UI16, offset=1024),
    ),
    chip.DmaTensorOp(LOCAL, DDR, kind="copy", shape=(1, 70, 1, 16), res=View(F32), opd0=View(F32)),
    chip.DmaTensorOp(DDR, LOCAL, kind="copy", shape=(1, 70, 1, 16), res=View(F32), opd0=View(F32)),
    chip.DmaTensorOp(LOCAL, DDR, kind="broadcast", shape=(1, 64, 1, 16), res=View(F32), opd0=View(F32)),
    chip.DmaMatrixOp(
        LOCAL, DDR, rows=2, columns=1024, block=16, row_stride=1024, n_stride=16, c_stride=16, res=View(I32),
        opd0=View(I32),
    ),
    chip.DmaGatherOp(
        LOCAL, DDR, DDR, channels=70, rows=1, table_rows=9, width=32, index_stride=1, c_stride=32, res=View(F32),
        opd0=View(F32), opd1=View(I32, offset=2048),
    ),
    chip.DmaScatterOp(
        DDR, LOCAL, DDR, rows=20, table_rows=9, width=2, res=View(F32), opd0=View(F32, offset=64),
        opd1=View(I32, offset=2048),
    ),
]


@pytest.mark.parametrize("op", OPS, ids=lambda op: f"{op.opname}.{op.isa_kind()}")
def test_registers_survive_encoding(op):
    isa = isa_for(SPEC)
    fields = op.fields(PLACE)
    (decoded,) = isa.decode(op.engine, isa.encode(op.family, op.isa_kind(), fields))
    assert (decoded.name, decoded.kind) == (op.family, op.isa_kind())
    assert {name: decoded.fields[name] for name in fields} == fields


@pytest.mark.parametrize("op", OPS, ids=lambda op: f"{op.opname}.{op.isa_kind()}")
def test_ranges_cover_what_the_registers_say(op):
    """Against `runtime_sim.check.ranges`, which knows nothing of ops."""
    isa = isa_for(SPEC)
    (decoded,) = isa.decode(op.engine, isa.encode(op.family, op.isa_kind(), op.fields(PLACE)))
    check_covered(op, decoded, PLACE)


def check_covered(op: chip.Instruction, decoded, place: Placement) -> None:
    ours = list(op.accesses(SPEC))
    for access in accesses(decoded, SPEC):
        for box in access.boxes:
            assert any(covers(mine, place, box, access) for mine in ours), f"{access.operand} {box} of {op}"


def covers(mine: Access, place: Placement, box, access) -> bool:
    if mine.write != access.write or isinstance(mine.buffer.type, LocalType) != access.is_local:
        return False
    start, unit = place.address(mine.buffer), SPEC.eu_bytes  # waits are computed in whole EU widths
    first, end = (start + mine.start) // unit * unit, -(-(start + mine.stop) // unit) * unit
    inside = first <= box.start and box.end <= end
    return inside and (not access.is_local or (mine.lane <= box.lane and box.lane_end <= mine.lane_stop))


@given(moves(3))
@settings(max_examples=25)
def test_ranges_of_whole_programs_cover_what_their_registers_say(drawn):
    module = program_of(drawn, 3)
    PassManager(parse_pipeline(PLACING)).run(module)
    program = ChipProgram(module.functions()[0], SPEC)
    for op in program.ops:
        check_covered(op, program.instruction(op), program.placement)


def test_an_unknown_space_is_refused():
    with pytest.raises(CompileError, match="'space' is flash, expected one of input, output, scratch"):
        verify(parse_ir('%x = "chip.global"() <{space = "flash"}> : () -> !chip.global<bytes = 64>')[0])


def test_the_bits_of_numbers_are_those_of_numpy():
    for value in (0.1, -3.7e8, 1e-30):
        assert chip.constant(value, F32).bits == int(np.float32(value).view(np.uint32))


MATRIX = {"rows": 3, "columns": 40, "block": 16, "row_stride": 50, "n_stride": 8, "c_stride": 4}
FILLED = View(F32)


@pytest.mark.parametrize(
    ("instruction", "strides", "shape"),
    [
        (chip.DmaMatrixOp(LOCAL, DDR, **MATRIX, res=FILLED, opd0=FILLED), (8, 4, 0, 1), (3, 3, 1, 16)),
        (chip.DmaMatrixOp(DDR, LOCAL, **MATRIX, res=FILLED, opd0=FILLED), (0, 50, 0, 1), (1, 3, 1, 40)),
        (chip.LanesOp(LOCAL, OTHER, kind="cw_ts", shape=(1, 5, 1, 7), res=FILLED, opd0=FILLED), (), (1, 5, 1, 7)),
        (
            chip.PoolOp(
                LOCAL, OTHER, kind="max", shape=(1, 2, 6, 7), kernel=(2, 3), res=FILLED, opd0=FILLED
            ),
            (),
            (1, 2, 5, 5),
        ),
        (
            chip.MatmulOp(
                LOCAL, OTHER, OTHER, kind="nn", m=3, k=4, n=5, res=FILLED, opd0=View(BF16), opd1=View(BF16)
            ),
            (),
            (1, 3, 1, 5),
        ),
    ],
)
def test_instructions_say_which_items_they_write(instruction, strides, shape):
    assert instruction.written() == (instruction.operands[0], View(F32, strides=strides), shape)


LOCAL_TYPE = "!chip.local<bytes = 256>"
DDR_TYPE = "!chip.global<bytes = 16384>"
VIEW_TEXT = "#chip.view<dtype = f32>"

MALFORMED = {
    "a region that does not go into its pieces": (
        '%g = "chip.global"() <{space = "weight", source = #weights.packed<names = ["w"], row = 0, column = 0,'
        ' tile = #weights.tile<rows = 64, columns = 32, stored = bf16, lanes = 64, section = 64>, pieces = 3>}>'
        ' : () -> !chip.global<bytes = 4096>',
        "does not go into its pieces or shares",
    ),
    "a region of an impossible tile": (
        '%g = "chip.global"() <{space = "weight", source = #weights.packed<names = ["w"], row = 0, column = 0,'
        ' tile = #weights.tile<rows = 64, columns = 32, stored = f32, lanes = 64, section = 64>>}>'
        ' : () -> !chip.global<bytes = 4096>',
        "expected 16 bits or a scheme",
    ),
    "a kind of instruction that there is not": (
        f'%l = "chip.local"() : () -> {LOCAL_TYPE}\n'
        f'"chip.ar"(%l, %l) <{{kind = "frobnicate", shape = array<i64: 1, 64, 1, 64>, res = {VIEW_TEXT},'
        f" opd0 = {VIEW_TEXT}, operandSegmentSizes = array<i32: 1, 1, 0>}}> : ({LOCAL_TYPE}, {LOCAL_TYPE}) -> ()",
        "kind is 'frobnicate', expected one of mul",
    ),
    "a source without a buffer": (
        f'%l = "chip.local"() : () -> {LOCAL_TYPE}\n'
        f'"chip.ar"(%l) <{{kind = "copy", shape = array<i64: 1, 64, 1, 64>, res = {VIEW_TEXT}, opd0 = {VIEW_TEXT},'
        f" operandSegmentSizes = array<i32: 1, 0, 0>}}> : ({LOCAL_TYPE}) -> ()",
        "takes a buffer with a view, or a constant",
    ),
    "three strides": (
        f'%l = "chip.local"() : () -> {LOCAL_TYPE}\n'
        f'"chip.ar"(%l, %l) <{{kind = "copy", shape = array<i64: 1, 64, 1, 64>, opd0 = {VIEW_TEXT},'
        f" res = #chip.view<dtype = f32, strides = [1, 2, 3]>, operandSegmentSizes = array<i32: 1, 1, 0>}}>"
        f" : ({LOCAL_TYPE}, {LOCAL_TYPE}) -> ()",
        "not four strides or none",
    ),
    "a shape without items": (
        f'%l = "chip.local"() : () -> {LOCAL_TYPE}\n'
        f'"chip.ar"(%l, %l) <{{kind = "copy", shape = array<i64: 1, 0, 1, 64>, res = {VIEW_TEXT}, opd0 = {VIEW_TEXT},'
        f" operandSegmentSizes = array<i32: 1, 1, 0>}}> : ({LOCAL_TYPE}, {LOCAL_TYPE}) -> ()",
        r"shape is \[1, 0, 1, 64\], expected 4 sizes from 1 to",
    ),
    "a shape that no register holds": (
        f'%l = "chip.local"() : () -> {LOCAL_TYPE}\n'
        f'"chip.ar"(%l, %l) <{{kind = "copy", shape = array<i64: 1, 64, 1, 65536>, res = {VIEW_TEXT},'
        f" opd0 = {VIEW_TEXT}, operandSegmentSizes = array<i32: 1, 1, 0>}}> : ({LOCAL_TYPE}, {LOCAL_TYPE}) -> ()",
        r"shape is .*65536\], expected 4 sizes from 1 to 65535",
    ),
    "an instruction number 0": (
        f'%l = "chip.local"() : () -> {LOCAL_TYPE}\n'
        f'"chip.ar"(%l, %l) <{{kind = "copy", shape = array<i64: 1, 64, 1, 64>, res = {VIEW_TEXT}, opd0 = {VIEW_TEXT},'
        f" operandSegmentSizes = array<i32: 1, 1, 0>}}> {{chip.id = 0 : i64}} : ({LOCAL_TYPE}, {LOCAL_TYPE}) -> ()",
        "chip.id is 0, expected a number from 1 on",
    ),
    "an instruction on DDR": (
        f'%l = "chip.global"() <{{space = "scratch"}}> : () -> {DDR_TYPE}\n'
        f'"chip.lanes"(%l, %l) <{{kind = "l_copy", shape = array<i64: 1, 64, 1, 64>, res = {VIEW_TEXT},'
        f" opd0 = {VIEW_TEXT}}}> : ({DDR_TYPE}, {DDR_TYPE}) -> ()",
        "operand 'dst' is .*, expected a LocalType",
    ),
    "a transfer that converts": (
        f'%l = "chip.local"() : () -> {LOCAL_TYPE}\n%g = "chip.global"() <{{space = "scratch"}}> : () -> {DDR_TYPE}\n'
        f'"chip.dma"(%l, %g) <{{kind = "copy", shape = array<i64: 1, 64, 1, 64>, res = {VIEW_TEXT},'
        f" opd0 = #chip.view<dtype = bf16>}}> : ({LOCAL_TYPE}, {DDR_TYPE}) -> ()",
        "moves bf16 to f32, and a transfer converts nothing",
    ),
    "a transfer within local memory": (
        f'%l = "chip.local"() : () -> {LOCAL_TYPE}\n'
        f'"chip.dma"(%l, %l) <{{kind = "copy", shape = array<i64: 1, 64, 1, 64>, res = {VIEW_TEXT},'
        f" opd0 = {VIEW_TEXT}}}> : ({LOCAL_TYPE}, {LOCAL_TYPE}) -> ()",
        "expected one of them in DDR",
    ),
    "scratch that the client sees": (
        f'%g = "chip.global"() <{{space = "scratch", index = 0 : i64}}> : () -> {DDR_TYPE}',
        "is no input or output",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_ir_is_refused_at_its_op(case):
    text, message = MALFORMED[case]
    with pytest.raises(CompileError, match=message):
        verify(parse_ir(text)[0])


def test_messages_carry_their_number_and_how_many_send_them():
    """As 2-core programs of the vendor have them: seven bits of a number, seven of a count."""
    send = chip.SendOp(DDR, message=30, count=2)
    wait = chip.WaitOp(DDR, message=31, count=2)
    assert [op.fields(PLACE)["constant_value"] for op in (send, wait)] == [0x21E, 0x21F]
    code = isa_for(BM1688).encode(send.family, send.isa_kind(), send.fields(PLACE))
    assert isa_for(BM1688).decode("dma", code)[0].name == "dma_sys"
    assert [[(a.write, a.start, a.stop) for a in op.accesses(SPEC)] for op in (send, wait)] == [
        [(False, 0, 1 << 16)],
        [(True, 0, 1 << 16)],
    ]


@pytest.mark.parametrize(
    ("numbers", "message"), [((128, 2), "message is 128"), ((-1, 2), "message is -1"), ((30, 1), "count is 1")]
)
def test_messages_that_no_core_can_send_are_refused(numbers, message):
    op = chip.SendOp(DDR, message=numbers[0], count=numbers[1])
    with pytest.raises(CompileError, match=message):
        op.verify()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ('space = "shared"', "does not say which of the regions it is that cores share"),
        ('space = "scratch", index = 0 : i64', "has a place in the net's signature"),
        ('space = "shared", index = 0 : i64, tensor = tensor<1xf32>', "has a place in the net's signature"),
    ],
)
def test_only_what_others_know_has_an_index(attributes, message):
    with pytest.raises(CompileError, match=message):
        verify(parse_ir(f'%x = "chip.global"() <{{{attributes}}}> : () -> !chip.global<bytes = 64>')[0])
