"""Constants of a layer: numbers, fixed tables, and tables with a row per position."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.diagnostics import UserError
from dialects.llm import Streams
from frontend.graph import Constant, Node
from frontend.streams import told_apart
from frontend.tables import Positions, Tables, TableUse

ROWS = np.random.default_rng(0).standard_normal((1, 1, 8, 4)).astype(np.float32)
POSITION = 7


def uses(prefill, decode, whole, short=None, apart=()):
    """How one constant is classified, and the tables that result; a short run is as the prefill."""
    tables = Tables()
    runs = (prefill, decode, whole, prefill if short is None else short, *apart)
    runs = [[Node("constant", (Constant(np.asarray(run)),), path="layer")] for run in runs]
    return tables.uses(runs, POSITION)[0], tables.arrays


def test_rows_by_position_become_a_table():
    use, arrays = uses(ROWS[:, :, :5], ROWS[:, :, 7:], ROWS)
    assert use == TableUse("table", by_position=True)
    np.testing.assert_array_equal(arrays["table"], ROWS[0, 0])


def test_equal_arrays_are_a_fixed_table_and_equal_numbers_a_number():
    use, arrays = uses(ROWS, ROWS, ROWS)
    assert use == TableUse("table", by_position=False)
    assert arrays["table"].shape == ROWS.shape
    assert uses(0.5, 0.5, 0.5) == (0.5, {})


def test_columns_of_a_table_follow_streams_of_positions():
    positions = told_apart(2)
    apart = np.stack([positions[each] % 7 for each in (1, 0, 0, 1)], axis=-1).astype(np.float32)
    use, _ = uses(ROWS[:, :, :5], ROWS[:, :, 7:], ROWS, apart=[apart[None, None]])
    assert use == TableUse("table", True, Streams((1, 0, 1), (1, 2, 1)))


@pytest.mark.parametrize("constant", [0.5, ROWS])
def test_what_differs_between_streams_alone_is_refused(constant):
    assert uses(constant, constant, constant, apart=[constant])
    with pytest.raises(UserError, match="depends on the number of tokens or on their positions, in layer"):
        uses(constant, constant, constant, apart=[np.asarray(constant) + 1])


def test_equal_tables_share_a_name():
    tables = Tables()
    first, other = ROWS[0, 0], ROWS[0, 0] + 1
    assert [tables.add(each, True) for each in (first, first.copy(), other)] == ["table", "table", "table_1"]


def test_position_tables_of_angles_are_named_after_what_they_hold():
    """All angles are 0 at position 0; some models scale both, and a second pair is numbered."""
    tables, angles = Tables(), np.arange(8)[:, None] / np.array([1, 10, 100])
    pairs = [(f(angles) * scale).astype(np.float32) for scale in (1, 1.25) for f in (np.cos, np.sin)]
    assert [tables.add(each, True) for each in pairs] == ["cos", "sin", "cos_1", "sin_1"]
    assert tables.add(np.zeros((8, 3), np.float32), by_position=False) == "table"


@pytest.mark.parametrize(
    ("prefill", "decode", "whole"),
    [
        (ROWS[:, :, :5] + 1e-3, ROWS[:, :, 7:], ROWS),  # other rows in a shorter prefill
        (ROWS[:, :, :5], ROWS[:, :, 6:7], ROWS),  # the row of another position
        (np.float32(4), np.float32(7), np.float32(7)),  # a number that counts tokens
        (np.eye(5), np.ones((1, 8)), np.eye(8)),  # two axes of tokens
        (ROWS.reshape(8, 4)[None, :5].repeat(2, 0), ROWS[:, 0, 7:].repeat(2, 0), ROWS[0].repeat(2, 0)),
        (np.arange(5)[None], np.array([[5]]), np.arange(8)[None]),  # whole numbers that are no positions
    ],
)
def test_constants_that_depend_on_the_number_of_tokens_are_refused(prefill, decode, whole):
    with pytest.raises(UserError, match=r"cannot import the model: .* in layer"):
        uses(prefill, decode, whole)


def test_tokens_that_are_counted_are_refused_where_they_have_several_positions():
    runs = (np.arange(5)[None], np.array([[7]]), np.arange(8)[None])
    assert uses(*runs)[0] == Positions(0, 8)
    with pytest.raises(UserError, match="depends on the number of tokens or on their positions, in layer"):
        uses(*runs, apart=[told_apart(2)[:1]])


def test_tables_of_another_length_are_refused_though_all_long_runs_agree():
    with pytest.raises(UserError, match="depend on the length of the input"):
        uses(ROWS, ROWS[:, :, 7:], ROWS, short=ROWS[:, :, :2] * 1.01)


def test_runs_with_different_numbers_of_constants_are_refused():
    node = Node("constant", (Constant(ROWS),), path="layer")
    with pytest.raises(UserError, match="other constants in decode than in prefill"):
        Tables().uses([[node], [], [node], [node]], POSITION)
