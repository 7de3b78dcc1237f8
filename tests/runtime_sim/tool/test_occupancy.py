"""What local memory holds, and for how long."""

from __future__ import annotations

from runtime_sim.tool.occupancy import peak, pieces
from tests.runtime_sim.check.programs import SPEC, Assembler, local

SHAPE = (1, 64, 1, 32)  # 64 bytes on each lane
A, B, SUM, DDR = 0x1000, 0x2000, 0x3000, SPEC.coeff_base


def run(asm: Assembler):
    """The pieces of a program whose instructions run in the order in which they were added."""
    core = asm.core()
    queues = {"tiu": iter(core.tiu), "dma": iter(core.dma)}
    return pieces([next(queues[engine]) for engine in asm.order], SPEC)


class Recorder(Assembler):
    """Remembers the order of the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[str] = []

    def add(self, name: str, kind: str, after: int = 0, **fields: int) -> int:
        self.order.append("dma" if name.startswith("dma") else "tiu")
        return super().add(name, kind, after, **fields)


def loaded() -> Recorder:
    """a and b loaded (instructions 0 and 1)."""
    asm = Recorder()
    asm.copy(DDR, local(A), SHAPE)
    asm.copy(DDR, local(B), SHAPE)
    return asm


def test_a_piece_lasts_from_its_writer_to_its_last_reader():
    asm = loaded()
    asm.ar("add", SUM, A, B, SHAPE)
    asm.ar("add", SUM + 64, A, A, SHAPE)
    asm.copy(local(SUM), DDR + 4096, SHAPE)
    found = run(asm)
    assert found == [(A, A + 64, 0, 3), (B, B + 64, 1, 2), (SUM, SUM + 64, 2, 4), (SUM + 64, SUM + 128, 3, 3)]
    assert peak(found) == 3 * 64


def test_new_contents_are_a_piece_of_their_own():
    asm = loaded()
    asm.copy(DDR, local(A), SHAPE)
    asm.ar("add", SUM, A, B, SHAPE)
    assert run(asm)[:2] == [(A, A + 64, 0, 0), (B, B + 64, 1, 3)]
    assert (A, A + 64, 2, 3) in run(asm)


def test_contents_changed_in_place_stay_one_piece():
    asm = loaded()
    asm.ar("add", A, A, B, SHAPE)
    asm.copy(local(A), DDR, SHAPE)
    assert run(asm) == [(A, A + 64, 0, 3), (B, B + 64, 1, 2)]


def test_contents_that_join_others_on_other_lanes_extend_them():
    asm = Recorder()
    asm.copy(DDR, local(A), (1, 32, 1, 32))
    asm.copy(DDR, local(A) + 32 * SPEC.lane_bytes, (1, 32, 1, 32))
    asm.ar("add", SUM, A, A, SHAPE)
    assert (A, A + 64, 0, 2) in run(asm)


def test_what_is_read_before_it_is_written_was_there_from_the_start():
    asm = Recorder()
    asm.copy(DDR, local(SUM), SHAPE)
    asm.copy(local(A), DDR, SHAPE)
    assert (A, A + 64, 0, 1) in run(asm)
