"""Decoders that are no llama on the vendor's runtime: the bits of the simulator, the tokens of Hugging Face."""

from __future__ import annotations

from typing import Any

import pytest

from driver.convert import convert
from driver.options import ConvertOptions
from tests.architectures.configs import COMMON
from tests.architectures.measure import write
from tests.conformance.same import assert_same_on_vendor, assert_same_session, random_inputs
from tests.conformance.test_models import PROMPT, TOKENS, assert_tokens_of_reference
from tests.frontend.oracle import reference_model

SIZES = COMMON | {"num_hidden_layers": 2, "intermediate_size": 256}
DECODERS: dict[str, dict[str, Any]] = {
    "gpt_neox": {"rotary_pct": 0.5},  # layer norms, gelu, attention and mlp side by side, a part of each head turned
    "gemma": {"head_dim": 32},  # scaled embedding, gelu_tanh as a gate
    "opt": {"ffn_dim": 256, "word_embed_proj_dim": 64},  # learned positions, relu
}

pytestmark = [pytest.mark.vendor, pytest.mark.usefixtures("vendor")]


@pytest.mark.parametrize("model_type", DECODERS)
def test_a_session_gives_the_same_bits_and_tokens(model_type, tmp_path, target):
    folder = tmp_path / "model"
    write(reference_model({**SIZES, **DECODERS[model_type], "model_type": model_type}), folder)
    file = convert(ConvertOptions(folder, 64, "bf16", out_dir=tmp_path / "out", **target))
    assert file is not None
    assert_tokens_of_reference(folder, assert_same_session(file, PROMPT, TOKENS))
    assert_same_on_vendor(file, {net: random_inputs(file, net) for net in ("block_0", "block_cache_1")})
