"""Towers as they are traced: what a grid or a picture becomes, and what is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from compiler.diagnostics import UserError
from compiler.ir.module import walk
from compiler.ir.types import F32
from dialects import llm
from frontend.build import native_model
from frontend.functions import Types
from frontend.graph import Constant, Graph, Node
from frontend.tables import Tables
from frontend.tower_net import tower_groups
from frontend.towers import Patches, TowerCapture, check_order, some_far_away, table_of, takes_grid
from tests.frontend.models import config
from tests.frontend.oracle import FUSED, SMALL
from tests.frontend.seeing import INTERNVL, QWEN2_5_VL, Seeing, client_inputs

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def grid_tower():
    return Seeing.make(QWEN2_5_VL)


def test_the_kinds_of_towers_are_told_by_what_they_take():
    kinds = [takes_grid(native_model(copy.deepcopy(each), 64)) for each in (QWEN2_5_VL, INTERNVL, config("llama"))]
    assert kinds == [True, False, None]


@pytest.mark.parametrize(("grid", "rows"), [((8, 8), 64), ((6, 10), 60), ((4, 10), 64), ((2, 2), 64)])
def test_features_of_a_grid_are_those_of_the_model(grid, rows):
    """Grids that windows divide and that they do not, that fill the rows and that leave some."""
    assert Seeing.make(QWEN2_5_VL, rows).grid_error(*grid) < TOLERANCE


def test_features_of_a_picture_are_those_of_the_model():
    assert Seeing.make(INTERNVL).image_error() < TOLERANCE


def test_fused_towers_give_the_same():
    assert Seeing.make(QWEN2_5_VL, pipeline=FUSED).grid_error(8, 8) < TOLERANCE
    assert Seeing.make(INTERNVL, pipeline=FUSED).image_error() < TOLERANCE


def test_layers_of_a_tower_are_those_of_text():
    """States are [1, tokens, hidden], and queries come from one linear, whatever a tower calls its axes."""
    ops = list(walk(Seeing.make(QWEN2_5_VL, pipeline=FUSED).function))
    ropes = [op for op in ops if isinstance(op, llm.RopeOp)]
    assert [op.x.defining(llm.PermuteOp).order for op in ropes] == [(0, 2, 1, 3)] * 4
    assert {op.y.type.shape[:2] for op in ops if isinstance(op, llm.RmsNormOp)} == {(1, 64)}
    assert sum(op.residual is not None for op in ops if isinstance(op, llm.LinearOp)) == 4


@pytest.mark.parametrize("number", range(5))
def test_every_input_of_a_grid_tower_counts(grid_tower, number):
    """Another number in any of them gives other features."""
    pixels = np.random.default_rng(1).standard_normal((40, 1176), np.float32)
    inputs = client_inputs(grid_tower, pixels, (4, 10), 64)
    before = grid_tower.features(inputs)
    inputs[number] = np.roll(inputs[number], 1, axis=-1)
    assert np.abs(grid_tower.features(inputs) - before).max() > 1e-2


def test_a_windowed_layer_sees_no_further_than_a_window_of_any_grid(grid_tower):
    """The grid that is traced has windows of 2 x 4 patches at most; others have 4 x 4."""
    seen = [op.visible for op in walk(grid_tower.function) if isinstance(op, llm.AttentionOp)]
    assert seen == [llm.Visible("band", 16), llm.Visible("all")]


def test_each_half_of_a_table_follows_the_row_and_the_column(grid_tower):
    gathers = [op for op in walk(grid_tower.function) if isinstance(op, llm.GatherRowsOp) and op.streams]
    assert {op.streams for op in gathers} == {llm.Streams((0, 1, 0, 1), (8, 8, 8, 8), axis=1)}
    assert all(op.table.type.shape == (64, 32) for op in gathers)


def test_grids_of_so_many_patches():
    assert Patches(3072, 1176, 2).grids() == [(2, 1536), (48, 64)]
    assert Patches(4 * 7, 1176, 2).grids() == [(2, 14), (2, 14)]


def with_vision(model_config, **settings):
    return {**model_config, "vision_config": {**model_config["vision_config"], **settings}}


@pytest.mark.parametrize(
    ("model_config", "message"),
    [
        (with_vision(INTERNVL, image_size=[60, 60]), r"cannot import aten\.convolution.*patches that do not fit in"),
    ],
)
def test_what_a_tower_has_that_is_not_understood_is_refused(model_config, message):
    with pytest.raises(UserError, match=message):
        Seeing.make(model_config)


# Families that come for nothing, as the tracer carries them. The towers of llava and of cohere2_vision count
# their patches, and give what a layer before the last one makes of them, or a shuffle of pixels.
PICTURE = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
PICTURE |= {"image_size": 56, "patch_size": 14}
FAMILIES = {
    "llava": {"text_config": {**SMALL, "model_type": "llama"}, "vision_config": {**PICTURE, "model_type": "clip_vision_model"}},
    "cohere2_vision": {
        "text_config": {**SMALL, "model_type": "cohere2"},
        "vision_config": {**PICTURE, "model_type": "siglip_vision_model"},
    },
}
ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
ROWS = {"depth": 2, "hidden_size": 64, "num_heads": 2}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_other_towers_of_pictures_are_carried(model_type):
    assert Seeing.make({"model_type": model_type, **FAMILIES[model_type]}, pipeline=FUSED).image_error() < TOLERANCE


@pytest.mark.parametrize("grid", [(8, 8), (4, 10)])
def test_a_tower_of_grids_without_windows_is_carried(grid):
    vision = {**ROWS, "embed_dim": 64, "mlp_ratio": 2}
    text = {**SMALL, "rope_parameters": ROPE}
    seeing = Seeing.make({"model_type": "qwen2_vl", "text_config": text, "vision_config": vision}, pipeline=FUSED)
    assert len(seeing.function.args) == 3
    assert seeing.grid_error(*grid) < TOLERANCE


REFUSED = {
    "qwen3_vl": (
        {**ROWS, "intermediate_size": 96, "out_hidden_size": 64, "num_position_embeddings": 16},
        r"its tower gives more than features for tokens \(deepstack_features\)",
    ),
    "gemma3": ({**PICTURE, "model_type": "siglip_vision_model"}, r"cannot import aten\.avg_pool2d\.default"),
    "smolvlm": (PICTURE, "cannot trace the model: ValueError: not enough values to unpack"),
    "llava_next": ({**PICTURE, "model_type": "clip_vision_model"}, "missing 1 required positional argument: 'image_sizes'"),
}


@pytest.mark.parametrize("model_type", REFUSED)
def test_towers_that_are_not_carried_are_refused_by_what_they_do(model_type):
    vision, message = REFUSED[model_type]
    text = {**SMALL, "num_hidden_layers": 1, "head_dim": 16}
    text |= {"qwen3_vl": {"rope_parameters": ROPE}, "gemma3": {"model_type": "gemma3_text"}}.get(model_type, {"model_type": "llama"})
    extra = {"mm_tokens_per_image": 4} if model_type == "gemma3" else {}
    model = native_model({"model_type": model_type, "text_config": text, "vision_config": vision, **extra}, 64)
    with pytest.raises(UserError, match=message):
        tower_groups(model, 64, Types(F32), Tables())


def graph_of(*names: str) -> TowerCapture:
    """Pixels through functions of these names, one after the other, "order" being rows in an order."""
    graph = Graph()
    (order,) = graph.add(Node("input", ("order",)), [((2,), "int64")])
    (value,) = graph.add(Node("input", ("pixels",)), [((2, 4), "float32")])
    graph.inputs = [order, value]
    for name in names:
        operands = (value, [order]) if name == "order" else (value, value)
        (value,) = graph.add(Node("aten.index.Tensor" if name == "order" else name, operands), [((2, 4), "float32")])
    return TowerCapture(graph, value)


def test_rows_must_not_meet_before_they_are_in_order():
    check_order(graph_of("linear", "order", "llm.attention"))
    for names in (("llm.attention", "order"), ("linear", "aten.add.Tensor", "order")):
        with pytest.raises(UserError, match="it mixes patches before they are in order"):
            check_order(graph_of(*names))


def constants(first: np.ndarray, second: np.ndarray) -> list[Node]:
    return [Node("constant", (Constant(each.astype(np.float32)),), path="visual") for each in (first, second)]


def test_a_constant_is_a_table_only_if_places_pick_its_rows():
    """Sines of rows and columns; the second run has them at other places."""
    ids = some_far_away(np.random.default_rng(0).integers(0, 16, (16, 2)))
    rows = np.arange(16)[:, None] * [0.5, 0.25]
    found = table_of(*constants(np.sin(rows), np.sin(ids * [0.5, 0.25])), ids)
    assert found.streams == llm.Streams((0, 1), (1, 1), axis=1)
    np.testing.assert_array_equal(found.rows, np.sin(rows).astype(np.float32))
    assert table_of(*constants(rows, rows), ids) is None
    with pytest.raises(UserError, match="its tables are not by rows and columns, in visual"):
        table_of(*constants(np.sin(rows) + 1e-3, np.sin(ids * [0.5, 0.25])), ids)
    with pytest.raises(UserError, match=r"a constant of shape \[16, 2\] depends on the grid, in visual"):
        table_of(*constants(np.sin(rows), np.cos(rows)), None)
