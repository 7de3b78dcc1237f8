"""Each op's lowering: the instructions of typical ones, and what the instructions of all of them compute."""

from __future__ import annotations

import itertools
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from compiler.diagnostics import CompileError
from compiler.ir.types import BF16, F16, F32
from compiler.weights.scheme import Scheme
from dialects import tensor
from dialects.tensor import PackedType
from runtime_sim.check.waits import find_race
from tests.compare import compare
from tests.helpers import check_pass
from tests.passes.programs import EVERYWHERE, PLACING, SPEC, Program, array, core_program, packed, slots

BF = ml_dtypes.bfloat16
RNG = np.random.default_rng(0)
START = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """What a test draws does not depend on which tests this process ran before."""
    RNG.bit_generator.state = START


def normal(*shape: int, dtype: object = np.float32) -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


def check(program: Program, tolerance: float = 0.0) -> None:
    """The chip computes what the tensor level says, before it has addresses and after, and waits enough."""
    wanted = program.interpreted()
    program.lower("tensor-to-chip")
    loose = program.executed()
    for found, expected in zip(loose, wanted, strict=True):
        difference = compare(found, expected)
        scale = float(np.abs(expected.astype(np.float64)).max(initial=1e-30))
        assert difference.max_error <= tolerance * scale, str(difference)
    program.lower(PLACING)
    tight = program.chip()
    assert [a.tobytes() for a in tight.run(program.inputs)] == [a.tobytes() for a in loose]
    assert find_race([core_program(tight)], SPEC) is None


TOKENS = "tensor<1x64x32xf32, #tensor.lanes<axis = 1>>"
HALF = "tensor<1x64x16xf32, #tensor.lanes<axis = 1>>"
LOCAL, VIEW = "!chip.local<bytes = 128>", "#chip.view<dtype = f32, strides = [0, 32, 0, 1]>"


def whole(body: str, inputs: str, results: str, args: str = "") -> str:
    """A module with one function; results are the returned types."""
    return f"""
    "builtin.module"() ({{
      "func.func"() <{{sym_name = "test", function_type = ({inputs}) -> {results}}}> ({{
        {args}
        {body}
      }}) : () -> ()
    }}) : () -> ()
    """


def test_a_sum_is_one_instruction_and_a_slice_is_none():
    before = f"""
        %a = "tensor.load"(%x) : (tensor<1x64x32xf32>) -> {TOKENS}
        %b = "tensor.add"(%a) <{{scalar = 1.5 : f64}}> : ({TOKENS}) -> {TOKENS}
        %c = "tensor.slice"(%b) <{{starts = array<i64: 0, 0, 16>, sizes = array<i64: 1, 64, 16>}}>
           : ({TOKENS}) -> {HALF}
        %y = "tensor.store"(%c) : ({HALF}) -> tensor<1x64x16xf32>
        "func.return"(%y) : (tensor<1x64x16xf32>) -> ()
    """
    words = "#chip.view<dtype = i32"
    after = f"""
        %x = "chip.global"() <{{space = "input", index = 0 : i64, tensor = tensor<1x64x32xf32>}}>
           : () -> !chip.global<bytes = 8192>
        %y = "chip.global"() <{{space = "output", index = 0 : i64, tensor = tensor<1x64x16xf32>}}>
           : () -> !chip.global<bytes = 4096>
        %a = "chip.local"() : () -> {LOCAL}
        "chip.dma_matrix"(%a, %x) <{{rows = 1 : i64, columns = 2048 : i64, block = 32 : i64,
            row_stride = 2048 : i64, n_stride = 32 : i64, c_stride = 32 : i64,
            res = {words}>, opd0 = {words}>}}> : ({LOCAL}, !chip.global<bytes = 8192>) -> ()
        %b = "chip.local"() : () -> {LOCAL}
        "chip.ar"(%b, %a) <{{kind = "add", shape = array<i64: 1, 64, 1, 32>, res = {VIEW}, opd0 = {VIEW},
            opd1 = #chip.const<dtype = f32, bits = 1069547520>, round = 0 : i64,
            operandSegmentSizes = array<i32: 1, 1, 0>}}> : ({LOCAL}, {LOCAL}) -> ()
        "chip.dma_matrix"(%y, %b) <{{rows = 1 : i64, columns = 1024 : i64, block = 16 : i64,
            row_stride = 1024 : i64, n_stride = 32 : i64, c_stride = 16 : i64,
            res = {words}>, opd0 = {words}, offset = 64>}}> : (!chip.global<bytes = 4096>, {LOCAL}) -> ()
        "func.return"() : () -> ()
    """
    check_pass(
        "tensor-to-chip",
        before=whole(before, "tensor<1x64x32xf32>", "tensor<1x64x16xf32>", "^bb0(%x: tensor<1x64x32xf32>):"),
        after=whole(after, "", "()"),
    )


