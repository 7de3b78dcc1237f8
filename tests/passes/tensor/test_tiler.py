"""Which weights a tile may have packed: those of which no rows are looked up, asked once for all tiles."""

from __future__ import annotations

import numpy as np

from dialects import tensor
from passes.manager import PassManager, parse_pipeline
from passes.tensor import tiler
from passes.tensor.tile_weights import TileWeights
from passes.tensor.tiler import looked_up
from tests.helpers import parse_ir, random_tensor
from tests.passes.llm_to_tensor.levels import check_levels

X, Y = "tensor<1x64x128xbf16, #tensor.lanes<axis = 1>>", "tensor<1x64x256xf32, #tensor.lanes<axis = 1>>"
WEIGHT = "tensor<256x128xbf16>"


def linears(count: int) -> str:
    """As many products of x with one weight."""
    weight = f'%w = "tensor.weight"() <{{sources = ["w"]}}> : () -> {WEIGHT}'
    return "\n".join(
        [weight, *(f'%y{i} = "tensor.linear"(%x, %w) : ({X}, {WEIGHT}) -> {Y}' for i in range(count))]
    )


def gather(source: str) -> str:
    return (
        f'%table = "tensor.weight"() <{{sources = ["{source}"]}}> : () -> {WEIGHT}\n'
        f'%rows = "tensor.gather"(%table, %tokens) : ({WEIGHT}, tensor<64xi32>) -> tensor<64x128xbf16>'
    )


def packed(text: str) -> int:
    """How many packed tiles the weights of a module become."""
    module, _ = parse_ir(text)
    PassManager([TileWeights(bytes=512)]).run(module)
    return sum(isinstance(op, tensor.PackedWeightOp) for op in module.functions()[0].block.ops)


def test_weights_are_found_by_what_rows_are_gathered_of():
    module, _ = parse_ir(f"{linears(1)}\n{gather('v')}")
    assert {name: str(type) for name, type in looked_up(module).items()} == {"v": WEIGHT}


def test_rows_that_are_looked_up_are_not_packed():
    assert packed(f"{linears(1)}\n{gather('v')}") == 2
    assert packed(f"{linears(1)}\n{gather('w')}") == 0


def test_a_module_is_searched_once_for_all_linears(monkeypatch):
    searched = []
    monkeypatch.setattr(tiler, "walk", lambda module: searched.append(module) or [])
    assert packed(linears(3)) == 6
    assert len(searched) == 1


TABLE = "tensor<{rows}x64xbf16>"


def part_of_table(rows: int, start: int) -> str:
    """A linear of 64 neighbouring rows of a table of which others are looked up."""
    table, some = TABLE.format(rows=rows), TABLE.format(rows=64)
    cut = f"start = {start} : i64, stop = {start + 64} : i64"
    return f"""
      %w = "llm.weight"() <{{name = "w"}}> : () -> {table}
      %e = "llm.embedding"(%ids, %w) : (tensor<1x70xi32>, {table}) -> tensor<1x70x64xbf16>
      %s = "llm.slice_weights"(%w) <{{{cut}}}> : ({table}) -> {some}
      %y = "llm.linear"(%e, %s) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}>
         : (tensor<1x70x64xbf16>, {some}) -> tensor<1x70x64xbf16>
    """


def test_some_rows_of_a_table_are_read_where_all_are_looked_up():
    ids = np.random.default_rng(0).integers(0, 200, (1, 70)).astype(np.int32)
    lowered = check_levels(part_of_table(200, 130), [ids], weights={"w": random_tensor(200, 64)}).clone()
    PassManager(parse_pipeline("tile-weights")).run(lowered)
    ops = [*lowered.functions()[0].block.ops]
    assert not any(isinstance(op, tensor.PackedWeightOp) for op in ops)
    assert {tuple(op.sources) for op in ops if isinstance(op, tensor.WeightOp) and op.result_.has_uses()} == {("w",)}
