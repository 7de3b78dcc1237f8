import pytest

from tests.helpers import check_pass

X, Y, Z = "tensor<1x8x16xbf16>", "tensor<1x8x32xbf16>", "tensor<1x8x16xbf16>"
GATE, DOWN, BIAS, ORDER = "tensor<32x16xbf16>", "tensor<16x32xbf16>", "tensor<32xbf16>", "tensor<32xi32>"


def weights(rows: str = "") -> str:
    return f"""
    %g = "llm.weight"() <{{name = "gate.weight{rows}"}}> : () -> {GATE}
    %u = "llm.weight"() <{{name = "up.weight{rows}"}}> : () -> {GATE}
    %b = "llm.weight"() <{{name = "gate.bias{rows}"}}> : () -> {BIAS}
"""


GATED = f"""
    %h = "llm.gated_linear"(%x, %g, %u, %b) <{{act = "silu", operandSegmentSizes = array<i32: 1, 1, 1, 1, 0>}}>
        : ({X}, {GATE}, {GATE}, {BIAS}) -> {Y}
"""
TAKE = f"""
    %o = "llm.indices"() <{{name = "down.weight.order"}}> : () -> {ORDER}
    %t = "llm.take"(%h, %o) : ({Y}, {ORDER}) -> {Y}
"""


def down(x: str) -> str:
    return f"""
    %d = "llm.weight"() <{{name = "down.weight"}}> : () -> {DOWN}
    %z = "llm.linear"({x}, %d) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}> : ({Y}, {DOWN}) -> {Z}
"""


def test_the_order_of_a_gated_linear_becomes_that_of_its_rows():
    check_pass(
        "fold-take",
        before=weights() + GATED + TAKE + down("%t"),
        after=weights("@down.weight.order") + GATED + down("%h"),
    )


def linear(result: str, weight: str) -> str:
    return f"""
    %{result} = "llm.linear"(%x, %{weight}) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}> : ({X}, {GATE}) -> {Y}
"""


def items(gate: str = "g", up: str = "u") -> str:
    """silu(x @ gate.T) * (x @ up.T) * 2, op by op."""
    return (
        linear("a", gate)
        + linear("c", up)
        + f"""
    %s = "llm.act"(%a) <{{kind = "silu"}}> : ({Y}) -> {Y}
    %m = "llm.mul"(%s, %c) : ({Y}, {Y}) -> {Y}
    %h = "llm.mul"(%m) <{{value = 2.0 : f64}}> : ({Y}) -> {Y}
"""
    )


TWO = f"""
    %g = "llm.weight"() <{{name = "gate.weight"}}> : () -> {GATE}
    %u = "llm.weight"() <{{name = "up.weight"}}> : () -> {GATE}
"""


def test_what_is_computed_item_by_item_passes_the_order_on():
    ordered = TWO.replace('.weight"}', '.weight@down.weight.order"}')
    check_pass("fold-take", before=TWO + items() + TAKE + down("%t"), after=ordered + items() + down("%h"))


READ_TWICE = weights() + GATED + TAKE + down("%t") + f'\n    %more = "llm.act"(%h) <{{kind = "silu"}}> : ({Y}) -> {Y}'
OF_AN_INPUT = TAKE + down("%t")
OF_ONE_INPUT = (
    TWO + linear("a", "g") + f'\n    %h = "llm.mul"(%a, %other) : ({Y}, {Y}) -> {Y}' + TAKE + down("%t")
)
RESIDUAL = (
    TWO
    + f"""
    %h = "llm.linear"(%x, %g, %r) <{{operandSegmentSizes = array<i32: 1, 1, 0, 1>}}> : ({X}, {GATE}, {Y}) -> {Y}
"""
    + TAKE
    + down("%t")
)
NORM = (
    TWO
    + linear("a", "g")
    + f"""
    %n = "llm.weight"() <{{name = "norm.weight"}}> : () -> {BIAS}
    %h = "llm.rms_norm"(%a, %n) <{{eps = 1.0e-06 : f64, offset = 0.0 : f64}}> : ({Y}, {BIAS}) -> {Y}
"""
    + TAKE
    + down("%t")
)


@pytest.mark.parametrize("text", [READ_TWICE, OF_AN_INPUT, OF_ONE_INPUT, RESIDUAL, NORM])
def test_other_orders_stay_gathers(text):
    check_pass("fold-take", before=text, after=text)
