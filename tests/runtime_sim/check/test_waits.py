"""The static proof: sound programs pass, and every missing wait, shifted address and circle is found."""

import time

import pytest

from compiler.diagnostics import CompileError
from runtime_sim.check.waits import find_race, prove_waits
from runtime_sim.launch.queues import CoreProgram
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
