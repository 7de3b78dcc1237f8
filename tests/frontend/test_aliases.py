"""Checkpoints in other layouts than the library's: the same model of the same parameters."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from compiler.aliases import ALIASES, native_keys
from compiler.diagnostics import UserError
from compiler.ir.printer import print_module
from compiler.ir.types import BF16
from frontend.load import load_model, open_model
from tests.frontend.seeing import INTERNVL, QWEN2_5_VL
from tests.vision_layouts import make_original_internvl, make_seeing_checkpoint, old_qwen_key


def loaded(folder):
    return load_model(open_model(folder), 64, 48, BF16, patches=16)


def check_same(one, other):
    """The same programs, of the same numbers."""
    (ours, weights), (theirs, others) = loaded(one), loaded(other)
    assert [print_module(group.module) for group in ours.nets] == [print_module(group.module) for group in theirs.nets]
    assert ours.parameters == theirs.parameters
    for name in ours.parameters:
        np.testing.assert_array_equal(weights.read(name), others.read(name), name)


def test_an_original_internvl_is_the_native_one(tmp_path):
    original = make_original_internvl(tmp_path / "original", INTERNVL)
    check_same(original, make_seeing_checkpoint(tmp_path / "native", INTERNVL))


def test_old_keys_and_flat_settings_of_qwen_are_the_new_ones(tmp_path):
    flat = copy.deepcopy(QWEN2_5_VL)
    both = {"model_type", "vision_config", "image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"}
    text = {key: value for key, value in flat.items() if key not in both}
    nested = {key: value for key, value in flat.items() if key in both} | {"text_config": text}
    old = make_seeing_checkpoint(tmp_path / "old", flat, old_qwen_key)
    check_same(old, make_seeing_checkpoint(tmp_path / "new", nested))


def test_another_shuffle_of_pixels_is_refused(tmp_path):
    folder = make_original_internvl(tmp_path / "v1", INTERNVL, ps_version="v1")
    with pytest.raises(UserError, match=r"config\.json: ps_version is v1, where v2 is all that is supported"):
        open_model(folder)


def test_a_lost_part_of_an_original_is_named_as_stored(tmp_path):
    """Rows that are not three equal blocks fit no parameter, and the message has the key that the file has."""
    folder = make_original_internvl(tmp_path / "odd", {**INTERNVL, "vision_config": {**INTERNVL["vision_config"], "hidden_size": 32}})
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"hidden_size": 32', '"hidden_size": 64'))
    with pytest.raises(UserError, match=r"vision_model\.encoder\.layers\.0\.attn\.qkv\.bias: expected shape"):
        loaded(folder)


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("vision_model.encoder.layers.3.ls1", ["model.vision_tower.encoder.layer.3.lambda_1"]),
        ("language_model.model.layers.0.mlp.up_proj.weight", ["model.language_model.layers.0.mlp.up_proj.weight"]),
        (
            "vision_model.encoder.layers.11.attn.qkv.bias",
            [f"model.vision_tower.encoder.layer.11.attention.{each}_proj.bias" for each in "qkv"],
        ),
        ("other", ["other"]),
    ],
)
def test_keys(key, names):
    assert native_keys(ALIASES["internvl_chat"], key) == names
