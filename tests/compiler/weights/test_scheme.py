"""What ways of storing a weight there are."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.ir.types import BF16, F16, F32, TensorType
from compiler.weights.scheme import Scheme, scheme_of

POSSIBLE = {
    "4 bits with zero points": (Scheme(4, 64, True, BF16), (32, 128)),
    "4 bits without": (Scheme(4, 64, False, BF16), (32, 128)),
    "8 bits": (Scheme(8, 64, False, F16), (32, 128)),
    "one group for a whole row": (Scheme(4, 96, True, F16), (3, 96)),
    "8 bits with zero points": (Scheme(8, 64, True, BF16), (32, 128)),
    "4 bits with minimums": (Scheme(4, 32, False, F16, minimum=True), (32, 128)),
    "8 bits in odd rows": (Scheme(8, 21, False, F16), (2, 63)),
}
IMPOSSIBLE = {
    "no such codes": (Scheme(3, 64, False, BF16), (32, 128), "codes of 3 bits, expected 4 or 8"),
    "no group": (Scheme(4, 0, True, BF16), (32, 128), "groups of 0"),
    "two offsets": (Scheme(4, 64, True, BF16, minimum=True), (32, 128), "both zero points and minimums"),
    "wide scales": (Scheme(4, 64, True, F32), (32, 128), "scales of f32, expected bf16 or f16"),
    "part of a group": (Scheme(4, 64, True, BF16), (32, 96), "input axis 96 is not a multiple of group 64"),
    "half a byte": (Scheme(4, 21, True, BF16), (2, 63), "63 codes of 4 bits, which do not fill whole bytes"),
    "a vector": (Scheme(4, 64, True, BF16), (64,), "1 axes, where only matrices"),
}


@pytest.mark.parametrize("case", POSSIBLE)
def test_what_the_tiles_hold_is_possible(case):
    scheme, shape = POSSIBLE[case]
    assert TensorType(shape, BF16, scheme).problem() is None


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_what_they_do_not_hold_has_a_reason(case):
    scheme, shape, reason = IMPOSSIBLE[case]
    assert reason in (TensorType(shape, BF16, scheme).problem() or "")


@pytest.mark.parametrize(
    ("scheme", "lowest", "highest", "zero"),
    [
        (Scheme(4, 64, True, BF16), 0, 15, 8),
        (Scheme(4, 64, False, BF16), 0, 15, 8),
        (Scheme(4, 64, False, BF16, minimum=True), 0, 15, 0),
        (Scheme(8, 64, True, BF16), 0, 255, 0),
        (Scheme(8, 64, False, BF16, minimum=True), 0, 255, 0),
        (Scheme(8, 64, False, BF16), -128, 127, 0),
    ],
    ids=str,
)
def test_the_range_of_codes(scheme, lowest, highest, zero):
    assert (scheme.highest, scheme.implied_zero) == (highest, zero)
    assert (scheme.signed, scheme.codes) == (lowest < 0, np.int8 if lowest < 0 else np.uint8)


def test_a_scheme_is_what_a_type_is_stored_by():
    scheme = Scheme(4, 64, True, F16)
    assert scheme_of(TensorType((32, 128), BF16, scheme)) is scheme
    assert scheme_of(TensorType((32, 128), BF16)) is None
    assert str(TensorType((32, 128), BF16, scheme)) == (
        "tensor<32x128xbf16, #weights.scheme<bits = 4, group = 64, zeros = true, scale = f16>>"
    )
    assert str(Scheme(4, 32, False, F16, minimum=True)) == (
        "#weights.scheme<bits = 4, group = 32, zeros = false, scale = f16, minimum = true>"
    )
