"""The largest numbers on the vendor's runtime: the bits of the simulator, ties and padding included."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.target.chips import chip
from dialects.builtin import ModuleOp
from frontend.heads import greedy_head, sample_head
from tests.conformance.same import assert_same_on_vendor
from tests.conformance.written import write_module
from tests.helpers import as_net, parse_ir, random_tensor

pytestmark = [pytest.mark.vendor, pytest.mark.usefixtures("vendor")]


@pytest.mark.parametrize(("shape", "k"), [((1, 4096), 50), ((1, 128), 8), ((1, 70, 64), 6), ((1, 150, 128), 8)])
def test_the_largest_are_the_same(tmp_path, target, shape, k):
    x, found = ("tensor<" + "x".join(map(str, (*shape[:-1], n))) + "xf32>" for n in (shape[-1], k))
    text = f'%v, %i = "llm.topk"(%x) <{{k = {k} : i64}}> : ({x}) -> ({found}, {found.replace("f32", "i32")})'
    module, _ = parse_ir(text, target=chip(target["chip"]))
    as_net(module)
    path = write_module(module, tmp_path / "topk.bmodel")
    values = np.round(random_tensor(*shape), 1).astype(np.float32)  # many are equal
    assert_same_on_vendor(path, {"test": {"input_0": values}})


def head_inputs(vocabulary: int, length: int, **settings: float) -> dict[str, np.ndarray]:
    """Logits with equals among them, ids that come twice, are no tokens, or are left at 0."""
    rng = np.random.default_rng(3)
    logits = np.round(3 * rng.standard_normal((1, vocabulary)), 1).astype(np.float32)
    ids = np.zeros((1, length), np.int32)
    likely = np.argsort(-logits[0])[:20]
    some = [*likely[:2], likely[0], vocabulary + 7, -1, vocabulary - 1, *likely]
    ids[0, : len(some)] = some[:length]
    numbers = {"penalty": 1.2, "temperature": 0.7, "top_k": 20, "top_p": 0.8} | settings
    given = {name: np.array([value], np.int32 if name == "top_k" else np.float32) for name, value in numbers.items()}
    return {"m_logits": logits, "input_ids": ids, **given}


@pytest.mark.parametrize(("vocabulary", "length"), [(1024, 64), (1003, 100), (40, 6)])
def test_the_heads_choose_the_same(tmp_path, target, vocabulary, length):
    module = ModuleOp.of(greedy_head(vocabulary), sample_head(vocabulary, length), target=target["chip"])
    path = write_module(module, tmp_path / "heads.bmodel")
    inputs = head_inputs(vocabulary, length)
    assert_same_on_vendor(path, {"greedy_head": {"m_logits": inputs["m_logits"]}, "sample_head": inputs})
    for settings in ({"temperature": 0.0}, {"top_p": 1.0, "top_k": 50}, {"penalty": 0.5, "top_k": 1}):
        assert_same_on_vendor(path, {"sample_head": head_inputs(vocabulary, length, **settings)})
