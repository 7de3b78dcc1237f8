"""Towers on the vendor's runtime with its C-model: the bits of the simulator, whatever a client gives."""

from __future__ import annotations

import numpy as np
import pytest

from driver.convert import convert
from driver.options import ConvertOptions
from tests.conformance.same import assert_same_on_vendor
from tests.vision import TILE_TOWER, make_vision_checkpoint

PATCHES, WINDOW = 96, 16
RNG = np.random.default_rng(3)

pytestmark = [pytest.mark.vendor, pytest.mark.usefixtures("vendor")]


def segments(size: int, used: int) -> np.ndarray:
    """What a client hides where patches see those of their own segment; the last are padding."""
    number = np.where(np.arange(PATCHES) < used, np.arange(PATCHES) // size, -1)
    seen = (number[:, None] == number) & (number >= 0)
    return np.where(seen, 0, -10000).astype(np.float32)[None, None]


def given(name: str) -> dict[str, np.ndarray]:
    if name == "internvl":
        return {"pixel_value": RNG.standard_normal((1, 3, 56, 56)).astype(np.float32)}
    return {
        "input_states": RNG.standard_normal((PATCHES, 1176)).astype(np.float32),
        "position_ids": RNG.integers(0, 12, (PATCHES, 2), dtype=np.int32),
        "full_attn_mask": segments(PATCHES, PATCHES - 8),
        "window_attn_mask": segments(WINDOW, PATCHES - 8),
        "reverse_index": RNG.permutation(PATCHES // 4).astype(np.int32),
    }


def test_tokens_are_put_in_order_over_the_lanes(tmp_path, target):
    """16 x 16 patches, of which 2 x 2 are merged."""
    side = {"vision_config": TILE_TOWER | {"image_size": [224, 224]}, "image_seq_length": 64}
    folder = make_vision_checkpoint(tmp_path / "model", "internvl", **side)
    file = convert(ConvertOptions(folder, 128, "bf16", out_dir=tmp_path / "out", **target))
    assert file is not None
    picture = RNG.standard_normal((1, 3, 224, 224)).astype(np.float32)
    assert_same_on_vendor(file, {"vit": {"pixel_value": picture}})


@pytest.mark.parametrize("name", ["qwen2_5_vl", "internvl"])
def test_a_tower_gives_the_same_bits(name, tmp_path, target):
    folder = make_vision_checkpoint(tmp_path / "model", name)
    pixels = {"max_pixels": (112, 168)} if name == "qwen2_5_vl" else {}
    file = convert(ConvertOptions(folder, 64, "bf16", out_dir=tmp_path / "out", **pixels, **target))
    assert file is not None
    assert_same_on_vendor(file, {"vit": given(name)})
