"""From a GGUF file to a bmodel: the file's own codes, the model's own tokens."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from compiler.weights.stored import Quantized
from compiler.weights.tile import unpack
from dialects.chip import GlobalOp
from dialects.weights import Packed
from driver.convert import convert
from driver.options import ConvertOptions
from runtime_sim.launch.loader import Region
from runtime_sim.tokens.text import Text
from runtime_sim.tool.verify import verify_file
from tests.end_to_end.tiny import Tiny
from tests.ggufs import BLOCK, PACKED, make_gguf

LENGTH = 64


@pytest.mark.parametrize("kind", PACKED)
def test_the_bmodel_holds_the_codes_of_the_file(tmp_path, kind):
    """Compared with a decoder of blocks that is written here, column by column."""
    path = make_gguf(tmp_path / "model.gguf", "llama", kind)
    tiny = Tiny(ConvertOptions(path, LENGTH, f"w{8 if kind == Kind.Q8_0 else 4}bf16", out_dir=tmp_path / "out"))
    for name in ("mlp.down_proj.weight", "self_attn.o_proj.weight"):
        assert_same_codes(tiny, "block_1", name, raw_blocks(path, f"blk.1.{LLAMA_NAMES[name]}.weight"), kind)


LLAMA_NAMES = {"mlp.down_proj.weight": "ffn_down", "self_attn.o_proj.weight": "attn_output"}


def raw_blocks(path, name: str) -> np.ndarray:
    import gguf

    tensor = next(tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == name)
    rows, _ = tensor.data.shape
    return tensor.data.reshape(rows, -1, gguf.GGML_QUANT_SIZES[tensor.tensor_type][1])


def assert_same_codes(tiny: Tiny, net_name: str, name: str, blocks: np.ndarray, kind: Kind) -> None:
    net = tiny.nets[net_name]
    regions = [op for op in net.stages["placed"].block.ops if isinstance(op, GlobalOp)]
    tiles = [op for op in regions if isinstance(op.source, Packed) and op.source.names == (name,)]
    blob = tiny.runtime.net(net_name).memories[Region.COEFF]
    seen = 0
    for op in tiles:
        tile, start = op.source.tile, op.address - tiny.options.spec.coeff_base
        data = np.array(blob[start : start + tile.total_bytes]).reshape(op.source.pieces, tile.lanes, -1)
        found = unpack(tile, data.swapaxes(0, 1).reshape(tile.lanes, -1))
        assert isinstance(found, Quantized)
        rows = slice(op.source.row, op.source.row + tile.rows)
        groups = slice(op.source.column // BLOCK, (op.source.column + tile.columns) // BLOCK)
        part = blocks[rows, groups]
        halves = np.ascontiguousarray(part[..., :4]).view(np.float16)
        np.testing.assert_array_equal(found.scales, halves[..., 0])
        if kind == Kind.Q4_1:
            np.testing.assert_array_equal(found.minimums, halves[..., 1])
        for column in range(tile.columns):
            block = part[:, column // BLOCK, -(32 if kind == Kind.Q8_0 else 16) :]
            at = column % BLOCK
            codes = block[:, at].view(np.int8) if kind == Kind.Q8_0 else block[:, at % 16] >> 4 * (at // 16) & 15
            np.testing.assert_array_equal(found.codes[:, column], codes)
        seen += part.shape[0] * part.shape[1]
    assert seen == blocks.shape[0] * blocks.shape[1]


@pytest.mark.parametrize(
    ("architecture", "kind", "mode", "more"),
    [
        ("llama", Kind.Q4_0, "auto", {"tied": True}),
        ("llama", Kind.Q8_0, "w8f16", {}),
        ("qwen2", Kind.Q4_1, "auto", {"others": {"ffn_down": Kind.Q5_0, "output": Kind.F16}}),
        ("qwen3", Kind.Q5_1, "auto", {}),
        ("phi3", Kind.Q4_0, "auto", {}),
        ("gemma2", Kind.Q4_1, "auto", {"tied": True}),
        ("gemma3", Kind.Q8_0, "auto", {"tied": True}),
    ],
)
def test_the_bmodel_computes_what_the_library_does(tmp_path, architecture, kind, mode, more):
    path = make_gguf(tmp_path / "model.gguf", architecture, kind, **more)
    bmodel = convert(ConvertOptions(path, LENGTH, mode, out_dir=tmp_path / "out"))
    assert bmodel is not None
    bits = 8 if kind in (Kind.Q8_0, Kind.Q5_1) else 4
    assert f"model_w{bits}{'f16' if mode == 'w8f16' else 'bf16'}_" in bmodel.name
    assert verify_file(bmodel, path) == 0
    text = Text(bmodel.parent / "config")
    assert len(text.encode("he said")) == len("he said") - 1
