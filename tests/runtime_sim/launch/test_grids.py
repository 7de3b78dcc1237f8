"""Orders and positions of patches, against transformers' own."""

import numpy as np
import pytest
import torch
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as library
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from runtime_sim.launch.grids import Grid, prompt_positions
from tests.vision import vision_config

GRIDS = [(2, 2), (8, 8), (8, 16), (16, 8), (10, 14), (2, 38), (38, 2), (48, 64)]


@pytest.mark.parametrize("size", GRIDS)
@pytest.mark.parametrize(("pixels", "merge"), [(112, 2), (56, 2), (28, 1), (84, 2)])
def test_windows_are_those_of_the_library(size, pixels, merge):
    grid = Grid(*size, merge, pixels // 14 // merge)
    wanted, bounds = get_vision_window_index(torch.tensor([[1, *size]]), merge, pixels, 14)
    np.testing.assert_array_equal(grid.order, wanted)
    np.testing.assert_array_equal(grid.reverse, torch.argsort(wanted))
    segments = np.searchsorted(bounds.numpy(), np.arange(grid.patches), side="right")
    np.testing.assert_array_equal(grid.same_window, segments[:, None] == segments)


@pytest.mark.parametrize("size", GRIDS)
@pytest.mark.parametrize("window", [None, 3])
def test_places_of_patches_are_those_of_the_library(size, window):
    """In the order in which the processor gives them, then in that of windows."""
    grid = Grid(*size, 2, window)
    given = get_vision_position_ids(torch.tensor([[1, *size]]), 2).numpy()
    np.testing.assert_array_equal(grid.positions, given[grid.patch_order])
    if window is None:
        np.testing.assert_array_equal(grid.patch_order, np.arange(grid.patches))
        assert grid.same_window.all()


def test_windows_follow_each_other_and_a_picture_need_not_fill_them():
    grid = Grid(6, 10, 2, 2)
    assert grid.order.tolist() == [0, 1, 5, 6, 2, 3, 7, 8, 4, 9, 10, 11, 12, 13, 14]
    assert grid.same_window[:, 0].sum() == 16
    assert grid.same_window[:, -1].sum() == 4


TEXT, PICTURE = 7, 9


@pytest.mark.parametrize(
    "parts",
    [
        [5],
        [3, (4, 6), 5],
        [(8, 2), 1, (2, 8), 4, (2, 2)],
        [1, (2, 38), 2],
    ],
)
def test_positions_of_prompts_are_those_of_the_library(parts):
    """Numbers are tokens of text, pairs the rows and columns of a picture's patches."""
    model = library.Qwen2_5_VLModel.__new__(library.Qwen2_5_VLModel)
    torch.nn.Module.__init__(model)
    model.config = vision_config("qwen2_5_vl")
    ids, boxes, grids = [], [], []
    for part in parts:
        if isinstance(part, int):
            ids += [TEXT] * part
            continue
        boxes.append((len(ids), part[0] // 2, part[1] // 2))
        grids.append([1, *part])
        ids += [PICTURE] * (part[0] * part[1] // 4)
    kinds = torch.tensor([[int(token == PICTURE) for token in ids]])
    wanted, further = model.get_rope_index(torch.tensor([ids]), kinds, torch.tensor(grids or [[0, 0, 0]]))
    found = prompt_positions(len(ids), boxes)
    np.testing.assert_array_equal(found, wanted[:, 0])
    assert found.max() + 1 - len(ids) == int(further)
