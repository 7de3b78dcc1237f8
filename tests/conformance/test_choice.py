"""The largest numbers on the vendor's runtime: the bits of the simulator, ties and padding included."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conformance.same import assert_same_on_vendor
from tests.conformance.written import write_module
from tests.helpers import as_net, parse_ir, random_tensor

pytestmark = [pytest.mark.vendor, pytest.mark.usefixtures("vendor")]


@pytest.mark.parametrize(("shape", "k"), [((1, 4096), 50), ((1, 128), 8), ((1, 70, 64), 6), ((1, 150, 128), 8)])
def test_the_largest_are_the_same(tmp_path, shape, k):
    x, found = ("tensor<" + "x".join(map(str, (*shape[:-1], n))) + "xf32>" for n in (shape[-1], k))
    module, _ = parse_ir(f'%v, %i = "llm.topk"(%x) <{{k = {k} : i64}}> : ({x}) -> ({found}, {found.replace("f32", "i32")})')
    as_net(module)
    path = write_module(module, tmp_path / "topk.bmodel")
    values = np.round(random_tensor(*shape), 1).astype(np.float32)  # many are equal
    assert_same_on_vendor(path, {"test": {"input_0": values}})
