"""Compiled models on the vendor's runtime and on the simulator: the same bits, and the tokens of Hugging Face."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driver.convert import convert
from driver.options import MODES, ConvertOptions
from driver.pipelines import Effort, default_pipeline
from passes.options import ByFunction
from runtime_sim.launch.sampling import Sampling
from runtime_sim.tool.reference import Reference
from tests.checkpoints import LLAMA3_ROPE
from tests.conformance.same import (
    assert_same_candidates,
    assert_same_on_vendor,
    assert_same_session,
    random_inputs,
)

FAMILIES = {
    "llama": {"rope_scaling": LLAMA3_ROPE},
    "qwen2": {},
    "qwen3": {"tied": True},
}
PROMPT = [5, 17, 99, 300, 41]
TOKENS = 5  # one from the prefill, four from decode steps
TIE = 0.05  # of the logits' standard deviation: below it bf16 may choose the other of two tokens

pytestmark = [pytest.mark.vendor, pytest.mark.usefixtures("vendor")]


@pytest.fixture
def compiled(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, target: dict[str, Any]
) -> Callable[..., tuple[Path, Path]]:
    """The folder of a tiny model of a family, and the bmodel of it."""

    def make(family: str, mode: str, length: int = 64, effort: Effort | None = None) -> tuple[Path, Path]:
        folder = tiny_checkpoint(family, **FAMILIES[family])
        options = ConvertOptions(folder, length, mode, out_dir=tmp_path / "out", **target)
        if effort is not None:
            options = dataclasses.replace(options, passes=default_pipeline(options, ByFunction(effort)))
        bmodel = convert(options)
        assert bmodel is not None
        return folder, bmodel

    return make


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("target", ["bm1684x", "cv186ah", "both_cores"], indirect=True)
def test_a_session_gives_the_same_bits_and_tokens(compiled, family, mode):
    folder, bmodel = compiled(family, mode)
    tokens = assert_same_session(bmodel, PROMPT, TOKENS)
    if mode in ("bf16", "f16"):
        assert_tokens_of_reference(folder, tokens)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("target", ["bm1688"], indirect=True)
def test_one_core_of_two_gives_the_same_bits_and_tokens(compiled, family):
    """Its programs are those of the chip that has one (tests/end_to_end/test_made_up_chip.py)."""
    folder, bmodel = compiled(family, "bf16")
    assert_tokens_of_reference(folder, assert_same_session(bmodel, PROMPT, TOKENS))


def test_a_file_that_samples_gives_the_same_bits_and_tokens(tiny_checkpoint, tmp_path, target):
    """Its head gives logits; the client takes the largest by another net."""
    folder = tiny_checkpoint("qwen3", tied=True)
    options = ConvertOptions(folder, 64, "w4bf16", out_dir=tmp_path / "out", do_sample=True, **target)
    bmodel = convert(options)
    assert bmodel is not None
    assert_same_session(bmodel, PROMPT, TOKENS)
    assert_same_candidates(bmodel, PROMPT, 3, Sampling(1.3, 0.8, 20, 0.9))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_net_gives_the_same_bits_on_noise(compiled, family):
    """Inputs that no session makes: large padding, masks with holes, positions out of order."""
    _, bmodel = compiled(family, "w4bf16")
    nets = ("embedding", "embedding_cache", "block_0", "block_cache_1", "lm_head")
    assert_same_on_vendor(bmodel, {net: random_inputs(bmodel, net) for net in nets})


@pytest.mark.parametrize("keep", [0, 65536])
def test_runs_of_tokens_give_the_same_bits(compiled, keep):
    """Runs that end inside a row of lanes, with the weights read in each or kept; tiles of one row of lanes."""
    _, bmodel = compiled("qwen3", "w4bf16", 200, Effort(tokens=64, tile_bytes=1024, keep=keep))
    assert_same_on_vendor(bmodel, {"block_1": random_inputs(bmodel, "block_1")})


def assert_tokens_of_reference(folder: Path, tokens: list[int]) -> None:
    """Each token is the reference's best after the ones before, or as good as that."""
    logits = Reference(folder).trace(PROMPT + tokens[:-1]).logits[len(PROMPT) - 1 :]
    for step, (token, row) in enumerate(zip(tokens, logits, strict=True)):
        gap = row.max() - row[token]
        assert gap <= TIE * np.std(row), f"token {step} is {token}, the reference's {row.argmax()}"
