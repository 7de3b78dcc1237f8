"""When compute goes on and commands start, for programs small enough to work the times out by hand."""

from __future__ import annotations

import pytest

from compiler.ir.types import F32
from compiler.target.chips.bm1684x import BM1684X
from compiler.target.chips.bm1688 import BM1688
from compiler.target.spec import ChipSpec
from compiler.target.timing import cycles
from dialects.chip import ArOp, Instruction, LocalOp, LocalType, View
from passes.chip.pace import NEVER, Pace
from runtime_sim.interpret.chip import ChipProgram
from tests.passes.chip.random_programs import Move, program_of


def load(target: int) -> Move:
    return Move("load", target, 0)


def store(source: int) -> Move:
    return Move("store", 0, 0, source, 0)


def copy(target: int, source: int) -> Move:
    return Move("copy", target, 0, source, 0)


def fill(target: int) -> Move:
    return Move("fill", target, 0)


def cycles_of(*moves: Move, spec: ChipSpec = BM1684X) -> list[int]:
    """The cautious estimate of each instruction, at addresses of the simulator's choice."""
    program = ChipProgram(program_of(list(moves), 6).functions()[0], spec)
    return [cycles(program.instruction(op), spec, cautious=True) for op in program.ops]


LOAD, STORE, COPY, FILL = cycles_of(load(0), store(0), copy(0, 1), fill(0))


def pace(*moves: Move) -> Pace:
    """Positions are those of the moves; the definitions of buffers are left out."""
    function = program_of(list(moves), 6).functions()[0]
    return Pace([op for op in function.block.ops if isinstance(op, Instruction)], BM1684X)


@pytest.mark.parametrize("spec", [BM1684X, BM1688], ids=lambda spec: spec.name)
def test_each_instruction_takes_what_it_is_estimated_to_take(spec):
    moves = [load(0), copy(1, 0), copy(1, 1), fill(2), store(1)]
    ops = program_of(moves, 6).functions()[0].block.ops
    found = Pace(list(ops), spec).cycles
    took = [c for c, op in zip(found, ops, strict=True) if isinstance(op, Instruction)]
    assert took == cycles_of(*moves, spec=spec)
    assert {c for c, op in zip(found, ops, strict=True) if not isinstance(op, Instruction)} == {0}
    assert 0 < FILL <= COPY < min(STORE, LOAD)  # or the times below would not tell them apart


def test_instructions_of_one_form_take_the_same_and_others_what_they_take():
    a, b = (LocalOp(types=[LocalType(1 << 12)]).results[0] for _ in range(2))
    forms = [(a, b, 16), (b, a, 16), (a, b, 160), (a, a, 16), (a, b, 16)]
    common = {"kind": "copy", "res": View(F32), "opd0": View(F32)}
    ops = [ArOp(dst, src, None, shape=(1, 64, 1, w), **common) for dst, src, w in forms]
    found = Pace(ops, BM1684X).cycles
    assert found[0] == found[1] == found[4]
    assert found[2] - found[0] == 9
    assert found[3] - found[0] == 1  # in place


def test_compute_waits_for_a_load_of_what_it_reads():
    found = pace(load(0), fill(1), copy(2, 0))
    assert found.start(2) == FILL  # nothing is issued yet
    assert found.start(3) == NEVER
    found.issue(0, 0)
    assert found.dma_free == LOAD
    assert found.start(0) == found.start(2) == LOAD  # the engine is busy until then
    assert found.start(3) == LOAD + COPY


