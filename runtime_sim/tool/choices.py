"""Tokens whose experts rounding may decide: for states that differ a little, others are chosen.

Both choices are right then, and what is computed with them may differ by much.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np

from runtime_sim.arrays import Array

RUNS = 6  # with other noise each
NOISE = 0.02  # of the states' root mean square: twice what a block of 16 bits was seen to be off by


@dataclass
class Choices:
    """Watches mixtures of experts while a model runs on one batch of tokens."""

    layers: Sequence[Any]
    undecided: dict[int, Array] = field(default_factory=dict)  # by layer: which tokens

    def hooks(self) -> list[Any]:
        return [
            mixture.register_forward_hook(self._watch(index, experts))
            for index, layer in enumerate(self.layers)
            for mixture, experts in mixtures_in(layer)
        ]

    def decided(self, layer: int, tokens: int) -> Array:
        """[tokens] bool"""
        return np.logical_not(self.undecided.get(layer, np.zeros(tokens, bool)))

    def _watch(self, layer: int, experts: Any) -> Any:
        def hook(mixture: Any, arguments: tuple[Any, ...], output: Any) -> None:
            found = changeable(mixture, experts, arguments)
            self.undecided[layer] = self.undecided.get(layer, np.zeros_like(found)) | found

        return hook


def mixtures_in(layer: Any) -> Iterator[tuple[Any, Any]]:
    """Modules below a layer that hold experts of the library's interface, and those."""
    for module in layer.modules():
        for child in module.children():
            if module is not layer and hasattr(child, "is_concatenated") and hasattr(child, "has_gate"):
                yield module, child


def changeable(mixture: Any, experts: Any, arguments: tuple[Any, ...]) -> Array:
    """Which tokens of a mixture's input choose other experts when it is off by a little."""
    import torch

    generator = torch.Generator().manual_seed(0)
    states, *others = arguments
    right = chosen(mixture, experts, arguments)
    scale = NOISE * states.square().mean(-1, keepdim=True).sqrt()
    found = np.zeros(len(right), bool)
    for _ in range(RUNS):
        noise = torch.randn(states.shape, generator=generator) * scale
        found |= (chosen(mixture, experts, (states + noise, *others)) != right).any(axis=1)
    return found


def chosen(mixture: Any, experts: Any, arguments: tuple[Any, ...]) -> Array:
    """[tokens, experts of each], in order of their numbers; none of them is computed."""
    import torch

    kept: list[Any] = []

    def forward(states: Any, ids: Any, *_weights: Any) -> Any:
        kept.append(ids)
        return torch.zeros_like(states)

    with patch.object(experts, "forward", forward), torch.no_grad():
        mixture.forward(*arguments)
    return np.sort(kept[0].numpy(), axis=-1)
