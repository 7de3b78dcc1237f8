"""The static proof: sound programs pass, and every missing wait, shifted address and circle is found."""

import time

import pytest

from compiler.diagnostics import CompileError
from compiler.target.chips.bm1688 import BM1688
from runtime_sim.check.contract import moved_of
from runtime_sim.check.waits import Moved, find_race, prove_waits
from runtime_sim.interpret.chip import core_programs
from runtime_sim.launch.loader import Program
from runtime_sim.launch.queues import CoreProgram
from tests.passes.programs import core_program
from tests.passes.two_cores import placed, two_cores
from tests.runtime_sim.check import cores as by_hand
from tests.runtime_sim.check.programs import (
    ADD_SHAPE,
    DDR,
    SPEC,
    Assembler,
    add_program,
    changed,
    local,
)

A, B, Y = DDR, DDR + 0x100000, DDR + 0x200000


@pytest.fixture
def core() -> CoreProgram:
    return add_program((A, B), Y).core()


def race(core: CoreProgram) -> str:
    return str(find_race([core], SPEC))


def test_a_sound_program_passes(core):
    assert find_race([core], SPEC) is None


def test_each_missing_wait_is_found(core):
    waits = [
        (engine, number)
        for engine in ("tiu", "dma")
        for number, instruction in enumerate(getattr(core, engine), 1)
        if instruction.fields["cmd_id_dep"]
    ]
    assert len(waits) == 8
    for engine, number in waits:
        assert find_race([changed(core, engine, number, cmd_id_dep=0)], SPEC), (engine, number)


@pytest.mark.parametrize(
    ("engine", "number", "fields", "message"),
    [
        ("tiu", 1, {"cmd_id_dep": 1}, "tiu 1 .* dma 2 .*: .* of (opd1|dst)"),
        ("dma", 5, {"cmd_id_dep": 0}, "tiu 1 .* dma 5 .*: .* of (dst|opd0)"),
        ("dma", 4, {"dst_start_addr_l32": local(0x8000)}, "dma 4 .*: .* 0x8000 to"),
        ("tiu", 2, {"res0_addr": 0x4000}, "tiu 2 .* dma 6 .*: .* of (res0|dst)"),
    ],
)
def test_wrong_waits_and_shifted_addresses_are_named(core, engine, number, fields, message):
    with pytest.raises(CompileError, match=message) as failure:
        prove_waits([changed(core, engine, number, **fields)], SPEC)
    assert len(failure.value.notes) == 2


def test_the_place_is_named():
    asm = Assembler()
    asm.copy(DDR, local(0x2000), (1, 70, 1, 32))
    asm.ar("add", 0x4000, 0x2000, 0x2000, (1, 3, 1, 32))
    assert race(asm.core()).endswith("of dst, lanes 0 to 2, bytes 0x2000 to 0x2040")


def test_other_lanes_and_other_bytes_do_not_conflict():
    lane_bytes = SPEC.lane_bytes
    asm = Assembler()
    asm.copy(DDR, local(4 * lane_bytes), (1, 4, 1, 32))
    asm.copy(DDR, local(64), (1, 64, 1, 32))
    asm.ar("add", 0x4000, 0, 0, (1, 4, 1, 32))
    assert find_race([asm.core()], SPEC) is None
    asm.ar("add", 0x4000, 0, 0, (1, 5, 1, 32))
    assert "lanes 4 to 4" in race(asm.core())


def test_rows_between_the_rows_of_a_strided_tensor_do_not_conflict():
    asm = Assembler()
    asm.copy(DDR, local(0), (1, 64, 1, 32))
    every_second = {"opd0_str": 3, "opd0_h_str": 64, "opd0_w_str": 1, "opd1_const": 1}
    asm.ar("add", 0x4000, 64, 0, (1, 64, 8, 32))
    asm.queues["tiu"][-1][2].update(every_second)
    assert find_race([asm.core()], SPEC) is None
    asm.copy(DDR, local(64 + 3 * 128 + 62), (1, 64, 1, 1))
    assert "bytes 0x1fe to 0x200" in race(asm.core())


def test_a_later_row_of_a_strided_tensor_conflicts_as_the_first():
    asm = Assembler()
    asm.ar("add", 0x8000, 0x9000, 0x9000, (1, 64, 1, 32))
    asm.copy(DDR, local(64 + 3 * 128), (1, 64, 1, 32))
    asm.ar("add", 0x4000, 64, 0, (1, 64, 8, 32))
    asm.queues["tiu"][-1][2].update({"opd0_str": 3, "opd0_h_str": 64, "opd0_w_str": 1, "opd1_const": 1})
    assert "tiu 2" in race(asm.core())
    assert "bytes 0x1c0 to 0x200" in race(asm.core())


@pytest.mark.parametrize("cuts", [(), (10,), (10, 40)], ids=str)
def test_all_rows_of_a_strided_result_conflict_and_nothing_between_them(cuts):
    """Reads that begin inside of each row divide all of them alike, and the copy divides one."""
    rows = {"res0_str": 3, "res0_h_str": 64, "res0_w_str": 1}
    for offset in range(0, 9 * 128, 6):
        asm = Assembler()
        asm.ar("add", 0, 0x4000, 0x4000, (1, 64, 8, 32))
        asm.queues["tiu"][-1][2].update(rows)
        for cut in cuts:
            asm.ar("add", 0x6000, cut, 0x4000, (1, 64, 8, 1))
            asm.queues["tiu"][-1][2].update({"opd0_str": 3, "opd0_h_str": 64, "opd0_w_str": 1})
        asm.copy(local(offset), DDR, (1, 64, 1, 1))
        meets = offset % 128 < 64 and offset < 8 * 128
        assert (find_race([asm.core()], SPEC) is not None) == meets, offset


