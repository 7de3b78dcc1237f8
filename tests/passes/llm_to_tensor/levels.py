"""A function of llm ops at every level down to the chip's instructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

import runtime_sim.interpret.llm
import runtime_sim.interpret.tensor  # noqa: F401  (registers the rules)
from compiler.ir.module import Module
from compiler.target.chips.bm1684x import BM1684X
from driver.blob import Materializer
from passes import load_all
from passes.manager import PassManager, parse_pipeline
from runtime_sim.interpret.chip import ChipProgram
from runtime_sim.interpret.rules import interpret
from tests.compare import compare
from tests.helpers import as_net, parse_ir

TOKENS = {2: 1, 3: 1, 4: 1}  # the axis of tokens of arguments and results with so many axes


def check_levels(
    text: str,
    inputs: Sequence[np.ndarray],
    tables: Mapping[str, np.ndarray] = {},
    weights: Mapping[str, np.ndarray] = {},
    options: str = "",
    cosine: float = 0.99999,
    axes: Mapping[int, int] = TOKENS,
    before: str = "",
) -> Module:
    """The arrays that the llm ops become, after some passes, and the chip, compute what they do; gives the
    module of arrays.
    """
    load_all()
    module, _ = parse_ir(text)
    as_net(module, axes)
    function = module.functions()[0]
    wanted = interpret(function, inputs, weights.__getitem__, tables)
    PassManager(parse_pipeline(f"{before}llm-to-tensor{options}")).run(module)
    arrays = module.clone()
    found = interpret(function, inputs, weights.__getitem__, tables)
    for ours, theirs in zip(found, wanted, strict=True):
        assert np.isfinite(ours.astype(np.float32)).all()
        assert_alike(ours, theirs, cosine)
    PassManager(parse_pipeline("tile-weights,tensor-to-chip")).run(module)
    on_chip = ChipProgram(function, BM1684X, Materializer(weights.__getitem__, tables).bytes_of).run(inputs)
    for ours, theirs in zip(on_chip, found, strict=True):
        assert_alike(ours, theirs, cosine)
    return arrays


def assert_alike(ours: np.ndarray, theirs: np.ndarray, cosine: float) -> None:
    """Of one direction, and of one length, which a cosine does not see."""
    assert compare(ours, theirs).cosine > cosine
    lengths = [float(np.linalg.norm(x.astype(np.float64))) for x in (ours, theirs)]
    assert abs(lengths[0] - lengths[1]) <= 0.005 * lengths[1]
