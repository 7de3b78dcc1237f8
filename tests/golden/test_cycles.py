"""How long the nets of a model take, by both estimates of `compiler.target.timing`: a slower program is a failure.

One layer of SmolLM2-135M's shape, with random weights and a small vocabulary, tuned as for a user.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from driver.convert import compiled_job
from driver.options import ConvertOptions
from frontend.load import open_model
from passes import load_all
from runtime_sim.launch.loader import Program
from runtime_sim.tool.measured import measure_file
from tests.golden.conftest import FOLDER, rewrites

SHAPE = {"layers": 1, "hidden": 576, "heads": 9, "kv_heads": 3, "head_dim": 64, "intermediate": 1536, "vocab": 2048}
HISTORY, PROMPT = 512, 64  # tokens
SLACK = 0.02  # of a number; other choices of the search may cost as much

Cycles = dict[str, list[int]]  # net: plain and cautious estimate


def measured(folder: Path, mode: str) -> Cycles:
    load_all()
    options = ConvertOptions(folder, HISTORY, mode, max_input_length=PROMPT)
    nets = measure_file(Program(compiled_job(options, open_model(folder)).bmodel())).model.nets
    return {name: [timing.cycles, timing.cycles_cautious] for name, timing in nets.items()}


def slower(known: Cycles, found: Cycles) -> list[str]:
    return [f"{net}: {found[net]}, was {cycles}" for net, cycles in known.items() if beyond(found[net], cycles)]


def beyond(found: list[int], known: list[int]) -> bool:
    """Whether an estimate is larger than the known one by more than the slack."""
    return any(new > old * (1 + SLACK) for new, old in zip(found, known, strict=True))


@pytest.mark.parametrize("mode", ["w4bf16", "bf16"])
def test_no_net_takes_longer(tiny_checkpoint, request, mode):
    path = FOLDER / f"cycles.{mode}.txt"
    found = measured(tiny_checkpoint("llama", tied=True, **SHAPE), mode)
    if rewrites(request.config):
        path.write_text("".join(f"{net} {plain} {cautious}\n" for net, (plain, cautious) in found.items()))
    rows = (line.split() for line in path.read_text().splitlines())
    known = {net: [int(plain), int(cautious)] for net, plain, cautious in rows}
    assert sorted(found) == sorted(known)
    assert slower(known, found) == [], "if it must be so, run `make golden` and say why"
    if faster := slower(found, known):
        warnings.warn(f"{mode} is faster: keep it so with `make golden`: {faster}", stacklevel=1)


def test_two_percent_are_allowed_in_either_estimate():
    known = {"block_0": [1000, 2000]}
    assert slower(known, {"block_0": [1020, 2040]}) == []
    assert slower(known, {"block_0": [1021, 2000]}) == ["block_0: [1021, 2000], was [1000, 2000]"]
    assert slower(known, {"block_0": [900, 2041]})
