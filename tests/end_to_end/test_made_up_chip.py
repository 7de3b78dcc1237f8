"""A chip is one file: models are compiled for one that nobody makes, and run on it in the simulator."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compiler.bmodel import CommandStreams, read_bmodel
from compiler.target import chips
from compiler.target.chips import CHIPS
from driver.convert import check_model
from driver.options import ConvertOptions
from frontend.config import read_config
from tests.end_to_end.tiny import ROUNDING, ROUNDING_F16, SUMMING, Tiny, check_close

# BM1684X with other numbers: lanes, their memory and banks, the width of the vector unit, and where memories lie.
FILE = '''"""A chip that nobody makes."""

import dataclasses

from compiler.target.chips.bm1684x import BM1684X
from compiler.target.spec import KIB

MADE_UP = dataclasses.replace(
    BM1684X, name="made_up", chip="MADEUP", bmodel_tail="{cores}made", lanes=32, lane_bytes=128 * KIB, banks=8,
    eu_bytes=32, mm_k_block=8, static_bytes=8 * KIB, dma_local_base=0x0400_0000, coeff_base=0x2_0000_0000,
    neuron_base=0x3_0000_0000, io_base=0x4_0000_0000, io_tag=0x8_0000_0000,
)
'''


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Its name, while its file lies among those of the chips."""
    (tmp_path / "made_up.py").write_text(FILE)
    monkeypatch.setattr(chips, "__path__", [*chips.__path__, str(tmp_path)])
    for name, spec in chips.records([str(tmp_path)]).items():
        monkeypatch.setitem(CHIPS, name, spec)
    yield "made_up"
    del sys.modules["compiler.target.chips.made_up"]


CASES = [  # a norm, rope, attention, and tiles of each kind; heads of 32, of 48, and fewer than rows
    ("qwen3", "w4bf16", {"heads": 2, "kv_heads": 1, "head_dim": 64}),
    ("qwen2", "bf16", {"heads": 3, "kv_heads": 3}),
    ("llama", "w8f16", {"heads": 4, "kv_heads": 2, "head_dim": 48}),
]


@pytest.mark.parametrize(("family", "mode", "sizes"), CASES)
def test_a_model_for_a_chip_that_nobody_makes(made_up, tiny_checkpoint, tmp_path, family, mode, sizes):
    model = compiled(tiny_checkpoint(family, **SMALL | sizes), mode, made_up, tmp_path)
    check_stages(model, ROUNDING if mode.endswith("bf16") else ROUNDING_F16)
    assert model.path.name.endswith(f"{mode}_seq40_made_up_1made_static.bmodel")


@pytest.mark.parametrize(("family", "mode", "sizes"), CASES)
def test_a_model_for_one_core_of_bm1688(tiny_checkpoint, tmp_path, family, mode, sizes):
    model = compiled(tiny_checkpoint(family, **SMALL | sizes), mode, "bm1688", tmp_path)
    check_stages(model, ROUNDING if mode.endswith("bf16") else ROUNDING_F16)
    (stage,) = read_bmodel(model.path).net("block_cache_0").stages
    assert stage.coeff is not None
    bases = stage.ctx_address, stage.io_address, stage.inputs[0].address, stage.coeff.address
    assert bases == (0xA0_0000_0000, 0x1_0000_0000, 0x1_0000_0000, 0x90_0000_0000)  # as in the vendor's files


def test_a_core_of_bm1688_runs_what_cv186ah_does(tiny_checkpoint, tmp_path):
    checkpoint = tiny_checkpoint("qwen3", **SMALL)
    one, other = (compiled(checkpoint, "w4bf16", chip, tmp_path / chip).path for chip in ("bm1688", "cv186ah"))
    assert programs(one) == programs(other)


def programs(path: Path) -> list[tuple[str, list[CommandStreams], bytes | None]]:
    """Of each net, its streams and the hash of its weights."""
    stages = [(net.name, net.stages[0]) for net in read_bmodel(path).nets]
    return [(name, stage.cores, stage.coeff and stage.coeff.check_code) for name, stage in stages]


SMALL = {"layers": 1, "hidden": 96, "intermediate": 160, "vocab": 300}


def compiled(checkpoint: Path, mode: str, chip: str, folder: Path) -> Tiny:
    options = ConvertOptions(checkpoint, 40, mode, q_group_size=32, chip=chip, num_core=1, out_dir=folder / "out")
    check_model(options, read_config(options.model_path))
    return Tiny(options)


def check_stages(model: Tiny, rounding: float) -> None:
    """Each stage of each net computes what the one before does; prefill and decode, embedding and head."""
    for name, net in model.nets.items():
        inputs = model.inputs(net)
        llm, tensor, chip, placed, file = (
            model.run(net, stage, inputs) for stage in ("llm", "tensor", "chip", "placed", "file")
        )
        check_close(net, tensor, llm, rounding)
        check_close(net, chip, tensor, SUMMING)
        for one, other in ((chip, placed), (placed, file)):
            assert [x.tobytes() for x in one] == [x.tobytes() for x in other], name
