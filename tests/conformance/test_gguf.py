"""Models from GGUF files on the vendor's runtime and C-model: the same tokens and states as the simulator's."""

from __future__ import annotations

import pytest
from gguf import GGMLQuantizationType as Kind

from driver.convert import convert
from driver.options import ConvertOptions
from tests.conformance.same import assert_same_session
from tests.ggufs import PACKED, make_gguf

pytestmark = [pytest.mark.vendor, pytest.mark.usefixtures("vendor")]


@pytest.mark.parametrize("kind", PACKED)
def test_a_session_gives_the_same_bits_and_tokens(tmp_path, target, kind):
    path = make_gguf(tmp_path / "model.gguf", "llama", kind, tied=kind != Kind.Q8_0)
    bmodel = convert(ConvertOptions(path, 64, out_dir=tmp_path / "out", **target))
    assert bmodel is not None
    assert_same_session(bmodel, [5, 17, 99, 300, 41], 3)
