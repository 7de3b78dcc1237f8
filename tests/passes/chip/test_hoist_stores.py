"""Stores are issued as soon as what they store is there, and nothing that they read or write is disturbed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialects.chip import GlobalOp, Instruction
from passes.manager import PassManager, parse_pipeline
from runtime_sim.interpret.chip import run_function
from tests.helpers import check_pass
from tests.passes.chip.random_programs import moves, program_of
from tests.passes.programs import SPEC

LOCAL, DDR = "!chip.local<bytes = 192>", "!chip.global<bytes = 12288>"
ROW = {LOCAL: 64, DDR: 4096}  # bytes from one row of 64 x 16 numbers to the next


def region(name: str, space: str = "output", index: int = 0) -> str:
    place = "" if space == "scratch" else f", index = {index} : i64"
    return f'%{name} = "chip.global"() <{{space = "{space}"{place}}}> : () -> {DDR}\n'


def local(name: str) -> str:
    return f'%{name} = "chip.local"() : () -> {LOCAL}\n'


def view(type_: str, row: int) -> str:
    return f"#chip.view<dtype = f32, offset = {row * ROW[type_]}>"


def dma(target: str, source: str, types: tuple[str, str], rows: tuple[int, int]) -> str:
    res, opd0 = (view(type_, row) for type_, row in zip(types, rows, strict=True))
    return f"""
      "chip.dma"({target}, {source}) <{{kind = "copy", shape = array<i64: 1, 64, 1, 16>, res = {res},
          opd0 = {opd0}}}> : ({types[0]}, {types[1]}) -> ()
    """


def load(target: str, source: str, to: int = 0, row: int = 0) -> str:
    return dma(target, source, (LOCAL, DDR), (to, row))


def store(target: str, source: str, to: int = 0, row: int = 0) -> str:
    return dma(target, source, (DDR, LOCAL), (to, row))


def move(target: str, source: str) -> str:
    return dma(target, source, (DDR, DDR), (0, 0))


def half(row: int) -> str:
    """Each second line of 16 numbers of a region, from the first or the second on."""
    return f"#chip.view<dtype = f32, offset = {64 * row}, strides = [0, 32, 0, 1]>"


def in_halves(command: str, row: int) -> str:
    """A load or store of row 0 of a region that touches such lines there instead."""
    target, source = ("res", "opd0") if "(%y" in command else ("opd0", "res")
    assert f"{target} = {view(DDR, 0)}" in command
    assert f"{source} = {view(LOCAL, 0)}" in command
    return command.replace(f"{target} = {view(DDR, 0)}", f"{target} = {half(row)}")


def copy(target: str, source: str, to: int = 0, row: int = 0) -> str:
    return f"""
      "chip.ar"({target}, {source}) <{{kind = "copy", shape = array<i64: 1, 64, 1, 16>, round = 0 : i64,
          res = {view(LOCAL, to)}, opd0 = {view(LOCAL, row)}, operandSegmentSizes = array<i32: 1, 1, 0>}}>
          : ({LOCAL}, {LOCAL}) -> ()
    """


HEAD = region("y") + region("z", "output", 1) + region("t", "scratch") + "".join(map(local, "abcd"))
WORK = copy("%d", "%c") + copy("%c", "%d")


def test_a_store_moves_up_behind_the_instruction_that_makes_its_data():
    check_pass(
        "hoist-stores",
        before=HEAD + copy("%b", "%a") + WORK + store("%y", "%b"),
        after=HEAD + copy("%b", "%a") + store("%y", "%b") + WORK,
    )


def test_stores_to_the_same_place_move_up_and_keep_their_order():
    pair = store("%y", "%b") + store("%y", "%b", row=1)
    check_pass(
        "hoist-stores",
        before=HEAD + copy("%b", "%a") + WORK + pair,
        after=HEAD + copy("%b", "%a") + pair + WORK,
    )


PASSED = {
    "reads of its data": copy("%d", "%b"),
    "writes of another row of its buffer": copy("%b", "%a", to=1),
    "a load of another row of its region": load("%d", "%y", row=1),
    "an earlier store of the same data, which has to wait": load("%d", "%z") + store("%z", "%b"),
    "an earlier store to another row, which has to wait": load("%d", "%y", row=1) + store("%y", "%b", to=1),
}


@pytest.mark.parametrize("case", PASSED)
def test_a_store_passes(case):
    check_pass(
        "hoist-stores",
        before=HEAD + copy("%b", "%a") + PASSED[case] + store("%y", "%b"),
        after=HEAD + copy("%b", "%a") + store("%y", "%b") + PASSED[case],
    )


def test_a_store_passes_loads_and_stores_of_lines_between_its_own():
    ours = in_halves(store("%y", "%b"), 1)
    others = in_halves(load("%d", "%y"), 0) + load("%c", "%z") + in_halves(store("%y", "%c"), 0)
    check_pass(
        "hoist-stores",
        before=HEAD + copy("%b", "%a") + others + ours,
        after=HEAD + copy("%b", "%a") + ours + others,
    )


STOPPING = {
    "an overwrite of its data": copy("%b", "%a") + WORK + copy("%b", "%c"),
    "a load into its data": copy("%b", "%a") + WORK + load("%b", "%t"),
    "a load of what it overwrites": copy("%b", "%a") + WORK + load("%c", "%y"),
    "a store to the same place": copy("%b", "%a") + WORK + load("%d", "%y") + store("%y", "%c"),
    "a load of lines that it overwrites": copy("%b", "%a") + WORK + in_halves(load("%c", "%y"), 1),
    "a store to lines that it overwrites": load("%b", "%z") + in_halves(store("%y", "%b"), 1),
    "a copy of what it overwrites": copy("%b", "%a") + load("%d", "%z") + move("%z", "%y"),
}


@pytest.mark.parametrize("case", STOPPING)
def test_a_store_stays_behind(case):
    text = HEAD + STOPPING[case] + store("%y", "%b")
    check_pass("hoist-stores", before=text, after=text)


def test_a_load_of_what_a_store_wrote_stays_behind_it():
    check_pass(
        "hoist-stores",
        before=HEAD + copy("%b", "%a") + WORK + store("%t", "%b") + load("%d", "%t"),
        after=HEAD + copy("%b", "%a") + store("%t", "%b") + WORK + load("%d", "%t"),
    )


@pytest.mark.parametrize("late", [region("o", "output", 2), local("e")])
def test_definitions_of_buffers_come_first(late):
    types, rows = ((DDR, LOCAL), (0, 0))
    stores = {"o": dma("%o", "%b", types, rows), "e": dma("%y", "%e", types, rows)}
    line = stores[late[1]]
    check_pass("hoist-stores", before=HEAD + WORK + late + WORK + line, after=HEAD + late + line + WORK + WORK)


def test_a_copy_within_ddr_moves_like_a_store_and_a_load_does_not():
    made = HEAD + copy("%a", "%b") + store("%t", "%a")
    check_pass(
        "hoist-stores",
        before=made + WORK + load("%b", "%t") + move("%z", "%t"),
        after=made + move("%z", "%t") + WORK + load("%b", "%t"),
    )


@given(st.integers(1, 4).flatmap(lambda n: moves(n).map(lambda found: (found, n))))
@settings(max_examples=40)
def test_hoisting_changes_no_result_and_goes_as_far_as_it_may(drawn):
    module = program_of(*drawn)
    function = module.functions()[0]
    rng = np.random.default_rng(0)
    count = sum(move.kind == "load" for move in drawn[0])
    inputs = [rng.standard_normal((64, 16)).astype(np.float32) for _ in range(count)]
    wanted = [a.tobytes() for a in run_function(function, SPEC, inputs)]
    others = [op for op in function.block.ops if isinstance(op, Instruction) and not is_store(op)]
    PassManager(parse_pipeline("hoist-stores")).run(module)
    ops = list(function.block.ops)
    assert [op for op in ops if isinstance(op, Instruction) and not is_store(op)] == others
    assert [a.tobytes() for a in run_function(function, SPEC, inputs)] == wanted
    for place, op in enumerate(ops):
        before = itertools.dropwhile(is_store, reversed(ops[:place]))  # stores behind one op keep their order
        earlier = next(before, None)
        assert not is_store(op) or not isinstance(earlier, Instruction) or stays(op, earlier, ops[:place])


def is_store(op) -> bool:
    return isinstance(op, Instruction) and isinstance(op.operands[0].owner, GlobalOp)


def stays(op, earlier, before) -> bool:
    """Whether it, or a store that it comes behind, cannot go further up than behind an op."""
    behind = before[before.index(earlier) :]
    return any(depends(op, each) for each in behind)


def depends(op, earlier) -> bool:
    """Whether an instruction cannot change places with the op in front of it."""
    return any(a.conflicts(b) for a in op.accesses(SPEC) for b in earlier.accesses(SPEC))


def test_a_store_passes_messages_about_other_regions_only():
    def message(what: str, buffer: str) -> str:
        numbers = "message = 30 : i64, count = 2 : i64"
        return f'"chip.{what}"({buffer}) <{{{numbers}}}> : ({DDR}) -> ()'

    send, wait = message("send", "%t"), message("wait", "%z")
    y, t, z = (store(region, "%a") for region in ("%y", "%t", "%z"))
    head = HEAD + copy("%a", "%b")
    check_pass("hoist-stores", before=head + send + wait + y + t + z, after=head + y + send + t + wait + z)
