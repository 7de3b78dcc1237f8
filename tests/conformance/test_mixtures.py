"""Mixtures of experts on the vendor's runtime and on the simulator: the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from driver.convert import convert
from driver.options import ConvertOptions
from tests.architectures.configs import config_of
from tests.architectures.measure import write
from tests.conformance.same import assert_same_session
from tests.frontend.oracle import reference_model

PROMPT = [5, 17, 99, 300, 41]

pytestmark = [pytest.mark.vendor, pytest.mark.usefixtures("vendor")]


@pytest.mark.parametrize(("name", "mode"), [("qwen3_moe", "w4bf16"), ("qwen2_moe", "bf16"), ("mixtral", "w8f16"), ("gpt_oss", "w4bf16")])
def test_a_session_gives_the_same_bits(tmp_path: Path, target: dict[str, Any], name: str, mode: str):
    config = {**config_of(name), "num_hidden_layers": 2}
    if "layer_types" in config:
        config["layer_types"] = config["layer_types"][:2]
    write(reference_model(config), tmp_path / "model")
    bmodel = convert(ConvertOptions(tmp_path / "model", 32, mode, out_dir=tmp_path / "out", **target))
    assert bmodel is not None
    assert_same_session(bmodel, PROMPT, 4)
