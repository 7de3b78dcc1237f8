"""Keys and values in pieces that fit, and the rows of each that are wanted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.ir.types import BF16, TensorType
from compiler.target.chips.bm1684x import BM1684X
from dialects import tensor
from dialects.tensor import Lanes
from passes.llm_to_tensor.pieces import Part, Stored, history_pieces, parts_within
from passes.manager import PassManager, parse_pipeline
from passes.ranges import Range
from passes.tensor.build import Build
from tests.passes.llm_to_tensor.attending import Attention, loads_of, padded
from tests.passes.programs import Program

LOCATE = "hoist-stores,hoist-loads{fill=0.0},allocate-local"


@pytest.mark.parametrize("history", [3072, 3000])
def test_a_long_history_comes_in_pieces_that_fit(history):
    attention = Attention(1, heads=8, kv_heads=8, width=128, history=history)
    lowered = attention.check(padded(history, history - 10))
    pieces = [op.value.type.shape[0] for op in loads_of(lowered) if op.value.type.shape[1:] == (8, 128)]
    assert sum(pieces) == 2 * history
    assert max(pieces) * 8 * 128 * 2 // BM1684X.lanes <= BM1684X.lane_bytes // 8
    PassManager(parse_pipeline(f"tensor-to-chip,{LOCATE}")).run(lowered)  # DoesNotFit if it were too large


@pytest.mark.parametrize(("whole", "layout"), [(True, Lanes(1)), (False, Lanes(2))])
def test_heads_that_are_stored_come_when_asked_for_with_as_many_as_take_little_room(whole, layout):
    """1,024 tokens are 16 rows of lanes, of which a head of 160 bytes takes 2,560 a lane: six fit 16 KiB."""
    program = Program([np.zeros((1, 1024, 16, 80), BF16.numpy)])
    piece = Stored(Build(program.builder, BM1684X), program.function.args[0], BF16, whole, ones=True)

    def loaded() -> list[tensor.LoadOp]:
        return [op for op in program.function.block.ops if isinstance(op, tensor.LoadOp)]

    assert loaded() == []
    assert piece.head(0, Range(64, 128)).type.shape == (64, 81)
    piece.head(4, Range(0, 64))
    assert len(loaded()) == 1
    piece.head(5, Range(0, 64))
    piece.head(15, Range(0, 1024))
    heads = 2 if whole else 1
    assert [op.value.type.shape[heads] for op in loaded()] == [5, 5, 6]
    assert {op.value.type.layout for op in loaded()} == {layout}


def test_the_first_piece_is_loaded_at_once_and_the_others_when_they_are_asked_for():
    program = Program([np.zeros((1, 3000, 8, 128), BF16.numpy)])
    pieces = history_pieces(Build(program.builder, BM1684X), program.function.args[0], 128)

    def loaded() -> list[int]:
        return [op.value.type.shape[0] for op in program.function.block.ops if isinstance(op, tensor.LoadOp)]

    sizes = [piece.size for piece in pieces]
    assert (len(sizes), sum(sizes), loaded()) == (3, 3000, sizes[:1])
    for head in (0, 7, 3):
        rows = pieces[2].head(head, Range(5, 70))
        assert rows.type == TensorType((65, 128), BF16, tensor.Lanes(0))
    assert loaded() == [sizes[0], sizes[2]]


def test_rows_of_narrower_heads_are_filled_up():
    program = Program([np.zeros((1, 100, 8, 128), BF16.numpy)])
    (piece,) = history_pieces(Build(program.builder, BM1684X), program.function.args[0], 96)
    assert piece.head(3, Range(0, 64)).type == TensorType((64, 96), BF16, tensor.Lanes(0))


def test_parts_are_those_rows_of_each_piece_that_are_wanted():
    whole = [Part(0, Range(0, 64)), Part(1, Range(0, 100)), Part(2, Range(0, 1))]
    assert parts_within([64, 100, 1], Range(0, 165)) == whole
    assert parts_within([64, 100, 1], Range(70, 164)) == [Part(1, Range(6, 100))]
    assert parts_within([64, 64], Range(0, 64)) == whole[:1]


@given(sizes=st.lists(st.integers(1, 9), max_size=6), start=st.integers(0, 60), size=st.integers(0, 60))
def test_parts_are_each_wanted_token_once_and_in_order(sizes, start, size):
    tokens = [(index, row) for index, count in enumerate(sizes) for row in range(count)]
    parts = parts_within(sizes, Range(start, start + size))
    assert [(part.index, row) for part in parts for row in range(part.rows.start, part.rows.stop)] == tokens[start : start + size]
    assert all(part.rows.size > 0 for part in parts)