def test_compute_that_is_late_does_not_wait():
    work = [fill(1)] * (LOAD // FILL + 1)
    found = pace(load(0), *work, copy(2, 0))
    found.issue(0, 0)
    assert found.start(1 + len(work)) == len(work) * FILL > LOAD
    assert found.start(2 + len(work)) == len(work) * FILL + COPY


def test_compute_waits_for_a_load_of_what_it_overwrites_and_for_a_store():
    for first, length in ((load(0), LOAD), (store(0), STORE)):
        found = pace(first, fill(0))
        assert found.start(2) == NEVER
        found.issue(0, 0)
        assert found.start(2) == length + FILL


def test_compute_reads_what_is_being_stored():
    found = pace(fill(0), store(0), copy(1, 0), fill(0))
    assert found.start(3) == FILL + COPY
    assert found.start(4) == NEVER
    found.issue(1, 1)
    assert found.start(3) == found.dma_free == FILL + STORE
    assert found.start(4) == FILL + STORE + FILL


def test_compute_waits_for_all_commands_on_all_its_buffers():
    found = pace(load(0), load(0), load(1), copy(0, 1), fill(2))
    for position in range(3):
        assert found.start(4) == found.start(5) == NEVER
        found.issue(position, position)
    assert found.start(4) == 3 * LOAD + COPY
    assert found.start(5) == 3 * LOAD + COPY + FILL


def test_compute_waits_for_the_last_of_two_loads_into_a_buffer():
    found = pace(load(0), load(0), fill(0))
    found.issue(0, 0)
    assert found.start(3) == NEVER
    found.issue(1, 0)
    assert found.start(3) == 2 * LOAD + FILL


def test_compute_waits_only_until_its_own_data_is_there():
    found = pace(load(0), load(1), load(2), copy(3, 1))
    for position in range(3):
        found.issue(position, position)
    found.dma_free = 0  # so that `start` says what compute takes
    assert found.start(4) == 2 * LOAD + COPY


def test_a_command_waits_for_the_compute_before_its_place():
    found = pace(fill(0), store(0), fill(1), fill(1), store(1))
    found.issue(1, 1)
    assert found.dma_free == FILL + STORE
    found.dma_free = 0  # as if the store took no time
    assert found.start(4) == 3 * FILL  # what does not touch its buffer went on
    found.issue(4, 4)
    assert found.dma_free == 3 * FILL + STORE


@pytest.mark.parametrize(("place", "begin"), [(2, 2 * FILL), (1, FILL), (0, 0)])
def test_a_command_starts_at_the_earlier_place_it_is_given(place, begin):
    found = pace(fill(1), fill(1), load(0), copy(2, 0))
    found.issue(2, place)
    assert found.dma_free == begin + LOAD
    assert found.start(4) == begin + LOAD + COPY


def test_a_command_that_compute_has_not_come_to_may_be_issued():
    found = pace(load(0), copy(1, 0), load(2), copy(3, 2))
    found.issue(2, 0)
    assert found.dma_free == LOAD
    assert found.start(2) == NEVER  # the first load is missing
    found.issue(0, 0)
    assert found.dma_free == 2 * LOAD
    assert found.start(2) == 2 * LOAD + COPY
    assert found.start(4) == 2 * LOAD + 2 * COPY


def test_compute_goes_on_past_a_command_that_is_missing():
    found = pace(load(0), fill(1), load(2), copy(3, 2), copy(4, 0))
    found.issue(2, 2)
    assert found.start(4) == FILL + LOAD + COPY
    assert found.start(5) == NEVER
    found.issue(0, 0)
    assert found.dma_free == FILL + 2 * LOAD
    assert found.start(5) == FILL + 2 * LOAD + COPY


def test_nothing_starts_behind_the_end():
    assert pace(fill(0)).start(1) == FILL
    assert pace(fill(0)).start(2) == NEVER


def test_the_position_at_a_time_is_that_of_the_compute_that_runs_or_waits():
    found = pace(load(0), fill(1), copy(2, 0), store(2), fill(3))
    found.issue(0, 0)
    times = {1: 1, FILL: 1, FILL + 1: 2, LOAD: 2, LOAD + COPY: 2, LOAD + COPY + 1: 4, LOAD + COPY + FILL: 4}
    assert {time: found.position_at(time) for time in times} == times
    assert found.position_at(LOAD + COPY + FILL + 1) == 5  # all is over
