"""The sources of the coefficient blob, and what a file calls its regions."""

from __future__ import annotations

import pytest

from compiler.ir.types import BF16, F16, F32
from compiler.weights.scheme import Scheme
from compiler.weights.tile import Tile
from dialects.weights import (
    Floats,
    Indices,
    Iota,
    Joined,
    LanePart,
    LaneRecord,
    Packed,
    RopeTable,
    Table,
    TensorView,
    expert_name,
    region_name,
    some_items,
    stored_bits,
    transposed,
    view_of_name,
)

FOUR, SYMMETRIC, EIGHT = Scheme(4, 64, True, F16), Scheme(4, 32, False, BF16), Scheme(8, 64, False, BF16)
NORM = Joined(("norm",), F32)
# Of each source its name in a file, which must stay what it is, and the bits of its weights.
NAMES = [
    (
        Packed(("gate", "up"), 128, 64, Tile(256, 192, FOUR, 64, 64), True, 2),
        '#chip.packed<names = ["gate", "up"], row = 128, rows = 256, column = 64, columns = 192, bits = 4, group = 64, '
        "symmetric = false, scale = f16, each = true, pieces = 2>",
        4,
    ),
    (
        Packed(("o",), 0, 0, Tile(64, 64, SYMMETRIC, 64, 64)),
        '#chip.packed<names = ["o"], row = 0, rows = 64, column = 0, columns = 64, bits = 4, group = 32, '
        "symmetric = true, scale = bf16, each = false, pieces = 1>",
        4,
    ),
    (
        Packed(("down",), 0, 0, Tile(64, 64, EIGHT, 64, 64)),
        '#chip.packed<names = ["down"], row = 0, rows = 64, column = 0, columns = 64, bits = 8, group = 64, '
        "symmetric = true, scale = bf16, each = false, pieces = 1>",
        8,
    ),
    (
        Packed(("head",), 0, 0, Tile(64, 64, F16, 64, 64)),
        '#chip.packed<names = ["head"], row = 0, rows = 64, column = 0, columns = 64, bits = 16, group = 0, '
        "symmetric = true, scale = f16, each = false, pieces = 1>",
        16,
    ),
    (Joined(("table",), BF16), '#chip.joined<names = ["table"], dtype = bf16>', 16),
    (NORM, '#chip.joined<names = ["norm"], dtype = f32>', None),
    (RopeTable("cos", "sin"), '#chip.rope_table<cos = "cos", sin = "sin">', None),
    (
        RopeTable("cos", "sin", "interleaved"),
        '#chip.rope_table<cos = "cos", sin = "sin", mode = "interleaved">',
        None,
    ),
    (
        RopeTable("cos", "sin", columns=(1, 3)),
        '#chip.rope_table<cos = "cos", sin = "sin", columns = [1, 3]>',
        None,
    ),
    (Table("scale"), '#chip.table<name = "scale">', None),
    (Floats((0.5, 1.0)), "#chip.floats<values = [0.5, 1.0]>", None),
    (Indices("order"), '#chip.indices<name = "order">', None),
    (Iota(4, -64.0), "#chip.iota<count = 4, step = -64.0>", None),
    (
        LaneRecord((LanePart(NORM, 64, True), LanePart(Floats((1.0,)), 1, False)), 64, 64),
        '#chip.lane_record<parts = [#chip.lane_part<source = #chip.joined<names = ["norm"], dtype = f32>, '
        "count = 64, over_lanes = true>, #chip.lane_part<source = #chip.floats<values = [1.0]>, count = 1, "
        "over_lanes = false>], lanes = 64, eu_bytes = 64>",
        None,
    ),
]


@pytest.mark.parametrize(("source", "name", "bits"), NAMES, ids=lambda value: type(value).__name__)
def test_the_name_of_a_region_tells_the_bits_of_its_weights(source, name, bits):
    assert region_name(source) == name
    assert stored_bits(name) == bits


@pytest.mark.parametrize("name", ["model.layers.0.weight", "", '#chip.joined<names = ["bits = 4, "], dtype = f32>'])
def test_other_names_tell_nothing(name):
    assert stored_bits(name) is None


@pytest.mark.parametrize(
    "source",
    [
        Packed((), 0, 0, Tile(64, 64, FOUR, 64, 64)),
        Packed(("a",), -1, 0, Tile(64, 64, FOUR, 64, 64)),
        Packed(("a",), 0, -1, Tile(64, 64, FOUR, 64, 64)),
        Packed(("a",), 0, 0, Tile(64, 64, FOUR, 64, 64), pieces=0),
        Packed(("a",), 0, 0, Tile(64, 64, FOUR, 64, 64), pieces=3),
        Packed(("a", "b", "c"), 0, 0, Tile(64, 64, FOUR, 64, 64), each=True),
        Packed(("a",), 0, 0, Tile(64, 96, FOUR, 64, 64)),
        Joined((), F32),
        RopeTable("cos", "sin", "pairs_to_halves"),
        RopeTable("cos", "sin", columns=(0, -1)),
    ],
    ids=str,
)
def test_sources_of_nothing_are_refused(source):
    assert source.problem() is not None


def test_rows_and_columns_of_a_tensor_have_a_name():
    some = slice(2, 90, 4)
    assert view_of_name("mlp.up.weight") == TensorView("mlp.up.weight")
    assert some_items("mlp.up.weight", 0, some) == "mlp.up.weight{2:90:4}"
    assert view_of_name("mlp.up.weight{2:90:4}") == TensorView("mlp.up.weight", False, (some,))
    assert view_of_name(some_items(transposed("w"), 0, some)) == TensorView("w", True, (some,))
    assert some_items("mlp.down.weight", 1, some) == "mlp.down.weight{,2:90:4}"
    assert view_of_name("w{,2:90:4}") == TensorView("w", False, (slice(None), some))
    assert some_items("w{,2:90:4}", 0, slice(0, 3, 1)) == "w{0:3:1,2:90:4}"


def test_columns_of_experts_have_the_name_of_one_experts():
    stack = some_items("experts.up", 1, slice(0, 64, 1))
    assert (stack, view_of_name(stack).index) == ("experts.up{,0:64:1}", (slice(None), slice(0, 64, 1)))
    assert expert_name(stack, 3) == "experts.up[3]{0:64:1}"
    every = some_items("experts.gate_up[*][0:128:2]", 1, slice(0, 64, 1))
    assert every == expert_name("experts.gate_up[*][0:128:2]{0:64:1}", None)
    assert view_of_name(every).index == (slice(None), slice(0, 64, 1))
    assert expert_name(every, 3) == "experts.gate_up[3][0:128:2]{0:64:1}"
    assert view_of_name(expert_name(every, 3)).index == (slice(0, 64, 1),)


@pytest.mark.parametrize("again", [slice(0, 5, 1), slice(3, 10, 2), slice(1, 22, 20)])
def test_rows_of_rows_are_rows_of_the_tensor(again):
    view = view_of_name(some_items(some_items("w", 0, slice(2, 90, 4)), 0, again))
    assert view.tensor == "w"
    assert [*range(100)[view.cut[0]]] == [*range(100)[2:90:4][again]]
