"""DDR: what is shared between functions, what lies apart, and what clients rely on."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.ir.module import Builder, Function
from compiler.ir.types import BF16, F32, I32, TensorType
from compiler.target.chips.bm1684x import BM1684X
from compiler.weights.scheme import Scheme
from compiler.weights.tile import Tile
from dialects.builtin import FuncOp, ModuleOp, ReturnOp
from dialects.chip import GlobalOp, GlobalType
from dialects.nets import NetAttr, NetInput, NetOutput, NetPart, has_memory_of_its_own
from dialects.weights import Floats, Joined, Packed
from passes import load_all
from passes.chip.assign_addresses import globals_of, set_apart
from passes.manager import PassManager, parse_pipeline
from tests.helpers import check_pass

BASE = BM1684X.coeff_base


def region(name: str, space: str, size: int, address: int | None = None) -> str:
    where = "" if address is None else f", address = {address} : i64"
    return f'{name} = "chip.global"() <{{{space}{where}}}> : () -> !chip.global<bytes = {size}>'


def test_weights_come_first_then_inputs_and_outputs_then_scratch():
    spaces = (
        'space = "scratch"',
        'space = "output", index = 0 : i64, tensor = tensor<1x1xbf16>',
        'space = "input", index = 0 : i64, tensor = tensor<1x1xbf16>',
        'space = "weight", source = #weights.joined<names = ["w"], dtype = bf16>',
    )

    def program(attributes: str, *addresses: int | None) -> str:
        ops = [region(f"%{i}", s, 100 * (i + 1), a) for i, (s, a) in enumerate(zip(spaces, addresses, strict=True))]
        return f"""
        "builtin.module"() ({{
          "func.func"() <{{sym_name = "test", function_type = () -> ()}}> ({{
            {" ".join(ops)}
            "func.return"() : () -> ()
          }}) {attributes} : () -> ()
        }}) : () -> ()
        """

    page = 4096
    after = [BASE + 3 * page, BASE + 2 * page, BASE + page, BASE]
    record = f"bm.scratch_address = {BASE + page} : i64, bm.scratch_bytes = {3 * page} : i64"
    check_pass("assign-addresses", before=program("", *[None] * 4), after=program(f"{{{record}}}", *after))
    alone = (
        f"{KEPT}, bm.io_address = {BASE + page} : i64, bm.io_bytes = {2 * page} : i64, "
        f"bm.scratch_address = {BASE + 3 * page} : i64, bm.scratch_bytes = {page} : i64"
    )
    check_pass(
        "assign-addresses", before=program(f"{{{KEPT}}}", *[None] * 4), after=program(f"{{{alone}}}", *after)
    )


def test_weights_inputs_and_scratch_each_start_where_the_chip_has_them():
    """On BM1688: coefficients 0x90.., scratch 0xA0.., and I/O memory of its own 0x1.. with bit 39 in commands."""
    for alone in (False, True):
        function = function_of("f", [0], [("input", 10, False), ("output", 20, False)], [100])
        if alone:
            keep_inputs(function)
        PassManager(parse_pipeline("assign-addresses")).run(ModuleOp.of(function, target="bm1688"))
        weight, *io, scratch = (op.address for op in function.block.ops if isinstance(op, GlobalOp))
        assert weight == 0x90_0000_0000
        first = 0x81_0000_0000 if alone else 0xA0_0000_0000
        assert io == [first, first + 0x1000]
        assert scratch == 0xA0_0000_0000 + (0 if alone else 0x2000)
        assert function.attributes["bm.scratch_address"] == 0xA0_0000_0000
        assert function.attributes["bm.scratch_bytes"] == (0x1000 if alone else 0x3000)
        assert function.attributes.get("bm.io_address") == (0x81_0000_0000 if alone else None)
        assert function.attributes.get("bm.io_bytes") == (0x2000 if alone else None)


KEPT = (
    'bm.net = #bm.net<name = "n", inputs = [#bm.input<name = "x", kept = "session">], '
    'outputs = [#bm.output<name = "y">]>'
)
TILE = Tile(64, 64, Scheme(4, 64, True, BF16), BM1684X.lanes, BM1684X.eu_bytes)
SOURCES = [
    Joined(("a",), BF16),
    Joined(("a",), F32),
    Joined(("a", "b"), BF16),
    Packed(("a",), 0, 0, TILE),
    Packed(("a",), 64, 0, TILE),
    Floats((1.0, 2.0)),
]


def function_of(name: str, sources: list[int], io: list[tuple[str, int, bool]], scratch: list[int]) -> Function:
    function = FuncOp.with_args(name, [])
    build = Builder(function.block)
    for index in sources:
        build.add(GlobalOp(space="weight", source=SOURCES[index], types=[GlobalType(1000 * (index + 1))]))
    for number, (space, size, integer) in enumerate(io):
        type_ = TensorType((size,), I32 if integer else F32)
        build.add(GlobalOp(space=space, index=number, tensor=type_, types=[GlobalType(4 * size)]))
    for size in scratch:
        build.add(GlobalOp(space="scratch", types=[GlobalType(size)]))
    build.add(ReturnOp())
    return function


def keep_inputs(function: Function) -> None:
    """The client adds to some of its inputs, so that they need memory that no other net works in."""
    inputs = tuple(NetInput(f"input{i}", kept="session") for i in range(5))
    outputs = tuple(NetOutput(f"output{i}") for i in range(5))
    function.attributes["bm.net"] = NetAttr(function.sym_name, inputs=inputs, outputs=outputs)


FUNCTIONS = st.tuples(
    st.lists(st.sampled_from(range(len(SOURCES))), unique=True),
    st.lists(
        st.tuples(st.sampled_from(["input", "output"]), st.integers(1, 5000), st.booleans()), max_size=5
    ),
    st.lists(st.integers(1, 9000), max_size=3),
    st.booleans(),
)


@given(st.lists(FUNCTIONS, min_size=1, max_size=3))
def test_regions_of_a_function_do_not_overlap_and_equal_weights_are_one(parts):
    load_all()
    functions = []
    for number, (sources, io, scratch, alone) in enumerate(parts):
        functions.append(function_of(f"f{number}", sources, io, scratch))
        if alone:
            keep_inputs(functions[-1])
    PassManager(parse_pipeline("assign-addresses")).run(ModuleOp.of(*functions, target="bm1684x"))
    found: dict[object, int] = {}
    for function in functions:
        ops = [op for op in function.block.ops if isinstance(op, GlobalOp)]
        for op in ops:
            if op.space == "weight":
                assert found.setdefault(op.source, op.address) == op.address
        check_apart(ops)
        check_records(function, ops)


def check_apart(ops: list[GlobalOp]) -> None:
    for one, other in itertools.combinations(ops, 2):
        assert one.address is not None
        assert other.address is not None
        assert (
            one.address + one.buffer.type.bytes <= other.address
            or other.address + other.buffer.type.bytes <= one.address
        )


def check_records(function: Function, ops: list[GlobalOp]) -> None:
    """Every region lies within the memory that the net asks for."""
    a = function.attributes
    scratch = range(a["bm.scratch_address"], a["bm.scratch_address"] + a["bm.scratch_bytes"])
    io = range(a.get("bm.io_address", 0), a.get("bm.io_address", 0) + a.get("bm.io_bytes", 0))
    for op in ops:
        if op.space != "weight":
            home = io if has_memory_of_its_own(function) and op.space != "scratch" else scratch
            assert op.address in home
            assert op.address + op.buffer.type.bytes - 1 in home


def test_floats_come_before_integers_so_that_states_of_all_nets_start_alike():
    function = function_of("f", [], [("input", 10, True), ("output", 20, False)], [])
    PassManager(parse_pipeline("assign-addresses")).run(ModuleOp.of(function, target="bm1684x"))
    ids, states = (op for op in function.block.ops if isinstance(op, GlobalOp))
    assert (states.address, ids.address) == (BASE, BASE + 4096)


@pytest.mark.parametrize("target", ["bm1684x", "bm1688"])
def test_stages_have_inputs_and_outputs_where_the_largest_has_them(target):
    sizes = [(1000, 5000, 10), (1000, 2500, 10), (1200, 1200, 10)]
    functions = []
    for stage, floats in enumerate(sizes):
        io = [("input", floats[0], False), ("input", floats[1], False), ("input", 1, True), ("output", 10, False)]
        functions.append(function_of(f"f{stage}", [], io, [100 * (stage + 1)]))
        keep_inputs(functions[-1])
        functions[-1].attributes["bm.net"] = replace(functions[-1].attributes["bm.net"], name="f", stage=stage)
    PassManager(parse_pipeline("assign-addresses")).run(ModuleOp.of(*functions, target=target))
    page, places = 4096, [[op.address for op in globals_of(f, "input", "output", "scratch")] for f in functions]
    first, *_ = places
    assert [address - first[0] for address in first[:4]] == [0, 2 * page, 8 * page, 7 * page]
    assert places == [first] * 3
    assert {f.attributes["bm.io_bytes"] for f in functions} == {9 * page}
    assert {f.attributes["bm.io_address"] for f in functions} == {first[0]}


def test_what_flexible_nets_keep_lies_behind_all_that_others_work_in():
    kept = NetAttr("kept", inputs=(NetInput("x", kept="session"),), flexible=True)
    other = NetAttr("other", inputs=(NetInput("x"),))
    functions = []
    for net, size in ((other, 3 * 4096), (kept, 100)):
        function = FuncOp.with_args(net.name, [])
        function.attributes["bm.net"] = net
        builder = Builder(function.block)
        tensor = TensorType((1, size // 2), BF16)
        builder.add(GlobalOp(space="input", index=0, tensor=tensor, types=[GlobalType(size)]))
        builder.add(GlobalOp(space="scratch", types=[GlobalType(64)]))
        builder.add(ReturnOp())
        functions.append(function)
        PassManager(parse_pipeline("assign-addresses")).run(ModuleOp.of(function, target="bm1684x"))
    assert not has_memory_of_its_own(functions[1])
    set_apart(functions)
    first, second = ([op.address - BASE for op in globals_of(f, "input", "scratch")] for f in functions)
    assert (first, second) == ([0, 3 * 4096], [4 * 4096, 5 * 4096])
    assert [f.attributes["bm.scratch_bytes"] for f in functions] == [4 * 4096, 6 * 4096]


def test_cores_share_inputs_outputs_and_what_they_exchange_but_no_scratch():
    first, second = (core_of(number) for number in range(2))
    PassManager(parse_pipeline("assign-addresses")).run(ModuleOp.of(first, second, target="bm1688"))
    pages = [
        {space: [(op.address - 0xA0_0000_0000) // 4096 for op in globals_of(each, space)] for space in SPACES}
        for each in (first, second)
    ]
    assert pages[0] == {"input": [0], "output": [1], "shared": [2, 3], "scratch": [4]}
    assert pages[1] == {"input": [0], "output": [1], "shared": [2, 3], "scratch": [5, 6]}
    assert {each.attributes["bm.scratch_bytes"] for each in (first, second)} == {7 * 4096}


SPACES = ("input", "output", "shared", "scratch")


def core_of(number: int) -> Function:
    scratch = [100] * (1 + number)
    function = function_of(f"f.{number}", [], [("input", 10, False), ("output", 20, False)], scratch)
    for index in range(2):
        op = GlobalOp(space="shared", index=index, types=[GlobalType(100)])
        function.block.insert_before(function.terminator, op)
    part = NetPart(core=number, cores=2)
    inputs, outputs = (NetInput("a"), NetInput("b")), (NetOutput("y"), NetOutput("z"))
    function.attributes["bm.net"] = NetAttr("f", inputs=inputs, outputs=outputs, part=part)
    return function
