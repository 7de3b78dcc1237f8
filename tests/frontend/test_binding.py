"""Finding the parameters of a model among the keys of a checkpoint."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from compiler.diagnostics import UserError
from compiler.ir.types import F16
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Quantized
from frontend.binding import Expected, bind, expected_of
from frontend.checkpoint import Checkpoint
from frontend.sources.find import find_sources
from tests import packers
from tests.checkpoints import LLAMA3_ROPE
from tests.packers import random_linear


def model_of(folder: Path) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))


OPTIONS = [
    ("llama", {"rope_scaling": LLAMA3_ROPE}),
    ("llama", {"attention_bias": True, "mlp_bias": True, "shards": 2}),
    ("qwen2", {"tied": True}),
    ("qwen3", {"head_dim": 128, "attention_bias": True}),
]


@pytest.mark.parametrize(("family", "options"), OPTIONS)
def test_the_tiny_checkpoints_hold_exactly_what_transformers_wants(tiny_checkpoint, family, options):
    folder = tiny_checkpoint(family, **options)
    weights = bind(Checkpoint(folder), folder, expected_of(model_of(folder)))
    assert weights.same("lm_head.weight", "model.embed_tokens.weight") == options.get("tied", False)
    for path in folder.glob("*.safetensors"):
        for key, values in load_file(path).items():
            np.testing.assert_array_equal(weights.read(key), values)


def test_keys_without_the_models_prefix_are_found(tiny_checkpoint, tmp_path):
    whole = tiny_checkpoint("qwen2", tied=True)
    tensors = load_file(whole / "model.safetensors")
    save_file(
        {key.removeprefix("model."): values for key, values in tensors.items()},
        tmp_path / "model.safetensors",
    )
    weights = bind(Checkpoint(tmp_path), tmp_path, expected_of(model_of(whole)))
    np.testing.assert_array_equal(weights.read("model.norm.weight"), tensors["model.norm.weight"])


EXPECTED = Expected({"a": (2, 3), "b": (3,), "head": (2, 3)}, tied={"head": "a"})


def checkpoint_with(folder: Path, **shapes: tuple[int, ...]) -> Checkpoint:
    save_file(
        {key: np.ones(shape, np.float16) for key, shape in shapes.items()}, folder / "model.safetensors"
    )
    return Checkpoint(folder)


def test_a_tied_parameter_is_read_from_its_source(tmp_path):
    weights = bind(checkpoint_with(tmp_path, a=(2, 3), b=(3,)), tmp_path, EXPECTED)
    assert weights.same("head", "a")
    assert weights.shape("head") == (2, 3)
    assert weights.dtype == np.float16
    assert weights.read("head", slice(1, 2)).shape == (1, 3)


def test_of_tied_parameters_either_may_be_stored(tmp_path):
    weights = bind(checkpoint_with(tmp_path, head=(2, 3), b=(3,)), tmp_path, EXPECTED)
    assert weights.same("a", "head")


def test_a_tied_parameter_with_a_key_of_its_own_is_read_from_it(tmp_path):
    weights = bind(checkpoint_with(tmp_path, a=(2, 3), b=(3,), head=(2, 3)), tmp_path, EXPECTED)
    assert not weights.same("head", "a")


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"a": (2, 3)}, r": b: expected shape \[3\], found no such tensor$"),
        ({"a": (2, 3), "b": (4,)}, r": b: expected shape \[3\], found \[4\]$"),
        ({"a": (2, 3), "b": (3,), "head": (3, 2)}, r": head: expected shape \[2, 3\], found \[3, 2\]$"),
        (
            {"b": (4,)},
            r": 3 tensors do not fit the model of its config.json\n  b: .*\n  a: .*\n  head: .* found no such tensor$",
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, shapes, message):
    with pytest.raises(UserError, match=message):
        bind(checkpoint_with(tmp_path, **shapes), tmp_path, EXPECTED)


PARTS = Expected(
    {"model.layers.0.q.weight": (2,), "model.norm.weight": (2,), "lm_head.weight": (2,)}, prefix="model"
)


@pytest.mark.parametrize(
    "key",
    [
        "model.layers.0.q.bias",
        "model.layers.0.q_norm.weight",
        "layers.0.more.weight",
        "model.norm.bias",
        "norm.bias",
        "lm_head.bias",
    ],
)
def test_a_key_that_a_layer_would_compute_with_is_refused(tmp_path, key):
    folder = checkpoint_with(tmp_path, **PARTS.shapes, **{key: (1,)})
    with pytest.raises(UserError, match=rf": {key}: expected no such tensor in that module, found shape \[1\]$"):
        bind(folder, tmp_path, PARTS)


@pytest.mark.parametrize("key", ["v_head.summary.weight", "model.layers.1.q.weight", "visual.blocks.0.w"])
def test_a_key_outside_of_the_model_is_left_out_with_a_note(tmp_path, caplog, key):
    bind(checkpoint_with(tmp_path, **PARTS.shapes, **{key: (1,)}), tmp_path, PARTS)
    assert f"key {key} left out, which no part of the model uses" in caplog.text


def test_many_keys_are_told_in_one_note(tmp_path, caplog):
    bind(checkpoint_with(tmp_path, **PARTS.shapes, **{f"x{i}.w": (1,) for i in range(5)}), tmp_path, PARTS)
    assert "keys x0.w, x1.w, x2.w and 2 more left out" in caplog.text


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("model.layers.0.q.SCB", r"quantized by bitsandbytes \(key model.layers.0.q.SCB\)"),
        ("model.layers.0.q.weight.quant_state.bitsandbytes__nf4", "quantized by bitsandbytes"),
        ("model.layers.0.q.lora_A.weight", "have an adapter beside them"),
        ("model.layers.0.q.base_layer.weight", "have an adapter beside them"),
    ],
)
def test_weights_in_another_form_are_told_as_such(tmp_path, key, message):
    with pytest.raises(UserError, match=message):
        bind(checkpoint_with(tmp_path, **{key: (1,)}), tmp_path, PARTS)


def test_stale_buffers_of_old_checkpoints_are_ignored(tmp_path):
    keys = {"model.layers.0.self_attn.rotary_emb.inv_freq": (4,), "embeddings.position_ids": (1, 8)}
    bind(checkpoint_with(tmp_path, a=(2, 3), b=(3,), **keys), tmp_path, EXPECTED)


def test_two_keys_of_one_parameter_are_refused(tmp_path):
    expected = Expected({"a": (2,)}, rename=lambda key: key.removeprefix("model."))
    save_file({"a": np.ones(2), "model.a": np.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="is parameter a, as another key is too"):
        bind(Checkpoint(tmp_path), tmp_path, expected)


@dataclass(frozen=True)
class Codes:
    """A parameter that a checkpoint stores as codes."""

    key = "a"
    path = Path("a.safetensors")
    shape = (2, 4)
    nbytes = 12
    dtype = None
    scheme = Scheme(8, 4, False, F16)

    def read(self, rows: slice = slice(None)) -> Quantized:
        return Quantized(np.ones(self.shape, np.int8)[rows], np.ones((2, 1), np.float16)[rows], None, self.scheme)


def test_codes_are_read_as_they_are(tmp_path):
    plain = checkpoint_with(tmp_path, b=(3,))["b"]
    weights = bind({"a": Codes(), "b": plain}, tmp_path, Expected({"a": (2, 4), "b": (3,)}))
    assert weights.schemes == {"a": Codes.scheme}
    assert weights.dtype == np.float16
    assert weights.read("a", slice(1, 2)).codes.shape == (1, 4)
    with pytest.raises(AssertionError, match="a is stored as codes"):
        weights.read_floats("a")


def test_linears_of_one_layer_share_an_order_of_inputs(tmp_path):
    orders = {"l.0.a": 1, "l.0.b": 1, "l.0.c": 2, "l.1.a": 1}
    tensors = {}
    for module, seed in orders.items():
        linear = random_linear((8, 64), np.random.default_rng(0), shuffled=True, shuffle=seed)
        tensors |= {f"{module}.{name}": values for name, values in packers.gptq(linear).items()}
    save_file(tensors, tmp_path / "model.safetensors")
    found = find_sources(Checkpoint(tmp_path), None)
    weights = bind(found.sources, tmp_path, Expected({f"{module}.weight": (8, 64) for module in orders}))
    named = {"l.0.a": "l.0.a", "l.0.b": "l.0.a", "l.0.c": "l.0.c", "l.1.a": "l.1.a"}
    assert weights.orders == {f"{module}.weight": f"{first}.weight.order" for module, first in named.items()}
    order = weights.read("l.0.c.weight.order")
    assert order.dtype == np.int32
    assert sorted(order) == [*range(64)]
    assert "l.0.c.weight.order" not in weights.schemes


def test_rows_are_read_in_an_order_that_the_name_says(tmp_path):
    linear = random_linear((8, 64), np.random.default_rng(0), shuffled=True)
    tensors = {f"m.{name}": values for name, values in packers.gptq(linear).items()}
    tensors["up"] = np.arange(128, dtype=np.float16).reshape(64, 2)
    save_file(tensors, tmp_path / "model.safetensors")
    sources = find_sources(Checkpoint(tmp_path), None).sources
    weights = bind(sources, tmp_path, Expected({"m.weight": (8, 64), "up": (64, 2)}))
    np.testing.assert_array_equal(weights.read("up@m.weight.order"), tensors["up"][linear.order])


@pytest.mark.parametrize(("value", "is_refused"), [(0, False), (1, True)])
def test_a_bias_of_zeros_beside_a_packed_weight_is_left_out(tmp_path, value, is_refused):
    linear = random_linear((8, 64), np.random.default_rng(0))
    tensors = {f"m.{name}": values for name, values in packers.gptq(linear).items()}
    save_file(tensors | {"m.bias": np.full(8, value, np.float16)}, tmp_path / "model.safetensors")
    sources = find_sources(Checkpoint(tmp_path), None).sources
    with pytest.raises(UserError, match=r"m.bias: expected no such") if is_refused else nullcontext():
        bind(sources, tmp_path, Expected({"m.weight": (8, 64)}))


def test_integers_are_no_weights(tmp_path):
    save_file({"a": np.ones((2, 3), np.int8), "b": np.ones(3)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r": a: expected bfloat16 or float16 or float32 or float64, found int8$"):
        bind(Checkpoint(tmp_path), tmp_path, EXPECTED)


def test_what_was_odd_before_is_told_first_and_is_not_missing_as_well(tmp_path):
    shapes = {"m.weight": (2, 3), "b": (3,)}
    odd = {"m.weight": "m.qweight: expected words, found none"}
    with pytest.raises(UserError, match=r": 2 tensors do not fit .*\n  m.qweight: expected words, found none\n  b: [^\n]*$"):
        bind({}, tmp_path, Expected(shapes), odd=odd)
