import pytest

from tests.helpers import check_pass

A, B, C = "tensor<1x8x32xbf16>", "tensor<1x8x4x8xbf16>", "tensor<1x4x8x8xbf16>"


def test_reshape_of_a_reshape_is_one_reshape():
    before = f"""
    %a = "llm.reshape"(%x) <{{shape = array<i64: 8, 32>}}> : ({A}) -> tensor<8x32xbf16>
    %y = "llm.reshape"(%a) <{{shape = array<i64: 1, 8, 4, 8>}}> : (tensor<8x32xbf16>) -> {B}
"""
    after = f"""
    %y = "llm.reshape"(%x) <{{shape = array<i64: 1, 8, 4, 8>}}> : ({A}) -> {B}
"""
    check_pass("canonicalize", before=before, after=after)


def test_reshape_and_permute_there_and_back_vanish():
    before = f"""
    %h = "llm.reshape"(%x) <{{shape = array<i64: 1, 8, 4, 8>}}> : ({A}) -> {B}
    %p = "llm.permute"(%h) <{{order = array<i64: 0, 2, 1, 3>}}> : ({B}) -> {C}
    %q = "llm.permute"(%p) <{{order = array<i64: 0, 2, 1, 3>}}> : ({C}) -> {B}
    %f = "llm.reshape"(%q) <{{shape = array<i64: 1, 8, 32>}}> : ({B}) -> {A}
    %y = "llm.neg"(%f) : ({A}) -> {A}
"""
    after = f"""
    %y = "llm.neg"(%x) : ({A}) -> {A}
"""
    check_pass("canonicalize", before=before, after=after)


def test_two_permutes_compose():
    before = """
    %a = "llm.permute"(%x) <{order = array<i64: 1, 2, 0>}> : (tensor<2x3x4xbf16>) -> tensor<3x4x2xbf16>
    %y = "llm.permute"(%a) <{order = array<i64: 0, 2, 1>}> : (tensor<3x4x2xbf16>) -> tensor<3x2x4xbf16>
"""
    after = """
    %y = "llm.permute"(%x) <{order = array<i64: 1, 0, 2>}> : (tensor<2x3x4xbf16>) -> tensor<3x2x4xbf16>
"""
    check_pass("canonicalize", before=before, after=after)


def slice_of(result: str, x: str, start: int, stop: int, step: int, types: str, axis: int = 1) -> str:
    bounds = f"axis = {axis} : i64, start = {start} : i64, stop = {stop} : i64, step = {step} : i64"
    return f"""
    %{result} = "llm.slice"(%{x}) <{{{bounds}}}> : {types}
"""


def test_slice_of_a_slice_is_one_slice():
    before = slice_of("a", "x", 2, 18, 2, "(tensor<8x32xbf16>) -> tensor<8x8xbf16>") + slice_of(
        "y", "a", 1, 8, 3, "(tensor<8x8xbf16>) -> tensor<8x3xbf16>"
    )
    after = slice_of("y", "x", 4, 17, 6, "(tensor<8x32xbf16>) -> tensor<8x3xbf16>")
    check_pass("canonicalize", before=before, after=after)


def test_slices_along_two_axes_stay():
    text = slice_of("a", "x", 2, 18, 1, "(tensor<8x32xbf16>) -> tensor<8x16xbf16>") + slice_of(
        "y", "a", 1, 8, 1, "(tensor<8x16xbf16>) -> tensor<7x16xbf16>", axis=0
    )
    check_pass("canonicalize", before=text, after=text)


def test_slice_of_one_part_of_a_concat_is_a_slice_of_that_part():
    joined = """
    %j = "llm.concat"(%a, %b) <{axis = 1 : i64}> : (tensor<8x4xbf16>, tensor<8x6xbf16>) -> tensor<8x10xbf16>
"""
    before = joined + slice_of("s", "j", 5, 8, 1, "(tensor<8x10xbf16>) -> tensor<8x3xbf16>")
    before += """
    %y = "llm.concat"(%a, %s) <{axis = 1 : i64}> : (tensor<8x4xbf16>, tensor<8x3xbf16>) -> tensor<8x7xbf16>
"""
    after = (
        """
    %n = "llm.neg"(%a) : (tensor<8x4xbf16>) -> tensor<8x4xbf16>
"""
        + slice_of("s", "b", 1, 4, 1, "(tensor<8x6xbf16>) -> tensor<8x3xbf16>")
        + """
    %y = "llm.concat"(%n, %s) <{axis = 1 : i64}> : (tensor<8x4xbf16>, tensor<8x3xbf16>) -> tensor<8x7xbf16>
"""
    )
    first = """
    %n = "llm.neg"(%a) : (tensor<8x4xbf16>) -> tensor<8x4xbf16>
"""
    check_pass("canonicalize", before=first + before.replace("%a, %s", "%n, %s"), after=after)


