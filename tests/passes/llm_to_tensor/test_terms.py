"""What one device does of what several had: sums in their order, and the choice among their largest."""

from __future__ import annotations

from collections.abc import Sequence

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


def run_all(text: str, inputs: Sequence[np.ndarray], options: str = "") -> list[list[np.ndarray]]:
    """The results at each level."""
    module, _ = parse_ir(text)
    as_net(module)
    (function,) = module.functions()
    found = [interpret(function, inputs, {}.__getitem__)]
    PassManager(parse_pipeline(f"llm-to-tensor{options}")).run(module)
    found.append(interpret(function, inputs, {}.__getitem__))
    PassManager(parse_pipeline("tensor-to-chip")).run(module)
    program = ChipProgram(function, BM1684X, Materializer({}.__getitem__, {}).bytes_of)
    return [*found, program.run(inputs)]


@pytest.mark.parametrize(("tokens", "options"), [(1, ""), (150, ""), (150, "{tokens=64}")])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_terms_are_added_up_in_order(count, tokens, options):
    term, y = f"tensor<1x{tokens}x96xf32>", f"tensor<1x{tokens}x96xbf16>"
    names = ", ".join(f"%x{i}" for i in range(count))
    text = f'%y = "llm.add_terms"({names}) : ({", ".join([term] * count)}) -> {y}'
    rng = np.random.default_rng(0)
    terms = [random_tensor(1, tokens, 96, seed=i) * rng.choice([1e-3, 1, 1e3]) for i in range(count)]
    wanted, *lowered = run_all(text, [x.astype(np.float32) for x in terms], options)
    for found in lowered:
        np.testing.assert_array_equal(found[0], wanted[0])


TINY = np.float32(2.0**-126)
CHOICES = [
    ([1.0, 2.0], 1), ([2.0, 2.0], 0), ([-3.0, -2.0, -2.0], 1), ([0.0, TINY], 1), ([TINY, 0.0], 0),
    ([1.0, np.nextafter(np.float32(1), np.float32(2)), 1.0], 1), ([3e38, -3e38, 3.1e38, 2e38], 2),
]  # fmt: skip


@pytest.mark.parametrize(("values", "first"), CHOICES)
def test_the_index_beside_the_first_largest(values, first):
    count, indices = len(values), [16777215 - 151936 * i for i in range(len(values))]
    value, index = "tensor<1x1xf32>", "tensor<1x1xi32>"
    names = ", ".join([f"%v{i}" for i in range(count)] + [f"%i{i}" for i in range(count)])
    sizes = f"<{{operandSegmentSizes = array<i32: {count}, {count}>}}>"
    types = ", ".join([value] * count + [index] * count)
    text = f'%y = "llm.index_of_largest"({names}) {sizes} : ({types}) -> {index}'
    inputs = [np.full((1, 1), x, np.float32) for x in values] + [np.full((1, 1), i, np.int32) for i in indices]
    for found in run_all(text, inputs):
        assert found[0].tolist() == [[indices[first]]]


@pytest.mark.parametrize("offset", [0, 151936])
def test_the_largest_and_its_place_on_a_longer_axis(offset):
    text = f"""
      %v, %i = "llm.largest"(%x) <{{offset = {offset} : i64}}> : (tensor<1x300xf32>) -> (tensor<1x1xf32>, tensor<1x1xi32>)
    """
    x = random_tensor(1, 300).astype(np.float32)
    x[0, [70, 200, 299]] = 99.5
    for value, index in run_all(text, [x]):
        assert (value.tolist(), index.tolist()) == ([[99.5]], [[offset + 70]])
