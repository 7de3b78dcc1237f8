"""Dumps of every level are MLIR: LLVM's own parser reads and verifies them, and finds in them what we wrote.

The parser is that of iree-base-compiler, the extra `mlir`; `make mlir-check` installs it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import dialects
from compiler.ir.core import Op
from compiler.ir.module import walk
from compiler.ir.parser import parse_module
from compiler.ir.printer import print_module
from driver.convert import convert
from driver.options import ConvertOptions

pytestmark = pytest.mark.mlir

SMALL = {"layers": 1, "hidden": 128, "heads": 2, "kv_heads": 1, "intermediate": 256, "vocab": 256}
LEVELS = {"llm": "llm.", "tensor": "tensor.", "chip": "chip.", "addresses": "address = ", "waits": "chip.wait"}

Read = Callable[[str], str]


@pytest.fixture(scope="module")
def read() -> Read:
    """Parse and verify a text; its generic form as LLVM prints it, without locations."""
    ir = pytest.importorskip("iree.compiler.ir", reason="make mlir-check installs LLVM's parser")

    def check(text: str) -> str:
        with ir.Context() as context:
            context.allow_unregistered_dialects = True
            module = ir.Module.parse(renamed(text))
            assert module.operation.verify()
            return module.operation.get_asm(print_generic_op_form=True).replace("bmtensor.", "tensor.")

    return check


def renamed(text: str) -> str:
    """Upstream MLIR has a dialect of its own called tensor, in which it knows every op."""
    return re.sub(r"([\"!#])tensor\.", r"\1bmtensor.", text)


@pytest.fixture(scope="module")
def dumps(tiny_checkpoint, tmp_path_factory) -> list[Path]:
    """Those of a tiny model, of each of its modules after each pass."""
    folder = tmp_path_factory.mktemp("mlir")
    model = tiny_checkpoint("qwen3", **SMALL)
    convert(ConvertOptions(model, 64, "w4bf16", out_dir=folder / "out", dump_ir=folder / "ir"))
    return sorted((folder / "ir").glob("*.mlir"))


def same_order(root: Op) -> Op:
    """LLVM sorts the attributes that an op does not declare."""
    for op in walk(root):
        declared = op.schema.attribute_names
        op.attributes = dict(sorted(op.attributes.items(), key=lambda item: (item[0] not in declared, item[0])))
    return root


def test_dumps_of_every_level_are_what_llvm_reads(read, dumps):
    dialects.load_all()
    texts = {path.name: path.read_text() for path in dumps}
    for name, text in texts.items():
        again = parse_module(read(text), name)
        mine = parse_module(text, name)
        assert print_module(same_order(again), names=False, locations=False) == print_module(
            same_order(mine), names=False, locations=False
        ), name
    for level, sign in LEVELS.items():
        assert any(sign in text for text in texts.values()), level
    for part in ("\n#", "\n!", " loc(fused["):
        assert any(part in text for text in texts.values()), part


TEXT = """\
#row = #tensor.lanes<axis = 1>
"builtin.module"() ({
  "func.func"() <{sym_name = "f", function_type = (tensor<4x8xf32, #row>) -> tensor<4x8xf32, #row>}> ({
  ^bb0(%x: tensor<4x8xf32, #row>):
    %0 = "tensor.add"(%x) <{scalar = 1.0e-06 : f64}> {bm.note = true} : (tensor<4x8xf32, #row>) -> tensor<4x8xf32, #row> loc("a")
    "func.return"(%0) : (tensor<4x8xf32, #row>) -> ()
  }) : () -> ()
}) {bm.chip = "bm1684x"} : () -> ()
"""
BROKEN = {  # what is written: what is written instead
    "an alias that nothing defines": ("#row = #tensor.lanes<axis = 1>\n", ""),
    "an alias that is defined later": ("-> ()\n", "-> ()\n#row = #tensor.lanes<axis = 1>\n"),
    "an alias with a dot": ("#row", "#the.row"),
    "a float without a point": ("1.0e-06", "1e-6"),
    "a bare word": ("1.0e-06 : f64", "u4"),
    "an op without quotes": ('"tensor.add"', "tensor.add"),
    "a string that does not end": ('loc("a")', 'loc("a)'),
    "a value that nothing defines": ('"func.return"(%0)', '"func.return"(%1)'),
    "another type of a value": ('"tensor.add"(%x) <{scalar = 1.0e-06 : f64}> {bm.note = true} : (tensor<4x8', '"tensor.add"(%x) : (tensor<4x9'),
    "arguments that are not the function's": ("^bb0(%x: tensor<4x8xf32, #row>)", "^bb0(%x: tensor<4x8xf16, #row>)"),
    "results that are not the function's": ("-> tensor<4x8xf32, #row>}>", "-> f32}>"),
    "a module's attribute without a dialect": ("bm.chip", "chip"),
    "no end": ('}) {bm.chip = "bm1684x"} : () -> ()', ""),
}


def test_a_module_by_hand_is_read(read):
    read(TEXT)


@pytest.mark.parametrize("case", BROKEN)
def test_broken_text_is_refused(read, case):
    written, instead = BROKEN[case]
    assert written in TEXT
    text = TEXT.replace(written, instead)
    if case == "an alias that is defined later":
        text = text.removeprefix("#row = #tensor.lanes<axis = 1>\n")
    with pytest.raises(Exception, match="Unable to parse module assembly"):
        read(text)
