"""Banks: where a buffer lies so that least is written to the bank that it is read from."""

from __future__ import annotations

import pytest

from compiler.ir.core import Value
from compiler.ir.types import F32
from compiler.target.chips.bm1684x import BM1684X
from dialects import chip
from dialects.chip import LocalOp, LocalType, View, constant
from passes.chip.banks import Banks

BANK = BM1684X.bank_bytes
FIRST, SECOND, RESULT = (LocalOp(types=[LocalType(2 * BANK)]).results[0] for _ in range(3))


def ar(items: int, *sources: tuple[Value, int], result_offset: int = 0) -> chip.ArOp:
    """An instruction on so many items of each lane, from an offset in each source on."""
    buffers = [buffer for buffer, _ in sources] + [None] * (2 - len(sources))
    views = {f"opd{i}": View(F32, offset) for i, (_, offset) in enumerate(sources)}
    kind, res = "add" if len(sources) == 2 else "copy", View(F32, result_offset)
    return chip.ArOp(RESULT, *buffers, kind=kind, shape=(1, 64, 1, items), res=res, **views)


def banks(*ops: chip.ArOp, first: int = 0, second: int = BANK) -> Banks:
    found = Banks(ops, BM1684X)
    found.best(FIRST, [first])
    found.best(SECOND, [second])
    return found


def test_a_result_avoids_the_banks_of_what_it_is_computed_from():
    found = banks(ar(16, (FIRST, 0), (SECOND, 0)))
    assert found.best(RESULT, [64, BANK + 64, 2 * BANK, 3 * BANK]) == 2 * BANK
    assert found.placed[RESULT] == 2 * BANK


def test_an_operand_avoids_the_bank_of_what_is_computed_from_it():
    found = Banks([ar(16, (FIRST, 0))], BM1684X)
    found.best(RESULT, [0])
    assert found.best(FIRST, [64, BANK]) == BANK


def test_the_first_place_is_taken_where_nothing_collides():
    assert banks(ar(16, (FIRST, 0))).best(RESULT, [BANK + 64, BANK, 2 * BANK]) == BANK + 64


def test_where_all_banks_collide_the_least_work_does():
    found = banks(ar(64, (FIRST, 0)), ar(16, (SECOND, 0)))
    assert found.best(RESULT, [64, BANK + 64]) == BANK + 64


@pytest.mark.parametrize(("source", "result", "place"), [(0, 0, BANK), (BANK, 0, 64), (0, BANK, 64), (BANK, BANK, BANK)])
def test_offsets_in_the_buffers_count(source, result, place):
    found = banks(ar(16, (FIRST, source), result_offset=result))
    assert found.best(RESULT, [64, BANK]) == place


def test_numbers_in_the_instruction_and_buffers_without_a_place_do_not_collide():
    fill = chip.ArOp(
        RESULT, None, None, kind="copy", shape=(1, 64, 1, 16), res=View(F32), opd0=constant(1.0, F32)
    )
    assert Banks([fill, ar(16, (FIRST, 0))], BM1684X).best(RESULT, [0, BANK]) == 0
