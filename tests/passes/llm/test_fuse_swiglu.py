from tests.helpers import check_pass

ACT = """
    %act = "llm.act"(%gate) <{kind = "silu"}> : (tensor<8x32xbf16>) -> tensor<8x32xbf16>
"""
FUSED = """
    %y = "llm.swiglu"(%gate, %up) <{act = "silu"}> : (tensor<8x32xbf16>, tensor<8x32xbf16>) -> tensor<8x32xbf16>
"""


def test_activation_that_feeds_only_the_product_is_fused():
    check_pass(
        "fuse-swiglu",
        before=ACT
        + """
    %y = "llm.mul"(%act, %up) : (tensor<8x32xbf16>, tensor<8x32xbf16>) -> tensor<8x32xbf16>
""",
        after=FUSED,
    )


def test_activation_may_be_the_second_factor():
    text = """
    %act = "llm.act"(%g) <{kind = "gelu_tanh"}> : (tensor<8x32xbf16>) -> tensor<8x32xbf16>
    %y = "llm.mul"(%u, %act) : (tensor<8x32xbf16>, tensor<8x32xbf16>) -> tensor<8x32xbf16>
"""
    fused = """
    %y = "llm.swiglu"(%g, %u) <{act = "gelu_tanh"}> : (tensor<8x32xbf16>, tensor<8x32xbf16>) -> tensor<8x32xbf16>
"""
    check_pass("fuse-swiglu", before=text, after=fused)


def test_activation_with_a_second_reader_stays():
    text = (
        ACT
        + """
    %y = "llm.mul"(%act, %up) : (tensor<8x32xbf16>, tensor<8x32xbf16>) -> tensor<8x32xbf16>
    %z = "llm.add"(%y, %act) : (tensor<8x32xbf16>, tensor<8x32xbf16>) -> tensor<8x32xbf16>
"""
    )
    check_pass("fuse-swiglu", before=text, after=text)


def test_gate_that_broadcasts_stays():
    text = """
    %act = "llm.act"(%gate) <{kind = "sigmoid"}> : (tensor<8x1xbf16>) -> tensor<8x1xbf16>
    %y = "llm.mul"(%act, %up) : (tensor<8x1xbf16>, tensor<8x32xbf16>) -> tensor<8x32xbf16>
"""
    check_pass("fuse-swiglu", before=text, after=text)
