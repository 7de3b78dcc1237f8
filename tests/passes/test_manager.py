import io
import sys

import pytest

from compiler.diagnostics import CompileError, UserError
from compiler.ir.module import Module
from compiler.ir.parser import parse_module
from compiler.ir.printer import print_module
from dialects.contents import READY, Content, contents
from passes import load_all
from passes.manager import (
    PASSES,
    Pass,
    PassManager,
    check_order,
    list_passes,
    parse_pipeline,
    passes_left,
    pipeline_text,
)
from tests.helpers import parse_ir
from tests.passes.toy_passes import IR, Break, Crash, Fuse, Options

load_all()


@pytest.fixture
def module() -> Module:
    return parse_ir(IR, "ir.mlir")[0]


def opnames(module: Module) -> list[str]:
    return [op.opname for op in module.function("test").block.ops]


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("", []),
        ("toy-fuse", [Fuse()]),
        (" toy-fuse , toy-options{count=3} ", [Fuse(), Options(3)]),
        (
            "toy-options{count=0x10 share=1e-3 fast=true word=some sizes=1,2 limit=4},toy-fuse",
            [Options(16, 0.001, True, "some", (1, 2), 4), Fuse()],
        ),
        ("toy-options{count=1 fast limit=none}", [Options(1, fast=True)]),
    ],
)
def test_pipelines_parse_and_print(text, passes):
    assert parse_pipeline(text) == passes
    assert parse_pipeline(pipeline_text(passes)) == passes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("toy-fuze", "unknown pass 'toy-fuze'; known: .*toy-fuse"),
        ("toy-fuse{x=1}", "pass toy-fuse has no option 'x'; known: none"),
        ("toy-options{counts=1}", "no option 'counts'; known: count, share, fast, word, sizes, limit"),
        ("toy-options", "pass toy-options needs option 'count'"),
        ("toy-options{count=many}", "option count of pass toy-options is 'many', expected a whole number"),
        ("toy-options{count=1 fast=yes}", "option fast of pass toy-options is 'yes', expected true or false"),
        ("toy-options{count=1", "braces do not match"),
        ("toy-options{count=1}}", "braces do not match"),
        ("toy-options{count=1 count=2}", "given option count twice"),
        (",", "a comma without a pass"),
        ("toy-fuse,,toy-fuse", "a comma without a pass"),
        ("toy-fuse,", "a comma without a pass"),
        ("quantize-weights{bits=3}", "option bits of pass quantize-weights is '3', expected 4, 8 or 16"),
        ("quantize-weights{group=-1}", "expected a number from 0 on"),
        ("tile-weights{bytes=-1}", "expected a number from 0 on"),
        ("share-constants{keep=-5}", "expected a number from 0 on"),
        ("llm-to-tensor{tokens=-64}", "expected a number from 0 on"),
        ("llm-to-tensor{tail=-1}", "expected a number from 0 on"),
        ("hoist-loads{fill=nan}", "expected a number from 0 to 1"),
        ("hoist-loads{fill=2}", "expected a number from 0 to 1"),
        ("hoist-loads{fill=0.5,block=2}", "expected a number from 0 to 1"),
        (f"toy-options{{count={'9' * 5000}}}", r"is '9{60}\.\.\.', expected a whole number"),
    ],
)
def test_wrong_pipelines_are_the_users_mistake(text, message):
    with pytest.raises(UserError, match=message):
        parse_pipeline(text)


LLM_PART = "canonicalize,fuse-swiglu,fuse-qkv,fuse-gate-up,fuse-residual,quantize-weights"
TENSOR_PART = "llm-to-tensor,tile-weights,share-constants,tensor-to-chip"
CHIP_PART = "hoist-stores,hoist-loads,allocate-local,assign-addresses,insert-waits"


def order_of(text: str) -> Content:
    return check_order(parse_pipeline(text), Content.LLM, "the model")


