"""Attention in its several forms on the vendor's runtime and on the simulator: the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from driver.convert import convert
from driver.options import ConvertOptions
from driver.pipelines import default_pipeline
from tests.architectures.configs import COMMON, CONFIGS
from tests.architectures.measure import write
from tests.conformance.same import assert_same_on_vendor, assert_same_session, random_inputs
from tests.frontend.oracle import reference_model

PROMPT = [5, 17, 99, 300, 41, 7, 8, 120, 44, 61, 2, 9]  # longer than a window
TOKENS = 3
FORMS = {  # rows of the table of architectures
    "windows and caps of scores": "gemma2",
    "rope of a part of each head": "phi",
    "rope of neighbours": "ernie4_5",
    "keys of several parts, narrower values": "minicpm3",
    "rows of a table by position": "ministral3",
}

pytestmark = [pytest.mark.vendor, pytest.mark.usefixtures("vendor")]


def compiled(name: str, folder: Path, target: dict[str, Any], **settings: Any) -> Path:
    model_type, own = CONFIGS[name]
    model = reference_model({**COMMON, "num_hidden_layers": 2, **own, **settings, "model_type": model_type})
    write(model, folder / "model")
    options = ConvertOptions(folder / "model", 64, "bf16", out_dir=folder / "out", **target)
    options = ConvertOptions(**{**vars(options), "passes": default_pipeline(options)})
    bmodel = convert(options)
    assert bmodel is not None
    return bmodel


@pytest.mark.parametrize("form", FORMS)
def test_a_session_gives_the_same_bits(form, tmp_path, target):
    bmodel = compiled(FORMS[form], tmp_path, target)
    assert_same_session(bmodel, PROMPT, TOKENS)
    nets = ("block_0", "block_cache_0", "block_cache_1")
    assert_same_on_vendor(bmodel, {net: random_inputs(bmodel, net) for net in nets})


def test_more_heads_than_lanes_give_the_same_bits(tmp_path, target):
    sizes = {"hidden_size": 144, "num_attention_heads": 72, "num_key_value_heads": 6, "head_dim": 32}
    bmodel = compiled("llama", tmp_path, target, **sizes)
    assert_same_on_vendor(bmodel, {net: random_inputs(bmodel, net) for net in ("block_1", "block_cache_1")})
