"""The lowering of a whole function: its instructions, and where its arguments and results lie."""

from __future__ import annotations

from tests.helpers import check_pass

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
            row_stride = 1024 : i64, n_stride = 16 : i64, c_stride = 16 : i64,
            res = {words}>, opd0 = {words}, offset = 64>}}> : (!chip.global<bytes = 4096>, {LOCAL}) -> ()
        "func.return"() : () -> ()
    """
    check_pass(
        "tensor-to-chip",
        before=whole(before, "tensor<1x64x32xf32>", "tensor<1x64x16xf32>", "^bb0(%x: tensor<1x64x32xf32>):"),
        after=whole(after, "", "()"),
    )
