"""What the frontend hands to the compiler: modules of the llm dialect, and the names of their data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dialects.builtin import ModuleOp


@dataclass
class LayerModule:
    """One distinct layer: functions @block and @block_cache, and the layers that are compiled from it.

    M is the prefill length, S the sequence length, E the hidden size, h the KV heads, D the head size:
      @block        x [1, M, E], position_ids [1, M] i32, mask [1, 1, M, M] -> x, k [1, M, h, D], v
      @block_cache  x [1, 1, E], position_ids [1, 1] i32, mask [1, 1, 1, S + 1], history_k [1, S, h, D],
                    history_v -> x, k [1, 1, h, D], v of the new token
    The last layer is a module of its own, since the final norm stands at its end.
    """

    module: ModuleOp
    layer_indices: list[int]


@dataclass
class ImportedModel:
    """A causal language model.

    `embedding` holds @embedding (ids [1, M] i32 -> [1, M, E]) and @embedding_cache (ids [1, 1]);
    `lm_head` holds @lm_head (hidden [1, E] -> token [1, 1] i32). `tables` are the values of llm.table ops,
    float32: a rotary table has one row per position, [S, width].
    """

    layers: list[LayerModule]
    embedding: ModuleOp
    lm_head: ModuleOp
    tables: dict[str, np.ndarray]
    parameters: dict[str, tuple[int, ...]]  # full name to shape, buffers of the checkpoint included
    tied: dict[str, str]  # full name to the parameter it equals, unless the checkpoint has both
    layer_prefixes: list[str]  # "model.layers.0." for each layer

    def parameter_name(self, name: str, layer: int | None = None) -> str:
        """Full name of what an llm.weight op calls `name`, in the module of `layer` if it has one."""
        if name.startswith("/"):
            return name[1:]
        if layer is None:
            raise ValueError(f"weight {name!r} is relative to a layer")
        return self.layer_prefixes[layer] + name

    def module_of(self, layer: int) -> LayerModule:
        return next(group for group in self.layers if layer in group.layer_indices)
