"""A model whose weights are stored in several ways at once, some of them codes before the compiler sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from compiler.ir.types import BF16, F16
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Quantized, Weight, rectangle
from compiler.weights.tile import unpack
from dialects.chip import GlobalOp
from dialects.weights import Packed, region_name, stored_bits
from driver.options import ConvertOptions
from frontend import load
from frontend.binding import Weights, bind
from frontend.checkpoint import StoredTensor
from runtime_sim.launch.loader import Region
from tests.end_to_end.tiny import ROUNDING, SUMMING, Tiny, check_close

# What is not named here is left to -q w4bf16.
SCHEMES = {
    "self_attn.q_proj.weight": Scheme(4, 32, True, F16),
    "self_attn.k_proj.weight": Scheme(4, 32, True, F16),
    "self_attn.v_proj.weight": Scheme(4, 32, True, F16),
    "self_attn.o_proj.weight": Scheme(4, 128, False, BF16),
    "mlp.down_proj.weight": Scheme(8, 64, False, F16),
}
LAYERS = 2
IN_CODES = ("self_attn.k_proj.weight", "mlp.down_proj.weight")


def codes_of(shape: tuple[int, ...], scheme: Scheme, seed: int) -> Quantized:
    """Codes that no search of ours would choose: few of them, off the middle."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(3, 9, shape).astype(np.uint8 if scheme.bits == 4 else np.int8)
    groups = (shape[0], shape[1] // scheme.group)
    scales = (rng.standard_normal(groups) / 64).astype(scheme.scale.numpy)
    zeros = rng.integers(0, 17, groups).astype(np.uint8) if scheme.zeros else None
    return Quantized(codes, scales, zeros, scheme)


@dataclass(frozen=True)
class Coded:
    """A parameter that a checkpoint stores as codes; or as floats, if a program wants them as codes anyway."""

    floats: StoredTensor
    scheme: Scheme
    given: bool  # as codes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.floats, name)

    def read(self, rows: slice = slice(None)) -> Weight:
        return codes_of(self.shape, self.scheme, len(self.key)) if self.given else self.floats.read(rows)


def bind_mixed(*arguments: Any) -> Weights:
    weights = bind(*arguments)
    tensors = dict(weights.tensors)
    for layer in range(LAYERS):
        for own, scheme in SCHEMES.items():
            name = f"model.layers.{layer}.{own}"
            tensors[name] = Coded(tensors[name], scheme, own in IN_CODES)
    return Weights(tensors, weights.half)


@pytest.fixture(scope="module")
def mixed(tiny_checkpoint, tmp_path_factory) -> Tiny:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "bind", bind_mixed)
        checkpoint = tiny_checkpoint("llama", layers=LAYERS, intermediate=384)
        out = tmp_path_factory.mktemp("mixed") / "out"
        return Tiny(ConvertOptions(checkpoint, 64, "w4bf16", out_dir=out))


@pytest.mark.parametrize("name", ["block_1", "block_cache_1"])
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


def test_each_weight_lies_in_the_file_as_its_type_says(mixed):
    net = mixed.nets["block_0"]
    sources = [op.source for op in net.stages["placed"].block.ops if isinstance(op, GlobalOp)]
    found = {name: source.tile.stored for source in sources if isinstance(source, Packed) for name in source.names}
    chosen = Scheme(4, mixed.options.q_group_size, True, BF16)
    assert found == {"mlp.gate_proj.weight": chosen, "mlp.up_proj.weight": chosen} | SCHEMES
    bits = {stored_bits(region_name(source)) for source in sources if source is not None}
    assert bits == {4, 8, None}


def test_codes_of_the_checkpoint_are_in_the_file_unchanged(mixed):
    name = "mlp.down_proj.weight"
    wanted = mixed.reader(mixed.nets["block_0"])(name)
    regions = [op for op in mixed.nets["block_0"].stages["placed"].block.ops if isinstance(op, GlobalOp)]
    tiles = [op for op in regions if isinstance(op.source, Packed) and op.source.names == (name,)]
    blob = mixed.runtime.net("block_0").memories[Region.COEFF]
    for op in tiles:
        tile, start = op.source.tile, op.address - mixed.options.spec.coeff_base
        data = np.array(blob[start : start + tile.total_bytes]).reshape(op.source.pieces, tile.lanes, -1)
        found = unpack(tile, data.swapaxes(0, 1).reshape(tile.lanes, -1))
        rows, columns = (op.source.row, tile.rows), (op.source.column, tile.columns)
        expected = rectangle(wanted, *(slice(first, first + size) for first, size in (rows, columns)))
        np.testing.assert_array_equal(found.codes, expected.codes)
        np.testing.assert_array_equal(found.scales, expected.scales)
    assert sum(op.source.tile.rows * op.source.tile.columns for op in tiles) == wanted.codes.size
