"""What is read by name: rows of an embedding, run by run."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.target.chips.bm1684x import BM1684X
from driver.blob import Materializer
from passes import load_all
from passes.manager import PassManager, parse_pipeline
from runtime_sim.interpret.chip import ChipProgram
from tests.helpers import as_net, parse_ir, random_tensor

load_all()


@pytest.mark.parametrize("options", ["", "{tokens=64}", "{tail=1}"])
def test_an_embedding_is_looked_up_run_by_run(options):
    table, ids = random_tensor(10, 64), np.random.default_rng(0).integers(0, 10, (1, 150)).astype(np.int32)
    text = """
      %w = "llm.weight"() <{name = "w"}> : () -> tensor<10x64xbf16>
      %y = "llm.embedding"(%ids, %w) <{scale = 1.0 : f64}>
         : (tensor<1x150xi32>, tensor<10x64xbf16>) -> tensor<1x150x64xbf16>
    """
    module, _ = parse_ir(text)
    as_net(module, {2: 1, 3: 1})
    PassManager(parse_pipeline(f"llm-to-tensor{options},tile-weights,tensor-to-chip")).run(module)
    source = Materializer({"w": table}.__getitem__, {}, BM1684X.lanes)
    (found,) = ChipProgram(module.functions()[0], BM1684X, source.bytes_of).run([ids])
    np.testing.assert_array_equal(found, table.astype(found.dtype)[ids])
