"""Waits: enough of them, as an independent checker says, and not one too many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.diagnostics import CompileError
from passes.manager import PassManager, parse_pipeline
from runtime_sim.check.waits import find_race
from runtime_sim.interpret.chip import ChipProgram
from runtime_sim.launch.orders import alternating, run_ahead
from runtime_sim.launch.queues import run_order
from tests.helpers import check_pass
from tests.passes.chip.random_programs import moves, program_of
from tests.passes.programs import SPEC, core_program

VIEW = "#chip.view<dtype = f32>"
LOCAL, DDR = "!chip.local<bytes = 64>", "!chip.global<bytes = 4096>"


def attributes(number: int, wait: int) -> str:
    if not number:
        return ""
    return f"{{chip.id = {number} : i64{f', chip.wait = {wait} : i64' if wait else ''}}}"


def dma(target: str, source: str, types: str, number: int = 0, wait: int = 0) -> str:
    return f"""
      "chip.dma"({target}, {source}) <{{kind = "copy", shape = array<i64: 1, 64, 1, 16>, res = {VIEW},
          opd0 = {VIEW}}}> {attributes(number, wait)} : ({types}) -> ()
    """


def copy(target: str, source: str, number: int = 0, wait: int = 0) -> str:
    return f"""
      "chip.ar"({target}, {source}) <{{kind = "copy", shape = array<i64: 1, 64, 1, 16>, res = {VIEW},
          opd0 = {VIEW}, round = 0 : i64, operandSegmentSizes = array<i32: 1, 1, 0>}}>
          {attributes(number, wait)} : ({LOCAL}, {LOCAL}) -> ()
    """


def test_each_engine_waits_for_what_it_conflicts_with_unless_it_already_did():
    def program(*ids: tuple[int, int]) -> str:
        buffers = "".join(
            f'%{name} = "chip.local"() <{{offset = {64 * i} : i64}}> : () -> {LOCAL}\n'
            for i, name in enumerate("abc")
        )
        return f"""
          %x = "chip.global"() <{{space = "input", index = 0 : i64}}> : () -> {DDR}
          %y = "chip.global"() <{{space = "output", index = 0 : i64}}> : () -> {DDR}
          {buffers}
          {dma("%a", "%x", f"{LOCAL}, {DDR}", *ids[0])}
          {dma("%c", "%x", f"{LOCAL}, {DDR}", *ids[1])}
          {copy("%b", "%c", *ids[2])}
          {copy("%c", "%a", *ids[3])}
          {dma("%y", "%b", f"{DDR}, {LOCAL}", *ids[4])}
          {dma("%a", "%x", f"{LOCAL}, {DDR}", *ids[5])}
        """

    none = [(0, 0)] * 6
    # The second copy reads what load 1 wrote; that is older than load 2, which the first copy waited for.
    # The store waits for copy 1; the last load overwrites what copy 2 reads.
    after = [(1, 0), (2, 0), (1, 2), (2, 0), (3, 1), (4, 2)]
    check_pass("insert-waits", before=program(*none), after=program(*after))


PLACE = "allocate-local,assign-addresses,insert-waits"


@given(st.integers(1, 4).flatmap(lambda n: moves(n).map(lambda found: (found, n))))
@settings(max_examples=60)
def test_waits_are_enough_and_each_is_needed(drawn):
    module = program_of(*drawn)
    PassManager(parse_pipeline(PLACE)).run(module)
    core = core_program(ChipProgram(module.functions()[0], SPEC))
    assert find_race([core], SPEC) is None
    for stream in (core.tiu, core.dma):
        for instruction in stream:
            wait = instruction.fields["cmd_id_dep"]
            if wait:
                instruction.fields["cmd_id_dep"] = wait - 1
                assert find_race([core], SPEC) is not None, f"{instruction} need not wait for {wait}"
                instruction.fields["cmd_id_dep"] = wait


@given(st.integers(1, 3).flatmap(lambda n: moves(n).map(lambda found: (found, n))))
@settings(max_examples=40)
def test_every_order_that_the_waits_permit_computes_the_same(drawn):
    module = program_of(*drawn)
    PassManager(parse_pipeline(PLACE)).run(module)
    function = module.functions()[0]
    rng = np.random.default_rng(0)
    results = []
    for choose in (None, alternating(), run_ahead("tiu"), run_ahead("dma")):
        program = ChipProgram(function, SPEC)
        for op in program.globals:
            program.regions[op.buffer][:] = rng.integers(0, 256) if op.space == "output" else op.index or 0
        order = None if choose is None else [s.instruction for s in run_order([core_program(program)], choose)]
        program.machine.run(order or [program.instruction(op) for op in program.ops])
        results.append([program.regions[op.buffer].tobytes() for op in program.globals if op.space == "output"])
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize(
    ("offset", "bytes_", "message"),
    [(0, 32, "touches bytes up to 64"), (SPEC.lane_bytes - 32, 64, "ends beyond the 262144 bytes")],
)
def test_an_instruction_that_leaves_its_buffer_or_the_lane_is_refused(offset, bytes_, message):
    local = f"!chip.local<bytes = {bytes_}>"
    text = f'%a = "chip.local"() <{{offset = {offset} : i64}}> : () -> {local}\n{copy("%a", "%a")}'
    text = text.replace(LOCAL, local)
    with pytest.raises(CompileError, match=message):
        check_pass("insert-waits", before=text, after=text)
