from tests.helpers import check_pass

X, MASK = "tensor<1x8x16xbf16>", "tensor<1x1x8x8xbf16>"
Q, K = "tensor<1x8x16xbf16>", "tensor<1x8x8xbf16>"
WQ, WK = "tensor<16x16xbf16>", "tensor<8x16xbf16>"
HEADS_Q, HEADS_K = "tensor<1x8x4x4xbf16>", "tensor<1x8x2x4xbf16>"
FIRST_Q, FIRST_K = "tensor<1x4x8x4xbf16>", "tensor<1x2x8x4xbf16>"


def weight(name: str, type: str) -> str:
    return f"""
    %w{name} = "llm.weight"() <{{name = "{name}_proj.weight"}}> : () -> {type}
"""


def linear(name: str, types: str, x: str = "x", bias: str = "") -> str:
    sizes = "1, 1, 1, 0" if bias else "1, 1, 0, 0"
    return f"""
    %{name} = "llm.linear"(%{x}, %w{name}{bias}) <{{operandSegmentSizes = array<i32: {sizes}>}}> : {types}
"""


def heads(name: str, source: str, flat: str, split: str, first: str) -> str:
    shape = "4, 4" if split == HEADS_Q else "2, 4"
    return f"""
    %{name}h = "llm.reshape"(%{source}) <{{shape = array<i64: 1, 8, {shape}>}}> : ({flat}) -> {split}
    %{name}p = "llm.permute"(%{name}h) <{{order = array<i64: 0, 2, 1, 3>}}> : ({split}) -> {first}
"""


ATTENTION = f"""
    %y = "llm.attention"(%qp, %kp, %vp, %mask)
        <{{scale = 0.5 : f64, visible = #llm.visible<kind = "causal">, operandSegmentSizes = array<i32: 1, 1, 1, 1, 0>}}>
        : ({FIRST_Q}, {FIRST_K}, {FIRST_K}, {MASK}) -> {HEADS_Q}
"""
SEPARATE = (
    weight("q", WQ)
    + linear("q", f"({X}, {WQ}) -> {Q}")
    + heads("q", "q", Q, HEADS_Q, FIRST_Q)
    + weight("k", WK)
    + linear("k", f"({X}, {WK}) -> {K}")
    + heads("k", "k", K, HEADS_K, FIRST_K)
    + weight("v", WK)
    + linear("v", f"({X}, {WK}) -> {K}")
    + heads("v", "v", K, HEADS_K, FIRST_K)
    + ATTENTION
)


def slices() -> str:
    def one(name: str, start: int, stop: int, type: str) -> str:
        bounds = f"axis = 2 : i64, start = {start} : i64, stop = {stop} : i64, step = 1 : i64"
        return f"""
    %{name} = "llm.slice"(%a) <{{{bounds}}}> : (tensor<1x8x32xbf16>) -> {type}
"""

    return one("q", 0, 16, Q) + one("k", 16, 24, K) + one("v", 24, 32, K)


REST = (
    heads("q", "q", Q, HEADS_Q, FIRST_Q)
    + heads("k", "k", K, HEADS_K, FIRST_K)
    + heads("v", "v", K, HEADS_K, FIRST_K)
    + ATTENTION
)


def test_three_projections_of_one_input_become_one():
    joined = f"""
    %w = "llm.concat_weights"(%wq, %wk, %wv) : ({WQ}, {WK}, {WK}) -> tensor<32x16xbf16>
    %a = "llm.linear"(%x, %w) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}>
        : ({X}, tensor<32x16xbf16>) -> tensor<1x8x32xbf16>
"""
    after = weight("q", WQ) + weight("k", WK) + weight("v", WK) + joined + slices() + REST
    check_pass("fuse-qkv", before=SEPARATE, after=after)


def biased(names: str) -> str:
    """The projections of q, k and v, those in `names` with a bias, and what reads them."""
    text = ""
    for name, w, y, n in (("q", WQ, Q, 16), ("k", WK, K, 8), ("v", WK, K, 8)):
        text += weight(name, w)
        if name in names:
            b = f"tensor<{n}xbf16>"
            text += f"""
    %b{name} = "llm.weight"() <{{name = "{name}_proj.bias"}}> : () -> {b}
"""
            text += linear(name, f"({X}, {w}, {b}) -> {y}", bias=f", %b{name}")
        else:
            text += linear(name, f"({X}, {w}) -> {y}")
    return text + REST


def test_biases_are_joined_like_weights():
    after = (
        weight("q", WQ)
        + """
    %bq = "llm.weight"() <{name = "q_proj.bias"}> : () -> tensor<16xbf16>
"""
        + weight("k", WK)
        + weight("v", WK)
        + f"""
    %w = "llm.concat_weights"(%wq, %wk, %wv) : ({WQ}, {WK}, {WK}) -> tensor<32x16xbf16>
    %bk = "llm.weight"() <{{name = "k_proj.bias"}}> : () -> tensor<8xbf16>
    %bv = "llm.weight"() <{{name = "v_proj.bias"}}> : () -> tensor<8xbf16>
    %b = "llm.concat_weights"(%bq, %bk, %bv) : (tensor<16xbf16>, tensor<8xbf16>, tensor<8xbf16>) -> tensor<32xbf16>
    %a = "llm.linear"(%x, %w, %b) <{{operandSegmentSizes = array<i32: 1, 1, 1, 0>}}>
        : ({X}, tensor<32x16xbf16>, tensor<32xbf16>) -> tensor<1x8x32xbf16>
"""
        + slices()
        + REST
    )
    check_pass("fuse-qkv", before=biased("qkv"), after=after)


def test_bias_of_one_alone_keeps_them_apart():
    check_pass("fuse-qkv", before=biased("qv"), after=biased("qv"))


def test_projections_of_two_inputs_stay():
    text = SEPARATE.replace('"llm.linear"(%x, %wv', '"llm.linear"(%z, %wv')
    assert text != SEPARATE
    check_pass("fuse-qkv", before=text, after=text)


FOUR = "#weights.scheme<bits = 4, group = 16, zeros = true, scale = bf16>"
EIGHT = "#weights.scheme<bits = 8, group = 16, zeros = false, scale = bf16>"


def stored(text: str, scheme: str, *types: str) -> str:
    for type_ in types:
        text = text.replace(type_, type_.replace(">", f", {scheme}>"))
    return text


def test_weights_stored_alike_are_joined_as_they_are_stored():
    wide = "tensor<32x16xbf16>"
    after = f"""
    %w = "llm.concat_weights"(%wq, %wk, %wv) : ({WQ}, {WK}, {WK}) -> {wide}
    %a = "llm.linear"(%x, %w) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}> : ({X}, {wide}) -> tensor<1x8x32xbf16>
"""
    after = weight("q", WQ) + weight("k", WK) + weight("v", WK) + after + slices() + REST
    check_pass("fuse-qkv", before=stored(SEPARATE, FOUR, WQ, WK), after=stored(after, FOUR, WQ, WK, wide))


def test_weights_stored_in_different_ways_keep_them_apart():
    mixed = stored(stored(SEPARATE, FOUR, WQ), EIGHT, WK)
    check_pass("fuse-qkv", before=mixed, after=mixed)
    check_pass("fuse-qkv", before=stored(SEPARATE, FOUR, WQ), after=stored(SEPARATE, FOUR, WQ))
