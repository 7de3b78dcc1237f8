"""A tiny model whose weights are stored in every way there is, as codes that no search of ours would choose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from compiler.ir.types import BF16, F16
from compiler.weights.scheme import Scheme
from compiler.weights.stored import Weight
from driver.options import ConvertOptions
from frontend import load
from frontend.binding import Weights, bind
from frontend.checkpoint import StoredTensor
from tests.end_to_end.tiny import Tiny
from tests.helpers import random_codes

# Of each layer. What is not named here is left to -q w4bf16.
SCHEMES = (
    {
        "self_attn.q_proj.weight": Scheme(4, 32, True, F16),
        "self_attn.k_proj.weight": Scheme(4, 32, True, F16),
        "self_attn.v_proj.weight": Scheme(4, 32, True, F16),
        "self_attn.o_proj.weight": Scheme(4, 128, False, BF16),
        "mlp.down_proj.weight": Scheme(8, 64, False, F16),
    },
    {
        "self_attn.q_proj.weight": Scheme(8, 32, True, F16),
        "self_attn.k_proj.weight": Scheme(8, 32, True, F16),
        "self_attn.v_proj.weight": Scheme(8, 32, True, F16),
        "self_attn.o_proj.weight": Scheme(4, 128, False, BF16, minimum=True),
        "mlp.gate_proj.weight": Scheme(4, 32, False, F16, minimum=True),
        "mlp.up_proj.weight": Scheme(4, 32, False, F16, minimum=True),
        "mlp.down_proj.weight": Scheme(8, 64, True, BF16),
    },
)
FLOATS = ("self_attn.q_proj.weight", "self_attn.v_proj.weight", "self_attn.o_proj.weight")  # of layer 0, in its file


@dataclass(frozen=True)
class Coded:
    """A parameter that a checkpoint stores as codes; or as floats, if a program wants them as codes anyway."""

    floats: StoredTensor
    scheme: Scheme
    given: bool  # as codes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.floats, name)

    def read(self, rows: slice = slice(None)) -> Weight:
        return random_codes(self.shape, self.scheme, len(self.key)) if self.given else self.floats.read(rows)


def bind_mixed(*arguments: Any) -> Weights:
    weights = bind(*arguments)
    tensors = dict(weights.tensors)
    for layer, schemes in enumerate(SCHEMES):
        for own, scheme in schemes.items():
            name = f"model.layers.{layer}.{own}"
            tensors[name] = Coded(tensors[name], scheme, layer > 0 or own not in FLOATS)
    return Weights(tensors, weights.half)


def mixed_model(tiny_checkpoint: Callable[..., Path], out: Path, **options: Any) -> Tiny:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "bind", bind_mixed)
        checkpoint = tiny_checkpoint("llama", layers=len(SCHEMES), intermediate=384)
        return Tiny(ConvertOptions(checkpoint, 64, "w4bf16", out_dir=out, **options))
