import pytest

from compiler.diagnostics import CompileError, UserError
from tests.helpers import check_pass

X, PLAIN = "tensor<1x8x96xbf16>", "tensor<96x96xbf16>"


def scheme(bits: int, group: int, zeros: bool, scale: str = "bf16") -> str:
    fields = f"bits = {bits}, group = {group}, zeros = {str(zeros).lower()}, scale = {scale}"
    return f"tensor<96x96xbf16, #weights.scheme<{fields}>>"


def net(quantizable: bool) -> str:
    values = 'inputs = [#bm.input<name = "x">], outputs = [#bm.output<name = "y">]'
    return f'bm.net = #bm.net<name = "net", quantizable = {str(quantizable).lower()}, {values}>'


def block(w: str = PLAIN, u: str | None = None, quantizable: bool = True) -> str:
    u = u or w
    return f"""
"builtin.module"() ({{
  "func.func"() <{{sym_name = "block", function_type = ({X}) -> {X}}}> ({{
  ^bb0(%x: {X}):
    %w = "llm.weight"() <{{name = "o_proj.weight"}}> : () -> {w}
    %g = "llm.weight"() <{{name = "gate_proj.weight"}}> : () -> {u}
    %u = "llm.weight"() <{{name = "up_proj.weight"}}> : () -> {u}
    %p = "llm.linear"(%x, %w) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}> : ({X}, {w}) -> {X}
        loc("model.layers.0.self_attn.o_proj")
    %y = "llm.gated_linear"(%p, %g, %u)
        <{{act = "silu", operandSegmentSizes = array<i32: 1, 1, 1, 0, 0>}}> : ({X}, {u}, {u}) -> {X}
    "func.return"(%y) : ({X}) -> ()
  }}) {{{net(quantizable)}}} : () -> ()
}}) : () -> ()
"""


@pytest.mark.parametrize(
    ("options", "after"),
    [
        ("bits=8 group=32", scheme(8, 32, False)),
        ("bits=8 group=32 symmetric=true", scheme(8, 32, False)),
        ("group=48", scheme(4, 48, True)),
        ("group=48 symmetric=true", scheme(4, 48, False)),
        ("group=0", scheme(4, 96, True)),
    ],
)
def test_the_weights_of_a_quantizable_nets_linears_get_a_scheme(options, after):
    check_pass(f"quantize-weights{{{options}}}", before=block(), after=block(after))


def test_a_net_that_is_not_quantizable_stays_as_it_is():
    same = block(quantizable=False)
    check_pass("quantize-weights{group=32}", before=same, after=same)


def test_weights_that_have_a_scheme_keep_it():
    own = scheme(8, 16, False, "f16")
    check_pass("quantize-weights{group=32}", before=block(own, PLAIN), after=block(own, scheme(4, 32, True)))
    check_pass("quantize-weights{group=32},quantize-weights{bits=8}", before=block(), after=block(scheme(4, 32, True)))


@pytest.mark.parametrize(
    ("options", "o_proj", "others"),
    [
        ("group=32 keep=o_proj=8", scheme(8, 32, False), scheme(4, 32, True)),
        ("group=32 keep=o_*=16", PLAIN, scheme(4, 32, True)),
        ("group=32 keep=*=8,?_proj=4", scheme(4, 32, True), scheme(8, 32, False)),
        ("group=32 bits=16 keep=o_proj=4", scheme(4, 32, True), PLAIN),
        ("bits=16", PLAIN, PLAIN),
    ],
)
def test_modules_that_keep_names_have_bits_of_their_own(options, o_proj, others):
    check_pass(f"quantize-weights{{{options}}}", before=block(), after=block(o_proj, others))


def test_a_net_that_is_not_quantizable_has_what_keep_says():
    check_pass(
        "quantize-weights{group=32 keep=o_proj=8}",
        before=block(quantizable=False),
        after=block(scheme(8, 32, False), PLAIN, quantizable=False),
    )


@pytest.mark.parametrize("keep", ["o_proj", "o_proj=", "=8", "o_proj=5"])
def test_keep_without_a_name_or_bits_is_refused(keep):
    with pytest.raises(UserError, match=r"option keep of pass quantize-weights is .*expected MODULE=BITS"):
        check_pass(f"quantize-weights{{keep={keep}}}", before=block(), after=block())


