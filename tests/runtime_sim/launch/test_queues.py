"""Orders in which the queues of a program may run, and programs that have none."""

from __future__ import annotations

import pytest

from compiler.target.isa import Instruction
from runtime_sim.launch.orders import alternating
from runtime_sim.launch.queues import CoreProgram, Deadlock, Queues, run_order


def works(*waits: int) -> list[Instruction]:
    """Instructions that wait for so many of the other engine."""
    return [Instruction("ar", "copy", {"cmd_id_dep": wait}) for wait in waits]


def message(engine: str, kind: str, number: int, senders: int = 0) -> Instruction:
    if engine == "tiu":
        return Instruction("sys", f"{kind}_msg", {"imm": senders << 16 | number})
    return Instruction("dma_sys", kind, {"constant_value": senders << 8 | number})


def steps(*cores: CoreProgram, choose=None) -> list[tuple[int, int]]:
    return [(step.queue, step.number) for step in run_order(cores, choose or alternating())]


def test_each_queue_keeps_its_order_and_takes_its_turn():
    assert steps(CoreProgram(works(0, 0), works(0, 0))) == [(0, 1), (1, 1), (0, 2), (1, 2)]


def test_an_instruction_starts_when_the_other_engine_is_so_far():
    core = CoreProgram(works(2, 0), works(0, 0, 1))
    for choose in (alternating(), min, max):
        found = steps(core, choose=choose)
        assert found.index((1, 2)) < found.index((0, 1)) < found.index((1, 3))


def test_only_what_may_start_is_ready():
    queues = Queues([CoreProgram(works(1), works(0))])
    assert queues.ready() == [1]
    queues.advance(1)
    assert queues.ready() == [0]


def test_a_wait_meets_as_many_senders_as_it_names():
    first = CoreProgram([message("tiu", "send", 5)], [message("dma", "send", 5)])
    second = CoreProgram([message("tiu", "wait", 5, senders=2)], [])
    for choose in (alternating(), min, max):
        assert steps(first, second, choose=choose)[-1] == (2, 1)


def test_a_message_that_is_used_again_is_another_meeting():
    sender = CoreProgram([message("tiu", "send", 1), *works(0), message("tiu", "send", 1)], [])
    waiter = CoreProgram([message("tiu", "wait", 1, senders=1)] * 2, [])
    found = steps(sender, waiter, choose=max)
    assert found.index((0, 3)) < found.index((2, 2))


def test_a_message_that_is_missing_is_named():
    cores = [CoreProgram([], [message("dma", kind, 5, 2) for kind in kinds]) for kinds in (["send", "wait"], [])]
    with pytest.raises(Deadlock, match=r"dma 2 \(dma_sys.wait\) waits for message 5, sent 1 of 2 times"):
        steps(*cores)


def test_queues_that_wait_for_each_other_are_named():
    with pytest.raises(Deadlock, match=r"tiu 1 \(ar.copy\) waits for dma 1, dma 1 \(ar.copy\) waits for tiu 1"):
        steps(CoreProgram(works(1), works(1)))
