"""A hand-written net for two cores: the same bits on the vendor's C-model, in the simulator, and of numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compiler.bmodel import BModel, Net, read_bmodel, write_bmodel
from passes.emit_bmodel import bmodel_net, encode
from runtime_sim.check.contract import StageChecker
from runtime_sim.launch.loader import Program
from tests.conformance.same import assert_same_on_vendor
from tests.conformance.vendor_runtime import VendorFailed, VendorRuntime
from tests.passes.two_cores import SHAPE, SPEC, one_core, placed, two_cores

LAUNCHES = 30  # one in eight goes well

pytestmark = [pytest.mark.vendor, pytest.mark.usefixtures("vendor")]


def net_for_two(**changes) -> Net:
    functions = placed(two_cores(**changes)).functions()
    return bmodel_net([{function: encode(function) for function in functions}], None, None, cores=2)


def inputs(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(SHAPE).astype(np.float32) for name in "ab"}


def written(tmp_path: Path, *nets: Net) -> Path:
    write_bmodel(tmp_path / "cores.bmodel", BModel(SPEC.chip, list(nets)))
    return tmp_path / "cores.bmodel"


def test_two_cores_exchange_what_they_loaded(tmp_path):
    path = written(tmp_path, net_for_two())
    program = Program(read_bmodel(path))
    stage = program.stage("sum")
    assert list(StageChecker(program.spec).problems(stage, [stage])) == []
    given = [inputs(seed) for seed in range(3)]
    for each in given:
        assert_same_on_vendor(path, {"sum": each})
    with VendorRuntime(path) as vendor:  # one process: messages are free again at each launch
        for each in given:
            found = vendor.run("sum", each)
            np.testing.assert_array_equal(found["y"], each["a"] + each["b"])
            np.testing.assert_array_equal(found["z"], each["a"] + each["b"])


def test_a_core_without_work_needs_no_meeting(tmp_path):
    """Its streams end at once, in a file whose other net has work for both."""
    (function,) = placed(one_core()).functions()
    path = written(tmp_path, bmodel_net([{function: encode(function)}], None, None, cores=2), net_for_two())
    assert [stage.cores[1].dma_count for net in read_bmodel(path).nets for stage in net.stages] == [1, 11]
    for seed in range(2):
        assert_same_on_vendor(path, {"alone": inputs(seed), "sum": inputs(seed + 2)})


def test_a_message_used_twice_in_a_row_aborts(tmp_path):
    """As the proof says, see `runtime_sim.check.waits`; not at each launch, since cores race for it."""
    path = written(tmp_path, net_for_two(middle=30))
    with (
        pytest.raises(VendorFailed, match=r"(?s)running sum .* ended with status"),
        VendorRuntime(path, time_limit=60) as vendor,
    ):
        launch_often(vendor)


def launch_often(vendor: VendorRuntime) -> None:
    for seed in range(LAUNCHES):
        vendor.run("sum", inputs(seed))
