"""The vendor's runtime and C-model against our simulator, and the driver that runs them."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from compiler.bmodel import read_bmodel, write_bmodel
from runtime_sim.launch.runtime import NUMPY_TYPES
from tests.conformance.same import assert_equal_bits, assert_same_on_vendor, assert_same_session
from tests.conformance.vendor_runtime import VendorFailed, VendorRuntime
from tests.runtime_sim.check.programs import (
    ADD_TILES,
    add_model,
    changed_model,
    toy_model,
    toy_table,
    toy_tokens,
)

PROGRAMS = Path(__file__).resolve().parents[3] / "shared/data/vendor_programs/bm1684x"

pytestmark = [pytest.mark.vendor, pytest.mark.usefixtures("vendor")]


def add_inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {name: rng.standard_normal((ADD_TILES, 64, 48)).astype(ml_dtypes.bfloat16) for name in "ab"}


@pytest.fixture
def add_file(tmp_path) -> Path:
    write_bmodel(tmp_path / "add.bmodel", add_model())
    return tmp_path / "add.bmodel"


@pytest.fixture
def toy_file(tmp_path) -> Path:
    write_bmodel(tmp_path / "toy.bmodel", toy_model())
    return tmp_path / "toy.bmodel"


def test_a_hand_written_program_of_our_writer(add_file):
    assert_same_on_vendor(add_file, {"add": add_inputs()})


def test_nets_with_weights_of_our_writer(toy_file):
    ids = np.array([[3, 5, 0, 39, 1, 1, 2, 4]], np.int32)
    assert_same_on_vendor(toy_file, {"embedding": {"input_ids": ids}})
    with VendorRuntime(toy_file) as vendor:
        states = vendor.run("embedding", {"input_ids": ids})["states"]
    np.testing.assert_array_equal(states[0].view(np.int32), toy_table()[ids[0]])


def test_a_session_by_the_client_contract(toy_file):
    assert assert_same_session(toy_file, [3, 17, 5], 6) == toy_tokens(5, 6)


@pytest.mark.shared
@pytest.mark.parametrize("net", ["block_0", "block_cache_0"])
@pytest.mark.parametrize("rewritten", [False, True], ids=["theirs", "rewritten"])
def test_programs_of_the_vendors_compiler(tmp_path, net, rewritten):
    """Their file, and the same net written by us: outputs as recorded. The simulator's are compared elsewhere."""
    path = PROGRAMS / f"{net}.bmodel"
    if not path.exists():
        pytest.skip(f"NOT RUN: {path} is missing")
    model = read_bmodel(path)
    stage = model.net(net).stages[0]
    with np.load(path.with_suffix(".npz")) as arrays:
        inputs = {
            each.name: arrays[f"in.{each.name}"].astype(NUMPY_TYPES[each.dtype]) for each in stage.inputs
        }
        outputs = {
            each.name: arrays[f"out.{each.name}"].astype(NUMPY_TYPES[each.dtype]) for each in stage.outputs
        }
    if rewritten:
        path = tmp_path / "again.bmodel"
        write_bmodel(path, model)
    with VendorRuntime(path) as vendor:
        for name, output in vendor.run(net, inputs).items():
            assert_equal_bits(name, output, outputs[name])


def test_a_program_that_hangs_is_stopped(tmp_path):
    write_bmodel(tmp_path / "hang.bmodel", changed_model(add_model(), "tiu", 1, cmd_id_dep=99))
    with (
        pytest.raises(VendorFailed, match=r"running add hang\.bmodel took over 5 s"),
        VendorRuntime(tmp_path / "hang.bmodel", time_limit=5) as vendor,
    ):
        vendor.run("add", add_inputs())


def test_a_crash_of_the_runtime_is_reported(tmp_path):
    """A transfer to memory that is not there makes the C-model abort."""
    broken = changed_model(add_model(), "dma", 7, dst_start_addr_h8=0, dst_start_addr_l32=0x3000)
    write_bmodel(tmp_path / "broken.bmodel", broken)
    with (
        pytest.raises(VendorFailed, match=r"(?s)running add .* ended with status .*dst_mem"),
        VendorRuntime(tmp_path / "broken.bmodel", time_limit=60) as vendor,
    ):
        vendor.run("add", add_inputs())
