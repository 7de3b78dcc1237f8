"""Recorded graphs: what values depend on, and fingerprints."""

from __future__ import annotations

from torch.nn import functional as F

from tests.frontend.recorded import record


def test_fingerprint_ignores_the_prefix_and_sees_constants():
    def scaled(by):
        return record(lambda m, x: F.linear(x, m.weight) * (m.computed * by)).fingerprint("inner.")

    assert scaled(1.0) == scaled(1.0)
    assert scaled(1.0) != scaled(2.0)


def test_fingerprint_sees_parameter_names_and_operand_order():
    def of(function, prefix="inner."):
        return record(function).fingerprint(prefix)

    assert of(lambda m, x: x + m.saved) != of(lambda m, x: x + m.weight[0])
    assert of(lambda m, x: x - x.neg()) != of(lambda m, x: x.neg() - x)
    assert of(lambda m, x: x + m.saved) != of(lambda m, x: x + m.saved, prefix="other.")
