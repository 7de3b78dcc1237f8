"""The reference's own reading of quantized checkpoints, against the packers."""

from __future__ import annotations

import json
from functools import partial

import ml_dtypes
import numpy as np
import pytest

from runtime_sim.tool.dequantize import dequantized, is_quantized
from tests import packers
from tests.packers import AUTO_ROUND, AWQ, GPTQ, random_linear

SHAPE = (48, 128)

CASES = {
    "awq": (packers.awq, AWQ, {}),
    "gptq": (packers.gptq, GPTQ, {"lowest_zero": 0}),
    "gptq 8 bits": (packers.gptq, GPTQ, {"bits": 8, "shuffled": True}),
    "gptq v2": (packers.gptq_v2, GPTQ | {"checkpoint_format": "gptq_v2"}, {"shuffled": True}),
    "auto-round": (packers.gptq_v2, AUTO_ROUND | {"packing_format": "auto_round"}, {}),
    "compressed": (packers.compressed, {}, {}),
    "compressed 8 bits": (partial(packers.compressed, zeros=False), {}, {"bits": 8, "symmetric": True}),
}


@pytest.mark.parametrize("name", CASES)
def test_weights_are_what_the_packer_had(tmp_path, name):
    pack, settings, options = CASES[name]
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": settings}))
    linear = random_linear(SHAPE, np.random.default_rng(4), **options)
    norm = np.ones(3, np.float32)
    tensors = {f"m.{part}": values for part, values in pack(linear).items()} | {"norm.weight": norm}
    assert is_quantized(tensors)
    found = dequantized(tensors, tmp_path)
    assert found.keys() == {"m.weight", "norm.weight"}
    np.testing.assert_array_equal(found["m.weight"], linear.weight())
    assert found["norm.weight"] is norm


def test_settings_beside_the_config(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "quantize_config.json").write_text(json.dumps({"checkpoint_format": "gptq_v2"}))
    linear = random_linear(SHAPE, np.random.default_rng(4))
    tensors = {f"m.{part}": values for part, values in packers.gptq_v2(linear).items()}
    np.testing.assert_array_equal(dequantized(tensors, tmp_path)["m.weight"], linear.weight())


def test_zero_points_in_bytes_of_their_own(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    linear = random_linear(SHAPE, np.random.default_rng(4))
    tensors = packers.compressed(linear) | {"weight_zero_point": (linear.zeros - 8).astype(np.int8)}
    found = dequantized({f"m.{part}": values for part, values in tensors.items()}, tmp_path)
    np.testing.assert_array_equal(found["m.weight"], linear.weight())


def test_floats_of_8_bits(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"weight_block_size": [2, 3]}}))
    weight = np.arange(20, dtype=np.float32).reshape(4, 5).astype(ml_dtypes.float8_e4m3fn)
    blocks, rows = np.array([[1, 2], [3, 4]], np.float32), np.array([1, 2, 3, 4], np.float32)
    tensors = {"a.weight": weight, "a.weight_scale_inv": blocks, "a.input_scale": np.ones(1, np.float32)}
    found = dequantized(tensors | {"b.weight": weight, "b.weight_scale": rows}, tmp_path)
    assert found.keys() == {"a.weight", "b.weight"}
    of_block = [[1, 1, 1, 2, 2]] * 2 + [[3, 3, 3, 4, 4]] * 2
    np.testing.assert_array_equal(found["a.weight"], weight.astype(np.float32) * of_block)
    np.testing.assert_array_equal(found["b.weight"], weight.astype(np.float32) * rows[:, None])


def test_floats_are_not_quantized():
    assert not is_quantized(["m.weight", "m.scales.weight", "m.bias"])
