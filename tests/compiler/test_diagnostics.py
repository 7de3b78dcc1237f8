import pytest

import tests.compiler.ir.toy  # noqa: F401  (registers its ops)
from compiler.diagnostics import CompileError, UserError
from compiler.ir.location import UNKNOWN, FileLoc, NameLoc
from tests.helpers import parse_ir

TEXT = """
    %w = "toy.weight"() <{name = "w"}> : () -> tensor<16xf32>
    %y = "toy.norm"(%x, %w) <{eps = 1.0e-06 : f64}> : (tensor<4x16xf32>, tensor<16xf32>) -> tensor<4x16xf32>
"""


def failing_op(loc: str):
    module, _ = parse_ir(f"{TEXT.rstrip()} {loc}", "block.mlir")
    return module.function("test").block.ops[1]


def test_one_line_names_the_module_first():
    with pytest.raises(CompileError, match=r"^layers\.0\.norm: 'toy\.norm' op is 3, not 4$"):
        failing_op('loc("layers.0.norm")').fail("is 3, not 4")


def test_layout_of_a_whole_diagnostic():
    with pytest.raises(CompileError) as caught:
        failing_op('loc("layers.0.norm")').fail("is 3, not 4", notes=["in pass a"])
    assert caught.value.render().splitlines() == [
        "block.mlir:2:6: error: 'toy.norm' op is 3, not 4",
        '    %y = "toy.norm"(%x, %w) <{eps = 1.0e-06 : f64}> : '
        "(tensor<4x16xf32>, tensor<16xf32>) -> tensor<4x16xf32>",
        "note: from layers.0.norm",
        "note: in pass a",
    ]


def test_an_unknown_origin_is_left_out():
    error = CompileError("bad", UNKNOWN)
    assert (str(error), error.render()) == ("bad", "error: bad")
    op = failing_op("")
    with pytest.raises(CompileError) as caught:
        op.fail("bad")
    assert "note: from" not in caught.value.render()


def test_without_a_text_position_the_origin_leads():
    assert CompileError("bad", NameLoc("layers.0")).render() == "layers.0: error: bad"
    assert UserError("bad", position=FileLoc("a.json", 1, 2)).render() == "a.json:1:2: error: bad"


def test_exit_codes():
    assert (CompileError("").exit_code, UserError("").exit_code) == (1, 2)
