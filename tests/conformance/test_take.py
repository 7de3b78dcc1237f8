"""Inputs in another order on the vendor's runtime: the bits of the simulator, for one token and for many."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from compiler.target.chips import chip
from tests.conformance.same import assert_same_on_vendor
from tests.conformance.written import write_module
from tests.helpers import as_net, parse_ir, random_tensor

pytestmark = [pytest.mark.vendor, pytest.mark.usefixtures("vendor")]


@pytest.mark.parametrize(("tokens", "width", "taken"), [(1, 4096, 4096), (1, 192, 64), (70, 192, 192), (150, 1024, 320)])
def test_the_items_are_the_same(tmp_path, target, tokens, width, taken):
    text = f"""
      %o = "llm.indices"() <{{name = "order"}}> : () -> tensor<{taken}xi32>
      %y = "llm.take"(%x, %o) : (tensor<1x{tokens}x{width}xbf16>, tensor<{taken}xi32>) -> tensor<1x{tokens}x{taken}xbf16>
    """
    module, _ = parse_ir(text, target=chip(target["chip"]))
    as_net(module)
    order = np.random.default_rng(1).permutation(width)[:taken].astype(np.int32)
    path = write_module(module, tmp_path / "take.bmodel", {"order": order})
    x = random_tensor(1, tokens, width).astype(ml_dtypes.bfloat16)
    assert_same_on_vendor(path, {"test": {"input_0": x}})
