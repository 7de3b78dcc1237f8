from tests.helpers import check_pass

X, W, Y = "tensor<1x8x32xbf16>", "tensor<16x32xbf16>", "tensor<1x8x16xbf16>"
LINEAR = f"""
    %p = "llm.linear"(%x, %w) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}> : ({X}, {W}) -> {Y}
"""
FUSED = f"""
    %y = "llm.linear"(%x, %w, %r) <{{operandSegmentSizes = array<i32: 1, 1, 0, 1>}}> : ({X}, {W}, {Y}) -> {Y}
"""


def test_sum_after_a_linear_becomes_its_residual():
    add = f"""
    %y = "llm.add"(%p, %r) : ({Y}, {Y}) -> {Y}
"""
    check_pass("fuse-residual", before=LINEAR + add, after=FUSED)


def test_linear_may_be_the_second_term():
    before = f"""
    %q = "llm.neg"(%r) : ({Y}) -> {Y}
{LINEAR}
    %y = "llm.add"(%q, %p) : ({Y}, {Y}) -> {Y}
"""
    after = f"""
    %q = "llm.neg"(%r) : ({Y}) -> {Y}
    %y = "llm.linear"(%x, %w, %q) <{{operandSegmentSizes = array<i32: 1, 1, 0, 1>}}> : ({X}, {W}, {Y}) -> {Y}
"""
    check_pass("fuse-residual", before=before, after=after)


def test_linear_with_a_second_reader_stays():
    text = (
        LINEAR
        + f"""
    %y = "llm.add"(%p, %r) : ({Y}, {Y}) -> {Y}
    %z = "llm.mul"(%p, %y) : ({Y}, {Y}) -> {Y}
"""
    )
    check_pass("fuse-residual", before=text, after=text)


def test_second_residual_stays_a_sum():
    text = f"""
    %p = "llm.linear"(%x, %w, %r) <{{operandSegmentSizes = array<i32: 1, 1, 0, 1>}}> : ({X}, {W}, {Y}) -> {Y}
    %y = "llm.add"(%p, %s) : ({Y}, {Y}) -> {Y}
"""
    check_pass("fuse-residual", before=text, after=text)


def test_term_that_broadcasts_stays_a_sum():
    text = (
        LINEAR
        + f"""
    %y = "llm.add"(%p, %row) : ({Y}, tensor<16xbf16>) -> {Y}
"""
    )
    check_pass("fuse-residual", before=text, after=text)
