"""Towers whose tokens are put in another order give the same, and what is merged is on one lane."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import runtime_sim.interpret.llm  # noqa: F401  (registers the rules)
from compiler.ir.module import Function
from dialects import llm
from passes import load_all
from passes.manager import PassManager, parse_pipeline
from runtime_sim.interpret.rules import interpret
from tests.compare import compare
from tests.helpers import as_net, parse_ir
from tests.passes.llm.tower import INSIDE, PATCH, Tower

TOWER = Tower(16, 32)
ALIKE = [
    TOWER,
    Tower(16, 16, known=0),
    Tower(32, 16, known=5),
    Tower(16, 16, merged=(1, 1)),
    Tower(8, 32, merged=(1, 2)),
    Tower(8, 8, known=0, merged=(1, 1)),
]


def function_of(tower: Tower, passes: str = "order-tokens", change: tuple[str, str] = ("", "")) -> Function:
    load_all()
    module, _ = parse_ir(tower.text().replace(*change, 1))
    as_net(module, {2: 0, 3: 1})
    PassManager(parse_pipeline(passes)).run(module)
    (function,) = module.functions()
    return function


def result(tower: Tower, function: Function) -> np.ndarray:
    (found,) = interpret(function, [tower.picture], tower.weights.__getitem__, {})
    return found


@pytest.mark.parametrize("tower", ALIKE, ids=str)
def test_the_client_gets_the_same(tower):
    before, after = (function_of(tower, passes) for passes in ("canonicalize", "order-tokens"))
    assert len([*after.block.ops]) > len([*before.block.ops])
    found, wanted = result(tower, after), result(tower, before)
    assert found.shape == wanted.shape
    assert compare(found, wanted).cosine > 0.99999


def places(function: Function, tower: Tower) -> np.ndarray:
    """Row and column, in the picture, of the patch of each token that the first linear reads."""
    linear = next(op for op in function.block.ops if isinstance(op, llm.LinearOp))
    rows, columns = (size * PATCH for size in (tower.rows, tower.columns))
    numbers = np.broadcast_to(np.arange(rows * columns, dtype=np.float32).reshape(rows, columns), (1, 3, rows, columns))
    values = {function.args[0]: numbers}
    for op in function.block.ops:
        if op is linear:
            break
        values |= moved(op, values)
    first = values[linear.x].reshape(-1, INSIDE)[: tower.count, 0].astype(int)
    return np.stack(np.divmod(first, columns), 1) // PATCH


def moved(op, values):
    """What an op makes, of numbers that stay as they are."""
    if not op.operands or not all(x in values for x in op.operands):
        return {}
    if isinstance(op, llm.ConcatOp):
        return {op.y: np.concatenate([values[x] for x in op.parts], op.axis)}
    x = values[op.operands[0]]
    if isinstance(op, llm.SliceOp):
        return {op.y: x[:, op.start : op.stop]}
    if isinstance(op, llm.PermuteOp):
        return {op.y: x.transpose(op.order)}
    return {op.results[0]: x.reshape(op.results[0].type.shape)}


@pytest.mark.parametrize("tower", ALIKE, ids=str)
def test_what_is_merged_is_on_one_lane_and_neighbours_on_a_lane_are_so_in_the_picture(tower):
    lanes = 64
    found = places(function_of(tower), tower).reshape(-1, lanes, 2).transpose(1, 0, 2)
    assert sorted(map(tuple, found.reshape(-1, 2))) == sorted(np.ndindex(tower.rows, tower.columns))
    blocks = found // tower.merged
    for lane in blocks:
        assert all((lane == block).all(axis=1).sum() == np.prod(tower.merged) for block in lane)
    spans = found.max(axis=1) - found.min(axis=1) + 1
    assert (spans.prod(axis=1) == tower.count // lanes).all()  # of rows and columns without gaps


@pytest.mark.parametrize(
    "tower",
    [
        replace(TOWER, visible="causal"),
        replace(TOWER, exchanged=True),
        replace(TOWER, dropped=False),
        replace(TOWER, rows=18),
        replace(TOWER, merged=(1, 32)),  # of which there are too few
    ],
    ids=str,
)
def test_where_places_matter_tokens_stay_in_order(tower):
    before, after = (function_of(tower, passes) for passes in ("fold-scale", "order-tokens"))
    assert [op.opname for op in after.block.ops] == [op.opname for op in before.block.ops]


def test_tokens_that_are_read_in_two_ways_stay_in_order():
    width = f"tensor<1x{TOWER.count + 1}x64xbf16>"
    twice = f"""
      %z = "llm.softmax"(%h) <{{axis = 1 : i64}}> : ({width}) -> {width}
      %u = "llm.add"(%h, %z) : ({width}, {width}) -> {width}
      %s = "llm.slice"(%u)"""
    change = ('%s = "llm.slice"(%h)', twice)
    before, after = (function_of(TOWER, passes, change) for passes in ("fold-scale", "order-tokens"))
    assert [op.opname for op in after.block.ops] == [op.opname for op in before.block.ops]