def test_the_default_order_ends_in_what_can_be_encoded():
    assert order_of(f"{LLM_PART},{TENSOR_PART},{CHIP_PART}") == READY


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{TENSOR_PART},allocate-local,hoist-loads", "allocate-local, before it, leaves placed: run it before"),
        (f"{TENSOR_PART},allocate-local,hoist-stores", "allocate-local, before it, leaves placed"),
        (f"{TENSOR_PART},allocate-local,insert-waits,hoist-loads", "leaves placed"),
        (f"{TENSOR_PART},{CHIP_PART},insert-waits", "insert-waits, before it, leaves ordered: once is enough"),
        (f"{TENSOR_PART},insert-waits", "leaves unplaced: run allocate-local first"),
        (f"{TENSOR_PART},allocate-local,allocate-local", "leaves placed: once is enough"),
        (f"{TENSOR_PART},assign-addresses,assign-addresses", "leaves addressed: once is enough"),
        (f"{TENSOR_PART},share-constants", "tensor-to-chip, before it, leaves chip: run it before tensor-to-chip"),
        ("llm-to-tensor,tile-weights,tile-weights", "leaves tiled: once is enough"),
        ("llm-to-tensor,tensor-to-chip", "leaves whole: run tile-weights first"),
        ("llm-to-tensor,fuse-swiglu", "leaves tensor: run it before llm-to-tensor"),
        ("tile-weights", "the model has llm: run llm-to-tensor first"),
        ("allocate-local", "the model has llm"),
        ("llm-to-tensor,llm-to-tensor", "leaves tensor: once is enough"),
    ],
)
def test_a_pass_does_not_run_where_it_would_break_the_program(text, message):
    with pytest.raises(UserError, match=message):
        order_of(text)


def test_the_order_is_that_of_the_ir_itself():
    """A pipeline that continues a dump starts from what the dump holds."""
    module = parse_ir('%a = "chip.local"() <{offset = 0 : i64}> : () -> !chip.local<bytes = 64>')[0]
    with pytest.raises(UserError, match=r"hoist-loads takes .*\na.mlir has placed"):
        PassManager(parse_pipeline("hoist-loads"), source="a.mlir").run(module)


def test_passes_are_listed_with_their_options():
    lines = list_passes().splitlines()
    usage = "toy-options{count share=0.5 fast=false word=none sizes= limit=none}"
    assert f"{usage} toy -> toy. Mark every silu." in lines
    assert len([line for line in lines if not line.startswith(" ")]) == len(PASSES)
    assert "    takes chip, placed, unaddressed, addressed, unordered; ends unordered; leaves ordered" in lines


def test_a_pass_name_is_used_once():
    with pytest.raises(AssertionError, match="toy-fuse is defined twice"):
        type("Again", (Pass,), {"name": "toy-fuse"})


def test_passes_run_in_order(module):
    assert PassManager(parse_pipeline("toy-options{count=1},toy-fuse")).run(module) == []
    assert opnames(module) == ["toy.swiglu", "func.return"]


def test_stop_after_leaves_the_rest(module):
    manager = PassManager(parse_pipeline("toy-options{count=1},toy-fuse"), stop_after="toy-options")
    assert manager.run(module) == [Fuse()]
    assert opnames(module) == ["toy.silu", "toy.mul", "func.return"]


def test_stopping_after_an_absent_pass_is_the_users_mistake():
    with pytest.raises(UserError, match="'toy-break' is not in the pipeline toy-fuse"):
        PassManager([Fuse()], stop_after="toy-break")


def test_dumps_can_be_continued(module, tmp_path):
    passes = parse_pipeline("toy-options{count=7},toy-fuse")
    PassManager(passes, dump_dir=tmp_path / "ir", dump_prefix="block_0").run(module)
    files = {path.name: path.read_text() for path in sorted((tmp_path / "ir").iterdir())}
    assert list(files) == [
        "block_0.00.input.mlir",
        "block_0.01.toy-options.mlir",
        "block_0.02.toy-fuse.mlir",
    ]
    assert [passes_left(text) for text in files.values()] == ["toy-options{count=7},toy-fuse", "toy-fuse", ""]
    for text in files.values():
        resumed = parse_module(text)
        PassManager(parse_pipeline(passes_left(text) or "")).run(resumed)
        assert print_module(resumed) == print_module(module)
    assert passes_left(print_module(module)) is None


def test_an_error_points_into_the_dump_before_the_pass(module, tmp_path):
    manager = PassManager(parse_pipeline("toy-options{count=1},toy-refuse"), dump_dir=tmp_path)
    with pytest.raises(CompileError) as caught:
        manager.run(module)
    dump = tmp_path / "module.01.toy-options.mlir"
    position = f"{dump}:5:10"
    assert '"toy.silu"' in dump.read_text().splitlines()[4][9:]
    lines = caught.value.render().splitlines()
    assert lines[0] == f"{position}: error: 'toy.silu' op is not wanted"
    assert lines[2:] == [
        "note: from mlp.act",
        f"note: in pass toy-refuse; reproduce with: llm_opt.py {dump} -p 'toy-refuse'",
    ]


def test_without_dumps_the_whole_pipeline_reproduces_an_error(module):
    with pytest.raises(CompileError) as caught:
        PassManager(parse_pipeline("toy-options{count=1},toy-refuse"), source="a.mlir").run(module)
    assert caught.value.notes == [
        "in pass toy-refuse; reproduce with: llm_opt.py a.mlir -c bm1684x -p 'toy-options{count=1},toy-refuse'"
    ]


