"""Rotary embeddings from products with cosines and sines; and arithmetic that only looks like one."""

from __future__ import annotations

import pytest

from tests.helpers import check_pass

H = "tensor<1x2x8x16xf32>"
HALF = "tensor<1x2x8x8xf32>"
TABLE = "tensor<1x1x8x16xf32>"
PIPELINE = "canonicalize,recognize-rope,canonicalize"


def slice_of(name: str, x: str, start: int, stop: int, step: int, types: str) -> str:
    bounds = f"axis = 3 : i64, start = {start} : i64, stop = {stop} : i64, step = {step} : i64"
    return f"""
    %{name} = "llm.slice"(%{x}) <{{{bounds}}}> : {types}
"""


def rope_sum() -> str:
    return f"""
    %xc = "llm.mul"(%x, %cos) : ({H}, {TABLE}) -> {H}
    %ps = "llm.mul"(%p, %sin) : ({H}, {TABLE}) -> {H}
    %y = "llm.add"(%xc, %ps) : ({H}, {H}) -> {H}
"""


def half(negated: str = "high", other: str = "low") -> str:
    return (
        slice_of("low", "x", 0, 8, 1, f"({H}) -> {HALF}")
        + slice_of("high", "x", 8, 16, 1, f"({H}) -> {HALF}")
        + f"""
    %n = "llm.neg"(%{negated}) : ({HALF}) -> {HALF}
    %p = "llm.concat"(%n, %{other}) <{{axis = 3 : i64}}> : ({HALF}, {HALF}) -> {H}
"""
        + rope_sum()
    )


def rope(mode: str) -> str:
    return f"""
    %y = "llm.rope"(%x, %cos, %sin) <{{mode = "{mode}", rotary_dim = 16 : i64}}> : ({H}, {TABLE}, {TABLE}) -> {H}
"""


def in_order(text: str) -> str:
    """Name the arguments in one order on both sides: an op that reads them all, first."""
    return (
        f"""
    %all = "llm.concat"(%x, %x) <{{axis = 3 : i64}}> : ({H}, {H}) -> tensor<1x2x8x32xf32>
    %tables = "llm.concat"(%cos, %sin) <{{axis = 3 : i64}}> : ({TABLE}, {TABLE}) -> tensor<1x1x8x32xf32>
"""
        + text
    )


def test_rope_of_halves():
    check_pass(PIPELINE, in_order(half()), in_order(rope("half")))


@pytest.mark.parametrize(("negated", "other"), [("low", "high"), ("low", "low"), ("high", "high")])
def test_rope_with_another_partner_stays(negated, other):
    check_pass(PIPELINE, in_order(half(negated, other)), in_order(half(negated, other)))


def interleaved(first: int) -> str:
    column, pairs = "tensor<1x2x8x8x1xf32>", "tensor<1x2x8x8x2xf32>"
    shape = "shape = array<i64: 1, 2, 8, 8, 1>"
    return (
        slice_of("odd", "x", first, 16 - (1 - first), 2, f"({H}) -> {HALF}")
        + slice_of("even", "x", 1 - first, 16 - first, 2, f"({H}) -> {HALF}")
        + f"""
    %n = "llm.neg"(%odd) : ({HALF}) -> {HALF}
    %a = "llm.reshape"(%n) <{{{shape}}}> : ({HALF}) -> {column}
    %b = "llm.reshape"(%even) <{{{shape}}}> : ({HALF}) -> {column}
    %j = "llm.concat"(%a, %b) <{{axis = 4 : i64}}> : ({column}, {column}) -> {pairs}
    %p = "llm.reshape"(%j) <{{shape = array<i64: 1, 2, 8, 16>}}> : ({pairs}) -> {H}
"""
        + rope_sum()
    )


def test_rope_of_neighbours():
    check_pass(PIPELINE, in_order(interleaved(1)), in_order(rope("interleaved")))


def test_rope_of_neighbours_with_the_even_ones_negated_stays():
    check_pass(PIPELINE, in_order(interleaved(0)), in_order(interleaved(0)))


