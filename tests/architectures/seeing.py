"""Models that see: what imported graphs make of a picture and of a prompt about it, beside Hugging Face."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from dialects.builtin import FuncOp
from runtime_sim.launch.grids import STREAMS, prompt_positions
from runtime_sim.launch.tower import GridTower, Picture, Tower, tower_of
from runtime_sim.tool.shown import drawn_pictures
from tests.frontend.oracle import INPUT_LENGTH, PROMPT, Subject, prefill_mask
from tests.runtime_sim.launch.fake_runtime import FakeNet

START = 2  # tokens before the picture


def picture_error(subject: Subject) -> float:
    """Largest difference of a picture's features and of the logits after a prompt about it, each over the
    largest of its kind.
    """
    model = subject.reference
    tower = tower_for(subject)
    picture = small_picture(tower)
    kept = int(np.prod(tower.token_grid(picture)))
    ids = np.random.default_rng(1).integers(3, 100, PROMPT)
    ids[START : START + kept] = model.config.image_token_id
    features, logits = expected(model, ids, picture)
    found = features_of(subject, tower, picture)[:kept]
    return max(difference(found, features), difference(logits_of(subject, tower, ids, picture), logits))


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def tower_for(subject: Subject) -> Tower:
    """The client's view of the imported tower, whose buffers it fills."""
    inputs, outputs = (
        [(str(each.element), each.shape) for each in types]
        for types in (
            [argument.type for argument in function_of(subject).args],
            function_of(subject).function_type.results,
        )
    )
    config = subject.reference.config.to_dict()
    runtime: Any = SimpleNamespace()
    return tower_of(runtime, FakeNet("vit", inputs, outputs), config, "config.json")  # type: ignore[arg-type]


def function_of(subject: Subject) -> FuncOp:
    return subject.imported.find("vit")[1]


def small_picture(tower: Tower) -> Picture:
    """Of few tokens, in no square, and with windows that it does not fill."""
    if not isinstance(tower, GridTower):
        (picture,) = drawn_pictures(tower)
        return Picture(picture.pixels[:1], start=START)
    grid = (tower.merge, 3 * tower.merge)
    values = tower.net.inputs[0].info.shape[1]
    pixels = np.random.default_rng(2).standard_normal((grid[0] * grid[1], values), np.float32)
    return Picture(pixels, grid, START)


def given(pictures: Sequence[Picture], tokens: Sequence[int], place: int) -> dict[str, torch.Tensor]:
    """What the library is told of the pictures in a prompt."""
    found = {"pixel_values": torch.from_numpy(np.concatenate([each.pixels for each in pictures]))}
    if any(pictures[0].grid):
        found["image_grid_thw"] = torch.tensor([[1, *each.grid] for each in pictures])
        found["mm_token_type_ids"] = torch.tensor([[int(token == place) for token in tokens]])
    return found


def streams_of(subject: Subject) -> int:
    """Positions that each token has."""
    return int(subject.imported.find("block_0")[1].args[1].type.shape[0])


@torch.no_grad()
def expected(model: Any, ids: np.ndarray, picture: Picture) -> tuple[np.ndarray, np.ndarray]:
    """The library's features, and its logits of the last token."""
    shown = given([picture], ids.tolist(), model.config.image_token_id)
    logits = model(input_ids=torch.from_numpy(ids)[None], use_cache=False, **shown).logits
    shown.pop("mm_token_type_ids", None)
    features = model.get_image_features(**shown).pooler_output
    return features[0].numpy(), logits[0, -1].numpy()


def features_of(subject: Subject, tower: Tower, picture: Picture) -> np.ndarray:
    tower.give(picture)
    return subject.run("vit", [buffer.array for buffer in tower.net.inputs])[0]


def logits_of(subject: Subject, tower: Tower, ids: np.ndarray, picture: Picture) -> np.ndarray:
    """Of the last token of a padded prompt, whose embedding has the features in place."""
    rows, columns = tower.token_grid(picture)
    prompt = np.zeros((1, INPUT_LENGTH), np.int32)
    prompt[0, :PROMPT] = ids
    x = subject.run("embedding", [prompt])[0].copy()
    x[0, START : START + rows * columns] = features_of(subject, tower, picture)[: rows * columns]
    streams = streams_of(subject)
    boxes = [(START, rows, columns)] if streams == STREAMS else []
    positions = np.zeros((streams, INPUT_LENGTH), np.int32)
    positions[:, :PROMPT] = prompt_positions(PROMPT, boxes)[:streams]
    for index in range(subject.reference.config.get_text_config().num_hidden_layers):
        x, _, _ = subject.run(f"block_{index}", [x, positions, prefill_mask()])
    return subject.head(x[:, PROMPT - 1])[0]