def joined(w: str, whole: str) -> str:
    y = "tensor<1x8x192xbf16>"
    return f"""
"builtin.module"() ({{
  "func.func"() <{{sym_name = "block", function_type = ({X}) -> {y}}}> ({{
  ^bb0(%x: {X}):
    %q = "llm.weight"() <{{name = "q_proj.weight"}}> : () -> {w}
    %k = "llm.weight"() <{{name = "k_proj.weight"}}> : () -> {w}
    %w = "llm.concat_weights"(%q, %k) : ({w}, {w}) -> {whole}
    %b = "llm.weight"() <{{name = "bias"}}> : () -> tensor<192xbf16>
    %y = "llm.linear"(%x, %w, %b) <{{operandSegmentSizes = array<i32: 1, 1, 1, 0>}}>
       : ({X}, {whole}, tensor<192xbf16>) -> {y}
    "func.return"(%y) : ({y}) -> ()
  }}) {{{net(True)}}} : () -> ()
}}) : () -> ()
"""


def test_joined_weights_get_it_at_their_parts_and_biases_do_not():
    four = scheme(4, 32, True)
    check_pass(
        "quantize-weights{group=32}",
        before=joined(PLAIN, PLAIN.replace("96x", "192x", 1)),
        after=joined(four, four.replace("96x", "192x", 1)),
    )


def test_group_that_does_not_divide_the_input_axis_is_an_error():
    with pytest.raises(
        CompileError, match=r"layers\.0\.self_attn\.o_proj: .* 96 is not a multiple of group 64"
    ):
        check_pass("quantize-weights{group=64}", before=block(), after=block())


def mixture(router: str, experts: str) -> str:
    """A router of four experts, and the experts."""
    up, down = f"tensor<4x32x96xbf16{experts}>", f"tensor<4x96x32xbf16{experts}>"
    return f"""
"builtin.module"() ({{
  "func.func"() <{{sym_name = "block", function_type = (tensor<8x96xbf16>) -> tensor<8x96xbf16>}}> ({{
  ^bb0(%x: tensor<8x96xbf16>):
    %r = "llm.weight"() <{{name = "mlp.gate.weight"}}> : () -> tensor<4x96xbf16{router}>
    %u = "llm.weight"() <{{name = "mlp.experts.gate_up_proj[*][0:32:1]"}}> : () -> {up}
    %d = "llm.weight"() <{{name = "mlp.experts.down_proj"}}> : () -> {down}
    %l = "llm.linear"(%x, %r) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}>
      : (tensor<8x96xbf16>, tensor<4x96xbf16{router}>) -> tensor<8x4xbf16>
    %s = "llm.softmax"(%l) <{{axis = 1 : i64}}> : (tensor<8x4xbf16>) -> tensor<8x4xbf16>
    %w, %i = "llm.topk"(%s) <{{k = 2 : i64}}> : (tensor<8x4xbf16>) -> (tensor<8x2xbf16>, tensor<8x2xi32>)
    %y = "llm.experts"(%x, %i, %w, %u, %d)
      <{{act = "silu", operandSegmentSizes = array<i32: 1, 1, 1, 0, 1, 1, 0, 0, 0>}}>
      : (tensor<8x96xbf16>, tensor<8x2xi32>, tensor<8x2xbf16>, {up}, {down}) -> tensor<8x96xbf16>
    "func.return"(%y) : (tensor<8x96xbf16>) -> ()
  }}) {{{net(True)}}} : () -> ()
}}) : () -> ()
"""


def test_experts_are_quantized_and_what_chooses_them_is_not():
    stored = ", #weights.scheme<bits = 4, group = 32, zeros = true, scale = bf16>"
    check_pass("quantize-weights{group=32}", before=mixture("", ""), after=mixture("", stored))


def test_experts_and_routers_are_called_by_their_modules():
    four, eight = (f", #weights.scheme<bits = {n}, group = 32, zeros = {z}, scale = bf16>" for n, z in ((4, "true"), (8, "false")))
    options = "group=32 keep=mlp.experts.*=8,mlp.gate=4"
    check_pass(f"quantize-weights{{{options}}}", before=mixture("", ""), after=mixture(four, eight))
