"""`run`: arrays that go into a net and come out of it, and files that hold none."""

import zipfile

import ml_dtypes
import numpy as np
import pytest

from runtime_sim.tool.run import widen
from tests.runtime_sim.check import cores
from tests.runtime_sim.check.programs import ADD_TILES, add_model

SHAPE = (ADD_TILES, 64, 48)


def test_run_writes_outputs(tool, tmp_path):
    rng = np.random.default_rng(0)
    inputs = {name: rng.integers(-8, 8, SHAPE).astype(np.float32) for name in "ab"}
    np.savez(tmp_path / "in.npz", **inputs)
    code, *_ = tool(add_model(), "run", "add", "--input", tmp_path / "in.npz", "--output", tmp_path / "y.npz")
    assert code == 0
    with np.load(tmp_path / "y.npz") as outputs:
        np.testing.assert_array_equal(outputs["y"], inputs["a"] + inputs["b"])


def run_sum(tool, tmp_path, model, *flags):
    """y of a net for two cores; None, and the errors, when the command fails."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "in.npz", **{name: rng.integers(-8, 8, cores.SHAPE).astype(np.float32) for name in "ab"})
    (tmp_path / "y.npz").unlink(missing_ok=True)
    files = ["--input", tmp_path / "in.npz", "--output", tmp_path / "y.npz"]
    code, _, errors = tool(model, "run", "sum", *files, *flags)
    if code:
        return None, errors
    with np.load(tmp_path / "in.npz") as given, np.load(tmp_path / "y.npz") as outputs:
        return (outputs["y"] == cores.wanted(given["a"], given["b"])).all(), errors


def test_cores_may_take_turns_in_other_orders(tool, tmp_path):
    assert all(run_sum(tool, tmp_path, cores.sum_model(), "--order", seed)[0] for seed in range(5))
    twice = cores.sum_model(messages=(30, 30, 31))  # whether one core is that far ahead is for the order to say
    found = [run_sum(tool, tmp_path, twice, "--order", seed)[1] for seed in range(5)]
    assert any("message 30 is in use" in errors for errors in found)


def test_an_order_below_zero_is_refused(tool, tmp_path):
    assert run_sum(tool, tmp_path, cores.sum_model(), "--order", -1) == (None, "error: --order -1: expected 0 or more\n")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(SHAPE)}, "there is no array 'b' (bf16 [4, 64, 48]) among ['a']"),
        ({"a": np.zeros(SHAPE), "b": np.zeros(3)}, "'b' has the shape (3,), b is (4, 64, 48)"),
        (None, "cannot be read as .npz"),
    ],
)
def test_bad_inputs_are_one_line_and_write_nothing(tool, tmp_path, arrays, message):
    (tmp_path / "in.npz").write_text("no")
    if arrays:
        np.savez(tmp_path / "in.npz", **arrays)
    code, _, err = tool(
        add_model(), "run", "add", "--input", tmp_path / "in.npz", "--output", tmp_path / "y.npz"
    )
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "y.npz").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": np.array([{}], object)}, "'a.npy' holds pickled objects"),
        ({"a": np.array(["text"])}, "'a' holds <U4"),
        ("npy", "not a zip file"),
        ("bomb", "'a.npy' has fewer bytes than its shape [1099511627776]"),
    ],
    ids=["pickle", "text", "npy", "bomb"],
)
def test_files_that_hold_no_arrays_for_a_net_are_refused(tool, tmp_path, content, message):
    path = tmp_path / "in.npz"
    if content == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(SHAPE))
    elif content == "bomb":
        header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)}
        with zipfile.ZipFile(path, "w") as archive, archive.open("a.npy", "w") as member:
            np.lib.format.write_array_header_1_0(member, header)
    else:
        arrays = {name: np.broadcast_to(array, SHAPE) for name, array in content.items()}
        np.savez(path, **arrays)
    code, _, err = tool(add_model(), "run", "add", "--input", path, "--output", tmp_path / "y.npz")
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_an_output_that_cannot_be_written_is_told_first(tool, tmp_path):
    for output in (tmp_path / "none" / "y.npz", tmp_path):
        code, _, err = tool(add_model(), "run", "add", "--input", tmp_path / "none.npz", "--output", output)
        assert code == 2
        assert f"cannot write {output}: " in err


def test_bf16_outputs_are_widened_without_change():
    array = np.array([1.5, -3], ml_dtypes.bfloat16)
    assert widen(array).dtype == np.float32
    np.testing.assert_array_equal(widen(array), array.astype(np.float32))
