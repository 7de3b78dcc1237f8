"""Which weights a tile may have packed: those of which no rows are looked up, asked once for all tiles."""

from __future__ import annotations

from dialects import tensor
from passes.manager import PassManager
from passes.tensor import tiler
from passes.tensor.tile_weights import TileWeights
from passes.tensor.tiler import looked_up
from tests.helpers import parse_ir

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
    assert looked_up(module) == {("v",)}


def test_rows_that_are_looked_up_are_not_packed():
    assert packed(f"{linears(1)}\n{gather('v')}") == 2
    assert packed(f"{linears(1)}\n{gather('w')}") == 0


def test_a_module_is_searched_once_for_all_linears(monkeypatch):
    searched = []
    monkeypatch.setattr(tiler, "walk", lambda module: searched.append(module) or [])
    assert packed(linears(3)) == 6
    assert len(searched) == 1