def test_slice_across_parts_of_a_concat_stays():
    text = """
    %j = "llm.concat"(%a, %b) <{axis = 1 : i64}> : (tensor<8x4xbf16>, tensor<8x6xbf16>) -> tensor<8x10xbf16>
""" + slice_of("y", "j", 3, 8, 1, "(tensor<8x10xbf16>) -> tensor<8x5xbf16>")
    check_pass("canonicalize", before=text, after=text)


def test_equal_ops_are_computed_once_and_unread_ones_not_at_all():
    before = f"""
    %a = "llm.neg"(%x) : ({A}) -> {A}
    %b = "llm.neg"(%x) : ({A}) -> {A}
    %c = "llm.add"(%a, %b) : ({A}, {A}) -> {A}
    %y = "llm.mul"(%c, %b) : ({A}, {A}) -> {A}
"""
    after = f"""
    %a = "llm.neg"(%x) : ({A}) -> {A}
    %c = "llm.add"(%a, %a) : ({A}, {A}) -> {A}
    %y = "llm.mul"(%c, %a) : ({A}, {A}) -> {A}
"""
    check_pass("canonicalize", before=before, after=after)


def test_ops_that_differ_in_an_attribute_are_both_kept():
    text = f"""
    %a = "llm.act"(%x) <{{kind = "silu"}}> : ({A}) -> {A}
    %b = "llm.act"(%x) <{{kind = "gelu"}}> : ({A}) -> {A}
    %y = "llm.mul"(%a, %b) : ({A}, {A}) -> {A}
"""
    check_pass("canonicalize", before=text, after=text)


def test_unread_op_is_dropped():
    function = """
"builtin.module"() ({{
  "func.func"() <{{sym_name = "f", function_type = (tensor<4xbf16>) -> tensor<4xbf16>}}> ({{
  ^bb0(%x: tensor<4xbf16>):{dead}
    "func.return"(%x) : (tensor<4xbf16>) -> ()
  }}) : () -> ()
}}) : () -> ()
"""
    dead = """
    %a = "llm.neg"(%x) : (tensor<4xbf16>) -> tensor<4xbf16>
    %b = "llm.neg"(%a) : (tensor<4xbf16>) -> tensor<4xbf16>"""
    check_pass("canonicalize", before=function.format(dead=dead), after=function.format(dead=""))


W = "tensor<16x32xbf16>"
PROJECTED = "<{operandSegmentSizes = array<i32: 1, 1, 0, 0>}>"


def test_axes_of_one_are_added_behind_a_linear():
    wide, out = "tensor<1x1x8x32xbf16>", "tensor<1x1x8x16xbf16>"
    before = f"""
    %w = "llm.weight"() <{{name = "w"}}> : () -> {W}
    %h = "llm.reshape"(%x) <{{shape = array<i64: 1, 1, 8, 32>}}> : ({A}) -> {wide}
    %y = "llm.linear"(%h, %w) {PROJECTED} : ({wide}, {W}) -> {out}
"""
    after = f"""
    %w = "llm.weight"() <{{name = "w"}}> : () -> {W}
    %h = "llm.linear"(%x, %w) {PROJECTED} : ({A}, {W}) -> tensor<1x8x16xbf16>
    %y = "llm.reshape"(%h) <{{shape = array<i64: 1, 1, 8, 16>}}> : (tensor<1x8x16xbf16>) -> {out}
"""
    check_pass("canonicalize", before=before, after=after)


def test_heads_are_joined_before_a_linear():
    text = f"""
    %w = "llm.weight"() <{{name = "w"}}> : () -> {W}
    %h = "llm.reshape"(%x) <{{shape = array<i64: 1, 8, 32>}}> : ({B}) -> {A}
    %y = "llm.linear"(%h, %w) {PROJECTED} : ({A}, {W}) -> tensor<1x8x16xbf16>
"""
    check_pass("canonicalize", before=text, after=text)
    rows = text.replace(B, "tensor<1x2x4x32xbf16>")
    check_pass("canonicalize", before=rows, after=rows)


@pytest.mark.parametrize("wide", ["tensor<1x1x8x32xbf16>", "tensor<1x8x1x32xbf16>"])
def test_a_term_of_a_sum_stays_as_it_is(wide):
    text = f"""
    %w = "llm.weight"() <{{name = "w"}}> : () -> {W}
    %h = "llm.reshape"(%x) <{{shape = array<i64: 1, 8, 32>}}> : ({wide}) -> {A}
    %y = "llm.linear"(%h, %w) <{{partial = true, {PROJECTED[2:-2]}}}> : ({A}, {W}) -> tensor<1x8x16xf32>
"""
    check_pass("canonicalize", before=text, after=text)


