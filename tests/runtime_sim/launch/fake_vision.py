"""A runtime whose nets, `vit` among them, are the modules of a transformers model that sees."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface

from runtime_sim.launch.grids import STREAMS
from runtime_sim.launch.session import Session
from runtime_sim.launch.tower import tower_of
from tests.runtime_sim.launch.fake_runtime import ACT, FakeNet, FakeRuntime
from tests.vision import HIDDEN, PATCH, TILE, TILE_TOKENS, vision_model

PATCHES, PATCH_VALUES = 64, 3 * 2 * PATCH**2
MASKED = "by the mask of a client"


class FakeVision(FakeRuntime):
    """Towers take what clients give: orders, places and masks are theirs, not the library's."""

    def __init__(self, name: str, rows: int = 48, history: int = 64, patches: int = PATCHES) -> None:
        is_grid = name == "qwen2_5_vl"
        self._add_nets(vision_model(name), rows, history, streams=STREAMS if is_grid else 1)
        self.nets["vit"] = _grid_net(patches) if is_grid else _tile_net()

    def session(self) -> Session:
        config = self.model.config.to_dict()
        return Session(self, tower=tower_of(self, self.nets["vit"], config, "config.json"))

    def _compute(self, name: str, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        if name != "vit":
            return super()._compute(name, inputs)
        if len(inputs) == 1:
            return [self.model.get_image_features(pixel_values=inputs[0]).pooler_output]
        return [self._grid(*inputs)]

    def _grid(
        self,
        pixels: torch.Tensor,
        positions: torch.Tensor,
        full: torch.Tensor,
        window: torch.Tensor,
        reverse: torch.Tensor,
    ) -> torch.Tensor:
        tower = self.model.model.visual
        tower.config._attn_implementation = MASKED
        x = tower.patch_embed(pixels)
        places = tower.rotary_pos_emb(x, positions)
        for index, block in enumerate(tower.blocks):
            mask = full if index in tower.fullatt_block_indexes else window
            x = block(x, cu_seqlens=torch.tensor([0, len(x)]), position_embeddings=places, seen=mask)
        return tower.merger(x)[reverse]


def _attention(module: Any, q: Any, k: Any, v: Any, scaling: float, seen: Any, **_: Any) -> Any:
    return ((q @ k.mT * scaling + seen).softmax(-1) @ v).transpose(1, 2), None


AttentionInterface.register(MASKED, _attention)


def _grid_net(patches: int) -> FakeNet:
    mask = ("f32", (1, 1, patches, patches))
    inputs = [("f32", (patches, PATCH_VALUES)), ("i32", (patches, 2)), mask, mask, ("i32", (patches // 4,))]
    return FakeNet("vit", inputs, [(ACT, (patches // 4, HIDDEN))])


def _tile_net() -> FakeNet:
    return FakeNet("vit", [("f32", (1, 3, TILE, TILE))], [(ACT, (TILE_TOKENS, HIDDEN))])
