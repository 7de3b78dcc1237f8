"""The table of what boards are published to do, and the choice of a row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from compiler.target.chips import CHIPS
from driver.ahead import boards as module
from driver.ahead.boards import boards, nearest


def test_every_row_is_whole_and_of_a_chip_that_is_known():
    chips = {spec.chip: spec for spec in CHIPS.values()}
    for board in boards():
        assert board.cores <= chips[board.chip].cores
        assert board.heads % board.kv_heads == 0
        assert min(board.first_token, board.rate) > 0
        assert (board.vendor_rate is None) == (board.vendor_first_token is None)


def test_boards_of_one_chip_read_what_their_memory_gives():
    """About 50 GB/s at most: a wrong shape, or a figure of another row, would stand out."""
    for board in boards():
        if board.devices == 1 and board.chip == "BM1684X":
            assert 22e9 < board.token_bytes * board.rate < 53e9, board


def test_the_estimate_of_the_vendors_programs_is_near_boards():
    known = [board for board in boards() if board.vendor_rate is not None]
    assert len(known) > 5
    for board in known:
        assert board.vendor_rate == pytest.approx(board.rate, rel=0.25)


def test_a_model_is_held_against_one_of_its_size():
    seven = next(board for board in boards() if board.model == "Llama2-7B")
    assert nearest("BM1684X", 1, 1, seven.token_bytes, 512) == seven
    small = nearest("BM1684X", 1, 1, 1e8, 512)
    assert (small.model, small.tokens) == ("Qwen2.5-1.5B", 512)
    assert nearest("BM1684X", 1, 1, small.token_bytes, 1024).tokens == 1024


def test_cores_and_devices_count_first_where_there_is_a_choice():
    assert nearest("BM1688", 1, 1, 1e9, 512).cores == 1
    assert nearest("BM1688", 2, 1, 1e9, 512).cores == 2
    assert nearest("BM1684X", 1, 4, 1e8, 512).devices == 4
    assert nearest("BM1684X", 1, 3, 1e9, 512) is not None
    assert nearest("BM1690", 1, 1, 1e9, 512) is None


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_that_are_as_near_the_one_with_an_estimate_is_taken(monkeypatch, order):
    known = next(board for board in boards() if board.vendor_rate is not None)
    unknown = replace(known, vendor_rate=None, vendor_first_token=None)
    monkeypatch.setattr(module, "boards", lambda: (known, unknown)[::order])
    assert nearest(known.chip, known.cores, 1, known.token_bytes, known.tokens) is known
