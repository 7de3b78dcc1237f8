"""A model whose weights are stored in several ways at once, some of them codes before the compiler sees them."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.ir.types import BF16
from compiler.weights.scheme import Scheme
from compiler.weights.stored import rectangle
from compiler.weights.tile import unpack
from dialects.chip import GlobalOp
from dialects.weights import Packed, region_name, stored_bits
from runtime_sim.launch.loader import Region
from tests.end_to_end.mixed import SCHEMES, mixed_model
from tests.end_to_end.tiny import ROUNDING, SUMMING, Tiny, check_close


@pytest.fixture(scope="module")
def mixed(tiny_checkpoint, tmp_path_factory) -> Tiny:
    return mixed_model(tiny_checkpoint, tmp_path_factory.mktemp("mixed") / "out")


@pytest.mark.parametrize("name", ["block_0", "block_cache_0", "block_1", "block_cache_1"])
def test_every_stage_computes_with_the_codes_that_are_stored(mixed, name):
    net = mixed.nets[name]
    inputs = mixed.inputs(net)
    said, arrays, chip, placed, file = (
        mixed.run(net, stage, inputs) for stage in ("llm", "tensor", "chip", "placed", "file")
    )
    check_close(net, arrays, said, ROUNDING)
    check_close(net, chip, arrays, SUMMING)
    for ours, theirs in zip(placed, file, strict=True):
        assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize(("layer", "widths"), [(0, {4, 8, None}), (1, {4, 8, None})])
def test_each_weight_lies_in_the_file_as_its_type_says(mixed, layer, widths):
    net = mixed.nets[f"block_{layer}"]
    sources = [op.source for op in net.stages["placed"].block.ops if isinstance(op, GlobalOp)]
    found = {name: source.tile.stored for source in sources if isinstance(source, Packed) for name in source.names}
    chosen = Scheme(4, mixed.options.group, True, BF16)
    assert found == {"mlp.gate_proj.weight": chosen, "mlp.up_proj.weight": chosen} | SCHEMES[layer]
    bits = {stored_bits(region_name(source)) for source in sources if source is not None}
    assert bits == widths


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (0, "mlp.down_proj.weight"),
        (1, "mlp.down_proj.weight"),
        (1, "self_attn.o_proj.weight"),
    ],
)
def test_codes_of_the_checkpoint_are_in_the_file_unchanged(mixed, layer, name):
    net = mixed.nets[f"block_{layer}"]
    wanted = mixed.reader(net)(name)
    regions = [op for op in net.stages["placed"].block.ops if isinstance(op, GlobalOp)]
    tiles = [op for op in regions if isinstance(op.source, Packed) and op.source.names == (name,)]
    blob = mixed.runtime.net(net.name).memories[Region.COEFF]
    for op in tiles:
        tile, start = op.source.tile, op.address - mixed.options.spec.coeff_base
        data = np.array(blob[start : start + tile.total_bytes]).reshape(op.source.pieces, tile.lanes, -1)
        found = unpack(tile, data.swapaxes(0, 1).reshape(tile.lanes, -1))
        rows, columns = (op.source.row, tile.rows), (op.source.column, tile.columns)
        expected = rectangle(wanted, *(slice(first, first + size) for first, size in (rows, columns)))
        for part in ("codes", "scales", "zeros", "minimums"):
            np.testing.assert_array_equal(getattr(found, part), getattr(expected, part))
    assert sum(op.source.tile.rows * op.source.tile.columns for op in tiles) == wanted.codes.size