def test_two_reads_do_not_conflict():
    asm = Assembler()
    asm.copy(local(0), DDR, (1, 64, 1, 32))
    asm.ar("add", 0x4000, 0, 0, (1, 64, 1, 32))
    assert find_race([asm.core()], SPEC) is None


def test_an_instruction_not_known_touches_everything():
    asm = Assembler()
    asm.copy(DDR, local(0x20000), (1, 1, 1, 1))
    asm.add("vc", "add")
    assert "vc.add" in race(asm.core())


def test_instructions_that_wait_for_each_other_are_found(core):
    stuck = changed(core, "dma", 1, cmd_id_dep=1)
    with pytest.raises(CompileError, match=r"never ends: tiu 1 .* waits for dma 2, dma 1 .* waits for tiu 1"):
        prove_waits([stuck], SPEC)


def test_a_wait_for_what_does_not_exist_is_found(core):
    with pytest.raises(CompileError, match=r"never ends: tiu 4 .* waits for dma 99"):
        prove_waits([changed(core, "tiu", 4, cmd_id_dep=99)], SPEC)


def test_long_programs_are_checked_fast():
    core = add_program((A, B), Y, tiles=500).core()
    start = time.process_time()
    assert find_race([core], SPEC) is None
    assert time.process_time() - start < 2, f"{len(core.tiu) + len(core.dma)} instructions of {ADD_SHAPE}"


# ---- several cores ----

A_AND_B, Y_AND_Z = (0xA0_0000_0000, 0xA0_0000_1800), (0xA0_0000_2000, 0xA0_0000_3800)
MOVED = Moved(inputs=(A_AND_B,), outputs=(Y_AND_Z,))


def cores_of(**changes) -> list[CoreProgram]:
    programs = core_programs(placed(two_cores(**changes)).functions(), BM1688)
    return [core_program(program) for program in programs]


def test_cores_that_meet_pass():
    assert find_race(cores_of(), BM1688, MOVED) is None


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("start", r"nothing orders the copy of inputs and core 1 dma 1 .*: write and read of src"),
        ("middle", r"nothing orders core 1 dma 4 .* and dma 5 .*: write and read of src"),
        ("end", r"nothing orders core 1 dma 8 .* and the copy of outputs: write and read of outputs"),
    ],
)
def test_each_meeting_is_needed(where, message):
    """Core 0 alone is started when the inputs are there, and its end is when outputs are read."""
    with pytest.raises(CompileError, match=message):
        prove_waits(cores_of(without=(where,)), BM1688, MOVED)


def test_meetings_at_the_ends_are_only_needed_for_what_the_runtime_moves():
    assert find_race(cores_of(without=("start", "end")), BM1688) is None


def test_a_message_sent_anew_while_others_may_wait_for_it_is_found():
    with pytest.raises(
        CompileError, match=r"dma_sys.wait\) and .*dma_sys.send\): wait and send of message 30"
    ):
        prove_waits(cores_of(middle=30), BM1688, MOVED)


def test_a_core_that_never_sends_is_found():
    cores = cores_of()
    sends = [number for number, each in enumerate(cores[1].dma, 1) if each.kind == "send"]
    cores[1] = CoreProgram(cores[1].tiu, [*cores[1].dma[: sends[1] - 1], *cores[1].dma[sends[1] :]])
    with pytest.raises(CompileError, match="the program never ends"):
        prove_waits(cores, BM1688, MOVED)


def test_a_region_of_another_core_is_found():
    """Core 1 stores its part where core 0 stores its own."""
    cores = cores_of()
    store = next(each for each in cores[0].dma if each.fields.get("dst_start_addr_h8"))
    number = next(i for i, each in enumerate(cores[1].dma, 1) if each.fields.get("dst_start_addr_h8"))
    low = store.fields["dst_start_addr_l32"]
    with pytest.raises(CompileError, match="core 1 dma"):
        prove_waits([cores[0], changed(cores[1], "dma", number, dst_start_addr_l32=low)], BM1688, MOVED)


BY_HAND = by_hand.sum_model()
MUTANTS = dict(by_hand.mutants(by_hand.cores_of(BY_HAND)))


def prove_by_hand(cores: list[CoreProgram]) -> None:
    prove_waits(cores, BM1688, moved_of(Program(BY_HAND).stage("sum")))


def test_two_cores_by_hand_are_proved():
    prove_by_hand(by_hand.cores_of(BY_HAND))


@pytest.mark.parametrize("name", MUTANTS)
def test_each_send_wait_and_dependency_of_two_cores_is_needed(name):
    with pytest.raises(CompileError, match=r"nothing orders|never ends|left in use"):
        prove_by_hand(MUTANTS[name])


def test_each_meeting_of_two_cores_is_needed():
    for index in range(3):
        with pytest.raises(CompileError, match="nothing orders"):
            prove_by_hand([by_hand.without_meeting(core, index) for core in by_hand.cores_of(BY_HAND)])


def test_a_wait_that_only_frees_the_message_is_needed():
    with pytest.raises(CompileError, match="message 32 is left in use: 0 sends and 1 waits are missing"):
        prove_by_hand(MUTANTS["core 1 dma 11 wait"])
