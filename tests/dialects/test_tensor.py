"""Types of results, and what the verifiers refuse at the op."""

from __future__ import annotations

import pytest

from compiler.diagnostics import CompileError
from compiler.ir.types import BF16, F16, F32, I32, TensorType
from compiler.ir.verify import verify
from compiler.weights.scheme import Scheme
from dialects import tensor
from dialects.tensor import Lanes, PackedType, Replicated
from tests.helpers import parse_ir

TOKENS = Lanes(1)


def values(*types: TensorType):
    """Fresh values of these types."""
    return [tensor.WeightOp(sources=["w"], types=[type_]).results[0] for type_ in types]


def test_a_sum_takes_the_shape_of_both_and_the_lanes_of_either():
    row, rows = TensorType((1, 1, 8), F32, Replicated()), TensorType((1, 70, 1), F32, TOKENS)
    assert tensor.AddOp(*values(row, rows)).results[0].type == TensorType((1, 70, 8), F32, TOKENS)


def test_reducing_the_axis_over_the_lanes_leaves_the_result_on_all_of_them():
    (x,) = values(TensorType((1, 1, 128), F32, Lanes(2)))
    assert tensor.ReduceOp(x, kind="sum", axis=2).results[0].type == TensorType((1, 1, 1), F32, Replicated())
    (x,) = values(TensorType((1, 70, 128), F32, TOKENS))
    assert tensor.ReduceOp(x, kind="max", axis=2).results[0].type == TensorType((1, 70, 1), F32, TOKENS)


def test_a_permute_moves_the_axis_over_the_lanes_with_its_items():
    (x,) = values(TensorType((1, 4, 70, 8), F32, Lanes(2)))
    assert tensor.PermuteOp(x, order=(0, 2, 1, 3)).results[0].type == TensorType((1, 70, 4, 8), F32, TOKENS)


def test_a_concatenation_adds_up_its_axis():
    parts = values(TensorType((2, 8), F32, Lanes(0)), TensorType((2, 5), F32, Lanes(0)))
    assert tensor.ConcatOp(*parts, axis=1).results[0].type == TensorType((2, 13), F32, Lanes(0))


def test_a_dequantized_tile_has_rows_over_the_lanes():
    packed = PackedType(128, 64, BF16, Scheme(4, 32, True, F16), local=True)
    value = tensor.PackedWeightOp(sources=["w"], row=0, column=0, types=[packed]).results[0]
    assert tensor.DequantizeOp(value).results[0].type == TensorType((128, 64), BF16, Lanes(0))


def test_an_index_lies_on_the_first_lane():
    (x,) = values(TensorType((1, 128), F32, Lanes(1)))
    assert tensor.ArgmaxOp(x).results[0].type == TensorType((1, 1), I32, Lanes(0))


def test_the_largest_lie_beside_their_row_or_on_all_lanes():
    (x,) = values(TensorType((1, 128), F32, Lanes(1)))
    types = [result.type for result in tensor.TopkOp(x, k=4).results]
    assert types == [TensorType((1, 4), F32, Replicated()), TensorType((1, 4), I32, Replicated())]
    (x,) = values(TensorType((1, 70, 128), F32, TOKENS))
    types = [result.type for result in tensor.TopkOp(x, k=4).results]
    assert types == [TensorType((1, 70, 4), F32, TOKENS), TensorType((1, 70, 4), I32, TOKENS)]


