"""Weights in every form on the vendor's C-model: what a checkpoint brings is decoded there as here, bit for bit."""

from __future__ import annotations

import pytest

from tests.conformance.same import assert_same_on_vendor, assert_same_session, random_inputs
from tests.end_to_end.mixed import SCHEMES, mixed_model

pytestmark = [pytest.mark.vendor, pytest.mark.usefixtures("vendor")]


def test_codes_of_every_scheme_give_the_same_bits(tiny_checkpoint, tmp_path, target):
    bmodel = mixed_model(tiny_checkpoint, tmp_path / "out", **target).path
    nets = [f"{kind}_{layer}" for kind in ("block", "block_cache") for layer in range(len(SCHEMES))]
    assert_same_on_vendor(bmodel, {net: random_inputs(bmodel, net) for net in nets})
    assert_same_session(bmodel, [5, 17, 99], 2)
