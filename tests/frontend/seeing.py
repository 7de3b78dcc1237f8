"""Small models that see, what a client gives their towers, and what transformers makes of the same pictures."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

import runtime_sim.interpret.llm  # noqa: F401  (registers the rules)
from compiler.ir.types import F32
from dialects.builtin import FuncOp
from frontend.imported import ImportedModel
from frontend.importer import import_model
from passes import load_all
from passes.manager import PassManager, parse_pipeline
from runtime_sim.interpret.rules import interpret
from tests.frontend.oracle import SMALL, parameter, reference_model

MASKED = -10000.0  # what a client writes for patches that do not see each other
PATCH = 14
TEXT = {**SMALL, "hidden_size": 128, "num_hidden_layers": 2}
QWEN2_5_VL: dict[str, Any] = {  # as old checkpoints spell it: text beside what is for both
    **TEXT,
    "model_type": "qwen2_5_vl",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]},
    "image_token_id": 120,
    "video_token_id": 121,
    "vision_start_token_id": 122,
    "vision_end_token_id": 123,
    "vision_config": {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_heads": 2,
        "in_chans": 3,
        "patch_size": PATCH,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 4 * PATCH,
        "out_hidden_size": 128,
        "fullatt_block_indexes": [1],
        "hidden_act": "silu",
    },
}
INTERNVL: dict[str, Any] = {
    "model_type": "internvl",
    "image_token_id": 120,
    "downsample_ratio": 0.5,
    "vision_feature_layer": -1,
    "tie_word_embeddings": False,
    "text_config": {**TEXT, "model_type": "qwen2"},
    "vision_config": {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": [4 * PATCH, 4 * PATCH],
        "patch_size": [PATCH, PATCH],
        "attention_bias": True,
        "use_absolute_position_embeddings": True,
        "norm_type": "layer_norm",
        "layer_norm_eps": 1e-6,
    },
}


@dataclass
class Seeing:
    """A model that sees with random weights, and what we make of its configuration for `rows` patches."""

    reference: Any
    imported: ImportedModel

    @classmethod
    def make(cls, config: dict[str, Any], rows: int = 64, pipeline: str = "") -> Seeing:
        seeing = cls(reference_of(str(config)), import_model(copy.deepcopy(config), 64, 48, dtype=F32, patches=rows))
        load_all()
        if pipeline:
            PassManager(parse_pipeline(pipeline)).run(seeing.imported.find("vit")[0].module)
        return seeing

    @property
    def function(self) -> FuncOp:
        (function,) = self.imported.find("vit")[0].module.functions()
        return function

    def features(self, inputs: list[np.ndarray]) -> np.ndarray:
        """What our net makes of what a client gives it."""
        instance = self.imported.find("vit")[2]
        parameters = {name: value.numpy() for name, value in self.reference.state_dict().items()}
        weights = lambda name: parameter(parameters, instance.parameter_name(name))  # noqa: E731
        (found,) = interpret(self.function, inputs, weights, self.imported.tables)
        return found

    def expected(self, pixels: np.ndarray, *grid: int) -> np.ndarray:
        others = {"image_grid_thw": torch.tensor([[1, *grid]])} if grid else {}
        with torch.no_grad():
            found = self.reference.get_image_features(torch.from_numpy(pixels), **others).pooler_output
        return np.asarray(found[0])

    def grid_error(self, *grid: int) -> float:
        """Largest difference of the features of a picture of that grid, over the largest feature."""
        rows, width = self.function.args[0].type.shape
        pixels = np.random.default_rng(1).standard_normal((grid[0] * grid[1], width), np.float32)
        wanted = self.expected(pixels, *grid)
        return difference(self.features(client_inputs(self, pixels, grid, rows))[: len(wanted)], wanted)

    def image_error(self) -> float:
        pixels = np.random.default_rng(1).standard_normal(self.function.args[0].type.shape, np.float32)
        return difference(self.features([pixels]), self.expected(pixels))


@cache
def reference_of(config: str) -> Any:
    return reference_model(eval(config))


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def client_inputs(seeing: Seeing, pixels: np.ndarray, grid: tuple[int, ...], rows: int) -> list[np.ndarray]:
    """A picture's patches by windows, where each stands, who sees whom, and how to undo the order of features;
    rows without a patch are masked. Towers without windows take the first three of these.
    """
    config = seeing.reference.config.vision_config
    side, count = config.spatial_merge_size, len(pixels)
    told = torch.tensor([[1, *grid]])
    if not hasattr(config, "window_size"):
        places = get_vision_position_ids(told, side).numpy().astype(np.int32)
        return [filled(pixels, rows), filled(places, rows), seen_in([0, count], rows)]
    order, bounds = (each.numpy() for each in get_vision_window_index(told, side, config.window_size, PATCH))
    patches = (order[:, None] * side**2 + np.arange(side**2)).reshape(-1)
    places = get_vision_position_ids(told, side).numpy()
    full = seen_in([0, count], rows)
    return [
        filled(pixels[patches], rows),
        filled(places[patches].astype(np.int32), rows),
        full,
        seen_in(bounds, rows),
        filled(np.argsort(order).astype(np.int32), rows // side**2),
    ]


def filled(values: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([values, np.zeros((rows - len(values), *values.shape[1:]), values.dtype)])


def seen_in(bounds: Any, rows: int) -> np.ndarray:
    """[1, 1, rows, rows]: rows of one segment see each other."""
    mask = np.full((rows, rows), MASKED, np.float32)
    for start, stop in pairwise(bounds):
        mask[start:stop, start:stop] = 0
    return mask[None, None]
