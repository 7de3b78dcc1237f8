"""Models compiled for one core of BM1688: the same bits on the vendor's C-model and on the simulator."""

from __future__ import annotations

import pytest

from tests.conformance.same import assert_same_on_vendor, random_inputs
from tests.end_to_end.test_made_up_chip import CASES, SMALL, compiled

NETS = ("embedding", "embedding_cache", "block_0", "block_cache_0", "lm_head")

pytestmark = [pytest.mark.vendor, pytest.mark.usefixtures("vendor")]


@pytest.mark.parametrize(("family", "mode", "sizes"), CASES)
def test_every_net_gives_the_same_bits(tiny_checkpoint, tmp_path, family, mode, sizes):
    path = compiled(tiny_checkpoint(family, **SMALL | sizes), mode, "bm1688", tmp_path).path
    assert_same_on_vendor(path, {net: random_inputs(path, net) for net in NETS})
