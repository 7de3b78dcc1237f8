"""The choice among numbers of one token and of many: found as the model says, and where it is wanted."""

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
def test_the_largest_of_each_token(tokens, options):
    x, found = f"tensor<1x{tokens}x64xbf16>", f"tensor<1x{tokens}x6xbf16>"
    text = f"""
      %v, %i = "llm.topk"(%x) <{{k = 6 : i64}}> : ({x}) -> ({found}, {found.replace("bf16", "i32")})
      %y = "llm.mul"(%v) <{{value = 2.0 : f64}}> : ({found}) -> {found}
    """
    module, _ = parse_ir(text)
    as_net(module)
    function = module.functions()[0]
    inputs = [random_tensor(1, tokens, 64).astype(ml_dtypes.bfloat16)]
    wanted = interpret(function, inputs, {}.__getitem__)
    for pipeline in (f"llm-to-tensor{options}", "tensor-to-chip"):
        PassManager(parse_pipeline(pipeline)).run(module)
        if pipeline == "tensor-to-chip":
            program = ChipProgram(function, BM1684X, Materializer({}.__getitem__, {}).bytes_of)
            found = program.run(inputs)
        else:
            found = interpret(function, inputs, {}.__getitem__)
        for ours, theirs in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(ours, theirs)
