"""Heads that are turned by their positions, in every mode, down to the chip."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers import random_tensor
from tests.passes.llm_to_tensor.levels import check_levels

POSITIONS = 200
MODES = ["half", "interleaved", "half_tables", "pairs_to_halves"]


def turned(tokens: int, heads: int, width: int, mode: str, part: int, streams: str = "") -> str:
    """x [1, tokens, heads width] split into heads [1, tokens, heads, width] that are turned; by three streams of
    positions where sections of the tables follow them.
    """
    ids = f"tensor<{tokens}x3xi32>" if "axis = 1" in streams else f"tensor<{3 if streams else 1}x{tokens}xi32>"
    stated = f"<{{streams = #llm.streams<{streams}>}}>" * bool(streams)
    table = part // 2 if mode == "half_tables" else part
    row, split, outside = (f"tensor<1x{s}xbf16>" for s in (f"{tokens}x{heads * width}", f"{tokens}x{heads}x{width}", f"{heads}x{tokens}x{width}"))
    rows, beside, all_rows = f"tensor<1x{tokens}x{table}xf32>", f"tensor<1x1x{tokens}x{table}xf32>", f"tensor<{POSITIONS}x{table}xf32>"
    text = ""
    for name in ("cos", "sin"):
        text += f"""
          %{name}0 = "llm.table"() <{{name = "{name}"}}> : () -> {all_rows}
          %{name}1 = "llm.gather_rows"(%{name}0, %ids) {stated} : ({all_rows}, {ids}) -> {rows}
          %{name} = "llm.reshape"(%{name}1) <{{shape = array<i64: 1, 1, {tokens}, {table}>}}> : ({rows}) -> {beside}
        """
    return text + f"""
      %a = "llm.reshape"(%x) <{{shape = array<i64: 1, {tokens}, {heads}, {width}>}}> : ({row}) -> {split}
      %b = "llm.permute"(%a) <{{order = array<i64: 0, 2, 1, 3>}}> : ({split}) -> {outside}
      %c = "llm.rope"(%b, %cos, %sin) <{{mode = "{mode}", rotary_dim = {part} : i64}}> : ({outside}, {beside}, {beside}) -> {outside}
      %y = "llm.permute"(%c) <{{order = array<i64: 0, 2, 1, 3>}}> : ({outside}) -> {split}
    """


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("tokens", "part"), [(1, 64), (1, 16), (70, 64), (70, 24)])
def test_heads_are_turned_as_a_whole_or_in_part(mode, tokens, part):
    table = part // 2 if mode == "half_tables" else part
    tables = {name: random_tensor(POSITIONS, table, seed=i) for i, name in enumerate(("cos", "sin"))}
    ids = np.random.default_rng(0).permutation(POSITIONS)[None, :tokens].astype(np.int32)
    x = random_tensor(1, tokens, 3 * 64).astype("bfloat16")
    check_levels(turned(tokens, 3, 64, mode, part), [ids, x], tables)


STREAMS = {
    "sections": [0] * 8 + [1] * 12 + [2] * 12,
    "turns": [0, 1, 2] * 9 + [0] * 5,
    "two of three": [2] * 16 + [0] * 16,
    "any": [1, 0, 0, 2, 1, 1, 1, 0] * 3 + [2, 0, 1, 1, 2, 2, 0, 1],
}


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize(("tokens", "mode"), [(1, "half"), (70, "half"), (70, "interleaved"), (70, "half_tables")])
def test_heads_are_turned_by_several_positions(kind, tokens, mode):
    numbers = STREAMS[kind]
    numbers = {"half": numbers * 2, "half_tables": numbers, "interleaved": np.repeat(numbers, 2).tolist()}[mode]
    streams = f"numbers = {numbers}, widths = {[1] * len(numbers)}"
    tables = {name: random_tensor(POSITIONS, len(numbers), seed=i) for i, name in enumerate(("cos", "sin"))}
    ids = np.random.default_rng(0).permutation(POSITIONS * 3).reshape(3, -1)[:, :tokens].astype(np.int32) % POSITIONS
    x = random_tensor(1, tokens, 3 * 64).astype("bfloat16")
    check_levels(turned(tokens, 3, 64, mode, 64, streams), [np.ascontiguousarray(ids), x], tables)


def test_rows_of_ids_may_be_the_tokens_and_columns_the_streams():
    """As towers have them."""
    tables = {name: random_tensor(POSITIONS, 64, seed=i) for i, name in enumerate(("cos", "sin"))}
    ids = np.random.default_rng(0).integers(0, POSITIONS, (70, 3)).astype(np.int32)
    x = random_tensor(1, 70, 3 * 64).astype("bfloat16")
    streams = "numbers = [0, 2, 0, 2], widths = [16, 16, 16, 16], axis = 1"
    check_levels(turned(70, 3, 64, "half", 64, streams), [ids, x], tables, axes={2: 0, 3: 1, 4: 1})