X = "tensor<4x8xf32>"
REFUSED = {
    "neither an array nor a number": (
        f'%y = "tensor.add"(%x) : ({X}) -> {X}',
        r"'tensor\.add' op needs either rhs or scalar",
    ),
    "both an array and a number": (
        f'%y = "tensor.add"(%x, %x) <{{scalar = 1.0 : f64}}> : ({X}, {X}) -> {X}',
        r"'tensor\.add' op needs either rhs or scalar",
    ),
    "a slice that ends outside": (
        f"""%y = "tensor.slice"(%x) <{{starts = array<i64: 0, 4>, sizes = array<i64: 4, 5>}}>
            : ({X}) -> tensor<4x5xf32>""",
        r"\[0, 4\] \+ \[4, 5\] is outside \[4, 8\]",
    ),
    "a slice of another rank": (
        f'%y = "tensor.slice"(%x) <{{starts = array<i64: 0>, sizes = array<i64: 4>}}> : ({X}) -> tensor<4xf32>',
        r"\[0\] \+ \[4\] is outside \[4, 8\]",
    ),
    "a reshape to another size": (
        f'%y = "tensor.reshape"(%x) : ({X}) -> tensor<4x9xf32>',
        r"makes tensor<4x9xf32> of tensor<4x8xf32>",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_verifiers_refuse(case):
    text, message = REFUSED[case]
    with pytest.raises(CompileError, match=message):
        verify(parse_ir(text)[0])


def test_shapes_that_do_not_broadcast_are_refused():
    add = tensor.AddOp(*values(TensorType((4, 8), F32, Lanes(0)), TensorType((4, 7), F32, Lanes(0))))
    with pytest.raises(CompileError, match=r"do not broadcast"):
        add.verify()


ROWS = "#tensor.lanes<axis = 0>"
NUMBER = "tensor<1x1xf32, #tensor.replicated>"
PACKED_ROWS = "#tensor.lanes<axis = 0, compact = true>"
FOUR = "#weights.scheme<bits = 4, group = 32, zeros = true, scale = bf16>"
STORED = f"tensor<32x64xbf16, {FOUR}>"

def experts(
    shares: str = "tensor<4x6xf32, #tensor.lanes<axis = 0>>", biased: bool = False, source: str = "tensor.weight"
) -> str:
    up, down, bias = "tensor<6x32x64xbf16>", "tensor<6x64x32xbf16>", "tensor<6x32xf32>"
    name = 'name = "u"' if source == "llm.weight" else 'sources = ["u"]'
    x, y = f"tensor<4x64xbf16, {ROWS}>", f"tensor<4x64xf32, {ROWS}>"
    return f'''%u = "{source}"() <{{{name}}}> : () -> {up}
        %d = "tensor.weight"() <{{sources = ["d"]}}> : () -> {down}
        %y = "tensor.experts"(%x, %s, %u, %u, %d{", %b" * biased})
          <{{operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, {int(biased)}, 0, 0, 0>}}>
          : ({x}, {shares}, {up}, {up}, {down}{f", {bias}" * biased}) -> {y}'''


def load_expert(experts: int = 6, number: int = 0, ids: str = "") -> str:
    kind = "rows = 64, columns = 64, element = bf16"
    packed, local = f"!tensor.packed<{kind}>", f"!tensor.packed<{kind}, local = true>"
    given = f", tensor<1x6x{ids}>" if ids else ""
    return f'''%p = "tensor.packed_weight"() <{{sources = ["p"], row = 0 : i64, column = 0 : i64, experts = {experts} : i64}}>
          : () -> {packed}
        %t = "tensor.load_expert"(%p{", %i" if ids else ""}) <{{number = {number} : i64,
          operandSegmentSizes = array<i32: 1, {int(bool(ids))}>}}> : ({packed}{given}) -> {local}'''


MALFORMED = {
    "two offsets in a tile": (
        '%w = "tensor.packed_weight"() <{sources = ["w"], row = 0 : i64, column = 0 : i64, each = false}>'
        f' : () -> !tensor.packed<rows = 64, columns = 64, element = bf16, scheme = {FOUR[:-1]}, minimum = true>>',
        "has both zero points and minimums",
    ),
    "a load of codes as they are": (
        f'''%w = "tensor.weight"() <{{sources = ["w"]}}> : () -> {STORED}
        %y = "tensor.load"(%w) : ({STORED}) -> tensor<32x64xbf16, {ROWS}>''',
        r"'tensor\.load' op reads .*, which only linears can",
    ),
    "a wide weight": (
        '''%w = "tensor.weight"() <{sources = ["w"]}> : () -> tensor<32x64xf32>
        %y = "tensor.linear"(%x, %w) : (tensor<1x8x64xbf16, #tensor.lanes<axis = 1>>, tensor<32x64xf32>)
           -> tensor<1x8x32xf32, #tensor.lanes<axis = 1>>''',
        "takes tensor<32x64xf32> as a whole weight, expected a tensor.weight of bf16",
    ),
    "a local weight of another type": (
        f'%y = "tensor.linear"(%x, %w) : (tensor<1x8x64xbf16, #tensor.lanes<axis = 1>>, tensor<32x64xf16, {ROWS}>)'
        ' -> tensor<1x8x32xf32, #tensor.lanes<axis = 1>>',
        "expected bf16, rows over the lanes",
    ),
    "matrices that do not fit": (
        f'%y = "tensor.matmul"(%a, %b) <{{transpose_b = false}}> : (tensor<64x128xbf16, {ROWS}>,'
        f" tensor<5x7xbf16, {ROWS}>) -> tensor<64x7xf32, {ROWS}>",
        "does not make tensor<64x7xf32",
    ),
    "arithmetic in DDR": (
        '%y = "tensor.exp2"(%x) : (tensor<64x32xf32>) -> tensor<64x32xf32>',
        "which is not in local memory",
    ),
    "a load of something else": (
        f'%y = "tensor.load"(%x) : (tensor<64x32xf32>) -> tensor<64x16xf32, {ROWS}>',
        "expected the same in local memory",
    ),
    "sums of two element types": (
        f'%y = "tensor.add"(%a, %b) : (tensor<4x64xf32, {ROWS}>, tensor<4x64xbf16, {ROWS}>) -> tensor<4x64xf32, {ROWS}>',
        "expected one rank and element type",
    ),
    "arithmetic that is f32's, in bf16": (
        f'%y = "tensor.exp2"(%x) : (tensor<4x64xbf16, {ROWS}>) -> tensor<4x64xbf16, {ROWS}>',
        "expected f32",
    ),
    "parts in several layouts": (
        f'%y = "tensor.concat"(%a, %b) <{{axis = 1 : i64}}> : (tensor<4x8xf32, {ROWS}>,'
        f" tensor<4x8xf32, #tensor.replicated>) -> tensor<4x16xf32, {ROWS}>",
        "several element types or layouts",
    ),
    "the largest of what lies in DDR": (
        '%v, %i = "tensor.topk"(%x) <{k = 2 : i64}> : (tensor<8x64xf32>) -> (tensor<8x2xf32>, tensor<8x2xi32>)',
        "which is not in local memory",
    ),
    "the largest of several rows over the lanes": (
        '%v, %i = "tensor.topk"(%x) <{k = 2 : i64}> : (tensor<8x64xf32, #tensor.lanes<axis = 1>>)'
        " -> (tensor<8x2xf32, #tensor.replicated>, tensor<8x2xi32, #tensor.replicated>)",
        "expected rows over the lanes, or the items of one",
    ),
    "indices in local memory": (
        f'%i = "tensor.indices"() <{{source = "order"}}> : () -> tensor<64xui16, {ROWS}>',
        "expected one axis of ui16 in DDR",
    ),
    "items of 32 bit in another order": (
        f'%y = "tensor.take"(%x, %o) : (tensor<4x64xf32, {ROWS}>, tensor<5xui16, {PACKED_ROWS}>) -> tensor<4x5xf32, {ROWS}>',
        "expected 16 bit",
    ),
    "an order with gaps": (
        f'%y = "tensor.take"(%x, %o) : (tensor<4x64xbf16, {ROWS}>, tensor<5xui16, {ROWS}>) -> tensor<4x5xbf16, {ROWS}>',
        "expected ui16, packed over the lanes",
    ),
    "rows to put into a table, each on a lane": (
        '%y = "tensor.scatter"(%t, %i, %r) : (tensor<9x2xf32>, tensor<1x4xi32>, tensor<1x4x2xf32, #tensor.lanes<axis = 1>>)'
        " -> tensor<9x2xf32>",
        "expected the items of tensor<9x2xf32> on the first lane",
    ),
    "candidates over the lanes": (
        f'%y = "tensor.nucleus"(%x, %n, %n, %n) <{{least = 5 : i64}}> : (tensor<1x9xf32, {ROWS}>, {NUMBER}, {NUMBER}, {NUMBER})'
        f" -> tensor<1x9xf32, {ROWS}>",
        "expected it on every lane",
    ),
    "a table of halves that are not even": (
        '%y = "tensor.rope_table"() <{cos = "cos", sin = "sin"}> : () -> tensor<64x30xf32>',
        "with an even d",
    ),
    "a table of other columns than it names": (
        '%y = "tensor.rope_table"() <{cos = "cos", sin = "sin", columns = array<i64: 0, 3>}> : () -> tensor<64x4xf32>',
        "expected 2 columns",
    ),
    "lane 0 of several rows": (
        f'%y = "tensor.replicate"(%x) : (tensor<4x64xf32, {ROWS}>) -> tensor<4x64xf32, #tensor.replicated>',
        "of which more than lane 0 has a part",
    ),
    "shares of experts in 16 bit": (
        experts("tensor<4x6xbf16, #tensor.lanes<axis = 0>>"),
        "takes shares tensor<4x6xbf16, .*>, expected f32 in local memory",
    ),
    "experts with a bias of one of two products": (experts(biased=True), "a bias of each product, or of none"),
    "shares of other experts than there are": (
        experts("tensor<4x5xf32, #tensor.lanes<axis = 0>>"),
        "takes shares tensor<4x5xf32, .*> of 6 experts",
    ),
    "an expert beyond the last": (load_expert(number=6), "takes number 6 of 6"),
    "the tile of one expert where there is but one": (load_expert(experts=0), "takes what is no tile of each expert"),
    "experts chosen by floats": (load_expert(ids="f32"), "takes ids tensor<1x6xf32>, expected i32 in DDR"),
    "experts that are computed": (experts(source="llm.weight"), "as a whole weight, expected a tensor.weight"),
    "rows of another type than the table's": (
        '%y = "tensor.gather"(%t, %i) : (tensor<9x64xf32>, tensor<4xi32>) -> tensor<4x64xbf16>',
        "expected the items of tensor<9x64xf32>",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_ir_is_refused_at_its_op(case):
    text, message = MALFORMED[case]
    with pytest.raises(CompileError, match=message):
        verify(parse_ir(text)[0])


SENT = '%s = "tensor.send"(%l) <{over = "core"}> : (!local) -> !sent\n'
PART = '{bm.net = #bm.net<name = "n", inputs = [#bm.input<name = "x">], part = #bm.part<core = 1, cores = 2, writes = []>>}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('%s = "tensor.send"(%l) <{over = "core"}> : (!local) -> !tensor.sent<parts = 3, shape = [4, 64], element = f32>',
         "sends to 3 parts, and the net has 2"),
        ('%s = "tensor.send"(%l) <{over = "core"}> : (!local) -> !tensor.sent<parts = 2, shape = [4, 32], element = f32>',
         "makes .* of tensor<4x64xf32"),
        ('%s = "tensor.send"(%x) <{over = "core"}> : (!x) -> !tensor.sent<parts = 2, shape = [4, 64], element = f32>',
         "which is not in local memory"),
        ('%y = "tensor.join"(%l) <{over = "core", axis = 0 : i64, sizes = array<i64: 4, 4>}> : (!local) -> tensor<8x64xf32>',
         "expected an array in DDR"),
        ('%y = "tensor.join"(%x) <{over = "core", axis = 0 : i64, sizes = array<i64: 4, 3>}> : (!x) -> tensor<7x64xf32>',
         "where number 1 of 2 has 4"),
        (SENT + '%a = "tensor.receive"(%s) : (!sent) -> !local', "receives 1 arrays of 2 parts"),
        (SENT + '%a, %b = "tensor.receive"(%s) : (!sent) -> (!local, tensor<4x32xf32>)', "receives tensor<4x32xf32> where"),
    ],
)  # fmt: skip
def test_exchanges_that_do_not_fit_the_part_are_refused(text, message):
    with pytest.raises(CompileError, match=message):
        verify(parse_ir(part_text(text))[0])


def part_text(text: str) -> str:
    text = text.replace("!sent", "!tensor.sent<parts = 2, shape = [4, 64], element = f32>")
    whole = f"""
      "builtin.module"() ({{
        "func.func"() <{{sym_name = "n", function_type = (!x) -> ()}}> ({{
        ^bb0(%x: !x):
          %l = "tensor.load"(%x) : (!x) -> !local
          {text}
          "func.return"() : () -> ()
        }}) {PART} : () -> ()
      }}) : () -> ()
    """
    return whole.replace("!x", "tensor<4x64xf32>").replace("!local", "tensor<4x64xf32, #tensor.lanes<axis = 0>>")


@pytest.mark.parametrize("there", ["!local", "tensor<4x64xf32>"])
def test_all_parts_receive_arrays_as_their_own_or_in_ddr(there):
    text = SENT + f'%a, %b = "tensor.receive"(%s) : (!sent) -> ({there}, {there})'
    module, _ = parse_ir(part_text(text))
    verify(module)
    load, _, receive, _ = module.functions()[0].block.ops
    assert receive.own is load.value


def test_a_vector_has_no_order_in_ddr():
    text = part_text(SENT + '%a, %b = "tensor.receive"(%s) : (!sent) -> (tensor<4x64xf32>, tensor<4x64xf32>)')
    with pytest.raises(CompileError, match="receives tensor<4x64xf32> where this part sent"):
        verify(parse_ir(text.replace("axis = 0", "axis = 1"))[0])