def test_rope_of_a_part_of_each_head():
    wide, part, rest = "tensor<1x2x8x24xf32>", H, HALF
    heads = slice_of("x", "h", 0, 16, 1, f"({wide}) -> {part}") + slice_of(
        "rest", "h", 16, 24, 1, f"({wide}) -> {rest}"
    )
    # Halves of the part as slices of the whole head, since slices of slices are merged.
    body = half().replace("(%x) <{axis = 3 : i64, start", "(%h) <{axis = 3 : i64, start")
    body = body.replace(f"({H}) -> {HALF}\n\n    %high", f"({wide}) -> {HALF}\n\n    %high")
    body = body.replace(f": ({H}) -> {HALF}", f": ({wide}) -> {HALF}")
    joined = f"""
    %z = "llm.concat"(%y, %rest) <{{axis = 3 : i64}}> : ({part}, {rest}) -> {wide}
"""
    after = f"""
    %z = "llm.rope"(%h, %cos, %sin) <{{mode = "half", rotary_dim = 16 : i64}}> : ({wide}, {TABLE}, {TABLE}) -> {wide}
"""
    first = f"""
    %tables = "llm.concat"(%cos, %sin) <{{axis = 3 : i64}}> : ({TABLE}, {TABLE}) -> tensor<1x1x8x32xf32>
    %heads = "llm.neg"(%h) : ({wide}) -> {wide}
"""
    check_pass(PIPELINE, first + heads + body + joined, first + after)


def parted(order: str) -> str:
    pairs, turned = "tensor<1x2x8x8x2xf32>", "tensor<1x2x8x2x8xf32>"
    return (
        f"""
    %a = "llm.reshape"(%h) <{{shape = array<i64: 1, 2, 8, 8, 2>}}> : ({H}) -> {pairs}
    %b = "llm.permute"(%a) <{{order = array<i64: {order}>}}> : ({pairs}) -> {turned}
    %x = "llm.reshape"(%b) <{{shape = array<i64: 1, 2, 8, 16>}}> : ({turned}) -> {H}
"""
    )


def test_rope_of_neighbours_that_are_parted_first():
    after = rope("pairs_to_halves").replace("(%x,", "(%h,")
    order = in_order("").replace("%x", "%h")
    check_pass(PIPELINE, order + parted("0, 1, 2, 4, 3") + half(), order + after)


def test_rope_behind_another_order_of_items_is_of_halves():
    turned = parted("0, 1, 2, 4, 3").replace("array<i64: 1, 2, 8, 8, 2>", "array<i64: 1, 2, 8, 2, 8>")
    turned = turned.replace("0, 1, 2, 4, 3", "0, 1, 2, 3, 4").replace("8x8x2x", "8x2x8x")
    order = in_order("").replace("%x", "%h")
    check_pass(PIPELINE, order + turned + half(), order + rope("half").replace("(%x,", "(%h,"))
    fewer = parted("1, 0, 2, 4, 3").replace("1x2x8x2x8", "2x1x8x2x8")
    check_pass(PIPELINE, order + fewer + half(), order + fewer + rope("half"))


