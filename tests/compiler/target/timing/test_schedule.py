"""Engines that wait for each other, and cores that meet."""

from __future__ import annotations

import pytest

from compiler.diagnostics import CompileError
from compiler.target.chips.bm1684x import BM1684X
from compiler.target.chips.bm1688 import BM1688
from compiler.target.isa import Instruction
from compiler.target.timing import cycles, estimate, estimate_cores
from runtime_sim.launch.queues import CoreProgram
from tests.compiler.target.timing.instructions import F32, load, on_8, rows_of, step, tensor


def test_engines_overlap_but_for_waits():
    timeline = estimate([step(10), step(5, wait=1), step(1)], [load(30), load(7, wait=1)], BM1684X)
    assert (timeline.tiu.start, timeline.tiu.end) == ([0, 30, 35], [10, 35, 36])
    assert (timeline.dma.start, timeline.dma.end) == ([0, 30], [30, 37])
    assert timeline.total == 37
    assert (timeline.tiu.busy, timeline.dma.busy, timeline.overlapped) == (16, 37, 16)


def test_a_wait_of_the_past_costs_nothing():
    timeline = estimate([step(10), step(10, wait=1)], [load(3)], BM1684X)
    assert timeline.tiu.start == [0, 10]


def test_a_wait_is_for_the_instruction_of_that_number():
    timeline = estimate([step(10), step(1, wait=2)], [load(3), load(20), load(40)], BM1684X)
    assert timeline.tiu.start == [0, 23]


def test_queues_that_wait_for_each_other_are_an_error():
    with pytest.raises(CompileError, match=r"ar\.add number 1 waits forever"):
        estimate([step(1, wait=1)], [load(1, wait=1)], BM1684X)


def test_an_empty_program_takes_no_time():
    assert estimate([], [], BM1684X).total == 0


def message(kind: str, number: int, senders: int) -> Instruction:
    return on_8("sys", f"{kind}_msg", imm=number | senders << 16)


def core(width: int) -> CoreProgram:
    """A core that works, meets the other one, and works again."""
    work = [on_8("ar", "add", res0_n=1, res0_c=32, res0_h=1, res0_w=4 * width, res0_prec=F32, opd0_prec=F32,
                 opd1_prec=F32, opd0_addr=64, opd1_addr=128, tsk_opd_num=2)]  # fmt: skip
    return CoreProgram([*work, message("send", 3, 2), message("wait", 3, 2), *work], [])


def test_cores_meet_in_the_cautious_estimate_only():
    plain = estimate_cores([core(100), core(40)], BM1688)
    cautious = estimate_cores([core(100), core(40)], BM1688, cautious=True)
    assert [timeline.total for timeline in plain] == [200, 80]
    assert [timeline.total for timeline in cautious] == [111 + 111, 111 + 51]


def test_a_message_may_be_used_again():
    again = [core(100), core(40)]
    twice = [CoreProgram([*one.tiu, *one.tiu], []) for one in again]
    plain = [timeline.total for timeline in estimate_cores(again, BM1688, cautious=True)]
    totals = [timeline.total for timeline in estimate_cores(twice, BM1688, cautious=True)]
    assert plain == [222, 162]
    assert totals == [222 + 222, 222 + 111 + 51]


def test_dma_engines_meet_too():
    def program(width: int, *kinds: str) -> CoreProgram:
        message = {"constant_value": 3 | 2 << 8, "cmd_id_dep": 1}
        return CoreProgram([core(width).tiu[0]], [on_8("dma_sys", kind, **message) for kind in kinds])

    cores = [program(40, "send", "wait"), program(100, "send")]
    one, other = estimate_cores(cores, BM1688, cautious=True)
    assert (one.dma.end, other.dma.end) == ([51, 111], [111])


def test_a_message_that_nobody_sends_is_an_error():
    alone = CoreProgram([message("wait", 3, 2)], [])
    with pytest.raises(CompileError, match="waits forever"):
        estimate_cores([alone, alone], BM1688, cautious=True)


def weights(*rows: int, wait: int = 0) -> list[Instruction]:
    """Loads of so many rows of 2,048 bytes."""
    return [tensor("copy", *rows_of(n, 1024), spec=BM1688, cmd_id_dep=wait) for n in rows]


def ends(*programs: CoreProgram) -> list[list[int]]:
    timelines = estimate_cores(programs, BM1688, cautious=True)
    return [[*timeline.tiu.end, *timeline.dma.end] for timeline in timelines]


ALONE = cycles(weights(64)[0], BM1688, cautious=True)
SHARED = 64 * 2048 / 24.5e9 * 900e6  # cycles that 64 rows have DDR for themselves


def test_one_core_has_ddr_for_itself():
    assert ends(CoreProgram([], weights(64)), CoreProgram([], [])) == [[ALONE], []]


def test_cores_that_load_at_once_share_ddr():
    together = round(2 * SHARED)
    assert ALONE < 1.7 * SHARED
    assert ends(CoreProgram([], weights(64)), CoreProgram([], weights(64))) == [[together], [together]]


def test_stores_need_ddr_as_loads_do():
    store = CoreProgram([], [tensor("copy", *rows_of(64, 1024), store=True, spec=BM1688)])
    assert ends(CoreProgram([], weights(64)), store)[0][0] > ALONE
    assert ends(store, store) == [[round(2 * SHARED)]] * 2


def test_what_is_left_of_a_load_is_faster_when_the_other_ends():
    other = cycles(weights(128)[0], BM1688, cautious=True)
    (long,), (short,) = ends(CoreProgram([], weights(128)), CoreProgram([], weights(64)))
    assert short == round(SHARED + 2 * SHARED * ALONE / other)
    assert long - short == other - ALONE


def test_work_is_not_slower_because_cores_load():
    busy = CoreProgram(core(100).tiu[:1], weights(64))
    assert [end[0] for end in ends(busy, busy)] == [111, 111]


def test_all_bytes_of_all_cores_take_what_ddr_gives_them():
    """However they are cut into commands, and whoever moves them."""
    for one, other in (((64,) * 9, (64,) * 9), ((576,), (64,) * 9), ((1,) * 90, (300, 64)), ((640,), (1, 2, 3))):
        last = max(end[-1] for end in ends(CoreProgram([], weights(*one)), CoreProgram([], weights(*other))))
        assert last >= int(SHARED / 64 * (sum(one) + sum(other)))
    timelines = estimate_cores([CoreProgram([], weights(*(64,) * 9))] * 2, BM1688)
    assert timelines[0].total == sum(cycles(each, BM1688) for each in weights(*(64,) * 9))


def test_a_wait_rests_until_the_message_is_sent():
    """It is no work: the DMA is not busy meanwhile."""
    program = CoreProgram(core(100).tiu[:1], [on_8("dma_sys", "send", constant_value=3 | 2 << 8, cmd_id_dep=1)])
    waiting = CoreProgram([], [on_8("dma_sys", kind, constant_value=3 | 2 << 8) for kind in ("send", "wait")])
    _, other = estimate_cores([program, waiting], BM1688, cautious=True)
    assert (other.dma.end, other.dma.busy) == ([0, 111], 0)