def kinds(program: Program) -> list[str]:
    """The instructions, by name and kind."""
    return [f"{op.opname.removeprefix('chip.')}.{op.isa_kind()}" for op in program.instructions()]


def test_parts_of_a_concatenation_are_made_in_their_place():
    program = Program([normal(1, 64, 32), normal(1, 64, 16)])
    parts = [program.add(tensor.MulOp(program.load(slots(1)), scalar=2.0)) for _ in range(2)]
    program.finish(program.add(tensor.ConcatOp(*parts, axis=2))).lower("tensor-to-chip")
    assert kinds(program) == ["dma_matrix.copy", "ar.mul", "dma_matrix.copy", "ar.mul", "dma_matrix.copy"]
    first, second = (op for op in program.instructions() if op.engine == "tiu")
    assert first.operands[0] is second.operands[0]
    assert second.res.offset == first.res.offset + 32 * 4


def test_a_linear_adds_to_its_accumulator_where_that_lies():
    program = Program([normal(1, 64, 32, dtype=BF), normal(32, 32, dtype=BF), normal(1, 64, 32)])
    x, w, start = (program.load(layout) for layout in (slots(1), slots(0), slots(1)))
    program.finish(program.make(tensor.LinearOp, x, w, start, type_=start.type)).lower("tensor-to-chip")
    assert kinds(program) == ["dma_matrix.copy", "dma.copy", "dma_matrix.copy", "matmul.nt", "dma_matrix.copy"]
    load, product = program.instructions()[2:4]
    assert product.accumulate
    assert product.operands[0] is load.operands[0]


LAYOUTS = {  # shape and layout of a left operand
    "tokens": ((1, 70, 48), slots(1)),
    "a full row of tokens": ((1, 64, 32), slots(1)),
    "heads of tokens": ((3, 66, 20), slots(1)),
    "heads": ((6, 40), slots(0)),
    "a column": ((1, 1, 192), slots(2)),
    "a packed column": ((1, 1, 192), packed(2)),
    "everywhere": ((1, 24), EVERYWHERE),
    "packed rows": ((2, 70, 1), packed(1)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", [tensor.AddOp, tensor.SubOp, tensor.MulOp, tensor.MaxOp])
def test_two_arrays(layout, kind):
    shape, where = LAYOUTS[layout]
    program = Program([normal(*shape), normal(*shape)])
    check(program.finish(program.add(kind(program.load(where), program.load(where)))))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_array_and_a_number(layout):
    shape, where = LAYOUTS[layout]
    program = Program([normal(*shape)])
    x = program.load(where)
    check(program.finish(program.add(tensor.MulOp(x, scalar=0.3)), program.add(tensor.SubOp(x, scalar=2.0))))


BROADCASTS = {  # left, right: shape and layout
    "a row for all tokens": (((1, 70, 48), slots(1)), ((1, 1, 48), EVERYWHERE)),
    "a number per token": (((1, 70, 48), slots(1)), ((1, 70, 1), packed(1))),
    "a number per token, in slots": (((1, 70, 48), slots(1)), ((1, 70, 1), slots(1))),
    "a mask for all heads": (((4, 70, 30), slots(1)), ((1, 70, 30), slots(1))),
    "a row for all heads": (((6, 40), slots(0)), ((1, 40), EVERYWHERE)),
    "one number for a column": (((1, 1, 192), slots(2)), ((1, 1, 1), EVERYWHERE)),
}


@pytest.mark.parametrize("case", BROADCASTS)
def test_broadcast(case):
    (left, left_layout), (right, right_layout) = BROADCASTS[case]
    program = Program([normal(*left), normal(*right)])
    check(program.finish(program.add(tensor.MulOp(program.load(left_layout), program.load(right_layout)))))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("half", [BF16, F16])
def test_casts(layout, half):
    shape, where = LAYOUTS[layout]
    program = Program([normal(*shape), normal(*shape, dtype=half.numpy)])
    narrow = program.make(tensor.CastOp, program.load(where), type_=array(shape, half, where))
    wide = program.make(tensor.CastOp, program.load(where), type_=array(shape, F32, where))
    check(program.finish(narrow, wide))


@pytest.mark.parametrize(("source", "target"), [(slots(2), packed(2)), (packed(2), slots(2))])
def test_a_cast_packs_and_unpacks_a_column(source, target):
    program = Program([normal(1, 1, 192)])
    x = program.load(source)
    check(program.finish(program.make(tensor.CastOp, x, type_=array((1, 1, 192), BF16, target))))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("kind", "sign", "tolerance"),
    [(tensor.Exp2Op, -9, 3e-6), (tensor.RsqrtOp, 1, 3e-7), (tensor.ReciprocalOp, 1, 3e-7)],
)
def test_functions(layout, kind, sign, tolerance):
    shape, where = LAYOUTS[layout]
    program = Program([sign * (0.01 + np.abs(normal(*shape)))])
    check(program.finish(program.add(kind(program.load(where)))), tolerance)


@pytest.mark.parametrize("layout", ["tokens", "a column", "a packed column", "heads of tokens"])
def test_gate(layout):
    shape, where = LAYOUTS[layout]
    gate, up = 20 * normal(*shape), normal(*shape)
    gate.flat[:4] = [-300, 300, -88, 0]
    program = Program([gate, up])
    check(program.finish(program.add(tensor.GateOp(program.load(where), program.load(where)))), 1e-5)


@pytest.mark.parametrize("kind", ["sum", "max"])
@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 70, 48), slots(1)),
        ((1, 70, 21), slots(1)),
        ((3, 66, 64), slots(1)),
        ((6, 80), slots(0)),
        ((1, 1, 192), packed(2)),
        ((1, 1, 192), slots(2)),
        ((1, 64), packed(1)),
    ],
)
def test_reduce(kind, shape, layout):
    program = Program([normal(*shape)])
    scale = 0.25 if kind == "sum" else 1.0
    op = tensor.ReduceOp(program.load(layout), kind=kind, axis=len(shape) - 1, scale=scale)
    total = program.add(op)
    if total.type.layout == EVERYWHERE:  # one number; a column shows that all lanes have it
        total = program.add(tensor.AddOp(program.add(tensor.MulOp(op.x, scalar=0.0)), total))
    check(program.finish(total), 1e-6)


