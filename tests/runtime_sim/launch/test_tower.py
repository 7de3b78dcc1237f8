"""What the net `vit` is given, and where what it gives ends up."""

from dataclasses import replace

import numpy as np
import pytest

from compiler.diagnostics import UserError
from runtime_sim.launch.runtime import Runtime
from runtime_sim.launch.session import Session
from runtime_sim.launch.tower import GridTower, Picture, TileTower, tower_of, window_cells
from tests.runtime_sim.check.programs import (
    HIDDEN,
    PATCH_VALUES,
    PATCHES,
    ROWS,
    TILE,
    toy_grid_tower,
    toy_model,
    toy_table,
    toy_tile_tower,
    toy_tokens,
)

CONFIG = {"vision_config": {"window_size": 28, "patch_size": 14, "spatial_merge_size": 2}}
PROMPT = [3, 0, 0, 0, 0, 5]


def grids() -> Session:
    model = toy_model(streams=3)
    runtime = Runtime(replace(model, nets=[*model.nets, toy_grid_tower()]))
    return Session(runtime, tower=tower_of(runtime, runtime.net("vit"), CONFIG, "config.json"))


def tiles() -> Session:
    model = toy_model()
    runtime = Runtime(replace(model, nets=[*model.nets, toy_tile_tower()]))
    return Session(runtime, tower=tower_of(runtime, runtime.net("vit"), {}, "config.json"))