def of_heads(axis: int, of: str, split: str, one: str, index: str) -> str:
    return f"""
      %a = "llm.reshape"(%x) <{{shape = array<i64: {split.replace("x", ", ")}>}}> : (tensor<{of}xbf16>) -> tensor<{split}xbf16>
      %b = "llm.slice"(%a) <{{axis = {axis} : i64, start = {index} : i64, stop = {int(index) + 1} : i64, step = 1 : i64}}>
         : (tensor<{split}xbf16>) -> tensor<{one}xbf16>
    """


def test_one_of_a_head_s_parts_is_a_range_of_its_items():
    check_pass(
        "canonicalize",
        before=of_heads(3, "1x8x96", "1x8x2x3x16", "1x8x2x1x16", "1")
        + """
          %y = "llm.reshape"(%b) <{shape = array<i64: 1, 8, 2, 16>}> : (tensor<1x8x2x1x16xbf16>) -> tensor<1x8x2x16xbf16>
        """,
        after="""
          %a = "llm.reshape"(%x) <{shape = array<i64: 1, 8, 2, 48>}> : (tensor<1x8x96xbf16>) -> tensor<1x8x2x48xbf16>
          %y = "llm.slice"(%a) <{axis = 3 : i64, start = 16 : i64, stop = 32 : i64, step = 1 : i64}>
             : (tensor<1x8x2x48xbf16>) -> tensor<1x8x2x16xbf16>
        """,
    )


def test_one_of_all_heads_parts_is_a_range_of_the_row():
    check_pass(
        "canonicalize",
        before=of_heads(2, "1x8x96", "1x8x3x2x16", "1x8x1x2x16", "2")
        + """
          %y = "llm.reshape"(%b) <{shape = array<i64: 1, 8, 2, 16>}> : (tensor<1x8x1x2x16xbf16>) -> tensor<1x8x2x16xbf16>
        """,
        after="""
          %a = "llm.slice"(%x) <{axis = 2 : i64, start = 64 : i64, stop = 96 : i64, step = 1 : i64}>
             : (tensor<1x8x96xbf16>) -> tensor<1x8x32xbf16>
          %y = "llm.reshape"(%a) <{shape = array<i64: 1, 8, 2, 16>}> : (tensor<1x8x32xbf16>) -> tensor<1x8x2x16xbf16>
        """,
    )


def test_one_item_of_each_head_is_no_range():
    text = of_heads(3, "1x8x32", "1x8x2x16", "1x8x2x1", "3") + """
      %y = "llm.reshape"(%b) <{shape = array<i64: 1, 8, 2>}> : (tensor<1x8x2x1xbf16>) -> tensor<1x8x2xbf16>
    """
    check_pass("canonicalize", before=text, after=text)


def test_tokens_stay_on_their_axis():
    two, three, w = "tensor<8x16xbf16>", "tensor<1x8x16xbf16>", "tensor<16x16xbf16>"
    check_pass(
        "canonicalize",
        before=f"""
          %a = "llm.reshape"(%x) <{{shape = array<i64: 8, 16>}}> : ({three}) -> {two}
          %w = "llm.weight"() <{{name = "w"}}> : () -> {w}
          %b = "llm.linear"(%a, %w) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}> : ({two}, {w}) -> {two}
          %c = "llm.add"(%b, %a) : ({two}, {two}) -> {two}
          %y = "llm.reshape"(%c) <{{shape = array<i64: 1, 8, 16>}}> : ({two}) -> {three}
        """,
        after=f"""
          %w = "llm.weight"() <{{name = "w"}}> : () -> {w}
          %b = "llm.linear"(%x, %w) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}> : ({three}, {w}) -> {three}
          %y = "llm.add"(%b, %x) : ({three}, {three}) -> {three}
        """,
    )


def test_what_is_no_function_of_each_token_keeps_its_axes():
    two, three = "tensor<8x16xbf16>", "tensor<1x8x16xbf16>"
    text = f"""
      %a = "llm.reshape"(%x) <{{shape = array<i64: 8, 16>}}> : ({three}) -> {two}
      %y = "llm.softmax"(%a) <{{axis = 1 : i64}}> : ({two}) -> {two}
    """
    check_pass("canonicalize", before=text, after=text)