def test_ir_is_verified_after_each_pass(module):
    with pytest.raises(CompileError, match="weight is") as caught:
        PassManager([Break(), Fuse()]).run(module)
    assert "in pass toy-break" in caught.value.render()
    assert "toy.mul" in opnames(module)


class Quiet(Break):
    """Says that it only moves ops."""

    name = "toy-quiet"
    changes = ()


@pytest.mark.parametrize(
    ("passes", "stop_after", "found_by"),
    [([Quiet(), Fuse()], None, "toy-fuse"), ([Quiet()], None, "toy-quiet"), ([Quiet(), Fuse()], "toy-quiet", "toy-quiet")],
)
def test_what_a_pass_is_to_leave_alone_is_verified_after_the_last_one(module, passes, stop_after, found_by):
    with pytest.raises(CompileError, match="weight is") as caught:
        PassManager(passes, stop_after=stop_after).run(module)
    assert f"in pass {found_by}" in caught.value.render()


def test_the_order_is_verified_after_each_pass(module):
    class Swap(Pass):
        name = "toy-swap"
        changes = ()

        def run(self, module):
            first, second, *_ = module.functions()[0].block.ops
            second.detach()
            first.parent.insert_before(first, second)

    with pytest.raises(CompileError, match="used before its definition") as caught:
        PassManager([Swap(), Fuse()]).run(module)
    assert "in pass toy-swap" in caught.value.render()


def test_verification_may_be_off(module):
    PassManager([Break()], verify_each=False).run(module)
    with pytest.raises(CompileError, match="weight is"):
        PassManager([]).run(module)


def test_our_own_mistakes_keep_their_traceback_and_say_how_to_see_them_again(module):
    with pytest.raises(AssertionError, match="ours") as caught:
        PassManager([Crash()], source="a.mlir").run(module)
    note = "note: in pass toy-crash; reproduce with: llm_opt.py a.mlir -c bm1684x -p 'toy-crash'"
    if sys.version_info >= (3, 11):  # before that, exceptions carry no notes
        assert caught.value.__notes__ == [note]


def test_ir_is_printed_after_named_passes_and_after_changes(module):
    passes = parse_pipeline("toy-options{count=1},toy-fuse,toy-fuse")
    stream = io.StringIO()
    PassManager(passes, print_after=["toy-options"], stream=stream).run(parse_ir(IR)[0])
    assert stream.getvalue().count("// IR after") == 1
    assert stream.getvalue().startswith("// IR after toy-options{count=1}\n")
    stream = io.StringIO()
    PassManager(passes, print_after_change=True, stream=stream).run(module)
    assert stream.getvalue().count("// IR after toy-fuse") == 1


def test_time_is_summed_over_modules():
    manager = PassManager([Fuse()])
    manager.run(parse_ir(IR)[0])
    once = manager.seconds["toy-fuse"]
    manager.run(parse_ir(IR)[0])
    assert manager.seconds["toy-fuse"] > once > 0
    assert manager.timing_report().splitlines()[1].endswith("toy-fuse")


def test_a_module_holds_what_each_of_its_ops_does():
    module = parse_ir(
        '%g = "chip.global"() <{space = "scratch"}> : () -> !chip.global<bytes = 64>\n'
        '%a = "chip.local"() : () -> !chip.local<bytes = 64>\n'
        '%b = "chip.local"() <{offset = 64 : i64}> : () -> !chip.local<bytes = 64>\n'
    )[0]
    assert contents(module) == Content.CHIP | Content.UNADDRESSED | Content.UNPLACED | Content.PLACED


LEFT = {  # the conversion: an op of the dialect that it converts
    "llm-to-tensor": '%y = "llm.neg"(%x) : (tensor<4x8xbf16>) -> tensor<4x8xbf16> loc("mlp.act")',
    "tensor-to-chip": '%y = "tensor.exp2"(%x) : (tensor<4x8xf32, #tensor.lanes<axis = 0>>)'
    ' -> tensor<4x8xf32, #tensor.lanes<axis = 0>> loc("mlp.act")',
}


@pytest.mark.parametrize("name", LEFT)
def test_a_conversion_leaves_no_op_of_the_dialect_that_it_converts(name, monkeypatch):
    """One that does nothing is found out, by the op and its place."""
    (conversion,) = parse_pipeline(name)
    module, _ = parse_ir(LEFT[name])
    monkeypatch.setattr(type(conversion), "run", lambda self, module: None)
    dialect = name.partition("-")[0]
    with pytest.raises(CompileError, match=f"'{dialect}.* op is left behind: {name} ends {dialect}") as caught:
        PassManager([conversion], source="a.mlir").run(module)
    assert str(caught.value.loc) == "mlp.act"
