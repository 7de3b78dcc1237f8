"""Movement: items in another order, for one token and for many, down to the chip."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import runtime_sim.interpret.llm
import runtime_sim.interpret.tensor  # noqa: F401  (registers the rules)
from compiler.target.chips.bm1684x import BM1684X
from driver.blob import Materializer
from passes import load_all
from passes.manager import PassManager, parse_pipeline
from runtime_sim.interpret.chip import ChipProgram
from runtime_sim.interpret.rules import interpret
from tests.helpers import as_net, parse_ir, random_tensor

load_all()


@pytest.mark.parametrize("options", ["", "{tokens=64}"])
@pytest.mark.parametrize("tokens", [1, 150])
def test_inputs_are_taken_in_an_order(tokens, options):
    x, y = f"tensor<1x{tokens}x192xbf16>", f"tensor<1x{tokens}x128xbf16>"
    text = f"""
      %o = "llm.indices"() <{{name = "order"}}> : () -> tensor<128xi32>
      %h = "llm.mul"(%x) <{{value = 2.0 : f64}}> : ({x}) -> {x}
      %y = "llm.take"(%h, %o) : ({x}, tensor<128xi32>) -> {y}
    """
    module, _ = parse_ir(text)
    as_net(module)
    function = module.functions()[0]
    order = np.random.default_rng(2).permutation(192)[:128].astype(np.int32)
    inputs = [random_tensor(1, tokens, 192).astype(ml_dtypes.bfloat16)]
    (wanted,) = interpret(function, inputs, {"order": order}.__getitem__)
    np.testing.assert_array_equal(wanted, 2 * inputs[0][..., order])
    PassManager(parse_pipeline(f"llm-to-tensor{options}")).run(module)
    (found,) = interpret(function, inputs, {"order": order}.__getitem__)
    np.testing.assert_array_equal(found, wanted)
    PassManager(parse_pipeline("tensor-to-chip")).run(module)
    source = Materializer({"order": order}.__getitem__, {}).bytes_of
    (found,) = ChipProgram(function, BM1684X, source).run(inputs)
    np.testing.assert_array_equal(found, wanted)