def test_a_range_of_a_row_is_taken_before_it_is_a_head():
    check_pass(
        "canonicalize",
        before="""
          %a = "llm.reshape"(%x) <{shape = array<i64: 1, 1, 8, 48>}> : (tensor<1x8x48xbf16>) -> tensor<1x1x8x48xbf16>
          %y = "llm.slice"(%a) <{axis = 3 : i64, start = 16 : i64, stop = 32 : i64}> : (tensor<1x1x8x48xbf16>) -> tensor<1x1x8x16xbf16>
        """,
        after="""
          %a = "llm.slice"(%x) <{axis = 2 : i64, start = 16 : i64, stop = 32 : i64}> : (tensor<1x8x48xbf16>) -> tensor<1x8x16xbf16>
          %y = "llm.reshape"(%a) <{shape = array<i64: 1, 1, 8, 16>}> : (tensor<1x8x16xbf16>) -> tensor<1x1x8x16xbf16>
        """,
    )


def test_heads_are_joined_on_the_axis_of_tokens():
    heads, two, three, w = "tensor<1x8x2x16xbf16>", "tensor<8x32xbf16>", "tensor<1x8x32xbf16>", "tensor<32x32xbf16>"
    check_pass(
        "canonicalize",
        before=f"""
          %a = "llm.reshape"(%x) <{{shape = array<i64: 8, 32>}}> : ({heads}) -> {two}
          %w = "llm.weight"() <{{name = "w"}}> : () -> {w}
          %b = "llm.linear"(%a, %w) {PROJECTED} : ({two}, {w}) -> {two}
          %y = "llm.reshape"(%b) <{{shape = array<i64: 1, 8, 32>}}> : ({two}) -> {three}
        """,
        after=f"""
          %w = "llm.weight"() <{{name = "w"}}> : () -> {w}
          %a = "llm.reshape"(%x) <{{shape = array<i64: 1, 8, 32>}}> : ({heads}) -> {three}
          %y = "llm.linear"(%a, %w) {PROJECTED} : ({three}, {w}) -> {three}
        """,
    )


def test_what_is_parted_by_its_first_axis_is_a_slice_of_the_last():
    """Queries of a linear [1, tokens, 3 * heads * width], as towers take them out of it."""
    whole, one = "tensor<8x3x4x8xbf16>", "tensor<1x8x4x8xbf16>"
    before = f"""
    %h = "llm.reshape"(%x) <{{shape = array<i64: 8, 3, 4, 8>}}> : (tensor<1x8x96xbf16>) -> {whole}
    %p = "llm.permute"(%h) <{{order = array<i64: 1, 0, 2, 3>}}> : ({whole}) -> tensor<3x8x4x8xbf16>
    %k = "llm.slice"(%p) <{{axis = 0 : i64, start = 1 : i64, stop = 2 : i64}}> : (tensor<3x8x4x8xbf16>) -> {one}
    %r = "llm.reshape"(%k) <{{shape = array<i64: 8, 4, 8>}}> : ({one}) -> tensor<8x4x8xbf16>
    %t = "llm.permute"(%r) <{{order = array<i64: 1, 0, 2>}}> : (tensor<8x4x8xbf16>) -> tensor<4x8x8xbf16>
    %y = "llm.reshape"(%t) <{{shape = array<i64: 1, 4, 8, 8>}}> : (tensor<4x8x8xbf16>) -> {C}
"""
    after = f"""
    %k = "llm.slice"(%x) <{{axis = 2 : i64, start = 32 : i64, stop = 64 : i64}}> : (tensor<1x8x96xbf16>) -> {A}
    %h = "llm.reshape"(%k) <{{shape = array<i64: 1, 8, 4, 8>}}> : ({A}) -> {B}
    %y = "llm.permute"(%h) <{{order = array<i64: 0, 2, 1, 3>}}> : ({B}) -> {C}
"""
    check_pass("canonicalize", before=before, after=after)


def test_one_of_an_axis_that_moved_past_others_is_left_where_it_is():
    text = """
    %p = "llm.permute"(%x) <{order = array<i64: 1, 2, 0>}> : (tensor<2x3x4xbf16>) -> tensor<3x4x2xbf16>
    %k = "llm.slice"(%p) <{axis = 0 : i64, start = 1 : i64, stop = 2 : i64}> : (tensor<3x4x2xbf16>) -> tensor<1x4x2xbf16>
    %y = "llm.reshape"(%k) <{shape = array<i64: 4, 2>}> : (tensor<1x4x2xbf16>) -> tensor<4x2xbf16>
"""
    check_pass("canonicalize", before=text, after=text)


def test_states_in_a_batch_of_one_are_projected_there():
    text = """
    %r = "llm.reshape"(%x) <{shape = array<i64: 1, 8, 32>}> : (tensor<8x32xbf16>) -> tensor<1x8x32xbf16>
    %y = "llm.linear"(%r, %w) <{operandSegmentSizes = array<i32: 1, 1, 0, 0>}> : (tensor<1x8x32xbf16>, tensor<16x32xbf16>) -> tensor<1x8x16xbf16>
"""
    check_pass("canonicalize", before=text, after=text)