def patches(rows: int, columns: int, tokens: list[int], start: int = 0) -> Picture:
    """A picture of which each cell is one of the toy's tokens, in the order of the processor."""
    pixels = np.random.default_rng(0).standard_normal((rows * columns, PATCH_VALUES)).astype(np.float32)
    pixels.view(np.int32)[::4, : HIDDEN // 2] = toy_table()[tokens]
    return Picture(pixels, (rows, columns), start)


def test_a_tower_is_known_by_its_first_input():
    assert isinstance(grids().tower, GridTower)
    assert isinstance(tiles().tower, TileTower)
    assert grids().tower.window == 1


def test_rows_of_a_picture_come_in_the_order_of_the_processor():
    """The toy's tower picks them by reverse_index of those that it was given in the order of windows."""
    session = grids()
    session.tower = replace(session.tower, window=2)
    picture = patches(2, 8, [11, 12, 13, 14])
    rows = session.tower.features(picture).view(np.int32).reshape(-1, HIDDEN // 2)
    np.testing.assert_array_equal(rows, toy_table()[[11, 12, 13, 14]])


def test_what_a_picture_leaves_of_the_inputs_is_masked():
    tower = grids().tower
    picture = patches(2, 4, [1, 2])
    tower.give(picture)
    pixels, positions, full, window, reverse = (buffer.array for buffer in tower.net.inputs)
    np.testing.assert_array_equal(pixels[:8], picture.pixels)
    np.testing.assert_array_equal(positions[:8], [(r, c) for x in (0, 2) for r in (0, 1) for c in (x, x + 1)])
    assert not pixels[8:].any()
    assert not positions[8:].any()
    seen = np.zeros((PATCHES, PATCHES), bool)
    seen[:8, :8] = True
    np.testing.assert_array_equal(full[0, 0], np.where(seen, 0, -10000))
    seen[:4, 4:8] = seen[4:8, :4] = False
    np.testing.assert_array_equal(window[0, 0], np.where(seen, 0, -10000))
    np.testing.assert_array_equal(reverse, np.arange(4))


def test_a_tower_without_windows_is_given_one_mask():
    runtime = Runtime(replace(toy_model(), nets=[toy_grid_tower()]))
    net = runtime.net("vit")
    del net.inputs[3:]
    tower = tower_of(runtime, net, {}, "config.json")
    tower.give(patches(4, 4, [1, 2, 3, 4]))
    assert tower.window is None
    assert not net.inputs[2].array.any()


def test_pictures_stand_where_they_are_in_the_prompt():
    """The answer follows from the last token, which is of the picture here."""
    session = grids()
    picture = patches(4, 4, [11, 12, 13, 14], start=2)
    assert session.generate([3, 5, 0, 0, 0, 0], 4, pictures=[picture]) == toy_tokens(14, 4)
    assert session.generate([3, 5, 0, 0, 0, 0], 4) == toy_tokens(0, 4)


def test_states_of_several_pictures_reach_the_layers():
    session = tiles()
    table = toy_table().view(np.float32)
    first = np.stack([np.concatenate([table[[11]], table[[12]]], 1).reshape(1, 1, 8)] * 2, 2).reshape(1, *TILE)
    first[0, 0, 0, :4], first[0, 0, 1, :4] = table[11], table[12]
    second = np.concatenate([first, first[:, :, ::-1]])
    session.prefill([1, 0, 0, 2, 0, 0, 0, 0], [Picture(second, start=4), Picture(first, start=1)])
    states = session.blocks[0].outputs[0].data.view(np.int32).reshape(ROWS, -1)
    np.testing.assert_array_equal(states, toy_table()[[1, 11, 12, 2, 11, 12, 12, 11]])


def test_text_goes_on_after_the_positions_of_a_picture():
    """Values of the toy are first positions: those in time."""
    session = grids()
    session.generate(PROMPT, 3, pictures=[patches(4, 4, [1, 2, 3, 4], start=1)])
    values = session.caches[1].inputs[4].data.view(np.int32)[:8]
    np.testing.assert_array_equal(values, [0, 1, 1, 1, 1, 3, 4, 5])
    np.testing.assert_array_equal(session.caches[0].inputs[1].array, [[5]] * 3)
    session.generate(PROMPT, 2)
    np.testing.assert_array_equal(session.caches[1].inputs[4].data.view(np.int32)[:7], np.arange(7))


def test_positions_of_a_prompt_with_a_picture():
    session = grids()
    session.prefill(PROMPT, [patches(4, 4, [1, 2, 3, 4], start=1)])
    wanted = [[0, 1, 1, 1, 1, 3, 0, 0], [0, 1, 1, 2, 2, 3, 0, 0], [0, 1, 2, 1, 2, 3, 0, 0]]
    np.testing.assert_array_equal(session.blocks[1].inputs[1].array, wanted)


def test_pictures_of_one_stream_are_tokens_like_others():
    session = tiles()
    session.prefill([1, 0, 0, 2], [Picture(np.zeros((1, *TILE), np.float32), start=1)])
    np.testing.assert_array_equal(session.blocks[0].inputs[1].array, [[0, 1, 2, 3, 0, 0, 0, 0]])
    assert session.saved == 0


@pytest.mark.parametrize(
    ("session", "picture", "message"),
    [
        (grids(), patches(6, 4, [1] * 6), "the picture has 6 x 4 patches, 24, and net vit takes 16: make it smaller"),
        (grids(), Picture(np.zeros((4, 7), np.float32), (2, 2)), r"patches of a picture are \[4, 7\] values in 2 x 2"),
        (grids(), Picture(np.zeros((3, 8), np.float32), (3, 1)), r"patches of a picture are \[3, 8\] values in 3 x 1"),
        (tiles(), Picture(np.zeros((1, 3, 2, 8), np.float32)), r"tiles of a picture are \[3, 2, 8\], net vit takes \[1, 2, 8\]"),
    ],
)  # fmt: skip
def test_pictures_that_a_file_cannot_take_are_refused(session, picture, message):
    with pytest.raises(UserError, match=message):
        session.prefill(PROMPT, [picture])


@pytest.mark.parametrize("settings", [None, 5, {}, {"window_size": 112}, {**CONFIG["vision_config"], "window_size": "9"}])
def test_windows_need_their_settings(settings):
    with pytest.raises(UserError, match=r"config\.json: vision_config needs window_size, patch_size and"):
        window_cells({"vision_config": settings}, "config.json")


def test_a_window_is_counted_in_cells():
    assert window_cells({"vision_config": {"window_size": 112, "patch_size": 14, "spatial_merge_size": 2}}, "") == 4
