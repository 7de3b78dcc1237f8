"""The form that most of a checkpoint's weights have."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from frontend.checkpoint import Checkpoint
from frontend.sources.find import find_sources
from frontend.sources.form import Form, form_of
from tests import packers
from tests.packers import random_linear

F16, BF16, F32, FP8 = np.float16, ml_dtypes.bfloat16, np.float32, ml_dtypes.float8_e4m3fn


@pytest.mark.parametrize(
    ("types", "half"),
    [
        ((F16, F16, BF16), "f16"),
        ((BF16, BF16, F16), "bf16"),
        ((F32, F32, F16), "bf16"),
        ((FP8, FP8, FP8, F16), "f16"),
        ((FP8,), "bf16"),
    ],
)
def test_the_16_bit_type_is_that_of_most_floats(tmp_path, types, half):
    save_file({f"w{i}": np.ones(8).astype(dtype) for i, dtype in enumerate(types)}, tmp_path / "model.safetensors")
    assert form_of(Checkpoint(tmp_path).values()) == Form(half)


def test_of_codes_the_most_come_first(tmp_path):
    rng, tensors = np.random.default_rng(0), {"embed.weight": np.ones((4, 4), F16)}
    for name, bits, group in (("a", 8, 32), ("b", 4, 64), ("c", 4, 64), ("d", 8, 64)):
        linear = random_linear((64, 64), rng, bits=bits, group=group)
        tensors |= {f"{name}.{part}": values for part, values in packers.gptq(linear).items()}
    save_file(tensors, tmp_path / "model.safetensors")
    assert form_of(find_sources(Checkpoint(tmp_path), None).sources.values()) == Form("f16", (8, 4), (64, 32))
