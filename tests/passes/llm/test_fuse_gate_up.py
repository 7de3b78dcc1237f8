import pytest

from tests.helpers import check_pass

X, W, Y = "tensor<1x8x16xbf16>", "tensor<32x16xbf16>", "tensor<1x8x32xbf16>"
WEIGHTS = f"""
    %wg = "llm.weight"() <{{name = "gate.weight"}}> : () -> {W}
    %wu = "llm.weight"() <{{name = "up.weight"}}> : () -> {W}
"""
SWIGLU = f"""
    %y = "llm.swiglu"(%g, %u) <{{act = "silu"}}> : ({Y}, {Y}) -> {Y}
"""


def linear(result: str, x: str, weight: str) -> str:
    return f"""
    %{result} = "llm.linear"(%{x}, %{weight}) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}> : ({X}, {W}) -> {Y}
"""


def test_two_linears_of_one_input_are_fused():
    check_pass(
        "fuse-gate-up",
        before=WEIGHTS + linear("g", "x", "wg") + linear("u", "x", "wu") + SWIGLU,
        after=WEIGHTS
        + f"""
    %y = "llm.gated_linear"(%x, %wg, %wu) <{{act = "silu", operandSegmentSizes = array<i32: 1, 1, 1, 0, 0>}}>
        : ({X}, {W}, {W}) -> {Y}
""",
    )


def test_biases_go_along():
    bias = "tensor<32xbf16>"
    before = f"""
    %g = "llm.linear"(%x, %wg, %bg) <{{operandSegmentSizes = array<i32: 1, 1, 1, 0>}}> : ({X}, {W}, {bias}) -> {Y}
    %u = "llm.linear"(%x, %wu, %bu) <{{operandSegmentSizes = array<i32: 1, 1, 1, 0>}}> : ({X}, {W}, {bias}) -> {Y}
    %y = "llm.swiglu"(%g, %u) <{{act = "gelu"}}> : ({Y}, {Y}) -> {Y}
"""
    after = f"""
    %y = "llm.gated_linear"(%x, %wg, %wu, %bg, %bu)
        <{{act = "gelu", operandSegmentSizes = array<i32: 1, 1, 1, 1, 1>}}>
        : ({X}, {W}, {W}, {bias}, {bias}) -> {Y}
"""
    check_pass("fuse-gate-up", before=before, after=after)


def test_halves_of_one_linear_take_the_rows_of_its_weight():
    wide, both = "tensor<64x16xbf16>", "tensor<1x8x64xbf16>"
    before = f"""
    %w = "llm.weight"() <{{name = "gate_up.weight"}}> : () -> {wide}
    %a = "llm.linear"(%x, %w) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}> : ({X}, {wide}) -> {both}
    %g = "llm.slice"(%a) <{{axis = 2 : i64, start = 0 : i64, stop = 32 : i64, step = 1 : i64}}> : ({both}) -> {Y}
    %u = "llm.slice"(%a) <{{axis = 2 : i64, start = 32 : i64, stop = 64 : i64, step = 1 : i64}}> : ({both}) -> {Y}
    %y = "llm.swiglu"(%u, %g) <{{act = "silu"}}> : ({Y}, {Y}) -> {Y}
"""
    after = f"""
    %w = "llm.weight"() <{{name = "gate_up.weight"}}> : () -> {wide}
    %u = "llm.slice_weights"(%w) <{{start = 32 : i64, stop = 64 : i64, step = 1 : i64}}> : ({wide}) -> {W}
    %g = "llm.slice_weights"(%w) <{{start = 0 : i64, stop = 32 : i64, step = 1 : i64}}> : ({wide}) -> {W}
    %y = "llm.gated_linear"(%x, %u, %g) <{{act = "silu", operandSegmentSizes = array<i32: 1, 1, 1, 0, 0>}}>
        : ({X}, {W}, {W}) -> {Y}
"""
    check_pass("fuse-gate-up", before=before, after=after)


def test_linears_of_two_inputs_stay():
    text = WEIGHTS + linear("g", "x", "wg") + linear("u", "z", "wu") + SWIGLU
    check_pass("fuse-gate-up", before=text, after=text)


def test_linear_with_a_second_reader_stays():
    more = f"""
    %z = "llm.add"(%u, %y) : ({Y}, {Y}) -> {Y}
"""
    text = WEIGHTS + linear("g", "x", "wg") + linear("u", "x", "wu") + SWIGLU + more
    check_pass("fuse-gate-up", before=text, after=text)


def test_weights_that_are_stored_in_different_ways_keep_them_apart():
    four = "tensor<32x16xbf16, #weights.scheme<bits = 4, group = 16, zeros = true, scale = bf16>>"
    eight = four.replace("bits = 4", "bits = 8").replace("true", "false")

    def pair(gate: str, up: str) -> str:
        return f"""
    %wg = "llm.weight"() <{{name = "gate.weight"}}> : () -> {gate}
    %wu = "llm.weight"() <{{name = "up.weight"}}> : () -> {up}
""" + linear("g", "x", "wg").replace(W, gate) + linear("u", "x", "wu").replace(W, up) + SWIGLU

    for gate, up in ((four, eight), (four, W), (W, four)):
        check_pass("fuse-gate-up", before=pair(gate, up), after=pair(gate, up))
    with pytest.raises(AssertionError, match=r"llm\.gated_linear"):
        check_pass("fuse-gate-up", before=pair(four, four), after=pair(four, four))