def test_rope_with_tables_of_half_the_width():
    table = "tensor<1x1x8x8xf32>"
    text = (
        slice_of("a", "x", 0, 8, 1, f"({H}) -> {HALF}")
        + slice_of("b", "x", 8, 16, 1, f"({H}) -> {HALF}")
        + f"""
    %ac = "llm.mul"(%a, %cos) : ({HALF}, {table}) -> {HALF}
    %bs = "llm.mul"(%b, %sin) : ({HALF}, {table}) -> {HALF}
    %bc = "llm.mul"(%b, %cos) : ({HALF}, {table}) -> {HALF}
    %as = "llm.mul"(%a, %sin) : ({HALF}, {table}) -> {HALF}
    %first = "llm.sub"(%ac, %bs) : ({HALF}, {HALF}) -> {HALF}
    %second = "llm.add"(%bc, %as) : ({HALF}, {HALF}) -> {HALF}
    %y = "llm.concat"(%first, %second) <{{axis = 3 : i64}}> : ({HALF}, {HALF}) -> {H}
"""
    )
    order = f"""
    %tables = "llm.concat"(%cos, %sin) <{{axis = 3 : i64}}> : ({table}, {table}) -> tensor<1x1x8x16xf32>
    %heads = "llm.neg"(%x) : ({H}) -> {H}
"""
    after = f"""
    %y = "llm.rope"(%x, %cos, %sin) <{{mode = "half_tables", rotary_dim = 16 : i64}}> : ({H}, {table}, {table}) -> {H}
"""
    check_pass(PIPELINE, order + text, order + after)
    apart = text
    for name, old, new in (("a", (0, 8, 1), (0, 15, 2)), ("b", (8, 16, 1), (1, 16, 2))):
        types = f"({H}) -> {HALF}"
        apart = apart.replace(slice_of(name, "x", *old, types), slice_of(name, "x", *new, types))
    check_pass(PIPELINE, order + apart, order + after.replace("half_tables", "pairs_to_halves"))
    odd_first = apart.replace("(%a,", "(%t,").replace("(%b,", "(%a,").replace("(%t,", "(%b,")
    check_pass(PIPELINE, order + odd_first, order + odd_first)
    swapped = text.replace('"llm.mul"(%a, %sin)', '"llm.mul"(%a, %a)').replace(
        f"%a) : ({HALF}, {table})", f"%a) : ({HALF}, {HALF})"
    )
    check_pass(PIPELINE, order + swapped, order + swapped)


ROWS, KEY, KEY_HALF = "tensor<1x8x40xf32>", "tensor<1x1x8x16xf32>", "tensor<1x1x8x8xf32>"


def key_part(name: str, start: int, stop: int, step: int = 1, lead: str = "1, 1, 8") -> str:
    """Elements of rows of a projection, as those of one head."""
    width = len(range(start, stop, step))
    bounds = f"axis = 2 : i64, start = {start} : i64, stop = {stop} : i64" + f", step = {step} : i64" * (step > 1)
    part, head = f"tensor<1x8x{width}xf32>", f"tensor<{lead.replace(', ', 'x')}x{width}xf32>"
    return f"""
    %{name}_row = "llm.slice"(%r) <{{{bounds}}}> : ({ROWS}) -> {part}
    %{name} = "llm.reshape"(%{name}_row) <{{shape = array<i64: {lead}, {width}>}}> : ({part}) -> {head}
"""


def key_by_half_tables(first: tuple[int, int, int], second: tuple[int, int, int]) -> str:
    table, head = KEY_HALF, KEY_HALF
    return (
        key_part("a", *first)
        + key_part("b", *second)
        + f"""
    %ac = "llm.mul"(%a, %cos) : ({head}, {table}) -> {head}
    %bs = "llm.mul"(%b, %sin) : ({head}, {table}) -> {head}
    %bc = "llm.mul"(%b, %cos) : ({head}, {table}) -> {head}
    %as = "llm.mul"(%a, %sin) : ({head}, {table}) -> {head}
    %first = "llm.sub"(%ac, %bs) : ({head}, {head}) -> {head}
    %second = "llm.add"(%bc, %as) : ({head}, {head}) -> {head}
    %y = "llm.concat"(%first, %second) <{{axis = 3 : i64}}> : ({head}, {head}) -> {KEY}
"""
    )


def key_order(table: str) -> str:
    wide = table.replace("x16xf32", "x32xf32").replace("x8xf32", "x16xf32")
    return f"""
    %tables = "llm.concat"(%cos, %sin) <{{axis = 3 : i64}}> : ({table}, {table}) -> {wide}
    %rows = "llm.neg"(%r) : ({ROWS}) -> {ROWS}
"""


