from tests.helpers import check_pass

X, W, Y, C, ALL = "tensor<1x8x32xbf16>", "tensor<16x32xbf16>", "tensor<1x8x16xbf16>", "tensor<1x1x16xbf16>", "tensor<1x9x16xbf16>"
KNOWN = f"""
    %c = "llm.weight"() <{{name = "cls"}}> : () -> {C}
    %w = "llm.weight"() <{{name = "w"}}> : () -> {W}
"""
LINEAR = f"""
    %p = "llm.linear"(%x, %w) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}> : ({X}, {W}) -> {Y}
"""
JOINED = f"""
    %y = "llm.concat"(%c, %p) <{{axis = 1 : i64}}> : ({C}, {Y}) -> {ALL}
"""


def test_a_token_before_those_of_a_linear_takes_the_place_of_one():
    after = f"""
    {KNOWN}
    %t = "llm.concat"(%x, %x) <{{axis = 1 : i64}}> : ({X}, {X}) -> tensor<1x16x32xbf16>
    %i = "llm.slice"(%t) <{{axis = 1 : i64, start = 7 : i64, stop = 16 : i64}}> : (tensor<1x16x32xbf16>) -> tensor<1x9x32xbf16>
    %p = "llm.linear"(%i, %w) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}> : (tensor<1x9x32xbf16>, {W}) -> {ALL}
    %y = "llm.put"(%p, %c) <{{axis = 1 : i64}}> : ({ALL}, {C}) -> {ALL}
    """
    check_pass("canonicalize", before=KNOWN + LINEAR + JOINED, after=after)


def test_products_that_something_else_reads_stay():
    text = KNOWN + LINEAR + JOINED + f"""
    %z = "llm.neg"(%p) : ({Y}) -> {Y}
    """
    check_pass("canonicalize", before=text, after=text)


def test_a_token_that_is_computed_stays_where_it_is_joined():
    text = KNOWN + LINEAR + f"""
    %n = "llm.neg"(%c0) : ({C}) -> {C}
    %y = "llm.concat"(%n, %p) <{{axis = 1 : i64}}> : ({C}, {Y}) -> {ALL}
    """
    check_pass("canonicalize", before=text, after=text)


def test_columns_are_joined_behind_products():
    known = f"""
    %c = "llm.weight"() <{{name = "columns"}}> : () -> {Y}
    %w = "llm.weight"() <{{name = "w"}}> : () -> {W}
    """
    text = known + LINEAR + f"""
    %y = "llm.concat"(%c, %p) <{{axis = 2 : i64}}> : ({Y}, {Y}) -> tensor<1x8x32xbf16>
    """
    check_pass("canonicalize", before=text, after=text)
