"""Columns that follow several streams: in which order they come, and how few moves put them there."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.ir.module import walk
from dialects import llm, tensor
from driver.blob import ROPE_ROWS
from passes.llm_to_tensor.streams import columns_of, repetition, rotary_columns
from tests.helpers import random_tensor
from tests.passes.llm_to_tensor.levels import check_levels
from tests.passes.llm_to_tensor.test_attention import turned


@pytest.mark.parametrize(
    ("columns", "found"),
    [("aaaa", (1, 4)), ("ab", (1, 1)), ("abab", (2, 2)), ("abcabcab", (3, 2)), ("aabb", (1, 2)), ("aabaabb", (3, 2))],
)
def test_the_longest_beginning_that_repeats_itself_is_found(columns, found):
    assert repetition(columns) == found


@pytest.mark.parametrize("mode", ["half", "interleaved", "half_tables"])
def test_columns_of_rows_are_those_of_the_tables_that_they_are_made_of(mode):
    """By rows that are made of the streams' numbers in the place of cosines and sines."""
    numbers = columns_of(llm.Streams((0, 1, 2), (3, 2, 3)))
    row = np.array([numbers], np.float32)
    made = np.concatenate(ROPE_ROWS[mode](row, row), axis=1)
    assert rotary_columns(numbers, mode) == np.abs(made)[0].tolist()


@pytest.mark.parametrize(("numbers", "joins"), [([0] * 16 + [1] * 24 + [2] * 24, 1), ([0, 1, 2] * 20 + [0] * 4, 2)])
def test_sections_and_turns_are_put_in_order_by_few_joins(numbers, joins):
    """Those of Qwen2.5-VL and of Qwen3-VL; a gather for each stream, whatever the number of sections."""
    streams = f"numbers = {numbers * 2}, widths = {[1] * 128}"
    tables = {name: random_tensor(200, 128, seed=seed) for seed, name in enumerate(("cos", "sin"))}
    ids = np.arange(3 * 64, dtype=np.int32).reshape(3, 64)
    x = random_tensor(1, 64, 3 * 128).astype("bfloat16")
    ops = [*walk(check_levels(turned(64, 3, 128, "half", 128, streams), [ids, x], tables))]
    assert sum(isinstance(op, tensor.GatherOp) for op in ops) == 3
    assert sum(isinstance(op, tensor.ConcatOp) for op in ops) == joins