@pytest.mark.parametrize(
    ("first", "second", "mode"),
    [
        ((24, 39, 2), (25, 40, 2), "pairs_to_halves"),
        ((24, 32, 1), (32, 40, 1), "half_tables"),
        ((25, 40, 2), (24, 39, 2), None),
        ((20, 35, 2), (25, 40, 2), None),
        ((24, 32, 1), (31, 39, 1), None),
    ],
)
def test_rope_of_a_key_that_all_heads_share(first, second, mode):
    """Its halves are cut from rows of a projection before they become those of a head."""
    order, before = key_order(KEY_HALF), key_by_half_tables(first, second)
    after = f"""
    %y = "llm.rope"(%x, %cos, %sin) <{{mode = "{mode}", rotary_dim = 16 : i64}}> : ({KEY}, {KEY_HALF}, {KEY_HALF}) -> {KEY}
"""
    check_pass(PIPELINE, order + before, order + (key_part("x", 24, 40) + after if mode else before))


def key_by_halves(low: str, high: str) -> str:
    return (
        key_part("x", 24, 40)
        + low
        + high
        + f"""
    %n = "llm.neg"(%high) : ({KEY_HALF}) -> {KEY_HALF}
    %p = "llm.concat"(%n, %low) <{{axis = 3 : i64}}> : ({KEY_HALF}, {KEY_HALF}) -> {KEY}
    %xc = "llm.mul"(%x, %cos) : ({KEY}, {KEY}) -> {KEY}
    %ps = "llm.mul"(%p, %sin) : ({KEY}, {KEY}) -> {KEY}
    %y = "llm.add"(%xc, %ps) : ({KEY}, {KEY}) -> {KEY}
"""
    )


def test_rope_of_halves_of_a_key_that_all_heads_share():
    order = key_order(KEY)
    after = f"""
    %y = "llm.rope"(%x, %cos, %sin) <{{mode = "half", rotary_dim = 16 : i64}}> : ({KEY}, {KEY}, {KEY}) -> {KEY}
"""
    before = key_by_halves(key_part("low", 24, 32), key_part("high", 32, 40))
    check_pass(PIPELINE, order + before, order + key_part("x", 24, 40) + after)
    others = key_by_halves(key_part("low", 16, 24), key_part("high", 32, 40))
    check_pass(PIPELINE, order + others, order + others)


def test_rope_of_heads_behind_tokens():
    """As towers have it: [tokens, heads, width], with tables of one head."""
    heads, halves, table = "tensor<8x2x16xf32>", "tensor<8x2x8xf32>", "tensor<8x1x16xf32>"
    before = f"""
    %low = "llm.slice"(%x) <{{axis = 2 : i64, start = 0 : i64, stop = 8 : i64}}> : ({heads}) -> {halves}
    %high = "llm.slice"(%x) <{{axis = 2 : i64, start = 8 : i64, stop = 16 : i64}}> : ({heads}) -> {halves}
    %n = "llm.neg"(%high) : ({halves}) -> {halves}
    %p = "llm.concat"(%n, %low) <{{axis = 2 : i64}}> : ({halves}, {halves}) -> {heads}
    %xc = "llm.mul"(%x, %cos) : ({heads}, {table}) -> {heads}
    %ps = "llm.mul"(%p, %sin) : ({heads}, {table}) -> {heads}
    %y = "llm.add"(%xc, %ps) : ({heads}, {heads}) -> {heads}
"""
    batch = "tensor<1x8x2x16xf32>"
    after = f"""
    %c = "llm.reshape"(%cos) <{{shape = array<i64: 1, 1, 8, 16>}}> : ({table}) -> {TABLE}
    %s = "llm.reshape"(%sin) <{{shape = array<i64: 1, 1, 8, 16>}}> : ({table}) -> {TABLE}
    %x4 = "llm.reshape"(%x) <{{shape = array<i64: 1, 8, 2, 16>}}> : ({heads}) -> {batch}
    %h = "llm.permute"(%x4) <{{order = array<i64: 0, 2, 1, 3>}}> : ({batch}) -> {H}
    %r = "llm.rope"(%h, %c, %s) <{{rotary_dim = 16 : i64}}> : ({H}, {TABLE}, {TABLE}) -> {H}
    %t = "llm.permute"(%r) <{{order = array<i64: 0, 2, 1, 3>}}> : ({H}) -> {batch}
    %y = "llm.reshape"(%t) <{{shape = array<i64: 8, 2, 16>}}> : ({batch}) -> {heads}
"""
    check_pass(PIPELINE, before, after)
