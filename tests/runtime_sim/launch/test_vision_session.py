"""Conversations about pictures by the client contract, against Hugging Face's own features and tokens."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from runtime_sim.launch.tower import Picture
from tests.runtime_sim.launch.fake_vision import PATCH_VALUES, FakeVision
from tests.vision import END, PLACE, START, TILE

COUNT = 8


def grid_picture(rows: int, columns: int, start: int, seed: int = 0) -> Picture:
    pixels = np.random.default_rng(seed).standard_normal((rows * columns, PATCH_VALUES)).astype(np.float32)
    return Picture(pixels, (rows, columns), start)


def tile_picture(tiles: int, start: int, seed: int = 0) -> Picture:
    pixels = np.random.default_rng(seed).standard_normal((tiles, 3, TILE, TILE)).astype(np.float32)
    return Picture(pixels, start=start)


def given(pictures: Sequence[Picture]) -> dict[str, torch.Tensor]:
    """What the library calls the pictures of a prompt."""
    found = {"pixel_values": torch.from_numpy(np.concatenate([each.pixels for each in pictures]))}
    if any(pictures[0].grid):
        found["image_grid_thw"] = torch.tensor([[1, *each.grid] for each in pictures])
    return found


@torch.no_grad()
def wanted_tokens(model: Any, prompt: Sequence[int], pictures: Sequence[Picture], count: int) -> list[int]:
    """The library's greedy answer, read anew for each token."""
    tokens = list(prompt)
    for _ in range(count):
        ids = torch.tensor([tokens])
        kinds = {"mm_token_type_ids": (ids == PLACE).int()} if any(pictures[0].grid) else {}
        logits = model(input_ids=ids, use_cache=False, **given(pictures), **kinds).logits
        tokens.append(int(logits[0, -1].argmax()))
    return tokens[len(prompt) :]


GRIDS = [
    [grid_picture(8, 8, 2)],
    [grid_picture(4, 10, 2)],
    [grid_picture(6, 6, 2), grid_picture(2, 14, 14, seed=1)],
]
TILES = [[tile_picture(1, 2)], [tile_picture(3, 2)], [tile_picture(2, 2), tile_picture(1, 13, seed=1)]]
CASES = [("qwen2_5_vl", each) for each in GRIDS] + [("internvl", each) for each in TILES]


def prompt_of(pictures: Sequence[Picture], sizes: Sequence[int]) -> list[int]:
    """Text around and between the pictures, which have places of these sizes."""
    tokens = [7]
    for picture, size in zip(pictures, sizes, strict=True):
        tokens += range(11, 11 + picture.start - len(tokens) - 1)
        tokens += [START, *[PLACE] * size, END]
    return [*tokens, 21, 22, 23]


@pytest.mark.parametrize(("name", "pictures"), CASES)
def test_answers_are_those_of_the_library(name, pictures):
    runtime = FakeVision(name)
    session = runtime.session()
    prompt = prompt_of(pictures, [np.prod(session.tower.token_grid(each)) for each in pictures])
    answer = session.generate(prompt, COUNT, pictures=pictures)
    assert answer == wanted_tokens(FakeVision(name).model, prompt, pictures, COUNT)
    negatives = [replace(picture, pixels=-picture.pixels) for picture in pictures]
    assert answer != session.generate(prompt, COUNT, pictures=negatives)


@torch.no_grad()
@pytest.mark.parametrize(("name", "pictures"), CASES)
def test_features_are_those_of_the_library(name, pictures):
    session = FakeVision(name).session()
    wanted = FakeVision(name).model.get_image_features(**given(pictures)).pooler_output
    wanted = wanted if isinstance(wanted, torch.Tensor) else torch.cat([*wanted])
    found = np.concatenate([session.tower.features(each).view(np.float16) for each in pictures])
    wanted = wanted.numpy().reshape(-1)
    assert np.abs(found - wanted).max() < 2e-3 * np.abs(wanted).max()
