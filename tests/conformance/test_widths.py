"""Heads and widths that fill no rows of lanes, on the vendor's runtime and on the simulator: the same bits."""

from __future__ import annotations

import pytest

from driver.convert import convert
from driver.options import ConvertOptions
from tests.conformance.same import assert_same_on_vendor, assert_same_session, random_inputs

PROMPT = [5, 17, 99, 300, 41]

pytestmark = [pytest.mark.vendor, pytest.mark.usefixtures("vendor")]


@pytest.mark.parametrize(
    ("family", "mode", "group", "heads", "kv_heads", "head_dim", "hidden", "intermediate", "vocab"),
    [
        ("qwen2", "w4bf16", 40, 5, 1, 80, 1000, 200, 513),
        ("qwen3", "f16", 64, 2, 1, 112, 226, 101, 515),
        ("llama", "bf16", 64, 71, 1, 64, 142, 130, 600),
        ("llama", "w8bf16", 12, 96, 8, 40, 192, 84, 577),
        ("qwen2", "bf16", 64, 70, 70, 6, 70, 64, 577),
        ("qwen2", "w4bf16", 128, 2, 1, 64, 2304, 256, 513),
    ],
    ids=["heads of 80", "heads of 112", "71 heads", "96 heads of 40", "70 kv heads of 6", "tiles in parts"],
)
def test_any_width_gives_the_same_bits(
    tiny_checkpoint, tmp_path, target, family, mode, group, heads, kv_heads, head_dim, hidden, intermediate, vocab
):
    sizes = {"hidden": hidden, "intermediate": intermediate, "vocab": vocab, "head_dim": head_dim}
    folder = tiny_checkpoint(family, layers=1, heads=heads, kv_heads=kv_heads, attention_bias=True, **sizes)
    bmodel = convert(ConvertOptions(folder, 64, mode, q_group_size=group, out_dir=tmp_path / "out", **target))
    assert bmodel is not None
    assert_same_session(bmodel, PROMPT, 3)
    assert_same_on_vendor(bmodel, {net: random_inputs(bmodel, net) for net in ("block_0", "block_cache_0")})
