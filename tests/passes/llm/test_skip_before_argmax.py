"""What an argmax need not know of is left out; what changes the order, or is a result itself, is not."""

from __future__ import annotations

import pytest

from tests.helpers import check_pass

X, INDEX = "tensor<1x8xbf16>", "tensor<1x1xi32>"


def logits(*ops: str, results: str = "%i") -> str:
    names = ["%x", *(f"%v{n}" for n in range(len(ops)))]
    steps = [f"{new} = {op.format(old)} : ({X}) -> {X}" for old, new, op in zip(names, names[1:], ops, strict=False)]
    return "\n".join([*steps, f'%i = "llm.argmax"({names[-1]}) : ({X}) -> {INDEX}'])


def number(name: str, value: float) -> str:
    return f'"llm.{name}"({{}}) <{{{{value = {value} : f64}}}}>'


SOFTCAP = '"llm.softcap"({}) <{{cap = 30.0 : f64}}>'


@pytest.mark.parametrize("op", [SOFTCAP, number("mul", 0.5), number("div", 8.0), number("add", -1.0), number("sub", 2.0)])
def test_what_keeps_the_order_is_skipped(op):
    check_pass("skip-before-argmax,canonicalize", before=logits(op), after=logits())


def test_all_of_it_is_skipped():
    check_pass("skip-before-argmax,canonicalize", before=logits(number("div", 2.0), SOFTCAP), after=logits())


@pytest.mark.parametrize("op", [number("mul", -0.5), number("mul", 0.0), number("div", -8.0), '"llm.neg"({})'])
def test_what_turns_the_order_round_stays(op):
    check_pass("skip-before-argmax,canonicalize", before=logits(op), after=logits(op))


def test_logits_that_are_a_result_stay():
    text = logits(SOFTCAP) + f'\n"func.return"(%v0, %i) : ({X}, {INDEX}) -> ()'
    after = f"""
      %v0 = {SOFTCAP.format("%x")} : ({X}) -> {X}
      %i = "llm.argmax"(%x) : ({X}) -> {INDEX}
      "func.return"(%v0, %i) : ({X}, {INDEX}) -> ()
    """
    check_pass("skip-before-argmax,canonicalize", before=text, after=after)