@pytest.mark.parametrize(("tokens", "heads"), [(70, 3), (1, 5)])
@pytest.mark.parametrize("width", [64, 128])
def test_rope(tokens, heads, width):
    decode = tokens == 1
    program = Program([normal(1, heads, tokens, width), normal(1, 1, tokens, 2 * width)])
    x = program.load(slots(1 if decode else 2))
    check(program.finish(program.add(tensor.RopeOp(x, program.load(EVERYWHERE if decode else slots(2))))), 1e-7)


@pytest.mark.parametrize("count", [1, 50, 64, 1000, 4096])
def test_argmax(count):
    values = normal(1, count)
    values[0, count // 2 :: 7] = values.max()  # several, of which the first counts
    program = Program([np.pad(values, [(0, 0), (0, -count % 64)], constant_values=-1e9)])
    x = program.add(tensor.SliceOp(program.load(slots(1)), starts=(0, 0), sizes=(1, count)))
    check(program.finish(program.add(tensor.ArgmaxOp(x))))


@pytest.mark.parametrize("half", [BF16, F16])
@pytest.mark.parametrize("accumulates", [False, True])
@pytest.mark.parametrize("tokens", [70, 128, 1])
def test_linear(half, accumulates, tokens):
    inner, outer = 192, 130
    layout = slots(2) if tokens == 1 else slots(1)
    arrays = [normal(1, tokens, inner, dtype=half.numpy), normal(outer, inner, dtype=half.numpy)]
    program = Program([*arrays, normal(1, tokens, 192)] if accumulates else arrays)
    x, w = program.load(layout), program.load(slots(0))
    start = program.load(layout) if accumulates else None
    if start is not None:
        w = program.make(tensor.LoadOp, program.function.args[1], type_=w.type)
        start = program.add(tensor.SliceOp(start, starts=(0, 0, 0), sizes=(1, tokens, outer)))
    y = program.make(tensor.LinearOp, x, w, start, type_=array((1, tokens, outer), F32, layout))
    if tokens == 1:  # a column is stored in whole rows of lanes
        y = program.add(tensor.SliceOp(y, starts=(0, 0, 0), sizes=(1, 1, 128)))
    check(program.finish(y), 1e-6)


def test_a_sum_that_is_still_read_is_not_overwritten():
    program = Program([normal(1, 64, 32, dtype=BF), normal(32, 32, dtype=BF), normal(1, 64, 32)])
    x, w, start = program.load(slots(1)), program.load(slots(0)), program.load(slots(1))
    y = program.make(tensor.LinearOp, x, w, start, type_=start.type)
    program.finish(program.add(tensor.AddOp(y, start)))
    with pytest.raises(CompileError, match=r"overwrites its accumulator, which tensor\.add still reads"):
        program.lower("tensor-to-chip")


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize(("heads", "rows", "keys"), [(2, 64, 80), (3, 20, 130), (1, 100, 65)])
def test_matmul(transpose, heads, rows, keys):
    width = 64
    right = (keys, width) if transpose else (width, keys)
    program = Program([normal(heads, rows, width, dtype=BF), normal(*right, dtype=BF)])
    a, b = program.load(slots(1)), program.load(slots(0))
    y = program.make(
        tensor.MatmulOp, a, b, None, type_=array((heads, rows, keys), F32, slots(1)), transpose_b=transpose
    )
    check(program.finish(y), 1e-6)


@pytest.mark.parametrize("rows", [40, 64, 130])
def test_a_right_operand_with_gaps_is_copied_if_the_unit_would_read_it_wrongly(rows):
    """Head 1 of 3 of [rows, heads, width]: within one row of lanes the matrix lies as it should."""
    program = Program([normal(20, 64, dtype=BF), normal(rows, 3, 64, dtype=BF)])
    a, b = program.load(slots(0)), program.load(slots(0))
    head = program.add(tensor.SliceOp(b, starts=(0, 1, 0), sizes=(rows, 1, 64)))
    head = program.make(tensor.ReshapeOp, head, type_=array((rows, 64), BF16, slots(0)))
    program.finish(program.make(tensor.MatmulOp, a, head, type_=array((20, rows), F32, slots(0)), transpose_b=True))
    check(program, 1e-6)
    copies = [op for op in program.instructions() if op.attributes.get("kind") == "copy" and op.engine == "tiu"]
    assert len(copies) == (rows > 64)


def test_a_right_operand_on_another_lane_is_brought_to_the_first():
    program = Program([normal(5, 64, dtype=BF), normal(3, 1, 64, dtype=BF)])
    a, b = program.load(slots(0)), program.load(slots(0))
    row = program.add(tensor.SliceOp(b, starts=(2, 0, 0), sizes=(1, 1, 64)))
    row = program.make(tensor.ReshapeOp, row, type_=array((1, 64), BF16, slots(0)))
    check(program.finish(program.make(tensor.MatmulOp, a, row, type_=array((5, 1), F32, slots(0)), transpose_b=True)), 1e-6)


def test_sums_that_are_joined_are_built_in_place():
    """Each product is added to the one before where the whole lies; nothing is copied."""
    program = Program([normal(64, 32, dtype=BF), normal(32, 32, dtype=BF)])
    a, b = program.load(slots(0)), program.load(slots(0))
    type_ = array((64, 32), F32, slots(0))
    sums = []
    for _ in range(2):
        first = program.make(tensor.MatmulOp, a, b, type_=type_)
        sums.append(program.make(tensor.MatmulOp, a, b, first, type_=type_))
    check(program.finish(program.add(tensor.ConcatOp(*sums, axis=1))), 1e-6)
    assert [op.opname for op in program.instructions() if op.engine == "tiu"] == ["chip.matmul"] * 4


def test_moves():
    """Slices, reshapes and permutes name places; nothing is computed."""
    program = Program([normal(1, 70, 96)])
    x = program.load(slots(1))
    heads = program.make(tensor.ReshapeOp, x, type_=array((1, 70, 4, 24), F32, slots(1)))
    swapped = program.add(tensor.PermuteOp(heads, order=(0, 2, 1, 3)))
    part = program.add(tensor.SliceOp(swapped, starts=(0, 1, 0, 8), sizes=(1, 2, 70, 16)))
    low = program.add(tensor.SliceOp(x, starts=(0, 64, 0), sizes=(1, 6, 96)))
    program.finish(part, low)
    check(program)
    assert {op.engine for op in program.instructions()} == {"dma"}


@pytest.mark.parametrize(("axis", "layout"), [(0, slots(1)), (1, slots(1)), (2, slots(1)), (2, EVERYWHERE)])
def test_concat(axis, layout):
    shapes = [[2, 64, 16], [2, 64, 16]]
    shapes[1][axis] += {0: 1, 1: 6, 2: 16}[axis]
    program = Program([normal(*shape) for shape in shapes])
    loaded = [program.load(layout) for _ in shapes]
    made = [program.add(tensor.MulOp(x, scalar=2.0)) for x in loaded]
    whole = program.add(tensor.ConcatOp(*made, axis=axis))
    again = program.add(tensor.ConcatOp(*loaded, axis=axis))  # parts that lie elsewhere already
    check(program.finish(program.add(tensor.AddOp(whole, again))))


def test_pad():
    program = Program([normal(3, 66, 21)])
    x = program.add(tensor.MulOp(program.load(slots(1)), scalar=3.0))
    check(program.finish(program.make(tensor.PadOp, x, type_=array((3, 66, 32), F32, slots(1)), value=-7.0)))


@pytest.mark.parametrize(("heads", "width"), [(1, 64), (6, 64), (64, 64), (5, 128), (2, 192)])
@pytest.mark.parametrize("element", [F32, BF16])
def test_relayout_there_and_back(heads, width, element):
    program = Program([normal(1, 1, heads * width, dtype=element.numpy)])
    row = program.load(slots(2))
    split = program.make(tensor.RelayoutOp, row, type_=array((1, 1, heads, width), element, slots(2)))
    back = program.make(tensor.RelayoutOp, split, type_=row.type)
    check(program.finish(split, back))


@pytest.mark.parametrize(
    ("count", "shape", "layout"),
    [(70, (1, 70, 32), None), (1, (1, 1, 32), EVERYWHERE), (70, (1, 70, 32), slots(1))],
)
def test_gather(count, shape, layout):
    program = Program([normal(90, 32), RNG.integers(0, 90, (1, count)).astype(np.int32)])
    table, ids = program.function.args
    check(program.finish(program.make(tensor.GatherOp, table, ids, type_=array(shape, F32, layout))))


@pytest.mark.parametrize(
    ("bits", "zeros", "group", "rows", "columns"),
    [(4, True, 32, 130, 128), (4, False, 64, 64, 64), (8, False, 16, 100, 96), (4, True, 128, 200, 128)],
)
@pytest.mark.parametrize(("half", "scale"), [*itertools.product([BF16, F16], repeat=2)])
def test_dequantize(bits, zeros, group, rows, columns, half, scale):
    program = Program([], {"w": normal(rows + 7, 2 * columns, dtype=half.numpy)})
    type_ = PackedType(rows, columns, half, Scheme(bits, group, zeros, scale))
    weight = program.make(tensor.PackedWeightOp, type_=type_, sources=["w"], row=7, column=columns)
    local = program.make(tensor.LoadOp, weight, type_=replace(type_, local=True))
    check(program.finish(program.add(tensor.DequantizeOp(local))))


def test_rows_of_several_weights_in_one_tile():
    program = Program([], {"gate": normal(200, 64, dtype=BF), "up": normal(200, 64, dtype=BF)})
    type_ = PackedType(128, 64, BF16, Scheme(4, 32, True, BF16))
    weight = program.make(
        tensor.PackedWeightOp, type_=type_, sources=["gate", "up"], row=100, column=0, each=True
    )
    local = program.make(tensor.LoadOp, weight, type_=replace(type_, local=True))
    check(program.finish(program.add(tensor.DequantizeOp(local))))


def test_a_vector_that_leaves_lanes_empty_is_refused():
    program = Program([normal(1, 1, 40)])
    program.finish(program.load(packed(2)))
    with pytest.raises(CompileError, match="a vector of 40 items cannot be spread over 64 lanes"):
        program.lower("tensor-to-chip")


@pytest.mark.parametrize(("start", "size"), [(0, 40), (0, 100), (32, 64)])
def test_a_part_of_a_vector_that_does_not_fill_the_lanes_is_not_stored(start, size):
    program = Program([normal(1, 1, 192)])
    x = program.add(tensor.SliceOp(program.load(packed(2)), starts=(0, 0, start), sizes=(1, 1, size)))
    program.finish(x)
    with pytest.raises(CompileError, match=r"'tensor\.s.* op would move data"):
        program.lower("tensor-to-chip")


@pytest.mark.parametrize("source", [EVERYWHERE, slots(2)])
def test_a_reshape_that_moves_data_is_refused(source):
    program = Program([normal(1, 1, 3840)])
    x = program.load(source)
    program.finish(program.make(tensor.ReshapeOp, x, type_=array((1, 80, 48), F32, slots(1))))
    with pytest.raises(CompileError, match=r"'tensor\.reshape' op makes .*, which lies in other lanes"):
        program.lower("tensor-to-chip")


def test_operands_on_different_lanes_are_refused():
    program = Program([normal(1, 40, 16), normal(1, 16, 16)])
    x = program.add(tensor.SliceOp(program.load(slots(1)), starts=(0, 10, 0), sizes=(1, 16, 16)))
    program.finish(program.add(tensor.AddOp(x, program.load(slots(1)))))
    with pytest.raises(CompileError, match=r"'tensor\.add' op would move data: operands of add start on lanes 0, 10, 0"):
        program.lower("tensor-to-chip")
