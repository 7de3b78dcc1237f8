"""A runtime whose nets are the modules of a transformers model: clients of nets can be tested without a chip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import torch
from transformers import AutoModelForCausalLM, DynamicCache

from compiler.bmodel import TensorInfo
from runtime_sim.launch.runtime import NUMPY_TYPES, Buffer

ACT = "f16"


class FakeNet:
    def __init__(
        self, name: str, inputs: list[tuple[str, tuple[int, ...]]], outputs: list[tuple[str, tuple[int, ...]]]
    ):
        self.name = name
        self.program = SimpleNamespace(
            cores=(), stage=SimpleNamespace(coeff=None), dma_address=lambda info: info.address
        )
        self.parts = [self]
        self.inputs = [_buffer(f"in{i}", *each) for i, each in enumerate(inputs)]
        self.outputs = [_buffer(f"out{i}", *each) for i, each in enumerate(outputs)]


def _buffer(name: str, dtype: str, shape: tuple[int, ...]) -> Buffer:
    info = TensorInfo(name, dtype, 0, shape)
    return Buffer(info, np.full(info.size, 0xA5, np.uint8))


class FakeRuntime:
    """Nets by the client contract; blocks share their inputs, as basic mode nets do."""

    def __init__(self, folder: Path, rows: int = 16, history: int = 24, shorter: Sequence[int] = ()) -> None:
        self._add_nets(
            AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), rows, history, shorter
        )

    def _add_nets(
        self, model: Any, rows: int, history: int, shorter: Sequence[int] = (), streams: int = 1
    ) -> None:
        self.model = model
        self.base = self.model.get_decoder()
        self.program = SimpleNamespace(spec=SimpleNamespace(chip="FAKE"))
        config = self.model.config.get_text_config()
        hidden, heads = config.hidden_size, config.num_key_value_heads
        dim, layers = self.base.layers[0].self_attn.head_dim, config.num_hidden_layers
        state, states, row = (1, 1, hidden), (1, rows, hidden), (1, 1, heads, dim)
        keys, cached, mask = (1, rows, heads, dim), (1, history, heads, dim), (1, 1, rows, rows)
        block = [(ACT, states), ("i32", (streams, rows)), (ACT, mask)]
        step, seen = ("i32", (streams, 1)), (ACT, (1, 1, 1, history + 1))
        cache = [(ACT, state), step, seen, (ACT, cached), (ACT, cached)]
        self.shorter = shorter
        self.nets = {
            "embedding": FakeNet("embedding", [("i32", (1, rows))], [(ACT, states)]),
            "embedding_cache": FakeNet("embedding_cache", [("i32", (1, 1))], [(ACT, state)]),
            "lm_head": FakeNet("lm_head", [(ACT, (1, hidden))], [("i32", (1, 1))]),
        }
        for layer in range(layers):
            self.nets[f"block_{layer}"] = FakeNet(
                f"block_{layer}", block, [(ACT, states), (ACT, keys), (ACT, keys)]
            )
            self.nets[f"block_{layer}"].inputs = self.nets["block_0"].inputs
            out = [(ACT, state), (ACT, row), (ACT, row)]
            self.nets[f"block_cache_{layer}"] = FakeNet(f"block_cache_{layer}", cache, out)
            for stage, length in enumerate(shorter, 1):
                self._add_stage(f"block_cache_{layer}", stage, length)

    def _add_stage(self, name: str, stage: int, history: int) -> None:
        """One for a shorter history, which it finds where the first stage has its own."""
        first = self.nets[name]
        x, positions, mask, *caches = [(each.info.dtype, each.info.shape) for each in first.inputs]
        mask, caches = (ACT, (1, 1, 1, history + 1)), [(ACT, (1, history, *shape[2:])) for _, shape in caches]
        outputs = [(each.info.dtype, each.info.shape) for each in first.outputs]
        net = FakeNet(f"{name}.{stage}", [x, positions, mask, *caches], outputs)
        for index in (3, 4):
            info = net.inputs[index].info
            net.inputs[index] = Buffer(info, first.inputs[index].data[: info.size])
        self.nets[net.name] = net

    def stages(self, name: str) -> list[FakeNet]:
        further = [self.nets[f"{name}.{stage}"] for stage in range(1, len(self.shorter) + 1)]
        return [self.nets[name], *further]

    def has_net(self, name: str) -> bool:
        return name in self.nets

    def net(self, name: str) -> FakeNet:
        return self.nets[name]

    @torch.no_grad()
    def launch(
        self,
        net: FakeNet,
        inputs: Sequence[np.ndarray] | None = None,
        outputs: Sequence[np.ndarray] | None = None,
    ) -> None:
        for buffer, given in zip(net.inputs, inputs or [], strict=bool(inputs)):
            if not np.shares_memory(buffer.data, given):
                buffer.data[...] = given
        results = self._compute(net.name, [_tensor(buffer) for buffer in net.inputs])
        for buffer, value in zip(net.outputs, results, strict=True):
            buffer.array[...] = (
                value.reshape(buffer.info.shape).numpy().astype(NUMPY_TYPES[buffer.info.dtype])
            )
        for buffer, given in zip(net.outputs, outputs or [], strict=bool(outputs)):
            given[...] = buffer.data

    def _compute(self, name: str, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        if name.startswith("embedding"):
            return [self.base.embed_tokens(inputs[0])]
        if name == "lm_head":
            return [self.model.lm_head(self.base.norm(inputs[0])).argmax(-1)]
        layer = int(name.rpartition("_")[2].partition(".")[0])
        return self._layer(layer, *inputs)

    def _layer(
        self, layer: int, x: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor, *history: torch.Tensor
    ) -> list[torch.Tensor]:
        cache = DynamicCache()
        for below in range(layer):  # layers find their place by index
            cache.update(torch.zeros(1, 1, 0, 1), torch.zeros(1, 1, 0, 1), below)
        if history:
            cache.update(*(each.transpose(1, 2) for each in history), layer)
        streams = positions[:, None] if len(positions) > 1 else positions
        rotary = self.base.rotary_emb(x, streams)
        y = self.base.layers[layer](
            x, attention_mask=mask, position_ids=positions, past_key_values=cache, position_embeddings=rotary
        )
        y = y[0] if isinstance(y, tuple) else y
        new = [
            each[:, :, -x.shape[1] :].transpose(1, 2)
            for each in (cache.layers[layer].keys, cache.layers[layer].values)
        ]
        return [y, *new]


def _tensor(buffer: Buffer) -> torch.Tensor:
    array = buffer.array
    if array.dtype in (ml_dtypes.bfloat16, np.float16, np.float32):
        return torch.from_numpy(array.astype(np.float32))
    return torch.from_numpy(array.astype(np.int64))
