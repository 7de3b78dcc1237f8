"""Tokens that are moved in whole rows of lanes: they stay in local memory, and results go where they belong."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.ir.module import Module
from dialects import tensor
from passes.llm_to_tensor.rows import Rows
from passes.llm_to_tensor.steps import Steps
from passes.ranges import Range
from tests.helpers import parse_ir
from tests.passes.llm.tower import WIDTH, Tower
from tests.passes.llm_to_tensor.levels import check_levels

TOWER = Tower(16, 32)


def arrays(tower: Tower, options: str, before: str = "order-tokens,") -> Module:
    axes = {2: 0, 3: 1}
    weights = tower.weights
    return check_levels(tower.text(), [tower.picture], {}, weights, options, 0.9999, axes, before)


def stored(module: Module) -> list[tuple[int, ...]]:
    return [op.value.type.shape for op in module.functions()[0].block.ops if isinstance(op, tensor.StoreOp)]


@pytest.mark.parametrize("options", ["", "{tokens=256}", "{tokens=256 keys=128}", "{tokens=64 keys=64}"])
@pytest.mark.parametrize("tower", [TOWER, Tower(16, 16, known=0), Tower(16, 16, known=2, merged=(1, 1))], ids=str)
def test_every_level_computes_the_same(tower, options):
    arrays(tower, options)


def test_the_last_run_of_what_is_merged_is_not_stored():
    """Of two runs, and of the residual of the first; in their own order both are, behind the known token."""
    found = [stored(arrays(TOWER, "{tokens=256}", before)) for before in ("order-tokens,", "")]
    counts = [[shape[0] for shape in shapes if shape[1:] == (1, WIDTH)] for shapes in found]
    assert counts == [[257, 256], [257, 256, 256, 1]]


def test_a_picture_is_not_stored_in_another_order():
    inside = [shape for shape in stored(arrays(TOWER, "{tokens=256}")) if len(shape) > 4]
    assert not inside
    assert [shape for shape in stored(arrays(TOWER, "{tokens=256}", "")) if len(shape) > 4]


def test_keys_that_were_stored_last_are_met_last():
    """The first 256 tokens are, as the others have the known one; 513 keys are met in five blocks."""
    module = arrays(TOWER, "{tokens=256 keys=128}")
    blocks = [
        (op.starts[1], op.starts[1] + op.sizes[1])
        for op in module.functions()[0].block.ops
        if isinstance(op, tensor.SliceOp) and op.x.type.shape[:2] == (1, 513) and len(op.sizes) == 4
    ]
    assert blocks[:10:2] == [(320, 448), (448, 513), (0, 64), (192, 320), (64, 192)]


def test_results_are_stored_where_they_belong():
    """8 x 16 merged tokens, of which 8 follow each other in a column of lanes."""
    last = [shape for shape in stored(arrays(TOWER, "{tokens=256}")) if shape[-1] == WIDTH and len(shape) == 2]
    assert last == [(8, WIDTH)] * 16


def rows_of(shape: tuple[int, ...], steps: Steps) -> Rows:
    module, _ = parse_ir(f'"func.return"(%x) : (tensor<{"x".join(map(str, shape))}xf32>) -> ()')
    return Rows(module.functions()[0].args[0], steps)


@pytest.mark.parametrize("lanes", [4, 8])
def test_rows_of_lanes_are_whole_rows_of_the_source(lanes):
    """[32, 6] as [8, 4 6], each token of rows that lie 8 apart."""
    steps = Steps.of((1, 32, 6)).reshape((4, 8, 6)).permute((1, 0, 2)).reshape((1, 8, 24))
    found = rows_of((1, 32, 6), steps).of_lanes(1, Range(0, 8), lanes)
    assert found == [[8 * block + row for block in range(4)] for row in range(0, 8, lanes)]


@pytest.mark.parametrize("shape", [(1, 8, 24), (1, 16, 12)])
def test_neighbouring_rows_that_are_merged_are_not_side_by_side(shape):
    assert rows_of((1, 32, 6), Steps.of((1, 32, 6)).reshape(shape)).of_lanes(1, Range(0, 8), 8) is None


def test_rows_that_follow_each_other_are_counted():
    steps = Steps.of((1, 32, 6)).reshape((2, 16, 6)).permute((1, 0, 2))
    rows = rows_of((1, 32, 6), steps)
    assert rows.is_long
    assert rows.starts == [0, 16]
    assert not rows_of((1, 32, 6), Steps.of((1, 32, 6)).reshape((8, 4, 6)).permute((1, 0, 2))).is_long
    assert not rows_of((1, 32, 6), Steps.of((1, 32, 6)).reshape((32, 2, 3)).permute((1, 0, 2))).is_long


def test_steps_lead_to_the_items_that_numpy_finds():
    x = np.arange(192).reshape(1, 32, 6)
    steps = Steps.of(x.shape).slice(1, Range(8, 24)).reshape((2, 8, 6)).permute((1, 0, 2))
    wanted = x[:, 8:24].reshape(2, 8, 6).transpose(1, 0, 2)
    offsets = steps.start + steps.offsets(range(len(steps.sizes)))
    np.testing.assert_array_equal(x.reshape(-1)[offsets], wanted.reshape(-1))
