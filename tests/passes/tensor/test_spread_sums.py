"""Sums of what the parts of a net have sent are stored between the products before them."""

from __future__ import annotations

import pytest

from tests.helpers import check_pass

LANES = "#tensor.lanes<axis = 1>"
SUM, LOCAL, HALF = "tensor<1x64x64xf32>", f"tensor<1x64x64xf32, {LANES}>", f"tensor<1x32x64xf32, {LANES}>"
SENT = "!tensor.sent<parts = 2, shape = [1, 64, 64], element = f32>"
PART = '{bm.net = #bm.net<name = "n", inputs = [#bm.input<name = "x">], part = #bm.part<core = 1, cores = 2, writes = []>>}'


def program(text: str) -> str:
    """A part of a net, in which %x is in local memory and %a and %b in DDR, as other parts have sent them."""
    return f"""
      "builtin.module"() ({{
        "func.func"() <{{sym_name = "n", function_type = ({SUM}) -> ()}}> ({{
        ^bb0(%i: {SUM}):
          %x = "tensor.load"(%i) : ({SUM}) -> {LOCAL}
          %c = "tensor.cast"(%x) : ({LOCAL}) -> tensor<1x64x64xbf16, {LANES}>
          %s = "tensor.send"(%x) <{{over = "core"}}> : ({LOCAL}) -> {SENT}
          %a, %b = "tensor.receive"(%s) : ({SENT}) -> ({SUM}, {SUM})
          {text}
          "func.return"() : () -> ()
        }}) {PART} : () -> ()
      }}) : () -> ()
    """


def product(number: int) -> str:
    packed, local = (f"!tensor.packed<rows = 64, columns = 64, element = bf16, local = {at}>" for at in ("false", "true"))
    weight = "tensor<64x64xbf16, #tensor.lanes<axis = 0>>"
    return f"""
      %p{number} = "tensor.packed_weight"() <{{sources = ["w"], row = {number} : i64, column = 0 : i64, each = false}}> : () -> {packed}
      %l{number} = "tensor.load"(%p{number}) : ({packed}) -> {local}
      %w{number} = "tensor.dequantize"(%l{number}) : ({local}) -> {weight}
      %y{number} = "tensor.linear"(%c, %w{number}) : (tensor<1x64x64xbf16, {LANES}>, {weight}) -> {LOCAL}
    """


def half(start: int) -> str:
    """The sum of 32 tokens."""
    part, kept = f"<{{starts = array<i64: 0, {start}, 0>, sizes = array<i64: 1, 32, 64>}}>", HALF.replace("f32", "bf16")
    ddr = "tensor<1x32x64xf32>"
    terms = "".join(
        f"""
          %{x}s{start} = "tensor.slice"(%{x}) {part} : ({SUM}) -> {ddr}
          %{x}l{start} = "tensor.load"(%{x}s{start}) : ({ddr}) -> {HALF}
        """
        for x in "ab"
    )
    return f"""
      {terms}
      %t{start} = "tensor.add"(%al{start}, %bl{start}) : ({HALF}, {HALF}) -> {HALF}
      %r{start} = "tensor.cast"(%t{start}) : ({HALF}) -> {kept}
      %o{start} = "tensor.store"(%r{start}) : ({kept}) -> {ddr.replace("f32", "bf16")}
    """


PRODUCTS = [product(number) for number in range(3)]


def test_sums_are_stored_between_products_evenly():
    first, second, third = PRODUCTS
    check_pass(
        "spread-sums",
        before=program("".join(PRODUCTS) + half(0) + half(32)),
        after=program(first + second + half(0) + third + half(32)),
    )


def test_no_sum_moves_in_front_of_what_it_waits_for():
    """The products are before the terms were received."""
    text = program("".join(PRODUCTS)).replace('%s = "tensor.send"', '%z = "tensor.send"')
    late = f"""
      %s = "tensor.send"(%x) <{{over = "core"}}> : ({LOCAL}) -> {SENT}
      %d, %e = "tensor.receive"(%s) : ({SENT}) -> ({SUM}, {SUM})
    """
    text = text.replace('"tensor.receive"(%s)', '"tensor.receive"(%z)')
    sums = half(0).replace("(%a)", "(%d)").replace("(%b)", "(%e)")
    text = text.replace('"func.return"', f'{late}{sums}"func.return"')
    check_pass("spread-sums", before=text, after=text)


@pytest.mark.parametrize(
    "sums",
    [
        half(0).rpartition("%o0")[0],  # it is not stored
        half(0).replace("(%al0, %bl0)", "(%al0, %al0)"),  # a term is read twice
        half(0).replace('"tensor.add"(%al0, %bl0)', '"tensor.add"(%al0, %yh)'),  # of a product
    ],
)
def test_what_is_more_than_a_sum_of_terms_stays(sums):
    part = "<{starts = array<i64: 0, 0, 0>, sizes = array<i64: 1, 32, 64>}>"
    text = program("".join(PRODUCTS) + f'%yh = "tensor.slice"(%y0) {part} : ({LOCAL}) -> {HALF}\n' + sums)
    check_pass("spread-sums", before=text, after=text)
