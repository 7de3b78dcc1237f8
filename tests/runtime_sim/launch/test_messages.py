"""What cores may do with messages, and what Sophgo's C-model aborts at."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from compiler.target.isa import Instruction
from runtime_sim.launch.messages import Messages
from runtime_sim.launch.orders import alternating, core_ahead, shuffled
from runtime_sim.launch.queues import CoreProgram, run_order
from runtime_sim.machine.errors import SimulationError

ORDERS = [alternating(), core_ahead(0), core_ahead(1), *map(shuffled, range(20))]


def dma(kind: str, message: int, members: int = 2) -> Instruction:
    return Instruction("dma_sys", kind, {"constant_value": members << 8 | message})


def tiu(kind: str, message: int, members: int = 4) -> Instruction:
    return Instruction("sys", f"{kind}_msg", {"imm": members << 16 | message})


def core(*commands: tuple[str, int], by: Callable[..., Instruction] = dma) -> CoreProgram:
    return CoreProgram([], [by(*command) for command in commands])


def run(cores: Iterable[CoreProgram]) -> None:
    for order in ORDERS:
        messages = Messages()
        for step in run_order(list(cores), order):
            messages.visit(step)
        messages.finish()


def meetings(*numbers: int) -> list[tuple[str, int]]:
    return [(kind, number) for number in numbers for kind in ("send", "wait")]


def test_messages_that_take_turns_pass():
    run([core(*meetings(30, 31, 30, 31))] * 2)


def test_both_engines_of_both_cores_meet():
    both = CoreProgram([tiu("send", 5), tiu("wait", 5)] * 1, [dma("send", 5, 4), dma("wait", 5, 4)])
    run([both, both])


def test_a_message_used_twice_in_a_row_is_still_in_use():
    with pytest.raises(SimulationError, match=r"dma 3 \(dma_sys.send\): message 30 is in use: 1 have yet to wait"):
        run([core(*meetings(30, 30))] * 2)


def test_a_core_that_does_not_wait_leaves_the_message_in_use():
    with pytest.raises(SimulationError, match="message 30 is in use: 1 have yet to wait for it"):
        run([core(("send", 30), *meetings(31, 30)), core(*meetings(30, 31, 30))])
    with pytest.raises(SimulationError, match="message 30 is left in use: 0 sends and 1 waits are missing"):
        run([core(("send", 30)), core(*meetings(30))])


def test_one_wait_too_many_is_found():
    with pytest.raises(SimulationError, match="more than 2 use message 30 at once"):
        run([core(*meetings(30)), core(*meetings(30)), core(("send", 30))])


def test_cores_agree_on_how_many_they_are():
    with pytest.raises(SimulationError, match=r"message 30 is for (2, elsewhere for 1|1, elsewhere for 2)"):
        run([core(*meetings(30)), CoreProgram([], [dma("send", 30, 1), dma("wait", 30, 1)])])
