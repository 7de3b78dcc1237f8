"""A model that is run layer by layer, beside the Hugging Face model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from compiler.diagnostics import UserError
from compiler.ir.types import BF16
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Quantized
from frontend import layers
from frontend.binding import Weights
from frontend.calibration import mean_squares
from frontend.layers import Outer, loaded, rows_of, values_of
from tests.frontend.test_calibration import TOKENS, opened, saved


@pytest.mark.parametrize("name", ["llama", "gemma2", "cohere2", "granite"])
def test_logits_of_parts_of_the_vocabulary_are_those_of_the_model(tmp_path, name):
    """The last layer's states there, and what is done to logits behind the head, such as a cap."""
    model = saved(tmp_path, name)
    states: list[torch.Tensor] = []
    layer = model.model.layers[-1]
    layer.register_forward_hook(lambda module, given, made: states.append(made[0] if isinstance(made, tuple) else made))
    with torch.no_grad():
        wanted = model(torch.from_numpy(TOKENS)).logits
    native, weights = opened(tmp_path)
    paths = {id(module): path for path, module in native.named_modules()}
    with torch.no_grad():
        outer = Outer(native, weights, paths)
        parts = [outer.logits(states[0], slice(start, start + 100)) for start in range(0, wanted.shape[-1], 100)]
    np.testing.assert_allclose(torch.cat(parts, -1), wanted, rtol=2e-2, atol=5e-3)


def test_a_module_has_values_only_meanwhile(tmp_path):
    saved(tmp_path, "llama")
    native, weights = opened(tmp_path)
    layer = native.model.layers[0]
    with loaded(layer, "model.layers.0", weights) as names:
        weight = layer.mlp.up_proj.weight
        assert names[weight.untyped_storage().data_ptr()] == "model.layers.0.mlp.up_proj.weight"
        np.testing.assert_array_equal(weight, values_of(weights, "model.layers.0.mlp.up_proj.weight"))
    assert all(value.device.type == "meta" for value in native.parameters())


def test_few_rows_of_a_table_are_read_with_those_that_are_asked_for():
    class Table:
        values, read = np.arange(200, dtype=np.float32).reshape(100, 2), 0

        def read_floats(self, name: str, rows: slice) -> np.ndarray:
            found = self.values[rows]
            self.read += len(found)
            return found

    table, numbers = Table(), np.array([1, 3, 40, 99])
    np.testing.assert_array_equal(rows_of(table, "embedding", numbers), table.values[numbers])
    assert table.read == 32 + 32 + 4


def test_rows_of_the_embedding_that_are_at_hand_are_not_read_again(tmp_path, monkeypatch):
    saved(tmp_path, "llama")
    native, weights = opened(tmp_path)
    outer = Outer(native, weights, {id(module): path for path, module in native.named_modules()})
    with torch.no_grad():
        wanted = outer.before_layers(torch.from_numpy(TOKENS[:1]))
        outer.embed(TOKENS)
        with monkeypatch.context() as patch:
            patch.setattr(layers, "rows_of", None)
            found = outer.before_layers(torch.from_numpy(TOKENS[:1]))
        np.testing.assert_array_equal(found, wanted)
        outer.embed(TOKENS[:1, :1])
        np.testing.assert_array_equal(outer.before_layers(torch.from_numpy(TOKENS[:1])), wanted)


def test_layers_that_are_given_something_else_are_refused(tmp_path, monkeypatch):
    saved(tmp_path, "llama")
    native, weights = opened(tmp_path)
    monkeypatch.setattr(Outer, "_up_to_head", lambda self, ids, stub: [stub(None, torch.zeros(1)) for _ in range(2)])
    with pytest.raises(UserError, match="layers of LlamaForCausalLM do not hand states"):
        mean_squares(native, weights, TOKENS, 1)


def test_codes_with_an_order_of_inputs_stand_for_a_weight_in_the_model_s():
    scheme = Scheme(4, 2, True, BF16)
    codes = Quantized(
        np.arange(4, dtype=np.uint8)[None], np.ones((1, 2), BF16.numpy), np.zeros((1, 2), np.uint8), scheme
    )

    class Stored(Weights):
        def read(self, name: str, rows: slice = slice(None)) -> Any:
            return codes if name == "w" else np.array([2, 0, 3, 1])

    found = values_of(Stored({}, orders={"w": "w.order"}), "w")
    np.testing.assert_array_equal(found, [[1, 3, 0, 2]])
