"""Nets that two cores compute together: the functions of both are run, and one's mistake is found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.driver.bisect.broken import LAYER, SIZES, Compiled, change_dump, check
from tests.driver.bisect.test_bisect import partings
from tests.driver.bisect.test_chip import shift_result
from tests.driver.bisect.test_values import drop_gain


@pytest.fixture(scope="module")
def two_cores(tiny_checkpoint, tmp_path_factory):
    return Compiled(tiny_checkpoint("qwen3", layers=2, **SIZES), tmp_path_factory.mktemp("cores"), chip="bm1688")


@pytest.mark.parametrize("net", ["embedding", "block_0", "block_cache_0", "lm_head"])
def test_nets_without_mistake_do_not_part(two_cores, net):
    assert two_cores.report(net)[-1] == f"{net} does not part from the reference"


@pytest.mark.parametrize("name", ["block_0", "block_cache_0"])
def test_no_op_of_either_core_parts(two_cores, name):
    assert list(partings(two_cores, name)) == []


@pytest.mark.parametrize("core", [0, 1])
def test_a_gain_lost_on_one_core(two_cores, tmp_path, core):
    dumps = Path(shutil.copytree(two_cores.dumps, tmp_path / "ir"))
    place = "post_attention_layernorm"
    line = change_dump(dumps, "fuse-gate-up", drop_gain(place), f"block.core{core}")
    check(two_cores.report("block_0", dumps), "fuse-gate-up", f"{LAYER}.{place}", line)


@pytest.mark.parametrize("core", [0, 1])
def test_a_result_shifted_on_one_core(two_cores, tmp_path, core):
    dumps = Path(shutil.copytree(two_cores.dumps, tmp_path / "ir"))
    change_dump(dumps, "tensor-to-chip", shift_result, f"block.core{core}")
    report = two_cores.report("block_0", dumps)
    assert "in pass tensor-to-chip, " in report[-2]
    assert report[-1].startswith("first op: ")
    assert "mlp" in report[-1].splitlines()[0]
