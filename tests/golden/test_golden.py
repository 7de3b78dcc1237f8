"""One layer and the head of a small model, as the levels of the IR show them."""

from __future__ import annotations

import pytest

from compiler.ir.module import Function
from compiler.ir.printer import print_module
from dialects.builtin import ModuleOp
from driver.options import ConvertOptions
from tests.end_to_end.tiny import Tiny

SMALL = {"layers": 1, "hidden": 128, "heads": 2, "kv_heads": 1, "intermediate": 256, "vocab": 256}
TEXTS = [  # net, stage, and the name of the level
    ("block_0", "llm", "llm"),
    ("block_0", "tensor", "tensor"),
    ("block_cache_0", "llm", "llm"),
    ("block_cache_0", "tensor", "tensor"),
    ("lm_head", "placed", "chip"),
]


@pytest.fixture(scope="module")
def model(tiny_checkpoint, tmp_path_factory) -> Tiny:
    out = tmp_path_factory.mktemp("golden") / "out"
    return Tiny(ConvertOptions(tiny_checkpoint("qwen3", **SMALL), 64, "w4bf16", out_dir=out))


def text_of(function: Function) -> str:
    return print_module(ModuleOp.of(function.clone()))


@pytest.mark.parametrize(("net", "stage", "level"), TEXTS)
def test_ir_is_as_reviewed(model, golden, net, stage, level):
    golden(f"{net}.{level}.mlir", text_of(model.nets[net].stages[stage]))
