"""Packed modules among the tensors of a checkpoint: their codes, and what is told of odd ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from compiler.diagnostics import UserError
from compiler.ir.types import BF16, F16
from frontend.checkpoint import Checkpoint
from frontend.sources.find import find_sources, take_over
from frontend.sources.settings import Settings
from tests import packers
from tests.packers import Linear, Tensors, random_linear

V1 = Settings(Path("config.json"), "gptq", zero_shift=1)
V2 = Settings(Path("config.json"), "gptq", zero_shift=0)
SHAPE = (48, 128)  # outputs, inputs

PACKINGS: dict[str, tuple[Callable[[Linear], Tensors], Settings | None, dict[str, Any]]] = {
    "awq": (packers.awq, None, {}),
    "gptq": (packers.gptq, V1, {"symmetric": True}),
    "gptq, zero points": (packers.gptq, V1, {}),
    "gptq, no configuration": (packers.gptq, None, {}),
    "gptq, zero points by field": (partial(packers.gptq, by_word=False), V1, {}),
    "gptq, zero points of 0 by word": (packers.gptq, V1, {"lowest_zero": 0}),
    "gptq 8 bits": (packers.gptq, V1, {"bits": 8, "symmetric": True}),
    "gptq 8 bits, zero points": (packers.gptq, V1, {"bits": 8}),
    "gptq v2": (packers.gptq_v2, V2, {"lowest_zero": 0}),
    "compressed": (partial(packers.compressed, zeros=False), None, {"symmetric": True}),
    "compressed, zero points": (packers.compressed, None, {"lowest_zero": 0}),
    "compressed 8 bits": (partial(packers.compressed, zeros=False), None, {"bits": 8, "symmetric": True}),
    "compressed 8 bits, zero points": (packers.compressed, None, {"bits": 8, "scale": "bfloat16"}),
}


def checkpoint_of(folder: Path, tensors: Tensors, module: str = "m") -> Checkpoint:
    save_file({f"{module}.{name}": values for name, values in tensors.items()}, folder / "model.safetensors")
    return Checkpoint(folder)


def spoilt(folder: Path, tensors: Tensors, settings: Settings | None = None) -> str:
    """What is told of a module."""
    found = find_sources(checkpoint_of(folder, tensors), settings)
    assert not found.sources
    (problem,) = found.problems.values()
    return problem


@pytest.mark.parametrize("name", PACKINGS)
def test_codes_zero_points_and_scales_are_the_packers(tmp_path, name):
    pack, settings, options = PACKINGS[name]
    linear = random_linear(SHAPE, np.random.default_rng(1), **options)
    half = BF16 if options.get("scale") == "bfloat16" else F16
    found = find_sources(checkpoint_of(tmp_path, pack(linear)), settings)
    (source,) = take_over(found, settings, half).values()
    assert (source.shape, source.scheme.bits, source.scheme.group) == (SHAPE, linear.bits, 32)
    assert source.scheme.zeros == (not options.get("symmetric", False))
    stored = source.read(slice(8, 40))
    assert stored.scales.tobytes() == linear.scales[8:40].tobytes()
    if source.scheme.zeros:
        np.testing.assert_array_equal(stored.zeros, linear.zeros[8:40])
        np.testing.assert_array_equal(stored.codes, linear.codes[8:40])
    else:
        np.testing.assert_array_equal(stored.codes.astype(int) + (128 if linear.bits == 8 else 0), linear.codes[8:40])
    np.testing.assert_array_equal(stored.dequantize(), linear.weight()[8:40])


def test_zero_points_of_0_that_were_stored_in_two_ways_are_told(tmp_path, caplog):
    linear = random_linear(SHAPE, np.random.default_rng(1), lowest_zero=0)
    linear.zeros[3] = 0
    take_over(find_sources(checkpoint_of(tmp_path, packers.gptq(linear)), V1), V1, F16)
    assert "1 weights, such as m.weight, have zero points that writers of GPTQ's first format" in caplog.text


def test_columns_that_do_not_fill_a_word_are_left_out(tmp_path):
    linear = random_linear((20, 12), np.random.default_rng(1), group=4)
    (source,) = find_sources(checkpoint_of(tmp_path, packers.compressed(linear)), None).sources.values()
    np.testing.assert_array_equal(source.read().codes, linear.codes)
    np.testing.assert_array_equal(source.read().zeros, linear.zeros)


def test_zero_points_in_bytes_of_their_own(tmp_path):
    linear = random_linear(SHAPE, np.random.default_rng(1))
    tensors = packers.compressed(linear) | {"weight_zero_point": (linear.zeros - 8).astype(np.int8)}
    (source,) = find_sources(checkpoint_of(tmp_path, tensors), None).sources.values()
    np.testing.assert_array_equal(source.read().zeros, linear.zeros)


def test_weights_that_need_no_zero_points_keep_them_beside_one_that_does(tmp_path):
    """All layers stay alike, and so do linears that are joined."""
    tensors: Tensors = {}
    for module, symmetric in (("a", True), ("b", False)):
        linear = random_linear(SHAPE, np.random.default_rng(1), symmetric=symmetric)
        tensors |= {f"{module}.{name}": values for name, values in packers.gptq(linear).items()}
    found = find_sources(checkpoint_of(tmp_path, tensors), V1)
    schemes = [source.scheme for source in take_over(found, V1, F16).values()]
    assert schemes[0] == schemes[1]
    assert schemes[0].zeros


def test_scales_of_another_type_are_rounded_with_a_note(tmp_path, caplog):
    linear = random_linear(SHAPE, np.random.default_rng(1))
    found = find_sources(checkpoint_of(tmp_path, packers.awq(linear)), None)
    (source,) = take_over(found, None, BF16).values()
    np.testing.assert_array_equal(source.read().scales, linear.scales.astype(ml_dtypes.bfloat16))
    assert "the scales of 1 weights are float16 and are rounded to bf16" in caplog.text


def test_a_difference_from_the_configuration_is_told(tmp_path, caplog):
    linear = random_linear(SHAPE, np.random.default_rng(1))
    settings = Settings(Path("config.json"), "awq", bits=4, group=128)
    take_over(find_sources(checkpoint_of(tmp_path, packers.awq(linear)), settings), settings, F16)
    assert "config.json says group 128, but that of m.weight is 32: all weights are taken as they are" in caplog.text


def test_a_whole_row_as_the_group_is_no_difference(tmp_path, caplog):
    linear = random_linear(SHAPE, np.random.default_rng(1), group=128)
    settings = Settings(Path("config.json"), "awq", bits=4, group=0)
    take_over(find_sources(checkpoint_of(tmp_path, packers.awq(linear)), settings), settings, F16)
    assert not caplog.records


def test_a_configuration_without_packed_weights_is_told(tmp_path, caplog):
    settings = Settings(Path("config.json"), "gptq", bits=4)
    found = find_sources(checkpoint_of(tmp_path, {"weight": np.ones((4, 4), np.float16)}), settings)
    assert list(take_over(found, settings, F16)) == ["m.weight"]
    assert "config.json says that weights are quantized (gptq), but all are floats" in caplog.text


@pytest.mark.parametrize(("value", "message"), [(np.inf, r"m.scales in .* holds inf at index \[2, 5\]"), (7e4, "beyond float16")])
def test_scales_that_no_program_computes_with_are_refused(tmp_path, value, message):
    linear = random_linear(SHAPE, np.random.default_rng(1), scale="bfloat16")
    linear.scales[5, 2] = value
    found = find_sources(checkpoint_of(tmp_path, packers.awq(linear)), None)
    (source,) = take_over(found, None, F16).values()
    with pytest.raises(UserError, match=message):
        source.read()


def good_awq() -> Tensors:
    return packers.awq(random_linear(SHAPE, np.random.default_rng(1)))


def good_gptq(**options: Any) -> Tensors:
    return packers.gptq(random_linear(SHAPE, np.random.default_rng(1), **options))


ODD = {
    "no zero points": (good_awq, {"qzeros": None}, "m.qzeros: expected beside qweight, found none"),
    "words of floats": (good_awq, {"qweight": np.ones((128, 6), np.float32)}, "m.qweight: expected int32, found float32"),
    "groups of zero points": (good_awq, {"qzeros": np.ones((3, 6), np.int32)}, r"m.qzeros: expected shape \[4, 6\], found \[3, 6\]"),
    "groups of no size": (
        good_awq,
        {"scales": np.ones((3, 48), np.float16), "qzeros": np.ones((3, 6), np.int32)},
        "m.scales: 3 groups do not divide 128 inputs",
    ),
    "integer scales": (good_awq, {"scales": np.ones((4, 48), np.int32)}, "m.scales: expected float16 or bfloat16 or float32"),
    "gemv": (good_awq, {"qweight": np.ones((48, 16), np.int32)}, "m.qweight: expected AWQ gemm or GPTQ, found qweight int32 "),
    "no matrix": (good_awq, {"qweight": np.ones(6, np.int32)}, r"m.qweight: expected a matrix, found shape \[6\]"),
    "nothing": (good_awq, {"scales": np.ones((0, 48), np.float16)}, "m.scales: expected a matrix"),
    "2 bits": (good_gptq, {"qzeros": np.ones((4, 3), np.int32)}, "m.qzeros: expected 4 or 8 bits for each of 48 outputs, found 2"),
    "3 bits": (good_gptq, {"qzeros": np.ones((4, 5), np.int32)}, "m.qzeros: expected 4 or 8 bits .* found 3.33"),
    "too long an order": (good_gptq, {"g_idx": np.zeros(64, np.int32)}, r"m.g_idx: expected shape \[128\], found \[64\]"),
    "groups of other sizes": (
        good_gptq,
        {"g_idx": np.repeat([0, 1, 2, 3], [31, 33, 32, 32]).astype(np.int32)},
        "m.g_idx: expected each of 128 inputs in groups of 32, of at most 65536, found others",
    ),
    "an order beside words of outputs": (
        good_awq,
        {"g_idx": np.zeros(128, np.int32)},
        "m.g_idx: expected none beside the words of AWQ",
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_modules_are_named_with_what_was_expected(tmp_path, name):
    make, changes, message = ODD[name]
    tensors = {key: value for key, value in (make() | changes).items() if value is not None}
    assert re.search(message, spoilt(tmp_path, tensors))


COMPRESSED = {
    "no shape": ({"weight_shape": None}, "m.weight_shape: expected beside weight_packed, found none"),
    "another shape": ({"weight_shape": np.array([40, 128])}, "m.weight_shape: expected 48 rows, found 40 x 128"),
    "no inputs": ({"weight_shape": np.array([48, 0])}, "m.weight_shape: expected 48 rows, found 48 x 0"),
    "2 bits": ({"weight_shape": np.array([48, 256])}, "m.weight_packed: expected 4 or 8 bits for each of 256 inputs"),
    "zero points": ({"weight_zero_point": np.ones((4, 4), np.int32)}, r"m.weight_zero_point: expected shape \[6, 4\]"),
    "no scales": ({"weight_scale": None}, "m.weight_scale: expected beside weight_packed, found none"),
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_odd_compressed_modules(tmp_path, name):
    changes, message = COMPRESSED[name]
    tensors = packers.compressed(random_linear(SHAPE, np.random.default_rng(1))) | changes
    assert re.search(message, spoilt(tmp_path, {key: value for key, value in tensors.items() if value is not None}))


def test_plain_tensors_of_a_packed_module_stay(tmp_path):
    tensors = good_awq() | {"bias": np.ones(48, np.float16)}
    assert list(find_sources(checkpoint_of(tmp_path, tensors), None).sources) == ["m.weight", "m.bias"]


@pytest.mark.parametrize("pack", [packers.gptq, lambda linear: packers.compressed(linear) | {"weight_g_idx": linear.g_idx}])
def test_inputs_are_sorted_by_their_groups(tmp_path, pack):
    linear = random_linear(SHAPE, np.random.default_rng(1), shuffled=True)
    (source,) = take_over(find_sources(checkpoint_of(tmp_path, pack(linear)), V1), V1, F16).values()
    np.testing.assert_array_equal(source.order.read(), linear.order)
    np.testing.assert_array_equal(source.read().codes, linear.codes[:, linear.order])
    np.testing.assert_array_equal(source.read(slice(3, 9)).dequantize(), linear.weight()[3:9, linear.order])


def test_groups_in_order_are_no_order(tmp_path):
    (source,) = find_sources(checkpoint_of(tmp_path, good_gptq()), V1).sources.values()
    assert source.order is None
